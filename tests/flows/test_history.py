"""The past of a session as a story: who did what, what came between, where it went another way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edi_storage import Store, open_store
from edi_storage.doctor import doctor
from edi_storage.forking import Wanted, make_fork, plan_fork
from edi_storage.models import Intent, Question, SessionData, StageCommit
from edi_storage.recovery import end_session, export_checkpoints, give_verdict, reopen, write_state_file
from edi_storage.settings import Settings
from edi_storage.state import Json, digest, fold, intent_delta, merge_patch
from edi_storage.steps import Step
from flows.history import as_text, tell
from tests import homes
from tests.flows.conftest import PALACE, Edi
from tests.storage.sessions import SESSION, THEN, boundaries, put_files

ID = SESSION.session_id


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return homes.settings_of(tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        put_files(opened)
        yield opened


def run(store: Store, steps: list[tuple[Step, Json]], flow_run_id: str, minutes: int = 0) -> None:
    """One process does some steps, so long after the session was begun; then it is gone."""
    lease = store.database.begin_session(SESSION, flow_run_id, 30)
    then = THEN + timedelta(minutes=minutes)
    for step, delta in steps:
        before = store.database.get_commits(ID)
        state = merge_patch(fold(commit.state_delta for commit in before), delta)
        commit = StageCommit(
            session_id=ID,
            seq=len(before) + 1,
            stage=step.stage,
            attempt=step.attempt,
            iteration=step.iteration,
            state_delta=delta,
            sha256=digest(state),
            engine="test",
            engine_version="1",
            fence=lease.fence,
            flow_run_id=flow_run_id,
            started_at=then,
            finished_at=then + timedelta(seconds=1),
        )
        store.database.commit_stage(lease, commit, 30)
    store.database.release(lease)


def story(store: Store, session_id: str = ID) -> Json:
    return tell(store, store.database.load_session(session_id))


def text(store: Store, session_id: str = ID) -> str:
    told = as_text(story(store, session_id), 100)
    assert max(map(len, told.splitlines())) <= 100, told
    return told


STEPS = list(boundaries())


def test_an_edit_at_one_go_is_one_run_and_says_what_came_of_each_stage(store: Store) -> None:
    run(store, STEPS, "11111111-aaaa")
    told = text(store)
    assert told.count("run 11111111, fence 1") == 1
    assert "palace.jpg, 640 x 427" in told
    assert "sky (40 %), building (35 %)" in told
    assert "dramatic sky on sky_0, strength 60%, confidence 0.90" in told
    assert "alignment 0.95, accepted: 1 as asked, 1 kept, 0 by accident" in told
    assert "kept attempt 1: accepted" in told
    assert "Done with 10.0 s of work." in told
    assert [event["after"] for event in story(store)["events"]] == [None] * 10


def test_an_interruption_stands_where_it_was_with_who_took_it_up(store: Store) -> None:
    run(store, STEPS[:5], "11111111-aaaa")
    assert "Stopped before refine 2; edi resume s-1 goes on." in text(store)
    run(store, STEPS[5:7], "22222222-bbbb", minutes=135)
    run(store, STEPS[7:], "22222222-bbbb", minutes=137)
    told = text(store)
    assert "interrupted; restored and continued 2 h 15 min later by run 22222222, fence 2" in told
    assert "the same run 22222222, fence 3" in told
    after = {event["label"]: event["after"] for event in story(store)["events"] if event["after"]}
    assert after == {"refine 2": "interruption", "edit": "interruption"}


def test_a_question_and_a_failure_are_no_interruptions(store: Store) -> None:
    intent = Intent.model_validate(merge_patch({}, STEPS[2][1]["intent"]))
    asked = intent.model_copy(update={"question": Question(text="Which?\x1b[31m", choices=["this", "that"])})
    run(store, [*STEPS[:2], (Step("intent"), intent_delta(asked))], "11111111-aaaa")
    answer = intent_delta(asked.model_copy(update={"answer": 2}), asked.model_dump(mode="json"))
    run(store, [(Step("intent", iteration=1), answer)], "22222222-bbbb", minutes=1)
    end_session(store, store.database.acquire(ID, "me", 30), "the disk was on fire")
    assert "Failed: the disk was on fire" in text(store)
    reopen(store, ID)
    run(store, STEPS[3:], "33333333-cccc", minutes=4)
    told = text(store)
    assert "asked: Which? [31m" in told
    assert "\x1b" not in told
    assert "asked a question; answered and continued 59.0 s later by run 22222222" in told
    assert "answer" in told
    assert "2. that" in told
    assert "failed; tried again 3 min later by run 33333333" in told


def test_verdicts_are_told_in_the_persons_words(store: Store) -> None:
    run(store, STEPS, "11111111-aaaa")
    give_verdict(store, ID, "partial", rating=3, comment="too\nblue", reasons=["colour"])
    assert 'partial, 3/5, colour, "too blue"' in text(store)


def test_parent_and_forks_name_each_other(store: Store) -> None:
    run(store, STEPS, "11111111-aaaa")
    export_checkpoints(store, ID)
    make_fork(store, plan_fork(store, parent(store), Wanted("refinement", "fork", strength=0.9)))
    make_fork(store, plan_fork(store, parent(store), Wanted("intent", "other", prompt="make it warmer")))
    told = text(store)
    assert "  fork   from refine 0, strength 0.9: in progress" in told
    assert '  other  from intent, "make it warmer": in progress' in told
    told = text(store, "fork")
    assert "forked from s-1 at refine 0" in told
    assert "shared with s-1, not run again" in told
    assert [event["origin"] for event in story(store, "fork")["events"]] == ["shared"] * 3


def parent(store: Store) -> SessionData:
    return store.database.require_session(ID)


def test_what_came_back_from_checkpoints_says_so(settings: Settings, store: Store) -> None:
    run(store, STEPS[:5], "11111111-aaaa")
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    store.database.close()
    homes.lose_database(settings.home)
    doctor(settings, repair=True)
    with open_store(settings) as again:
        told = text(again)
    assert "brought back from checkpoints: who ran it, and how long, is lost" in told
    assert "refine 1" in told


def test_a_session_that_has_done_nothing_yet_has_a_past_too(store: Store) -> None:
    lease = store.database.begin_session(SESSION, "me:1:x", 30)
    assert "At work: me:1:x" in text(store)
    store.database.release(lease)
    assert "Stopped before upload; edi resume s-1 goes on." in text(store)


def test_the_history_of_a_killed_edit_tells_of_the_kill(edi: Edi) -> None:
    edi.killed("begin", "refine 1", "edit", str(PALACE), "make the sky dramatic", "--session-id", "killed")
    edi.json("resume", "killed")
    told = edi.json("history", "killed")
    interrupted = [event for event in told["events"] if event["after"] == "interruption"]
    assert [event["label"] for event in interrupted] == ["refine 1"]
    fences = [event["fence"] for event in told["events"]]
    assert fences == sorted(fences)
    assert len({event["flow_run_id"] for event in told["events"]}) == 2
    assert "interrupted; restored and continued" in edi("history", "killed").stdout
    assert "interrupted; restored and continued" in edi("show", "killed").stdout
