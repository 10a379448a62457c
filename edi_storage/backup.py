"""Verified copies of a SQLite database, made while it is in use."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from edi_storage.connection import database_path, explaining, reading, sqlite_driver
from edi_storage.database_file import (
    APPLICATION_ID,
    check_file,
    damaged,
    explaining_driver,
    make_private_folder,
    publish,
    temporary_beside,
)
from edi_storage.errors import DatabaseError, InputError
from edi_storage.owner import no_longer_runs

#: A copy under way is younger than this; an older one was left by a killed process.
_LEFTOVER_AFTER_SECONDS = 3600.0

#: What `temporary_beside` names, and what SQLite may put beside it.
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)-[0-9a-f]{16}\.tmp(-journal|-wal|-shm)?")

Counts = dict[str, int]


def backup(engine: Engine, destination_dir: Path, *, now: Callable[[], datetime] | None = None) -> Path:
    """Copy the database into `destination_dir` and return the copy's path, dated and named by its revision.

    The copy is one moment of the database; readers and (in WAL mode) writers go on meanwhile. It gets its
    name only after it was read back, compared with the original and synced. Raises InputError for a database
    server, DatabaseDamagedError when the original or the copy is not sound.
    """
    path = database_path(engine)
    if path is None:
        raise InputError("Only SQLite databases are copied by EDI: use pg_dump for a database server.")
    moment = now() if now else datetime.now(UTC)
    with explaining(engine):
        make_private_folder(destination_dir)
        remove_leftovers(destination_dir)
        temporary = temporary_beside(destination_dir / path.name)
        try:
            revision = _copy(engine, temporary)
            return _give_name(temporary, destination_dir / f"{path.stem}-{moment:%Y%m%dT%H%M%SZ}-{revision:04d}")
        finally:
            temporary.unlink(missing_ok=True)


def _copy(engine: Engine, target: Path) -> int:
    """Copy within one read transaction, compare, and return the revision of what was copied."""
    driver = engine.dialect.loaded_dbapi
    # Made private before SQLite writes into it.
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with reading(engine) as connection:
        revision, expected = _revision(connection), _counts(_execute(connection))
        with explaining_driver(target, driver), closing(driver.connect(str(target), isolation_level=None)) as copy:
            connection.connection.dbapi_connection.backup(copy)  # type: ignore[union-attr]
            # The copied header may say WAL; a backup is one file.
            copy.execute("PRAGMA journal_mode=DELETE")
    found = _inspect(target, driver)
    if found != expected:
        raise damaged(target, f"the copy differs from the original: {found} instead of {expected}")
    return revision


def _revision(connection: Connection) -> int:
    """0 means that nothing is known of the schema: the seed's script leaves no mark, and its schema is revision 1."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return version or 1


def verify_backup(path: Path) -> Counts:
    """Check that `path` is a sound database of EDI, and return its rows per table.

    Every page, index and foreign key is checked. Raises DatabaseDamagedError, or DatabaseError when it is
    missing or belongs to something else.
    """
    driver = sqlite_driver()
    found = _inspect(path, driver)
    with explaining_driver(path, driver), closing(_open_to_read(path, driver)) as raw:
        marked = raw.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    if not marked and "sessions" not in found:
        raise DatabaseError(f"{path} is not a database of EDI.")
    # The seed's schema does not enforce its foreign keys, so orphans in it are no damage.
    if marked and found["foreign key violations"]:
        raise damaged(path, f"{found['foreign key violations']} rows refer to rows that are not there")
    del found["foreign key violations"]
    return found


def remove_leftovers(folder: Path, *, older_than_seconds: float = _LEFTOVER_AFTER_SECONDS) -> list[Path]:
    """Delete the unfinished `.*.tmp` files that killed processes left in `folder`, and return their paths."""
    removed = leftovers(folder, older_than_seconds=older_than_seconds)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def leftovers(folder: Path, *, older_than_seconds: float = _LEFTOVER_AFTER_SECONDS) -> list[Path]:
    """The unfinished files in `folder` whose process is gone, or that are too old to be still in work."""
    found = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.glob(".*.tmp*"))
    return sorted(path for path, match in found if match and _is_left(path, match["process"], older_than_seconds))


def _is_left(path: Path, process: str, older_than_seconds: float) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > older_than_seconds or no_longer_runs(int(process))


def _give_name(temporary: Path, wanted: Path) -> Path:
    for number in count(1):
        final = wanted.with_name(f"{wanted.name}{'' if number == 1 else f'-{number}'}.db")
        if publish(temporary, final):
            return final
    raise AssertionError("unreachable")


def _inspect(path: Path, driver: Any) -> Counts:
    """Rows per table and foreign key violations of a sound file; DatabaseDamagedError otherwise."""
    check_file(path)
    with explaining_driver(path, driver), closing(_open_to_read(path, driver)) as raw:
        verdict = raw.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, verdict)
        return _counts(raw.execute)


def _open_to_read(path: Path, driver: Any) -> Any:
    return driver.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _execute(connection: Connection) -> Callable[[str], Any]:
    return connection.exec_driver_sql


def _counts(execute: Callable[[str], Any]) -> Counts:
    tables = [
        row[0]
        for row in execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        )
    ]
    counts = {name: execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sorted(tables)}  # noqa: S608
    return counts | {"foreign key violations": len(execute("PRAGMA foreign_key_check").fetchall())}
