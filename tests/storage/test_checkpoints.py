"""SessionStateManager: any state on its way to disk and back, the immutable checkpoints, many writers and kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edi_storage.autosave import Progress, progress_of, with_progress
from edi_storage.checkpoints import SessionStateManager
from edi_storage.errors import CheckpointDamagedError, CheckpointError, CheckpointTooNewError, InputError
from edi_storage.models import SCHEMA_VERSION, BoundaryStage, CheckpointInfo
from edi_storage.state import Json, digest
from tests.storage.generated import json_objects, safe_text

STATE: Json = {
    "session_id": "s1",
    "current_stage": "refinement",
    "image_path": "/photos/über.jpg",
    "naive_prompt": "make the sky dramatic ☁",
    "scene_analysis": {
        "entities": [{"id": "sky_0", "label": "sky", "confidence": 0.95}],
        "spatial_layout": "sky on top",
    },
    "intent": {"target_entities": ["sky_0"], "edit_type": "style", "confidence": 0.85},
    "prompts": {"iteration_0": {"positive": "storm clouds", "negative": "blur"}},
    "edited_image_path": None,
    "validation": {"score": 0.87},
}
SEED_KEYS = list(STATE)


def state_at(seq: int, **fields: Any) -> Json:
    return {**STATE, "validation": {"n": seq}, **fields}


def info_of(seq: int, state: Json, stage: BoundaryStage = "refinement") -> CheckpointInfo:
    return CheckpointInfo(seq=seq, stage=stage, sha256=digest(state))


def write(manager: SessionStateManager, seq: int, **fields: Any) -> str:
    """Write a checkpoint; returns its relative path."""
    state = state_at(seq, **fields)
    full = manager.write_checkpoint(state, info_of(seq, state))
    return full.removeprefix(manager.store.root).lstrip("/")


def latest_seq(manager: SessionStateManager) -> int | None:
    found = manager.latest_checkpoint("s1")
    return found.checkpoint.seq if found and found.checkpoint else None


def rewrite(manager: SessionStateManager, path: str, change: Callable[[Json], object]) -> None:
    document = json.loads(manager.store.read(path))
    change(document)
    manager.store.write_whole(path, json.dumps(document).encode())


# --- Round trips -------------------------------------------------------------------------------------

stages = st.sampled_from(["upload", "analysis", "intent", "refinement", "edit", "validation", "completed"])
states = st.fixed_dictionaries(
    {
        "session_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{4,63}", fullmatch=True),
        "current_stage": stages,
        "image_path": safe_text,
        "naive_prompt": safe_text,
    },
    optional={
        "scene_analysis": json_objects,
        "intent": json_objects,
        "prompts": json_objects,
        "validation": json_objects,
        "edited_image_path": st.none() | safe_text,
    },
)


@pytest.fixture(scope="module")
def memory() -> SessionStateManager:
    return SessionStateManager(f"memory://{uuid4()}")


@given(state=states)
@example(
    state={**STATE, "scene_analysis": {"deep": [{"ключ": "значение", "\U0001f3de": "\u2028\x7f\ufffe"}], "": -0.0}}
)
def test_any_state_survives_the_live_file(memory: SessionStateManager, state: Json) -> None:
    memory.save_session_state(state["session_id"], state)
    loaded = memory.load_session_state(state["session_id"])
    assert loaded is not None
    assert {key: loaded[key] for key in state} == state
    assert digest(loaded) == digest(state)


@given(state=states, seq=st.integers(0, 10**7))
def test_any_state_survives_a_checkpoint(memory: SessionStateManager, state: Json, seq: int) -> None:
    info = info_of(seq, state, "feedback")
    memory.write_checkpoint(state, info)
    found = memory.latest_checkpoint(state["session_id"])
    assert found is not None
    assert found.checkpoint == info
    assert digest(found.model_dump(mode="json")) == info.sha256
    memory.delete_session(state["session_id"])


@settings(max_examples=25)
@given(state=states)
def test_any_state_survives_a_real_file(tmp_path_factory: pytest.TempPathFactory, state: Json) -> None:
    manager = SessionStateManager(tmp_path_factory.mktemp("sessions"))
    manager.write_checkpoint(state, info_of(1, state))
    found = manager.latest_checkpoint(state["session_id"])
    assert found is not None
    assert digest(found.model_dump(mode="json")) == digest(state)
    assert manager.session_ids() == [state["session_id"]]


# --- Checkpoints -------------------------------------------------------------------------------------


def test_a_checkpoint_is_named_by_seq_stage_and_digest(manager: SessionStateManager) -> None:
    state = state_at(3)
    path = write(manager, 3)
    assert path == f"s1/checkpoints/000003-refinement-{digest(state)[:12]}.json"
    document = json.loads(manager.store.read(path))
    assert list(document) == [*SEED_KEYS, "last_updated", "checkpoint"]
    assert document["checkpoint"] == {
        "format": 1,
        "seq": 3,
        "stage": "refinement",
        "sha256": digest(state),
        "schema_version": SCHEMA_VERSION,
    }


def test_writing_a_checkpoint_again_changes_no_byte(manager: SessionStateManager) -> None:
    path = write(manager, 1)
    data = manager.store.read(path)
    assert write(manager, 1) == path
    assert manager.store.read(path) == data
    assert manager.store.list() == [path]


def test_a_fold_with_fields_missing_has_the_digest_of_its_document(manager: SessionStateManager) -> None:
    state = {key: STATE[key] for key in ("session_id", "current_stage", "image_path", "naive_prompt")}
    manager.write_checkpoint(state, info_of(1, state))
    assert latest_seq(manager) == 1


def test_a_checkpoint_whose_digest_is_another_is_refused(manager: SessionStateManager) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        manager.write_checkpoint(state_at(1), info_of(1, state_at(2)))
    for change in ({"schema_version": 0}, {"schema_version": SCHEMA_VERSION + 1}, {"format": 2}):
        with pytest.raises(CheckpointError, match="version"):
            manager.write_checkpoint(state_at(1), info_of(1, state_at(1)).model_copy(update=change))
    assert manager.store.list() == []


def test_progress_is_in_the_live_file_and_in_no_checkpoint(manager: SessionStateManager) -> None:
    progress = Progress(stage="edit", fraction=0.5, handles={"comfyui": {"prompt_id": "p1"}})
    busy = with_progress(STATE, progress)
    manager.save_session_state("s1", busy)
    assert progress_of(manager.load_session_state("s1") or {}) == progress
    manager.write_checkpoint(busy, info_of(1, STATE))
    found = manager.latest_checkpoint("s1")
    assert found is not None
    assert "progress" not in found.scene_analysis


def test_checkpoints_are_listed_oldest_first_and_the_newest_is_found(manager: SessionStateManager) -> None:
    for seq in (2, 10, 1, 1_000_000):
        write(manager, seq)
    manager.store.write_whole("s1/checkpoints/notes.txt", b"mine")
    assert [file.seq for file in manager.list_checkpoints("s1")] == [1, 2, 10, 1_000_000]
    assert [document["checkpoint"]["seq"] for document in manager.valid_checkpoints("s1")] == [1, 2, 10, 1_000_000]
    assert latest_seq(manager) == 1_000_000


def test_of_two_ways_at_the_same_seq_the_later_counts(manager: SessionStateManager) -> None:
    for way in ("first", "second", "third"):
        state = state_at(2, naive_prompt=way)
        manager.write_checkpoint(state, info_of(2, state))
    found = manager.latest_checkpoint("s1")
    assert found is not None
    assert found.naive_prompt == "third"
    assert [document["naive_prompt"] for document in manager.valid_checkpoints("s1")] == ["third"]


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data.replace(b"storm", b"stosm")


def of_another_session(data: bytes) -> bytes:
    return data.replace(b'"s1"', b'"s2"')


def with_another_seq(data: bytes) -> bytes:
    return data.replace(b'"seq": 3', b'"seq": 4')


def without_checkpoint_field(data: bytes) -> bytes:
    return json.dumps(STATE).encode()


def of_a_version_that_never_was(data: bytes) -> bytes:
    return data.replace(b'"schema_version": 1', b'"schema_version": -1')


def empty(data: bytes) -> bytes:
    return b""


def html(data: bytes) -> bytes:
    return b"<html>"


DAMAGES = [truncated, flipped, of_another_session, with_another_seq, without_checkpoint_field]
DAMAGES += [of_a_version_that_never_was, empty, html]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    manager: SessionStateManager, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    paths = [write(manager, seq) for seq in (1, 2, 3)]
    manager.store.write_whole(paths[2], damage(manager.store.read(paths[2])))
    assert latest_seq(manager) == 2
    assert paths[2] in caplog.text
    [finding] = manager.checkpoint_findings("s1")
    assert (finding.path, finding.too_new) == (paths[2], False)
    assert finding.reason.startswith("is damaged: ")
    assert finding.reason.endswith(".")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_written_again(
    manager: SessionStateManager, damage: Callable[[bytes], bytes]
) -> None:
    path = write(manager, 3)
    damaged = damage(manager.store.read(path))
    manager.store.write_whole(path, damaged)
    assert write(manager, 3) == path
    assert latest_seq(manager) == 3
    assert manager.checkpoint_findings("s1") == []
    aside = next(name for name in manager.store.list() if "set-aside" in name)
    assert manager.store.read(aside) == damaged


def test_a_deleted_checkpoint_leaves_the_one_before_it(manager: SessionStateManager) -> None:
    paths = [write(manager, seq) for seq in (1, 2)]
    manager.store.remove(paths[1])
    assert latest_seq(manager) == 1
    manager.store.remove(paths[0])
    assert latest_seq(manager) is None


def test_no_single_bit_flip_passes_for_another_state(memory: SessionStateManager) -> None:
    state = {"session_id": "flip", **{key: STATE[key] for key in ("current_stage", "image_path", "naive_prompt")}}
    memory.write_checkpoint(state, info_of(1, state))
    [file] = memory.list_checkpoints("flip")
    data = memory.store.read(file.path)
    passed = 0
    for place in range(len(data) * 8):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        memory.store.write_whole(file.path, bytes(broken))
        try:
            found = memory.read_checkpoint(file)
        except (CheckpointDamagedError, CheckpointTooNewError):
            continue
        passed += 1
        assert digest(found.model_dump(mode="json")) == digest(state)
    # What passes is a flip in `last_updated`, which the digest does not cover.
    assert passed < len('"last_updated": "2026-03-04T12:00:00.000000Z"') * 8


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"format": 99}, {"format": 2, "sha256": None, "novel": {}}])
def test_a_newer_checkpoint_is_refused_and_left_alone(manager: SessionStateManager, change: Json) -> None:
    write(manager, 1)
    path = write(manager, 2)
    rewrite(manager, path, lambda document: (document.update(mood="new"), document["checkpoint"].update(change)))
    data = manager.store.read(path)
    with pytest.raises(CheckpointTooNewError, match="newer version of EDI: upgrade EDI"):
        manager.latest_checkpoint("s1")
    with pytest.raises(CheckpointTooNewError):
        write(manager, 2)
    found = manager.latest_checkpoint("s1", skip_newer=True)
    assert found is not None
    assert found.validation == {"n": 1}
    assert [document["checkpoint"]["seq"] for document in manager.valid_checkpoints("s1")] == [1]
    [finding] = manager.checkpoint_findings("s1")
    assert (finding.path, finding.too_new) == (path, True)
    manager.prune("s1", keep=1)
    assert manager.store.read(path) == data


def test_older_checkpoints_are_upcast_step_by_step(manager: SessionStateManager) -> None:
    old = {**{key: value for key, value in STATE.items() if key != "naive_prompt"}, "wish": "make the sky dramatic"}
    info = {"format": 1, "seq": 4, "stage": "edit", "sha256": digest(old), "schema_version": -1}
    path = f"s1/checkpoints/000004-edit-{digest(old)[:12]}.json"
    manager.store.write_whole(path, json.dumps({**old, "checkpoint": info}).encode())
    steps: list[str] = []

    def renamed(document: Json, before: str, after: str) -> Json:
        steps.append(after)
        return {after if key == before else key: value for key, value in document.items()}

    upcasts: dict[int, Callable[[Json], Json]] = {
        -1: lambda document: renamed(document, "wish", "prompt"),
        0: lambda document: renamed(document, "prompt", "naive_prompt"),
    }
    newer = SessionStateManager(store=manager.store, upcasts=upcasts)
    found = newer.latest_checkpoint("s1")
    assert found is not None
    assert steps == ["prompt", "naive_prompt"]
    assert found.naive_prompt == "make the sky dramatic"
    assert found.checkpoint is not None
    assert found.checkpoint.schema_version == SCHEMA_VERSION
    assert found.checkpoint.sha256 == digest(found.model_dump(mode="json"))
    del upcasts[-1]
    [finding] = newer.checkpoint_findings("s1")
    assert "schema version -1" in finding.reason


def test_pruning_keeps_the_newest_valid_ones(manager: SessionStateManager) -> None:
    paths = [write(manager, seq) for seq in range(1, 8)]
    manager.store.write_whole(paths[5], b"torn")
    assert manager.prune("s1") == paths[:3]
    assert [file.path for file in manager.list_checkpoints("s1")] == paths[3:]
    assert manager.prune("s1") == []
    with pytest.raises(InputError, match="At least one"):
        manager.prune("s1", keep=0)


# --- Whole sessions ----------------------------------------------------------------------------------


def test_sessions_are_those_with_a_state_or_a_checkpoint(manager: SessionStateManager) -> None:
    write(manager, 1)
    manager.save_session_state("live-only", {**STATE, "session_id": "live-only"})
    manager.store.put("files-only", b"pixels", ".png")
    for name in ("not an id.json", "s9.json.set-aside-20260101T000000Z", "CON.json", "readme.txt"):
        manager.store.write_whole(name, b"{}")
    assert manager.session_ids() == ["live-only", "s1"]


def test_deleting_a_session_takes_everything_of_it_and_nothing_else(manager: SessionStateManager) -> None:
    for session_id in ("s1", "s10"):
        manager.save_session_state(session_id, {**STATE, "session_id": session_id})
        manager.set_aside(f"{session_id}.json")
        manager.save_session_state(session_id, {**STATE, "session_id": session_id})
        manager.store.put(session_id, b"pixels", ".png")
        for name in (f"{session_id}/checkpoints/.x.0123456789abcdef.tmp", f".{session_id}.json.0123456789abcdef.tmp"):
            manager.store.write_whole(name, b"half")
    write(manager, 1)
    assert len(manager.temp_files("s1")) == 2
    for _ in range(2):
        manager.delete_session("s1")
    assert manager.session_ids() == ["s10"]
    assert not [path for path in manager.store.list() + manager.store.temp_files() if "s10" not in path]
    assert len(manager.temp_files("s10")) == 2


# --- Many writers, and kills -------------------------------------------------------------------------


def test_two_managers_on_one_folder_always_read_whole_states(tmp_path: Path) -> None:
    managers = [SessionStateManager(tmp_path) for _ in range(2)]
    failed: list[Exception] = []

    def work(manager: SessionStateManager, offset: int) -> None:
        try:
            for number in range(25):
                manager.save_session_state("s1", state_at(offset + number))
                write(manager, number)
        except Exception as error:  # noqa: BLE001 - the test shows whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work, args=(manager, 100 * n)) for n, manager in enumerate(managers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for manager in managers:
            loaded = manager.load_session_state("s1")
            assert loaded is None or "n" in loaded["validation"]
    assert failed == []
    assert managers[0].checkpoint_findings("s1") == []
    assert [file.seq for file in managers[1].list_checkpoints("s1")] == list(range(25))


def test_updates_from_threads_of_one_manager_are_all_kept(local: SessionStateManager) -> None:
    local.save_session_state("s1", STATE)
    fields = ["intent", "prompts", "validation", "scene_analysis"]

    def work(field: str) -> None:
        for number in range(10):
            local.update_session_state("s1", {field: {"n": number}})

    threads = [threading.Thread(target=work, args=(field,)) for field in fields]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = local.load_session_state("s1")
    assert loaded is not None
    assert [loaded[field] for field in fields] == [{"n": 9}] * 4


WRITER = """
import sys
from edi_storage.autosave import Autosaver
from edi_storage.checkpoints import SessionStateManager
from edi_storage.models import CheckpointInfo
from edi_storage.state import MAX_STATE_BYTES, parse_state, digest

