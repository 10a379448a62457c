"""What a running flow knows of its own run. Prefect's `runtime` asks the server for some of it, each time anew."""

from __future__ import annotations

from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext


def is_deployed() -> bool:
    """Whether this is a run of a deployment: somebody has a page of it, and a runner or worker can take it up again."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def has_worked(run_id: UUID | str) -> bool:
    """Whether a stage was finished in this run. (Its run count does not tell: an answer does not raise it.)"""
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(run_id))]))
    done = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.COMPLETED])))
    with get_client(sync_client=True) as client:
        return bool(client.read_task_runs(flow_run_filter=this, task_run_filter=done, limit=1))


def has_come_back() -> bool:
    """Whether this run of a deployment has worked before: it was interrupted, or has waited for a person."""
    return is_deployed() and has_worked(runtime.flow_run.id)
