"""One session as one web page that needs nothing else: `edi show ID --html FILE`.

Everything a person wrote or an engine said is escaped; the page may fetch nothing (see its Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from edi_storage.models import MAX_ATTEMPTS, Operation, SessionData, SessionHistory, StageCommit, UserFeedback
from edi_storage.steps import Step, feedback_key, last_attempt, next_step, step_of
from edi_storage.store import Store
from edi_storage.variations import variations_of
from flows import words
from flows.album import Album, Copies, album
from flows.engines.base import Pixels
from flows.engines.heat import BORDERS, SCALE
from flows.engines.nouns import names_of
from flows.engines.photo import SUFFIXES, PhotoFormat
from flows.engines.targets import phrase_of
from flows.engines.wishes import STRENGTHS, Wishes
from flows.history import was_interrupted
from flows.links import (
    LEARNED,
    PICTURES,
    PREFIX,
    SAVED,
    again_link,
    has_result,
    run_link,
    session_link,
    stands_link,
    stop_link,
)
from flows.pages.document import Watch, beside, document, lines, link, standing, table, when
from flows.pages.forms import answer_form, rating_form
from flows.pictures import colour_of, data_uri, labelled, shrink, tinted

#: Pixels of the longer side of the two pictures, of all masks in one, and of one mask.
_LARGE: Final = 1600
_MIDDLE: Final = 900
_SMALL: Final = 360

#: What a person clicks on whose answer is not among the choices.
_NONE: Final = "None of these: say it in other words"

#: What the pictures at full size are called.
_CALLED: Final = {"photo": "photo", "result": "result", "changes": "map of the changes"}


@dataclass(frozen=True)
class Served:
    """What `edi serve` knows of a page that it shows."""

    #: How the session stood before it was looked at: what its `stands_link` says.
    stands: str
    #: What a person has just chosen or written in one of its forms, and why that was not taken.
    chosen: Mapping[str, str] = field(default_factory=dict)
    wrong: str = ""


def page(store: Store, history: SessionHistory, served: Served | None = None, copies: Copies | None = None) -> str:
    """The page of a session, as far as it has come. A picture that is lost is said to be missing.

    served: `edi serve` shows it, so that it has the full-size pictures, the forms that answer and rate it, and follows
    the session. copies: the small pictures of the page before, see `album`.
    """
    session = history.session
    shown = album(store, history, _LARGE, copies)
    asked = _asked(history, shown, served.chosen) if served else []
    told = served.wrong if served else ""
    body = [
        *(lines(link(PREFIX, "Photos and edits")) if served else ()),
        f"<h1>{escape(session.naive_prompt)}</h1>",
        f'<p class="soft">{escape(Path(session.image_path).name)}, {when(session.created_at)}</p>',
        standing(words.headline(history, now=served is not None)),
        *([f'<p class="wrong">{escape(told)}</p>'] if told else []),
        *(["<p>It was interrupted, and went on by itself.</p>"] if was_interrupted(history) else []),
        *(_ways(history) if served else ()),
        *_around(session, store.database.forks_of(session.session_id)),
        *asked,
        # Variations stand beside the photo already.
        *(_pictures(history, shown) if not (asked and shown.variations) else ()),
        *(_links(history) if served else ()),
        *(_rating(history, served.chosen) if served else ()),
        *(_variations(history, shown) if not asked else ()),
        *_feedback(history),
        *_understood(history),
        *_entities(history, shown),
        *_changes(history, shown),
        *_engineering(history, store.database.last_flow_run(session.session_id) if served else None),
    ]
    name = session.session_id
    watch = Watch(session_link(name), stands_link(name), served.stands) if served else None
    return document(session.naive_prompt, body, served=served is not None, watch=watch)


def _engineering(history: SessionHistory, run: str | None) -> list[str]:
    """What few people want to see: how it was measured, the prompts as they were written, and who did what and when."""
    named = f"<p>Session {escape(history.session.session_id)}</p>"
    its_run = lines(link(run_link(run), "Its run in the control room, where its log is")) if run else []
    parts = [named, *its_run, *_scores(history), *_prompts(history), *_stages(history.commits)]
    return [f"<details><summary>How it was done, in detail</summary>{''.join(parts)}</details>"]


def _ways(history: SessionHistory) -> list[str]:
    """What a person does next, at the top of the page."""
    session, again = history.session, again_link(history.session.session_id)
    if session.status == "failed":
        return lines(link(again, "Say it in other words"))
    if not has_result(history) or (session.status == "in_progress" and session.waiting_for != "review"):
        return []
    saved = escape(session_link(session.session_id, SAVED))
    save = f'<a href="{saved}" download="{escape(saved_as(history))}">Save the result</a>'
    newest = _newest(history)
    is_rated = newest is not None and newest.feedback_key == feedback_key(_attempt(history))
    rate = link("#said", f"You said: {words.verdict(newest)}") if is_rated else link("#rate", "Rate it")
    return lines(" · ".join([save, rate, link(again, "Edit the original again, in other words or stronger")]))


def _asked(history: SessionHistory, shown: Album, chosen: Mapping[str, str]) -> list[str]:
    """What is asked of a person, and the form by which they answer."""
    session, question = history.session, words.question_of(history)
    if session.waiting_for != "question" or question is None:
        return []  # a verdict is given by the form below the pictures
    between = bool(shown.variations)
    # Without numbers: what is in the photo has others further down.
    pictures = [
        _small(shown.variations.get(number), _MIDDLE) if between else _meant(choice, history, shown)
        for number, choice in enumerate(question.choices, 1)
    ]
    original = _small(shown.before, _MIDDLE) if between else ""
    choices = [_doubted(choice, history) for choice in question.choices]
    listed = list(zip(choices, pictures, strict=True))
    names = names_of(words.largest_first(history.entities)).values()
    form = answer_form(session.session_id, listed, original, chosen.get("answer", ""), next(iter(names), ""))
    # Nobody is asked any more, and the form of another edit comes next.
    stop = escape(stop_link(session.session_id))
    return [form, f'<form method="post" action="{stop}" class="none"><button>{_NONE}</button></form>']


def _small(picture: Pixels | None, longest: int) -> str:
    return "" if picture is None else f'<img src="{data_uri(picture, longest)}" alt="">'


#: How a choice begins that is about all that it does not name.
_ALL_BUT: Final = "everything but "


def _meant(choice: str, history: SessionHistory, shown: Album) -> str:
    """Where a choice is, if it is told by things in the photo."""
    if shown.before is not None and choice == "the whole picture":
        return _small(shown.before, _SMALL)
    named = [entity for entity in history.entities if phrase_of(entity, history.entities) in _things_of(choice)]
    masks = [shown.masks[entity.entity_id] for entity in named if entity.entity_id in shown.masks]
    if shown.before is None or not masks or len(masks) < len(_things_of(choice)):
        return ""
    area, number = np.maximum.reduce(masks), words.number_of(named[0].entity_id, history.entities)
    if choice.startswith(_ALL_BUT):
        area, number = 1 - area, 0
    return _small(tinted(shrink(shown.before, _SMALL), area, colour_of(number)), _SMALL)


def _things_of(choice: str) -> list[str]:
    return choice.removeprefix(_ALL_BUT).split(" and ")


def _doubted(choice: str, history: SessionHistory) -> str:
    """A choice as it is shown: what is only perhaps an umbrella is not called one."""
    sure = {phrase_of(one, history.entities): one.confidence >= words.SURE for one in history.entities}
    return choice if sure.get(choice, True) else f"{choice}, perhaps"


def _around(session: SessionData, forks: Sequence[SessionData]) -> list[str]:
    """What was wished beside the prompt, where the session comes from, and what went another way from it."""
    wishes, parent = Wishes.of(session.options), session.parent_session_id
    told = {
        "Strength": next(
            (word for word, number in STRENGTHS.items() if number == wishes.strength), f"{wishes.strength}"
        )
        if wishes.strength is not None
        else "",
        "Protected": wishes.protect,
        "Only inside": f"{wishes.region} (left, top, width, height in percent)" if wishes.region else "",
        "Only where white": wishes.mask,
        "Forked from": f"{parent} at {session.forked_from_stage}" if parent else "",
        "Forks": ", ".join(f"{fork.session_id} (from {fork.forked_from_stage})" for fork in forks),
    }
    listed = [f"{escape(what)}: {escape(said)}" for what, said in told.items() if said]
    return [f"<p>{'<br>'.join(listed)}</p>"] if listed else []


def _pictures(history: SessionHistory, shown: Album) -> list[str]:
    if shown.before is None:
        is_there = history.state is not None and history.state.scene_analysis.get("image")
        return ["<p>The photo is not in the store.</p>"] if is_there else []
    parts = [f'<img src="{data_uri(shown.before, _LARGE)}" alt="before">']
    if shown.after is None:
        lost = history.state is not None and history.state.edited_image_path is not None
        why = "The result is not in the store: `edi doctor --repair` makes it again." if lost else "No result yet."
        # What it waits for, or why it failed, says more.
        is_told = history.session.waiting_for or history.session.status == "failed"
        told = [] if is_told and not lost else [f"<p>{why}</p>"]
        return [f'<figure style="{_fit(shown.before)}">{parts[0]}</figure>', *told]
    parts += [
        f'<img class="after" src="{data_uri(shown.after, _LARGE)}" alt="after">',
        '<i></i><b style="left: .6rem">before</b><b style="right: .6rem">after</b>',
        '<input type="range" min="0" max="100" value="50" aria-label="how much of the original is shown">',
    ]
    return [f'<figure class="slider" style="{_fit(shown.before)}">{"".join(parts)}</figure>']


def _fit(picture: Pixels) -> str:
    """So much less tall than the window that what is before and after it is seen too."""
    height, width = picture.shape[:2]
    return f"max-width: calc(60vh * {width / height:.4f})"


def _links(history: SessionHistory) -> list[str]:
    """Where the pictures are as they are stored."""
    if history.state is None or not history.state.scene_analysis.get("image"):
        return []
    session_id = history.session.session_id
    pictures = PICTURES if has_result(history) else PICTURES[:1]
    return lines(
        "Open: " + " · ".join(beside(session_link(session_id, picture), _CALLED[picture]) for picture in pictures)
    )


def _rating(history: SessionHistory, chosen: Mapping[str, str]) -> list[str]:
    """What a person has said, and the form by which they say it of the attempt that is shown.

    None while more is being done: what is said then would be said of that.
    """
    session = history.session
    if not has_result(history) or history.state is None:
        return []
    attempt = _attempt(history)
    if session.status == "in_progress" and session.waiting_for != "review":
        following = next_step(history.state.model_dump(mode="json"))
        is_next = isinstance(following, Step) and following.stage in ("refinement", "edit")
        return ["<p>The next attempt is being made; this is the one before.</p>"] if is_next else []
    newest, note = _newest(history), ""
    if session.waiting_for == "review":
        again = attempt < int(session.options.get("max_attempts", MAX_ATTEMPTS))
        note = "With “not what I wanted” it is tried again." if again else "It is the last attempt."
    form = rating_form(session.session_id, attempt, newest, chosen, note)
    if newest is None:
        return [form]
    is_of_this = newest.feedback_key == feedback_key(attempt)
    of = "" if is_of_this else f" of {newest.feedback_key.replace('-', ' ')}"
    said = ", ".join(filter(None, [words.verdict(newest), words.reasons(newest)]))
    told = f'<p id="said"><strong>You said{of}: {escape(said)}.</strong> {link(LEARNED, "What EDI has learned")}</p>'
    if not is_of_this:
        return [told, form]
    is_open = " open" if chosen else ""
    return [told, f"<details{is_open}><summary>Change what you said</summary>{form}</details>"]


def _attempt(history: SessionHistory) -> int:
    """The attempt that is shown."""
    return last_attempt(history.state.model_dump(mode="json")) if history.state else 0


def _newest(history: SessionHistory) -> UserFeedback | None:
    return max(history.feedback, key=lambda said: said.created_at, default=None)


def saved_as(history: SessionHistory) -> str:
    """The name of the result where a person saves it: the photo's, and "edited"."""
    assert history.state
    kind: PhotoFormat = history.state.scene_analysis["image"]["format"]
    return f"{Path(history.session.image_path).stem}-edited{SUFFIXES[kind]}"


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
    names, before = names_of(history.entities), shrink(shown.before, _MIDDLE)
    numbered = dict(enumerate(words.largest_first(history.entities), 1))
    masks = {number: shown.masks[e.entity_id] for number, e in numbered.items() if e.entity_id in shown.masks}
    figures = [f'<figure class="all"><img src="{data_uri(labelled(before, masks), _MIDDLE)}" alt="all"></figure>']
    small = shrink(before, _SMALL)
    for number, entity in numbered.items():
        picture = "(its mask is missing)"
        if number in masks:
            picture = f'<img src="{data_uri(tinted(small, masks[number], colour_of(number)), _SMALL)}" alt="">'
        doubt = ", perhaps" if entity.confidence < words.SURE else ""
        name = f"<strong>{number}. {escape(names[entity.entity_id])}{doubt}</strong>"
        what = f"{words.percent(entity.area_percent)} of the picture"
        figures.append(f"<figure>{picture}<figcaption>{name}<br>{what}</figcaption></figure>")
    return ["<h2>What is in the photo</h2>", f'<div class="grid">{"".join(figures)}</div>']