manager = SessionStateManager(sys.argv[1])
seq = int(sys.argv[2])
with Autosaver(lambda state: manager.save_session_state("s1", state), interval=0.001) as saver:
    while True:
        seq += 1
        state = {"session_id": "s1", "current_stage": "edit", "image_path": "a", "naive_prompt": "p",
                 "validation": {"n": seq, "padding": ["x" * 100] * 200}}
        saver.significant(state)
        manager.write_checkpoint(state, CheckpointInfo(seq=seq, stage="edit", sha256=digest(state)))
        print(seq, flush=True)
"""


def test_thirty_kills_leave_every_acknowledged_checkpoint_and_a_readable_state(tmp_path: Path) -> None:
    order = random.Random()
    manager = SessionStateManager(tmp_path)
    last = 0
    for _ in range(30):
        last = _write_until_killed(tmp_path, last, order.uniform(0, 0.03))
        assert manager.checkpoint_findings("s1") == []
        assert last in {file.seq for file in manager.list_checkpoints("s1")}
        assert (latest_seq(manager) or 0) >= last
        loaded = manager.load_session_state("s1")
        assert loaded is not None
        assert loaded["validation"]["n"] >= last
        manager.prune("s1", keep=5)
    for path in manager.temp_files("s1"):
        manager.store.remove(path)
    assert manager.store.temp_files() == []


def _write_until_killed(folder: Path, start: int, seconds: float) -> int:
    """Let a process write checkpoints, kill it with SIGKILL after a moment; returns the last seq it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(folder), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        rest = process.stdout.read()
        killer.join()
        assert process.wait() == -signal.SIGKILL
    # A kill may cut the last line short.
    return [int(line) for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")][-1]
