"""SessionStateManager: the live state file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edi_storage.checkpoints import SessionStateManager
from edi_storage.errors import CheckpointDamagedError, CheckpointTooNewError, InputError
from edi_storage.models import SCHEMA_VERSION, SessionState
from edi_storage.state import MAX_STATE_BYTES, Json
from tests.storage.test_checkpoints import SEED_KEYS, STATE, info_of


def test_the_seeds_own_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state_manager = SessionStateManager()
    session_state = {
        "session_id": "session-json-123",
        "current_stage": "refinement",
        "image_path": "/path/to/image.jpg",
        "naive_prompt": "make sky dramatic",
        "scene_analysis": {
            "entities": [
                {"id": "sky_0", "label": "sky", "confidence": 0.95},
                {"id": "mountain_1", "label": "mountain", "confidence": 0.87},
            ],
            "spatial_layout": "sky occupies top half, mountains at horizon",
        },
        "intent": {"target_entities": ["sky_0"], "edit_type": "style", "confidence": 0.85},
        "prompts": {
            "iteration_0": {
                "positive": "dramatic sky with storm clouds",
                "negative": "clear blue sky, no clouds",
            }
        },
        "edited_image_path": None,
        "validation": {},
    }
    filepath = state_manager.save_session_state("session-json-123", session_state)
    assert Path(filepath) == tmp_path / "sessions" / "session-json-123.json"
    loaded_state = state_manager.load_session_state("session-json-123")
    assert loaded_state is not None
    assert loaded_state.get("current_stage") == "refinement"
    state_manager.update_session_state(
        "session-json-123", {"edited_image_path": "/path/to/edited_image.jpg", "validation": {"score": 0.87}}
    )
    loaded_state = state_manager.load_session_state("session-json-123")
    assert loaded_state is not None
    assert {**loaded_state, "last_updated": None} == {
        **session_state,
        "edited_image_path": "/path/to/edited_image.jpg",
        "validation": {"score": 0.87},
        "last_updated": None,
    }


def test_the_live_file_has_the_seeds_keys_and_no_others(manager: SessionStateManager) -> None:
    manager.save_session_state("s1", STATE)
    document = json.loads(manager.store.read("s1.json"))
    assert list(document) == [*SEED_KEYS, "last_updated"]
    assert document == manager.load_session_state("s1")
    info = info_of(1, STATE)
    manager.update_session_state("s1", {"checkpoint": info.model_dump()})
    document = json.loads(manager.store.read("s1.json"))
    assert list(document) == [*SEED_KEYS, "last_updated", "checkpoint"]
    assert document["checkpoint"] == info.model_dump()


def test_saving_sets_last_updated_and_leaves_the_callers_state_alone(manager: SessionStateManager) -> None:
    mine = dict(STATE)
    manager.save_session_state("s1", mine)
    assert mine == STATE
    before = manager.load_session_state("s1")
    manager.save_session_state("s1", SessionState.model_validate(before))
    after = manager.load_session_state("s1")
    assert before is not None
    assert after is not None
    assert before.pop("last_updated") < after.pop("last_updated")
    assert before == after


def test_a_state_without_its_id_gets_it_and_another_id_is_refused(manager: SessionStateManager) -> None:
    manager.save_session_state("s2", {key: value for key, value in STATE.items() if key != "session_id"})
    loaded = manager.load_session_state("s2")
    assert loaded is not None
    assert loaded["session_id"] == "s2"
    with pytest.raises(InputError, match="that of session s1, not of s3"):
        manager.save_session_state("s3", STATE)


def test_an_unknown_session_has_no_state(manager: SessionStateManager) -> None:
    assert manager.load_session_state("s1") is None
    assert manager.latest_checkpoint("s1") is None
    assert not manager.list_checkpoints("s1")
    assert not manager.valid_checkpoints("s1")
    assert not manager.session_ids()


def test_the_first_update_must_make_a_whole_state(manager: SessionStateManager) -> None:
    with pytest.raises(InputError, match="current_stage"):
        manager.update_session_state("s1", {"validation": {"score": 1.0}})
    manager.update_session_state("s1", STATE)
    assert manager.load_session_state("s1") is not None


BAD_FIELDS: list[tuple[Json, str]] = [
    ({"surprise": 1}, "surprise"),
    ({"current_stage": "lunch"}, "current_stage"),
    ({"current_stage": None}, "current_stage"),
    ({"naive_prompt": "a\x00b"}, "NUL"),
    ({"naive_prompt": "\ud800"}, "surrogate"),
    ({"image_path": 7}, "image_path"),
    ({"validation": {"score": float("nan")}}, "NaN"),
    ({"validation": {"score": float("inf")}}, "infinite"),
    ({"validation": {"a": [{"b\x00": 1}]}}, "NUL"),
    ({"validation": {"when": datetime(2026, 1, 1, tzinfo=UTC)}}, "datetime"),
    ({"validation": {1: 2}}, "key"),
    ({"validation": [1]}, "validation"),
    ({"validation": {"n": 2**64}}, "64 bits"),
    ({"validation": {"text": "x" * MAX_STATE_BYTES}}, "larger than"),
    ({"checkpoint": {"seq": 1}}, "checkpoint"),
]


@pytest.mark.parametrize(("fields", "word"), BAD_FIELDS, ids=[word for _, word in BAD_FIELDS])
def test_states_that_could_not_be_read_back_are_refused_before_writing(
    manager: SessionStateManager, fields: Json, word: str
) -> None:
    manager.save_session_state("s1", STATE)
    before = manager.load_session_state("s1")
    for save in (manager.save_session_state, manager.update_session_state):
        with pytest.raises(InputError, match=word) as error:
            save("s1", {**STATE, **fields})
        assert len(str(error.value)) < 500
    assert manager.load_session_state("s1") == before


def test_a_state_that_contains_itself_or_nests_too_deeply_is_refused(local: SessionStateManager) -> None:
    circle: Json = {}
    circle["circle"] = circle
    deep: Json = {}
    for _ in range(5000):
        deep = {"d": deep}
    for value in (circle, deep):
        with pytest.raises(InputError, match="levels"):
            local.save_session_state("s1", {**STATE, "validation": value})


@pytest.mark.parametrize("state", [[], "text", None, 7, [("session_id", "s1")]])
def test_only_mappings_are_states(local: SessionStateManager, state: Any) -> None:
    with pytest.raises(InputError, match="mapping"):
        local.save_session_state("s1", state)


@pytest.mark.parametrize(
    "session_id", ["", ".", "..", "../s1", "a/b", "a\\b", "-a", "a.b", "a" * 65, "CON", "nul", "é", "a\n"]
)
def test_ids_that_are_no_safe_file_names_are_refused_everywhere(local: SessionStateManager, session_id: str) -> None:
    state = {**STATE, "session_id": session_id}
    calls: list[Callable[[], object]] = [
        lambda: local.save_session_state(session_id, state),
        lambda: local.load_session_state(session_id),
        lambda: local.update_session_state(session_id, state),
        lambda: local.auto_save_state(session_id, state),
        lambda: local.write_checkpoint(state, info_of(1, state)),
        lambda: local.latest_checkpoint(session_id),
        lambda: local.list_checkpoints(session_id),
        lambda: local.prune(session_id),
        lambda: local.delete_session(session_id),
        lambda: local.temp_files(session_id),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"session.id"):
            call()
    assert local.store.list() == []


DAMAGE = [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b"<html></html>", b"\x00" * 100, b'{"session_id": "s2"}']


@pytest.mark.parametrize("data", DAMAGE)
def test_a_damaged_live_file_is_named_and_set_aside_by_the_next_save(
    manager: SessionStateManager, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    manager.store.write_whole("s1.json", data)
    with pytest.raises(CheckpointDamagedError, match=r"^s1\.json is damaged: [^\n]+$"):
        manager.load_session_state("s1")
    manager.save_session_state("s1", STATE)
    assert manager.load_session_state("s1") is not None
    aside = next(name for name in manager.store.list() if name.startswith("s1.json.set-aside-"))
    assert manager.store.read(aside) == data
    assert "set-aside" in caplog.text


def test_a_folder_in_place_of_the_live_file_is_damage_too(local: SessionStateManager) -> None:
    local.store.write_whole("s1.json/x", b"")
    with pytest.raises(CheckpointDamagedError, match="is not a file"):
        local.load_session_state("s1")
    local.save_session_state("s1", STATE)
    assert local.load_session_state("s1") is not None


def test_a_live_file_of_a_newer_version_is_left_alone(manager: SessionStateManager) -> None:
    newer = {**STATE, "mood": "new", "checkpoint": {"format": 1, "schema_version": SCHEMA_VERSION + 1, "novel": True}}
    data = json.dumps(newer).encode()
    manager.store.write_whole("s1.json", data)
    for call in (manager.load_session_state, lambda session_id: manager.save_session_state(session_id, STATE)):
        with pytest.raises(CheckpointTooNewError, match="newer version"):
            call("s1")
    assert manager.store.list() == ["s1.json"]
    assert manager.store.read("s1.json") == data
