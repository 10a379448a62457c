"""The runner that `edi serve` keeps: registers the deployments, then starts a process for each run that is due.

It leaves when its standard input ends, and ends its flow runs first: they share its process group, so that nobody has
to know their process ids. Prefect's own way out would mark them as cancelled by a person, who never did that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.tidying import PLANNED, keep_tidy
from flows import VERSION
from flows.child import say_ready, watch_parent

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import DeploymentSchedule, FlowRun, State
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

#: A run that a person starts is taken up within this time; a scheduled one is taken up before its time.
QUERY_SECONDS = 2.0

#: How long flow runs may take to write down that they were interrupted: a second, or more on a busy machine.
GRACE_SECONDS = 15.0


def main(arguments: Sequence[str]) -> None:
    """The child. Argument: JSON {"workers": int, "deployments": [fields of Served]}."""
    os.umask(0o077)
    leave = threading.Event()
    # Also because the runner gets every signal that it sends to its group. SIG_IGN would be inherited by the flow runs.
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    watch_parent(leave.set)
    runners: list[Runner] = []
    # Not in the main thread, where Prefect would install its own way out.
    thread = threading.Thread(target=_serve, args=(json.loads(arguments[0]), runners), daemon=True)
    thread.start()
    while thread.is_alive() and not leave.wait(0.2):
        pass
    _end_flow_runs(runners)


def _serve(config: dict[str, Any], runners: list[Runner]) -> None:
    try:
        asyncio.run(_run(config, runners))
    except BaseException:
        traceback.print_exc()
        raise


async def _run(config: dict[str, Any], runners: list[Runner]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.runner import Runner

    # The logs of flow runs are in the API. Here they would go through a pipe, and a flow run whose runner was killed
    # would end at its first line instead of writing down that it was interrupted.
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    # Two, because a limit counts all runs of a runner: a queue of edits must not keep the scheduled runs waiting.
    asked, scheduled = (
        Runner(name=name, query_seconds=QUERY_SECONDS, limit=limit, pause_on_shutdown=False)
        for name, limit in (("edi-asked", config["workers"]), ("edi-scheduled", None))
    )
    found: dict[UUID, dict[str, Any]] = {}
    async with get_client() as client:
        for served in config["deployments"]:
            runner = scheduled if served["interval"] else asked
            deployment = await _deployment(client, served)
            identifier = await runner.aadd_deployment(deployment)
            await _drop_outdated_plans(client, identifier, _slug(served))
            found[identifier] = served
        await _close_stale_runs(client, found)
        for identifier, served in found.items():
            if served["interval"]:
                await _catch_up(client, identifier, at_once=served["at_start"])
        runners += [asked, scheduled]
        say_ready()
        alone, tidied = ([key for key, served in found.items() if served[kind]] for kind in ("alone", "tidied"))
        await asyncio.gather(asked.start(), scheduled.start(), keep_tidy(client, alone, tidied))


async def _deployment(client: PrefectClient, served: dict[str, Any]) -> RunnerDeployment:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.deployments.runner import RunnerDeployment
    from prefect.exceptions import ObjectNotFound
    from prefect.schedules import Interval

    slug = _slug(served)
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    deployment = RunnerDeployment.from_entrypoint(
        served["entrypoint"],
        name=served["name"],
        schedule=Interval(served["interval"], slug=slug, active=served["active"]) if slug else None,
        concurrency_limit=one if served["alone"] else None,
        version=VERSION,
    )
    # Said aloud, or a deployment that was in a work pool stays there, and the pool's workers take its runs.
    deployment.work_pool_name = deployment.work_queue_name = None
    with contextlib.suppress(ObjectNotFound):
        known = await client.read_deployment_by_name(deployment.full_name)
        # What is not sent stays as a person left it in the UI: values for the form, tags, ...
        kept = {"parameters", "tags"}
        # ... and what they paused or rescheduled, until the setting says something new.
        if not any(_is_outdated(plan, slug) for plan in known.schedules):
            deployment.schedules = None
            kept |= {"schedules", "paused"}
        deployment.model_fields_set.difference_update(kept)
    return deployment


async def _drop_outdated_plans(client: PrefectClient, deployment: UUID, slug: str) -> None:
    # After the new one is there: a kill in between must not leave a deployment without any.
    for plan in (await client.read_deployment(deployment)).schedules:
        if _is_outdated(plan, slug):
            await client.delete_deployment_schedule(deployment, plan.id)


def _slug(served: dict[str, Any]) -> str:
    """The name of EDI's own schedule, which says its interval; "" for a deployment that has none."""
    return f"edi-{served['interval']:g}" if served["interval"] else ""


