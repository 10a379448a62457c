"""What went wrong, as one sentence in the state and the logs of a run."""

from __future__ import annotations

import inspect
import logging
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import runtime
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Failed

from edi_storage.errors import AlreadyFailedError, EdiError
from flows.runs import has_come_back, is_deployed

#: The page of a run asks every 5 s how the run is, and, as long as that was "running" the last time, every 5 s for its
#: logs. So a page that is open since before the run began shows nothing of a run shorter than twice that, and of any
#: run nothing of its last moments. Answers come late on a busy server, and logs travel for up to half a second.
_ASKED_EVERY = 6.0
_TRAVELS = 0.5
#: How often it is looked whether there is a reason left to wait: seconds.
_TICK = 0.2

#: What this process has told already.
_told: weakref.WeakSet[EdiError] = weakref.WeakSet()

P = ParamSpec("P")
T = TypeVar("T")


def in_plain_words(run: Callable[P, T]) -> Callable[P, T]:
    """A flow's or task's function whose EdiError becomes its run's message: the sentence as it stands, no traceback.

    Prefect would say "Flow run encountered an exception: ..." and name the class. A caller still gets the error raised.
    """

    @wraps(run)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return run(*args, **kwargs)
        except EdiError as error:
            logging.getLogger("prefect.flow_runs").addFilter(_is_news)
            tell(error)
            return cast("T", _end_by(error))

    # As types, not as text: Prefect would look the text up among the names of this file.
    told.__signature__ = inspect.signature(run, eval_str=True)  # type: ignore[attr-defined]
    return told


def _end_by(error: EdiError) -> State[Any]:
    """Failed; but a run that comes back when its session is over is cancelled, as `resume-interrupted` would have."""
    is_over = isinstance(error, AlreadyFailedError) and has_come_back()
    return (Cancelled if is_over else Failed)(message=str(error), data=cast("Any", error))


def tell(error: EdiError) -> None:
    """Once, on the page of the run, whose logs a person sees first; `edi` itself says it in the terminal."""
    if is_deployed() and not runtime.task_run.id and error not in _told:
        _told.add(error)
        logging.getLogger("edi").error("%s", error)
        let_be_seen()


def let_be_seen(is_over: Callable[[], bool] = lambda: False) -> bool:
    """Before the run stops running: wait until its open page has seen it running, and what it has logged.

    Returns True at once when there is nothing to stop for any more: when it `is_over`.
    """
    context = FlowRunContext.get()
    begun = context.start_time if context else datetime.now(UTC)
    runs_for = (datetime.now(UTC) - begun).total_seconds()
    deadline = time.monotonic() + _TRAVELS + max(_ASKED_EVERY, 2 * _ASKED_EVERY - runs_for)
    while not (over := is_over()) and time.monotonic() < deadline:
        time.sleep(_TICK)
    return over


def _is_news(record: logging.LogRecord) -> bool:
    """False for the traceback that Prefect logs when a flow's process ends by an error that the run's state tells."""
    return not (record.exc_info and isinstance(record.exc_info[1], EdiError))
