"""Folding feedback in, and making of it the profile that the next edits ask."""

from __future__ import annotations

from edi_storage.database import EDIDatabase
from edi_storage.learning.profile import document_of
from edi_storage.record import Count, Record, Whole


class Learned(Record):
    """What one run of the aggregation added."""

    #: Feedback events folded in by this run; taking a verdict back is an event too.
    new_events: Count
    #: The last event folded in, by any run.
    watermark: Count
    #: The version of what was learned that the next edits use; None before the first verdict.
    profile_version: Whole | None = None


def learn(database: EDIDatabase) -> Learned:
    """Fold all new feedback in, some tens of thousands of events a transaction, and make a profile of it.

    Again adds nothing. The profile is used from now on, unless a person has gone back to an older one.
    """
    events = 0
    run = database.fold_feedback()
    while run.events:
        events += run.events
        run = database.fold_feedback()
    if run.seq_to:
        # Read after the folding, so that it may know of more events than `seq_to`; the next run says so.
        database.save_profile(document_of(database.preset_cells()), run.seq_to)
    active = database.active_profile()
    return Learned(new_events=events, watermark=run.seq_to, profile_version=active.version if active else None)
