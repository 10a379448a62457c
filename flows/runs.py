"""What a running flow knows of its own run. Prefect's `runtime` asks the server for some of it, each time anew."""

from __future__ import annotations

from prefect.context import FlowRunContext


def is_deployed() -> bool:
    """Whether this is a run of a deployment: somebody has a page of it, and a runner or worker can take it up again."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)
