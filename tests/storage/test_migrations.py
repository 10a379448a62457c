"""Every schema is made by the revisions, whoever else tries at the same time or dies."""

import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event

from edi_storage import migrations
from edi_storage.backup import verify_backup
from edi_storage.connection import SCHEMA_REVISION, create_database, reading, sqlite_url
from edi_storage.errors import DatabaseDamagedError, DatabaseError, DatabaseTooNewError, InputError
from edi_storage.tables import Base
from tests.storage import seed_database
from tests.storage.seed_database import execute, rows
from tests.storage.upgrading import BAD_ROWS, TABLES, add_bad_rows, counts, engine_for, is_current, upgrade

pytestmark = pytest.mark.sqlite_file("files are upgraded; test_server_migrations.py has the like for PostgreSQL")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "edi_sessions.db")


@pytest.fixture
def seed(path):
    """A seed database with three sound sessions."""
    seed_database.build(path)
    return path


# --- The schema --------------------------------------------------------------------------------------


def test_the_newest_revision_is_the_one_this_version_works_with(path):
    assert migrations.head() == f"{SCHEMA_REVISION:04d}"
    report = upgrade(path)
    assert (report.from_revision, report.to_revision, report.backup_path) == (None, migrations.head(), None)
    assert is_current(path)


def test_the_first_revision_is_the_seeds_schema_to_the_letter(tmp_path):
    seed_database.EDIDatabase(str(tmp_path / "seed.db"))
    upgrade(tmp_path / "ours.db", target="0001")
    ours = [row for row in rows(str(tmp_path / "ours.db"), "sqlite_master") if "alembic" not in row["name"]]
    theirs = rows(str(tmp_path / "seed.db"), "sqlite_master")
    assert {(row["name"], row["sql"]) for row in ours if row["sql"]} == {
        (row["name"], row["sql"]) for row in theirs if row["sql"]
    }


def _checks(sql):
    """The CHECKs of a CREATE TABLE by name, blanks evened out."""
    found = {}
    for match in re.finditer(r"CONSTRAINT (\w+) CHECK \(", sql):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        found[match[1]] = " ".join(sql[match.end() : end - 1].split())
    return found


