"""Writing rows as they come: JSON lines with pictures beside them, or parquet with pictures inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from edi_storage.errors import InputError
from edi_storage.exports.formats import Format, Row

#: Rows kept in memory until a row group is written: pictures are megabytes.
_ROWS_WITH_PICTURES: Final = 8
_ROWS: Final = 1000
#: Which formats hold everything in one file each split.
PARQUET: Final[frozenset[Format]] = frozenset({"parquet", "diffusion-dpo", "magicbrush"})


class Writer(Protocol):
    """Writes the rows of one export, split by split. A picture in a row is (its name, what makes its bytes) or None."""

    def add(self, split: str, row: Row) -> None:
        """Write one row."""

    def close(self) -> Mapping[str, str]:
        """End all files, also for the second time; returns the file of each split that has rows."""


Picture = tuple[str, Callable[[], bytes]]


class JsonLines:
    """One JSON object a line, pictures as files in `images/`."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self._folder, self._columns = folder, columns
        self._files: dict[str, Any] = {}

    def add(self, split: str, row: Row) -> None:
        """Write one row, and its pictures unless they are there."""
        plain = {name: self._value(kind, row[name]) for name, kind in self._columns.items()}
        if split not in self._files:
            self._files[split] = (self._folder / f"{split}.jsonl").open("w", encoding="utf-8")
        self._files[split].write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")

    def _value(self, kind: str, value: Any) -> Any:
        if kind != "picture" or value is None:
            return value
        name, make = value
        path = self._folder / "images" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(make())
        return f"images/{name}"

    def close(self) -> Mapping[str, str]:
        """End all files."""
        for file in self._files.values():
            file.close()
        return {split: f"{split}.jsonl" for split in sorted(self._files)}


class Parquet:
    """One parquet file a split; pictures as {bytes, path}, which readers of data sets show as pictures."""

    def __init__(self, folder: Path, columns: Mapping[str, str]) -> None:
        self._arrow = load_pyarrow()
        self._folder = folder
        self._columns = columns
        self._limit = _ROWS_WITH_PICTURES if "picture" in columns.values() else _ROWS
        self._waiting: dict[str, list[Row]] = {}
        self._files: dict[str, Any] = {}

    def add(self, split: str, row: Row) -> None:
        """Keep one row until there are enough for a row group."""
        rows = self._waiting.setdefault(split, [])
        rows.append({name: _embedded(kind, row[name]) for name, kind in self._columns.items()})
        if len(rows) >= self._limit:
            self._flush(split)

    def _flush(self, split: str) -> None:
        arrow, parquet = self._arrow
        if split not in self._files:
            path = self._folder / f"{split}.parquet"
            self._files[split] = parquet.ParquetWriter(path, _schema(arrow, self._columns), compression="zstd")
        rows = self._waiting.pop(split, [])
        if rows:
            self._files[split].write_table(arrow.Table.from_pylist(rows, schema=_schema(arrow, self._columns)))

    def close(self) -> Mapping[str, str]:
        """Write what is left, and end all files."""
        for split in list(self._waiting):
            self._flush(split)
        for file in self._files.values():
            file.close()
        return {split: f"{split}.parquet" for split in sorted(self._files)}


def _embedded(kind: str, value: Any) -> Any:
    if kind != "picture" or value is None:
        return value
    name, make = value
    return {"bytes": make(), "path": name}


def _schema(arrow: Any, columns: Mapping[str, str]) -> Any:
    kinds = {
        "text": arrow.string(),
        "texts": arrow.list_(arrow.string()),
        "number": arrow.float64(),
        "count": arrow.int32(),
        "truth": arrow.bool_(),
        "picture": arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}),
    }
    return arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module. Raises InputError, saying how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "This format needs pyarrow, which is not installed: pip install 'edi-edit[export]', or choose jsonl, trl "
            "or kto."
        ) from None
    return pyarrow, pyarrow.parquet
