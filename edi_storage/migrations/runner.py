"""Bringing a database to a revision, all or nothing, whoever else tries at the same time or dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, Engine, inspect

from edi_storage import database_server
from edi_storage.backup import backup
from edi_storage.connection import (
    SCHEMA_REVISION,
    create_database,
    database_path,
    explaining,
    make_engine,
    reading,
    sqlite_url,
)
from edi_storage.database_file import APPLICATION_ID, foreign
from edi_storage.errors import DatabaseError, DatabaseTooNewError, InputError

#: The columns of the five tables that the seed's script makes.
SEED_COLUMNS: Final = {
    "sessions": ["id", "created_at", "image_path", "naive_prompt", "status", "final_alignment_score"],
    "prompts": [
        *("id", "session_id", "iteration", "positive_prompt", "negative_prompt"),
        *("quality_score", "created_at"),
    ],
    "entities": [
        *("id", "session_id", "entity_id", "label", "confidence"),
        *("bbox_json", "mask_path", "color_hex", "area_percent"),
    ],
    "validations": [
        *("id", "session_id", "attempt_number", "alignment_score", "preserved_count"),
        *("modified_count", "unintended_count", "user_feedback", "created_at"),
    ],
    "user_feedback": ["id", "session_id", "feedback_type", "comments", "rating", "created_at"],
}
_SEED_REVISION: Final = "0001"
_ALL: Final = [f"{number:04d}" for number in range(1, SCHEMA_REVISION + 1)]

# Alembic keeps its context in module globals, so two threads must not run it at once.
_ALEMBIC_IS_BUSY = threading.Lock()


@dataclass(frozen=True)
class MigrationReport:
    """What `upgrade` did. `quarantined` counts rows by table; `from_revision` is None for a new database."""

    from_revision: str | None
    to_revision: str
    backup_path: Path | None = None
    quarantined: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.from_revision != self.to_revision


def head() -> str:
    """The revision that this version of EDI works with."""
    return _ALL[-1]


def current(engine: Engine) -> str | None:
    """The revision of the database; None when it has none (a new file, the seed's, or none at all)."""
    if _is_missing(engine):
        return None
    with reading(engine) as connection:
        return _recorded(connection)


def is_current(engine: Engine) -> bool:
    """Whether the database can be used as it is. Cheap: done at every start, and alembic is not imported."""
    if _is_missing(engine):
        return False
    with reading(engine) as connection:
        return _is_marked(connection, head()) and _recorded(connection) == head()


@cache
def expected_schema() -> Mapping[str, str]:
    """The text of every table and index that a SQLite database of this version has, by its name.

    The same whichever revision the database began at, as every revision is run on every database.
    """
    with TemporaryDirectory() as folder:
        engine = make_engine(sqlite_url(Path(folder) / "new.db"))
        try:
            upgrade(engine)
            with reading(engine) as connection:
                return schema(connection)
        finally:
            engine.dispose()


def schema(connection: Connection) -> Mapping[str, str]:
    """The text of every table and index in a SQLite database, by its name."""
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return dict(found.tuples().all())


def upgrade(engine: Engine, *, backup_dir: Path | None = None, target: str = "head") -> MigrationReport:
    """Make the schema, or bring it to `target` (a revision, by default the newest); the only way a schema is made.

    A SQLite database that has tables is copied to `backup_dir` (by default `backups` beside it) before. All
    pending revisions are one transaction: when anything fails, the database is as it was. Doing it again
    changes nothing, and any number of processes may do it at once. Raises DatabaseTooNewError for a revision
    this version does not know, DatabaseError for another application's database, InputError for a bad target.
    """
    wanted = _resolve(target)
    create_database(engine)
    with _migrating(engine) as connection:
        report = _upgrade(engine, connection, wanted, backup_dir)
    # The pool may hold connections from before the file was marked as EDI's, in its former journal mode.
    engine.dispose()
    return report


def _resolve(target: str) -> str:
    revision = head() if target == "head" else target
    if revision not in _ALL:
        raise InputError(f"There is no revision {target!r}: this version of EDI knows {_ALL[0]} to {_ALL[-1]}.")
    return revision


def _upgrade(engine: Engine, connection: Connection, wanted: str, backup_dir: Path | None) -> MigrationReport:
    """The upgrade under the write lock: only now nobody else can be half-way through the same."""
    recorded = _recorded(connection)
    before = recorded or _recognise_seed(connection)
    if recorded is not None and recorded >= wanted:
        _mark(connection, recorded)
        return MigrationReport(recorded, recorded)
    path = database_path(engine)
    copy = None
    if path is not None and _tables(connection):
        # Another connection reads what this one has locked and not yet changed.
        copy = backup(engine, backup_dir or path.parent / "backups")
    quarantined_before = _last_quarantined(connection)
    _run_revisions(connection, wanted, stamp=before if recorded is None else None)
    _mark(connection, wanted)
    _check_foreign_keys(connection)
    return MigrationReport(before, wanted, copy, _quarantined_since(connection, quarantined_before))


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """A connection of its own, in a write transaction that lets tables be replaced."""
    with explaining(engine), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Foreign keys would delete the children of a replaced table, and cannot be switched off within a
            # transaction. The pool must not get such a connection back.
            connection.detach()
            _raw(connection).execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                database_server.lock(connection, None)
                database_server.refuse_newer(connection)
                database_server.refuse_unfit(connection)
            yield connection


def _run_revisions(connection: Connection, wanted: str, *, stamp: str | None) -> None:
    """Run the revisions up to `wanted`; `stamp` is the revision whose schema is there, though not recorded."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _ALEMBIC_IS_BUSY:
        if stamp is not None:
            command.stamp(config, stamp)
        command.upgrade(config, wanted)


# --- What is there -----------------------------------------------------------------------------------


def _is_missing(engine: Engine) -> bool:
    path = database_path(engine)
    with explaining(engine):
        return path is not None and not path.exists()


def _tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def _relations(connection: Connection) -> set[str]:
    """Tables and views that somebody has made."""
    if connection.dialect.name == "postgresql":
        return database_server.relations(connection)
    return _tables(connection) | set(inspect(connection).get_view_names())


def _recorded(connection: Connection) -> str | None:
    """The revision in alembic's table, if it is there. Raises for one that this version does not know."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    where = _where(connection)
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    if not _is_ours(connection):
        raise foreign(where, "its schema is kept by another program's alembic")
    if len(found) != 1 or found[0] not in _ALL:
        raise DatabaseTooNewError(
            f"{where} is at revision {', '.join(found) or 'none'}, which this version of EDI does not know "
            f"(its newest is {head()}): upgrade EDI; the database was not touched."
        )
    return str(found[0])


def _is_ours(connection: Connection) -> bool:
    """Whether alembic's table is EDI's, by the mark of the database: other programs number their revisions too."""
    if connection.dialect.name == "sqlite":
        return _pragma(connection, "application_id") == APPLICATION_ID
    return database_server.marked_revision(connection) is not None


def _where(connection: Connection) -> str:
    url = connection.engine.url
    return str(url.database) if connection.dialect.name == "sqlite" else database_server.shown(url)


def _recognise_seed(connection: Connection) -> str | None:
    """0001 if the unmarked database was made by the seed's script, None if it is empty. Raises for any other."""
    names = _relations(connection)
    if not names:
        return None
    if names == SEED_COLUMNS.keys() and all(_columns(connection, name) == SEED_COLUMNS[name] for name in names):
        return _SEED_REVISION
    raise foreign(_where(connection), f"it has tables such as {min(names)!r}")


def _columns(connection: Connection, table: str) -> list[str]:
    return [column["name"] for column in inspect(connection).get_columns(table)]


# --- Marks and checks --------------------------------------------------------------------------------


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def _is_marked(connection: Connection, revision: str) -> bool:
    if connection.dialect.name != "sqlite":
        return database_server.marked_revision(connection) == int(revision)
    marks = (_pragma(connection, "application_id"), _pragma(connection, "user_version"))
    return marks == (APPLICATION_ID, int(revision))


def _mark(connection: Connection, revision: str) -> None:
    """Say in the file's header whose it is and which revision; part of the transaction like everything else."""
    if connection.dialect.name != "sqlite":
        database_server.mark(connection, revision)
    elif not _is_marked(connection, revision):
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version={int(revision)}")


def _check_foreign_keys(connection: Connection) -> None:
    """What SQLite did not enforce meanwhile must hold before COMMIT; 0001, the seed's schema, never enforced it."""
    if connection.dialect.name != "sqlite" or _pragma(connection, "user_version") == int(_SEED_REVISION):
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise DatabaseError(
            f"The upgrade of {connection.engine.url.database} would leave a row of {broken[0]} that refers to nothing: "
            "it was undone."
        )


def _last_quarantined(connection: Connection) -> int:
    if "quarantine" not in _tables(connection):
        return 0
    return int(connection.exec_driver_sql("SELECT coalesce(max(id), 0) FROM quarantine").scalar_one())


def _quarantined_since(connection: Connection, last: int) -> dict[str, int]:
    if "quarantine" not in _tables(connection):
        return {}
    rows = connection.exec_driver_sql(
        f"SELECT table_name, count(*) FROM quarantine WHERE id > {last:d} GROUP BY table_name ORDER BY table_name"  # noqa: S608
    )
    return {str(table): int(count) for table, count in rows}


def _raw(connection: Connection) -> Any:
    return connection.connection.dbapi_connection
