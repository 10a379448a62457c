"""Revision 0002's judgement of the seed's rows: kept, or set aside in `quarantine` with the reason.

Frozen with that revision: it must judge the same rows the same way for ever, so it shares no rule with the
models of today.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from edi_storage.errors import DatabaseError

Row = dict[str, Any]
#: Returns the value to keep; raises ValueError with what is wrong with it.
Reader = Callable[[Any], Any]

_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_BATCH = 500


# --- What a column may hold --------------------------------------------------------------------------


def _text(value: Any) -> str:
    if value is None:
        raise ValueError("is missing")
    if not isinstance(value, str):
        raise ValueError("is not text")  # noqa: TRY004 - one kind of refusal
    if "\x00" in value:
        raise ValueError("contains a NUL character")
    return value


def _session_id(value: Any) -> str:
    text = _text(value)
    if not _SESSION_ID.fullmatch(text) or text.lower() in _WINDOWS_DEVICES:
        raise ValueError(f"is {text!r}, which cannot be a session's id")
    return text


def _name(value: Any) -> str:
    if not (text := _text(value)):
        raise ValueError("is empty")
    return text


def _one_of(*choices: str) -> Reader:
    def read(value: Any) -> str:
        if (text := _text(value)) not in choices:
            raise ValueError(f"is {text!r}, not one of {', '.join(choices)}")
        return text

    return read


#: The largest whole number that every database has a column for.
_MOST = 2**31 - 1


def _whole(least: int, most: int = _MOST) -> Reader:
    wanted = f"a whole number from {least}" + (f" to {most}" if most < _MOST else "")

    def read(value: Any) -> int:
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError("is missing" if value is None else f"is {_shown(value)}, not {wanted}")
        return value

    return read


def _number(low: float, high: float) -> Reader:
    def read(value: Any) -> float:
        if not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"is {_shown(value)}, not a number from {low} to {high}")
        return float(value)

    return read


def _moment(value: Any) -> Any:
    """A time in the seed's own form, `2026-11-22 22:15:00`; other ISO forms are rewritten, in UTC."""
    if isinstance(value, datetime):  # a server's driver has parsed it
        return value
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        raise ValueError("is missing" if value is None else f"is {_shown(value)}, not a time") from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(" ")


def _json(value: Any) -> str:
    text = _text(value)
    try:
        json.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    return text


def _color(value: Any) -> str:
    if not _COLOR.fullmatch(_text(value)):
        raise ValueError(f"is {value!r}, not a colour such as #87ceeb")
    return str(value)


