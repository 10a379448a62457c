"""Folding feedback in, and making of it the profile that the next edits ask."""

from __future__ import annotations

from edi_storage.database import EDIDatabase
from edi_storage.learning.profile import document_of
from edi_storage.models import Count, Record


class Learned(Record):
    """What one run added."""

    #: Feedback events folded in by this run; taking a verdict back is an event too.
    new_events: Count
    #: The last event folded in, by any run.
    watermark: Count


def learn(database: EDIDatabase) -> Learned:
    """Fold all new feedback in, and keep what follows as a profile. Again adds nothing.

    A profile that differs from the newest one becomes the active one, unless a person has gone back to an older one.
    """
    events = 0
    run = database.fold_feedback()
    while run.events:
        events += run.events
        run = database.fold_feedback()
    document = document_of(database.preset_cells())
    # Without a choice to learn from there is nothing to ask.
    if document["presets"] or document["strengths"]:
        database.save_profile(document, run.seq_to)
    return Learned(new_events=events, watermark=run.seq_to)
