"""Bringing a flow run of `edit-image` back under its own id, so that the Prefect UI shows one run with its history.

Only runs of a deployment can come back: a runner or worker takes them up again. The lease of the session decides in
the end; what stands here only spares people a second run of the same edit.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed

from edi_storage.models import SessionData
from edi_storage.store import Store

log = logging.getLogger("edi")

#: What is to be done about an unfinished session that nobody works on:
#: "revive" its run, "leave" it to its run, "end" it as cancelled, or have it continued by "another" run.
Way = Literal["revive", "leave", "end", "another"]

#: The flows whose runs work on one session.
_ON_SESSIONS = ("edit-image", "fork-session")

#: A run that was started so lately may be just about to take its session's lease, and one that has asked so lately,
#: to begin to wait.
_STARTING = timedelta(seconds=30)

#: A run that asks finds within less than this what was said meanwhile, and goes on with it itself.
_FINDING = timedelta(seconds=2)

#: A run that a runner or worker has taken up, but whose process has not begun for so long, has failed to start.
_NOT_STARTED = timedelta(minutes=5)

#: A run whose session has been over for so long has told all that it can, or has been killed before it could.
_TELLING = timedelta(minutes=5)

#: A planned run that nobody takes up for so long has no runner or worker any more; a shorter time may be a queue.
_ABANDONED = timedelta(minutes=30)

#: A run that is over for so long has told all that it will ever tell of its tasks.
_ALL_TOLD = timedelta(seconds=30)


#: Why a run is taken up again that has waited.
SAID = "It goes on with what you said."


def session_id_of(flow_run: FlowRun) -> str:
    """The session of a flow run of `edit-image`: the one it was given, or else its own id."""
    return str(flow_run.parameters.get("session_id") or flow_run.id)


def run_of(client: SyncPrefectClient, store: Store, session_id: str) -> FlowRun | None:
    """The run that worked on a session last, if this server knows it and it can come back."""
    run_id = _run_id(store, session_id)
    try:
        run = client.read_flow_run(run_id) if run_id else None
    except ObjectNotFound:
        return None
    # A fork shares the stages of another session, and so the run that did them.
    return run if run and run.deployment_id is not None and session_id_of(run) == session_id else None


def open_runs(client: SyncPrefectClient, kind: StateType) -> list[FlowRun]:
    """The runs that work on sessions and that are suspended (PAUSED) or at work (RUNNING), at most 200."""
    these = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[kind])))
    flows = FlowFilter(name=FlowFilterName(any_=list(_ON_SESSIONS)))
    return client.read_flow_runs(flow_filter=flows, flow_run_filter=these, limit=200)


def is_left_over(session: SessionData, run: FlowRun, now: datetime) -> bool:
    """Whether a run that is said to be at work has no process any more; its session is over.

    What a process has to do after the last commit takes seconds, unless the server does not answer it.
    """
    changed = [moment for moment in (session.updated_at, run.state and run.state.timestamp) if moment]
    return now - max(changed) > _TELLING


def _run_id(store: Store, session_id: str) -> UUID | None:
    try:
        return UUID(store.database.last_flow_run(session_id) or session_id)
    except ValueError:
        return None  # it has a name of its own, and no stage yet


def was_cancelled(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Whether a person has cancelled the run since it was last started."""
    states = sorted(client.read_flow_run_states(run_id), key=lambda state: state.timestamp)
    kinds = [state.type for state in states]
    last_start = len(kinds) - kinds[::-1].index(StateType.RUNNING) if StateType.RUNNING in kinds else 0
    return bool({StateType.CANCELLING, StateType.CANCELLED} & set(kinds[last_start:]))


def way_on(session: SessionData, run: FlowRun | None, now: datetime) -> Way:
    """What is to be done about an unfinished session that nobody works on, whose last run is `run`."""
    state = run.state if run else None
    if state is None:
        return "another"
    age = now - state.timestamp
    match state.type:
        case StateType.CANCELLING:
            # Its process is gone, and nobody has written down yet that it is cancelled.
            return "end"
        case StateType.CANCELLED:
            # A session that moved on after that was taken up again by a person.
            return "end" if session.updated_at is None or state.timestamp > session.updated_at else "another"
        case StateType.PAUSED:
            return "leave" if session.waiting_for else "revive"
        case StateType.CRASHED | StateType.FAILED:
            return "revive"
        case StateType.RUNNING:
            changed = now - (session.updated_at or state.timestamp)
            is_there = changed < (_STARTING if session.waiting_for else _FINDING)
            return "leave" if is_there or age < _STARTING else "revive"
        case StateType.PENDING:
            return "leave" if age < _NOT_STARTED else "revive"
        case StateType.SCHEDULED:
            return "leave" if age < _ABANDONED else "another"
        case _:
            return "another"


def end_lost_tasks(run_id: str) -> None:
    """Say that the tasks of an earlier, killed process of this run have crashed: they would run for ever.

    They are no more than what a person sees, so a server that does not take it costs nothing but a warning.
    """
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)]))
    try:
        with get_client(sync_client=True) as client:
            for task_run in _crash_tasks(client, this, "Its process was killed; the stage is run again."):
                log.warning("The process at work ended unexpectedly during %s: going on from there.", task_run.name)
    except Exception as error:  # noqa: BLE001 - see above
        log.warning('Tasks of a killed process stay "running" in the UI: %s', error)


