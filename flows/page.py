"""One session as one web page that needs nothing else: `edi show ID --html FILE`.

Everything a person wrote or an engine said is escaped; the page may fetch nothing (see its Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final

from edi_storage.models import Operation, SessionData, SessionHistory, StageCommit, UserFeedback
from edi_storage.state import feedback_key, last_attempt, step_of
from edi_storage.store import Store
from edi_storage.variations import variations_of
from flows import words
from flows.album import Album, album
from flows.engines.base import Pixels
from flows.engines.heat import LEGEND
from flows.engines.photo import SUFFIXES, PhotoFormat
from flows.engines.targets import phrase_of
from flows.engines.wishes import Wishes
from flows.inbox import SUFFIXES as SUFFIXES_TAKEN
from flows.links import (
    INBOX,
    LEARNED,
    PICTURES,
    PREFIX,
    RATINGS,
    SAVED,
    THUMBNAIL,
    again_link,
    answer_link,
    edit_link,
    has_result,
    inbox_link,
    rating_link,
    run_link,
    session_link,
)
from flows.pictures import colour_of, data_uri, labelled, shrink, tinted

#: Pixels of the longer side of the two pictures, of all masks in one, and of one mask.
_LARGE: Final = 1600
_MIDDLE: Final = 900
_SMALL: Final = 360

#: Seconds after which the page of an edit that goes on is loaded anew.
_RELOADED: Final = 5

#: What the pictures at full size are called.
_CALLED: Final = {"photo": "photo", "result": "result", "changes": "map of the changes"}

#: Photos of the inbox that are shown.
_IN_INBOX: Final = 200

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
.wide { overflow-x: auto; } .wide table { min-width: 36rem; }
.standing { font-size: 1.15rem; font-weight: 600; }
.grid .all { grid-column: span 2; grid-row: span 2; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; align-items: start; }
.grid.inbox img { aspect-ratio: 3 / 2; object-fit: contain; background: var(--line); }
.grid.inbox figcaption { overflow-wrap: anywhere; }
.list td:first-child { width: 7rem; padding-bottom: .35rem; }
.list img { aspect-ratio: 3 / 2; object-fit: contain; background: var(--line); }
details { margin-top: 2.2rem; } summary { cursor: pointer; font-weight: 600; } .ask { font-size: 1.1rem; }
.grid.wider { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: top; }
tr + tr { border-top: 1px solid var(--line); }
"""

#: Sends the chosen photos to the inbox, one after the other; meanwhile the page stays.
_UPLOAD: Final = """
const input = document.querySelector('#add'), said = document.querySelector('#said');
let busy = false;
input.addEventListener('change', async () => {
  busy = true;
  for (const file of input.files) {
    said.textContent = `Adding ${file.name} ...`;
    try {
      const name = encodeURIComponent(file.name);
      const answer = await fetch(`INBOX?name=${name}`, { method: 'PUT', body: file });
      if (!answer.ok) throw await answer.text();
    } catch (why) {
      said.textContent = `${why}`;
      input.value = '';
      return;
    }
  }
  location.reload();
});
if (RELOAD) setInterval(() => busy || location.reload(), RELOAD);
""".replace("INBOX", INBOX)

_SCRIPT: Final = """
const range = document.querySelector('.slider input');
range?.addEventListener('input', () => {
  document.querySelector('.after').style.clipPath = `inset(0 0 0 ${range.value}%)`;
  document.querySelector('.slider i').style.left = `${range.value}%`;
});
for (const time of document.querySelectorAll('time'))
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
"""


def page(store: Store, history: SessionHistory, *, served: bool = False) -> str:
    """The page of a session, as far as it has come. A picture that is lost is said to be missing.

    served: it is shown by `edi serve`, so it has links to the full-size pictures and to the form that rates it.
    """
    session = history.session
    title = escape(session.naive_prompt)
    shown = album(store, history, _LARGE)
    body = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{escape(Path(session.image_path).name)}, {_when(session.created_at)}, '
        f"session {escape(session.session_id)}</p>",
        f'<p class="standing">{escape(words.headline(history))}</p>',
        *_around(session, store.database.forks_of(session.session_id)),
        *(_asked(history, shown) if served else ()),
        *_pictures(history, shown),
        *(_links(history) if served else ()),
        *_variations(history, shown),
        *_feedback(history),
        *_understood(history),
        *_entities(history, shown),
        *_scores(history, shown),
        *_engineering(history),
    ]
    # As long as it may change; a page in a file stays as it is.
    goes_on = served and session.status == "in_progress"
    return _document(title, "\n".join(body), reload=_RELOADED if goes_on else 0)