def _optional(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."


# --- The tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    name: str
    columns: Mapping[str, Reader]
    #: The column that, with session_id, makes two rows the same one.
    key: str = ""
    #: Values of the new columns.
    added: Callable[[Row], Row] = field(default=lambda row: {})


_SESSIONS = _Table(
    "sessions",
    {
        "id": _session_id,
        "created_at": _moment,
        "image_path": _text,
        "naive_prompt": _text,
        "status": _one_of("in_progress", "completed", "failed"),
        "final_alignment_score": _optional(_number(0, 1)),
    },
)
_CHILDREN = (
    _Table(
        "prompts",
        {
            "id": int,
            "session_id": _session_id,
            "iteration": _whole(0),
            "positive_prompt": _optional(_text),
            "negative_prompt": _optional(_text),
            "quality_score": _optional(_number(0, 1)),
            "created_at": _moment,
        },
        key="iteration",
        added=lambda row: {"attempt_number": 1},
    ),
    _Table(
        "entities",
        {
            "id": int,
            "session_id": _session_id,
            "entity_id": _name,
            "label": _optional(_text),
            "confidence": _optional(_number(0, 1)),
            "bbox_json": _optional(_json),
            "mask_path": _optional(_text),
            "color_hex": _optional(_color),
            "area_percent": _optional(_number(0, 100)),
        },
        key="entity_id",
    ),
    _Table(
        "validations",
        {
            "id": int,
            "session_id": _session_id,
            "attempt_number": _whole(0),
            "alignment_score": _optional(_number(0, 1)),
            "preserved_count": _optional(_whole(0)),
            "modified_count": _optional(_whole(0)),
            "unintended_count": _optional(_whole(0)),
            "user_feedback": _optional(_text),
            "created_at": _moment,
        },
        key="attempt_number",
    ),
    _Table(
        "user_feedback",
        {
            "id": int,
            "session_id": _session_id,
            "feedback_type": _one_of("accept", "reject", "partial"),
            "comments": _optional(_text),
            "rating": _optional(_whole(1, 5)),
            "created_at": _moment,
        },
        key="id",
        added=lambda row: {"feedback_key": f"seed-{row['id']}"},
    ),
)


# --- Moving ------------------------------------------------------------------------------------------


def move_rows(connection: sa.Connection, revision: str) -> None:
    """Move every row of the `seed_*` tables to its new table or to quarantine. Raises if the counts disagree."""
    for table in (_SESSIONS, *_CHILDREN):
        with _any_text(connection):
            kept, refused = _move(connection, table, revision)
        _check_counts(connection, table.name, kept, refused)
        _keep_numbering(connection, table.name)


def _move(connection: sa.Connection, table: _Table, revision: str) -> tuple[int, int]:
    kept = refused = 0
    rows = connection.exec_driver_sql(_select(table)).mappings()
    previous: tuple[Any, ...] = ()
    for batch in rows.partitions(_BATCH):
        good: list[Row] = []
        bad: list[Row] = []
        for found in batch:
            row = dict(found)
            try:
                values = _judge(table, row, previous)
            except ValueError as reason:
                bad.append({"table_name": table.name, "row_json": _dump(row), "reason": str(reason)})
            else:
                good.append(values)
                previous = _key(table, values)
        _insert(connection, table.name, good)
        _insert(connection, "quarantine", [row | {"revision": revision} for row in bad])
        kept, refused = kept + len(good), refused + len(bad)
    return kept, refused


def _select(table: _Table) -> str:
    if not table.key:
        return f"SELECT {', '.join(table.columns)} FROM seed_{table.name}"  # noqa: S608 - names from this file
    columns = ", ".join(f"old.{name}" for name in table.columns)
    # Rows of one key side by side, the newest first: that one is kept.
    return (
        f"SELECT {columns}, parent.id AS kept_session FROM seed_{table.name} AS old "  # noqa: S608
        "LEFT JOIN sessions AS parent ON parent.id = old.session_id "
        f"ORDER BY old.session_id, old.{table.key}, old.id DESC"
    )


def _judge(table: _Table, row: Row, previous: tuple[Any, ...]) -> Row:
    """The row for the new table. Raises ValueError with the reason when it has no place there."""
    parent = row.pop("kept_session", None)
    values = {}
    for name, reader in table.columns.items():
        try:
            values[name] = reader(row[name])
        except ValueError as problem:
            raise ValueError(f"{name} {problem}") from None
    if table.key and parent is None:
        raise ValueError(f"session {values['session_id']!r} is not there")
    if table.key and _key(table, values) == previous:
        raise ValueError(f"a newer row of the same session has {table.key} {_shown(values[table.key])} too")
    return values | table.added(values)


def _key(table: _Table, values: Row) -> tuple[Any, ...]:
    return (values["session_id"], values[table.key]) if table.key else ()


def _insert(connection: sa.Connection, table: str, rows: list[Row]) -> None:
    if rows:
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in rows[0]]
        connection.execute(sa.insert(sa.table(table, *columns)), rows)


def _dump(row: Row) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items()}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; bytes as hexadecimal, so that the row can be had back."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value if value is None or isinstance(value, int | float | str) else str(value)


@contextmanager
def _any_text(connection: sa.Connection) -> Iterator[None]:
    """Read text that is not UTF-8 as bytes, where SQLite's driver would raise."""
    if connection.dialect.name != "sqlite":
        yield
        return
    raw: Any = connection.connection.dbapi_connection
    before = raw.text_factory
    raw.text_factory = _decoded
    try:
        yield
    finally:
        raw.text_factory = before


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _check_counts(connection: sa.Connection, table: str, kept: int, refused: int) -> None:
    """Count again in the tables themselves: before = after + quarantined."""
    before = _count(connection, f"seed_{table}")
    after = _count(connection, table)
    if before != after + refused or after != kept:
        raise DatabaseError(
            f"The upgrade of {table} would keep {after} rows and set {refused} aside, but there were {before}: "
            "nothing was changed."
        )


def _count(connection: sa.Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608


def _keep_numbering(connection: sa.Connection, table: str) -> None:
    """An id that was used once is never given again, even if its row is gone."""
    if connection.dialect.name == "postgresql" and table != "sessions":
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), greatest(max(id), 1)) FROM seed_{table}"  # noqa: S608
        )
    if connection.dialect.name == "sqlite":
        sequence = "SELECT seq FROM sqlite_sequence WHERE name = ?"
        last = connection.exec_driver_sql(sequence, (f"seed_{table}",)).scalar()
        if last is not None:
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))
