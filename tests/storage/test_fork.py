"""Forks on both databases: what is shared is copied, the parent is untouched, and a kill leaves none or a whole one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from edi_storage import Store, open_store
from edi_storage.connection import sqlite_file
from edi_storage.doctor import doctor
from edi_storage.errors import EdiError, InputError, LeaseLostError
from edi_storage.forking import Wanted, make_fork, plan_fork
from edi_storage.models import SessionData, SessionHistory, StageCommit
from edi_storage.recovery import delete_session, end_session, export_checkpoints, give_verdict, write_state_file
from edi_storage.settings import Settings
from edi_storage.state import digest, fold, intent_delta, merge_patch
from edi_storage.steps import Step, next_step
from tests import databases
from tests.storage.sessions import SESSION, boundaries, commit_all, prompt, put_files

ID = SESSION.session_id


def edited(store: Store, upto: int = 99) -> SessionData:
    """The session of the tests with its files, done up to a boundary, as the flows leave it."""
    put_files(store, 3 + (upto >= 8) + (upto >= 9))
    lease = store.database.begin_session(SESSION, "killed", 30)
    commit_all(store.database, lease, upto=upto)
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    return store.database.require_session(ID)


def forked(
    store: Store, parent: SessionData, stage: str = "refinement", new: str = "fork", **changed: Any
) -> SessionData:
    return make_fork(store, plan_fork(store, parent, Wanted(stage, new, **changed)))


def everything(store: Store, settings: Settings, session_id: str) -> tuple[SessionHistory, dict[str, bytes]]:
    """All that is known of a session, and the bytes of all its files."""
    files = {path: store.files.read(path) for path in [*store.files.list(session_id), f"{session_id}.json"]}
    return store.database.load_session(session_id), files


def unclaimed(history: SessionHistory, session_id: str) -> str:
    """What a session holds, without whose it is."""
    document = history.model_dump_json(exclude={"session": True, "commits": True, "state": True})
    return document.replace(f"{session_id}/files", "ID/files")


# --- What it shares ----------------------------------------------------------------------------------


def test_a_fork_shares_all_that_was_before_its_stage_and_nothing_after(settings: Settings, store: Store) -> None:
    parent = edited(store)
    before = everything(store, settings, ID)
    fork = forked(store, parent)
    history = store.database.load_session("fork")
    assert [commit.stage for commit in history.commits] == ["upload", "analysis", "intent"]
    assert next_step(fold(commit.state_delta for commit in history.commits)) == Step("refinement")
    assert (len(history.entities), history.prompts, history.validations) == (2, [], [])
    assert (fork.parent_session_id, fork.forked_from_stage, fork.status) == (ID, "refine 0", "in_progress")
    assert everything(store, settings, ID) == before
    assert doctor(settings) == []


def test_a_fork_from_the_last_stage_has_the_rows_and_pictures_of_its_parent(settings: Settings, store: Store) -> None:
    forked(store, edited(store, upto=9), "validation")
    edited_to_eight = plan_fork(store, store.database.require_session(ID), Wanted("validation", "x")).rows
    ours, theirs = store.database.load_session("fork"), store.database.load_session(ID)
    assert ours.prompts == theirs.prompts == edited_to_eight.prompts
    assert ours.validations == []
    # Validation drew what changed, and is not shared.
    drawn_before = [artifact for artifact in theirs.artifacts if artifact.kind != "delta"]
    theirs = theirs.model_copy(update={"validations": [], "artifacts": drawn_before})
    same = {"fork": "ID", ID: "ID"}
    paths = [
        sorted(a.path.replace(f"{name}/", f"{same[name]}/") for a in h.artifacts)
        for name, h in (("fork", ours), (ID, theirs))
    ]
    assert paths[0] == paths[1]
    for artifact in ours.artifacts:
        assert hashlib.sha256(store.files.read(artifact.path)).hexdigest() == artifact.sha256
    assert unclaimed(ours, "fork") == unclaimed(theirs, ID)


def test_the_digests_of_a_fork_are_those_of_its_own_state(store: Store) -> None:
    forked(store, edited(store), "edit")
    state: dict[str, Any] = {}
    for seq, commit in enumerate(store.database.get_commits("fork"), 1):
        state = merge_patch(state, commit.state_delta)
        assert (commit.seq, commit.sha256, commit.fence) == (seq, digest(state), 0)
    assert ID + "/" not in str(state)
    assert state["scene_analysis"]["parent"] == {"session_id": ID, "stage": "edit"}


@pytest.mark.local_files("an object is copied: it has no second name")
def test_the_pictures_are_second_names_of_the_same_bytes_and_outlive_the_parent(
    settings: Settings, store: Store
) -> None:
    fork = forked(store, edited(store), "edit")
    (mask, *_) = [a for a in store.database.get_artifacts("fork") if a.kind == "mask"]
    path = Path(store.files.full_path(mask.path))
    assert path.stat().st_nlink == 2
    delete_session(store, ID)
    assert path.stat().st_nlink == 1
    assert store.database.require_session("fork").parent_session_id == ID
    assert doctor(settings) == []
    assert fork.parent_session_id == ID


@pytest.mark.local_files("an object is copied anyway")
def test_a_fork_is_whole_where_there_are_no_links(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "no links here")

    parent = edited(store)
    monkeypatch.setattr(os, "link", refuse)
    forked(store, parent, "edit")
    for artifact in store.database.get_artifacts("fork"):
        assert Path(store.files.full_path(artifact.path)).stat().st_nlink == 1
    assert doctor(settings) == []


def test_forks_can_be_forked(settings: Settings, store: Store) -> None:
    fork = forked(store, edited(store), "edit", strength=None)
    grandchild = forked(store, fork, "refinement", new="again", strength=0.9)
    assert (grandchild.parent_session_id, grandchild.forked_from_stage) == ("fork", "refine 0")
    delete_session(store, "fork")
    delete_session(store, ID)
    assert doctor(settings) == []


def test_the_forks_of_a_session_are_found(store: Store) -> None:
    parent = edited(store)
    forked(store, parent, "edit", new="one")
    forked(store, parent, "intent", new="two")
    assert [fork.session_id for fork in store.database.forks_of(ID)] == ["one", "two"]
    assert store.database.forks_of("one") == []


def test_what_a_person_said_of_a_shared_attempt_is_learned_once(settings: Settings, store: Store) -> None:
    """Also when the fork is brought back from its checkpoints."""
    parent = twice_tried(store)
    forked(store, parent, "attempt 2: refinement")
    assert store.database.get_feedback("fork")[0].reasons == ["too weak"]
    assert learned(store) == 1
    lose_database(settings)
    assert all(finding.repaired for finding in doctor(settings, repair=True))
    with open_store(settings) as again:
        assert again.database.get_feedback("fork")[0].reasons == ["too weak"]
        assert learned(again) == 1
        give_verdict(again, "fork", "accept")
        assert learned(again) == 2


def learned(store: Store) -> int:
    store.database.fold_feedback()
    return sum(cell.count for cell in store.database.learning_cells())


def twice_tried(store: Store) -> SessionData:
    """A reviewed session whose first attempt a person rejected, and that has begun its second."""
    asked = SESSION.model_copy(update={"options": {**SESSION.options, "review": "ask"}})
    edited(store, upto=9)
    delete_session(store, ID)
    put_files(store)
    lease = store.database.begin_session(asked, "me", 30)
    state: dict[str, Any] = {}
    for seq, (step, delta) in enumerate(list(boundaries())[:-1], 1):
        if seq == 1:
            delta = merge_patch(delta, {"scene_analysis": {"options": asked.options}})
        state = merge_patch(state, delta)
        store.database.commit_stage(lease, commit_of(seq, step, delta, state), 30)
    store.database.release(lease, "review")
    give_verdict(store, ID, "reject", reasons=["too weak"])
    lease = store.database.acquire(ID, "me again", 30)
    from edi_storage.state import refinement_delta

    pair = prompt(0, attempt=2)
    state = fold(commit.state_delta for commit in store.database.get_commits(ID))
    delta = refinement_delta(pair, pair, state["prompts"]["final"])
    seq = store.database.last_seq(ID) + 1
    store.database.commit_stage(lease, commit_of(seq, Step("refinement", 2), delta, merge_patch(state, delta)), 30)
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    return store.database.require_session(ID)


def commit_of(seq: int, step: Step, delta: dict[str, Any], after: dict[str, Any]) -> StageCommit:
    return StageCommit(
        session_id=ID,
        seq=seq,
        stage=step.stage,
        attempt=step.attempt,
        iteration=step.iteration,
        state_delta=delta,
        sha256=digest(after),
        engine="test",
        engine_version="1",
        fence=1,
        started_at=SESSION.created_at,
        finished_at=SESSION.created_at,
    )


# --- What is changed ---------------------------------------------------------------------------------


def test_another_prompt_and_strength_stand_in_the_row_and_in_the_state(settings: Settings, store: Store) -> None:
    fork = forked(store, edited(store), "intent", prompt="make it warmer", strength=0.3)
    state = store.database.get_state("fork")
    assert state
    assert (fork.naive_prompt, state.naive_prompt) == ("make it warmer", "make it warmer")
    assert fork.options["strength"] == state.scene_analysis["options"]["strength"] == 0.3
    assert store.database.require_session(ID).naive_prompt == SESSION.naive_prompt
    assert doctor(settings) == []


def test_a_shared_intent_becomes_as_strong_as_the_fork_wants_it(settings: Settings, store: Store) -> None:
    parent = edited(store, upto=2)
    lease = store.database.acquire(ID, "me", 30)
    state = fold(commit.state_delta for commit in store.database.get_commits(ID))
    steps = [{"action": "exposure", "strength": 0.6}, {"action": "warmth", "strength": 0.35}]
    intent = {
        "edit_type": "color",
        "confidence": 0.9,
        "strength": 0.6,
        "parameters": {"scope": "whole", "steps": steps},
    }
    from edi_storage.models import Intent

    delta = intent_delta(Intent.model_validate(intent))
    store.database.commit_stage(lease, commit_of(3, Step("intent"), delta, merge_patch(state, delta)), 30)
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    forked(store, parent, "refinement", strength=0.9)
    stored = store.database.get_intent("fork")
    assert stored
    assert stored.strength == 0.9
    assert stored.parameters == {"scope": "whole", "steps": [{**step, "strength": 0.9} for step in steps]}
    assert doctor(settings) == []


def test_the_parents_output_file_stays_the_parents(store: Store) -> None:
    parent = edited(store)
    assert forked(store, parent, "edit").options["output"] == ""
    assert forked(store, parent, "edit", new="two", output="/elsewhere/x.png").options["output"] == "/elsewhere/x.png"


@pytest.mark.parametrize(
    ("stage", "changed", "sentence"),
    [
        (
            "refinement",
            {"prompt": "warmer"},
            "Another prompt changes the intent: fork from intent or analysis, not from",
        ),
        ("edit", {"strength": 0.9}, "Another strength changes the prompts: fork from refinement or before, not edit."),
        ("refine 2", {"strength": 0.9}, "Another strength"),
        ("refinement", {"strength": 0.0}, "The strength is 0: give a number above 0 and up to 1."),
        ("refinement", {"strength": float("nan")}, "The strength is nan"),
        ("upload", {}, "would share nothing: `edi edit` begins"),
        ("completed", {}, "it has analysis, intent, refine 0, refine 1, refine 2, refine 3, edit, validation."),
        ("attempt 2: edit", {}, "cannot be forked from 'attempt 2: edit': it has analysis, intent"),
        ("", {}, "cannot be forked from ''"),
        ("x" * 5000, {}, "cannot be forked from 'xxxx"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    store: Store, stage: str, changed: dict[str, Any], sentence: str
) -> None:
    parent = edited(store)
    with pytest.raises(InputError) as refused:
        forked(store, parent, stage, **changed)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 250
    assert store.database.get_session("fork") is None
    assert store.files.list("fork") == []


@pytest.mark.parametrize("written", ["Refine 0", "REFINEMENT", "  refine   0 ", "refine", "attempt 1: refine 0"])
def test_a_stage_may_be_written_in_many_ways(store: Store, written: str) -> None:
    parent = edited(store)
    assert plan_fork(store, parent, Wanted(written, "fork")).session.forked_from_stage == "refine 0"


@pytest.mark.parametrize("written", ["attempt 2: refine 0", "Attempt 2 refinement", "attempt 2:refine 0"])
def test_later_attempts_are_named_as_the_history_names_them(store: Store, written: str) -> None:
    parent = twice_tried(store)
    assert plan_fork(store, parent, Wanted(written, "fork")).session.forked_from_stage == "attempt 2: refine 0"


# --- Where the parent may stand ----------------------------------------------------------------------


def test_an_unfinished_session_is_forked_from_where_it_stands_but_no_later(store: Store) -> None:
    parent = edited(store, upto=3)
    with pytest.raises(InputError, match=r"cannot be forked from 'edit': it has analysis, intent, refine 0\."):
        forked(store, parent, "edit")
    assert forked(store, parent, "refinement").forked_from_stage == "refine 0"


def test_a_session_that_has_finished_nothing_has_nothing_to_share(store: Store) -> None:
    store.database.begin_session(SESSION, "me", 30)
    with pytest.raises(InputError, match="it has finished no stage that is known"):
        forked(store, store.database.require_session(ID), "analysis")


def test_a_failed_session_of_which_only_its_end_came_back_has_nothing_to_share(settings: Settings) -> None:
    with open_store(settings) as store:
        edited(store, upto=3)
        end_session(store, store.database.acquire(ID, "me", 30), "no engine can")
        for file in store.checkpoints.list_checkpoints(ID)[:-1]:
            store.files.remove(file.path)
    lose_database(settings)
    doctor(settings, repair=True)
    with open_store(settings) as store, pytest.raises(InputError, match="it has finished no stage"):
        forked(store, store.database.require_session(ID), "intent")


def test_a_fork_of_a_failed_session_has_not_failed(settings: Settings, store: Store) -> None:
    edited(store, upto=3)
    end_session(store, store.database.acquire(ID, "me", 30), "no engine can")
    fork = forked(store, store.database.require_session(ID), "intent", prompt="make it warmer")
    assert (fork.status, fork.failure_reason) == ("in_progress", None)
    assert [session.session_id for session in store.database.interrupted_sessions()] == ["fork"]
    assert doctor(settings) == []


def test_a_session_at_work_is_forked_and_neither_notices(settings: Settings, store: Store) -> None:
    parent = edited(store, upto=4)
    lease = store.database.acquire(ID, "at work", 300)
    forked(store, parent, "refine 1")
    commit_all(store.database, lease, upto=6)
    with pytest.raises(LeaseLostError):
        store.database.renew(lease.model_copy(update={"fence": 1, "session_id": "fork"}), 30)
    assert len(store.database.get_commits("fork")) == 4
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    assert doctor(settings) == []


def test_a_fork_from_the_answer_waits_for_another_answer(settings: Settings, store: Store) -> None:
    from edi_storage.models import Intent, Question

    parent = edited(store, upto=2)
    lease = store.database.acquire(ID, "me", 30)
    state = fold(commit.state_delta for commit in store.database.get_commits(ID))
    asked = Intent(edit_type="style", confidence=0.5, question=Question(text="Which?", choices=["a", "b"]))
    for seq, step, intent in (
        (3, Step("intent"), asked),
        (4, Step("intent", iteration=1), asked.model_copy(update={"answer": 2})),
    ):
        delta = intent_delta(intent, state.get("intent"))
        state = merge_patch(state, delta)
        store.database.commit_stage(lease, commit_of(seq, step, delta, state), 30)
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    fork = forked(store, parent, "answer")
    assert fork.waiting_for == "question"
    assert "fork" not in [session.session_id for session in store.database.interrupted_sessions()]
    assert doctor(settings) == []


def test_a_lost_picture_of_the_parent_is_named_and_nothing_is_made(store: Store) -> None:
    parent = edited(store)
    (mask, *_) = [a for a in store.database.get_artifacts(ID) if a.kind == "mask"]
    store.files.remove(mask.path)
    with pytest.raises(EdiError, match="a picture of it is lost"):
        forked(store, parent, "edit")
    store.files.write_whole(mask.path, b"damaged")
    with pytest.raises(EdiError, match="is damaged"):
        forked(store, parent, "edit")
    assert store.database.get_session("fork") is None


# --- Twice, and after a loss -------------------------------------------------------------------------


def test_made_twice_it_is_one(settings: Settings, store: Store) -> None:
    parent = edited(store)
    first = forked(store, parent, "refinement", strength=0.9)
    before = everything(store, settings, "fork")
    assert forked(store, parent, "refinement", strength=0.9) == first
    assert everything(store, settings, "fork") == before


@pytest.mark.parametrize(
    ("stage", "changed"), [("edit", {}), ("refinement", {"strength": 0.5}), ("intent", {"prompt": "warmer"})]
)
def test_an_id_that_is_taken_by_another_session_is_refused(store: Store, stage: str, changed: dict[str, Any]) -> None:
    parent = edited(store)
    forked(store, parent, "refinement")
    for new in ("fork", ID):
        with pytest.raises(InputError, match="is there already, and is not this fork"):
            forked(store, parent, stage, new=new, **changed)


def test_an_id_of_which_only_checkpoints_are_left_is_refused(settings: Settings, store: Store) -> None:
    parent = edited(store)
    forked(store, parent, "edit")
    store.database.delete_session("fork")
    with pytest.raises(InputError, match="edi doctor --repair"):
        forked(store, parent, "edit")


def test_a_fork_that_is_for_later_is_not_taken_for_interrupted(store: Store) -> None:
    parent = edited(store)
    make_fork(store, plan_fork(store, parent, Wanted("edit", "later")), later=True)
    make_fork(store, plan_fork(store, parent, Wanted("edit", "now")))
    assert [session.session_id for session in store.database.interrupted_sessions()] == ["now"]


def test_a_lost_database_is_rebuilt_with_the_parents_recorded(settings: Settings) -> None:
    with open_store(settings) as store:
        fork = forked(store, edited(store), "refinement", strength=0.9)
        before = store.database.load_session("fork")
    lose_database(settings)
    assert all(finding.repaired for finding in doctor(settings, repair=True))
    assert doctor(settings) == []
    with open_store(settings) as store:
        after = store.database.load_session("fork")
        assert after.session.model_copy(update={"updated_at": fork.updated_at}) == fork
        assert after.state == before.state
        assert [session.session_id for session in store.database.forks_of(ID)] == ["fork"]


def test_a_wrong_parent_in_the_row_is_written_again_from_the_state(settings: Settings, store: Store) -> None:
    forked(store, edited(store), "edit")
    store.database.save_session(
        {
            "id": "fork",
            "image_path": "/photos/palace.jpg",
            "naive_prompt": SESSION.naive_prompt,
            "parent_session_id": "x",
        }
    )
    assert [finding.repaired for finding in doctor(settings, repair=True)] == [True]
    assert store.database.require_session("fork").parent_session_id == ID
    assert doctor(settings) == []


def lose_database(settings: Settings) -> None:
    if sqlite_file(settings.database_url) is None:
        databases.lose(settings.database_url)
    for path in settings.home.glob("edi_sessions.db*"):
        path.unlink()
