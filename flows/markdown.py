"""A session as one markdown page, for Prefect's two UIs. Text of persons and engines is shown, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from edi_storage.models import EntityData, Operation, PromptRecord, SessionHistory
from edi_storage.state import Json, fallbacks_in
from edi_storage.steps import Step
from flows import words
from flows.album import Album
from flows.engines.base import Pixels
from flows.engines.heat import LEGEND
from flows.engines.nouns import names_of
from flows.links import RATINGS, again_link, can_be_rated, has_result, rating_link, session_link
from flows.pictures import data_uri, labelled
from flows.sheet import sheet_of

#: Pixels of the longer side: two pictures side by side are as wide as the UI's column ...
_SIDE: Final = 384
#: ... and one is easy to read. Each takes at most so many characters: the page stays under 200 KB.
_ALONE: Final = 560
_MOST_PICTURE: Final = 45_000
_MOST_DELTA: Final = 30_000
#: And the one with all variations, which are to be told apart.
_SHEET: Final = 900
_MOST_SHEET: Final = 66_000
#: Characters of a prompt, and rows of a table, that are shown; naive prompts and scenes have far fewer.
_MOST_TEXT: Final = 1500
_MOST_ROWS: Final = 24

#: What Markdown, or the HTML inside it, would take for more than a letter: anywhere, before a link, or at the start.
_SPECIAL: Final = re.compile(r"[\\`*_{}\[\]<>#|~&$@!]|:(?=//)|^[-+=]|(?<=^\d)[.)]")


def plain(text: str) -> str:
    """Text on one line that both UIs show letter by letter, whatever it holds."""
    return _SPECIAL.sub(r"\\\g<0>", _line(text))


def bare(text: str) -> str:
    """Text on one line without what the UIs might take for Markdown: some of their places show it, some obey it."""
    return _line(_SPECIAL.sub(" ", text))


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_TEXT else line[:_MOST_TEXT] + " ..."


def session_page(
    history: SessionHistory,
    album: Album,
    full_path: Callable[[str], str],
    restored: Sequence[Step] = (),
    *,
    stopped: bool = False,
    served: bool = False,
) -> str:
    """The page, under 200 KB. `restored` are the steps this run found done; `stopped`: nobody is at work any more.

    served: the server that shows it also has the pages of flows/viewer.py, and the page has links to them.
    """
    headline = plain(words.headline(history))
    if stopped and history.session.status == "in_progress":
        headline = f"Interrupted. Last at: {headline}"
    parts = [f"## {headline}", *before_and_after(history, album), *(_links(history) if served else ())]
    parts += _variations(history, album)
    parts += _other_engines(history)
    parts += [*_found(history, album), *_understood(history), *_prompt(history), *_score(history, album)]
    parts += [*_restored(history, restored), *_files(history, full_path), *_rating(history, served=served)]
    return "\n\n".join(parts)


def _picture(name: str, uri: str) -> str:
    return f"![{name}]({uri})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def before_and_after(history: SessionHistory, album: Album, side: int = _SIDE) -> list[str]:
    """The photo and the newest result beside each other, at most `side` pixels a side; nothing before the upload."""
    if not history.commits:
        return []
    if album.before is None:
        return ["The stored photo cannot be read any more: `edi doctor` says more."]
    before = _drawn(album, "before", album.before, side)
    path = history.state.edited_image_path if history.state else None
    after = "not yet"
    if album.after is not None:
        after = _drawn(album, "after", album.after, side, path)
    elif path:
        after = "the stored result cannot be read any more: `edi doctor --repair` makes it again"
    return [table(["before", "after"], [[before, after]])]


def _drawn(album: Album, name: str, pixels: Pixels, side: int, path: str | None = None) -> str:
    """A picture of the album; of several with this name, the one whose stored file is at `path`."""
    return _picture(name, album.draw((name, path, side), lambda: data_uri(pixels, side, most=_MOST_PICTURE)))


def found_in(history: SessionHistory, album: Album, side: int) -> str:
    """The photo, and beside it what was found in it, by number; below, what the numbers are called."""
    assert album.before is not None
    numbered = dict(enumerate(words.largest_first(history.entities), 1))
    masks = {number: album.masks[e.entity_id] for number, e in numbered.items() if e.entity_id in album.masks}
    photo = _picture("photo", data_uri(album.before, side))
    if not masks:
        return photo
    seen = _picture("what was found", data_uri(labelled(album.before, masks), side))
    names = names_of(history.entities)
    listed = ", ".join(f"{number} {plain(names[entity.entity_id])}" for number, entity in numbered.items())
    return f"{table(['photo', 'what EDI sees in it'], [[photo, seen]])}\n\n{listed}"


def _links(history: SessionHistory) -> list[str]:
    """What a person wants next: a closer look, and to say what it is worth."""
    if not has_result(history):
        return []
    session_id = history.session.session_id
    ways = [f"**[Look at it at full size]({session_link(session_id)})**"]
    if can_be_rated(history):
        ratings = " · ".join(f"[{rating.words}]({rating_link(session_id, rating)})" for rating in RATINGS)
        ways.append(f"Rate it: {ratings}")
    return [" · ".join([*ways, f"Or [edit the original again]({again_link(session_id)})"])]


def _variations(history: SessionHistory, album: Album) -> list[str]:
    """All variations in one picture, larger as long as there is no result, and which was taken."""
    sheet = sheet_of(history, album, _SHEET)
    told = [plain(line) for line in words.listed_variations(history)]
    most = _MOST_SHEET if album.after is None else _MOST_SHEET // 3
    picture = [_picture("variations", data_uri(sheet, _SHEET, most=most))] if sheet is not None else []
    return [*picture, "\n".join(f"- {line}" for line in told)] if told else []


def _other_engines(history: SessionHistory) -> list[str]:
    """Why another engine than the first of its setting did a stage, if one did."""
    why = fallbacks_in(history.state.scene_analysis) if history.state else []
    return ["\n".join(f"- Warning: {plain(reason)}" for reason in why)] if why else []


# --- What was found, and what became of it ------------------------------------------------------------


def _found(history: SessionHistory, album: Album) -> list[str]:
    if not history.entities:
        return []
    numbered = dict(enumerate(words.largest_first(history.entities)[:_MOST_ROWS], 1))
    names = names_of(history.entities)
    parts = ["### What is in the photo"]
    masks = {number: album.masks[e.entity_id] for number, e in numbered.items() if e.entity_id in album.masks}
    before = album.before
    if before is not None and masks:
        uri = album.draw(("found", *masks), lambda: data_uri(labelled(before, masks), _ALONE, most=_MOST_PICTURE))
        parts.append(_picture("what was found", uri))
    became = _what_became(history)
    head = ["no.", "what", "share", "certainty", *(["what the edit did to it"] if became else [])]
    rows = [
        [*_entity(number, entity, names[entity.entity_id]), *([became.get(entity.entity_id, "")] if became else [])]
        for number, entity in numbered.items()
    ]
    return [*parts, table(head, rows), *([words.DELTA_E] if became else [])]


def _entity(number: int, entity: EntityData, name: str) -> list[str]:
    return [
        str(number),
        plain(name),
        words.percent(entity.area_percent),
        f"{100 * entity.confidence:.0f} %",
    ]


#: What a reader looks for first.
_LOUD: Final = ("modified", "unintended")


def _what_became(history: SessionHistory) -> dict[str, str]:
    """What the newest measured attempt did to each entity; the number is the mean colour difference (CIEDE2000)."""
    measured = [attempt for attempt in words.attempts_of(history).values() if attempt.get("delta")]
    if not measured:
        return {}
    return {
        delta.entity_id: f"{_loudly(delta.verdict)} (ΔE {delta.mean_delta_e:.1f})"
        for delta in words.deltas_of(measured[-1])
    }


def _loudly(verdict: str) -> str:
    told = words.VERDICTS[verdict]
    return f"**{told}**" if verdict in _LOUD else told


# --- What was understood, and how it was put ----------------------------------------------------------


def _understood(history: SessionHistory) -> list[str]:
    intent = history.intent
    if intent is None:
        return []
    lines = []
    if not intent.needs_answer:
        meant = plain(words.understood(intent, history.entities))
        said = f"“{plain(history.session.naive_prompt)}” was understood as:"
        lines.append(f"{said} **{meant}** and strength {intent.strength:.2f}.")
    if intent.preserve_entities and not intent.needs_answer:
        lines.append(f"To be kept as they are: {plain(words.called(intent.preserve_entities, history.entities))}.")
    if intent.question:
        choices = [f"{number}. {plain(choice)}" for number, choice in enumerate(intent.question.choices, 1)]
        lines += [plain(intent.question.text), "\n".join(choices)]
        lines.append(f"Your answer was {intent.answer}." if intent.answer else _how_to_answer(history))
    return ["### What was understood", *lines]


def _how_to_answer(history: SessionHistory) -> str:
    return f"Answer with a number: `edi resume {history.session.session_id} --answer 1`."


def _prompt(history: SessionHistory) -> list[str]:
    if not history.prompts:
        return []
    attempts = sorted({prompt.attempt_number for prompt in history.prompts})
    of_newest = [prompt for prompt in history.prompts if prompt.attempt_number == attempts[-1]]
    final = max(of_newest, key=lambda prompt: (prompt.quality_score or 0, prompt.iteration))
    grew = "; ".join(f"attempt {number}: {_qualities(history.prompts, number)}" for number in attempts)
    grew = grew.removeprefix("attempt 1: ") if len(attempts) == 1 else grew
    return [
        "### How the prompt grew",
        f"Quality, version by version: {grew}. {words.QUALITY}",
        f"> {plain(final.positive_prompt)}\n>\n> Not: {plain(final.negative_prompt)}",
        _all_prompts(history.prompts),
    ]


def _qualities(prompts: Sequence[PromptRecord], attempt: int) -> str:
    return words.qualities(prompt for prompt in prompts if prompt.attempt_number == attempt).replace(", ", " → ")


def _all_prompts(prompts: Sequence[PromptRecord]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in ("attempt", "version", "quality", "do", "do not"))
    rows = "".join(_prompt_row(prompt) for prompt in prompts[-_MOST_ROWS:])
    # HTML on one line: a table in Markdown would end the block, and the older UI show it outside.
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<details><summary>All {len(prompts)} versions</summary>{table}</details>"


def _prompt_row(prompt: PromptRecord) -> str:
    texts = (escape(_line(text)) for text in (prompt.positive_prompt, prompt.negative_prompt))
    cells = (prompt.attempt_number, prompt.iteration, f"{prompt.quality_score or 0:.2f}", *texts)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


# --- What came of it ----------------------------------------------------------------------------------


def _score(history: SessionHistory, album: Album) -> list[str]:
    lines = []
    attempts = words.attempts_of(history)
    for scored in history.validations:
        attempt = attempts.get(scored.attempt_number, {})
        lines.append(
            f"- Attempt {scored.attempt_number}, {_done(history, attempt)}: {_sum(attempt, scored.alignment_score)}"
        )
    return ["### How well it fits", words.ALIGNMENT, "\n".join(lines), *_changed(album)] if lines else []


def _changed(album: Album) -> list[str]:
    """What the newest attempt changed, as a heat map."""
    if not album.deltas:
        return []
    newest = max(album.deltas)
    return [_picture("what changed", data_uri(album.deltas[newest], _ALONE, most=_MOST_DELTA)), LEGEND]


def _done(history: SessionHistory, attempt: Json) -> str:
    operations = [Operation.model_validate(operation) for operation in attempt.get("operations", [])]
    return plain(words.operations(operations, history.entities))


def _sum(attempt: Json, score: float) -> str:
    deltas = words.deltas_of(attempt)
    number, _, parts = words.formula(deltas).partition(" = ") if deltas else (f"{score:.2f}", "", "")
    hints = ", ".join(plain(str(hint)) for hint in attempt.get("hints", []))
    decision = words.decision_in_words(attempt["decision"]) if attempt.get("decision") else ""
    told = f"{decision} ({hints})" if decision and hints else decision
    return f"alignment **{number}**" + (f" = {parts}" if parts else "") + (f". {told.capitalize()}." if told else "")


def _restored(history: SessionHistory, restored: Sequence[Step]) -> list[str]:
    if not restored:
        return []
    return ["### Restored", f"Finished before this run and not run again: {words.restored(restored)}."]


def _files(history: SessionHistory, full_path: Callable[[str], str]) -> list[str]:
    if not history.artifacts:
        return []
    state, session = history.state, history.session
    lines = [f"- Photo: {_code(session.image_path)}"]
    if state and state.edited_image_path:
        lines.append(f"- Result: {_code(full_path(state.edited_image_path))}")
    if session.status == "completed" and session.options.get("output"):
        lines.append(f"- Its copy: {_code(str(session.options['output']))}")
    lines.append(f"- All of it as a web page: `edi show {session.session_id} --open`")
    return ["### Full size, on the machine that edited it", "\n".join(lines)]


def _code(text: str) -> str:
    # In a code span no entity is read; so what could end the span, or its line, is left out of it.
    return f"`{text}`" if not re.search(r"[`|\n\r<>]", text) else plain(text)


def _rating(history: SessionHistory, *, served: bool) -> list[str]:
    session_id = history.session.session_id
    given = [
        f"{said.feedback_type}{f', {said.rating} of 5' if said.rating else ''}"
        f"{f', “{plain(said.comments)}”' if said.comments else ''}"
        for said in history.feedback
    ]
    lines = [f"Your verdict: {'; '.join(given)}."] if given else []
    if can_be_rated(history):
        how = "click on a verdict at the top" if served else f"run the deployment `record-feedback` for `{session_id}`"
        how = f"To change it, {how}" if given else how[0].upper() + how[1:]
        lines.append(f"{how}, or in a terminal: `edi feedback {session_id} VERDICT --rating STARS`.")
    return ["### Rate it", *lines] if lines else []