def _understood(history: SessionHistory) -> list[str]:
    intent, entities = history.intent, words.doubted(history.entities)
    if intent is None or intent.needs_answer:
        return []  # as long as it is only a guess
    told = [f"{words.meant(intent, entities)}."]
    if intent.preserve_entities:
        told.append(f"To be kept as they are: {words.called(intent.preserve_entities, entities)}.")
    if intent.question and intent.answer:
        told.append(f"{intent.question.text} You said: {intent.question.choices[intent.answer - 1]}.")
    return ["<h2>What was understood</h2>", *(f"<p>{escape(line[0].upper() + line[1:])}</p>" for line in told)]


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
    grown = table(("step", "do", "do not", "quality"), rows)
    return ["<h2>How the prompt grew</h2>", grown, f'<p class="soft">{escape(words.QUALITY)}</p>']


def _scores(history: SessionHistory) -> list[str]:
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
    listed = table(("attempt", "edit", "alignment", "in short"), rows)
    changed = "<br>".join(
        escape(f"{number}: {'; '.join(words.changes(words.deltas_of(attempt), history.entities))}")
        for number, attempt in attempts.items()
    )
    about = f'<p>{changed}</p><p class="soft">{escape(words.ALIGNMENT)}<br>{escape(words.DELTA_E)}</p>'
    return ["<h2>How well it fits</h2>", listed, about]