def _engineering(history: SessionHistory) -> list[str]:
    """What few people want to see: the prompts as they were written, and who did what and when."""
    parts = [*_prompts(history), *_stages(history.commits)]
    return [f"<details><summary>How it was done, in detail</summary>{''.join(parts)}</details>"] if parts else []


def _asked(history: SessionHistory, shown: Album) -> list[str]:
    """What is asked of a person, and where they answer it."""
    session = history.session
    run = history.commits[-1].flow_run_id if history.commits else session.flow_run_id
    if session.waiting_for != "question" or not run:
        return []  # a verdict is given by the links below the pictures
    question = words.question_of(history)
    if question is None:
        return []
    answers = (answer_link(session.session_id, number) for number in range(1, len(question.choices) + 1))
    # Without numbers: what is in the photo has others further down.
    choices = "".join(
        f'<figure><a href="{escape(address)}">{_meant(choice, history, shown)}'
        f"<figcaption>{escape(choice)}</figcaption></a></figure>"
        for address, choice in zip(answers, question.choices, strict=True)
    )
    how = f"Choose one, and send the form that opens. Or answer on {_link(run_link(run), 'the page of its run')}."
    none = f"None of them? {_link(again_link(session.session_id), 'Say it in other words')}."
    return [f'<div class="ask"><div class="grid">{choices}</div><p>{how} {none}</p></div>']


def _meant(choice: str, history: SessionHistory, shown: Album) -> str:
    """Where a choice is, if it is one thing in the photo."""
    named = {phrase_of(entity, history.entities): entity.entity_id for entity in history.entities}
    mask = shown.masks.get(named.get(choice, ""))
    if mask is None or shown.before is None:
        return ""
    number = words.number_of(named[choice], history.entities)
    return f'<img src="{data_uri(tinted(shrink(shown.before, _SMALL), mask, colour_of(number)), _SMALL)}" alt="">'


def index(sessions: Sequence[SessionData], said: Mapping[str, UserFeedback], inbox: Path, photos: Sequence[str]) -> str:
    """The page of the photos in the inbox, each of which leads to the form that edits it, and of the sessions.

    `said` is what a person has said of the sessions, by their ids.
    """
    links = " · ".join(
        [
            _link(edit_link(), "Edit a photo by its path"),
            _link(LEARNED, "What EDI has learned"),
            _link("/", "The control room"),
        ]
    )
    body = [f'<h1>Photos and edits</h1><p class="links">{links}</p>', *_inbox(inbox, photos), *_listed(sessions, said)]
    goes_on = any(one.status == "in_progress" and not one.waiting_for for one in sessions)
    script = _UPLOAD.replace("RELOAD", str(1000 * _RELOADED if goes_on else 0))
    return _document("Photos and edits", "\n".join(body), own="'self'", script=script)


def _inbox(inbox: Path, photos: Sequence[str]) -> list[str]:
    shown = [
        f'<figure><a href="{escape(edit_link(name))}"><img loading="lazy" src="{escape(inbox_link(name))}" '
        f'alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></a></figure>'
        for name in photos[:_IN_INBOX]
    ]
    more = f" Of {len(photos)}, the first {_IN_INBOX} by name are shown." if len(photos) > _IN_INBOX else ""
    how = "Choose one to edit it. " if photos else ""
    kinds = escape(",".join(SUFFIXES_TAKEN))
    add = f'<label>Add photos: <input type="file" id="add" multiple accept="{kinds}"></label> <span id="said"></span>'
    folder = f"<p>{how}{add}<br>They are kept in the folder <code>{escape(str(inbox))}</code>.{more}</p>"
    return ["<h2>Photos</h2>", folder, *([f'<div class="grid inbox">{"".join(shown)}</div>'] if shown else [])]


