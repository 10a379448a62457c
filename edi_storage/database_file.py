"""A SQLite database as a file: checking, opening, making it and setting it aside, and naming what went wrong.

The file is never opened by anything but SQLite: closing any other handle on it would drop the POSIX locks of
every connection in this process. So the checks use `stat` and SQLite itself.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from edi_storage.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseTooNewError,
    EdiError,
    StorageFullError,
)

#: PRAGMA application_id of EDI's databases: "EDI1".
APPLICATION_ID: Final = 0x45444931
#: PRAGMA user_version of a database this version of EDI writes: the newest file in migrations/versions.
SCHEMA_REVISION: Final = 7

#: Before 3.51.3, SQLite can corrupt a database when a WAL file is reset.
_WAL_IS_SAFE_FROM: Final = (3, 51, 3)
#: Files that belong to a database file and mean nothing, or worse, beside another one.
_COMPANIONS: Final = ("-wal", "-journal", "-shm")
#: What the write-ahead log grows to: the 1000 pages of SQLite's `wal_autocheckpoint`.
LOG_BYTES: Final = 4 << 20
#: Only with this much free room is the log made as long beforehand.
_AMPLE_BYTES: Final = 64 << 20
#: Less free room than this explains an I/O error that SQLite could not name.
_NO_ROOM_BYTES: Final = 256 * 1024

#: Names are given in an instant; who keeps the lock longer has been stopped.
_LOCK_SECONDS: Final = 30.0

# Primary result codes of SQLite: https://www.sqlite.org/rescode.html
IOERR: Final = 10
_BUSY = {5, 6, 15}  # BUSY, LOCKED, PROTOCOL
_READONLY = 8
_DAMAGED = {11, 26}  # CORRUPT, NOTADB
#: Without a code of their own: a bit flipped in a text, in the header, in the name of a column or table.
_SIGNS_OF_DAMAGE = (
    "decode to UTF-8",
    "unsupported file format",
    "no such column",
    "no such table",
    "has no column named",
)
_FULL = 13
_CANTOPEN = 14


# --- Opening -----------------------------------------------------------------------------------------


def open_sqlite(path: Path, driver: Any, busy_timeout_ms: int) -> Any:
    """A DB-API connection in autocommit mode to the database at `path`, checked and set up.

    Raises DatabaseError or one of its children. A file without EDI's mark is opened as it is: the migrations
    recognise or refuse it.
    """
    check_file(path)
    with explaining_driver(path, driver):
        raw = driver.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=busy_timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _set_up(raw, path, driver, busy_timeout_ms)
        except BaseException:
            raw.close()
            raise
    return raw


def check_file(path: Path) -> None:
    """Refuse what cannot be a database, by `stat` alone. Raises DatabaseError or DatabaseDamagedError."""
    try:
        info = path.stat()
    except FileNotFoundError:
        raise DatabaseError(f"There is no database at {path}: run `edi db upgrade` to make one.") from None
    except OSError as error:
        raise DatabaseError(f"{path} cannot be reached: {error.strerror}.") from error
    if stat.S_ISDIR(info.st_mode):
        raise damaged(path, "it is a folder")
    if not stat.S_ISREG(info.st_mode):
        raise damaged(path, "it is not a regular file")
    if info.st_size == 0:
        # SQLite would call it an empty, healthy database.
        raise damaged(path, "it has 0 bytes")


def _set_up(raw: Any, path: Path, driver: Any, busy_timeout_ms: int) -> None:
    """PRAGMAs that hold for one connection; the journal mode is the file's."""
    raw.execute("PRAGMA trusted_schema=OFF")  # a crafted schema may not call functions with side effects
    raw.execute("PRAGMA cell_size_check=ON")  # notice a damaged page when it is read, not later
    raw.execute("PRAGMA foreign_keys=ON")  # off by default, and a no-op inside a transaction
    ours = _identify(raw, path)
    _check_size(raw, path)
    mode = _journal_mode(raw, driver, busy_timeout_ms) if ours else _ask(raw, "journal_mode")
    # WAL needs one fsync per commit; a rollback journal also one of the folder, which only EXTRA does.
    raw.execute(f"PRAGMA synchronous={'FULL' if mode == 'wal' else 'EXTRA'}")
    raw.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")


def _identify(raw: Any, path: Path) -> bool:
    """Whether the file carries EDI's mark; another application's, or a newer EDI's, is refused."""
    application = _ask(raw, "application_id")
    if application not in (0, APPLICATION_ID):
        raise foreign(path, f"application_id 0x{application & 0xFFFFFFFF:08x}")
    if application == APPLICATION_ID:
        refuse_newer(path, _ask(raw, "user_version"))
    return bool(application == APPLICATION_ID)


