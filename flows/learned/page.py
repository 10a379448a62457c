"""The report as one web page that needs nothing else: `edi learn --html FILE`. It may fetch nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from edi_storage.learning.report import Cell, Report, kind_of
from flows.learned import plots, words
from flows.links import CONTROL_ROOM, PREFIX, session_link
from flows.words import reason

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --good: #2f9e58; --bad: #d6453d; --open: #c98a12; --early: #2f7fd1; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.soft { opacity: .7; } ul { padding-left: 1.2rem; margin: .4rem 0; } li { margin: .25rem 0; }
.first { border-left: 6px solid var(--mark); padding: .2rem 0 .2rem 1.1rem; }
.first p { margin: .3rem 0; }
.badge { display: inline-block; background: var(--mark); color: #fff; border-radius: 1rem; padding: .05rem .8rem;
  font-size: .9rem; font-weight: 600; margin-bottom: .5rem; }
.helps { --mark: var(--good); } .harms { --mark: var(--bad); } .open { --mark: var(--open); }
.early { --mark: var(--early); }
.scale { position: relative; height: 3.4rem; margin: .8rem 0 0; max-width: 44rem; }
.scale i, .scale b, .scale span { position: absolute; }
.scale i { top: 1rem; left: 0; right: 0; height: 1px; background: var(--line); }
.scale .zero { top: .3rem; height: 1.4rem; width: 2px; background: currentColor; opacity: .6; }
.scale .span { top: .7rem; height: .65rem; border-radius: .4rem; background: var(--mark); opacity: .45; }
.scale .at { top: .45rem; width: 5px; height: 1.15rem; margin-left: -2px; background: var(--mark); border-radius: 2px; }
.scale span { top: 1.9rem; transform: translateX(-50%); font-size: .85rem; white-space: nowrap; }
.scale .left { left: 0; transform: none; } .scale .right { right: 0; transform: none; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2.5rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: middle; }
tr + tr { border-top: 1px solid var(--line); }
th { font-weight: 600; font-size: .9rem; opacity: .75; }
.bar { position: relative; width: min(12rem, 24vw); height: .8rem; border-radius: .4rem; background: #8883; }
.bar b { position: absolute; top: 0; height: 100%; border-radius: .4rem; background: #2f7fd1; opacity: .4; }
.bar i { position: absolute; top: -.15rem; width: 4px; height: 1.1rem; margin-left: -2px; background: #2f7fd1; }
@media (max-width: 40rem) { .bar, .scale span:not(.left):not(.right) { display: none; } }
img { display: block; width: 100%; max-width: 46rem; }
code { font-size: .9em; }
"""

_MARKS: Final = {"helps": "helps", "harms": "harms", "not yet proven": "open", "too early": "early"}


def page(report: Report, pages: Mapping[str, str] | None = None) -> str:
    """The page. pages: what to call the sessions, by their ids, where `edi serve` shows it and their pages."""
    body = [
        *(_elsewhere() if pages is not None else ()),
        *_first(report),
        '<div class="two">',
        *_changed(report),
        *_coming(report),
        "</div>",
    ]
    if report.verdicts:
        body += [
            *_trend(report),
            *_cells(report),
            *_calibration(report),
            *_phrases(report),
            *_reasons(report, pages),
        ]
        body += [
            f'<h2>{words.HOW_COUNTED}</h2><p class="soft">{escape(words.EXPLANATION + words.not_compared(report))}</p>'
        ]
    return _document("What EDI has learned", "\n".join(body))


def _document(title: str, body: str) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _elsewhere() -> list[str]:
    links = f'<p><a href="{PREFIX}">Photos and edits</a> · <a href="{CONTROL_ROOM}">The control room</a></p>'
    return [links, '<p class="soft">New ratings are counted whenever this page is opened, and once an hour.</p>']


def _first(report: Report) -> list[str]:
    proof = report.uplift.proof if report.verdicts else "too early"
    lines = "".join(f"<p>{_code(line)}</p>" for line in words.standing(report))
    return [
        f'<p class="soft">What EDI has learned. {escape(words.stamp(report))}</p>',
        f'<div class="first {_MARKS[proof]}"><span class="badge">{words.STANDING[proof]}</span>',
        f"<h1>{escape(words.title(report))}</h1>{lines}{_scale(report)}</div>",
    ]


