"""Flows that the tests of `edi serve` run instead of EDI's own: they say in files what became of them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, runtime
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.states import State


def _note(flow: Flow[..., None], flow_run: FlowRun, state: State[None]) -> None:
    Path(flow_run.parameters["folder"], "ended").write_text(f"{state.name} {os.getpid()}")


@flow(persist_result=False, on_crashed=[_note], on_cancellation=[_note], on_completion=[_note])
def wait(folder: str, seconds: float = 60) -> None:
    """Write a file with the process id, then wait."""
    Path(folder, "started").write_text(str(os.getpid()))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)


@flow(persist_result=False)
def tick() -> None:
    """Note when this run was due, and when it began."""
    due = runtime.flow_run.scheduled_start_time
    with Path(os.environ["EDI_HOME"], "ticks").open("a") as file:
        file.write(f"{due.isoformat()} {datetime.now(UTC).isoformat()}\n")
