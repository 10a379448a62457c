"""Edits end to end: the real command, the real flow on a real Prefect server, real photos."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image

from edi_storage.owner import is_gone
from edi_storage.recovery import DELETING, delete_session
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from tests import homes
from tests.flows.conftest import PALACE, Edi, all_is_well

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DRAMATIC = ("edit", str(PALACE), "make the sky dramatic")

#: Every step of an edit that succeeds at once, and where in it the process is killed.
#: Each kind of moment, through the whole edit; `tests.crash` does all of them.
MOMENTS = [
    ("begin", "upload"),
    ("commit", "analysis"),
    ("hook", "intent"),
    ("begin", "refine 0"),
    ("hook", "refine 2"),
    ("commit", "edit"),
    ("hook", "validation"),
    ("commit", "completed"),
    ("hook", "completed"),
]


VOLATILE = {"created_at", "updated_at", "started_at", "finished_at", "flow_run_id", "fence", "recovery_attempts"}


def rows(edi: Edi, session_id: str) -> dict[str, Any]:
    """All rows and the state of a session, without times, ids of runs, and fences."""
    shown = json.loads(json.dumps(edi.json("show", session_id)).replace(str(edi.home), "HOME"))
    result: dict[str, Any] = steady(shown)
    return result


def steady(value: Any) -> Any:
    """A document of a session without what no two runs have in common; the seed of a choice follows from the id."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE | {"sha256", "seed"}}
    return [steady(item) for item in value] if isinstance(value, list) else value


def test_the_sky_becomes_dramatic_and_the_palace_stays(edi: Edi, tmp_path: Path) -> None:
    output = tmp_path / "dramatic.jpg"
    before = PALACE.read_bytes()
    result = edi.json(*DRAMATIC, "--output", str(output))
    assert (result["status"], result["decision"], result["current_stage"]) == ("completed", "accepted", "completed")
    assert result["alignment_score"] >= 0.8
    assert result["restored_stages"] == []
    assert {entity["entity_id"] for entity in result["entities"]} >= {"sky_0"}
    assert [prompt["iteration"] for prompt in result["prompts"]] == [0, 1, 2, 3]
    assert homes.read(result["delta_image_path"])[:4] == b"\x89PNG"
    assert PALACE.read_bytes() == before
    original, edited = pixels(PALACE), pixels(result["edited_image_path"])
    sky = mask(result, "sky_0")
    assert luminance(edited)[sky > 0.9].mean() < luminance(original)[sky > 0.9].mean() - 20
    assert np.abs(edited - original)[sky < 0.01].mean() < 1
    assert np.abs(pixels(output) - edited).mean() < 3  # JPEG


def pixels(path: str | Path) -> Any:
    return np.asarray(Image.open(io.BytesIO(homes.read(str(path)))).convert("RGB")).astype(float)


def luminance(picture: Any) -> Any:
    return picture @ [0.2126, 0.7152, 0.0722]


def mask(result: dict[str, Any], entity_id: str) -> Any:
    (entity,) = (entity for entity in result["entities"] if entity["entity_id"] == entity_id)
    return np.asarray(Image.open(io.BytesIO(homes.read(entity["mask_path"])))).astype(float) / 255


def test_a_session_killed_at_every_stage_ends_as_if_nothing_had_happened(edi: Edi) -> None:
    edi.json(*DRAMATIC, "--session-id", "whole")
    edi.killed(*MOMENTS[0], *DRAMATIC, "--session-id", "killed")
    for moment in MOMENTS[1:]:
        edi.killed(*moment, "resume", "--all")
    # Killed after the last commit: there was nothing left to resume.
    assert edi.json("resume", "--all") == {"sessions": []}
    result = edi.json("resume", "killed")
    assert result["status"] == "completed"
    assert list(differences(normalised(rows(edi, "whole"), "whole"), normalised(rows(edi, "killed"), "killed"))) == []
    assert all_is_well(edi)


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two documents differ, so that a failure can be read."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif one != other:
        yield f"{where}: {one!r} != {other!r}"


