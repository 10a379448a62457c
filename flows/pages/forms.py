"""The forms on EDI's own pages: to start an edit, to answer what it asks, and to rate it.

They have the words of Prefect's forms (flows/form.py), and send what those take to the server of `edi serve`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any, Final
from uuid import uuid4

from edi_storage.models import MAX_ATTEMPTS, MAX_PROMPT, MAX_VARIATIONS, UserFeedback
from edi_storage.steps import feedback_key
from flows import form
from flows.engines.wishes import MAX_PROTECT, STRENGTHS
from flows.links import EDIT, PREFIX, RATINGS, again_link, answer_link, rate_link
from flows.pages.document import TOLD, Watch, document, lines, link, standing
from flows.words import REASONS

#: Who judges the result, in the person's own words.
_REVIEWS: Final = {"unsure": "EDI, and me where it is not sure", "ask": "me, every attempt", "auto": "EDI alone"}

#: What they are called, where it is not as they are sent.
_STRENGTHS: Final[Mapping[str, str | None]] = {
    **dict.fromkeys(STRENGTHS),
    "as the prompt says": "as my words say, else normal",
}
_AS_I_SAY: Final = "Words such as 'a bit', 'much' and 'very' count."

_STARS: Final = {"0": "no stars", **{str(number): "★" * number for number in range(1, 6)}}

#: Prompts to begin with.
_EXAMPLES: Final = ("make the sky dramatic", "warmer, but keep the house as it is", "blur the background")

#: An example fills the field.
_SCRIPT: Final = """
for (const example of document.querySelectorAll('.example'))
  example.addEventListener('click', event => {
    event.preventDefault();
    document.querySelector('textarea').value = example.textContent;
  });
