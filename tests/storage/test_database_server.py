"""What is PostgreSQL's own: connections, locks, errors, links that break (conftest.py has the server)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from itertools import product
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import ProgrammingError as WrongSQL

from edi_storage import EDIDatabase, database_server, migrations
from edi_storage.connection import make_engine, reading, writing
from edi_storage.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    EdiError,
    InputError,
    LeaseLostError,
    StorageFullError,
)
from tests import databases
from tests.storage.sessions import SESSION, commit_all, commits
from tests.waiting import wait_until


@contextmanager
def opened(url: str, busy_timeout_ms: int = 30_000) -> Iterator[Engine]:
    engine = make_engine(url, busy_timeout_ms=busy_timeout_ms)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def engine(empty_database: str) -> Iterator[Engine]:
    with opened(empty_database) as made:
        yield made


@pytest.fixture
def counter(engine: Engine) -> Engine:
    """A table with one number in it, 0."""
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER NOT NULL UNIQUE)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    return engine


def value(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(text("SELECT n FROM counter")).scalar_one())


def add(engine: Engine, session_id: str | None = None) -> None:
    with writing(engine, session_id) as connection:
        n = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})


def at_once(*works: Callable[[], object]) -> None:
    """Run all of these at the same time; raises what one of them raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result(60)


def raw(url: str) -> closing[psycopg.Connection[tuple[object, ...]]]:
    return closing(psycopg.connect(databases.conninfo(url), autocommit=True))


def at_next_commit(database: EDIDatabase, harm: Callable[[Any], object]) -> None:
    """Do harm to the link once, right before the driver is told to commit."""
    done: list[object] = []

    @event.listens_for(database.engine, "commit")
    def once(connection: Connection) -> None:
        if not done:
            done.append(True)
            harm(connection.connection.dbapi_connection)


#: So many seconds of a lease a boundary prolongs, which asks for 30: less than half of them.
_SOON_RUN_OUT = 10


