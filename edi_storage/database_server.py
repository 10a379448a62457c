"""A PostgreSQL database: how connections are set up, what a writer locks, whose it is, and naming what went wrong.

Why locks of our own: the writing methods read, decide and write, and were made for SQLite, where one transaction at a
time may write. Advisory locks give them the same here without another line in any of them. They are held to the end of
the transaction, so COMMIT and ROLLBACK, also those of a process that died, free them.

- `writing(engine, session_id)` locks that session: transactions of different sessions commit side by side.
- `writing(engine)` locks the whole database, as SQLite does: for what touches several sessions, for migrations, and for
  learning (events get their numbers before they are committed: a watermark set meanwhile would pass over one).

Measured with 8 processes committing boundaries, fsync on, 2 busy cores: 83 and 93 a second under one lock for all, 124
and 190 under one for each session. A stopped process then keeps only its own session waiting, too.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, NoSuchModuleError

from edi_storage.database_file import APPLICATION_ID, SCHEMA_REVISION, busy, full, unusable
from edi_storage.errors import (
    ConnectionLostError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseTooNewError,
    EdiError,
    InputError,
    TransactionUndoneError,
)

#: So long may a transaction stand still: a stopped process must not keep others waiting for ever. Shorter than they
#: wait (BUSY_TIMEOUT_MS), longer than any transaction computes between two statements.
IDLE_TIMEOUT_MS: Final = 10_000
#: Without these a server that vanished, cable and all, would be waited for ever. Seconds, but for the last.
_PATIENCE: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
#: What every connection is set to, whatever the server, the database or the role says.
_SETTINGS: Final = """
    SELECT set_config('lock_timeout', '{busy}', false),
        set_config('idle_in_transaction_session_timeout', '{idle}', false),
        -- Columns without a zone hold UTC, also where the server fills them in.
        set_config('TimeZone', 'UTC', false),
        -- An acknowledged commit is on the disk. Stronger settings (of a replicated server) stay.
        CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END
"""

# SQLSTATEs: https://www.postgresql.org/docs/15/errcodes-appendix.html
_BUSY = {"55P03", "40P01", "40001"}
_FULL = "53100"
_DAMAGED = {"XX001", "XX002"}
_STOOD_STILL = "25P03"
# No connection, wrong password, no such database, no resources, operator intervention, system error.
_UNUSABLE = ("08", "28", "3D", "53", "57", "58")
# A reader that writes, no permission, no such schema.
_UNUSABLE_TOO = {"25006", "42501", "3F000"}

#: The comment on alembic's table that says whose the database is; with `pg_dump` it goes along.
_MARK = re.compile(r"EDI (\d{4})")


# --- Connections -------------------------------------------------------------------------------------


def make_server_engine(url: URL, busy_timeout_ms: int) -> Engine:
    """An engine for a PostgreSQL URL; nothing is opened yet. Raises InputError for another server or driver."""
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername != "postgresql+psycopg":
        raise InputError(
            f"EDI keeps its data in SQLite or in PostgreSQL, not in {url.drivername!r}: "
            "a URL looks like postgresql+psycopg://me@host/edi."
        )
    given = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            # Each statement sees what was committed before it. With a snapshot for the whole transaction, the one
            # that waits for a lock would read what was there before it waited.
            isolation_level="READ COMMITTED",
            connect_args={"application_name": "edi", "client_encoding": "utf8", **given},
        )
    except (NoSuchModuleError, ImportError) as error:
        raise InputError("The driver for PostgreSQL is not installed: pip install 'edi-edit[postgres]'.") from error
    _listen(engine, _SETTINGS.format(busy=busy_timeout_ms, idle=IDLE_TIMEOUT_MS))
    return engine


def _listen(engine: Engine, settings: str) -> None:
    def set_up(raw: Any, record: Any) -> None:
        record.info["opened"] = os.getpid()
        raw.execute(settings)
        raw.commit()

    def still_mine(raw: Any, record: Any, proxy: Any) -> None:
        if record.info["opened"] != os.getpid():
            # After a fork the parent still uses this connection: forget it here instead of closing it.
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("opened by another process")

    event.listen(engine, "connect", set_up)
    event.listen(engine, "checkout", still_mine)


def lock(connection: Connection, session_id: str | None) -> None:
    """Wait until nobody else writes to the session, or for None to the database; held to the end of the transaction."""
    if session_id is None:
        query = f"SELECT pg_advisory_xact_lock({APPLICATION_ID})"
    else:
        # Two sessions of the same checksum only wait for each other. A transaction locks one session and no more,
        # so there is nothing to deadlock with.
        key = zlib.crc32(session_id.encode(errors="surrogatepass")) - 2**31
        query = (
            f"SELECT pg_advisory_xact_lock_shared({APPLICATION_ID}), pg_advisory_xact_lock({APPLICATION_ID}, {key:d})"
        )
    connection.exec_driver_sql(query)


# --- Whose it is -------------------------------------------------------------------------------------


def marked_revision(connection: Connection) -> int | None:
    """The revision in EDI's mark; None for a database without it."""
    found = connection.exec_driver_sql("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')").scalar()
    match = _MARK.fullmatch(found or "")
    return int(match[1]) if match else None


