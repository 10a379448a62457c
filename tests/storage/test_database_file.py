"""The file behind an engine: refused when it is not whole or not ours, noticed when it changes or fills up."""

import os
import signal
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from edi_storage.connection import create_database, reading, set_database_aside, sqlite_driver, writing
from edi_storage.database_file import SCHEMA_REVISION
from edi_storage.errors import DatabaseDamagedError, DatabaseError, DatabaseTooNewError, StorageFullError
from tests.storage.counter import DRIVERS, add, counter, go, opened, python, value
from tests.storage.small_disk import small_disk

pytestmark = pytest.mark.sqlite_file("the database is a file")


@pytest.fixture(params=DRIVERS)
def driver(request):
    return DRIVERS[request.param]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edi.db"


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