def _schema(path):
    """All that SQLite knows of the tables, but for the order of constraints."""
    with closing(sqlite3.connect(path)) as raw:
        tables = dict(raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        for name in ("alembic_version", "sqlite_sequence"):
            tables.pop(name, None)
        return {
            name: {
                "columns": raw.execute(f"PRAGMA table_xinfo({name})").fetchall(),
                "foreign keys": sorted(row[2:] for row in raw.execute(f"PRAGMA foreign_key_list({name})")),
                "indexes": _indexes(raw, name),
                "checks": _checks(sql),
                "constraint names": sorted(re.findall(r"CONSTRAINT (\w+)", sql)),
                "numbered for ever": "AUTOINCREMENT" in sql,
            }
            for name, sql in tables.items()
        }


def _indexes(raw, table):
    found = []
    for _, name, unique, origin, partial in raw.execute(f"PRAGMA index_list({table})"):
        columns = [row[2] for row in raw.execute(f"PRAGMA index_info({name})")]
        sql = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        found.append((None if sql is None else name, unique, origin, partial, columns, " ".join((sql or "").split())))
    return sorted(found, key=str)


@pytest.mark.parametrize("start", ["nothing", "a seed database"])
def test_the_revisions_make_exactly_the_tables_of_tables_py(tmp_path, path, start):
    if start == "a seed database":
        seed_database.build(path)
    upgrade(path)
    direct = engine_for(tmp_path / "direct.db")
    create_database(direct)
    Base.metadata.create_all(direct)
    direct.dispose()
    made, meant = _schema(path), _schema(tmp_path / "direct.db")
    assert made.keys() == meant.keys()
    for table in meant:
        assert made[table] == meant[table], table
    assert sum(len(table["checks"]) for table in made.values()) > 20


def test_alembic_sees_no_difference_either(path):
    upgrade(path)
    engine = engine_for(path)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_database_can_stop_at_every_revision_and_go_on(path):
    seed_database.build(path)
    for number in range(1, SCHEMA_REVISION + 1):
        report = upgrade(path, target=f"{number:04d}")
        assert report.to_revision == f"{number:04d}"
        assert is_current(path) == (number == SCHEMA_REVISION)
    assert counts(path) == {"sessions": 3, "prompts": 6, "entities": 3, "validations": 3, "user_feedback": 3}


def test_foreign_keys_are_off_while_tables_are_replaced_and_on_afterwards(seed):
    engine = engine_for(seed)
    seen = []

    @event.listens_for(engine, "after_cursor_execute")
    def look(connection, cursor, statement, *_):
        if statement.strip().startswith("DROP TABLE"):
            seen.append(connection.connection.dbapi_connection.execute("PRAGMA foreign_keys").fetchone()[0])

    migrations.upgrade(engine)
    assert seen == [0] * 8
    with reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_after_the_upgrade_the_same_engine_uses_the_journal_mode_of_a_new_database(tmp_path, seed):
    modes = []
    for path in (seed, tmp_path / "new.db"):
        engine = engine_for(path)
        migrations.upgrade(engine)
        with reading(engine) as connection:
            modes.append(
                [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
            )
        engine.dispose()
    assert modes[0] == modes[1]


def test_an_unknown_target_is_refused(path):
    with pytest.raises(InputError, match="no revision '0099'"):
        upgrade(path, target="0099")


def test_asking_whether_a_database_is_current_does_not_import_alembic(path):
    upgrade(path)
    code = (
        "import sys; from edi_storage import migrations; from edi_storage.connection import make_engine\n"
        f"engine = make_engine({sqlite_url(path)!r})\n"
        "print(migrations.is_current(engine), migrations.current(engine), 'alembic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["True", migrations.head(), "False"]


def test_a_database_that_is_not_there_is_not_current_and_is_not_made_by_asking(tmp_path, path):
    engine = engine_for(path)
    assert (migrations.is_current(engine), migrations.current(engine)) == (False, None)
    assert list(tmp_path.iterdir()) == []


# --- What is refused ---------------------------------------------------------------------------------


def refused_and_untouched(path, error, match):
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(error, match=match):
        upgrade(path)
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_newer_revision_is_refused_untouched(seed):
    upgrade(seed)
    execute(seed, "UPDATE alembic_version SET version_num = '9999'")
    engine = engine_for(seed)
    with pytest.raises(DatabaseTooNewError):
        migrations.is_current(engine)
    engine.dispose()
    refused_and_untouched(seed, DatabaseTooNewError, "revision 9999, which this version of EDI does not know")


def test_a_newer_user_version_is_refused_untouched(seed):
    upgrade(seed)
    execute(seed, f"PRAGMA user_version={SCHEMA_REVISION + 1}")
    refused_and_untouched(seed, DatabaseTooNewError, "written by a newer version of EDI")


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE pages (content)"],
        ["CREATE TABLE sessions (id TEXT, token TEXT)"],
        ["CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES ('0001')"],
        ["CREATE VIEW v AS SELECT 1"],
    ],
    ids=["other tables", "another sessions table", "another program's alembic", "only a view"],
)
def test_another_applications_database_is_refused_untouched(path, statements):
    execute(path, *statements)
    refused_and_untouched(path, DatabaseError, "belongs to another application")
    assert not is_current_or_refused(path)


def is_current_or_refused(path):
    try:
        return is_current(path)
    except DatabaseError:
        return False


@pytest.mark.parametrize("extra", ["a sixth table", "a missing column", "a view"])
def test_what_only_resembles_the_seeds_database_is_refused_untouched(seed, extra):
    execute(
        seed,
        {
            "a sixth table": "CREATE TABLE more (x)",
            "a missing column": "ALTER TABLE entities DROP COLUMN area_percent",
            "a view": "CREATE VIEW best AS SELECT * FROM sessions",
        }[extra],
    )
    refused_and_untouched(seed, DatabaseError, "belongs to another application")


def test_a_damaged_seed_database_is_refused_untouched(seed):
    with open(seed, "r+b") as file:
        file.truncate(4096 * 3)
    refused_and_untouched(seed, DatabaseDamagedError, "is damaged")


def test_a_sqlite_file_without_tables_is_taken(path):
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM")
        raw.execute("CREATE TABLE t (x)")
        raw.execute("DROP TABLE t")
    assert upgrade(path).from_revision is None
    assert is_current(path)


# --- Many at once, and dying half-way ----------------------------------------------------------------

UPGRADE = """
import sys
from edi_storage import migrations
from edi_storage.connection import make_engine, sqlite_url
import alembic.command, filelock
engine = make_engine(sqlite_url(sys.argv[1]))
print("ready", flush=True); input()
report = migrations.upgrade(engine)
print(report.changed, report.backup_path is not None, migrations.is_current(engine), flush=True)
"""


def upgrader(path):
    """A process that says `ready`, waits for a line, upgrades, and tells what it did."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", UPGRADE, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("start", ["nothing", "a seed database"])
def test_eight_processes_may_upgrade_at_once(path, tmp_path, start):
    if start == "a seed database":
        seed_database.build(path, sessions=50)
        add_bad_rows(path)
        before = counts(path)
    processes = [upgrader(path) for _ in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    is_seed = start == "a seed database"
    assert sorted(told) == [["False", "False", "True"]] * 7 + [["True", str(is_seed), "True"]]
    assert len(list(tmp_path.glob("backups/*.db"))) == is_seed
    if is_seed:
        assert counts(path) == {table: count - len(BAD_ROWS[table]) for table, count in before.items()}


def test_a_killed_upgrade_leaves_the_old_schema_or_the_new_one(tmp_path):
    template = str(tmp_path / "template.db")
    seed_database.build(template, sessions=100)
    add_bad_rows(template)
    before = counts(template)
    started = time.monotonic()
    upgrade(_copy(template, tmp_path / "timed" / "edi.db"))
    duration = time.monotonic() - started
    seen = set()
    for number in range(10):
        path = _copy(template, tmp_path / str(number) / "edi.db")
        _kill_during_upgrade(path, after=random.uniform(0, duration))
        seen.add(_finish_killed_upgrade(path, before))
        for copy in (tmp_path / str(number)).glob("backups/*.db"):
            assert {table: count for table, count in verify_backup(copy).items() if table in before} == before
    assert seen  # which of the two it was is up to chance


def _copy(template, path):
    path.parent.mkdir()
    path.write_bytes(open_bytes(template))
    return str(path)


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def _kill_during_upgrade(path, after):
    process = upgrader(path)
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def _finish_killed_upgrade(path, before):
    """Check what the killed process left, finish its work, and say which schema it had left."""
    kept = {table: count - len(BAD_ROWS[table]) for table, count in before.items()}
    with closing(sqlite3.connect(path)) as raw:
        tables = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    was_new = "alembic_version" in tables
    assert was_new == is_current(path)
    if not was_new:
        assert tables - {"sqlite_sequence"} == set(TABLES)
    assert counts(path) == (kept if was_new else before)
    assert upgrade(path).changed == (not was_new)
    assert is_current(path)
    assert counts(path) == kept
    return "new" if was_new else "old"


def test_artifacts_keep_their_rows_when_their_table_is_made_anew(path):
    engine = engine_for(path)
    migrations.upgrade(engine, target="0005")
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO sessions (id, image_path, naive_prompt, status) VALUES ('s', 'a', 'b', 'in_progress')")
        raw.execute("INSERT INTO artifacts VALUES ('s', 'edited', 'attempt_1', 's/files/x.png', 'x')")
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute("INSERT INTO artifacts VALUES ('s', 'delta', 'attempt_1', 's/files/y.png', 'y')")
    raw.close()
    migrations.upgrade(engine)
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO artifacts VALUES ('s', 'delta', 'attempt_1', 's/files/y.png', 'y')")
        assert raw.execute("SELECT kind FROM artifacts ORDER BY kind").fetchall() == [("delta",), ("edited",)]
    raw.close()
