"""The flow `resume-interrupted`: continues sessions that stopped half-way, each from its last finished stage."""

from __future__ import annotations

from typing import Any

from prefect import flow

from edi_storage.errors import EdiError, LeaseHeldError
from edi_storage.models import SessionData
from edi_storage.owner import is_gone
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.edit import edit_image
from flows.session import log


@flow(name="resume-interrupted", persist_result=False)
def resume_interrupted(limit: int = 100) -> list[dict[str, Any]]:
    """Continue every interrupted session. limit: at most so many in one run, the oldest first."""
    settings = load_settings()
    with open_store(settings) as store:
        store.database.free_leases(is_gone)
        found = store.database.interrupted_sessions(limit)
        results = []
        for session in found:
            try:
                if store.database.count_recovery(session.session_id, settings.max_recovery_attempts):
                    results.append(continue_session(session))
                else:
                    log.warning("Session %s was given up: it never got further.", session.session_id)
            except LeaseHeldError:
                log.info("Session %s is being worked on by now.", session.session_id)
            except EdiError as error:
                log.warning("Session %s: %s", session.session_id, error)
                results.append({"session_id": session.session_id, "status": "failed", "failure_reason": str(error)})
    log.info("Interrupted sessions: %d found, %d continued.", len(found), len(results))
    return results


def continue_session(session: SessionData, answer: int = 0) -> dict[str, Any]:
    """Run the edit flow on a stored session; its stored options hold."""
    result: dict[str, Any] = edit_image(
        image_path=session.image_path, prompt=session.naive_prompt, session_id=session.session_id, answer=answer
    )
    return result
