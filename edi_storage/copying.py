"""Moves an installation: `edi db copy-to URL` and `edi storage copy-to URL` copy all of it to another place.

Both may be killed and run again: what is the same there already is not copied again. Neither returns before everything
was read back from the new place. The old place is only read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from edi_storage.connection import reading, without_password, writing
from edi_storage.database import EDIDatabase
from edi_storage.errors import DatabaseError, EdiError, InputError
from edi_storage.files import FileStore, StorageError
from edi_storage.tables import Base, LeaseRow, SessionRow

#: Rows of one transaction in the new place.
_ROWS = 1000
#: Files on their way at once: an object store answers after tens of milliseconds, whatever the size.
_FILES = 8

#: Told what is being copied, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Copied:
    """How much was copied, and how much was there already."""

    copied: int
    there: int


# --- The database ------------------------------------------------------------------------------------


def copy_database(source: EDIDatabase, target: EDIDatabase, progress: Progress = lambda *_: None) -> dict[str, Copied]:
    """Copy every row of every table, seen at one moment; returns the rows by table.

    Raises InputError while somebody works on a session of `source`, or when `target` has sessions of its own;
    DatabaseError when a table of the new place does not read back as the old one.
    """
    with reading(source.engine) as old:
        _refuse_while_at_work(source, old)
        with reading(target.engine) as new:
            _refuse_strangers(old, new, target)
        return {table.name: _copy_table(table, old, target, progress) for table in Base.metadata.sorted_tables}


def _refuse_while_at_work(source: EDIDatabase, old: Connection) -> None:
    lease = LeaseRow.__table__.c
    held = select(lease.session_id).where(lease.owner.is_not(None), lease.expires_at > source.clock()).limit(1)
    if busy := old.execute(held).scalar():
        raise InputError(f"Session {busy} is being worked on: end `edi serve` and all edits first, then copy again.")


def _refuse_strangers(old: Connection, new: Connection, target: EDIDatabase) -> None:
    """A database that is in use elsewhere must not be mixed with this one."""
    known = SessionRow.__table__.c.id
    for batch in _batches(new.execute(select(known).order_by(known)).scalars()):
        here = set(old.execute(select(known).where(known.in_(batch))).scalars())
        if strangers := [session_id for session_id in batch if session_id not in here]:
            where = without_password(target.url)
            raise InputError(f"{where} has sessions of its own, such as {strangers[0]}: copy to an empty database.")


def _copy_table(table: Table, old: Connection, target: EDIDatabase, progress: Progress) -> Copied:
    rows = old.execute(select(func.count()).select_from(table)).scalar_one()
    expected = _digest(old, table)
    if _digest_there(target, table) == expected:
        return Copied(0, rows)
    done = 0
    for batch in _batches(old.execute(_in_order(table)).mappings()):
        values = [dict(row) for row in batch]
        try:
            with writing(target.engine) as new:
                new.execute(_upsert(new, table), values)
        except IntegrityError as error:
            raise _differs(table, target) from error
        done += len(values)
        progress(table.name, done, rows)
    _continue_numbers(target, table)
    if _digest_there(target, table) != expected:
        raise _differs(table, target)
    return Copied(rows, 0)


def _differs(table: Table, target: EDIDatabase) -> EdiError:
    where = without_password(target.url)
    return DatabaseError(f"The table {table.name} of {where} has rows of its own: empty it, then try again.")


def _in_order(table: Table) -> Any:
    return select(table).order_by(*table.primary_key.columns)


def _batches(rows: Any) -> Iterator[Sequence[Any]]:
    while batch := rows.fetchmany(_ROWS):
        yield batch


def _upsert(connection: Connection, table: Table) -> Any:
    maker = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = maker(table)
    keys = [column.name for column in table.primary_key.columns]
    changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _continue_numbers(target: EDIDatabase, table: Table) -> None:
    """Let the next row get a new number: PostgreSQL does not notice numbers that were given, SQLite does."""
    number = table.autoincrement_column
    if number is None or target.engine.dialect.name != "postgresql":
        return
    with writing(target.engine) as new:
        highest = new.execute(select(func.max(number))).scalar()
        if highest is not None:
            name = new.execute(text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": table.name, "c": number.name})
            new.execute(select(func.setval(name.scalar_one(), highest)))


def _digest_there(target: EDIDatabase, table: Table) -> str:
    with reading(target.engine) as new:
        return _digest(new, table)


def _digest(connection: Connection, table: Table) -> str:
    """One digest of all rows of a table, the same on every kind of database."""
    digest = hashlib.sha256()
    for batch in _batches(connection.execution_options(stream_results=True).execute(_in_order(table))):
        for row in batch:
            digest.update(json.dumps(list(row), default=str, sort_keys=True).encode())
    return digest.hexdigest()


# --- The files ---------------------------------------------------------------------------------------


def copy_files(source: FileStore, target: FileStore, progress: Progress = lambda *_: None) -> Copied:
    """Copy every file; what stands at its place with other bytes is replaced. Each is read back.

    Raises InputError when both are the same place, StorageError for what cannot be read, written or read back.
    """
    if source.root == target.root:
        raise InputError(f"{source.root} is where the files are already: name another place.")
    paths = source.list()
    done = copied = 0
    with ThreadPoolExecutor(_FILES) as pool:
        for was_copied in pool.map(lambda path: _copy_file(source, target, path), paths):
            done, copied = done + 1, copied + was_copied
            progress("files", done, len(paths))
    return Copied(copied, done - copied)


def _copy_file(source: FileStore, target: FileStore, path: str) -> bool:
    data = source.read(path)
    if _holds(target, path, data):
        return False
    target.write_whole(path, data)
    if not _holds(target, path, data):
        raise StorageError(f"{target.full_path(path)} does not read back as it was written.")
    return True


def _holds(store: FileStore, path: str, data: bytes) -> bool:
    return store.exists(path) and store.read(path) == data
