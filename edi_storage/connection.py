"""The one engine maker, and the two ways to use an engine: `with reading(engine)` and `with writing(engine)`.

SQLite is opened so that an acknowledged commit survives a power cut, a lost update is impossible, and a
file that is not EDI's, or not whole, is refused before anything is written. Only `create_database` makes a
file; opening one that is not there is an error, so a deleted database is noticed instead of replaced.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from edi_storage import database_server
from edi_storage.database_file import (
    IOERR,
    SCHEMA_REVISION,
    busy,
    create_file,
    damaged,
    explain_os_error,
    explain_sqlite,
    identity,
    lengthen_log,
    open_sqlite,
    primary_code,
    refuse_newer,
    set_database_aside,
    unusable,
)
from edi_storage.errors import ConnectionLostError, EdiError, InputError, TransactionUndoneError
from edi_storage.pool import OPENED, KeepingPool, Writer, still_ours
from edi_storage.statements import Direct, Handle

__all__ = [
    "BUSY_TIMEOUT_MS",
    "SCHEMA_REVISION",
    "again_if_lost",
    "again_if_undone",
    "create_database",
    "database_path",
    "explaining",
    "make_engine",
    "reading",
    "set_database_aside",
    "settled",
    "sqlite_driver",
    "sqlite_file",
    "sqlite_url",
    "without_password",
    "writing",
    "writing_prepared",
]

P = ParamSpec("P")
T = TypeVar("T")

#: How long to wait for another process's transaction before DatabaseBusyError.
BUSY_TIMEOUT_MS: Final = 30_000

#: After so many stage boundaries, which most sessions have, a process is taken to store many more.
_MANY: Final = 10

_READING: Final = "edi_reading"
# Up to the last @, since a password may hold one; also where the scheme or its slashes were mistyped.
_PASSWORD: Final = re.compile(r"^([^:]*:/{1,2}[^:/@]*:|[^:/@]*:(?!/)).*@", re.DOTALL)
# PostgreSQL takes passwords as options too.
_PASSWORD_OPTION: Final = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)


def sqlite_driver() -> Any:
    """The DB-API module for SQLite: pysqlite3, which carries a newer SQLite, where it is installed."""
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return importlib.import_module("sqlite3")


def make_engine(url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, driver: Any = None) -> Engine:
    """An engine for `url`; nothing is opened yet.

    `busy_timeout_ms` is how long to wait for another process's write; `driver` is the DB-API module for SQLite, by
    default `sqlite_driver()`. Raises InputError when the URL cannot be used.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return database_server.make_server_engine(parsed, busy_timeout_ms)
    path = Path(os.path.realpath(str(parsed.database)))
    driver = driver or sqlite_driver()
    engine = create_engine(
        URL.create("sqlite", database=str(path)), module=driver, poolclass=KeepingPool, pool_reset_on_return=None
    )
    _listen(engine, path, driver, busy_timeout_ms)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise InputError(
            f"{without_password(url)!r} is not a database URL, such as sqlite:////home/me/.edi/edi_sessions.db."
        ) from None
    if parsed.drivername.partition("+")[0] != "sqlite":
        return parsed
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or "?" in url:
        raise InputError(f"{without_password(url)!r} asks for SQLite with a driver or options that EDI does not use.")
    if parsed.database in (None, "", ":memory:"):
        raise InputError("A database in memory keeps nothing: give a file, such as sqlite:////home/me/edi.db.")
    return parsed


def without_password(url: str) -> str:
    """The URL as it may be shown, whether it can be parsed or not: `scheme://user:***@host`."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))


def sqlite_url(path: Path | str) -> str:
    """The URL of a SQLite file. Raises InputError for a path that no URL can hold (one with a `?`)."""
    url = URL.create("sqlite", database=str(path)).render_as_string()
    if make_url(url).database != str(path):
        raise InputError(f"{path} cannot be a database: a '?' in its path would be read as an option.")
    return url


def sqlite_file(url: str) -> Path | None:
    """The file that a SQLite URL names; None for a database server."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(os.path.realpath(str(parsed.database)))


def database_path(engine: Engine) -> Path | None:
    """The file of a SQLite engine; None for a database server."""
    if engine.dialect.name != "sqlite":
        return None
    assert engine.url.database
    return _path(engine.url.database)


@cache
def _path(name: str) -> Path:
    return Path(name)


def create_database(engine: Engine) -> bool:
    """Make the file of a SQLite engine, private and without tables, if it is not there. True if this call made it."""
    path = database_path(engine)
    if path is None:
        return False
    with explaining(engine):
        return create_file(path, engine.dialect.loaded_dbapi)