def refuse_newer(path: Path | str | None, version: int) -> None:
    """Raise DatabaseTooNewError for a revision that this version of EDI does not know."""
    if version > SCHEMA_REVISION:
        raise DatabaseTooNewError(
            f"{path} was written by a newer version of EDI (revision {version:04d}, this one knows "
            f"{SCHEMA_REVISION:04d}): upgrade EDI; the file was not touched."
        )


def _check_size(raw: Any, path: Path) -> None:
    """Refuse a file that ends early; SQLite fills a cut last page with zeros and says nothing."""
    raw.execute("BEGIN")
    try:
        # In this order: reading takes the shared lock, so that the file cannot change under the question.
        expected = _ask(raw, "page_count") * _ask(raw, "page_size")
        # Frames still in the -wal may belong behind the end of the file.
        if _size(Path(f"{path}-wal")) == 0 and _size(path) < expected:
            raise damaged(path, f"it has {_size(path)} of {expected} bytes")
    finally:
        raw.rollback()


def _journal_mode(raw: Any, driver: Any, busy_timeout_ms: int) -> str:
    """Bring the file into the journal mode that is safe with this SQLite, if it is not there yet."""
    wanted = "wal" if driver.sqlite_version_info >= _WAL_IS_SAFE_FROM else "delete"
    mode = str(_ask(raw, "journal_mode"))
    if mode == wanted:
        return mode
    # A rollback journal is safe with every version, so nobody waits to leave it; WAL may not be.
    raw.execute(f"PRAGMA busy_timeout={0 if wanted == 'wal' else busy_timeout_ms}")
    try:
        return str(raw.execute(f"PRAGMA journal_mode={wanted}").fetchone()[0])
    except driver.OperationalError:
        if mode == "wal":
            raise
        return mode


def lengthen_log(raw: Any, path: Path) -> None:
    """Give the write-ahead log at once the length that it grows to, in a transaction that the caller rolls back.

    A commit that makes the file longer takes nearly twice as long as one that does not, since the file system has to
    keep the new length too. At `LOG_BYTES` SQLite begins the log anew, in the same file. What a transaction has
    spilled into it before it was rolled back is nothing to readers and to recovery, but the file stays as long.
    """
    missing = LOG_BYTES - _size(Path(f"{path}-wal"))
    if missing <= 0 or _ask(raw, "journal_mode") != "wal" or shutil.disk_usage(path.parent).free < _AMPLE_BYTES:
        return
    pages = _ask(raw, "cache_size")
    raw.execute("PRAGMA cache_size=16")  # what does not fit is spilled
    try:
        raw.execute("CREATE TABLE longer_log (filling)")
        raw.execute("INSERT INTO longer_log VALUES (zeroblob(?))", (missing,))
    finally:
        raw.execute(f"PRAGMA cache_size={pages}")


def _ask(raw: Any, pragma: str) -> Any:
    return raw.execute(f"PRAGMA {pragma}").fetchone()[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def identity(path: Path | str) -> tuple[int, int] | None:
    """What stays the same as long as `path` names the same file; None when it is gone."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_dev, info.st_ino)


# --- Making, naming, setting aside -------------------------------------------------------------------


def create_file(path: Path, driver: Any) -> bool:
    """Make a private, empty database of EDI at `path` if nothing is there. True if this call made it.

    It appears whole: a process killed meanwhile leaves a `.*.tmp` beside it, never a database of 0 bytes.
    """
    if path.exists():
        return False
    make_private_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _write_header(temporary, driver)
        return publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_header(path: Path, driver: Any) -> None:
    with explaining_driver(path, driver):
        raw = driver.connect(str(path), isolation_level=None)
        try:
            raw.execute(f"PRAGMA application_id={APPLICATION_ID}")
            _journal_mode(raw, driver, 0)
        finally:
            raw.close()


def publish(temporary: Path, final: Path) -> bool:
    """Give a finished database file its name, durably, unless the name is taken (then False)."""
    sync(temporary)
    # A lock instead of link(): not every file system has links, and a plain rename would replace.
    with _alone_in(final.parent):
        if final.exists():
            return False
        # A -wal left by a deleted database would be replayed into this one.
        _set_companions_aside(final, _free_name(final, "orphan"))
        temporary.rename(final)
    sync(final.parent)
    return True


def set_database_aside(path: Path) -> Path:
    """Rename the database at `path`, and what belongs to it, to a dated name beside it; returns that name.

    Nothing is deleted. Processes that have it open notice at their next transaction that it was replaced.
    """
    with _alone_in(path.parent):
        aside = _free_name(path, "damaged")
        # The companions first: a crash in between must not leave a -wal for the next database to replay.
        _set_companions_aside(path, aside)
        path.rename(aside)
    sync(path.parent)
    return aside


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from naming database files in `folder` at the same time."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".edi.lock", timeout=_LOCK_SECONDS, mode=0o600):
            yield
    except Timeout as error:
        raise busy(folder, str(error)) from error


def _set_companions_aside(path: Path, aside: Path) -> None:
    for companion in _COMPANIONS:
        with suppress(FileNotFoundError):
            Path(f"{path}{companion}").rename(f"{aside}{companion}")


def _free_name(path: Path, why: str) -> Path:
    dated = f"{path.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in count(1):
        name = path.with_name(dated if number == 1 else f"{dated}-{number}")
        if not any(os.path.lexists(f"{name}{companion}") for companion in ("", *_COMPANIONS)):
            return name
    raise AssertionError("unreachable")


def make_private_folder(folder: Path) -> None:
    """Make `folder` and its missing parents, readable by their owner only, durably."""
    for parent in reversed([candidate for candidate in (folder, *folder.parents) if not candidate.exists()]):
        parent.mkdir(mode=0o700, exist_ok=True)
        # The folder above belongs to somebody else and may not be readable.
        with suppress(PermissionError):
            sync(parent.parent)


def temporary_beside(path: Path) -> Path:
    """A name for a file that will become `path`: hidden, in the same folder, never used twice; it says whose it is."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:16]}.tmp")