def end_forgotten_tasks() -> None:
    """Say that the tasks which still "run" in edits that are over have crashed: nobody else will tell of their end.

    What a task says of itself travels apart from its run. It reaches the server late, or never where one of both was
    killed meanwhile. A failure costs nothing but a warning, as in `end_lost_tasks`.
    """
    over = FlowRunFilter(end_time=FlowRunFilterEndTime(before_=datetime.now(UTC) - _ALL_TOLD))
    try:
        with get_client(sync_client=True) as client:
            _crash_tasks(client, over, "Its end was lost on the way; its run is over.")
    except Exception as error:  # noqa: BLE001 - see above
        log.warning('Tasks whose end was lost stay "running" in the UI: %s', error)


def _crash_tasks(client: SyncPrefectClient, runs: FlowRunFilter, why: str) -> list[TaskRun]:
    """End the running tasks of these runs of edits, at most 200; returns them."""
    edits = FlowFilter(name=FlowFilterName(any_=[*_ON_SESSIONS, "edit-batch"]))
    at_work = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    found = client.read_task_runs(flow_filter=edits, flow_run_filter=runs, task_run_filter=at_work)
    lost: State[Any] = Crashed(message=why)
    for task_run in found:
        client.set_task_run_state(task_run.id, lost, force=True)
    return found


def end_lost_run(store: Store, session_id: str, this: str) -> None:
    """Say that the run which worked on a session before `this` one has crashed, if it still "runs" with no deployment.

    Nobody else would: runs started by hand send no heartbeats. To be called under the session's lease.
    """
    before = _run_id(store, session_id)
    if before is None or str(before) == this:
        return
    lost: State[Any] = Crashed(message="Its process was killed; the session goes on in another run.")
    try:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(before)
            mine = session_id_of(run) == session_id
            if mine and run.deployment_id is None and run.state_type == StateType.RUNNING:
                end_lost_tasks(str(run.id))
                client.set_flow_run_state(run.id, lost, force=True)
    except ObjectNotFound:
        return  # of another server
    except Exception as error:  # noqa: BLE001 - no more than what a person sees
        log.warning('The run of a killed process stays "running" in the UI: %s', error)


def say_why_back(run_id: str) -> None:
    """Tell why a run is taken up again, as `revive` was told; a person sees it nowhere else."""
    try:
        with get_client(sync_client=True) as client:
            states = sorted(client.read_flow_run_states(UUID(run_id)), key=lambda state: state.timestamp)
    except Exception as error:  # noqa: BLE001 - no more than what a person sees
        log.debug("Why the run is taken up again is not known: %s", error)
        return
    last = next((state for state in reversed(states) if state.type == StateType.SCHEDULED), None)
    # Not where it was suspended since, and a person has resumed it.
    if last is not None and last.name == AwaitingRetry().name and last.message:
        log.log(logging.INFO if last.message == SAID else logging.WARNING, "%s", last.message)


def is_moving(run: FlowRun | None) -> bool:
    """Whether the run is at work or planned, perhaps with an answer that it brings."""
    return run is not None and run.state_type in {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING}


def revive(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    """Have the run taken up again, in a new process."""
    # By force, or Prefect would forget which of its questions were answered.
    again: State[Any] = AwaitingRetry(message=why, scheduled_time=datetime.now(UTC))
    client.set_flow_run_state(run.id, again, force=True)


def hand_on(store: Store, session_id: str) -> None:
    """Have the run that waited for what a person has just said taken up at once.

    `resume-interrupted` would do so within a minute, so that a server that does not take it costs no more than that.
    """
    try:
        with get_client(sync_client=True) as client:
            if run := _hand_back(client, store, session_id):
                log.info("The edit goes on with that in its own run, %s.", run.name)
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("The edit goes on within a minute: %s", error)


def _hand_back(client: SyncPrefectClient, store: Store, session_id: str) -> FlowRun | None:
    session = store.database.get_session(session_id)
    if session is None or session.status != "in_progress" or session.waiting_for:
        return None
    run = run_of(client, store, session_id)
    if run is None or run.state_type != StateType.PAUSED or store.database.lease_of(session_id) is not None:
        return None
    revive(client, run, SAID)
    return run


def let_go(store: Store, session_id: str) -> None:
    """End the run that waited for a person, now that its session is over.

    `resume-interrupted` would do so within a minute.
    """
    try:
        with get_client(sync_client=True) as client:
            run, session = run_of(client, store, session_id), store.database.require_session(session_id)
            if run is not None and run.state_type == StateType.PAUSED:
                close(client, run, session)
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("The run of session %s ends within a minute: %s", session_id, error)


def close(client: SyncPrefectClient, run: FlowRun, session: SessionData) -> None:
    """End a run that has nothing left to do: its session is over."""
    reason = (session.failure_reason or "").rstrip(".")
    over: State[Any] = Cancelled(message=f"Its session has failed: {reason}.")
    if session.status == "completed":
        over = Completed(message="Its session is finished.")
    client.set_flow_run_state(run.id, over, force=True)
