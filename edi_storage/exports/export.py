"""One export, written whole: a folder beside the wanted one that takes its place when it is done."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from filelock import FileLock, Timeout

from edi_storage.errors import EdiError, InputError
from edi_storage.exports.card import card
from edi_storage.exports.examples import Example, example_of
from edi_storage.exports.formats import Context, Format, Masks, Photo, Row, columns, rows
from edi_storage.exports.privacy import Pseudonyms
from edi_storage.exports.writers import PARQUET, JsonLines, Parquet, Picture, Writer
from edi_storage.files import StorageError
from edi_storage.models import Artifact
from edi_storage.record import Count, Record
from edi_storage.store import Store

#: What tells an earlier export from somebody's folder.
MARKER: Final = "edi-export.json"
_LOCK: Final = "export.lock"


class Pictures(Protocol):
    """Encodes stored pictures anew, without metadata. Raises EdiError for what cannot be decoded."""

    def photo(self, data: bytes) -> bytes:
        """A JPEG in sRGB of a stored photo."""

    def mask(self, data: Sequence[bytes]) -> bytes:
        """A PNG, white where any of these stored masks is."""


class Exported(Record):
    """What an export holds. `skipped` are results whose pictures are lost (`edi doctor` says more)."""

    folder: str
    format: str
    sessions: Count
    rows: dict[str, Count]
    skipped: Count = 0


def export(
    store: Store, home: Path, out: Path, format_: Format, pictures: Pictures, *, comments: bool = False
) -> Exported:
    """Write what was judged in sessions with consent `export` to the folder `out`, in place of an earlier export.

    Sessions are read one by one, so a long history takes time, not memory. Raises InputError for a folder that holds
    anything else, or without pyarrow where that is needed; StorageError when it cannot be written.
    """
    out = out.expanduser().absolute()
    _refuse_foreign(out)
    names = Pseudonyms.of_home(home)
    with _alone(home), _taking_its_place(out) as folder:
        writer: Writer = (Parquet if format_ in PARQUET else JsonLines)(folder, columns(format_, comments=comments))
        run = _Run(store, names, pictures, writer)
        with closing(writer):
            for example in _examples(store):
                run.add(example, format_, Context(names, comments))
            files = writer.close()
        counts = {split: run.counts[split] for split in files}
        _describe(folder, format_, files, counts, comments)
    return Exported(folder=str(out), format=format_, sessions=run.sessions, rows=dict(run.counts), skipped=run.skipped)


def _examples(store: Store) -> Iterator[Example]:
    after = ""
    while ids := store.database.shared_session_ids(after):
        for session_id in ids:
            presets = {made.attempt: made.preset for made in store.database.get_decisions(session_id)}
            if example := example_of(store.database.load_session(session_id), presets):
                yield example
        after = ids[-1]


class _Run:
    """Puts pictures in their places, row by row, and counts."""

    def __init__(self, store: Store, names: Pseudonyms, pictures: Pictures, writer: Writer) -> None:
        self._store, self._names, self._pictures, self._writer = store, names, pictures, writer
        self.counts: Counter[str] = Counter()
        self.sessions = self.skipped = 0

    def add(self, example: Example, format_: Format, context: Context) -> None:
        """Write the rows of an example."""
        split, before = self._names.split(example.source.sha256), self.counts.total()
        for row in rows(format_, example, context):
            try:
                self._writer.add(split, self._with_pictures(row))
            except EdiError:
                self.skipped += 1
            else:
                self.counts[split] += 1
        self.sessions += self.counts.total() > before

    def _with_pictures(self, row: Row) -> Row:
        return {name: self._filled(value) for name, value in row.items()}

    def _filled(self, value: Any) -> Any:
        match value:
            case Photo(artifact):
                return self._picture("picture", [artifact], ".jpg")
            case Masks(artifacts):
                return self._picture("mask", artifacts, ".png") if artifacts else None
            case _:
                return value

    def _picture(self, kind: str, artifacts: Sequence[Artifact], suffix: str) -> Picture:
        # Read before the row is begun: a row is written with all its pictures or not at all.
        data = [self._store.files.read(artifact.path) for artifact in artifacts]
        name = self._names.name(kind, "+".join(artifact.sha256 for artifact in artifacts))
        make = partial(self._pictures.photo, data[0]) if kind == "picture" else partial(self._pictures.mask, data)
        return f"{name}{suffix}", make


def _describe(folder: Path, format_: Format, files: Any, counts: Any, comments: bool) -> None:
    (folder / "README.md").write_text(card(format_, files, counts, comments=comments), encoding="utf-8")
    about = {"made_by": "edi export", "format": format_, "comments": comments, "rows": counts}
    (folder / MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


# --- The folder ---------------------------------------------------------------------------------------


def _refuse_foreign(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: name a folder in one that exists.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out} is not a folder: name another one.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise InputError(f"{out} is not empty, and not an earlier export: name another folder.")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One export at a time."""
    try:
        with FileLock(home / _LOCK, timeout=0):
            yield
    except Timeout:
        raise InputError("Another export is at work: try again when it is done.") from None


@contextmanager
def _taking_its_place(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that becomes it at the end, or is removed. What a killed export left goes first."""
    for left in out.parent.glob(f".{out.name}.*.edi-export"):
        shutil.rmtree(left, ignore_errors=True)
    folder, old = (out.with_name(f".{out.name}.{secrets.token_hex(8)}.edi-export") for _ in range(2))
    try:
        folder.mkdir(mode=0o700)
        yield folder
        _sync(folder)
        _refuse_foreign(out)
        if out.exists():
            out.rename(old)
        folder.rename(out)
    except OSError as error:
        raise StorageError(f"{out} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """On the disk before it has its name, so that a power cut leaves no half data set."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
