"""Opening, sharing and refusing database files: real files, real processes."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from edi_storage.connection import (
    create_database,
    database_path,
    make_engine,
    reading,
    set_database_aside,
    sqlite_driver,
    sqlite_file,
    sqlite_url,
    writing,
)
from edi_storage.database_file import APPLICATION_ID, SCHEMA_REVISION
from edi_storage.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseTooNewError,
    InputError,
    StorageFullError,
)
from tests.storage.small_disk import small_disk

DRIVERS = {driver.__name__: driver for driver in (sqlite_driver(), sqlite3)}


@pytest.fixture(params=DRIVERS)
def driver(request):
    """Each SQLite there is: the carried one (WAL) and the standard library's (often too old for WAL)."""
    return DRIVERS[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edi.db"


@contextmanager
def opened(path, **options):
    engine = make_engine(sqlite_url(path), **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def counter(path, **options):
    """An engine on a database with a table `counter` that holds one row, 0."""
    with opened(path, **options) as engine:
        create_database(engine)
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE counter (n INTEGER NOT NULL UNIQUE)"))
            connection.execute(text("INSERT INTO counter VALUES (0)"))
        yield engine


def value(engine):
    with reading(engine) as connection:
        return connection.execute(text("SELECT n FROM counter")).scalar_one()


def add(engine, amount=1):
    with writing(engine) as connection:
        n = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + amount})


def python(code, *arguments):
    """A second process, which says `ready` and waits for a line before it does its work."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


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
    with counter(tmp_path / "größe 100%41? #1 'x'.db") as engine:
        assert value(engine) == 0
    assert (tmp_path / "größe 100%41? #1 'x'.db").exists()


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


def fail_half_way(engine):
    with writing(engine) as connection:
        connection.execute(text("UPDATE counter SET n = 99"))
        raise KeyboardInterrupt


def test_an_exception_leaves_nothing_behind(path, driver):
    with counter(path, driver=driver) as engine:
        with pytest.raises(KeyboardInterrupt):
            fail_half_way(engine)
        assert value(engine) == 0


def test_a_reader_cannot_write(path, driver):
    with counter(path, driver=driver) as engine:
        with pytest.raises(DatabaseError, match="readonly"), reading(engine) as connection:
            connection.execute(text("UPDATE counter SET n = 99"))
        add(engine)
        assert value(engine) == 1


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
        with pytest.raises(OperationalError, match="no such table"), reading(engine) as connection:
            connection.execute(text("SELECT * FROM absent"))


INCREMENT = """
import sys
from sqlalchemy import text
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


def test_a_database_locked_by_somebody_else_is_reported_in_time(path, driver):
    with counter(path, driver=driver, busy_timeout_ms=200) as engine, closing(driver.connect(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(DatabaseBusyError, match=r"edi\.db stayed locked"), writing(engine):
            pass
        assert 0.1 < time.monotonic() - started < 2
        other.rollback()
        add(engine)
        assert value(engine) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_opens_its_own_connection(path):
    with counter(path) as engine:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                add(engine)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        add(engine)
        assert value(engine) == 2


# --- What is refused ---------------------------------------------------------------------------------


def _sound(path):
    with counter(path) as engine, writing(engine) as connection:
        connection.execute(text("CREATE TABLE filler (b BLOB)"))
        connection.execute(text("INSERT INTO filler VALUES (randomblob(20000))"))
    return path.read_bytes()


NO_DATABASE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "0 bytes": lambda path: path.write_bytes(b""),
    "a few bytes": lambda path: path.write_bytes(b"SQLite"),
    "a web page": lambda path: path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>\n" * 90),
    "an encrypted file": lambda path: path.write_bytes(os.urandom(8192)),
    "half a database": lambda path: path.write_bytes(_sound(path)[: 4096 * 3]),
    "a database without its last bytes": lambda path: path.write_bytes(_sound(path)[:-100]),
    "a database of only its header": lambda path: path.write_bytes(_sound(path)[:100]),
}


@pytest.mark.parametrize("make", NO_DATABASE.values(), ids=NO_DATABASE)
def test_what_is_not_a_whole_database_is_called_damaged(path, make, driver):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with opened(path, driver=driver) as engine:
        for use in (reading, writing):
            with pytest.raises(DatabaseDamagedError, match=r"edi\.db is damaged \(.+\): run `edi doctor"), use(engine):
                pass
        assert create_database(engine) is False
    assert before is None or path.read_bytes() == before


def test_a_missing_database_is_an_error_and_nothing_is_made(tmp_path):
    with (
        opened(tmp_path / "folder" / "edi.db") as engine,
        pytest.raises(DatabaseError, match="There is no database at"),
    ):
        value(engine)
    assert list(tmp_path.iterdir()) == []


def test_another_applications_database_is_not_touched(path, driver):
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id=252006673")
        other.execute("CREATE TABLE pages (content)")
    before = path.read_bytes()
    with opened(path, driver=driver) as engine, pytest.raises(DatabaseError, match="belongs to another application"):
        add(engine)
    assert path.read_bytes() == before


def test_a_newer_database_is_not_touched(path, driver):
    with counter(path, driver=driver) as engine:
        engine.dispose()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version={SCHEMA_REVISION + 1}")
    before = path.read_bytes()
    with opened(path, driver=driver) as engine, pytest.raises(DatabaseTooNewError, match="upgrade EDI"):
        add(engine)
    assert path.read_bytes() == before


def test_a_process_notices_that_a_newer_edi_upgraded_its_database(path):
    with counter(path) as engine, closing(sqlite_driver().connect(str(path))) as newer:
        newer.execute(f"PRAGMA user_version={SCHEMA_REVISION + 1}")
        with pytest.raises(DatabaseTooNewError), writing(engine):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a.db?mode=ro",
        "sqlite+aiosqlite:///a.db",
        "nosuch://x/y",
    ],
)
def test_a_url_that_cannot_work_is_refused_with_one_sentence(url):
    with pytest.raises(InputError) as caught:
        make_engine(url)
    assert "\n" not in str(caught.value)


