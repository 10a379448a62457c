"""Hooks at stage boundaries and at the end of flow runs.

Nothing depends on them: a hook that raises is only logged by Prefect, and one whose process dies never runs.
They may run in the process of the flow, or (after a kill or a cancellation) in that of the runner. Prefect calls
them by keyword, so the names of their parameters are fixed.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect import Flow, State, Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.states import AwaitingRetry

from edi_storage.errors import EdiError, SessionFailedError
from edi_storage.owner import owner_name
from edi_storage.recovery import end_session, export_checkpoints
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.session import SessionRun

log = logging.getLogger("edi")

#: Long enough for one UPDATE.
_LEASE_SECONDS = 10


def write_checkpoint(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """After a stage: write the checkpoint of its boundary, and any that is missing."""
    run = state.result()
    if isinstance(run, SessionRun):
        export_checkpoints(run.store, run.session.session_id)


def mark_failed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a failure that would come again: end the session with its reason. After any other it can be resumed."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, SessionFailedError):
        _end(flow_run, str(error))


def mark_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a cancellation by a person: end the session, so that nothing resumes it behind their back."""
    _end(flow_run, "cancelled by a person")


def mark_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a crash: free the lease of the dead process, so that the next resume need not wait for it to run out.

    A run that died before it had made its session is planned again, as no resume would know of it.
    """
    settings, session_id = load_settings(), session_id_of(flow_run)
    with open_store(settings) as store:
        store.database.release_flow_run(session_id, str(flow_run.id))
        never_began = store.database.get_session(session_id) is None
    if never_began and flow_run.deployment_id is not None:
        _plan_again(flow_run, settings.max_recovery_attempts)


def _plan_again(flow_run: FlowRun, at_most: int) -> None:
    """Let the run be taken up anew, unless it was so often already: then something ends it every time."""
    again: State[Any] = AwaitingRetry(message="The run ended before it had begun; it is started again.")
    with get_client(sync_client=True) as client:
        planned = sum(state.name == again.name for state in client.read_flow_run_states(flow_run.id))
        if planned < at_most:
            client.set_flow_run_state(flow_run.id, again, force=True)


def session_id_of(flow_run: FlowRun) -> str:
    """The session of a flow run of `edit-image`: the one it was given, or else its own id."""
    return str(flow_run.parameters.get("session_id") or flow_run.id)


def _end(flow_run: FlowRun, reason: str) -> None:
    """Fail the session of this run, unless it has ended or another run works on it."""
    session_id, flow_run_id = session_id_of(flow_run), str(flow_run.id)
    with open_store(load_settings()) as store:
        database = store.database
        session = database.get_session(session_id)
        if session is None or session.status != "in_progress":
            return
        database.release_flow_run(session_id, flow_run_id)
        try:
            lease = database.acquire(session_id, owner_name(flow_run_id), _LEASE_SECONDS)
            end_session(store, lease, reason)
        except EdiError as error:
            log.warning("%s", error)
