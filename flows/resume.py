"""The flow `resume-interrupted`: continues sessions that stopped half-way, each from its last finished stage.

Run by a deployment it hands a session back to its own flow run, if that can come back (see `flows.reviving`); else,
and under `edi resume --all`, it continues the session itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType

from edi_storage.errors import DatabaseError, EdiError, LeaseHeldError, StorageFullError
from edi_storage.files import StorageError
from edi_storage.models import SessionData
from edi_storage.owner import is_gone, owner_name
from edi_storage.recovery import DELETING, end_session, export_the_end
from edi_storage.settings import Settings, load_settings
from edi_storage.store import Store, open_store
from flows import form
from flows.edit import edit_image
from flows.names import timed_name
from flows.output import outcome
from flows.plain import in_plain_words
from flows.reviving import (
    close,
    end_forgotten_tasks,
    is_left_over,
    is_moving,
    open_runs,
    revive,
    run_of,
    session_id_of,
    way_on,
)
from flows.runs import is_deployed
from flows.server import read_server_file
from flows.session import log
from flows.words import CANCELLED

#: Seconds; long enough for one boundary.
_LEASE_SECONDS = 10


def _run_name() -> str:
    return timed_name("resume")


@flow(name="resume-interrupted", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def resume_interrupted(limit: form.Limit = 100) -> list[dict[str, Any]]:
    """Continue every session that was interrupted, each from its last finished stage."""
    settings = load_settings()
    with open_store(settings) as store:
        store.database.free_leases(is_gone)
        if is_deployed():
            _look_after_waiting(store, settings, limit)
        found = store.database.interrupted_sessions(limit)
        results = [result for session in found if (result := _resume(store, settings, session.session_id))]
    if is_deployed():
        end_forgotten_tasks()
    log.info("Interrupted sessions: %d found, %d worked on.", len(found), len(results))
    return results


def _look_after_waiting(store: Store, settings: Settings, limit: int) -> None:
    """See to it that what waits can be answered, and end what a person has cancelled or never answered."""
    with get_client(sync_client=True) as client:
        for session in store.database.waiting_sessions(limit):
            run = run_of(client, store, session.session_id)
            way = way_on(session, run, datetime.now(UTC))
            try:
                if way == "end":
                    _end(store, session.session_id, CANCELLED)
                elif way == "revive" and run is not None:
                    if store.database.count_recovery(session.session_id, settings.max_recovery_attempts):
                        revive(client, run, "It was interrupted before it could ask.")
                elif not is_moving(run) and _has_waited_enough(settings, session):
                    _go_on_unanswered(store, settings, session)
            except EdiError as error:
                log.warning("Session %s: %s", session.session_id, error)
        close_finished(store, client)


def close_finished(store: Store, client: SyncPrefectClient) -> None:
    """End the runs whose sessions are over: those that waited, and those that were killed after the last commit."""
    now = datetime.now(UTC)
    for run in [*open_runs(client, StateType.PAUSED), *open_runs(client, StateType.RUNNING)]:
        # One that is not known may have been deleted, or be kept in another database that uses this server; one that
        # is being deleted is as good as gone, and a checkpoint written now could outlive it.
        about = store.database.get_session(session_id_of(run))
        if about is None or about.status == "in_progress" or about.failure_reason == DELETING:
            continue
        if run.state_type == StateType.RUNNING and not is_left_over(about, run, now):
            continue
        try:
            export_the_end(store, about.session_id)
        except EdiError as error:
            log.warning("Session %s: %s", about.session_id, error)
        close(client, run, about)


def _has_waited_enough(settings: Settings, session: SessionData) -> bool:
    """Whether the time for an answer is over; after a start of `edi serve` there is a little (of 72 hours one) left."""
    now, patience = datetime.now(UTC), timedelta(hours=settings.review_hours)
    served = read_server_file(settings)
    if served and now - datetime.fromtimestamp(served.started_at, UTC) < patience / 72:
        return False
    return session.updated_at is not None and now - session.updated_at > patience


def _go_on_unanswered(store: Store, settings: Settings, session: SessionData) -> None:
    nobody = f"nobody answered within {settings.review_hours:g} hours"
    log.info("Session %s: %s.", session.session_id, nobody)
    if settings.unanswered == "fail":
        _end(store, session.session_id, nobody)
    else:
        store.database.give_up_waiting(session)


def _end(store: Store, session_id: str, reason: str) -> None:
    try:
        end_session(store, store.database.acquire(session_id, owner_name(), _LEASE_SECONDS), reason)
    except EdiError as error:
        log.warning("Session %s: %s", session_id, error)


def _resume(store: Store, settings: Settings, session_id: str) -> dict[str, Any] | None:
    """Continue one session; whatever becomes of it must not keep the others from being continued."""
    try:
        return _continue(store, settings, session_id)
    except LeaseHeldError:
        log.info("Session %s is being worked on by now.", session_id)
        return None
    except (StorageFullError, StorageError, DatabaseError) as error:
        # The fault of the disk, not of the session: it may be tried as often as it takes.
        store.database.forgive_recovery(session_id)
        log.warning("Session %s: %s", session_id, error)
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("Session %s: %s", session_id, error)
    return outcome(store, session_id)


def _continue(store: Store, settings: Settings, session_id: str) -> dict[str, Any] | None:
    """Continue one session on the best way, as things stand now: those before it may have taken minutes."""
    session = store.database.get_session(session_id)
    if session is None or session.status != "in_progress" or session.waiting_for:
        return None
    with get_client(sync_client=True) as client:
        # `edi resume` is to work on it now, whether a runner is there or not.
        run = run_of(client, store, session_id) if is_deployed() else None
        way = way_on(session, run, datetime.now(UTC))
        if way == "leave":
            return None
        if way == "end":
            _end(store, session_id, CANCELLED)
        elif not store.database.count_recovery(session_id, settings.max_recovery_attempts):
            log.warning(
                "Session %s was given up: it never got further. `edi resume %s` tries again.", *[session_id] * 2
            )
        elif way == "revive" and run is not None:
            revive(client, run, "It was interrupted and goes on from its last finished stage.")
            log.info("Session %s goes on in its own run, %s.", session_id, run.name)
        else:
            return continue_session(session)
    return outcome(store, session_id)


def continue_session(session: SessionData, answer: str = "") -> dict[str, Any]:
    """Run the edit flow on a stored session; its stored options hold."""
    result: dict[str, Any] = edit_image(
        image_path=session.image_path, prompt=session.naive_prompt, session_id=session.session_id, answer=answer
    )
    return result
