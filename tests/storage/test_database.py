"""EDIDatabase on SQLite and PostgreSQL: the seed's calls, records, boundaries, history, feedback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from edi_storage import EDIDatabase
from edi_storage.connection import reading, writing
from edi_storage.errors import (
    DatabaseDamagedError,
    InputError,
    LeaseHeldError,
    NotFoundError,
    SessionGoneError,
    StaleBoundaryError,
)
from edi_storage.models import Intent, Lease, SessionData, StageCommit
from edi_storage.state import Json, digest, fold, merge_patch
from edi_storage.statements import Prepared
from tests.storage.conftest import NOON
from tests.storage.sessions import SESSION, boundaries, commit_all, edited_session


def begin(database: EDIDatabase, owner: str = "me") -> Lease:
    return database.begin_session(SESSION, owner, 30)


# --- The seed's methods ------------------------------------------------------------------------------


def test_the_seeds_own_example_works(database: EDIDatabase) -> None:
    data = {
        "id": "session-789",
        "image_path": "/path/to/image3.jpg",
        "naive_prompt": "change background color",
        "status": "in_progress",
    }
    assert database.save_session(data) == "session-789"
    found = database.get_session("session-789")
    assert found is not None
    assert (found["id"], found["naive_prompt"]) == ("session-789", "change background color")
    pair = {"positive_prompt": "blue background", "negative_prompt": "keep foreground"}
    database.save_prompt_history(
        "session-789",
        [{"iteration": 0, **pair, "quality_score": 0.85}, {"iteration": 1, **pair, "quality_score": 0.92}],
    )
    assert [p["quality_score"] for p in database.get_prompt_history("session-789")] == [0.85, 0.92]


def test_an_unknown_session_is_none(database: EDIDatabase) -> None:
    assert database.get_session("nobody") is None


def test_saving_a_session_again_updates_only_what_is_given(database: EDIDatabase) -> None:
    database.save_session({"id": "s", "image_path": "a.jpg", "naive_prompt": "p", "status": "in_progress"})
    database.save_session(
        {"id": "s", "image_path": "a.jpg", "naive_prompt": "p", "status": "completed", "final_alignment_score": 0.9}
    )
    database.save_session({"id": "s", "image_path": "b.jpg", "naive_prompt": "p"})
    found = database.get_session("s")
    assert found is not None
    assert (found.image_path, found.status, found.final_alignment_score) == ("b.jpg", "completed", 0.9)


def test_saving_prompts_again_replaces_them(database: EDIDatabase) -> None:
    begin(database)
    for words in ("first", "second"):
        database.save_prompt_history(
            SESSION.session_id, [{"iteration": 0, "positive_prompt": words, "negative_prompt": ""}]
        )
    assert [p.positive_prompt for p in database.get_prompt_history(SESSION.session_id)] == ["second"]


def test_a_failing_record_leaves_none_of_its_batch(database: EDIDatabase) -> None:
    begin(database)
    good = {"iteration": 0, "positive_prompt": "a", "negative_prompt": "b"}
    with pytest.raises(InputError, match="quality_score"):
        database.save_prompt_history(SESSION.session_id, [good, {**good, "iteration": 1, "quality_score": 7}])
    assert database.get_prompt_history(SESSION.session_id) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", "../../etc"),
        ("session_id", "con"),
        ("naive_prompt", "a\x00b"),
        ("naive_prompt", "\ud800"),
        ("status", "done"),
        ("final_alignment_score", float("nan")),
        ("final_alignment_score", 1.5),
        ("colour", "red"),
    ],
)
def test_a_bad_session_is_refused_in_one_sentence(database: EDIDatabase, field: str, value: object) -> None:
    data = {"session_id": "s", "image_path": "a.jpg", "naive_prompt": "p", field: value}
    with pytest.raises(InputError, match=field) as caught:
        database.save_session(data)
    assert "\n" not in str(caught.value)
    assert database.query_history() == []


def test_records_of_an_unknown_session_are_refused(database: EDIDatabase) -> None:
    with pytest.raises(NotFoundError, match="ghost"):
        database.save_entities("ghost", [{"entity_id": "sky_0", "label": "sky", "confidence": 0.9}])


def test_a_state_document_goes_through_a_file(database: EDIDatabase, tmp_path: Path) -> None:
    state = {"session_id": "s", "current_stage": "refinement", "image_path": "a.jpg", "naive_prompt": "p"}
    path = str(tmp_path / "state.json")
    database.save_session_state(state, path)
    loaded = database.load_session_state(path)
    assert loaded["current_stage"] == "refinement"
    assert database.load_session_state(str(tmp_path / "missing.json")) == {}


# --- Boundaries --------------------------------------------------------------------------------------


def test_a_whole_edit_can_be_read_back(database: EDIDatabase) -> None:
    edited_session(database)
    history = database.load_session(SESSION.session_id)
    assert history.session.status == "completed"
    assert history.session.decision == "accepted"
    assert [c.stage for c in history.commits] == [step.stage for step, _ in boundaries()]
    assert [e.entity_id for e in history.entities] == ["building_0", "sky_0"]
    assert [p.iteration for p in history.prompts] == [0, 1, 2, 3]
    assert isinstance(history.intent, Intent)
    assert {a.kind for a in history.artifacts} == {"original", "mask", "edited", "delta"}
    assert history.state is not None
    assert history.state.current_stage == "completed"


def test_a_boundary_committed_twice_is_there_once(database: EDIDatabase) -> None:
    lease = begin(database)
    first, second = (commit_all(database, lease, upto=1) for _ in range(2))
    assert first == second
    assert len(database.get_commits(SESSION.session_id)) == 1


def test_a_boundary_committed_again_later_changes_nothing(database: EDIDatabase) -> None:
    lease = begin(database)
    commit_all(database, lease)
    before = database.load_session(SESSION.session_id)
    for commit in before.commits:
        assert database.commit_stage(lease, commit, 30) == commit
    assert database.load_session(SESSION.session_id) == before


def test_a_boundary_out_of_turn_is_refused_and_leaves_nothing(database: EDIDatabase) -> None:
    lease = begin(database)
    commits = list(made_commits())
    with pytest.raises(StaleBoundaryError):
        database.commit_stage(lease, commits[1], 30)
    assert database.get_commits(SESSION.session_id) == []
    assert database.get_entities(SESSION.session_id) == []


def made_commits() -> Iterator[StageCommit]:
    from tests.storage.sessions import commits

    yield from commits()


def test_a_damaged_delta_is_noticed_and_the_whole_part_is_known(database: EDIDatabase) -> None:
    edited_session(database)
    with writing(database.engine) as connection:
        connection.execute(
            text("UPDATE stage_commits SET state_delta = replace(state_delta, 'step 1', 'step 9') WHERE seq = 5")
        )
    with pytest.raises(DatabaseDamagedError, match="doctor"):
        database.get_state(SESSION.session_id)
    assert [c.seq for c in database.whole_commits(SESSION.session_id)] == [1, 2, 3, 4]


def test_the_state_is_the_fold_of_the_deltas(database: EDIDatabase) -> None:
    edited_session(database)
    commits = database.get_commits(SESSION.session_id)
    state: Json = {}
    for commit in commits:
        state = merge_patch(state, commit.state_delta)
        assert digest(state) == commit.sha256
    assert fold(c.state_delta for c in commits) == state


def test_deltas_are_stored_as_json_without_spaces(database: EDIDatabase) -> None:
    edited_session(database)
    with reading(database.engine) as connection:
        stored = connection.execute(text("SELECT state_delta FROM stage_commits ORDER BY seq")).scalars().all()
    deltas = [commit.state_delta for commit in database.get_commits(SESSION.session_id)]
    assert stored == [json.dumps(delta, separators=(",", ":"), ensure_ascii=False) for delta in deltas]


@pytest.mark.sqlite_file("a server's statements are compiled for each engine, which lives long there")
def test_what_is_compiled_for_one_engine_serves_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each photo of a batch has an engine of its own.
    with EDIDatabase(str(tmp_path / "one.db")) as database:
        edited_session(database)
        before = database.load_session(SESSION.session_id)
    monkeypatch.setattr(Prepared, "__init__", None)  # to compile a statement would raise
    with EDIDatabase(str(tmp_path / "two.db")) as database:
        edited_session(database)
        assert database.load_session(SESSION.session_id).state == before.state


def test_a_rewound_session_can_go_the_rest_of_the_way_again(database: EDIDatabase) -> None:
    edited_session(database)
    before = database.load_session(SESSION.session_id)
    from edi_storage.state import rows_of

    kept = before.commits[:4]
    database.rewind(SESSION.session_id, 4, rows_of(fold(c.state_delta for c in kept)))
    assert database.get_validations(SESSION.session_id) == []
    assert database.require_session(SESSION.session_id).status == "in_progress"
    commit_all(database, database.acquire(SESSION.session_id, "again", 30))
    after = database.load_session(SESSION.session_id)
    assert (after.prompts, after.validations, after.artifacts) == (before.prompts, before.validations, before.artifacts)


def masks_stored(database: EDIDatabase) -> int:
    with reading(database.engine) as connection:
        return int(connection.execute(text("SELECT count(*) FROM artifacts WHERE kind = 'mask'")).scalar_one())


def test_the_mask_of_an_entity_is_stored_once(database: EDIDatabase) -> None:
    edited_session(database)
    masks = [item for item in database.get_artifacts(SESSION.session_id) if item.kind == "mask"]
    assert [(mask.name, mask.path) for mask in masks] == [
        (entity.entity_id, entity.mask_path) for entity in database.get_entities(SESSION.session_id)
    ]
    assert all(mask.path == f"{SESSION.session_id}/files/{mask.sha256}.png" for mask in masks)
    assert masks_stored(database) == 0


def test_masks_that_an_earlier_version_stored_twice_are_there_once_and_as_the_entities_have_them(
    database: EDIDatabase,
) -> None:
    edited_session(database)
    expected = database.load_session(SESSION.session_id)
    digests = {"sky_0": "0" * 64, "building_0": next(a.sha256 for a in expected.artifacts if a.name == "building_0")}
    database.save_artifacts(
        SESSION.session_id,
        [
            {"kind": "mask", "name": name, "path": f"{SESSION.session_id}/files/{sha256}.png", "sha256": sha256}
            for name, sha256 in digests.items()
        ],
    )
    assert masks_stored(database) == 2
    assert database.load_session(SESSION.session_id) == expected
    assert database.get_artifacts(SESSION.session_id) == expected.artifacts


@pytest.mark.parametrize("path", ["masks/sky.png", f"s-1/files/{'a' * 63}.png", f"s-1/files/{'a' * 64}.png/x"])
def test_a_mask_that_is_not_named_by_its_digest_is_refused_and_leaves_nothing(database: EDIDatabase, path: str) -> None:
    lease = begin(database)
    commit_all(database, lease, upto=1)
    analysis = list(made_commits())[1]
    scene = analysis.state_delta["scene_analysis"]
    scene["entities"][0]["mask_path"] = path
    with pytest.raises(ValueError, match=r"the mask of sky_0 .*digest"):
        database.commit_stage(lease, analysis, 30)
    assert len(database.get_commits(SESSION.session_id)) == 1
    assert database.get_entities(SESSION.session_id) == []


# --- History and deletion ----------------------------------------------------------------------------


def test_history_pages_are_newest_first_and_complete(database: EDIDatabase) -> None:
    for number in range(7):
        moment = NOON + timedelta(seconds=number // 2)  # pairs share a moment
        database.save_session(SessionData(session_id=f"s{number}", created_at=moment, image_path="a", naive_prompt="p"))
    seen: list[str] = []
    page = database.query_history(limit=3)
    while page:
        seen += [session.session_id for session in page]
        page = database.query_history(limit=3, before=page[-1])
    assert seen == [f"s{number}" for number in reversed(range(7))]


def test_history_can_be_filtered_by_status(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_session({"id": "other", "image_path": "a", "naive_prompt": "p"})
    assert [s.session_id for s in database.query_history(status="completed")] == [SESSION.session_id]


@pytest.mark.sqlite_file("the plan is SQLite's; a server's depends on how many rows there are")
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT * FROM sessions ORDER BY created_at DESC, id DESC LIMIT 50", "ix_sessions_created_at_id"),
        (
            "SELECT * FROM sessions WHERE status = 'failed' ORDER BY created_at DESC, id DESC LIMIT 50",
            "ix_sessions_status_created_at_id",
        ),
        (
            "SELECT * FROM sessions WHERE status = 'in_progress' ORDER BY created_at, id",
            "ix_sessions_status_created_at_id",
        ),
    ],
)
def test_history_and_resume_scan_use_their_index(database: EDIDatabase, query: str, index: str) -> None:
    with reading(database.engine) as connection:
        plan = " ".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_deleting_takes_every_row(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_feedback(SESSION.session_id, {"feedback_type": "accept"})
    database.delete_session(SESSION.session_id)
    with reading(database.engine) as connection:
        for table in ("sessions", "prompts", "entities", "validations", "user_feedback", "stage_commits", "leases"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_a_session_being_worked_on_is_not_deleted(database: EDIDatabase) -> None:
    begin(database)
    with pytest.raises(LeaseHeldError):
        database.delete_session(SESSION.session_id)


def test_the_worker_of_a_deleted_session_stops(database: EDIDatabase) -> None:
    lease = begin(database)
    database.release(lease)
    database.delete_session(SESSION.session_id)
    with pytest.raises(SessionGoneError):
        commit_all(database, lease, upto=1)


# --- Feedback and learning ---------------------------------------------------------------------------


def test_feedback_is_a_row_an_event_and_a_boundary(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_feedback(SESSION.session_id, {"feedback_type": "reject", "rating": 2, "reasons": ["too strong"]})
    history = database.load_session(SESSION.session_id)
    assert [f.rating for f in history.feedback] == [2]
    assert history.commits[-1].stage == "feedback"
    assert history.state is not None
    assert history.state.validation["feedback"]["verdict"]["reasons"] == ["too strong"]
    assert history.state.current_stage == "completed"


def test_the_same_verdict_twice_changes_nothing(database: EDIDatabase) -> None:
    edited_session(database)
    for _ in range(2):
        database.save_feedback(SESSION.session_id, {"feedback_type": "accept", "rating": 5})
    assert len(database.get_feedback(SESSION.session_id)) == 1
    assert [c.stage for c in database.get_commits(SESSION.session_id)].count("feedback") == 1
    assert database.fold_feedback().events == 1


def test_a_changed_verdict_replaces_the_old_one_in_what_was_learned(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_feedback(SESSION.session_id, {"feedback_type": "accept", "rating": 5})
    database.fold_feedback()
    database.save_feedback(SESSION.session_id, {"feedback_type": "reject", "rating": 1})
    assert database.fold_feedback().events == 2
    (cell,) = database.learning_cells()
    assert (cell.edit_type, cell.label) == ("style", "sky")
    assert (cell.accepted, cell.rejected, cell.rating_sum, cell.rating_count) == (0, 1, 1, 1)


def test_a_list_of_sessions_tells_what_was_said_last_of_each(database: EDIDatabase) -> None:
    ids = ["unrated", "rated", "rated-twice"]
    for name in ids:
        database.save_session({**SESSION.model_dump(), "session_id": name})
    said = [("rated", 1, 4, NOON), ("rated-twice", 2, 5, NOON + timedelta(hours=1)), ("rated-twice", 1, 2, NOON)]
    for name, attempt, rating, when in said:
        verdict = {"feedback_type": "accept", "rating": rating, "feedback_key": f"attempt-{attempt}"}
        database.save_feedback(name, {**verdict, "created_at": when})
    assert {name: verdict.rating for name, verdict in database.verdicts_on(ids).items()} == {
        "rated": 4,
        "rated-twice": 5,
    }
    assert database.verdicts_on([]) == database.verdicts_on(["unrated"]) == {}


def test_deleting_a_session_takes_its_feedback_out_of_what_was_learned(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_feedback(SESSION.session_id, {"feedback_type": "partial", "rating": 3})
    database.fold_feedback()
    database.delete_session(SESSION.session_id)
    database.fold_feedback()
    assert database.learning_cells() == []


def test_folding_again_adds_nothing(database: EDIDatabase) -> None:
    edited_session(database)
    database.save_feedback(SESSION.session_id, {"feedback_type": "accept"})
    assert database.fold_feedback().events == 1
    cells = database.learning_cells()
    assert database.fold_feedback().events == 0
    assert database.learning_cells() == cells


def test_feedback_on_a_running_edit_waits(database: EDIDatabase) -> None:
    begin(database)
    with pytest.raises(LeaseHeldError):
        database.save_feedback(SESSION.session_id, {"feedback_type": "accept"})


def test_a_rating_must_be_a_whole_number(database: EDIDatabase) -> None:
    edited_session(database)
    for rating in (4.5, 0, 6, "5", True):
        with pytest.raises(InputError, match="rating"):
            database.save_feedback(SESSION.session_id, {"feedback_type": "accept", "rating": rating})


def test_the_lease_of_a_process_that_is_gone_is_freed(database: EDIDatabase) -> None:
    database.begin_session(SESSION, "dead", 30)
    database.begin_session(SESSION.model_copy(update={"session_id": "other"}), "alive", 30)
    assert database.free_leases(lambda owner: owner == "dead") == 1
    assert [session.session_id for session in database.interrupted_sessions()] == [SESSION.session_id]
    assert database.free_leases(lambda owner: owner == "dead") == 0
