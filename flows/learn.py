"""The flow `learn-from-feedback`: folds new feedback into what the next edits will know."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.learned.kinds import kinds
from flows.learned.markdown import as_markdown
from flows.learned.words import title
from flows.links import LEARNED, viewer_address
from flows.names import timed_name
from flows.plain import in_plain_words, let_be_seen
from flows.runs import is_deployed
from flows.session import log
from flows.sessions import called


def _run_name() -> str:
    return timed_name("learn")


def _what_is_new(events: int) -> str:
    if not events:
        return "Nothing was rated since it was looked last: all ratings before are counted already."
    return f"{events} new rating{'' if events == 1 else 's'} counted."


@flow(name="learn-from-feedback", flow_run_name=_run_name, persist_result=False)
@in_plain_words
def learn_from_feedback() -> dict[str, Any]:
    """Learn from what was rated since the last time, for the next edits; the artifact `learned` tells what."""
    settings = load_settings()
    with open_store(settings) as store:
        learned = learn(store.database)
        report = report_on(store.database, kinds(), learned, is_on=settings.learning == "on")
        pages = called(store.database, report.examples) if viewer_address(settings) else None
    create_markdown_artifact(as_markdown(report, pages), key="learned", description=title(report))
    log.info("%s. %s", title(report), _what_is_new(report.new_events))
    if address := viewer_address(settings):
        log.info("What was learned: %s", address + LEARNED)
    if is_deployed():
        let_be_seen()
    return report.model_dump(mode="json")
