"""Gathering what the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edi_storage.database import EDIDatabase
from edi_storage.learning.aggregation import Learned
from edi_storage.learning.report import Evidence, Kind, Report, report_of
from edi_storage.learning_models import ReasonCounts, StoredProfile

#: Earlier profiles among which the last change is looked for.
_LOOKED_AT: Final = 30


def report_on(database: EDIDatabase, kinds: Mapping[str, Kind], learned: Learned, *, is_on: bool = True) -> Report:
    """The report on what is in the database now; `kinds` are the ways that the engines have to do each kind of edit.

    `learned` is what the run before it has added; `is_on`: whether edits are done by what was learned.
    """
    active = database.active_profile()
    kept = {profile.version: profile for profile in database.profiles()}
    reasons = [name.replace("_", " ") for name in ReasonCounts.model_fields]
    return report_of(
        Evidence(
            made_at=database.clock(),
            new_events=learned.new_events,
            watermark=learned.watermark,
            is_on=is_on,
            cells=database.preset_cells(),
            terms=database.term_cells(),
            scores=database.score_bins(),
            first_tries=database.first_verdicts(),
            active=active,
            earlier=_earlier(active, kept),
            newest=max(kept, default=None),
            samples={reason: database.sessions_with_reason(reason) for reason in reasons},
            kinds=kinds,
        )
    )


def _earlier(active: StoredProfile | None, kept: Mapping[int, StoredProfile]) -> list[StoredProfile]:
    """The profiles that the active one came after, one after the other."""
    found: list[StoredProfile] = []
    last = active
    while last and (last := kept.get(last.parent or 0)) and len(found) < _LOOKED_AT:
        found.append(last)
    return found