# --- Using an engine ---------------------------------------------------------------------------------


@contextmanager
def writing(engine: Engine, session_id: str | None = None) -> Iterator[Connection]:
    """A connection in a transaction that may write, committed at the end, rolled back on any exception.

    On SQLite it holds the write lock from its start: compute before, write inside, and leave. On PostgreSQL it holds
    the lock of the one session that is written to, or without `session_id` that of the whole database.
    """
    with explaining(engine, values=True), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            database_server.lock(connection, session_id)
            # Under the lock, as on SQLite (see `_begin`), and a statement later: it sees what was waited for.
            database_server.refuse_newer(connection)
        yield connection


@contextmanager
def writing_prepared(engine: Engine, session_id: str, *, boundary: bool = True) -> Iterator[Handle]:
    """Like `writing`, for prepared statements only: on SQLite without SQLAlchemy's Connection and transaction.

    To make, begin, end and give those back takes longer than SQLite takes for all statements of a stage boundary. What
    is written between boundaries, and is no `boundary`, goes this way as well: a connection has to read its pages anew
    once another one has written.
    """
    pool = engine.pool
    if not isinstance(pool, KeepingPool):
        with writing(engine, session_id) as connection:
            yield connection
        return
    with explaining(engine, values=True):
        writer = pool.take()
        try:
            if boundary and pool.boundaries == _MANY:
                writer = _with_room(engine, pool, writer)
            _start(engine, writer.cursor, writer.info, reads=False)
            yield Direct(engine.dialect, writer.cursor)
            writer.cursor.execute("COMMIT")
        except BaseException:
            _give_up(engine, writer)
            raise
        pool.boundaries += boundary
        pool.keep(writer)


def _with_room(engine: Engine, pool: KeepingPool, writer: Writer) -> Writer:
    """A connection whose log has become as long as it will be: see `database_file.lengthen_log`."""
    path = database_path(engine)
    assert path
    _start(engine, writer.cursor, writer.info, reads=False)
    try:
        lengthen_log(writer.raw, path)
        writer.raw.rollback()
    except (engine.dialect.loaded_dbapi.Error, OSError):
        # No boundary needs it: what there is to say of the disk, its own transaction will say.
        _give_up(engine, writer)
        return pool.take()
    return writer


def _give_up(engine: Engine, writer: Writer) -> None:
    """Roll back and close; a COMMIT that failed would keep its locks if it were only closed."""
    with suppress(engine.dialect.loaded_dbapi.Error):
        writer.raw.rollback()
    writer.raw.close()


def again_if_undone(method: Callable[P, T]) -> Callable[P, T]:
    """A method of one transaction that is called a second time where the server has undone it, before its COMMIT.

    So the server does where a process stood still, as in a laptop that was closed, or where it lost the link. Whether
    the process may still write, and what there is by now, the second call finds out.
    """
    return _again_after(TransactionUndoneError, method)


def again_if_lost(method: Callable[P, T]) -> Callable[P, T]:
    """Like `again_if_undone`, also where the link was lost at COMMIT: the method done twice is the method done once."""
    return _again_after(ConnectionLostError, method)


