"""Rows that cannot be read: what is whole of a session, and a place for the rest (functions inside a transaction)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, LargeBinary, Table, Text, cast, delete, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from edi_storage import queries
from edi_storage.errors import DatabaseDamagedError
from edi_storage.models import StageCommit
from edi_storage.state import Json, digest, merge_patch
from edi_storage.tables import Base, LeaseRow, QuarantineRow, SessionRow, StageCommitRow

#: What reading a garbled value raises (a time or JSON that is none), beside what the driver itself raises.
_UNREADABLE = (DatabaseDamagedError, ValidationError, ValueError, TypeError, DBAPIError)


def whole_commits(connection: Connection, session_id: str) -> list[StageCommit]:
    """The boundaries before the first that is missing, unreadable, or not as it was committed."""
    whole: list[StageCommit] = []
    state: Json = {}
    for commit in _readable_commits(connection, session_id):
        state = merge_patch(state, commit.state_delta)
        if digest(state) != commit.sha256 or (whole and commit.seq != whole[-1].seq + 1):
            break
        whole.append(commit)
    return whole


def _readable_commits(connection: Connection, session_id: str) -> Iterator[StageCommit]:
    """The boundaries up to the first that cannot be read. One garbled row spoils a query for all of them."""
    unreadable = (*_UNREADABLE, connection.dialect.loaded_dbapi.Error)
    try:
        yield from queries.commits(connection, session_id)
        return
    except unreadable:
        mine = StageCommitRow.session_id == session_id
        numbers = connection.execute(select(StageCommitRow.seq).where(mine).order_by(StageCommitRow.seq)).scalars()
    for seq in list(numbers):
        try:
            found = queries.commit_at(connection, session_id, seq)
        except unreadable:
            return
        if found:
            yield found


def next_fence(connection: Connection, session_id: str) -> int:
    """A fence above every one before, read without the rest of the lease."""
    fence = connection.execute(select(LeaseRow.fence).where(LeaseRow.session_id == session_id)).scalar()
    return (fence or 0) + 1


def set_session_aside(connection: Connection, session_id: str, reason: str) -> None:
    """Move every row of a session to `quarantine`, as it stands."""
    for table in _tables_of_sessions():
        _set_aside(connection, table, table.c.session_id == session_id, reason)
    sessions = Base.metadata.tables[SessionRow.__tablename__]
    _set_aside(connection, sessions, sessions.c.id == session_id, reason)


def orphans(connection: Connection) -> dict[str, int]:
    """How many rows of each table belong to a session that is not there; only a foreign tool can leave such."""
    return {
        table.name: count
        for table in _tables_of_sessions()
        if (count := len(connection.execute(select(table.c.session_id).where(_is_orphan(table))).all()))
    }


def set_orphans_aside(connection: Connection) -> None:
    """Move rows without a session to `quarantine`."""
    for table in _tables_of_sessions():
        _set_aside(connection, table, _is_orphan(table), "its session is not there")


def _tables_of_sessions() -> list[Table]:
    """The tables whose rows belong to a session and go with it."""
    return [table for table in Base.metadata.sorted_tables if "session_id" in table.c and table.foreign_keys]


def _is_orphan(table: Table) -> ColumnElement[bool]:
    return table.c.session_id.not_in(select(SessionRow.id))


def _set_aside(connection: Connection, table: Table, which: ColumnElement[bool], reason: str) -> None:
    # As bytes: a text that is no UTF-8 cannot be read as what it is.
    kind: TypeEngine[Any] = LargeBinary() if connection.dialect.name == "sqlite" else Text()
    columns = [cast(column, kind).label(column.name) for column in table.c]
    for row in connection.execute(select(*columns).where(which)).mappings().all():
        aside = {"table_name": table.name, "row_json": _as_json(dict(row)), "reason": reason, "revision": "doctor"}
        connection.execute(insert(QuarantineRow).values(aside))
    connection.execute(delete(table).where(which))


def _as_json(row: dict[str, Any]) -> str:
    plain = {
        name: value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
        for name, value in row.items()
    }
    return json.dumps(plain, ensure_ascii=False)
