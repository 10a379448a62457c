"""Folds feedback into counts by edit type and label, and says what they are."""

from __future__ import annotations

from edi_storage.database import EDIDatabase
from edi_storage.models import Count, LearningCell, Record


class LearningReport(Record):
    """What one run of the aggregation added, and what is known now."""

    #: Feedback events folded in by this run; taking a verdict back is an event too.
    new_events: Count
    #: The last event folded in, by any run.
    watermark: Count
    cells: list[LearningCell]


def learn(database: EDIDatabase) -> LearningReport:
    """Fold all new feedback in, some tens of thousands of events a transaction. Again adds nothing."""
    events = 0
    run = database.fold_feedback()
    while run.events:
        events += run.events
        run = database.fold_feedback()
    return LearningReport(new_events=events, watermark=run.seq_to, cells=database.learning_cells())


def as_markdown(report: LearningReport) -> str:
    """The report as a markdown table."""
    lines = [
        f"{report.new_events} new verdicts since the last time.",
        "",
        "| edit type | of | verdicts | accepted | partial | rejected | acceptance | mean rating |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {cell.edit_type} | {cell.label} | {cell.count} | {cell.accepted} | {cell.partial} | {cell.rejected} "
        f"| {_percent(cell.acceptance)} | {_stars(cell.mean_rating)} |"
        for cell in report.cells
    ]
    return "\n".join(lines) if report.cells else "No feedback yet."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _stars(rating: float | None) -> str:
    return "-" if rating is None else f"{rating:.1f}"
