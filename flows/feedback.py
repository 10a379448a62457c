"""The flow `record-feedback`: keeps what a person says of an edit."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from edi_storage.models import FeedbackType, Reason
from edi_storage.recovery import give_verdict
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.session import log


@flow(name="record-feedback", persist_result=False)
def record_feedback(
    session_id: str,
    verdict: FeedbackType,
    rating: Annotated[int, Field(ge=0, le=5)] = 0,
    comment: str = "",
    reasons: list[Reason] = [],  # noqa: B006 - never changed; a list is what Prefect's form starts from
) -> dict[str, Any]:
    """Rate an edit. rating: 1 (poor) to 5 (excellent), 0 for none. reasons: what was wrong, if anything."""
    with open_store(load_settings()) as store:
        saved = give_verdict(store, session_id, verdict, rating=rating or None, comment=comment, reasons=reasons)
    log.info("Thank you: session %s is rated %s.", session_id, verdict)
    return saved.model_dump(mode="json")
