"""The deployments under a real `edi serve`: triggered through Prefect's API, killed, and continued with no hand."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from edi_storage.database import EDIDatabase
from edi_storage.models import SessionData
from tests import homes
from tests.flows.conftest import PALACE
from tests.flows.control import RESUME_SECONDS, Control
from tests.flows.test_status import status
from tests.waiting import wait_until


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A photo that is large enough to be caught in the middle."""
    path = tmp_path / "large.jpg"
    with Image.open(PALACE) as palace:
        palace.resize((2560, 1708)).save(path, quality=90)
    return str(path)


def process_of(database: EDIDatabase, run: str) -> int:
    """The process that holds the lease of a session."""
    owner, _ = database.lease_of(run) or pytest.fail("nobody works on it any more")
    return int(owner.split(":")[1])


def is_pending(number: signal.Signals, process: int) -> bool:
    """Whether a stopped process has a signal waiting for it."""
    status = Path(f"/proc/{process}/status").read_text()
    waiting = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(waiting & 1 << (number - 1))


def test_an_edit_triggered_through_prefect_is_done(control: Control) -> None:
    run = control.start("edit-image", image_path=str(PALACE), prompt="make it black and white")
    control.wait_for(run, "Completed", "the edit")
    with control.database() as database:
        session = database.require_session(run)
    assert session.status == "completed"
    assert session.flow_run_id == run

    def logs() -> list[str]:
        found = control.call("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200, offset=0)
        return [line["message"] for line in found]

    wait_until(lambda: any(line.startswith("Found ") for line in logs()), "the sentences of the stages in the logs")


def test_a_task_whose_end_was_lost_does_not_run_for_ever(control: Control) -> None:
    over = control.start("edit-image", image_path=str(PALACE), prompt="make it brighter")
    control.wait_for(over, "Completed", "the edit")
    ended = [control.state_of_task(task["id"]) for task in control.tasks(over)]
    of_others, at_work = (
        control.call("/flow_runs/", flow_id=control.call("/flows/", name=name)["id"], state={"type": state})["id"]
        for name, state in (("not-of-edi", "RUNNING"), ("edit-image", "RUNNING"))
    )
    control.call(f"/flow_runs/{of_others}/set_state", state={"type": "COMPLETED"}, force=True)
    # As a task is there of which the server hears when its process was killed already.
    lost, theirs, busy = (
        control.call("/task_runs/", flow_run_id=run, task_key="late", dynamic_key="0", state={"type": "RUNNING"})["id"]
        for run in (over, of_others, at_work)
    )
    wait_until(lambda: control.state_of_task(lost) == "Crashed", "the end of the task")
    assert (control.state_of_task(theirs), control.state_of_task(busy)) == ("Running", "Running")
    assert [control.state_of_task(task["id"]) for task in control.tasks(over) if task["id"] != lost] == ended


def test_feedback_triggered_through_prefect_is_stored(control: Control) -> None:
    edit = control.start("edit-image", image_path=str(PALACE), prompt="make it warmer")
    control.wait_for(edit, "Completed", "the edit")
    rate = control.start("record-feedback", session_id=edit, verdict="accept", rating=4)
    control.wait_for(rate, "Completed", "the feedback")
    with control.database() as database:
        (said,) = database.get_feedback(edit)
    assert (said.feedback_type, said.rating) == ("accept", 4)


def test_a_cancelled_edit_stays_cancelled(control: Control, photo: str) -> None:
    run = control.start("edit-image", image_path=photo, prompt="make the sky stormy")
    with control.database() as database:
        wait_until(lambda: database.last_seq(run) >= 1, "the upload")
        # Frozen until it has been told to end: else it might be done before anybody acts on the cancellation.
        process = process_of(database, run)
        os.kill(process, signal.SIGSTOP)
        control.call(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}, force=True)
        wait_until(lambda: is_pending(signal.SIGTERM, process), "the signal to end")
        os.kill(process, signal.SIGCONT)
        wait_until(lambda: database.require_session(run).status == "failed", "the cancellation")
        session = database.require_session(run)
        assert session.failure_reason == "cancelled by a person"
        assert run not in {found.session_id for found in database.interrupted_sessions()}


def test_a_run_whose_cancellation_is_under_way_is_not_continued_by_a_resume() -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Cancelling

    from flows.reviving import way_on

    now = datetime.now(UTC)
    session = SessionData(session_id="mine", image_path="a.jpg", naive_prompt="warmer", updated_at=now)
    run = FlowRun(flow_id=uuid4(), state=Cancelling(timestamp=now - timedelta(seconds=1)))
    assert way_on(session, run, now) == "end"


def test_a_run_that_has_just_asked_is_given_time_to_suspend() -> None:
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import Running

    from flows.reviving import way_on

    asked = datetime.now(UTC)
    waiting = SessionData(
        session_id="mine", image_path="a.jpg", naive_prompt="warmer", updated_at=asked, waiting_for="review"
    )
    run = FlowRun(flow_id=uuid4(), state=Running(timestamp=asked - timedelta(minutes=2)))
    assert way_on(waiting, run, asked + timedelta(seconds=13)) == "leave"
    assert way_on(waiting, run, asked + timedelta(seconds=31)) == "revive"
    at_work = waiting.model_copy(update={"waiting_for": None})
    assert way_on(at_work, run, asked + timedelta(seconds=1)) == "leave", "it was answered, and may be going on"
    assert way_on(at_work, run, asked + timedelta(seconds=13)) == "revive", "its process is gone"


