"""The flow `record-feedback`: keeps what a person says of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, runtime
from prefect.client.orchestration import get_client

from edi_storage.database import EDIDatabase
from edi_storage.models import Reason, SessionData
from edi_storage.recovery import give_verdict
from edi_storage.settings import Settings, load_settings
from edi_storage.store import open_store
from flows import form
from flows.artifacts import show_stored
from flows.links import RATINGS, session_link, viewer_address
from flows.names import verdict_name
from flows.plain import in_plain_words, let_be_seen
from flows.reviving import hand_on
from flows.runs import is_deployed
from flows.session import log
from flows.sessions import find_session, newest_with_result, photo_meant


def _run_name() -> str:
    """How the run is called in the Prefect UI: "accept 4 - palace.jpg"."""
    parameters = runtime.flow_run.parameters
    return verdict_name(parameters, photo_meant(_meant, str(parameters.get("session_id") or "")))


def _meant(database: EDIDatabase, name: str) -> SessionData:
    return find_session(database, name.strip()) if name.strip() else newest_with_result(database)


@flow(name="record-feedback", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def record_feedback(
    verdict: form.Verdict,
    rating: form.Rating = 0,
    comment: form.Comment = "",
    # Late: its list opens over what is below it.
    reasons: form.Reasons = [],  # noqa: B006 - never changed; a list is what Prefect's form starts from
    session_id: form.SessionToRate = "",
) -> dict[str, Any]:
    """Rate an edit. Rating the same result again replaces what was said before."""
    settings = load_settings()
    with open_store(settings) as store:
        session = _meant(store.database, session_id)
        chosen: list[Reason] = list(dict.fromkeys(reasons))
        saved = give_verdict(store, session.session_id, verdict, rating=rating or None, comment=comment, reasons=chosen)
        show_stored(store, session.session_id, UUID(str(runtime.flow_run.id)))
    photo = Path(session.image_path).name
    told = _in_words(verdict, rating, chosen, comment)
    log.info("Thank you: %r on %s (session %s) is rated %s.", session.naive_prompt, photo, session.session_id, told)
    if is_deployed():
        with open_store(settings) as store:
            hand_on(store, session.session_id)
        _show_that_it_is_stored(settings, session, f"{verdict} {rating or ''}".strip())
        let_be_seen()
    return saved.model_dump(mode="json")


def _in_words(verdict: str, rating: int, reasons: Sequence[str], comment: str) -> str:
    """All that was said, for whoever wants to see that it was taken as it was meant."""
    (meant,) = (known.words for known in RATINGS if known.verdict == verdict)
    parts = [f"{verdict} ({meant})", f"{rating} of 5" if rating else "", ", ".join(reasons)]
    return ", ".join(filter(None, parts)) + (f": “{' '.join(comment.split())}”" if comment.strip() else "")


def _show_that_it_is_stored(settings: Settings, session: SessionData, said: str) -> None:
    """Say it in the run's name too, which its open page shows at the top; and where the edit is."""
    if address := viewer_address(settings):
        log.info("The page of the edit: %s", address + session_link(session.session_id))
    name = f"stored: {verdict_name({'verdict': said}, Path(session.image_path).name)}"
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(runtime.flow_run.id)), name=name)
    except Exception as error:  # noqa: BLE001 - the verdict is stored; its run must not end as if it was not
        log.warning("The run keeps its name: %s", error)