def sync(path: Path) -> None:
    """fsync a finished file or a folder. Never the live database: see the head of this module."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- Saying what went wrong --------------------------------------------------------------------------


@contextmanager
def explaining_driver(path: Path, driver: Any) -> Iterator[None]:
    """Turn every error of the driver into one of EDI's."""
    try:
        yield
    except driver.Error as error:
        raise explain_sqlite(error, path) or unusable(path, str(error)) from error


def explain_sqlite(error: BaseException | None, path: Path | str) -> EdiError | None:
    """EDI's error for a SQLite driver's error; None when the statement is at fault, not the database."""
    kind = _kind_of_error(error)
    return kind(path, str(error)) if kind else None


def _kind_of_error(error: BaseException | None) -> Callable[[Path | str, str], EdiError] | None:
    code, text = primary_code(error), str(error)
    if code in _BUSY:
        return busy
    if code == _FULL:
        return full
    if code in _DAMAGED or any(sign in text for sign in _SIGNS_OF_DAMAGE):
        return damaged
    if code in (IOERR, _CANTOPEN):
        return explain_io
    return unusable if code == _READONLY else None


def primary_code(error: BaseException | None) -> int | None:
    """SQLite's primary result code of a driver's error, if it has one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def damaged(path: Path | str, detail: str) -> DatabaseDamagedError:
    """The error for a database that is not whole."""
    return DatabaseDamagedError(
        f"{path} is damaged ({detail}): run `edi doctor --repair` to set it aside and rebuild it from the checkpoints."
    )


def foreign(path: Path | str, detail: str) -> DatabaseError:
    """The error for a database that is sound, but somebody else's."""
    return DatabaseError(
        f"{path} belongs to another application ({detail}): it was not touched; name another one in EDI_DATABASE_URL."
    )


def busy(path: Path | str, detail: str) -> DatabaseBusyError:
    """The error for a lock that somebody else kept."""
    return DatabaseBusyError(f"{path} stayed locked by another process for too long: try again when it is done.")


def full(path: Path | str, detail: str) -> StorageFullError:
    """The error for a disk without room."""
    return StorageFullError(f"The disk of {path} is full: nothing was lost, free some room and run `edi resume --all`.")


def unusable(path: Path | str, detail: str) -> DatabaseError:
    """The error for everything else that keeps a database from being used."""
    return DatabaseError(f"{path} could not be used: {detail.strip().splitlines()[0].rstrip('.')}.")


def explain_os_error(path: Path | str, error: OSError) -> EdiError:
    """The error for a refusal of the operating system, about the file it names or else about `path`."""
    where = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(where, str(error))
    return unusable(where, error.strerror or str(error))


def explain_io(path: Path | str, detail: str) -> EdiError:
    """A full disk or a broken one: SQLite cannot always tell, for example when it extends the -shm file."""
    with suppress(OSError):
        if shutil.disk_usage(Path(path).parent).free < _NO_ROOM_BYTES:
            return full(path, detail)
    return unusable(path, detail)
