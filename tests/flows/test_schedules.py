"""What becomes of schedules while nobody serves: `edi serve` is stopped, is missed for a while, and comes back."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deployments.tidying import KEPT_IDLE, NOT_ALONE, PLANNED
from tests.flows.processes import python
from tests.flows.test_server import call, ready_line
from tests.waiting import PATIENCE, wait_until

SERVE = """
from deployments.serve import Served, serve
from edi_storage.settings import load_settings
DAY = 86400
serve(load_settings(), port=0, deployments=[
    Served("tick", "tests.flows.tiny.tick", interval=4, alone=True),
    Served("prune-sessions", "flows.prune.prune_sessions", interval=DAY, active=False, alone=True),
    Served("backup-database", "flows.backup.backup_database", interval=DAY),
    Served("tidied", "tests.flows.tiny.tidied", interval=DAY, active=False, alone=True, tidied=True),
])
"""

#: So many ticks are due while nobody serves.
MISSED = 3


@dataclass
class Back:
    """An `edi serve` that was away from `stopped` until some time after `started`."""

    home: Path
    url: str = ""
    stopped: datetime | None = None
    started: datetime | None = None
    #: Runs made before, by what they are.
    runs: dict[str, list[str]] = field(default_factory=dict)

    def deployment(self, flow: str, name: str = "") -> Any:
        return call(f"{self.url}/deployments/name/{flow}/{name or flow}")

    def change(self, path: str, **what: Any) -> None:
        """PATCH, as the UI does when a person edits something."""
        call(f"{self.url}{path}", what, method="PATCH")

    def ids(self, flow: str) -> set[str]:
        wanted = {"deployment_id": {"any_": [self.deployment(flow)["id"]]}}
        return {run["id"] for run in call(f"{self.url}/flow_runs/filter", {"flow_runs": wanted, "limit": 200})}


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Back]:
    back = Back(tmp_path_factory.mktemp("schedules") / "home")
    with _serving(back):
        _change_what_a_person_may(back)
        _leave_runs_behind(back)
        wait_until(lambda: _planned(back.home, "+60 seconds") > 2 * MISSED)
    back.stopped = datetime.now(UTC)
    wait_until(lambda: _planned(back.home, "+0 seconds") >= MISSED)
    back.started = datetime.now(UTC)
    with _serving(back):
        tick = back.deployment("tick")
        # From here on there is nothing to see in more of them, and each takes seconds of a processor.
        back.change(f"/deployments/{tick['id']}/schedules/{tick['schedules'][0]['id']}", active=False)
        yield back


@contextlib.contextmanager
def _serving(back: Back) -> Iterator[None]:
    serve: subprocess.Popen[str] = python(SERVE, home=back.home)
    try:
        back.url = f"{ready_line(serve).split()[3]}/api"
        yield
    finally:
        serve.send_signal(signal.SIGINT)
        _, errors = serve.communicate(timeout=PATIENCE)
        assert (serve.returncode, errors) == (0, "")


def _change_what_a_person_may(back: Back) -> None:
    prune, backup = back.deployment("prune-sessions"), back.deployment("backup-database")
    back.change(f"/deployments/{prune['id']}/schedules/{prune['schedules'][0]['id']}", active=True)
    back.change(f"/deployments/{prune['id']}", parameters={"keep": 5})
    every_hour = {"interval": 3600, "timezone": "UTC"}
    back.change(f"/deployments/{backup['id']}/schedules/{backup['schedules'][0]['id']}", schedule=every_hour)


def _leave_runs_behind(back: Back) -> None:
    path = f"{back.url}/deployments/{back.deployment('tidied')['id']}/create_flow_run"

    def made(kind: str, number: int, tags: list[str], **state: str) -> None:
        back.runs[kind] = [call(path, {"tags": tags, "state": state})["id"] for _ in range(number)]

    made("busy", 1, [PLANNED], type="COMPLETED")
    task = {"flow_run_id": back.runs["busy"][0], "task_key": "a", "dynamic_key": "0", "state": {"type": "COMPLETED"}}
    call(f"{back.url}/task_runs/", task)
    made("asked for", 1, [], type="COMPLETED")
    made("failed", 1, [PLANNED], type="FAILED")
    made("idle", KEPT_IDLE + 3, [PLANNED], type="COMPLETED")
    made("dropped", 2, [PLANNED], type="CANCELLED", message=NOT_ALONE)
    made("cancelled by a person", 1, [PLANNED], type="CANCELLED")


def _planned(home: Path, until_then: str) -> int:
    """How many ticks are planned, or were missed, until some time from now; read while no server runs, too."""
    query = (
        "SELECT count(*) FROM flow_run JOIN deployment ON deployment.id = flow_run.deployment_id WHERE "
        "deployment.name = 'tick' AND state_name = 'Scheduled' AND next_scheduled_start_time < datetime('now', ?)"
    )
    with contextlib.closing(sqlite3.connect(home / "prefect" / "prefect.db", timeout=30)) as database:
        return int(database.execute(query, (until_then,)).fetchone()[0])


def test_what_a_person_changed_outlives_a_restart(back: Back) -> None:
    prune, backup = back.deployment("prune-sessions"), back.deployment("backup-database")
    assert [(plan["active"], plan["schedule"]["interval"]) for plan in prune["schedules"]] == [(True, 86400)]
    assert prune["parameters"] == {"keep": 5}
    assert [(plan["active"], plan["schedule"]["interval"]) for plan in backup["schedules"]] == [(True, 3600)]


def test_one_run_makes_up_for_all_that_were_missed(back: Back) -> None:
    wait_until(lambda: _began_after(back.stopped, back.home / "ticks"))
    away = {
        "deployment_id": {"any_": [back.deployment("tick")["id"]]},
        "expected_start_time": {"after_": str(back.stopped), "before_": str(back.started)},
    }
    left = call(f"{back.url}/flow_runs/filter", {"flow_runs": away, "limit": 200})
    # None of them, when one more has come due while `edi serve` started: that one makes up for them.
    assert len(left) <= 1, [(run["expected_start_time"], run["state_name"]) for run in left]


def _began_after(moment: datetime | None, ticks: Path) -> bool:
    """Whether a run has begun after this moment; each line has when it was due, and when it began."""
    lines = [line.split() for line in ticks.read_text().splitlines()] if ticks.exists() else []
    return any(moment and datetime.fromisoformat(line[1]) > moment for line in lines if len(line) == 2)


def test_runs_that_say_nothing_to_a_person_do_not_pile_up(back: Back) -> None:
    def left() -> dict[str, int]:
        there = back.ids("tidied")
        return {kind: len(there & set(runs)) for kind, runs in back.runs.items()}

    # What was dropped goes once it has been due for a while, and so at times one look later than what was idle.
    wait_until(lambda: left()["idle"] == KEPT_IDLE and not left()["dropped"])
    assert left() == {
        "busy": 1,
        "asked for": 1,
        "failed": 1,
        "idle": KEPT_IDLE,
        "dropped": 0,
        "cancelled by a person": 1,
    }
    assert set(back.runs["idle"][-KEPT_IDLE:]) <= back.ids("tidied"), "the newest stay"
