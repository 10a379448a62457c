"""One session as one web page that needs nothing else: `edi show ID --html FILE`.

Everything a person wrote or an engine said is escaped; the page may fetch nothing (see its Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Final

from edi_storage.errors import EdiError
from edi_storage.models import SessionHistory, StageCommit
from edi_storage.store import Store
from flows.engines.base import Pixels
from flows.engines.photo import decode_mask, decode_photo
from flows.pictures import data_uri, tinted

#: Pixels of the longer side of the two pictures, and of a mask.
_LARGE: Final = 1600
_SMALL: Final = 360

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.soft { opacity: .7; } figure { margin: 0; } img { display: block; width: 100%; border-radius: 6px; }
.slider { position: relative; margin-top: 1.2rem; }
.slider .after { position: absolute; inset: 0; clip-path: inset(0 0 0 50%); }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.slider i { position: absolute; top: 0; bottom: 0; left: 50%; width: 2px; background: #fff; box-shadow: 0 0 3px #000; }
.slider b { position: absolute; bottom: .6rem; padding: .1rem .6rem; border-radius: 1rem; }
.slider b { background: #000a; color: #fff; }
.facts { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 0; padding: 0; list-style: none; }
.facts li { border: 1px solid var(--line); border-radius: 6px; padding: .4rem .9rem; }
.facts strong { display: block; font-size: 1.2rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: top; }
tr + tr { border-top: 1px solid var(--line); }
"""

_SCRIPT: Final = """
const range = document.querySelector('.slider input');
range?.addEventListener('input', () => {
  document.querySelector('.after').style.clipPath = `inset(0 0 0 ${range.value}%)`;
  document.querySelector('.slider i').style.left = `${range.value}%`;
});
"""


def page(store: Store, history: SessionHistory) -> str:
    """The page of a session, as far as it has come. A picture that is lost is said to be missing."""
    session = history.session
    title = escape(session.naive_prompt)
    body = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{escape(Path(session.image_path).name)}, {session.created_at:%Y-%m-%d %H:%M} UTC, '
        f"session {escape(session.session_id)}</p>",
        *_pictures(store, history),
        _facts(history),
        *_entities(store, history),
        *_prompts(history),
        *_stages(history.commits),
        *_feedback(history),
    ]
    return _document(title, "\n".join(body))


def _document(title: str, body: str) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _photo(store: Store, path: str | None) -> Pixels | None:
    """The pixels of a stored picture; None for one that is not there or cannot be read."""
    try:
        return decode_photo(store.files.read(path)).pixels if path else None
    except EdiError:
        return None


def _original(store: Store, history: SessionHistory) -> Pixels | None:
    image = history.state.scene_analysis.get("image", {}) if history.state else {}
    return _photo(store, image.get("path"))


def _pictures(store: Store, history: SessionHistory) -> list[str]:
    before = _original(store, history)
    after = _photo(store, history.state.edited_image_path if history.state else None)
    if before is None:
        return ["<p>The photo is not in the store.</p>"]
    shown = [f'<img src="{data_uri(before, _LARGE)}" alt="before">']
    if after is None:
        return [f"<figure>{shown[0]}</figure>", "<p>There is no result yet.</p>"]
    shown += [
        f'<img class="after" src="{data_uri(after, _LARGE)}" alt="after">',
        '<i></i><b style="left: .6rem">before</b><b style="right: .6rem">after</b>',
        '<input type="range" min="0" max="100" value="50" aria-label="how much of the original is shown">',
    ]
    return [f'<figure class="slider">{"".join(shown)}</figure>']


def _facts(history: SessionHistory) -> str:
    session, intent = history.session, history.intent
    facts = [("status", session.status.replace("_", " "))]
    if session.decision:
        facts.append(("decision", session.decision.replace("_", " ")))
    if history.validations:
        best = max(history.validations, key=lambda scored: scored.alignment_score)
        facts += [
            ("alignment", f"{best.alignment_score:.2f}"),
            ("changed as asked", str(best.modified_count)),
            ("preserved", str(best.preserved_count)),
            ("changed by accident", str(best.unintended_count)),
            ("attempts", str(len(history.validations))),
        ]
    if intent:
        look = intent.action.replace("_", " ") or intent.edit_type
        facts.append(("understood", f"{look} ({intent.confidence:.2f})"))
    items = "".join(
        f'<li><span class="soft">{name}</span><strong>{escape(value)}</strong></li>' for name, value in facts
    )
    why = f"<p>{escape(session.failure_reason)}</p>" if session.failure_reason else ""
    return f'<ul class="facts">{items}</ul>{why}'


def _entities(store: Store, history: SessionHistory) -> list[str]:
    before = _original(store, history)
    if not history.entities or before is None:
        return []
    figures = []
    for entity in history.entities:
        what = f"{escape(entity.entity_id)}, {entity.area_percent or 0:.0f} %, confidence {entity.confidence:.2f}"
        try:
            mask = decode_mask(store.files.read(entity.mask_path or ""))
            picture = f'<img src="{data_uri(tinted(before, mask, _SMALL), _SMALL)}" alt="">'
        except EdiError:
            picture = "(its mask is missing)"
        figures.append(f"<figure>{picture}<figcaption>{what}</figcaption></figure>")
    return ["<h2>What was found</h2>", f'<div class="grid">{"".join(figures)}</div>']


def _prompts(history: SessionHistory) -> list[str]:
    if not history.prompts:
        return []
    rows = [
        (
            f"{prompt.attempt_number}.{prompt.iteration}",
            prompt.positive_prompt,
            prompt.negative_prompt,
            f"{prompt.quality_score or 0:.2f}",
        )
        for prompt in history.prompts
    ]
    return ["<h2>How the prompt grew</h2>", _table(("step", "do", "do not", "quality"), rows)]


def _stages(commits: Sequence[StageCommit]) -> list[str]:
    if not commits:
        return []
    rows = [
        (
            f"refine {commit.iteration}" if commit.stage == "refinement" else commit.stage,
            str(commit.attempt),
            f"{commit.engine} {commit.engine_version}",
            f"{commit.finished_at:%H:%M:%S}",
            f"{(commit.finished_at - commit.started_at).total_seconds():.1f} s",
        )
        for commit in commits
    ]
    return ["<h2>What was done</h2>", _table(("stage", "attempt", "by", "finished (UTC)", "took"), rows)]


def _feedback(history: SessionHistory) -> list[str]:
    if not history.feedback:
        return []
    rows = [
        (said.feedback_type, f"{said.rating} of 5" if said.rating else "", ", ".join(said.reasons), said.comments or "")
        for said in history.feedback
    ]
    return ["<h2>What was said of it</h2>", _table(("verdict", "rating", "reasons", "comment"), rows)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
