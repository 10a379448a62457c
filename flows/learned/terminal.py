"""The report in the terminal: the first screen says whether it helps, what changed, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Final

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edi_storage.learning.report import Cell, Report, kind_of
from flows.learned import words

_COLOURS: Final = {"helps": "green", "harms": "red", "not yet proven": "yellow", "too early": "cyan"}
_WIDEST: Final = 100
_PLAIN: Final = str.maketrans({"“": '"', "”": '"', "█": "#", "▒": "=", "·": ".", "\N{MINUS SIGN}": "-"})


def show(report: Report, file: IO[str] | None = None, *, brief: bool = False, width: int | None = None) -> None:
    """Print it, in colour where that is shown, at most 100 columns wide; `brief`: no more than the first screen."""
    console = Console(file=file, width=width, highlight=False)
    if width is None:
        console.width = min(_WIDEST, console.width)
    parts = [*_first_screen(report)]
    if brief:
        parts.append(Text(f"\n{words.new_events(report)}\nAll of it: edi learn --report", style="dim"))
    elif report.verdicts:
        parts += _rest(report)
    write(console, parts)


def write(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print the parts; where only plain letters can be shown, with plain letters in place of the others."""
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    text = captured.get()
    console.file.write(text if console.encoding.startswith("utf") else text.translate(_PLAIN))


def _first_screen(report: Report) -> Iterable[RenderableType]:
    yield _first(report)
    yield from _listed(words.since(report), words.changes(report))
    if report.profile is not None:
        yield from _listed(words.COMING, words.coming(report))


def _rest(report: Report) -> Iterable[RenderableType]:
    yield from _headed(words.CELLS, _cells(report))
    if len(report.trend) > 1:
        yield from _headed(words.TREND, _trend(report))
    yield from _listed(words.SCORE, words.calibration(report))
    yield from _headed(words.WORDS, _phrases(report))
    if report.reasons:
        yield from _headed(words.COMPLAINTS, _reasons(report), Text(words.OF_COMPLAINTS, style="dim"))
    yield from _headed(words.HOW_COUNTED, Text(words.EXPLANATION + words.not_compared(report), style="dim"))


def _first(report: Report) -> Panel:
    colour = _COLOURS[report.uplift.proof] if report.verdicts else "cyan"
    lines = [Text(words.title(report), style=f"bold {colour}"), *(Text(line) for line in words.standing(report))]
    return Panel(Group(*lines), title=escape(words.stamp(report)), title_align="left", border_style=colour)


def _headed(title: str, *parts: RenderableType) -> Iterable[RenderableType]:
    yield Text(f"\n{title}", style="bold")
    yield from parts


def _listed(title: str, lines: Iterable[str]) -> Iterable[RenderableType]:
    table = Table.grid(padding=(0, 1))
    for line in lines:
        table.add_row("-", Text(line))
    yield from _headed(title, table)


def _cells(report: Report) -> Group:
    table = _table("edit", "way", "ratings", "accepted", "of 100 (95 %)")
    shown, more = words.cells(report)
    for cell in shown:
        table.add_row(
            words.edits(cell.edit_type, cell.label, kind_of(cell.preset)), _way(cell), str(cell.n), *_judged(cell)
        )
    return Group(table, *([Text(more, style="dim")] if more else []))


def _way(cell: Cell) -> str:
    return escape(words.way(cell.preset))


def _judged(cell: Cell) -> tuple[Text, Text]:
    if not cell.enough:
        return Text(words.too_few(cell), style="dim"), Text()
    return Text(words.bar(cell.low, cell.mean, cell.high)), Text(words.span(cell.mean, cell.low, cell.high))


def _trend(report: Report) -> Group:
    table = _table("up to", "accepted with learning", "of 100 (95 %)", "rated")
    for point in report.trend:
        known = point.learned
        bar = words.bar(known.low, known.mean, known.high) if known.n else "-"
        span = words.span(known.mean, known.low, known.high) if known.n else "-"
        table.add_row(f"{point.until:%Y-%m-%d}", bar, span, str(known.n))
    return Group(table, *([Text(words.without(report), style="dim")] if words.without(report) else []))


def _phrases(report: Report) -> RenderableType:
    if not report.phrases:
        return Text(words.no_phrases(report))
    table = _table("word", "ratings", "accepted", "like edits", "z")
    for phrase in report.phrases:
        shares = (words.percent(phrase.mean), words.percent(phrase.expected))
        table.add_row(escape(phrase.term), str(phrase.n), *shares, f"{phrase.z:+.1f}")
    return table


def _reasons(report: Report) -> Table:
    table = _table("reason", "times", "for example (edi show ID)")
    for why in report.reasons:
        table.add_row(why.reason, str(why.count), escape(", ".join(why.sessions)))
    return table


def _table(*head: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        table.add_column(name, justify="right" if name in ("ratings", "rated", "times", "z") else "left")
    return table
