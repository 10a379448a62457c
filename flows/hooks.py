"""Hooks at stage boundaries and at the end of flow runs.

Nothing depends on them: a hook that raises is only logged by Prefect, and one whose process dies never runs.
They may run in the process of the flow, or (after a kill or a cancellation) in that of the runner. Prefect calls
them by keyword, so the names of their parameters are fixed.
"""

from __future__ import annotations

import logging
from typing import Any

from prefect import Flow, State, Task, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.states import AwaitingRetry, Cancelled

from edi_storage.errors import DatabaseError, EdiError, LeaseHeldError, StorageFullError
from edi_storage.files import StorageError
from edi_storage.owner import owner_name
from edi_storage.recovery import end_session, export_the_end
from edi_storage.settings import load_settings
from edi_storage.store import Store, open_store
from flows.reviving import close, revive, session_id_of, was_cancelled
from flows.runs import has_worked
from flows.session import SessionRun
from flows.words import CANCELLED

log = logging.getLogger("edi")

#: A run that is told to end again and again, as by a guard of the memory, comes back so often.
_TOLD_AT_MOST = 20

#: Unfinished sessions that are looked at.
_AT_MOST = 10_000

#: Long enough for one UPDATE.
_LEASE_SECONDS = 10


def write_checkpoint(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> None:
    """After a stage: write the checkpoint of its boundary, and any that is missing."""
    run_of_task().export()


def run_of_task() -> SessionRun:
    """What the present stage works on. Its state tells it too, but by way of another thread."""
    run: SessionRun = runtime.task_run.parameters["run"]
    return run


def forgive_disk(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a failure that is the disk's fault, not the session's: it may be resumed as often as it takes."""
    if isinstance(state.result(raise_on_failure=False), StorageFullError | StorageError | DatabaseError):
        with open_store(load_settings()) as store:
            store.database.forgive_recovery(session_id_of(flow_run))


def mark_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a cancellation by a person: end the session, so that nothing resumes it behind their back."""
    _end(flow_run, CANCELLED)


def mark_batch_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a cancellation of a batch by a person: end the sessions that it was at; the batch may be started again."""
    run = str(flow_run.id)
    with open_store(load_settings()) as store:
        for session, lease in store.database.unfinished_sessions(_AT_MOST):
            held = lease is not None and lease.owner.endswith(f":{run}")
            if held or (store.database.last_flow_run(session.session_id) == run and not session.waiting_for):
                _end_session(store, session.session_id, run, CANCELLED)


def mark_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """After a crash: free the lease of the dead process, and have the run taken up again under its own id.

    Not too often: a session that never gets further is failed, and a run that never makes one stays crashed.
    """
    settings, session_id = load_settings(), session_id_of(flow_run)
    with open_store(settings) as store:
        store.database.release_flow_run(session_id, str(flow_run.id))
        # Without a deployment nobody would take it up; then `resume-interrupted` continues the session.
        if flow_run.deployment_id is None:
            return
        # Told to end, as by the end of `edi serve`, the process ran this hook itself: no fault of the session.
        told = isinstance(state.data, TerminationSignal | KeyboardInterrupt)
        with get_client(sync_client=True) as client:
            if told and was_cancelled(client, flow_run.id):
                # The process may not have heard that the one who told it was a person.
                _end(flow_run, CANCELLED)
                over: State[Any] = Cancelled(message=CANCELLED)
                client.set_flow_run_state(flow_run.id, over, force=True)
            elif (session := store.database.get_session(session_id)) and session.status == "completed":
                # Killed between its last commit and its own end: nothing is left to do but what it did not get to.
                try:
                    export_the_end(store, session_id)
                finally:
                    close(client, flow_run, session)
            elif _may_go_on(client, store, flow_run, settings.max_recovery_attempts, told=told):
                revive(client, flow_run, "The run was interrupted and goes on from its last finished stage.")


def _may_go_on(client: SyncPrefectClient, store: Store, flow_run: FlowRun, at_most: int, *, told: bool) -> bool:
    """Whether the run has something left to do and may be tried again; when it was `told` to end, more often."""
    session_id = session_id_of(flow_run)
    session = store.database.get_session(session_id)
    if session is None:
        # Either it was not made yet, or it was deleted.
        return _planned_again(client, flow_run) < at_most and not has_worked(flow_run.id)
    if session.status != "in_progress":
        return False
    if told:
        return _planned_again(client, flow_run) < _TOLD_AT_MOST
    try:
        return store.database.count_recovery(session_id, at_most)
    except LeaseHeldError:
        return False  # somebody else works on it


def _planned_again(client: SyncPrefectClient, flow_run: FlowRun) -> int:
    return sum(state.name == AwaitingRetry().name for state in client.read_flow_run_states(flow_run.id))


def _end(flow_run: FlowRun, reason: str) -> None:
    """Fail the session of this run, unless it has ended or another run works on it."""
    with open_store(load_settings()) as store:
        session = store.database.get_session(session_id_of(flow_run))
        if session is not None and session.status == "in_progress":
            _end_session(store, session.session_id, str(flow_run.id), reason)


def _end_session(store: Store, session_id: str, flow_run_id: str, reason: str) -> None:
    store.database.release_flow_run(session_id, flow_run_id)
    try:
        lease = store.database.acquire(session_id, owner_name(flow_run_id), _LEASE_SECONDS)
        end_session(store, lease, reason)
    except EdiError as error:
        log.warning("%s", error)