@contextmanager
def at_next_statement(database: EDIDatabase, beginning: str, harm: Callable[[], object]) -> Iterator[None]:
    """Do harm once, inside a transaction, right before the next statement that begins like this; there must be one."""
    done: list[object] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def once(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(beginning) and not done:
            done.append(True)
            harm()

    yield
    assert done


# --- Connections -------------------------------------------------------------------------------------


def test_every_connection_is_set_up_whatever_the_database_says(empty_database: str) -> None:
    with raw(empty_database) as direct:
        name = databases.name_of(empty_database)
        for setting in ("timezone = 'Asia/Tokyo'", "synchronous_commit = off", "lock_timeout = 0"):
            direct.execute(f"ALTER DATABASE {name} SET {setting}")
        direct.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    expected = {
        "TimeZone": "UTC",
        "synchronous_commit": "on",
        "lock_timeout": "1234ms",
        "idle_in_transaction_session_timeout": "10s",
        "client_encoding": "UTF8",
    }
    with opened(empty_database, 1234) as engine:
        with writing(engine) as connection:
            found = {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in expected}
            assert found == expected
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
        with reading(engine) as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "repeatable read"
            assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"


def test_a_stronger_commit_than_ours_stays(empty_database: str) -> None:
    with raw(empty_database) as direct:
        direct.execute(f"ALTER DATABASE {databases.name_of(empty_database)} SET synchronous_commit = 'remote_apply'")
    with opened(empty_database) as engine, reading(engine) as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "remote_apply"


def test_a_url_may_leave_the_driver_out(empty_database: str) -> None:
    with opened(empty_database.replace("+psycopg", "")) as engine:
        assert not migrations.is_current(engine)


def test_an_exception_leaves_nothing_behind(counter: Engine) -> None:
    def fail_half_way() -> None:
        with writing(counter) as connection:
            connection.execute(text("UPDATE counter SET n = 99"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert value(counter) == 0


def test_a_reader_cannot_write(counter: Engine) -> None:
    with pytest.raises(DatabaseError, match="read-only"), reading(counter) as connection:
        connection.execute(text("UPDATE counter SET n = 99"))
    add(counter)
    assert value(counter) == 1


def test_a_reader_sees_one_moment_and_waits_for_nobody(counter: Engine) -> None:
    with reading(counter) as connection:
        before = connection.execute(text("SELECT n FROM counter")).scalar_one()
        add(counter)
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == before
    with writing(counter) as connection:
        connection.execute(text("UPDATE counter SET n = 99"))
        assert value(counter) == 1


def test_a_broken_constraint_and_wrong_sql_stay_what_they_are(counter: Engine) -> None:
    with pytest.raises(IntegrityError), writing(counter) as connection:
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    with pytest.raises(WrongSQL, match="does not exist"), reading(counter) as connection:
        connection.execute(text("SELECT * FROM absent"))


@pytest.mark.parametrize("text_given", ["a\udcff", "a\0b"])
def test_what_no_database_can_look_for_is_bad_input(engine: Engine, text_given: str) -> None:
    with pytest.raises(InputError, match=r"Unicode|NUL"), reading(engine) as connection:
        connection.execute(text("SELECT cast(:name AS text)"), {"name": text_given})


def test_a_forked_child_opens_its_own_connection(counter: Engine) -> None:
    with reading(counter) as connection:
        inherited = connection.connection.dbapi_connection
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with writing(counter) as connection:
                connection.execute(text("UPDATE counter SET n = n + 1"))
                status = int(connection.connection.dbapi_connection is inherited)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    add(counter)
    assert value(counter) == 2


def test_text_is_sorted_as_sqlite_sorts_it(empty_database: str) -> None:
    names = ["B-1", "a-1", "A-1", "b_1", "b-1", "b1"]
    with EDIDatabase(empty_database) as database:
        for name in names:
            database.save_session({"id": name, "image_path": "a.jpg", "naive_prompt": "p"})
        assert database.session_ids() == sorted(names)
        assert [found.session_id for found in database.sessions_starting_with("b", 9)] == ["b-1", "b1", "b_1"]


# --- Locks -------------------------------------------------------------------------------------------

INCREMENT = """
import sys
from sqlalchemy import text
from edi_storage.connection import make_engine, writing
engine = make_engine(sys.argv[1])
for number in range(50):
    with writing(engine, sys.argv[2] or None) as connection:
        n = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
"""


@pytest.mark.parametrize(("one", "other"), [("s-1", "s-1"), ("s-1", ""), ("", "")])
def test_two_processes_that_read_modify_and_write_lose_nothing(
    counter: Engine, empty_database: str, one: str, other: str
) -> None:
    command = [sys.executable, "-c", INCREMENT, empty_database]
    both = [subprocess.Popen([*command, session]) for session in (one, other)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert value(counter) == 100


def test_one_session_does_not_wait_for_another(counter: Engine) -> None:
    with writing(counter, "s-1"):
        add(counter, "s-2")
    assert value(counter) == 1


@pytest.mark.parametrize("waits", ["s-1", None])
def test_a_lock_kept_for_too_long_is_reported_in_time(counter: Engine, empty_database: str, waits: str | None) -> None:
    with opened(empty_database, 200) as other, writing(counter, "s-1"):
        started = time.monotonic()
        with pytest.raises(DatabaseBusyError, match="stayed locked"):
            add(other, waits)
        assert 0.1 < time.monotonic() - started < 5


def test_who_stands_still_in_a_transaction_loses_it(counter: Engine) -> None:
    def stand_still() -> None:
        with writing(counter, "s-1") as connection:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 100")
            connection.execute(text("UPDATE counter SET n = 99"))
            time.sleep(0.5)
            connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseError, match="stood still"):
        stand_still()
    add(counter, "s-1")
    assert value(counter) == 1


def test_two_edits_of_one_new_session_get_one_lease(server_database: str) -> None:
    with EDIDatabase(server_database) as database:
        got: list[object] = []

        def begin(owner: str) -> None:
            try:
                got.append(database.begin_session(SESSION, owner, 30))
            except EdiError as error:
                got.append(type(error).__name__)

        at_once(*(lambda owner=f"owner-{number}": begin(owner) for number in range(8)))
        assert got.count("LeaseHeldError") == 7


def test_feedback_and_learning_at_once_lose_no_event(server_database: str) -> None:
    names = [f"s-{number}" for number in range(8)]
    with EDIDatabase(server_database) as database:
        for name in names:
            database.save_session({"id": name, "image_path": "a.jpg", "naive_prompt": "p", "status": "completed"})
        ended = threading.Event()

        def rate(name: str) -> None:
            for number in range(6):
                database.save_feedback(name, {"feedback_type": ("accept", "reject")[number % 2]})

        def learn() -> None:
            while not ended.is_set():
                database.fold_feedback()

        learning = threading.Thread(target=learn)
        learning.start()
        at_once(*(lambda name=name: rate(name) for name in names))
        ended.set()
        learning.join(60)
        database.fold_feedback()
        (cell,) = database.learning_cells()
        assert (cell.accepted, cell.rejected) == (0, 8)


def test_an_event_is_learned_although_a_later_one_was_ready_first(server_database: str) -> None:
    """Numbers are given before COMMIT: were it not for the lock, the watermark would pass over the slower event."""
    with EDIDatabase(server_database) as database:
        for name in ("slow", "quick"):
            database.save_session({"id": name, "image_path": "a.jpg", "naive_prompt": "p", "status": "completed"})
        has_number = threading.Event()
        at_next_commit(database, lambda _: (has_number.set(), time.sleep(0.5)))

        def rate_quickly() -> None:
            assert has_number.wait(60)
            database.save_feedback("quick", {"feedback_type": "accept"})
            database.fold_feedback()

        at_once(lambda: database.save_feedback("slow", {"feedback_type": "accept"}), rate_quickly)
        database.fold_feedback()
        (cell,) = database.learning_cells()
        assert cell.accepted == 2


# --- Links that break --------------------------------------------------------------------------------


def test_a_store_whose_links_were_cut_between_two_calls_goes_on(server_database: str) -> None:
    with EDIDatabase(server_database) as database:
        lease = database.begin_session(SESSION, "me", 30)
        for commit in commits():
            databases.cut_links(server_database)
            database.commit_stage(lease, commit, 30)
        assert len(database.get_commits(SESSION.session_id)) == 10


def test_a_commit_whose_answer_was_lost_is_looked_up(server_database: str) -> None:
    """The server commits, and the link breaks before it has said so."""
    with EDIDatabase(server_database) as database:
        lease = database.begin_session(SESSION, "me", 30)
        at_next_commit(
            database, lambda driver: (driver.commit(), driver.execute("SELECT 1"), databases.cut_links(server_database))
        )
        assert [commit.seq for commit in commit_all(database, lease, upto=2)] == [1, 2]
        assert len(database.get_commits(SESSION.session_id)) == 2


def test_a_boundary_whose_link_broke_at_its_commit_is_written_again(server_database: str) -> None:
    with EDIDatabase(server_database) as database:
        lease = database.begin_session(SESSION, "me", 30)
        at_next_commit(database, lambda _: databases.cut_links(server_database))
        assert [commit.seq for commit in commit_all(database, lease, upto=1)] == [1]
        assert [commit.seq for commit in database.get_commits(SESSION.session_id)] == [1]


def test_a_write_that_may_not_be_done_twice_is_an_error_where_its_link_broke_at_its_commit(
    server_database: str,
) -> None:
    with EDIDatabase(server_database) as database:
        lease = database.begin_session(SESSION, "me", 30)
        at_next_commit(database, lambda _: databases.cut_links(server_database))
        with pytest.raises(DatabaseError, match="could not be used"):
            database.fail_session(lease, "of its own")
        assert database.require_session(SESSION.session_id).status == "in_progress"
        database.fail_session(lease, "of its own")
        assert database.require_session(SESSION.session_id).status == "failed"


#: What the first boundary of a session is written with, when little is left of its lease.
_STATEMENTS = ["UPDATE sessions", "UPDATE leases", "INSERT INTO stage_commits", "INSERT INTO artifacts"]


@pytest.mark.parametrize("statement", _STATEMENTS)
def test_a_boundary_whose_link_broke_before_its_commit_is_written_again(server_database: str, statement: str) -> None:
    with EDIDatabase(server_database) as database:
        lease = database.begin_session(SESSION, "me", _SOON_RUN_OUT)
        with at_next_statement(database, statement, lambda: databases.cut_links(server_database)):
            assert [commit.seq for commit in commit_all(database, lease, upto=2)] == [1, 2]
        assert [commit.seq for commit in database.get_commits(SESSION.session_id)] == [1, 2]


def test_a_read_whose_link_broke_is_made_again(server_database: str) -> None:
    with EDIDatabase(server_database) as database:
        commit_all(database, database.begin_session(SESSION, "me", 30), upto=2)
        with at_next_statement(database, "SELECT stage_commits", lambda: databases.cut_links(server_database)):
            assert len(database.get_commits(SESSION.session_id)) == 2


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize(("what", "statement"), [*product(["boundary"], _STATEMENTS), ("heartbeat", "UPDATE leases")])
def test_who_wakes_after_its_transaction_was_undone_goes_on_unless_it_was_taken_over(
    server_database: str, monkeypatch: pytest.MonkeyPatch, what: str, statement: str, *, taken: bool
) -> None:
    monkeypatch.setattr(database_server, "IDLE_TIMEOUT_MS", 200)
    with EDIDatabase(server_database) as sleeper, EDIDatabase(server_database) as taker:
        lease = sleeper.begin_session(SESSION, "sleeper", _SOON_RUN_OUT)

        def sleep() -> None:
            # With the lock of the session, which the server takes away.
            wait_until(lambda: databases.in_transaction(server_database) == 0, "the end of the transaction")
            if taken:
                taker.take_over(SESSION.session_id, "taker", 30)

        lost = pytest.raises(LeaseLostError) if taken else nullcontext()
        with at_next_statement(sleeper, statement, sleep), lost:
            if what == "boundary":
                commit_all(sleeper, lease, upto=1)
            else:
                sleeper.renew(lease, 30)
        assert len(taker.get_commits(SESSION.session_id)) == (what == "boundary" and not taken)


def test_the_lookup_waits_for_a_commit_that_is_still_under_way(server_database: str) -> None:
    """The client has lost the link; the server is not done with what it was told before."""
    with EDIDatabase(server_database) as database:
        database.begin_session(SESSION, "me", 30)
        (first, *_) = commits()
        with ThreadPoolExecutor(1) as pool:
            with writing(database.engine, SESSION.session_id):
                looking = pool.submit(database._find_commit, first)
                time.sleep(0.3)
                assert not looking.done()
            assert looking.result(30) is None


# --- Errors ------------------------------------------------------------------------------------------


def sentence(url: str) -> str:
    """What opening a store there says."""
    with pytest.raises(EdiError) as caught:
        EDIDatabase(url)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300
    assert "se-cret" not in said
    return said


@pytest.fixture
def place(empty_database: str) -> Callable[..., str]:
    """URLs of the server with a part of them changed."""
    parsed = make_url(empty_database)
    return lambda **changed: parsed.set(**changed).render_as_string(hide_password=False)


def test_whatever_is_wrong_with_the_url_is_one_sentence_without_the_password(place: Callable[..., str]) -> None:
    wrong = {
        place(password="se-cret"): "password authentication failed",
        place(username="nobody", password="se-cret"): "authentication failed",
        place(database="absent"): 'database "absent" does not exist',
        place(port=1, password="se-cret"): "[Cc]onnection refused",
        place(host="localhost", port=1, password="se-cret"): "[Cc]onnection refused",
        place(host="no-such-host.invalid", password="se-cret"): "no-such-host.invalid",
        place(query={"password": "se-cret"}): "password authentication failed",
        place(query={"nonsense": "se-cret"}): "nonsense",
        place(query={"options": "-csearch_path=absent"}): "schema",
    }
    for url, said in wrong.items():
        assert re.search(said, sentence(url))


@pytest.mark.parametrize("url", ["postgresql+asyncpg://me:se-cret@host/edi", "mysql://me:se-cret@host/edi"])
def test_another_server_or_driver_is_refused(url: str) -> None:
    assert "postgresql+psycopg" in sentence(url)


def test_a_missing_permission_is_one_sentence(empty_database: str, place: Callable[..., str]) -> None:
    with databases.administration(empty_database) as execute:
        execute("DROP ROLE IF EXISTS guest")
        execute("CREATE ROLE guest LOGIN PASSWORD 'se-cret'")
    try:
        said = sentence(place(username="guest", password="se-cret"))
    finally:
        with databases.administration(empty_database) as execute:
            execute("DROP ROLE guest")
    assert "permission denied for schema public" in said


@pytest.mark.parametrize(
    ("sqlstate", "error", "said"),
    [
        ("53100", StorageFullError, "is full"),
        ("57P03", DatabaseError, "could not be used"),
        ("40P01", DatabaseBusyError, "stayed locked"),
        ("XX001", DatabaseDamagedError, "bring it back from a dump"),
    ],
)
def test_what_a_server_says_becomes_an_error_of_edis(
    engine: Engine, sqlstate: str, error: type[EdiError], said: str
) -> None:
    with pytest.raises(error, match=said), writing(engine) as connection:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{sqlstate}'; END $$")