"""


def edit_page(given: Mapping[str, str], picture: str = "", wrong: str = "") -> str:
    """The form that starts an edit.

    `given` are its fields as far as they are filled in, `picture` the address of the photo where it need not be named,
    and `wrong` is what was wrong with what was sent.
    """
    told = [f'<p class="wrong">{escape(wrong)}</p>'] if wrong else []
    examples = " · ".join(f'<a href="#" class="example">{escape(example)}</a>' for example in _EXAMPLES)
    prompt = (
        f'<textarea name="prompt" rows="2" maxlength="{MAX_PROMPT}" required{" autofocus" if picture else ""}>'
        f"{escape(given.get('prompt', ''))}</textarea>"
    )
    more = [
        _field("protect", form.Protect, _text("protect", given, MAX_PROTECT)),
        _field("region", form.Region, _text("region", given)),
        _field("mask", form.Mask, _text("mask", given)),
        _field("review", form.Review, _choice("review", _REVIEWS, given.get("review", "unsure")), "EDI measures it."),
        _field(
            "variations",
            form.Variations,
            _choice("variations", _up_to(MAX_VARIATIONS), given.get("variations")),
            "Of several you choose the one that you like best, or blend them; where EDI judges alone, it takes one.",
        ),
        _field(
            "max_attempts",
            form.Attempts,
            _choice("max_attempts", _up_to(MAX_ATTEMPTS), given.get("max_attempts", str(MAX_ATTEMPTS))),
            "At most so many: a weak result is tried again, each time from the original.",
        ),
    ]
    as_usual = {"protect": "", "region": "", "mask": "", "review": "unsure", "variations": "1"}
    is_open = " open" if any(given.get(name, usual) != usual for name, usual in as_usual.items()) else ""
    body = [
        "<h1>Edit a photo</h1>",
        *lines(link(PREFIX, "Photos and edits")),
        *told,
        f'<form method="post" action="{EDIT}">',
        # Sent twice, it starts one edit.
        f'<input type="hidden" name="once" value="{escape(given.get("once") or str(uuid4()))}">',
        _photo(given.get("photo", ""), picture),
        TOLD,
        _field("prompt", form.Prompt, prompt, f"In your own words, such as: {examples}"),
        _field("strength", form.Strength, _choice("strength", _STRENGTHS, given.get("strength")), _AS_I_SAY),
        f"<details{is_open}><summary>More: what to protect, only a part of it, variations</summary>"
        f"{''.join(more)}</details>",
        "<p><button>Edit it</button></p></form>",
    ]
    return document("Edit a photo", body, served=True, script=_SCRIPT)


def _photo(name: str, picture: str) -> str:
    """The photo that was chosen, or the field in which it is named."""
    if picture:
        called = escape(PurePath(name).name)
        shown = f'<img src="{escape(picture)}" alt="{called}"><figcaption>{called}</figcaption>'
        return f'<figure>{shown}</figure><input type="hidden" name="photo" value="{escape(name)}">'
    field = f'<input type="text" name="photo" value="{escape(name)}" required autofocus>'
    return _field("photo", form.Photo, field)


def _field(name: str, words: Any, control: str, about: str = "") -> str:
    """A field with its title and description; `about`, which is HTML, says it in other words."""
    title, description = form.words_of(words)
    return (
        f'<label class="field" id="{name}"><b>{escape(title)}</b>{control}'
        f"<small>{about or escape(description)}</small></label>"
    )


def _text(name: str, given: Mapping[str, str], longest: int = 1000) -> str:
    return f'<input type="text" name="{name}" maxlength="{longest}" value="{escape(given.get(name, ""))}">'


def _choice(name: str, choices: Mapping[str, str | None], chosen: str | None) -> str:
    """A list to choose from: what is sent, and what it is called; where that is None, it is called as it is sent."""
    options = (
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(words or value)}</option>'
        for value, words in choices.items()
    )
    return f'<select name="{name}">{"".join(options)}</select>'


def _up_to(most: int) -> dict[str, str | None]:
    return {str(number): None for number in range(1, most + 1)}


def _radios(name: str, choices: Mapping[str, str], chosen: str, *, required: bool = False) -> str:
    shown = (
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" if value == chosen else ""}'
        f"{' required' if required else ''}> {escape(words)}</label>"
        for value, words in choices.items()
    )
    return f'<div class="row">{"".join(shown)}</div>'


def rating_form(session_id: str, attempt: int, said: UserFeedback | None, chosen: Mapping[str, str], note: str) -> str:
    """The form that rates an attempt, filled in with what was `said` of it before, or with what was `chosen` just now.

    `note` says what comes of a verdict. Sent from a page that was left open while another attempt was made, the form is
    refused.
    """
    before = said if said and said.feedback_key == feedback_key(attempt) else None
    verdict = chosen.get("verdict") or (before.feedback_type if before else "")
    stars = chosen.get("stars") or str(before.rating or 0 if before else 0)
    reasons, comment = (before.reasons, before.comments or "") if before else ((), "")
    comment = chosen.get("comment") or comment
    boxes = "".join(
        f'<label><input type="checkbox" name="reasons" value="{reason}"{" checked" if reason in reasons else ""}> '
        f"{escape(meant)}</label>"
        for reason, meant in REASONS.items()
    )
    again = link(again_link(session_id), "edit the original again")
    about = f"EDI learns from it. Are the places wrong, or traces left: {again}, and say what to protect."
    words: dict[str, str] = {rating.verdict: rating.words for rating in RATINGS}
    return "".join(
        [
            f'<form method="post" action="{escape(rate_link(session_id))}" id="rate"><fieldset>',
            "<legend>What do you think of it?</legend>",
            f'<input type="hidden" name="attempt" value="{attempt}">',
            f'<div class="field"><b>Your verdict (needed)</b>{_radios("verdict", words, verdict, required=True)}'
            f"<small>{escape(note)}</small></div>",
            f'<div class="field"><b>Stars, if you like</b>{_radios("stars", _STARS, stars)}</div>',
            f'<label class="field"><b>In your own words, if you like</b><textarea name="comment" rows="2" '
            f'maxlength="2000">{escape(comment)}</textarea></label>',
            f"<details{' open' if reasons else ''}><summary>What was wrong, if something was</summary>"
            f'<div class="field"><div class="row">{boxes}</div><small>{about}</small></div></details>',
            "<button>Send</button></fieldset></form>",
        ]
    )


def answer_form(
    session_id: str, choices: Sequence[tuple[str, str]], original: str, written: str, example: str = ""
) -> str:
    """The choices of a question, each a button that answers it: what it is called, and a picture of it as HTML.

    original: where they are variations, the picture of the photo; "" where they are none. One of several variations may
    also get parts of others, as was `written` before; `example` is what such a part is called in this photo.
    """
    action = escape(answer_link(session_id))
    buttons = "".join(
        f'<button name="answer" value="{number}">{picture}{f"{number}. " if original else ""}{escape(words)}</button>'
        for number, (words, picture) in enumerate(choices, 1)
    )
    if not original:
        among = f'<form method="post" action="{action}" class="choices"><div class="grid">{buttons}</div></form>'
        return among + (_several(action, [words for words, _ in choices]) if len(choices) > 2 else "")
    title, _ = form.words_of(form.Blend)
    photo = f"<figure>{original}<figcaption>the photo as it is</figcaption></figure>"
    among = (
        f"<p>Click on the one that you like best.</p>"
        f'<form method="post" action="{action}" class="choices"><div class="grid wider">{buttons}{photo}</div></form>'
    )
    if len(choices) < 2 or not example:
        return among
    about = f"'1, {example} from {len(choices)}' is variation 1 with the {example} of variation {len(choices)}."
    return (
        f'{among}<form method="post" action="{action}"><label class="field"><b>{escape(title)}</b>'
        f'<input type="text" name="answer" maxlength="200" value="{escape(written)}" required>'
        f"<small>{escape(about)}</small></label>"
        "<p><button>Blend</button></p></form>"
    )


def _several(action: str, choices: Sequence[str]) -> str:
    """The form that answers with several choices at once."""
    boxes = "".join(
        f'<label class="field"><input type="checkbox" name="several" value="{number}"> {escape(words)}</label>'
        for number, words in enumerate(choices, 1)
    )
    return (
        f'<form method="post" action="{action}"><details><summary>Several of these</summary>{boxes}'
        "<button>Go on with these</button></details></form>"
    )


def starting_page(parameters: Mapping[str, Any], picture: str, said: str, watch: Watch, ways: Sequence[str]) -> str:
    """The page of an edit that is asked for and has no session yet: what was asked, how it stands, and ways on.

    `picture` is the address of a small picture of the photo, if there is one.
    """
    prompt = str(parameters.get("prompt", ""))
    photo = PurePath(str(parameters.get("image_path", ""))).name
    body = [
        f"<h1>{escape(prompt)}</h1>",
        f'<p class="soft">{escape(photo)}</p>',
        standing(said),
        *([f'<figure class="small"><img src="{escape(picture)}" alt=""></figure>'] if picture else []),
        *lines(" · ".join(ways)),
    ]
    return document(prompt, body, served=True, watch=watch)
