"""The flow `resume-interrupted`: continues sessions that stopped half-way, each from its last finished stage."""

from __future__ import annotations

from typing import Any

from prefect import flow

from edi_storage.errors import DatabaseError, LeaseHeldError, StorageFullError
from edi_storage.files import StorageError
from edi_storage.models import SessionData
from edi_storage.owner import is_gone
from edi_storage.settings import Settings, load_settings
from edi_storage.store import Store, open_store
from flows import form
from flows.edit import edit_image
from flows.names import timed_name
from flows.output import outcome
from flows.plain import in_plain_words
from flows.session import log


def _run_name() -> str:
    return timed_name("resume")


@flow(name="resume-interrupted", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def resume_interrupted(limit: form.Limit = 100) -> list[dict[str, Any]]:
    """Continue every session that was interrupted, each from its last finished stage."""
    settings = load_settings()
    with open_store(settings) as store:
        store.database.free_leases(is_gone)
        found = store.database.interrupted_sessions(limit)
        results = [result for session in found if (result := _resume(store, settings, session))]
    log.info("Interrupted sessions: %d found, %d worked on.", len(found), len(results))
    return results


def _resume(store: Store, settings: Settings, session: SessionData) -> dict[str, Any] | None:
    """Continue one session; whatever becomes of it must not keep the others from being continued."""
    session_id = session.session_id
    try:
        if store.database.count_recovery(session_id, settings.max_recovery_attempts):
            return continue_session(session)
        log.warning("Session %s was given up: it never got further.", session_id)
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


def continue_session(session: SessionData, answer: int = 0) -> dict[str, Any]:
    """Run the edit flow on a stored session; its stored options hold."""
    result: dict[str, Any] = edit_image(
        image_path=session.image_path, prompt=session.naive_prompt, session_id=session.session_id, answer=answer
    )
    return result