def _listed(sessions: Sequence[SessionData], said: Mapping[str, UserFeedback]) -> list[str]:
    rows = [
        f"<tr><td>{_small(one)}</td><td>{_link(session_link(one.session_id), one.naive_prompt[:100])}</td>"
        f"<td>{escape(Path(one.image_path).name)}</td><td>{_when(one.created_at)}</td>"
        f"<td>{escape(_stands(one))}</td><td>{escape(_verdict(said.get(one.session_id)))}</td></tr>"
        for one in sessions
    ]
    cells = ("", "what was asked for", "photo", "when", "how it stands", "what you said")
    head = "".join(f"<th>{cell}</th>" for cell in cells)
    table = (
        f'<div class="wide list"><table><tr>{head}</tr>{"".join(rows)}</table></div>' if rows else "<p>None yet.</p>"
    )
    return ["<h2>Edits, the newest first</h2>", table]


def _small(session: SessionData) -> str:
    small = escape(session_link(session.session_id, THUMBNAIL))
    return f'<a href="{escape(session_link(session.session_id))}"><img loading="lazy" src="{small}" alt=""></a>'


def _stands(session: SessionData) -> str:
    score = session.final_alignment_score
    return words.standing(session) + (f", {words.fit(score)}" if score is not None else "")


def _verdict(said: UserFeedback | None) -> str:
    if said is None:
        return ""
    (meant,) = (rating.words for rating in RATINGS if rating.verdict == said.feedback_type)
    return f"{meant} {'★' * (said.rating or 0)}".strip()


def _when(moment: datetime) -> str:
    """A time that the browser turns into the person's own."""
    return f'<time datetime="{moment:%Y-%m-%dT%H:%MZ}">{moment:%Y-%m-%d %H:%M} UTC</time>'


def _around(session: SessionData, forks: Sequence[SessionData]) -> list[str]:
    """What was wished beside the prompt, where the session comes from, and what went another way from it."""
    wishes, parent = Wishes.of(session.options), session.parent_session_id
    told = {
        "Strength": f"{wishes.strength:g}" if wishes.strength is not None else "",
        "Protected": wishes.protect,
        "Only inside": f"{wishes.region} (left, top, width, height in percent)" if wishes.region else "",
        "Only where white": wishes.mask,
        "Forked from": f"{parent} at {session.forked_from_stage}" if parent else "",
        "Forks": ", ".join(f"{fork.session_id} (from {fork.forked_from_stage})" for fork in forks),
    }
    lines = [f"{escape(what)}: {escape(said)}" for what, said in told.items() if said]
    return [f"<p>{'<br>'.join(lines)}</p>"] if lines else []


