"""The flow `prune-sessions`: deletes old sessions that have ended, if a person has switched its schedule on."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from edi_storage.housekeeping import period, prunable, prune
from edi_storage.record import now_utc
from edi_storage.settings import load_settings
from edi_storage.store import open_store
from flows.session import log

# Prefect puts the parameter's name in the place of a plain title, but leaves the extras alone.
OlderThan = Annotated[
    str,
    Field(
        pattern=r"^\d{1,4}[hdw]$",
        json_schema_extra={
            "title": "Older than",
            "description": "Sessions made longer ago than this are deleted: 12h, 90d or 8w.",
        },
    ),
]
Keep = Annotated[
    int,
    Field(
        ge=0,
        json_schema_extra={
            "title": "Always keep",
            "description": "So many of the newest sessions stay, however old they are.",
        },
    ),
]
DryRun = Annotated[
    bool,
    Field(
        json_schema_extra={
            "title": "Only look",
            "description": "Says in the logs what would be deleted, and deletes nothing.",
        }
    ),
]


@flow(name="prune-sessions", persist_result=False)
def prune_sessions(older_than: OlderThan = "90d", keep: Keep = 1000, dry_run: DryRun = False) -> list[str]:
    """Delete old sessions that have ended, with their pictures. Unfinished ones and your own files always stay."""
    before = now_utc() - period(older_than)
    with open_store(load_settings()) as store:
        # All are found before the first is deleted: what is deleted moves the pages on.
        found = list(prunable(store.database, before=before, keep=keep))
        done = [session for session in found if dry_run or prune(store, session)]
    verb = "Would delete" if dry_run else "Deleted"
    for session in done:
        log.info("%s %s of %s: %s", verb, session.session_id, f"{session.created_at:%Y-%m-%d}", session.naive_prompt)
    log.info("%s %d of %d sessions older than %s.", verb, len(done), len(found), older_than)
    return [session.session_id for session in done]
