"""A progress bar in the Prefect UI while a stage takes long. It goes when the stage is done: the result is what counts.

Engines report as often as they like; a thread of its own looks once a second at the newest report and tells Prefect,
so that no engine waits for it.
"""

from __future__ import annotations

import contextvars
import threading
import time
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client

from edi_storage.autosave import Progress
from edi_storage.steps import Step
from flows.session import SessionRun, log

#: Seconds that a stage takes before it gets a bar.
LONG_SECONDS: Final = 2.0
#: Seconds between two looks at its progress.
LOOK_SECONDS: Final = 1.0
#: How long the end of a stage waits for the last word on its bar.
_LAST_SECONDS: Final = 1.0


class ProgressBar:
    """The bar of one step, for the time of a block. Whatever goes wrong with it is only logged.

    It has no key: so it is seen with its run, and does not fill the list of artifacts.
    """

    def __init__(
        self, run: SessionRun, step: Step, long_seconds: float = LONG_SECONDS, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._run, self._name = run, step.label
        self._long, self._look = long_seconds, look_seconds
        self._newest: Progress | None = None
        self._end = threading.Event()
        self._failed = False
        self._bar: UUID | None = None
        # With the context of the task: from it Prefect knows which run the bar belongs to.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._show,), name="edi-progress", daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._run.on_progress = self._take
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.on_progress = None
        self._failed = kind is not None
        self._end.set()
        # Until then there is no bar, and nothing to wait for.
        if time.monotonic() - self._began >= self._long:
            self._thread.join(_LAST_SECONDS)

    def _take(self, progress: Progress) -> None:
        self._newest = progress

    def _show(self) -> None:
        if self._end.wait(self._long):
            return
        try:
            self._move()
            while not self._end.wait(self._look):
                self._move()
            self._finish()
        except Exception as error:  # noqa: BLE001 - a bar is never worth an edit
            log.debug("No progress bar: %s", error)

    def _move(self) -> None:
        doing = self._newest.message if self._newest else "begun"
        self._put(self._percent(), f"{self._name}: {doing}, {self._seconds()} so far")

    def _finish(self) -> None:
        if self._failed:
            self._put(self._percent(), f"{self._name}: failed after {self._seconds()}")
        elif self._bar is not None:
            with get_client(sync_client=True) as client:
                client.delete_artifact(self._bar)

    def _percent(self) -> float:
        """How far the step is, 0..99: only what has ended is full."""
        return min(99.0, 100 * (self._newest.fraction or 0.0)) if self._newest else 0.0

    def _put(self, percent: float, description: str) -> None:
        if self._bar is None:
            made = create_progress_artifact(percent, description=description)
            assert isinstance(made, UUID)  # here, outside of any event loop, Prefect does not give a coroutine
            self._bar = made
        else:
            update_progress_artifact(self._bar, percent, description=description)

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"