def _code(line: str) -> str:
    """Escaped, with commands set as such."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(line))


def _scale(report: Report) -> str:
    """The estimate on a line around 0, in first tries of a hundred."""
    known = report.uplift
    if known.estimate is None or known.low is None or known.high is None:
        return ""
    reach = max(0.2, abs(known.low), abs(known.high)) * 1.15

    def at(value: float) -> str:
        return f"left:{50 + 50 * value / reach:.1f}%"

    width = f"width:{50 * (known.high - known.low) / reach:.1f}%"
    return (
        f'<div class="scale"><i></i><b class="zero" style="{at(0)}"></b>'
        f'<b class="span" style="{at(known.low)};{width}"></b><b class="at" style="{at(known.estimate)}"></b>'
        f'<span style="{at(0)}">no difference</span>'
        '<span class="left">fewer accepted</span><span class="right">more accepted</span></div>'
    )


def _changed(report: Report) -> list[str]:
    return [f"<div><h2>{escape(words.since(report))}</h2>{_list(words.changes(report))}</div>"]


def _coming(report: Report) -> list[str]:
    if report.profile is None:
        return []
    return [f"<div><h2>{words.COMING}</h2>{_list(words.coming(report))}</div>"]


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_code(line)}</li>' for line in lines)}</ul>"


def _plot(svg: str | None, name: str) -> str:
    return f'<img src="{plots.as_uri(svg)}" alt="{name}">' if svg else ""


def _trend(report: Report) -> list[str]:
    plot = _plot(plots.trend(report), "first tries over time")
    return [f"<h2>{words.TREND}</h2>", plot, f'<p class="soft">{words.OF_TREND}</p>'] if plot else []


def _cells(report: Report) -> list[str]:
    shown, more = words.cells(report)
    rated = any(cell.rating is not None for cell in shown)
    rows = [
        (
            escape(words.edits(cell.edit_type, cell.label, kind_of(cell.preset))),
            escape(words.way(cell.preset)),
            str(cell.n),
            *_judged(cell),
            *(["" if cell.rating is None else f"{cell.rating:.1f} of 5"] if rated else []),
        )
        for cell in shown
    ]
    head = ("edit", "way", "ratings", "accepted (0 to 100 %)", "95 % interval", *(["stars"] if rated else []))
    told = [f'<p class="soft">{escape(more)}</p>'] if more else []
    return [f"<h2>{words.CELLS}</h2>", _table(head, rows), *told]


def _judged(cell: Cell) -> tuple[str, str]:
    if not cell.enough:
        return f'<span class="soft">{words.too_few(cell)}</span>', ""
    left, width, mean = 100 * cell.low, 100 * (cell.high - cell.low), 100 * cell.mean
    inner = f'<b style="left:{left:.1f}%;width:{width:.1f}%"></b><i style="left:{mean:.1f}%"></i>'
    return f'<div class="bar">{inner}</div>', f"{mean:.0f} % ({left:.0f} to {100 * cell.high:.0f})"


def _calibration(report: Report) -> list[str]:
    plot = _plot(plots.calibration(report), "accepted by score")
    return [f"<h2>{words.SCORE}</h2>", plot, _list(words.calibration(report))]


def _phrases(report: Report) -> list[str]:
    rows = [
        (escape(one.term), str(one.n), words.percent(one.mean), words.percent(one.expected), f"{one.z:+.1f}")
        for one in report.phrases
    ]
    shown = _table(("word", "ratings", "accepted", "edits like these", "z"), rows)
    return [f"<h2>{words.WORDS}</h2>", shown if rows else f"<p>{words.no_phrases(report)}</p>"]


def _reasons(report: Report, pages: Mapping[str, str] | None) -> list[str]:
    def shown(session_id: str) -> str:
        if pages is None:
            return f"<code>edi show {escape(session_id)}</code>"
        return f'<a href="{escape(session_link(session_id))}">{escape(pages.get(session_id, session_id))}</a>'

    rows = [(reason(why.reason), str(why.count), ", ".join(map(shown, why.sessions))) for why in report.reasons]
    if not rows:
        return []
    told = f'<p class="soft">{words.OF_COMPLAINTS}</p>'
    return [f"<h2>{words.COMPLAINTS}</h2>", _table(("reason", "times", "for example"), rows), told]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