def normalised(shown: dict[str, Any], session_id: str) -> Any:
    return json.loads(json.dumps(shown).replace(session_id, "ID"))


def states_of_runs(edi: Edi, session_id: str) -> list[str]:
    """The states of the runs that were told to work on a session."""
    import httpx

    asked = {"limit": 50, "sort": "START_TIME_DESC"}
    found = httpx.post(f"{edi.environment['PREFECT_API_URL']}/flow_runs/filter", json=asked, timeout=60).json()
    return sorted(run["state_name"] for run in found if run["parameters"].get("session_id") == session_id)


def test_the_run_of_a_killed_process_is_not_at_work_for_ever(edi: Edi) -> None:
    edi.killed("begin", "edit", "edit", str(PALACE), "make it warmer", "--session-id", "lost")
    assert states_of_runs(edi, "lost") == ["Running"]
    assert edi.json("resume", "lost")["status"] == "completed"
    assert states_of_runs(edi, "lost") == ["Completed", "Crashed"]


@pytest.fixture
def told_nobody(edi: Edi, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Store, SyncPrefectClient]]:
    """An edit whose process was killed right after its last commit, by its id, its store and its server."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    name = f"told-nobody-{uuid4()}"
    edi.killed("hook", "completed", "edit", str(PALACE), "make it warmer", "--session-id", name)
    homes.enter(monkeypatch, edi.home)
    with (
        temporary_settings({PREFECT_API_URL: edi.environment["PREFECT_API_URL"]}),
        open_store(Settings()) as store,
        get_client(sync_client=True) as client,
    ):
        assert store.database.require_session(name).status == "completed"
        assert store.database.exported_seq(name) < store.database.last_seq(name)
        assert states_of_runs(edi, name) == ["Running"]
        yield name, store, client


def test_what_was_killed_after_its_last_commit_is_brought_to_its_end_by_the_next_look(
    edi: Edi, told_nobody: tuple[str, Store, SyncPrefectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import resume, reviving

    name, store, client = told_nobody
    resume.close_finished(store, client)
    assert states_of_runs(edi, name) == ["Running"], "a living process is still about to tell"
    monkeypatch.setattr(reviving, "_TELLING", timedelta(0))
    resume.close_finished(store, client)
    assert states_of_runs(edi, name) == ["Completed"]
    assert all_is_well(edi)


def test_what_was_killed_after_its_last_commit_is_brought_to_its_end_by_the_runner(
    edi: Edi, told_nobody: tuple[str, Store, SyncPrefectClient]
) -> None:
    from prefect.states import Crashed

    from flows.edit import edit_image
    from flows.hooks import mark_crashed

    name, store, client = told_nobody
    run = client.read_flow_run(UUID(store.database.last_flow_run(name)))
    # Only what belongs to a deployment has a runner, which calls the hook.
    mark_crashed(edit_image, run.model_copy(update={"deployment_id": uuid4()}), Crashed())
    assert states_of_runs(edi, name) == ["Completed"]
    assert all_is_well(edi)


def test_what_is_being_deleted_is_brought_to_no_end(
    edi: Edi, told_nobody: tuple[str, Store, SyncPrefectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import resume, reviving

    name, store, client = told_nobody
    monkeypatch.setattr(reviving, "_TELLING", timedelta(0))
    store.database.free_leases(is_gone, name)
    lease = store.database.acquire(name, "deletes", 30)
    store.database.mark_deleting(lease, DELETING)
    resume.close_finished(store, client)
    assert states_of_runs(edi, name) == ["Running"]
    assert store.database.exported_seq(name) < store.database.last_seq(name), "its checkpoint would outlive it"
    store.database.release(lease)
    delete_session(store, name)
    assert all_is_well(edi)


def test_a_resumed_edit_names_what_it_restored(edi: Edi) -> None:
    edi.killed("begin", "edit", *DRAMATIC, "--session-id", "half")
    (result,) = edi.json("resume", "--all")["sessions"]
    assert result["restored_stages"] == ["upload", "analysis", "intent", "refine 0", "refine 1", "refine 2", "refine 3"]
    assert result["status"] == "completed"
    assert edi.json("resume", "--all") == {"sessions": []}


def test_the_live_state_file_shows_the_progress_of_a_stage(edi: Edi) -> None:
    edi.environment = {**edi.environment, "EDI_AUTOSAVE_SECONDS": "0.05"}
    edi.killed("commit", "analysis", *DRAMATIC, "--session-id", "busy")
    live = json.loads(homes.read(f"{homes.settings_of(edi.home).storage_url}/busy.json"))
    seed_keys = (
        "session_id current_stage image_path naive_prompt scene_analysis intent prompts edited_image_path validation"
    )
    assert set(live) == {*seed_keys.split(), "last_updated", "checkpoint"}
    assert live["current_stage"] == "upload"
    progress = live["scene_analysis"]["progress"]
    assert progress["stage"] == "analysis"
    assert 0 <= progress["fraction"] <= 1


def test_restored_stages_are_named_so_in_the_prefect_ui(edi: Edi) -> None:
    edi.killed("begin", "intent", *DRAMATIC, "--session-id", "seen")
    edi.json("resume", "seen")
    flow_run_id = edi.json("show", "seen")["stage_commits"][-1]["flow_run_id"]
    states = task_states(edi.environment["PREFECT_API_URL"], flow_run_id)
    assert states["upload"] == "Restored"
    assert states["analysis"] == "Restored"
    assert states["edit"] == "Completed"


def task_states(api: str, flow_run_id: str) -> dict[str, str]:
    import httpx

    asked = {"flow_runs": {"id": {"any_": [flow_run_id]}}, "limit": 100}
    found = httpx.post(f"{api}/task_runs/filter", json=asked).raise_for_status().json()
    return {run["name"]: run["state"]["name"] for run in found}


def test_the_output_is_written_by_whoever_finishes_the_edit(edi: Edi, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    edi.killed("begin", "completed", *DRAMATIC, "--output", str(output), "--session-id", "late")
    assert not output.exists()
    edi.killed("commit", "completed", "resume", "--all")
    edi("resume", "--all")
    assert output.read_bytes()[:4] == b"\x89PNG"


def test_an_unclear_prompt_asks_one_question_and_takes_the_answer(edi: Edi) -> None:
    asked = edi.json("edit", str(PALACE), "make it better", expect=3)
    assert asked["waiting_for"] == "question"
    assert asked["intent"]["confidence"] < 0.7
    assert len(asked["intent"]["question"]["choices"]) >= 2
    assert edi.json("resume", "--all") == {"sessions": []}, "a session that waits for a person is not interrupted"
    edi("resume", asked["session_id"], "--answer", "99", expect=2)
    answered = edi.json("resume", asked["session_id"], "--answer", "1")
    assert answered["status"] == "completed"
    assert answered["intent"]["answer"] == 1
    assert edi.json("doctor")["ok"]


def test_an_answer_survives_a_kill_and_the_session_goes_on_by_itself(edi: Edi) -> None:
    edi.json("edit", str(PALACE), "make it better", "--session-id", "asked", expect=3)
    edi.killed("begin", "answer", "resume", "asked", "--answer", "2")
    (result,) = edi.json("resume", "--all")["sessions"]
    assert (result["status"], result["intent"]["answer"]) == ("completed", 2)
    assert all_is_well(edi)


def test_lost_pictures_are_made_again_and_the_verdict_stays(edi: Edi) -> None:
    result = edi.json(*DRAMATIC, "--session-id", "mended")
    edi("feedback", "mended", "accept", "--rating", "5")
    lost = [result["edited_image_path"], result["delta_image_path"], result["entities"][0]["mask_path"]]
    before = [homes.read(path) for path in lost]
    for path in lost:
        homes.remove(path)
    assert not edi.json("doctor", expect=1)["ok"]
    assert edi.json("doctor", "--repair")["ok"]
    assert [homes.read(path) for path in lost] == before
    assert edi.json("show", "mended")["user_feedback"][0]["rating"] == 5


def test_with_review_the_persons_verdict_decides(edi: Edi) -> None:
    waiting = edi.json(*DRAMATIC, "--review", "ask", expect=3)
    assert (waiting["waiting_for"], waiting["attempts"]) == ("review", 1)
    edi("feedback", waiting["session_id"], "reject", "--reason", "too strong")
    again = edi.json("resume", waiting["session_id"], expect=3)
    assert (again["waiting_for"], again["attempts"]) == ("review", 2)
    edi("feedback", waiting["session_id"], "accept", "--rating", "5")
    done = edi.json("resume", waiting["session_id"])
    assert (done["status"], done["decision"]) == ("completed", "accepted")
    verdicts = [row["feedback_type"] for row in edi.json("show", done["session_id"])["user_feedback"]]
    assert verdicts == ["reject", "accept"]


def test_what_no_engine_can_do_is_said_with_who_can(edi: Edi) -> None:
    refused = edi("edit", str(PALACE), "add a dog", "--session-id", "dog", expect=1)
    assert "ComfyUI" in refused.stderr
    assert len(refused.stderr.strip().splitlines()[-1]) < 300
    session = edi.json("sessions")[0]
    assert session["status"] == "failed"
    again = edi.json("edit", str(PALACE), "add a cat", "--session-id", "cat", expect=1)
    assert (again["session_id"], again["status"], again["exit_code"]) == ("cat", "failed", 1)
    assert again["error"] == again["failure_reason"]
    assert "ComfyUI" in session["failure_reason"]
    assert edi.json("resume", "--all") == {"sessions": []}


def test_feedback_and_learning_count_each_verdict_once(edi: Edi) -> None:
    edi.json(*DRAMATIC, "--session-id", "rated")
    edi("feedback", "rated", "accept", "--rating", "4")
    edi("feedback", "last", "accept", "--rating", "5", "--comment", "lovely")
    learned = edi.json("learn")
    (cell,) = learned["cells"]
    assert (cell["edit_type"], cell["label"], cell["n"], cell["mean"], cell["rating"]) == ("style", "sky", 1, 1.0, 5.0)
    assert edi.json("learn")["new_events"] == 0


def test_sessions_come_back_when_the_database_is_removed(edi: Edi) -> None:
    edi.json(*DRAMATIC, "--session-id", "kept")
    before = rows(edi, "kept")
    homes.lose_database(edi.home)
    assert not edi.json("doctor", expect=1)["ok"]
    assert edi.json("doctor", "--repair")["ok"]
    after = rows(edi, "kept")
    for table in ("state", "sessions", "prompts", "entities", "validations", "intents", "artifacts"):
        assert after[table] == before[table]


def test_two_edits_of_one_session_do_not_mix(edi: Edi) -> None:
    from tests.storage.sessions import SESSION

    mine = SESSION.model_copy(
        update={"session_id": "busy", "image_path": str(PALACE), "naive_prompt": "make the sky dramatic"}
    )
    with open_store(homes.settings_of(edi.home)) as store:
        store.database.begin_session(mine, "somebody-else:1:x", 600)
        held = edi(*DRAMATIC, "--session-id", "busy", expect=1)
    assert "somebody-else" in held.stderr


@pytest.mark.local_files("in a bucket its policy says who may read")
def test_files_are_private(edi: Edi) -> None:
    edi.json(*DRAMATIC)
    open_to_others = [path for path in edi.home.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


@pytest.mark.sqlite_file("the rows are read without EDI, as anybody can")
def test_every_acknowledged_row_is_in_plain_sqlite(edi: Edi) -> None:
    result = edi.json(*DRAMATIC)
    with sqlite3.connect(edi.home / "edi_sessions.db") as plain:
        row = plain.execute("SELECT status, final_alignment_score FROM sessions").fetchone()
        prompts = plain.execute("SELECT iteration, positive_prompt FROM prompts ORDER BY iteration").fetchall()
    assert row == ("completed", pytest.approx(result["alignment_score"]))
    assert [iteration for iteration, _ in prompts] == [0, 1, 2, 3]
    plain.close()
