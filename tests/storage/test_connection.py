"""The engine, and the two ways to use it, by several threads and processes."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from edi_storage.connection import (
    create_database,
    database_path,
    make_engine,
    reading,
    sqlite_file,
    sqlite_url,
    without_password,
    writing,
    writing_prepared,
)
from edi_storage.database import EDIDatabase
from edi_storage.database_file import APPLICATION_ID
from edi_storage.errors import DatabaseBusyError, DatabaseDamagedError, DatabaseError, DatabaseTooNewError, InputError
from tests.storage.counter import DRIVERS, add, counter, go, opened, put, python, value

pytestmark = pytest.mark.sqlite_file(
    "how SQLite is opened and locked; test_database_server.py has the like for PostgreSQL"
)


@pytest.fixture(params=DRIVERS)
def driver(request):
    return DRIVERS[request.param]


each_way = pytest.mark.parametrize("way", [writing, writing_prepared], ids=["writing", "prepared"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edi.db"


# --- How a connection is set up ----------------------------------------------------------------------


def test_every_connection_has_every_pragma(path, driver):
    wal = driver.sqlite_version_info >= (3, 51, 3)
    expected = {
        "foreign_keys": 1,
        "busy_timeout": 1234,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "journal_mode": "wal" if wal else "delete",
        "synchronous": 2 if wal else 3,  # FULL, EXTRA
        "application_id": APPLICATION_ID,
    }
    # Two at once, so that the second is a new connection too.
    with (
        counter(path, busy_timeout_ms=1234, driver=driver) as engine,
        writing(engine) as first,
        reading(engine) as second,
    ):
        for connection in (first, second):
            assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected} == expected


def test_a_wal_database_leaves_wal_when_this_sqlite_is_too_old_for_it(path):
    if sqlite3.sqlite_version_info >= (3, 51, 3):
        pytest.skip("the standard library's SQLite is new enough for WAL")
    with counter(path) as engine:
        engine.dispose()
    with opened(path, driver=sqlite3) as engine, reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
    with opened(path) as engine:
        assert value(engine) == 0


def test_files_and_folders_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with counter(tmp_path / "new" / "folder" / "edi.db") as engine:
            add(engine)
            files = sorted((tmp_path / "new" / "folder").iterdir())
            assert "edi.db" in [file.name for file in files]
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)
    for folder in (tmp_path / "new", tmp_path / "new" / "folder"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_path_may_hold_any_character(tmp_path):
    with counter(tmp_path / "größe 100%41 #1 'x'.db") as engine:
        assert value(engine) == 0
    assert (tmp_path / "größe 100%41 #1 'x'.db").exists()


def test_a_relative_path_stays_where_it_was_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with counter("edi.db") as engine:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        engine.dispose()
        assert value(engine) == 0
        assert database_path(engine) == tmp_path / "edi.db"


def test_importing_the_connection_is_cheap():
    heavy = ["alembic", "prefect", "numpy", "typer", "rich", "sqlalchemy.orm", "filelock", "pydantic"]
    code = f"import sys, edi_storage.connection; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() in ("[]", "['pydantic']")  # the package's door may import the models


# --- Reading and writing -----------------------------------------------------------------------------


def fail_half_way(way, engine):
    with way(engine, "s-1") as connection:
        put(connection, 99)
        raise KeyboardInterrupt


@each_way
def test_what_is_written_is_there_for_the_next_one(path, driver, way):
    with counter(path, driver=driver) as engine:
        for number in (5, 6):
            with way(engine, "s-1") as connection:
                put(connection, number)
            assert value(engine) == number


@each_way
def test_an_exception_leaves_nothing_behind(path, driver, way):
    with counter(path, driver=driver) as engine:
        with pytest.raises(KeyboardInterrupt):
            fail_half_way(way, engine)
        assert value(engine) == 0
        add(engine)
        assert value(engine) == 1
        assert engine.pool.checkedout() == 0


@each_way
def test_a_database_that_a_newer_edi_has_migrated_meanwhile_is_not_written_to(path, way):
    with counter(path) as engine:
        with writing(engine) as connection:
            connection.exec_driver_sql("PRAGMA user_version=999")
        with pytest.raises(DatabaseTooNewError, match="newer"), way(engine, "s-1") as connection:
            put(connection, 99)
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("SELECT n FROM counter").fetchone() == (0,)


def test_a_reader_cannot_write(path, driver):
    with counter(path, driver=driver) as engine:
        with pytest.raises(DatabaseError, match="readonly"), reading(engine) as connection:
            connection.execute(text("UPDATE counter SET n = 99"))
        add(engine)
        assert value(engine) == 1


def test_a_connection_is_switched_between_reading_and_writing_only_where_that_changes(path, driver):
    # SQLite compiles all statements of a connection anew after it.
    said = []
    with counter(path, driver=driver) as engine:
        with writing(engine) as connection:
            connection.connection.dbapi_connection.set_trace_callback(said.append)
        for use in (add, add, value, value, add, add):
            use(engine)
    assert [text for text in said if "query_only" in text] == ["PRAGMA query_only=ON", "PRAGMA query_only=OFF"]


def test_a_reader_does_not_wait_for_a_writer(path, driver):
    with counter(path, driver=driver, busy_timeout_ms=100) as engine, writing(engine) as connection:
        connection.execute(text("UPDATE counter SET n = 99"))
        started = time.monotonic()
        assert value(engine) == 0
        assert time.monotonic() - started < 0.1


def test_a_reader_sees_one_moment_while_others_write(path):
    with counter(path) as engine, reading(engine) as connection:
        before = connection.execute(text("SELECT n FROM counter")).scalar_one()
        add(engine)
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == before


def test_a_broken_constraint_and_wrong_sql_stay_what_they_are(path):
    with counter(path) as engine:
        with pytest.raises(IntegrityError), writing(engine) as connection:
            connection.execute(text("INSERT INTO counter VALUES (0)"))
        with pytest.raises(OperationalError, match="syntax error"), reading(engine) as connection:
            connection.execute(text("SELECT FROM counter WHERE"))


def test_a_table_or_column_that_is_not_there_is_damage_to_the_database(path):
    # EDI's own statements name what its migrations made.
    with counter(path) as engine:
        for query in ("SELECT * FROM absent", "SELECT absent FROM counter"):
            with pytest.raises(DatabaseDamagedError, match="no such"), reading(engine) as connection:
                connection.execute(text(query))


@pytest.mark.parametrize(
    "garbled", ["created_at = 'yesterday'", "created_at = 12345", "options = '{'", "waiting_for = 'tea'"]
)
def test_a_stored_value_that_cannot_be_read_is_damage_to_the_database(path, garbled):
    with EDIDatabase(str(path)) as database:
        database.save_session({"id": "s1", "image_path": "a.jpg", "naive_prompt": "p"})
        with writing(database.engine) as connection:
            connection.exec_driver_sql(f"UPDATE sessions SET {garbled}")
        with pytest.raises(DatabaseDamagedError, match=r"edi\.db is damaged") as caught:
            database.query_history()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_text_that_no_database_can_look_for_is_bad_input_and_no_damage(path):
    with counter(path) as engine, pytest.raises(InputError, match="Unicode"), reading(engine) as connection:
        connection.execute(text("SELECT :name"), {"name": "a\udcff"})


INCREMENT = """
import sys
from sqlalchemy import Connection, text
from edi_storage.connection import make_engine, writing
import importlib
engine = make_engine("sqlite:///" + sys.argv[1], driver=importlib.import_module(sys.argv[2]))
print("ready", flush=True); input()
for _ in range(50):
    with writing(engine) as connection:
        n = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
