"""`edi learn --explain ID`: why a session got its preset, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edi_storage.learning.explanation import Alternative, Explanation
from edi_storage.learning.report import STRENGTH, kind_of
from flows.learned import words
from flows.learned.terminal import write


def show(session_id: str, explained: Sequence[Explanation], file: IO[str] | None = None) -> None:
    """Print it."""
    console = Console(file=file, highlight=False)
    lines = [line for one in explained for line in _told(one)]
    write(
        console, lines or [f"Session {escape(session_id)} was made before EDI wrote down why it chose what it chose."]
    )


def _told(one: Explanation) -> Iterable[str | Table]:
    made = one.decision
    what = words.edits(made.edit_type, made.label, kind_of(made.preset))
    yield f"[bold]Attempt {made.attempt}[/bold], {escape(what)}"
    if not made.is_open:
        yield "There was nothing to choose: it was done as you said, or there is one way to do it only."
        return
    yield _why(one)
    if len(one.presets) > 1:
        yield _table("way", one.presets)
    if len(one.strengths) > 1:
        yield _table(STRENGTH, one.strengths)


def _why(one: Explanation) -> str:
    made = one.decision
    done = f"Done in the way “{escape(words.way(made.preset))}”"
    done += f", strength {words.level(made.strength)}" if made.strength else ""
    if made.profile_version is None:
        return f"{done}: nothing had been learned yet, or learning was switched off."
    if made.holdout:
        return (
            f"{done}: it is one of the tenth of all edits that are made as if nothing had been learned, to see "
            f"whether learning (profile {made.profile_version}) helps."
        )
    if made.propensity == 1.0 and len(one.presets) == 1:
        return f"{done}, as the attempt before (profile {made.profile_version})."
    gone = "" if one.profile_known else ", which is not kept any more"
    return f"{done}: drawn with these chances, which follow from profile {made.profile_version}{gone}."


def _table(head: str, alternatives: Sequence[Alternative]) -> Table:
    table = Table(box=None, header_style="dim")
    for name in (head, "chance", "ratings then", "liked", "expected"):
        table.add_column(name, justify="left" if name == head else "right")
    for one in alternatives:
        name = words.level(int(one.name)) if head == STRENGTH else words.way(one.name)
        liked = words.percent((one.reward or 0.0) / one.verdicts) if one.verdicts else "-"
        verdicts = "-" if one.verdicts is None else f"{one.verdicts:g}"
        expected = "-" if one.expected is None else words.percent(one.expected)
        style = "bold" if one.chosen else None
        mark = f"{name} *" if one.chosen else name
        table.add_row(escape(mark), words.percent(one.chance), verdicts, liked, expected, style=style)
    return table
