"""Folds feedback into counts by edit type and label, and says what they are."""

from __future__ import annotations

import re

from edi_storage.database import EDIDatabase
from edi_storage.learning.profile import document_of
from edi_storage.models import Count, LearningCell, Record


class LearningReport(Record):
    """What one run of the aggregation added, and what is known now."""

    #: Feedback events folded in by this run; taking a verdict back is an event too.
    new_events: Count
    #: The last event folded in, by any run.
    watermark: Count
    cells: list[LearningCell]
    #: The version of what was learned that the next edits use; None before the first verdict.
    profile_version: int | None = None


def learn(database: EDIDatabase) -> LearningReport:
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
    return LearningReport(
        new_events=events,
        watermark=run.seq_to,
        cells=database.learning_cells(),
        profile_version=active.version if active else None,
    )


#: Fewer verdicts than this say little about the next one.
_ENOUGH = 5
#: Characters of a bar, and rows of the table.
_BAR = 10
_MOST_ROWS = 50


def as_markdown(report: LearningReport) -> str:
    """The report for somebody who has never heard of it."""
    new = f"{_counted(report.new_events, 'feedback event')} since the last look (a changed verdict is two)."
    if not report.cells:
        return f"## Nothing learned yet\n\n{new}\n\n{_HOW_TO_RATE}"
    return "\n\n".join(["## What people think of the edits", new, *_said(report.cells), _table(report.cells), _LEGEND])


_HOW_TO_RATE = (
    "Nobody has rated an edit that still counts. Rate one by running the deployment `record-feedback` with the id "
    "of its session, or in a terminal: `edi feedback last accept --rating 5`. It counts from the next look on."
)

_LEGEND = (
    f"Acceptance counts an accept as 1, a partial as ½ and a reject as 0. A verdict counts once for each kind of thing "
    f"that the edit was to change. Lines with fewer than {_ENOUGH} verdicts are too few to tell."
)


def _said(cells: list[LearningCell]) -> list[str]:
    """What is liked most and least, where there is enough to say so."""
    known = [cell for cell in cells if cell.count >= _ENOUGH and cell.acceptance is not None]
    if not known:
        return [f"It is early: nothing has been rated {_ENOUGH} times yet."]
    best, worst = (choose(known, key=lambda cell: cell.acceptance or 0.0) for choose in (max, min))
    lines = [f"Liked most: {_what(best)}, accepted {_percent(best.acceptance)}."]
    return lines + ([f"Liked least: {_what(worst)}, accepted {_percent(worst.acceptance)}."] if best != worst else [])


def _what(cell: LearningCell) -> str:
    return f"{_cell(cell.edit_type)} edits of {_cell(cell.label)}"


def _cell(text: str) -> str:
    """An engine's word without what Markdown might obey."""
    return re.sub(r"[^\w .,-]+|_", " ", text).strip()


def _table(cells: list[LearningCell]) -> str:
    lines = [
        "| edit | of | acceptance | verdicts | accept | partial | reject | mean rating |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(cell.edit_type)} | {_cell(cell.label)} | {_bar(cell.acceptance)} {_percent(cell.acceptance)} "
        f"| {cell.count}{'' if cell.count >= _ENOUGH else ' (few)'} | {cell.accepted} | {cell.partial} "
        f"| {cell.rejected} | {_stars(cell.mean_rating)} |"
        for cell in cells[:_MOST_ROWS]
    ]
    left_out = len(cells) - _MOST_ROWS
    return "\n".join(lines) + (f"\n\nAnd {left_out} more, with fewer verdicts: `edi learn`." if left_out > 0 else "")


def _bar(share: float | None) -> str:
    full = round((share or 0.0) * _BAR)
    return "█" * full + "░" * (_BAR - full)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _stars(rating: float | None) -> str:
    return "-" if rating is None else f"{rating:.1f} of 5"
