"""Recovery and doctor on real files: what is lost comes back, what is damaged is set aside, nothing is doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from edi_storage import Store, open_store
from edi_storage.connection import reading, sqlite_file, writing
from edi_storage.disk import Entry
from edi_storage.doctor import Finding, doctor
from edi_storage.errors import InputError, LeaseHeldError
from edi_storage.files import FileStore
from edi_storage.models import Intent, Question, SessionHistory
from edi_storage.record import now_utc
from edi_storage.recovery import (
    DELETING,
    delete_session,
    export_boundary,
    export_checkpoints,
    give_verdict,
    reopen,
    write_state_file,
)
from edi_storage.settings import Settings
from edi_storage.state import digest, fold, intent_delta, merge_patch, rows_of
from edi_storage.steps import Step, last_attempt, next_step, steps_done
from edi_storage.wording import terms_of
from tests import databases
from tests.storage.sessions import SESSION, boundaries, commit_all, commits, edited_session, put_files

ID = SESSION.session_id


def finished(store: Store) -> SessionHistory:
    """A finished session with its files, checkpoints and state file, as the flows leave it."""
    put_files(store)
    edited_session(store.database)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    return store.database.load_session(ID)


def remove_later_files(store: Store, upto: int) -> None:
    """The files of an edit and a validation that have not been would be orphans."""
    for seq, (_, delta) in enumerate(boundaries(), 1):
        for artifact in rows_of(delta).files if seq > max(upto, 2) else []:
            store.files.remove(artifact.path)


def half_way(store: Store, upto: int = 5) -> SessionHistory:
    """A session interrupted after `upto` boundaries."""
    put_files(store)
    lease = store.database.begin_session(SESSION, "killed", 30)
    commit_all(store.database, lease, upto=upto)
    store.database.release(lease)
    export_checkpoints(store, ID)
    write_state_file(store, ID)
    remove_later_files(store, upto)
    return store.database.load_session(ID)


def repaired(settings: Settings) -> list[Finding]:
    """Repair, check that nothing was left undone and that a second look finds nothing."""
    findings = doctor(settings, repair=True)
    assert all(finding.repaired for finding in findings), findings
    assert doctor(settings) == []
    return findings


def test_who_slept_through_a_deletion_writes_no_checkpoint_of_it(store: Store) -> None:
    history = half_way(store)
    state = fold(commit.state_delta for commit in history.commits)
    delete_session(store, ID)
    export_boundary(store, state, history.commits[-1])
    assert store.checkpoints.session_ids() == []


def test_who_slept_through_a_deletion_takes_no_other_boundary_for_the_one_it_has_written(store: Store) -> None:
    mine = half_way(store, upto=1).commits[-1]
    delete_session(store, ID)
    lease = store.database.begin_session(SESSION, "killed before its hook", 30)
    store.database.commit_stage(lease, mine.model_copy(update={"finished_at": now_utc()}), 30)
    assert export_checkpoints(store, ID, mine) == 1
    assert [file.seq for file in store.checkpoints.list_checkpoints(ID)] == [1]


def test_what_its_writer_knows_to_be_there_is_noted_and_not_written(store: Store) -> None:
    lease = store.database.begin_session(SESSION, "me", 30)
    written = commit_all(store.database, lease, upto=2)
    assert export_checkpoints(store, ID, written[-1]) == 0
    assert store.database.exported_seq(ID) == 2
    commit_all(store.database, lease, upto=3)
    assert export_checkpoints(store, ID, written[-1]) == 1


def test_doctor_reads_the_folder_of_all_sessions_as_often_for_many_as_for_one(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    real = FileStore.entries

    def entries(files: FileStore, folder: str = "") -> Iterator[Entry]:
        looks.append(folder)
        return real(files, folder)

    finished(store)
    monkeypatch.setattr(FileStore, "entries", entries)
    assert doctor(settings) == []
    for_one = looks.count("")
    for number in range(20):
        store.database.save_session({**SESSION.model_dump(), "session_id": f"more-{number}", "status": "completed"})
    looks.clear()
    assert doctor(settings) == []
    assert looks.count("") == for_one


def test_doctor_reads_each_checkpoint_once(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    half_way(store, upto=7)
    looks: list[str] = []
    real = FileStore.read

    def read(files: FileStore, path: str, *limit: int) -> bytes:
        looks.append(path)
        return real(files, path, *limit)

    monkeypatch.setattr(FileStore, "read", read)
    assert doctor(settings) == []
    stored = [file.path for file in store.checkpoints.list_checkpoints(ID)]
    assert [looks.count(path) for path in stored] == [1] * 7


def lose_database(settings: Settings) -> None:
    if sqlite_file(settings.database_url) is None:
        databases.lose(settings.database_url)
    for path in settings.home.glob("edi_sessions.db*"):
        path.unlink()


def rows(history: SessionHistory) -> tuple[object, ...]:
    return (
        history.entities,
        history.intent,
        history.prompts,
        history.validations,
        history.feedback,
        history.artifacts,
        history.session.model_copy(update={"updated_at": None, "flow_run_id": None}),
        history.state,
    )


# --- Where a session stands --------------------------------------------------------------------------


def test_the_next_step_follows_from_the_state_alone() -> None:
    deltas = [delta for _, delta in boundaries()]
    steps = [step for step, _ in boundaries()]
    for done in range(len(deltas)):
        state = fold(deltas[:done])
        assert steps_done(state) == steps[:done]
        assert next_step(state) == steps[done]
    assert next_step(fold(deltas)) is None


def test_a_weak_attempt_is_followed_by_another_from_refinement() -> None:
    state = fold(delta for _, delta in list(boundaries())[:-1])
    state["validation"]["attempts"]["1"]["decision"] = "retry"
    assert next_step(state) == Step("refinement", attempt=2)
    state["scene_analysis"]["options"]["max_attempts"] = 1
    assert next_step(state) == Step("completed")


def test_with_review_a_person_is_waited_for() -> None:
    state = fold(delta for _, delta in list(boundaries())[:-1])
    state["scene_analysis"]["options"]["review"] = "ask"
    assert next_step(state) == "review"
    said = {"feedback_type": "reject", "feedback_key": "attempt-1"}
    state["validation"]["feedback"] = {"attempt-1": said}
    assert next_step(state) == Step("refinement", attempt=2)
    state["validation"]["feedback"] = {"attempt-1": {**said, "feedback_type": "accept"}}
    assert next_step(state) == Step("completed")


def test_the_last_attempt_is_the_kept_one() -> None:
    assert last_attempt({}) == 1
    assert last_attempt({"validation": {"attempts": {"1": {}, "3": {}, "2": {}}}}) == 3
    assert last_attempt({"validation": {"attempts": {"1": {}, "2": {}}, "kept_attempt": 1}}) == 1


# --- Checkpoints behind or ahead ---------------------------------------------------------------------


def test_a_healthy_session_has_no_findings(settings: Settings, store: Store) -> None:
    finished(store)
    assert doctor(settings) == []


def test_checkpoints_that_no_hook_wrote_are_written(settings: Settings, store: Store) -> None:
    put_files(store)
    edited_session(store.database)
    kinds = {finding.kind for finding in repaired(settings)}
    assert kinds == {"checkpoint"}, "with the checkpoints goes the state file"
    assert len(store.checkpoints.list_checkpoints(ID)) == 3


def test_a_running_session_keeps_all_checkpoints_and_a_finished_one_three(store: Store) -> None:
    half_way(store, upto=7)
    assert len(store.checkpoints.list_checkpoints(ID)) == 7
    commit_all(store.database, store.database.acquire(ID, "resume", 30))
    export_checkpoints(store, ID)
    assert [file.seq for file in store.checkpoints.list_checkpoints(ID)] == [8, 9, 10]


def test_exporting_again_writes_nothing(store: Store) -> None:
    finished(store)
    assert export_checkpoints(store, ID) == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"<html>", None])
def test_a_damaged_checkpoint_is_set_aside_and_written_again(
    settings: Settings, store: Store, damage: bytes | None
) -> None:
    finished(store)
    path = store.checkpoints.list_checkpoints(ID)[-1].path
    damaged = store.files.read(path).replace(b"dramatic", b"dramatik") if damage is None else damage
    store.files.write_whole(path, damaged)
    assert "checkpoint" in {finding.kind for finding in repaired(settings)}
    assert b"dramatic" in store.files.read(path)
    kept = [store.files.read(aside) for aside in store.files.list(ID) if "set-aside" in aside]
    assert kept == [damaged]


def test_a_damaged_state_file_is_written_again(settings: Settings, store: Store) -> None:
    finished(store)
    store.files.write_whole(f"{ID}.json", b"{")
    assert {finding.kind for finding in repaired(settings)} == {"state_file"}


# --- The database gone or damaged --------------------------------------------------------------------


def test_a_lost_database_is_rebuilt_row_by_row(settings: Settings) -> None:
    with open_store(settings) as store:
        finished(store)
        give_verdict(store, ID, "accept", rating=5, comment="yes", reasons=[])
        before = store.database.load_session(ID)
    lose_database(settings)
    repaired(settings)
    with open_store(settings) as store:
        assert rows(store.database.load_session(ID)) == rows(before)
        assert store.database.fold_feedback().events == 1


def test_an_interrupted_session_goes_on_after_the_database_was_lost(settings: Settings) -> None:
    with open_store(settings) as store:
        half_way(store)
    lose_database(settings)
    repaired(settings)
    with open_store(settings) as store:
        assert [session.session_id for session in store.database.interrupted_sessions()] == [ID]
        lease = store.database.acquire(ID, "resume", 30)
        for commit in list(commits())[5:]:
            store.database.commit_stage(lease, commit, 30)
        assert store.database.require_session(ID).status == "completed"


def test_a_session_that_waits_for_a_person_still_does_after_the_database_was_lost(settings: Settings) -> None:
    with open_store(settings) as store:
        put_files(store)
        remove_later_files(store, 2)
        lease = store.database.begin_session(SESSION, "asks", 30)
        first = commit_all(store.database, lease, upto=2)
        question = Question(text="Which?", choices=["this", "that"])
        delta = intent_delta(Intent(edit_type="style", confidence=0.4, question=question))
        state = merge_patch(fold(commit.state_delta for commit in first), delta)
        asked = list(commits())[2].model_copy(update={"state_delta": delta, "sha256": digest(state)})
        store.database.commit_stage(lease, asked, 30)
        store.database.release(lease, "question")
        export_checkpoints(store, ID)
        write_state_file(store, ID)
    lose_database(settings)
    repaired(settings)
    with open_store(settings) as store:
        assert store.database.require_session(ID).waiting_for == "question"
        assert store.database.interrupted_sessions() == []


@pytest.mark.sqlite_file("the file is damaged")
@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", b"SQLite format 3\x00" + b"\x00" * 84])
def test_a_damaged_database_is_set_aside_and_rebuilt(settings: Settings, content: bytes) -> None:
    with open_store(settings) as store:
        before = finished(store)
    lose_database(settings)
    path = settings.home / "edi_sessions.db"
    path.write_bytes(content)
    assert not doctor(settings)[0].repaired
    assert path.read_bytes() == content
    repaired(settings)
    assert [kept.read_bytes() for kept in settings.home.glob("edi_sessions.db*damaged*")] == [content]
    with open_store(settings) as store:
        assert rows(store.database.load_session(ID)) == rows(before)


def test_a_damaged_boundary_comes_back_from_its_checkpoint(settings: Settings, store: Store) -> None:
    before = half_way(store)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE stage_commits SET state_delta = '{}' WHERE seq = 4"))
    assert {finding.kind for finding in repaired(settings)} == {"state"}
    assert rows(store.database.load_session(ID)) == rows(before)


def test_a_damaged_boundary_without_a_checkpoint_is_done_again(settings: Settings, store: Store) -> None:
    half_way(store)
    for file in store.checkpoints.list_checkpoints(ID)[3:]:
        store.files.remove(file.path)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE stage_commits SET state_delta = '{}' WHERE seq = 4"))
    repaired(settings)
    assert store.database.last_seq(ID) == 3
    assert len(store.database.get_prompt_history(ID)) == 0


def test_changed_rows_are_written_again_from_the_state(settings: Settings, store: Store) -> None:
    before = finished(store)
    with writing(store.database.engine) as connection:
        connection.execute(text("UPDATE prompts SET positive_prompt = 'x' WHERE iteration = 2"))
        connection.execute(text("DELETE FROM entities"))
    (found,) = repaired(settings)
    assert "prompts" in found.message
    assert "entities" in found.message
    assert rows(store.database.load_session(ID)) == rows(before)


def test_the_order_of_keys_and_nulls_in_parameters_are_no_fault(settings: Settings, store: Store) -> None:
    intent = Intent(edit_type="style", confidence=0.9, parameters={"b": {"z": None, "a": 1}, "a": [None, {"x": None}]})
    *first, _ = list(commits())[:3]
    lease = store.database.begin_session(SESSION, "me", 30)
    put_files(store)
    for commit in first:
        store.database.commit_stage(lease, commit, 30)
    delta = intent_delta(intent)
    state = merge_patch(fold(commit.state_delta for commit in first), delta)
    last = first[-1].model_copy(
        update={"seq": 3, "stage": "intent", "state_delta": delta, "sha256": digest(state), "iteration": 0}
    )
    store.database.commit_stage(lease, last, 30)
    store.database.release(lease)
    assert "rows" not in {finding.kind for finding in doctor(settings)}


# --- Feedback and deletion ---------------------------------------------------------------------------


def test_a_verdict_is_in_the_checkpoint_too(store: Store) -> None:
    finished(store)
    give_verdict(store, ID, "partial", rating=3, comment="nearly", reasons=["edges"])
    latest = store.checkpoints.latest_checkpoint(ID)
    assert latest is not None
    assert latest.validation["feedback"]["attempt-1"]["comments"] == "nearly"
    live = store.checkpoints.load_session_state(ID)
    assert live is not None
    assert live["validation"]["feedback"]["attempt-1"]["rating"] == 3


def test_a_changed_verdict_leaves_nothing_for_doctor(settings: Settings, store: Store) -> None:
    finished(store)
    for verdict in ("accept", "reject"):
        give_verdict(store, ID, verdict)
    assert doctor(settings) == []


def test_there_is_nothing_to_rate_before_there_is_a_result(store: Store) -> None:
    half_way(store)
    with pytest.raises(InputError, match="no result yet"):
        give_verdict(store, ID, "accept")


def test_a_half_deleted_session_cannot_be_revived(settings: Settings, store: Store) -> None:
    finished(store)
    lease = store.database.acquire(ID, "delete", 30)
    store.database.mark_deleting(lease, DELETING)
    store.database.release(lease)
    with pytest.raises(InputError, match="being deleted"):
        reopen(store, ID)


def test_deleting_leaves_nothing_of_a_session(settings: Settings, store: Store) -> None:
    finished(store)
    delete_session(store, ID)
    assert store.database.get_session(ID) is None
    assert [entry.name for entry in store.files.entries() if ID in entry.name] == []


def test_a_deletion_that_was_interrupted_is_finished_not_undone(settings: Settings, store: Store) -> None:
    finished(store)
    lease = store.database.acquire(ID, "delete", 30)
    store.database.mark_deleting(lease, DELETING)
    store.database.release(lease)
    assert [finding.kind for finding in repaired(settings)] == ["deletion"]
    assert store.database.get_session(ID) is None
    assert store.checkpoints.session_ids() == []


def test_a_session_being_worked_on_cannot_be_deleted(store: Store) -> None:
    half_way(store)
    store.database.acquire(ID, "worker", 60)
    with pytest.raises(LeaseHeldError, match="worker"):
        delete_session(store, ID)
    assert store.checkpoints.list_checkpoints(ID)


def test_what_was_learned_of_a_damaged_prompt_is_learned_anew(store: Store) -> None:
    database = store.database
    edited_session(database)
    with writing(database.engine) as connection:
        connection.execute(text("UPDATE sessions SET naive_prompt = 'make the sky dramati\u00ff'"))
    database.save_feedback(SESSION.session_id, {"feedback_type": "accept"})
    state = database.get_state(SESSION.session_id)
    assert state is not None
    database.rewrite_rows(SESSION.session_id, rows_of(state.model_dump(mode="json")))
    with reading(database.engine) as connection:
        events = connection.execute(text("SELECT sign, terms FROM feedback_events ORDER BY seq")).all()
    taken_back, given = events[-2:]
    assert (taken_back.sign, given.sign) == (-1, 1)
    assert json.loads(given.terms) == terms_of(SESSION.naive_prompt) != json.loads(taken_back.terms)