"""


def test_two_processes_that_read_modify_and_write_lose_nothing(path, driver):
    with counter(path, driver=driver) as engine:
        processes = [python(INCREMENT, path, driver.__name__) for _ in range(2)]
        for process in processes:
            go(process)
        for process in processes:
            process.communicate(timeout=50)
            assert process.returncode == 0
        assert value(engine) == 100


def test_threads_share_an_engine_and_lose_nothing(path):
    with counter(path) as engine:
        threads = [threading.Thread(target=lambda: [add(engine) for _ in range(25)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert value(engine) == 100


@each_way
def test_a_database_locked_by_somebody_else_is_reported_in_time(path, driver, way):
    with counter(path, driver=driver, busy_timeout_ms=200) as engine, closing(driver.connect(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(DatabaseBusyError, match=r"edi\.db stayed locked"), way(engine, "s-1"):
            pass
        assert 0.1 < time.monotonic() - started < 2
        other.rollback()
        add(engine)
        assert value(engine) == 1


@each_way
def test_a_commit_that_readers_do_not_let_through_is_undone(path, way):
    # Only with a rollback journal: in WAL mode readers keep nobody waiting.
    if sqlite3.sqlite_version_info >= (3, 51, 3):
        pytest.skip("the standard library's SQLite is new enough for WAL")
    with counter(path, driver=sqlite3, busy_timeout_ms=100) as engine:
        with reading(engine) as connection:
            connection.execute(text("SELECT n FROM counter")).scalar_one()
            with pytest.raises(DatabaseBusyError), way(engine, "s-1") as writer:
                put(writer, 99)
        assert value(engine) == 0
        add(engine)
        assert value(engine) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_opens_its_own_connection(path):
    with counter(path) as engine:
        with reading(engine) as connection:
            inherited = connection.connection.dbapi_connection
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with writing(engine) as connection:
                    connection.execute(text("UPDATE counter SET n = n + 1"))
                    status = int(connection.connection.dbapi_connection is inherited)
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        add(engine)
        assert value(engine) == 2


# --- URLs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite+aiosqlite:///a.db",
        "nosuch://x/y",
        "postgresql://me:secret@host:port/edi",
        "postgresql:/me:secret@host/edi",
        "me:secret@host/edi",
        "postgresql:me:secret@host/edi",
        "sqlite://me:secret@host/edi?mode=ro",
        "postgresql+asyncpg://me:secret@host/edi",
        "mysql://me:secret@host/edi",
        "mysql://host/edi?user=me&password=secret",
    ],
)
def test_a_url_that_cannot_work_is_refused_with_one_sentence(url):
    with pytest.raises(InputError) as caught:
        make_engine(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/edi", "postgresql://me:***@host:5432/edi"),
        ("postgresql://me:sec:r@t/@host/edi", "postgresql://me:***@host/edi"),
        ("postgresql://me:/secret@host/edi", "postgresql://me:***@host/edi"),
        ("postgresql://:secret@host/edi", "postgresql://:***@host/edi"),
        ("postgresql://me@host:5432/edi", "postgresql://me@host:5432/edi"),
        ("sqlite:////home/me/a:b@c.db", "sqlite:////home/me/a:b@c.db"),
        ("/home/me/a:b@c", "/home/me/a:b@c"),
        ("postgresql://host/edi?user=me&password=secret", "postgresql://host/edi?user=me&password=***"),
        ("postgresql://host/edi?sslpassword=secret&user=me", "postgresql://host/edi?sslpassword=***&user=me"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert without_password(url) == shown


def test_the_file_behind_a_url_is_known_without_opening_it(tmp_path):
    assert sqlite_file(f"sqlite:///{tmp_path}/edi.db") == tmp_path / "edi.db"
    assert sqlite_file("postgresql+asyncpg://host/edi") is None


def test_a_server_engine_has_no_file():
    engine = make_engine("postgresql+psycopg://host/edi")
    assert (database_path(engine), create_database(engine)) == (None, False)


def test_a_path_that_no_url_can_hold_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be a database"):
        sqlite_url("/photos/what?.db")


@each_way
def test_a_connection_that_breaks_between_two_uses_is_one_sentence_and_then_replaced(path, way, caplog):
    with counter(path) as engine:
        with way(engine, "s-1") as connection:
            raw = driver_connection(connection)
        raw.close()
        with (
            pytest.raises(DatabaseError, match=r"edi\.db could not be used: Cannot operate on a closed database\.$"),
            way(engine, "s-1"),
        ):
            pass
        with way(engine, "s-1") as connection:
            put(connection, 1)
        assert value(engine) == 1
    assert not caplog.records  # the pool says nothing of the rollback that could not be


def driver_connection(connection):
    return (
        connection.connection.dbapi_connection if isinstance(connection, Connection) else connection.cursor.connection
    )
