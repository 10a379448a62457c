"""A crash in front of a person."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.browser.ui import Ui
from tests.flows.control import Control
from tests.waiting import wait_until


def kill_and_heal(ui: Ui, served: Control, run: str) -> None:
    """Kill the process of a run after its analysis, and wait until its page says Completed."""
    with served.database() as database:
        wait_until(lambda: database.last_seq(run) >= 2, "the analysis")
    os.kill(_process_of(run), signal.SIGKILL)
    served.wait_for(run, "Completed", "the healing")
    wait_until(lambda: _has_told(served, run), "its last sentence in the logs")
    # Opened anew: a page that saw the moment in which the run was Crashed takes that for its end.
    ui.open_run(run)
    ui.wait_for_state("Completed")


def _has_told(served: Control, run: str) -> bool:
    lines = served.call("/logs/filter", logs={"flow_run_id": {"any_": [run]}}, limit=200, offset=0)
    return any(line["message"].startswith("Done: ") for line in lines)


def _process_of(run: str) -> int:
    """The process of a flow run: its id, which no other process has, stands in its environment."""
    wanted = f"PREFECT__FLOW_RUN_ID={run}".encode()
    (process,) = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if wanted in _environment(folder)]
    return process


def _environment(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:  # it has just ended, or is somebody else's
        return b""
