"""Runs the `edi` command and kills it at one moment: `python -m tests.flows.worker MOMENT LABEL ARGUMENTS...`.

MOMENT is "begin" (as the step LABEL starts), "shown" (the same, once the session's page in Prefect's UI is out),
"commit" (as the step is about to commit) or "hook" (committed, its checkpoint not yet written). The kill is SIGKILL to
the whole process group, as a power cut would be to them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from edi_storage.database import EDIDatabase
from flows.cli import app
from flows.session import SessionRun


def _die() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _before(owner: Any, name: str, fatal: Callable[..., bool]) -> None:
    """Die as soon as `owner.name` is called with arguments that are `fatal`."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if fatal(*args, **kwargs):
            _die()
        return real(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, then: Callable[[], None]) -> None:
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        then()

    setattr(owner, name, wrapped)


def arm(moment: str, label: str) -> None:
    """Set the trap."""
    reached: list[str] = []
    shown = threading.Event()

    def note(run: SessionRun, step: Any) -> bool:
        if moment == "shown" and not reached:
            from flows import artifacts  # not before: it imports Prefect, which `edi` sets up first

            _after(artifacts, "show_session", shown.set)
        reached.append(step.label)
        if moment == "shown" and step.label == label:
            assert shown.wait(60)
        return moment in ("begin", "shown") and step.label == label

    _before(SessionRun, "begin", note)
    at_label = lambda *_: bool(reached) and reached[-1] == label  # noqa: E731
    if moment == "commit":
        _before(EDIDatabase, "commit_stage", at_label)
    if moment == "hook":
        _before(SessionRun, "export", at_label)


if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2])
    sys.argv = ["edi", *sys.argv[3:]]
    app()