def _changes(history: SessionHistory, shown: Album) -> list[str]:
    """What each attempt changed, as heat maps beside each other."""
    figures = []
    for number, attempt in words.attempts_of(history).items():
        if "delta_image_path" not in attempt:
            continue
        picture = "(its picture is missing: <code>edi doctor --repair</code> makes it again)"
        if number in shown.deltas:
            picture = f'<img src="{data_uri(shown.deltas[number], _MIDDLE)}" alt="what attempt {number} changed">'
        changed = words.changes(words.deltas_of(attempt), words.doubted(history.entities), figures=False)
        caption = "<br>".join([f"<strong>Attempt {number}</strong>", *map(escape, changed)])
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    if not figures:
        return []
    grid = f'<div class="grid wider">{"".join(figures)}</div>'
    return ["<h2>What it changed</h2>", grid, _key()]


def _key() -> str:
    """What the colours of the heat maps mean."""
    lines = "".join(
        f'<span><i style="background: rgb{colour}"></i>{escape(meant)}</span>' for _, colour, meant in BORDERS
    )
    return f'<div class="soft key"><p>{escape(SCALE)}</p><p>The lines around things: {lines}</p></div>'


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
    return ["<h2>What was done</h2>", table(("stage", "attempt", "by", "finished (UTC)", "took"), rows)]


def _stage(commit: StageCommit) -> str:
    """Without its attempt, which has a column of its own."""
    step = step_of(commit)
    return replace(step, attempt=1).label if step else commit.stage


def _feedback(history: SessionHistory) -> list[str]:
    if not history.feedback:
        return []
    rows = [
        (said.feedback_key.replace("-", " "), words.verdict(said), words.reasons(said), said.comments or "")
        for said in history.feedback
    ]
    return ["<h2>What was said of it</h2>", table(("of", "verdict", "reasons", "comment"), rows)]
