"""Flows that the tests of `edi serve` run instead of EDI's own: they say in files what became of them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, runtime, task
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.states import State


def _note(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    Path(flow_run.parameters["folder"], "ended").write_text(state.name or "")


@flow(persist_result=False, on_crashed=[_note], on_cancellation=[_note], on_completion=[_note])
def wait(folder: str) -> None:
    """Write the process id to a file, then wait to be ended."""
    Path(folder, "started").write_text(f"{os.getpid()}\n")
    while True:
        time.sleep(0.05)


@flow(persist_result=False)
def tick() -> None:
    """Note when this run was due, and when it began."""
    due = runtime.flow_run.scheduled_start_time
    with Path(os.environ["EDI_HOME"], "ticks").open("a") as file:
        file.write(f"{due.isoformat()} {datetime.now(UTC).isoformat()}\n")


@task(persist_result=False)
def _one(number: int) -> int:
    return number


@flow(name="count", persist_result=False)
def count(numbers: int) -> int:
    """Add up what as many task runs give back."""
    return sum(_one(number) for number in range(numbers))


@flow(name="tidied", persist_result=False)
def tidied() -> None:
    """Nothing: its runs are made by the tests of what is kept of them."""
