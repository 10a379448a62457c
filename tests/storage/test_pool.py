"""The connection at hand for the next prepared transaction, and the log that becomes long at once."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from edi_storage import EDIDatabase, database_file
from edi_storage.connection import reading, sqlite_driver, writing_prepared
from edi_storage.database_file import IOERR, LOG_BYTES, open_sqlite
from edi_storage.errors import DatabaseError
from tests.storage.counter import counter, put, value
from tests.storage.sessions import SESSION, commits

pytestmark = pytest.mark.sqlite_file("how connections to a file are kept")

needs_wal = pytest.mark.skipif(
    sqlite_driver().sqlite_version_info < (3, 51, 3), reason="this SQLite is too old for a write-ahead log"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edi.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    with counter(path) as made:
        made.pool._timeout = 0.5
        yield made


def store(engine: Engine, number: int, *, boundary: bool = True) -> Any:
    """Put a number in a prepared transaction; the driver's connection that did it."""
    with writing_prepared(engine, "s-1", boundary=boundary) as connection:
        put(connection, number)
        return connection.cursor.connection


def fail_half_way(engine: Engine) -> None:
    with writing_prepared(engine, "s-1") as connection:
        put(connection, 99)
        raise KeyboardInterrupt


def open_files(path: Path) -> int:
    """How many handles this process has on the database and its companions."""
    links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(path)) for link in links if link.is_symlink())


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux only")

# --- The connection at hand ----------------------------------------------------------------------------


def test_the_next_one_has_the_same_connection_and_a_reader_another(engine: Engine) -> None:
    first = store(engine, 1)
    assert value(engine) == 1
    assert store(engine, 2) is first
    assert value(engine) == 2


def test_all_connections_of_the_pool_are_there_beside_it(engine: Engine) -> None:
    store(engine, 1)
    with ExitStack() as readers:
        for _ in range(15):
            readers.enter_context(reading(engine))
        with pytest.raises(PoolTimeoutError):
            engine.pool.connect()
        store(engine, 2)
    assert value(engine) == 2


def test_the_connection_of_one_that_failed_is_closed(engine: Engine) -> None:
    raw = store(engine, 1)
    with pytest.raises(KeyboardInterrupt):
        fail_half_way(engine)
    assert is_closed(raw)
    assert value(engine) == 1
    store(engine, 2)
    assert value(engine) == 2


def test_a_file_put_in_the_place_of_the_database_is_the_one_that_is_written_to(
    engine: Engine, path: Path, tmp_path: Path
) -> None:
    store(engine, 1)
    with counter(tmp_path / "other.db") as other:
        store(other, 5)
    for companion in ("-wal", "-shm"):
        Path(f"{path}{companion}").unlink(missing_ok=True)
    (tmp_path / "other.db").replace(path)
    assert value(engine) == 5
    store(engine, 6)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT n FROM counter").fetchone() == (6,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_connection_of_its_own(engine: Engine) -> None:
    ours = store(engine, 1)
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = int(store(engine, 2) is ours)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value(engine) == 2
    assert store(engine, 3) is ours


@needs_proc
@needs_wal
def test_threads_have_a_connection_each_and_leave_a_few_at_hand(engine: Engine, path: Path) -> None:
    together = threading.Barrier(12)

    def work() -> None:
        together.wait()
        for _ in range(20):
            with writing_prepared(engine, "s-1") as connection:
                raw = connection.cursor.connection
                put(connection, raw.execute("SELECT n FROM counter").fetchone()[0] + 1)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(engine) == 240
    # A reader's, and the five at hand. (SQLite puts off closing the file itself while others of the process use it.)
    assert 2 <= open_files(Path(f"{path}-wal")) <= 1 + 5
    engine.dispose()
    assert open_files(path) == 0


@needs_proc
def test_an_engine_that_nobody_closes_takes_its_connections_along(path: Path) -> None:
    with counter(path) as engine:
        pass
    store(engine, 1)
    assert open_files(path) > 0
    del engine
    gc.collect()
    assert open_files(path) == 0


def test_a_connection_in_use_while_the_engine_is_closed_is_not_kept(engine: Engine) -> None:
    with writing_prepared(engine, "s-1") as connection:
        put(connection, 1)
        raw = connection.cursor.connection
        engine.dispose()
    assert is_closed(raw)
    assert value(engine) == 1


def test_after_an_io_error_no_connection_is_used_that_was_open_before(engine: Engine) -> None:
    raw = store(engine, 1)
    broken = sqlite_driver().OperationalError("disk I/O error")
    broken.sqlite_errorcode = IOERR

    def fail(*_: Any) -> None:
        raise broken

    event.listen(engine, "do_execute", fail)
    with pytest.raises(DatabaseError, match="I/O"):
        value(engine)
    event.remove(engine, "do_execute", fail)
    assert is_closed(raw)
    assert store(engine, 2) is not raw


def test_it_is_closed_with_the_engine(engine: Engine) -> None:
    raw = store(engine, 1)
    engine.dispose()
    assert is_closed(raw)


