"""Who may work on a session: leases, fences, and what is found interrupted, on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from edi_storage import EDIDatabase
from edi_storage.errors import InputError, LeaseHeldError, LeaseLostError
from edi_storage.models import Lease
from tests.storage.conftest import Clock
from tests.storage.sessions import SESSION, commit_all
from tests.storage.test_database import begin


def test_a_held_session_names_its_holder(database: EDIDatabase) -> None:
    begin(database, "laptop:1")
    with pytest.raises(LeaseHeldError, match="laptop:1"):
        begin(database, "laptop:2")


def test_an_expired_lease_is_taken_with_a_higher_fence(database: EDIDatabase, clock: Clock) -> None:
    first = begin(database, "one")
    clock.advance(seconds=31)
    second = database.acquire(SESSION.session_id, "two", 30)
    assert second.fence == first.fence + 1


def test_who_lost_the_lease_can_write_nothing(database: EDIDatabase, clock: Clock) -> None:
    lost = begin(database, "sleeper")
    clock.advance(minutes=5)
    database.acquire(SESSION.session_id, "other", 30)
    with pytest.raises(LeaseLostError):
        commit_all(database, lost, upto=1)
    with pytest.raises(LeaseLostError):
        database.renew(lost, 30)
    with pytest.raises(LeaseLostError):
        database.fail_session(lost, "no")
    database.release(lost)
    assert database.lease_of(SESSION.session_id) is not None
    assert database.get_commits(SESSION.session_id) == []


def test_a_released_lease_keeps_its_fence(database: EDIDatabase) -> None:
    first = begin(database)
    database.release(first)
    assert database.acquire(SESSION.session_id, "next", 30).fence > first.fence


def test_a_clock_set_back_does_not_lock_a_session_for_a_day(database: EDIDatabase, clock: Clock) -> None:
    begin(database, "before the change")
    clock.advance(days=-1)
    assert database.acquire(SESSION.session_id, "after", 30).fence == 2


def test_renewing_keeps_others_away(database: EDIDatabase, clock: Clock) -> None:
    lease = begin(database)
    clock.advance(seconds=25)
    database.renew(lease, 30)
    clock.advance(seconds=25)
    with pytest.raises(LeaseHeldError):
        database.acquire(SESSION.session_id, "other", 30)


def until(database: EDIDatabase) -> datetime:
    _, runs_until = database.lease_of(SESSION.session_id) or pytest.fail("nobody holds it")
    return runs_until


@pytest.mark.parametrize(("later", "renewed"), [(0, False), (14, False), (16, True), (29, True), (31, True)])
def test_a_boundary_renews_its_lease_when_less_than_half_is_left(
    database: EDIDatabase, clock: Clock, later: float, renewed: bool
) -> None:
    lease = begin(database)
    began = until(database)
    clock.advance(seconds=later)
    commit_all(database, lease, upto=1)
    assert until(database) == (clock() + timedelta(seconds=30) if renewed else began)


def test_a_boundary_renews_its_lease_when_the_clock_was_set_back(database: EDIDatabase, clock: Clock) -> None:
    """Others take it for one that has run out."""
    lease = begin(database)
    clock.advance(hours=-1)
    assert database.lease_of(SESSION.session_id) is None
    commit_all(database, lease, upto=1)
    assert until(database) == clock() + timedelta(seconds=30)


def test_a_living_owner_can_be_displaced_on_purpose(database: EDIDatabase) -> None:
    old = begin(database)
    database.take_over(SESSION.session_id, "person", 30)
    with pytest.raises(LeaseLostError):
        database.renew(old, 30)


def test_a_flow_run_that_died_gives_its_lease_back(database: EDIDatabase) -> None:
    database.begin_session(SESSION, "host:1:flow-a", 30)
    assert not database.release_flow_run(SESSION.session_id, "flow-b")
    assert database.release_flow_run(SESSION.session_id, "flow-a")
    assert database.lease_of(SESSION.session_id) is None


def test_interrupted_sessions_are_the_unfinished_ones_nobody_holds(database: EDIDatabase, clock: Clock) -> None:
    def begin_other(session_id: str) -> Lease:
        return database.begin_session(SESSION.model_copy(update={"session_id": session_id}), "me", 30)

    database.save_session({"id": "never-started", "image_path": "a", "naive_prompt": "p"})
    begin_other("expired")
    clock.advance(seconds=31)
    begin_other("held")
    database.release(begin_other("stopped"))
    database.release(begin_other("waits"), "question")
    database.fail_session(begin_other("failed"), "no good")
    assert {s.session_id for s in database.interrupted_sessions()} == {"expired", "stopped"}


def test_a_session_that_never_gets_further_is_given_up(database: EDIDatabase) -> None:
    database.release(begin(database))
    assert [database.count_recovery(SESSION.session_id, 2) for _ in range(3)] == [True, True, False]
    session = database.require_session(SESSION.session_id)
    assert session.status == "failed"
    assert "2 resumes" in (session.failure_reason or "")


def test_progress_forgives_earlier_resumes(database: EDIDatabase) -> None:
    database.release(begin(database))
    assert database.count_recovery(SESSION.session_id, 2)
    lease = database.acquire(SESSION.session_id, "resume", 30)
    commit_all(database, lease, upto=1)
    assert database.require_session(SESSION.session_id).recovery_attempts == 0


def test_a_resume_that_failed_for_lack_of_room_is_not_counted(database: EDIDatabase) -> None:
    database.release(begin(database))
    for _ in range(5):
        assert database.count_recovery(SESSION.session_id, 2)
        database.forgive_recovery(SESSION.session_id)


def test_an_answer_is_kept_and_ends_the_waiting(database: EDIDatabase) -> None:
    database.release(begin(database), "question")
    assert database.interrupted_sessions() == []
    database.save_answer(SESSION.session_id, 2)
    (session,) = database.interrupted_sessions()
    assert session.options["answer"] == 2


def test_releasing_does_not_make_a_session_wait_again(database: EDIDatabase) -> None:
    lease = begin(database)
    database.release(lease, "question")
    again = database.acquire(SESSION.session_id, "answered", 30)
    commit_all(database, again, upto=1)
    database.release(again)
    assert database.require_session(SESSION.session_id).waiting_for is None


def test_a_session_id_about_something_else_is_refused(database: EDIDatabase) -> None:
    database.release(begin(database))
    with pytest.raises(InputError, match="already about"):
        database.begin_session(SESSION.model_copy(update={"naive_prompt": "other"}), "me", 30)
