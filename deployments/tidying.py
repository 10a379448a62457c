"""Keeps the history readable: the runs of schedules that say nothing to a person do not pile up.

Beside edits, a day brings 1440 runs of `resume-interrupted`, nearly all of which find nothing to do.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
    from prefect.client.schemas.objects import FlowRun

#: Seconds between two looks.
TIDY_SECONDS = 60.0

#: Of the runs that found nothing to do so many stay, to show that the schedule is alive.
KEPT_IDLE = 5

#: The tag that Prefect gives to runs that a schedule has planned.
PLANNED = "auto-scheduled"

#: Prefect's words for a run that was due while another one of its deployment ran.
NOT_ALONE = "Deployment concurrency limit reached."

#: A run is dropped up to ten seconds before it is due. Were it deleted before that, it would be planned once more; so
#: it has been due for this long.
OVER = timedelta(seconds=5)


async def keep_tidy(client: PrefectClient, alone: Collection[UUID], tidied: Collection[UUID]) -> None:
    """Tidy the runs of these deployments for ever; see `tidy`."""
    while True:
        try:
            await tidy(client, alone, tidied)
        except Exception:  # noqa: BLE001 - the server may be busy, or gone; what is left is for the next time
            traceback.print_exc()
        await asyncio.sleep(TIDY_SECONDS)


async def tidy(client: PrefectClient, alone: Collection[UUID], tidied: Collection[UUID]) -> int:
    """Delete runs of schedules that nobody misses; returns how many.

    alone: of these deployments, the runs that were dropped because another one was under way. tidied: of these, the
    completed runs that had no tasks, but for the newest `KEPT_IDLE`. What a person asked for always stays.
    """
    dropped = [run for run in await _planned_runs(client, alone, "CANCELLED") if _was_dropped(run)]
    idle: list[FlowRun] = []
    for deployment in tidied:
        completed = await _planned_runs(client, [deployment], "COMPLETED")
        busy = await _with_tasks(client, completed)
        idle += [run for run in completed if run.id not in busy][KEPT_IDLE:]
    for run in [*dropped, *idle]:
        await client.delete_flow_run(run.id)
    return len(dropped) + len(idle)


def _was_dropped(run: FlowRun) -> bool:
    due = run.expected_start_time
    told = run.state.message if run.state else ""
    return told == NOT_ALONE and due is not None and due < datetime.now(UTC) - OVER


async def _planned_runs(client: PrefectClient, deployments: Collection[UUID], state: str) -> list[FlowRun]:
    """The newest runs that a schedule has planned and that have ended in this state, newest first."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterTags

    wanted = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
        tags=FlowRunFilterTags(all_=[PLANNED]),
        state={"type": {"any_": [state]}},
    )
    return await _read_runs(client, wanted)


async def _with_tasks(client: PrefectClient, runs: Collection[FlowRun]) -> set[UUID]:
    """Which of these runs have run anything: tasks, or other flows, which are tasks too."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
    from prefect.client.schemas.objects import StateType

    if not runs:
        return set()
    these = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))
    whatever = TaskRunFilter(state={"type": {"any_": list(StateType)}})
    return {run.id for run in await _read_runs(client, these, whatever)}


async def _read_runs(client: PrefectClient, wanted: FlowRunFilter, tasks: TaskRunFilter | None = None) -> list[FlowRun]:
    from prefect.client.schemas.sorting import FlowRunSort

    order = FlowRunSort.EXPECTED_START_TIME_DESC
    return await client.read_flow_runs(flow_run_filter=wanted, task_run_filter=tasks, sort=order, limit=200)