def test_the_file_behind_a_url_is_known_without_opening_it(tmp_path):
    assert sqlite_file(f"sqlite:///{tmp_path}/edi.db") == tmp_path / "edi.db"
    assert sqlite_file("postgresql+asyncpg://host/edi") is None


def test_a_server_engine_is_left_to_its_driver():
    engine = make_engine("postgresql+asyncpg://host/edi")
    assert (database_path(engine), create_database(engine)) == (None, False)


# --- When the file changes under an engine -----------------------------------------------------------


def test_writes_go_to_the_new_file_after_a_damaged_one_was_set_aside(path, driver):
    with counter(path, driver=driver) as engine:
        aside = set_database_aside(path)
        with pytest.raises(DatabaseError, match="There is no database"):
            add(engine)
        with counter(path, driver=driver):
            add(engine, 7)
        assert value(engine) == 7
    with opened(aside, driver=driver) as old:
        assert value(old) == 0


WRITE_AND_HANG = """
import sys
from sqlalchemy import text
from edi_storage.connection import make_engine, create_database, writing
engine = make_engine("sqlite:///" + sys.argv[1])
create_database(engine)
with writing(engine) as connection:
    connection.execute(text("CREATE TABLE ghost (n INTEGER)"))
print("ready", flush=True); input()
"""


def test_the_wal_of_a_deleted_database_is_not_replayed_into_the_next(path):
    process = python(WRITE_AND_HANG, path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    companions = [file.name for file in path.parent.glob("edi.db-*")]
    path.unlink()
    with opened(path) as engine:
        assert create_database(engine)
        with reading(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0
    assert len(list(path.parent.glob("edi.db.orphan-*"))) == len(companions)


def test_setting_aside_twice_in_a_second_keeps_both(path):
    names = set()
    for content in (b"first", b"second"):
        path.write_bytes(content)
        names.add(set_database_aside(path))
    assert sorted(name.read_bytes() for name in names) == [b"first", b"second"]


# --- When the disk fails -----------------------------------------------------------------------------

FILE_LIMIT = """
import resource, sys
from sqlalchemy import text
from edi_storage.connection import make_engine, create_database, reading, writing
from edi_storage.errors import DatabaseError
engine = make_engine("sqlite:///" + sys.argv[1])
create_database(engine)
with writing(engine) as connection:
    connection.execute(text("CREATE TABLE filler (b BLOB)"))
    first = connection.connection.dbapi_connection
print("ready", flush=True); input()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
try:
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO filler VALUES (randomblob(500000))"))
except DatabaseError as error:
    print("refused:", "I/O error" in str(error), flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
with writing(engine) as connection:
    connection.execute(text("INSERT INTO filler VALUES (randomblob(500000))"))
    print("fresh:", connection.connection.dbapi_connection is not first, flush=True)
with reading(engine) as connection:
    print("rows:", connection.execute(text("SELECT count(*) FROM filler")).scalar(), flush=True)
"""


def test_after_a_write_error_the_connection_is_given_up_and_the_next_one_works(path):
    process = python(FILE_LIMIT, path)
    go(process)
    assert process.communicate(timeout=50)[0].splitlines() == ["refused: True", "fresh: True", "rows: 1"]
    assert process.returncode == 0


def fill(engine, acknowledged, upto):
    for number in range(len(acknowledged), upto):
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO filler VALUES (:n, randomblob(20000))"), {"n": number})
        acknowledged.append(number)


def test_a_full_disk_is_named_and_nothing_acknowledged_is_lost(tmp_path, driver):
    folder = tmp_path / "disk"
    with small_disk(folder) as enlarge, counter(folder / "edi.db", driver=driver) as engine:
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE filler (n INTEGER PRIMARY KEY, b BLOB)"))
        acknowledged = []
        with pytest.raises(StorageFullError, match=r"disk of .* is full: nothing was lost"):
            fill(engine, acknowledged, upto=1000)
        enlarge()
        fill(engine, acknowledged, upto=len(acknowledged) + 1)
        with reading(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM filler")).scalar() == len(acknowledged)
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_a_new_database_on_a_full_disk_is_refused_and_leaves_nothing(tmp_path):
    folder = tmp_path / "disk"
    with small_disk(folder) as enlarge, opened(folder / "edi.db") as engine:
        (folder / "ballast").write_bytes(bytes(2**20 - 4096))
        with pytest.raises(StorageFullError):
            create_database(engine)
        assert sorted(file.name for file in folder.iterdir() if file.name != ".edi.lock") == ["ballast"]
        enlarge()
        assert create_database(engine)