def _again_after(what: type[EdiError], method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except what:
            return method(*args, **kwargs)

    return called


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one unchanging moment of the database and cannot write.

    On SQLite it takes no write lock, and with WAL it neither waits for a writer nor keeps one waiting.
    """
    snapshot: dict[str, Any] = {_READING: True}
    if engine.dialect.name == "postgresql":
        snapshot |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    try:
        # Leaving rolls back, since there is nothing to keep.
        with explaining(engine, values=True), engine.connect() as connection:
            connection = connection.execution_options(**snapshot)
            if engine.dialect.name == "postgresql":
                database_server.refuse_newer(connection)
            yield connection
    except UnicodeEncodeError as error:
        raise InputError("What to look for contains characters that are not valid Unicode.") from error


@contextmanager
def settled(engine: Engine, session_id: str) -> Iterator[Connection]:
    """Like `reading`, once every write to the session that is still under way has come to its end.

    A server may still be at work on a COMMIT whose client has lost the link: only its lock tells that it is done.
    SQLite's commits end with the call.
    """
    with writing(engine, session_id) if engine.dialect.name == "postgresql" else reading(engine) as connection:
        yield connection


class explaining:  # noqa: N801 - used like a function
    """Turn what the driver or the disk raises into one of EDI's errors; broken constraints and wrong SQL pass.

    With `values`, a stored value that cannot be read is damage: what is written was checked before the transaction.
    """

    __slots__ = ("_engine", "_values")

    def __init__(self, engine: Engine, *, values: bool = False) -> None:
        self._engine, self._values = engine, values

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            explained = _explained(self._engine, error, self._values)
            if explained is not None:
                raise explained from error


def _explained(engine: Engine, error: Exception, values: bool) -> EdiError | None:
    """What to say instead of an error; None for one that is to pass."""
    if isinstance(error, IntegrityError | UnicodeEncodeError):
        return None
    if isinstance(error, PoolTimeoutError):
        return busy(_name(engine), str(error))
    if isinstance(error, DBAPIError):
        return _explain(error, _name(engine))
    if isinstance(error, OSError):
        return explain_os_error(_name(engine), error)
    if isinstance(error, ValueError | TypeError):
        # A time that is none, JSON that is none, what no model takes.
        return _damaged(_name(engine), _reason(error)) if values else None
    where = database_path(engine)
    if where is None or not isinstance(error, engine.dialect.loaded_dbapi.Error):
        return None
    # Raised on a connection's own statements, past SQLAlchemy, which therefore still trusts its connections.
    engine.dispose()
    return explain_sqlite(error, where) or unusable(where, str(error))


def _name(engine: Engine) -> Path | str:
    return database_path(engine) or database_server.shown(engine.url)


def _damaged(where: Path | str, detail: str) -> EdiError:
    return damaged(where, detail) if isinstance(where, Path) else database_server.damaged_server(where, detail)


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    from edi_storage.record import describe

    text = describe(error, error.title) if isinstance(error, ValidationError) else str(error)
    return " ".join(text.split()).removesuffix(".")


def _explain(error: DBAPIError, where: Path | str) -> EdiError | None:
    if isinstance(where, Path):
        return explain_sqlite(error.orig, where)
    return database_server.explain_server(error, where)


# --- What happens to each SQLite connection ----------------------------------------------------------


def _listen(engine: Engine, path: Path, driver: Any, busy_timeout_ms: int) -> None:
    def open_file(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        # The identity is taken before opening, so that a file swapped in between counts as replaced.
        record.info.update({OPENED: (os.getpid(), str(path), identity(path)), _READING: False})
        return open_sqlite(path, driver, busy_timeout_ms)

    def still_valid(raw: Any, record: Any, proxy: Any) -> None:
        if record.info[OPENED][0] != os.getpid():
            # After a fork the parent still uses this connection: forget it here instead of closing it.
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("opened by another process")
        if not still_ours(record.info):
            raise DisconnectionError("the database file was replaced")

    def roll_back(raw: Any, record: Any, _: Any) -> None:
        # In the place of SQLAlchemy's own, which prints the traceback of one that fails.
        try:
            raw.rollback()
        except driver.Error as error:
            record.invalidate(error)

    def distrust(context: Any) -> None:
        # What a connection has cached after a failed read or fsync may differ from the disk: start afresh.
        if primary_code(context.original_exception) == IOERR:
            context.is_disconnect = True
            engine.pool.distrust()  # type: ignore[attr-defined]

    event.listen(engine, "do_connect", open_file)
    event.listen(engine, "checkout", still_valid)
    event.listen(engine, "reset", roll_back)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", distrust)


def _begin(connection: Connection) -> None:
    pooled = connection.connection
    reads = connection.get_execution_options().get(_READING, False)
    assert pooled.dbapi_connection is not None
    _start(connection.engine, pooled.dbapi_connection.cursor(), pooled.info, reads)


def _start(engine: Engine, cursor: Any, info: MutableMapping[Any, Any], reads: bool) -> None:
    """Start a transaction; after a deferred BEGIN two processes could read, then both write what they computed."""
    if info[_READING] is not reads:
        # Only where it changes: SQLite compiles every statement of the connection anew after it.
        cursor.execute(f"PRAGMA query_only={'ON' if reads else 'OFF'}")
        info[_READING] = reads
    cursor.execute("BEGIN" if reads else "BEGIN IMMEDIATE")
    try:
        # Under the lock: a newer EDI may have migrated the database while this process held a connection.
        refuse_newer(engine.url.database, cursor.execute("PRAGMA user_version").fetchone()[0])
    except BaseException:
        with suppress(engine.dialect.loaded_dbapi.Error):  # the first error is the one to tell
            cursor.connection.rollback()
        raise