def test_a_cancelled_batch_goes_on_when_it_is_started_again_and_not_before(control: Control, photo: str) -> None:
    folder = Path(photo).parent / "batch"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(Path(photo).read_bytes() + bytes(number))
    asked = {"photos": [str(folder)], "prompt": "make the sky stormy", "workers": 1, "batch_id": "stopped"}
    run = control.start("edit-batch", **asked)
    with control.database() as database:

        def sessions() -> list[Any]:
            return [one for one in database.query_history() if one.session_id.startswith("stopped-")]

        wait_until(lambda: any(database.last_seq(one.session_id) >= 1 for one in sessions()), "the first photo")
        process = process_of(database, sessions()[0].session_id)
        os.kill(process, signal.SIGSTOP)
        control.call(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}, force=True)
        wait_until(lambda: is_pending(signal.SIGTERM, process), "the signal to end")
        os.kill(process, signal.SIGCONT)
        control.wait_for(run, "Cancelled", "the cancellation")
        wait_until(lambda: {one.status for one in sessions()} <= {"completed", "failed"}, "the end of its sessions")
        assert len(sessions()) < 4
        again = control.start("edit-batch", **asked)
        control.wait_for(again, "Completed", "the batch, started again")
        assert [one.status for one in sessions()] == ["completed"] * 4
        for one in sessions():
            commits = database.get_commits(one.session_id)
            assert len({commit.key for commit in commits}) == len(commits)


def test_learning_and_resuming_have_their_schedules(control: Control) -> None:
    def intervals(name: str) -> list[float]:
        return [plan["schedule"]["interval"] for plan in control.deployment(name)["schedules"] if plan["active"]]

    assert intervals("resume-interrupted") == [RESUME_SECONDS]
    assert intervals("learn-from-feedback") == [3600]
    assert intervals("backup-database") == ([] if homes.DATABASES else [7 * 24 * 3600])
    assert intervals("edit-image") == []
    assert intervals("prune-sessions") == [], "what deletes is switched on by a person"


def test_the_ready_lines_lead_to_where_one_begins_to_the_control_room_and_to_a_private_inbox(control: Control) -> None:
    _, ready, room, inbox = (control.home / "serve.log").read_text().splitlines()[:4]
    ui = control.api.removesuffix("/api")
    assert ready == f"EDI is ready: {ui}/edi (Ctrl-C ends it)"
    assert room == f"  The control room:  {ui}/v2/dashboard (runs, logs, schedules)"
    assert inbox.endswith(str(control.home / "images"))
    assert (control.home / "images").stat().st_mode & 0o777 == 0o700
    opened = wait_until(lambda: (control.home / "opened").exists() and (control.home / "opened").read_text(), "--open")
    assert opened.strip() == f"{ui}/edi"


def test_the_form_of_prune_sessions_says_what_it_does(control: Control) -> None:
    fields = control.deployment("prune-sessions")["parameter_openapi_schema"]["properties"]
    assert [field["title"] for field in fields.values()] == ["Older than", "Always keep", "Only look"]
    assert all(field["description"] for field in fields.values())
    assert [field["default"] for field in fields.values()] == ["90d", 1000, False]


def test_old_sessions_are_pruned_when_a_person_says_so(control: Control) -> None:
    def prune(**parameters: Any) -> None:
        run = control.start("prune-sessions", older_than="8w", **parameters)
        control.wait_for(run, "Completed", "the pruning")

    with control.database() as database:
        old = {"image_path": "old.jpg", "naive_prompt": "warmer", "created_at": datetime.now(UTC) - timedelta(weeks=9)}
        for name, standing in (("old", "completed"), ("old-unfinished", "in_progress")):
            database.save_session({"id": name, "status": standing, **old})
        prune(keep=0, dry_run=True)
        assert database.get_session("old")
        prune(keep=0)
        assert database.get_session("old") is None
        assert database.get_session("old-unfinished")


def test_status_says_who_works_what_is_due_and_what_comes(control: Control) -> None:
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": str(datetime.now(UTC) + timedelta(hours=1))}}
    asked = {"image_path": str(PALACE), "prompt": "warmer"}
    path = f"/deployments/{control.deployment('edit-image')['id']}/create_flow_run"
    queued = control.call(path, parameters=asked, state=later)["id"]

    def planned() -> Any:
        found = json.loads(status(control.home, "--json", expect=None))
        plans = {plan["deployment"]: plan for plan in found["schedules"]}
        return (found, plans) if plans and plans["resume-interrupted"]["next"] else None

    found, plans = wait_until(planned, "the next resume")
    assert (found["server"]["running"], found["server"]["url"]) == (True, control.api.removesuffix("/api"))
    assert found["workers"] == [{"name": "edi serve", "alive": True, "at_once": 2}]
    assert [run["id"] for run in found["queue"]] == [queued]
    assert (plans["resume-interrupted"]["every"], plans["resume-interrupted"]["active"]) == (
        f"every {RESUME_SECONDS} seconds",
        True,
    )
    assert (plans["prune-sessions"]["active"], plans["prune-sessions"]["next"]) == (False, None)
    assert f"server       {control.api.removesuffix('/api')} (process " in status(control.home, expect=None)


@pytest.mark.sqlite_file("EDI makes no backups of a server's database: pg_dump does")
def test_a_backup_can_be_asked_for(control: Control) -> None:
    run = control.start("backup-database")
    control.wait_for(run, "Completed", "the backup")
    assert list((control.home / "backups").glob("edi_sessions-*.db"))
    assert json.loads(status(control.home, "--json", expect=None))["last_backup"]
