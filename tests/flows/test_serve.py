"""The deployments under a real `edi serve`: triggered through Prefect's API, killed, and continued with no hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests.flows.conftest import PALACE
from tests.flows.control import RESUME_SECONDS, Control, wait_until


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """A photo that is large enough to be caught in the middle."""
    path = tmp_path / "large.jpg"
    with Image.open(PALACE) as palace:
        palace.resize((2560, 1708)).save(path, quality=90)
    return str(path)


def test_an_edit_triggered_through_prefect_is_done(control: Control) -> None:
    run = control.start("edit-image", image_path=str(PALACE), prompt="make it black and white")
    wait_until(lambda: control.state(run) == "Completed", 60, "the edit")
    with control.database() as database:
        session = database.require_session(run)
    assert session.status == "completed"
    assert session.flow_run_id == run

    def logs() -> list[str]:
        found = control.call("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200, offset=0)
        return [line["message"] for line in found]

    wait_until(lambda: any(line.startswith("Found ") for line in logs()), 20, "the sentences of the stages in the logs")


def test_feedback_triggered_through_prefect_is_stored(control: Control) -> None:
    edit = control.start("edit-image", image_path=str(PALACE), prompt="make it warmer")
    wait_until(lambda: control.state(edit) == "Completed", 60, "the edit")
    rate = control.start("record-feedback", session_id=edit, verdict="accept", rating=4)
    wait_until(lambda: control.state(rate) == "Completed", 60, "the feedback")
    with control.database() as database:
        (said,) = database.get_feedback(edit)
    assert (said.feedback_type, said.rating) == ("accept", 4)


def test_a_killed_edit_is_continued_by_the_deployment_within_two_minutes(control: Control, photo: str) -> None:
    run = control.start("edit-image", image_path=photo, prompt="make the sky dramatic")
    with control.database() as database:
        wait_until(lambda: database.last_seq(run) >= 2, 60, "the analysis")
        owner, _ = database.lease_of(run) or ("", None)
        before = database.get_commits(run)
        os.kill(int(owner.split(":")[1]), signal.SIGKILL)
        wait_until(lambda: database.require_session(run).status == "completed", 120, "the automatic resume")
        after = database.get_commits(run)
    wait_until(lambda: control.state(run) == "Completed", 30, "the end of the very run that was killed")
    assert after[: len(before)] == before, "a finished stage was run again"
    assert after[-1].stage == "completed"
    assert len({commit.key for commit in after}) == len(after)


def test_a_cancelled_edit_stays_cancelled(control: Control, photo: str) -> None:
    run = control.start("edit-image", image_path=photo, prompt="make the sky stormy")
    with control.database() as database:
        wait_until(lambda: database.last_seq(run) >= 1, 60, "the upload")
        control.call(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"}, force=True)
        wait_until(lambda: database.require_session(run).status == "failed", 60, "the cancellation")
        session = database.require_session(run)
        assert session.failure_reason == "cancelled by a person"
        assert run not in {found.session_id for found in database.interrupted_sessions()}


def test_learning_and_resuming_have_their_schedules(control: Control) -> None:
    def intervals(name: str) -> list[float]:
        return [plan["schedule"]["interval"] for plan in control.deployment(name)["schedules"] if plan["active"]]

    assert intervals("resume-interrupted") == [RESUME_SECONDS]
    assert intervals("learn-from-feedback") == [3600]
    assert intervals("backup-database") == [7 * 24 * 3600]
    assert intervals("edit-image") == []


def test_a_backup_can_be_asked_for(control: Control) -> None:
    run = control.start("backup-database")
    wait_until(lambda: control.state(run) == "Completed", 60, "the backup")
    assert list((control.home / "backups").glob("edi_sessions-*.db"))