def _is_outdated(plan: DeploymentSchedule, slug: str) -> bool:
    """Whether EDI made this schedule, for another interval than now."""
    return plan.active and (plan.slug or "").startswith("edi-") and plan.slug != slug


async def _close_stale_runs(client: PrefectClient, deployments: dict[UUID, dict[str, Any]]) -> None:
    """Runs that an earlier runner left open would look alive for ever and keep their place in a limit.

    Their flows' hooks run, as they do for a run whose end the runner has seen: what a person was cancelling stays
    cancelled, and what had not yet begun is planned again.
    """
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterParentFlowRunId
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Crashed

    open_now = _in_state(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
    mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)), state=open_now)
    runs = await _read_runs(client, mine)
    if runs:
        children = FlowRunFilterParentFlowRunId(any_=[run.id for run in runs])
        runs += await _read_runs(client, FlowRunFilter(parent_flow_run_id=children, state=open_now))
    for run in runs:
        cancelled = run.state_type is StateType.CANCELLING
        end: State[Any] = Cancelled() if cancelled else Crashed(message="`edi serve` was interrupted during this run.")
        if run.deployment_id in deployments:
            # First, or a kill in between would leave a closed run that nobody looks at again.
            await asyncio.to_thread(_run_hooks, deployments[run.deployment_id]["entrypoint"], run, end)
        if (await client.read_flow_run(run.id)).state_type not in {StateType.SCHEDULED, StateType.COMPLETED}:
            await client.set_flow_run_state(run.id, end, force=True)


def _run_hooks(entrypoint: str, run: FlowRun, end: State[Any]) -> None:
    module, _, name = entrypoint.rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    for hook in flow.on_cancellation_hooks if end.is_cancelled() else flow.on_crashed_hooks:
        try:
            hook(flow=flow, flow_run=run, state=end)
        except Exception:  # noqa: BLE001 - one run that cannot be tidied up must not keep the others waiting
            traceback.print_exc()


async def _catch_up(client: PrefectClient, deployment: UUID, *, at_once: bool) -> None:
    """One run makes up for all that fell due while nobody served: one that was missed, or one more at once."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterNextScheduledStartTime,
    )
    from prefect.client.schemas.objects import StateType

    missed = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=_in_state(StateType.SCHEDULED),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC)),
    )
    planned = [run for run in await _read_runs(client, missed) if run.auto_scheduled]
    planned.sort(key=lambda run: run.expected_start_time or datetime.min.replace(tzinfo=UTC))
    for run in planned[:-1]:
        await client.delete_flow_run(run.id)
    if at_once and not planned:
        known = await client.read_deployment(deployment)
        # A person who paused it wants none.
        if not known.paused and any(plan.active for plan in known.schedules):
            await client.create_flow_run_from_deployment(deployment, tags=[PLANNED])


def _in_state(*types: Any) -> Any:
    from prefect.client.schemas.filters import FlowRunFilterState, FlowRunFilterStateType

    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


async def _read_runs(client: PrefectClient, wanted: FlowRunFilter) -> list[FlowRun]:
    from prefect.client.schemas.sorting import FlowRunSort

    return await client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)


def _end_flow_runs(runners: Sequence[Runner]) -> None:
    for runner in runners:
        if poller := getattr(runner, "_scheduled_run_poller", None):
            poller.stopping = True
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(runner._process_manager.flow_run_ids() for runner in runners):
        time.sleep(0.1)
    os.killpg(0, signal.SIGKILL)  # what is left of the flow runs, and this process itself


if __name__ == "__main__":
    main(sys.argv[1:])