def _document(title: str, body: str, own: str = "", reload: int = 0, script: str = "") -> str:
    """A whole page. `own`: where pictures come from that are not in it, and where it may send something; `reload`:
    after so many seconds it is loaded anew.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    policy += f"img-src {own}; connect-src {own}" if own else "img-src data:"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{_again_after(reload)}"
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n<script>{_SCRIPT}{script}</script>\n</body></html>\n"
    )


def _again_after(seconds: int) -> str:
    return f'<meta http-equiv="refresh" content="{seconds}">\n' if seconds else ""


def _pictures(history: SessionHistory, shown: Album) -> list[str]:
    if shown.before is None:
        return ["<p>The photo is not in the store.</p>"]
    parts = [f'<img src="{data_uri(shown.before, _LARGE)}" alt="before">']
    if shown.after is None:
        lost = history.state is not None and history.state.edited_image_path is not None
        why = "The result is not in the store: `edi doctor --repair` makes it again." if lost else "No result yet."
        told = [] if history.session.status == "failed" and not lost else [f"<p>{why}</p>"]
        return [f'<figure style="{_fit(shown.before)}">{parts[0]}</figure>', *told]
    parts += [
        f'<img class="after" src="{data_uri(shown.after, _LARGE)}" alt="after">',
        '<i></i><b style="left: .6rem">before</b><b style="right: .6rem">after</b>',
        '<input type="range" min="0" max="100" value="50" aria-label="how much of the original is shown">',
    ]
    return [f'<figure class="slider" style="{_fit(shown.before)}">{"".join(parts)}</figure>']


def _fit(picture: Pixels) -> str:
    """Never taller than most of the window, so that what follows is seen."""
    height, width = picture.shape[:2]
    return f"max-width: calc(72vh * {width / height:.4f})"


def _links(history: SessionHistory) -> list[str]:
    """Where the full-size pictures are, and where it is rated."""
    session_id = history.session.session_id
    elsewhere = f"{_link(PREFIX, 'Photos and edits')} · {_link('/', 'The control room')}"
    if not has_result(history):
        anew = [_link(again_link(session_id), "Say it in other words")] if history.session.status == "failed" else []
        return _lines(*anew, f"At full size: {_beside(session_link(session_id, 'photo'), 'photo')}", elsewhere)
    sizes = " · ".join(_beside(session_link(session_id, picture), _CALLED[picture]) for picture in PICTURES)
    saved = escape(session_link(session_id, SAVED))
    save = f'<a href="{saved}" download="{escape(saved_as(history))}">save the result</a>'
    again = _link(again_link(session_id), "Edit the original again, in other words or stronger")
    return _lines(f"At full size: {sizes} · {save}", _opinion(history), f"Not there yet? {again}", elsewhere)


def _lines(*lines: str) -> list[str]:
    return [f'<p class="links">{"<br>".join(lines)}</p>']


def _opinion(history: SessionHistory) -> str:
    """What a person has said of the attempt that is shown, and the links by which they say it.

    None while another attempt is being made: what is said then would be said of that.
    """
    assert history.state
    if history.session.status == "in_progress" and history.session.waiting_for != "review":
        return "The next attempt is being made; this is the one before."
    asked = "Rate it, with stars and in your own words:"
    if history.feedback:
        newest = max(history.feedback, key=lambda said: said.created_at)
        mine = newest.feedback_key == feedback_key(last_attempt(history.state.model_dump(mode="json")))
        of, then = ("", "Change it:") if mine else (f" of {newest.feedback_key.replace('-', ' ')}", "And of this one?")
        asked = f"You said{of}: {escape(_verdict(newest))}. {then}"
    ratings = (_link(rating_link(history.session.session_id, rating), rating.words) for rating in RATINGS)
    return f"{asked} {' · '.join(ratings)}"


def _beside(address: str, text: str) -> str:
    """A link that opens beside the page: a picture has no way back."""
    return f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(text)}</a>'


def saved_as(history: SessionHistory) -> str:
    """The name of the result where a person saves it: the photo's, and "edited"."""
    assert history.state
    kind: PhotoFormat = history.state.scene_analysis["image"]["format"]
    return f"{Path(history.session.image_path).stem}-edited{SUFFIXES[kind]}"


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def _variations(history: SessionHistory, shown: Album) -> list[str]:
    """The variations side by side, and which was taken."""
    made = variations_of(history.state.model_dump(mode="json")) if history.state else []
    figures = []
    for number, one in enumerate(made, 1):
        picture = "(its picture is missing: <code>edi doctor --repair</code> makes it again)"
        if number in shown.variations:
            picture = f'<img src="{data_uri(shown.variations[number], _MIDDLE)}" alt="variation {number}">'
        name = f"<strong>{number}</strong> {escape(one['words'])}"
        figures.append(f"<figure>{picture}<figcaption>{name}</figcaption></figure>")
    told = words.listed_variations(history)[len(made) :]
    grid = f'<div class="grid wider">{"".join(figures)}</div>'
    return ["<h2>Variations</h2>", grid, *(f"<p>{escape(line)}</p>" for line in told)] if figures else []


def _entities(history: SessionHistory, shown: Album) -> list[str]:
    """Every entity with its number, in the picture of all of them and in one of its own."""
    if not history.entities or shown.before is None:
        return []
    names, before = words.names_of(history.entities), shrink(shown.before, _MIDDLE)
    numbered = dict(enumerate(words.largest_first(history.entities), 1))
    masks = {number: shown.masks[e.entity_id] for number, e in numbered.items() if e.entity_id in shown.masks}
    figures = [f'<figure class="all"><img src="{data_uri(labelled(before, masks), _MIDDLE)}" alt="all"></figure>']
    small = shrink(before, _SMALL)
    for number, entity in numbered.items():
        picture = "(its mask is missing)"
        if number in masks:
            picture = f'<img src="{data_uri(tinted(small, masks[number], colour_of(number)), _SMALL)}" alt="">'
        name = f"<strong>{number}. {escape(names[entity.entity_id])}</strong>"
        what = f"{words.percent(entity.area_percent)} of the picture, {100 * entity.confidence:.0f} % certain"
        figures.append(f"<figure>{picture}<figcaption>{name}<br>{what}</figcaption></figure>")
    return ["<h2>What is in the photo</h2>", f'<div class="grid">{"".join(figures)}</div>']


