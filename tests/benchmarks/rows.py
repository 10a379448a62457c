"""EDI's own tables, filled by the driver alone: what its rows cost somebody who keeps the state elsewhere.

No row is looked for before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from edi_storage.connection import sqlite_driver
from edi_storage.models import StageCommit
from edi_storage.record import Record
from edi_storage.rows import TABLES, session_values, values_of
from edi_storage.state import canonical, rows_of
from edi_storage.tables import Base
from tests.benchmarks.boundary import session

#: A statement, and the values of each row that it writes.
Statement = tuple[str, list[list[Any]]]


class RowsFile:
    """A SQLite file with EDI's tables; what it commits survives a power cut."""

    def __init__(self, path: Path) -> None:
        engine = create_engine(f"sqlite:///{path}")
        Base.metadata.create_all(engine)
        engine.dispose()
        self._database = sqlite_driver().connect(str(path), isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")

    def begin(self, session_id: str) -> None:
        """Insert the row of a session, which every boundary updates."""
        self.save([_insert("sessions", [session_values(session(session_id))])])

    def save(self, statements: Sequence[Statement]) -> None:
        """Write rows in one transaction."""
        self._database.execute("BEGIN IMMEDIATE")
        for statement, values in statements:
            self._database.executemany(statement, values)
        self._database.execute("COMMIT")


def statements_of(commit: StageCommit) -> list[Statement]:
    """What writes the rows of a boundary: those that it adds, and that of its session."""
    rows = rows_of(commit.state_delta)
    groups: list[Sequence[Record]] = [rows.entities, rows.prompts, rows.validations, rows.artifacts]
    groups += [[rows.intent]] if rows.intent else []
    inserts = [_insert_all(commit.session_id, group) for group in groups if group]
    changed = {"updated_at": commit.finished_at, **rows.session}
    places = ", ".join(f"{name} = ?" for name in changed)
    update = f"UPDATE sessions SET {places} WHERE id = ?"
    return [*inserts, (update, [[*map(_plain, changed.values()), commit.session_id]])]


def _insert_all(session_id: str, records: Sequence[Record]) -> Statement:
    table, _ = TABLES[type(records[0])]
    return _insert(table.__tablename__, [values_of(session_id, record) for record in records])


def _insert(table: str, values: Sequence[dict[str, Any]]) -> Statement:
    places = ", ".join("?" * len(values[0]))
    statement = f"INSERT INTO {table} ({', '.join(values[0])}) VALUES ({places})"
    return statement, [[_plain(value) for value in of_row.values()] for of_row in values]


def _plain(value: Any) -> Any:
    """A value as the driver takes it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return canonical(value) if isinstance(value, dict | list) else value