def mark(connection: Connection, revision: str) -> None:
    """Say whose the database is and which revision; part of the transaction like everything else."""
    connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS 'EDI {int(revision):04d}'")


def refuse_newer(connection: Connection) -> None:
    """Raise DatabaseTooNewError for a revision that this version of EDI does not know."""
    revision = marked_revision(connection)
    if revision is not None and revision > SCHEMA_REVISION:
        raise DatabaseTooNewError(
            f"{shown(connection.engine.url)} was written by a newer version of EDI (revision {revision:04d}, this one "
            f"knows {SCHEMA_REVISION:04d}): upgrade EDI; the database was not touched."
        )


def refuse_unfit(connection: Connection) -> None:
    """Raise DatabaseError for a database that cannot hold every text."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise DatabaseError(
            f"{shown(connection.engine.url)} has the encoding {encoding}, which cannot hold every text: "
            "make one with ENCODING 'UTF8'."
        )


def relations(connection: Connection) -> set[str]:
    """Tables and views in the schema that is used; those of the server's extensions belong to nobody."""
    query = """
        SELECT relname FROM pg_class AS c
        WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p', 'v', 'm', 'f')
            AND NOT EXISTS (
                SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    """
    return set(connection.exec_driver_sql(query).scalars())


# --- Saying what went wrong --------------------------------------------------------------------------


def shown(url: URL) -> str:
    """The URL without its password, wherever that stands, and without options that say nothing of the place."""
    return url.set(query={}).render_as_string(hide_password=True)


def explain_server(error: DBAPIError, where: str) -> EdiError | None:
    """EDI's error for an error of PostgreSQL's driver; None when the statement is at fault, not the database."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    if sqlstate in _BUSY:
        return busy(where, str(error.orig))
    if sqlstate == _FULL:
        return full(where, str(error.orig))
    if sqlstate in _DAMAGED:
        return damaged_server(where, str(error.orig))
    if sqlstate == _STOOD_STILL:
        seconds = IDLE_TIMEOUT_MS // 1000
        why = f"this process stood still for more than {seconds} s, so that its transaction was undone"
        return TransactionUndoneError(str(unusable(where, why)))
    if isinstance(error, DataError):
        return InputError(f"{where} cannot hold what was given: {_reason(str(error.orig))}.")
    # Without a SQLSTATE the server was never reached, or was lost on the way.
    lost = error.connection_invalidated or not sqlstate
    if lost or sqlstate in _UNUSABLE_TOO or sqlstate[:2] in _UNUSABLE:
        told = unusable(where, _reason(str(error.orig)))
        # At a statement COMMIT was yet to come. At COMMIT itself, which is none to SQLAlchemy, nobody knows.
        if lost and error.statement:
            return TransactionUndoneError(str(told))
        return ConnectionLostError(str(told)) if error.connection_invalidated else told
    return None


def damaged_server(where: str, detail: str) -> DatabaseDamagedError:
    """The error for a database that is not whole, which only its administrator can put right."""
    return DatabaseDamagedError(
        f"{where} is damaged ({_reason(detail)}): bring it back from a dump, or name an empty database in "
        "EDI_DATABASE_URL and run `edi doctor --repair` to fill it from the checkpoints."
    )


def _reason(text: str) -> str:
    """The line that says why: the server's own where it was reached, without the driver's way there."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or ["the connection was lost"]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or [lines[0].removeprefix("connection failed: ")])[-1]
