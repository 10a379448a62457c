"""Gathering what the report is made from."""

from __future__ import annotations

from collections.abc import Mapping

from edi_storage.database import EDIDatabase
from edi_storage.learning.report import Evidence, Kind, Report, report_of
from edi_storage.learning_models import ReasonCounts


def report_on(database: EDIDatabase, kinds: Mapping[str, Kind], *, new_events: int = 0, watermark: int = 0) -> Report:
    """The report on what is in the database now; `kinds` are the ways that the engines have to do each kind of edit."""
    active = database.active_profile()
    before = database.get_profile(active.parent) if active and active.parent else None
    reasons = [name.replace("_", " ") for name in ReasonCounts.model_fields]
    return report_of(
        Evidence(
            made_at=database.clock(),
            new_events=new_events,
            watermark=watermark,
            cells=database.preset_cells(),
            terms=database.term_cells(),
            scores=database.score_bins(),
            first_tries=database.first_verdicts(),
            active=active,
            before=before,
            newest=next((profile.version for profile in database.profiles(limit=1)), None),
            samples={reason: database.sessions_with_reason(reason) for reason in reasons},
            kinds=kinds,
        )
    )
