"""What keeps an EDI_HOME from growing for ever, and brings an old database back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edi_storage.backup import backup, verify_backup
from edi_storage.connection import set_database_aside, sqlite_driver, sqlite_file
from edi_storage.database import EDIDatabase
from edi_storage.database_file import explaining_driver, make_private_folder, publish, temporary_beside
from edi_storage.errors import InputError, LeaseHeldError, NotFoundError
from edi_storage.models import SessionData
from edi_storage.recovery import delete_session
from edi_storage.store import Store

#: How many dated backups are kept in a folder when nothing else is said.
KEPT_BACKUPS = 8

#: What `backup` calls a copy; the number tells copies of one second apart.
_NAME = re.compile(r".+-(?P<moment>\d{8}T\d{6}Z)-\d{4}(-(?P<number>\d+))?\.db")
_PAGE = 500


def prunable(database: EDIDatabase, *, before: datetime, keep: int) -> Iterator[SessionData]:
    """Ended sessions made before `before`, newest first, leaving out the newest `keep` sessions of all."""
    seen = 0
    page = database.query_history(limit=_PAGE)
    while page:
        for session in page:
            seen += 1
            if seen > keep and session.status != "in_progress" and session.created_at < before:
                yield session
        page = database.query_history(limit=_PAGE, before=page[-1])


def period(text: str) -> timedelta:
    """A length of time such as 30d, 12h or 8w. Raises InputError."""
    found = re.fullmatch(r"(\d{1,4})([hdw])", text.strip().lower())
    if found is None:
        raise InputError(f"{text!r} is no length of time: say for example 12h, 30d or 8w.")
    unit = {"h": "hours", "d": "days", "w": "weeks"}[found[2]]
    return timedelta(**{unit: int(found[1])})


def prune(store: Store, session: SessionData) -> bool:
    """Delete one session with its pictures; False when somebody works on it after all, or has deleted it."""
    try:
        delete_session(store, session.session_id)
    except (LeaseHeldError, NotFoundError):
        return False
    return True


def backup_with_generations(database: EDIDatabase, folder: Path, keep: int = KEPT_BACKUPS) -> Path:
    """A verified backup in `folder`; of the dated ones there, the newest `keep` stay."""
    made = backup(database.engine, folder, now=database.clock)
    for old in backups(folder)[keep:]:
        old.unlink(missing_ok=True)
    return made


def backup_folder(database: EDIDatabase) -> Path:
    """Where backups of this database go when nothing else is said: beside it. Raises InputError for a server."""
    path = sqlite_file(database.url)
    if path is None:
        raise InputError("Only SQLite databases are copied by EDI: use pg_dump for a database server.")
    return path.parent / "backups"


def backups(folder: Path) -> list[Path]:
    """The dated backups in a folder, newest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.db"))
    dated = [(match["moment"], int(match["number"] or 1), path) for match, path in found if match]
    return [path for _, _, path in sorted(dated, reverse=True)]


def last_backup(database: EDIDatabase) -> datetime | None:
    """When the newest dated copy beside the database was made; None without one, and for a database server."""
    path = sqlite_file(database.url)
    found = backups(path.parent / "backups") if path else []
    match = _NAME.fullmatch(found[0].name) if found else None
    return datetime.strptime(match["moment"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) if match else None


def restore(url: str, source: Path) -> Path | None:
    """Put a backup in the place of the database; returns where that was set aside, or None if there was none.

    The backup is checked before anything is touched, and copied, so it can be used again. Raises InputError for a
    database server, DatabaseError or DatabaseDamagedError when the file is no sound database of EDI.
    """
    path = sqlite_file(url)
    if path is None:
        raise InputError("Only SQLite databases are restored by EDI: use pg_restore for a database server.")
    if source.resolve() == path:
        raise InputError(f"{source} is the database itself: name a backup, such as one in {path.parent / 'backups'}.")
    verify_backup(source)
    temporary = temporary_beside(path)
    try:
        _copy(source, temporary)
        aside = set_database_aside(path) if path.exists() else None
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return aside


def _copy(source: Path, target: Path) -> None:
    driver = sqlite_driver()
    make_private_folder(target.parent)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        explaining_driver(source, driver),
        closing(driver.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
        closing(driver.connect(str(target))) as new,
    ):
        old.backup(new)
