"""The report as the artifact of `learn-from-feedback`: Markdown with tables and plots, as Prefect's UI shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edi_storage.learning.report import Cell, Report, kind_of
from flows.learned import plots, words
from flows.links import session_link
from flows.markdown import plain, table
from flows.words import reason


def as_markdown(report: Report, pages: Mapping[str, str] | None = None) -> str:
    """The page, under 200 KB; text of engines and persons is shown, never obeyed.

    pages: what to call the sessions, by their ids, where they have pages (flows/viewer.py) that are linked to.
    """
    first = [f"## {plain(words.title(report))}", *map(plain, words.standing(report)), f"*{words.stamp(report)}*"]
    parts = [*first, f"### {words.since(report)}", _list(words.changes(report))]
    if report.profile is not None:
        parts += [f"### {words.COMING}", _list(words.coming(report))]
    if report.verdicts:
        parts += [*_trend(report), *_cells(report), *_calibration(report), *_phrases(report), *_reasons(report, pages)]
        parts += [
            f"### {words.HOW_COUNTED}",
            plain(words.EXPLANATION + words.not_compared(report)),
            plain(words.new_events(report)),
        ]
    return "\n\n".join(parts)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def _trend(report: Report) -> list[str]:
    plot = plots.trend(report)
    return [f"### {words.TREND}", f"![first tries over time]({plots.as_uri(plot)})", words.OF_TREND] if plot else []


def _cells(report: Report) -> list[str]:
    shown, more = words.cells(report)
    rated = any(cell.rating is not None for cell in shown)
    rows = [
        [
            plain(words.edits(cell.edit_type, cell.label, kind_of(cell.preset))),
            plain(words.way(cell.preset)),
            str(cell.n),
            *_judged(cell),
            *(["-" if cell.rating is None else f"{cell.rating:.1f} of 5"] if rated else []),
        ]
        for cell in shown
    ]
    head = ["edit", "way", "ratings", "accepted", "95 % interval", *(["stars"] if rated else [])]
    return [f"### {words.CELLS}", table(head, rows), *([plain(more)] if more else [])]


def _judged(cell: Cell) -> list[str]:
    if not cell.enough:
        return [words.too_few(cell), ""]
    return [f"{words.bar(cell.low, cell.mean, cell.high)} {words.percent(cell.mean)}", _span(cell)]


def _span(cell: Cell) -> str:
    return f"{100 * cell.low:.0f} to {100 * cell.high:.0f} %"


def _calibration(report: Report) -> list[str]:
    plot = plots.calibration(report)
    picture = [f"![accepted by score]({plots.as_uri(plot)})"] if plot else []
    return [f"### {words.SCORE}", *picture, _list(words.calibration(report))]


def _phrases(report: Report) -> list[str]:
    head = ["word", "ratings", "accepted", "edits like these", "z"]
    rows = [
        [plain(one.term), str(one.n), words.percent(one.mean), words.percent(one.expected), f"{one.z:+.1f}"]
        for one in report.phrases
    ]
    return [f"### {words.WORDS}", table(head, rows) if rows else words.no_phrases(report)]


def _reasons(report: Report, pages: Mapping[str, str] | None) -> list[str]:
    rows = [[reason(why.reason), str(why.count), ", ".join(_sessions(why.sessions, pages))] for why in report.reasons]
    return (
        [f"### {words.COMPLAINTS}", table(["reason", "times", "for example"], rows), words.OF_COMPLAINTS]
        if rows
        else []
    )


def _sessions(ids: Iterable[str], pages: Mapping[str, str] | None) -> Iterable[str]:
    if pages is None:
        return (f"`edi show {session_id}`" for session_id in ids)
    return (f"[{plain(pages.get(session_id, session_id))}]({session_link(session_id)})" for session_id in ids)