def is_closed(raw: Any) -> bool:
    try:
        raw.execute("SELECT 1")
    except sqlite_driver().ProgrammingError:
        return True
    return False


def test_an_edit_writes_by_one_connection(tmp_path: Path) -> None:
    with EDIDatabase(str(tmp_path / "edi.db")) as database:
        taken: list[object] = []
        event.listen(database.engine, "checkout", lambda *_: taken.append(_))
        lease = database.begin_session(SESSION, "me", 30)
        for commit in commits():
            database.commit_stage(lease, commit, 30)
            database.mark_exported(SESSION.session_id, commit.seq)
            lease = database.renew(lease, 30)
        database.release(lease, "review")
        database.release(database.acquire(SESSION.session_id, "me", 30))
        # From the pool, for the first of them; the others have had it at hand.
        assert len(taken) == 1


# --- The log -------------------------------------------------------------------------------------------


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def assert_whole(path: Path, number: int) -> None:
    with closing(sqlite_driver().connect(str(path))) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("SELECT n FROM counter").fetchone() == (number,)
        assert "longer_log" not in {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}


@needs_wal
def test_who_stores_more_than_a_session_has_a_log_that_need_not_grow(engine: Engine, path: Path) -> None:
    for number in range(10):
        store(engine, number)
    assert log_bytes(path) < LOG_BYTES / 10
    store(engine, 10)
    # A last page that was not yet to be spilled may be missing.
    assert log_bytes(path) == pytest.approx(LOG_BYTES, rel=0.01)
    before = log_bytes(path)
    for number in range(11, 30):
        store(engine, number)
    assert log_bytes(path) == before
    assert_whole(path, 29)


@needs_wal
def test_what_is_written_between_boundaries_makes_no_log_longer(engine: Engine, path: Path) -> None:
    for number in range(30):
        store(engine, number, boundary=number % 3 == 0)
    assert log_bytes(path) < LOG_BYTES / 10
    store(engine, 30, boundary=False)
    assert log_bytes(path) < LOG_BYTES / 10
    store(engine, 31)
    assert log_bytes(path) == pytest.approx(LOG_BYTES, rel=0.01)
    assert_whole(path, 31)


@needs_wal
def test_a_kill_while_the_log_is_made_longer_leaves_what_was_there(engine: Engine, path: Path) -> None:
    store(engine, 7)
    engine.dispose()
    script = """
import os, pathlib, signal, sys
from edi_storage.connection import sqlite_driver
from edi_storage.database_file import lengthen_log, open_sqlite
path = pathlib.Path(sys.argv[1])
raw = open_sqlite(path, sqlite_driver(), 1000)
raw.execute("BEGIN IMMEDIATE")
lengthen_log(raw, path)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert log_bytes(path) > LOG_BYTES * 0.99
    assert_whole(path, 7)
    store(engine, 8)
    assert value(engine) == 8


@needs_wal
def test_no_log_takes_the_last_room_of_a_disk(engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(database_file.shutil, "disk_usage", lambda _: usage._replace(free=10 << 20))
    for number in range(12):
        store(engine, number)
    assert log_bytes(path) < LOG_BYTES / 10


@needs_wal
def test_a_disk_whose_room_cannot_be_asked_for_keeps_no_boundary_from_being_stored(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(database_file.shutil, "disk_usage", fail)
    for number in range(12):
        store(engine, number)
    assert_whole(path, 11)


@needs_wal
def test_a_log_that_cannot_become_longer_keeps_no_boundary_from_being_stored(engine: Engine, path: Path) -> None:
    for number in range(10):
        raw = store(engine, number)
    raw.execute("PRAGMA max_page_count=20")  # to SQLite the same as a full disk
    with pytest.raises(sqlite_driver().OperationalError, match="full"):
        raw.execute("CREATE TABLE too_long AS SELECT zeroblob(1000000)")
    assert store(engine, 10) is not raw
    assert log_bytes(path) < LOG_BYTES / 10
    assert_whole(path, 10)


def test_a_database_with_a_rollback_journal_is_left_alone(path: Path) -> None:
    if sqlite3.sqlite_version_info >= (3, 51, 3):
        pytest.skip("the standard library's SQLite is new enough for a write-ahead log")
    said: list[str] = []
    with counter(path, driver=sqlite3) as engine:
        store(engine, 0).set_trace_callback(said.append)
        for number in range(12):
            store(engine, number)
        assert value(engine) == 11
    assert len([text for text in said if text == "COMMIT"]) == 12
    assert not [text for text in said if "longer_log" in text]


@needs_wal
def test_a_log_is_lengthened_once(path: Path) -> None:
    with counter(path), closing(open_sqlite(path, sqlite_driver(), 1000)) as raw:
        for _ in range(2):
            raw.execute("BEGIN IMMEDIATE")
            database_file.lengthen_log(raw, path)
            raw.rollback()
            assert log_bytes(path) == pytest.approx(LOG_BYTES, rel=0.01)
        assert raw.execute("PRAGMA cache_size").fetchone() == (-2000,)
