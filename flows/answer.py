"""The flow `answer-question`: keeps what a person answers to an edit that waits, which then goes on by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, runtime

from edi_storage.database import EDIDatabase
from edi_storage.errors import InputError, NotFoundError
from edi_storage.models import SessionData
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows import form
from flows.edit import keep_answer
from flows.links import session_link, viewer_address
from flows.names import answer_name
from flows.plain import in_plain_words, let_be_seen
from flows.reviving import hand_on
from flows.runs import is_deployed
from flows.session import log
from flows.sessions import find_session, photo_meant

#: Sessions that are looked through for the newest one that asks something.
_AT_MOST = 1000


def _run_name() -> str:
    """How the run is called in the Prefect UI: "answer 2 - palace.jpg"."""
    parameters = runtime.flow_run.parameters
    return answer_name(parameters, photo_meant(_meant, str(parameters.get("session_id") or "")))


def _meant(database: EDIDatabase, name: str) -> SessionData:
    if name.strip():
        return find_session(database, name.strip())
    asking = [session for session in database.waiting_sessions(_AT_MOST) if session.waiting_for == "question"]
    if not asking:
        raise NotFoundError("No edit waits for an answer.")
    return max(asking, key=lambda session: session.created_at)


@flow(name="answer-question", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def answer_question(answer: form.Answer, session_id: form.SessionToAnswer = "") -> dict[str, Any]:
    """Answer what an edit asks: send the number of your choice, and it goes on."""
    settings = load_settings()
    with open_store(settings) as store:
        session = _meant(store.database, session_id)
        if session.waiting_for != "question":
            raise InputError(f"Session {session.session_id} does not wait for an answer.")
        kept = keep_answer(store, session.session_id, answer)
        log.info("Your answer for %s: %s.", Path(session.image_path).name, kept)
        if is_deployed():
            hand_on(store, session.session_id)
    if is_deployed():
        if address := viewer_address(settings):
            log.info("The page of the edit: %s", address + session_link(session.session_id))
        let_be_seen()
    return {"session_id": session.session_id, "answer": answer}