def _understood(history: SessionHistory) -> list[str]:
    intent, entities = history.intent, history.entities
    if intent is None:
        return []
    lines = [f"{words.understood(intent, entities)} and strength {intent.strength:.2f}."]
    if intent.preserve_entities:
        lines.append(f"To be kept as they are: {words.called(intent.preserve_entities, entities)}.")
    if intent.question:
        said = f"You said: {intent.question.choices[intent.answer - 1]}." if intent.answer else "Not answered yet."
        lines.append(f"{intent.question.text} {said}")
    return ["<h2>What was understood</h2>", *(f"<p>{escape(line[0].upper() + line[1:])}</p>" for line in lines)]


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
    table = _table(("step", "do", "do not", "quality"), rows)
    return ["<h2>How the prompt grew</h2>", table, f'<p class="soft">{escape(words.QUALITY)}</p>']


def _scores(history: SessionHistory, shown: Album) -> list[str]:
    attempts = words.attempts_of(history)
    rows = []
    for scored in history.validations:
        attempt = attempts.get(scored.attempt_number, {})
        operations = [Operation.model_validate(operation) for operation in attempt.get("operations", [])]
        deltas = words.deltas_of(attempt)
        rows.append(
            (
                str(scored.attempt_number),
                words.operations(operations, history.entities),
                words.formula(deltas) if deltas else f"{scored.alignment_score:.2f}",
                words.decision_in_words(attempt["decision"]) if "decision" in attempt else "",
            )
        )
    if not rows:
        return []
    table = _table(("attempt", "edit", "alignment", "in short"), rows)
    about = f'<p class="soft">{escape(words.ALIGNMENT)}</p>'
    return ["<h2>How well it fits</h2>", table, about, *_changes(history, shown)]


def _changes(history: SessionHistory, shown: Album) -> list[str]:
    """What each attempt changed, as heat maps beside each other."""
    figures = []
    for number, attempt in words.attempts_of(history).items():
        if "delta_image_path" not in attempt:
            continue
        picture = "(its picture is missing: <code>edi doctor --repair</code> makes it again)"
        if number in shown.deltas:
            picture = f'<img src="{data_uri(shown.deltas[number], _MIDDLE)}" alt="what attempt {number} changed">'
        changed = words.changes(words.deltas_of(attempt), history.entities)
        caption = "<br>".join([f"<strong>Attempt {number}</strong>", *map(escape, changed)])
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    if not figures:
        return []
    grid = f'<div class="grid wider">{"".join(figures)}</div>'
    return ["<h2>What it changed</h2>", grid, f'<p class="soft">{escape(LEGEND)}<br>{escape(words.DELTA_E)}</p>']


def _stages(commits: Sequence[StageCommit]) -> list[str]:
    if not commits:
        return []
    rows = [
        (
            _stage(commit),
            str(commit.attempt),
            f"{commit.engine} {commit.engine_version}",
            f"{commit.finished_at:%H:%M:%S}",
            f"{(commit.finished_at - commit.started_at).total_seconds():.1f} s",
        )
        for commit in commits
    ]
    return ["<h2>What was done</h2>", _table(("stage", "attempt", "by", "finished (UTC)", "took"), rows)]


def _stage(commit: StageCommit) -> str:
    """Without its attempt, which has a column of its own."""
    step = step_of(commit)
    return replace(step, attempt=1).label if step else commit.stage


def _feedback(history: SessionHistory) -> list[str]:
    if not history.feedback:
        return []
    rows = [(_verdict(said), ", ".join(said.reasons), said.comments or "") for said in history.feedback]
    return ["<h2>What was said of it</h2>", _table(("verdict", "reasons", "comment"), rows)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
