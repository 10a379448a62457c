"""The words the embedded reasoner knows, and how they are found in a sentence.

A prompt is cut into clauses ("make the sky darker and the grass greener" is two); in each clause the longest
phrase that names a look wins. Nothing here knows the photo.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from edi_storage.models import EditType


@dataclass(frozen=True)
class Look:
    """What a phrase asks for: the action, its sign or other parameters, and how sure the phrase alone makes it."""

    action: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    certainty: float = 0.92


EDIT_TYPES: Final[Mapping[str, EditType]] = {
    "exposure": "color",
    "contrast": "color",
    "saturation": "color",
    "warmth": "color",
    "recolour": "color",
    "tint": "color",
    "dramatic": "style",
    "dramatic_sky": "style",
    "enhance": "style",
    "sharpen": "style",
    "clarity": "style",
    "vignette": "style",
    "black_and_white": "style",
    "sepia": "style",
    "blur": "transform",
    "fill": "transform",
    "remove": "remove",
}

#: Actions whose parameter `direction` is +1 or -1, so that "less", "reduce" and "too" can turn them round.
SIGNED: Final = frozenset({"exposure", "contrast", "saturation", "warmth", "sharpen"})

_UP, _DOWN = {"direction": 1}, {"direction": -1}

#: Phrases by look. A word stands for itself only; inflections are listed, so that nothing matches by accident.
_PHRASES: Final[tuple[tuple[str, Look], ...]] = (
    (
        "dramatic|drama|dramatically|more dramatic|moody|moodier|epic|intense|cinematic|ominous|brooding|powerful",
        Look("dramatic", {"mood": "dramatic"}),
    ),
    ("stormy|storm|stormier|thunderstorm|threatening|menacing", Look("dramatic", {"mood": "stormy"})),
    (
        "golden hour|sunset|sunrise|golden|sunset colors|sunset colours|evening light",
        Look("dramatic", {"mood": "golden"}),
    ),
    (
        "brighter|brighten|brightened|brightening|brightness|bright|lighter|lighten|lightened|light up|more light|"
        "illuminate|underexposed|exposure|lit",
        Look("exposure", _UP),
    ),
    ("darker|darken|darkened|darkening|dark|dim|dimmer|darkness|gloomy|overexposed", Look("exposure", _DOWN)),
    ("contrast|contrasty|punchy|punchier|punch|pop|pops|popping", Look("contrast", _UP)),
    ("flat|flatter|low contrast|softer|harsh", Look("contrast", _DOWN, 0.8)),
    (
        "vivid|more vivid|vibrant|vibrance|colorful|colourful|saturated|saturate|saturation|richer|rich|lively|"
        "livelier|bolder|colors pop|colours pop|color pop|colour pop|intensify colors|more color|more colour|lush",
        Look("saturation", _UP),
    ),
    (
        "muted|desaturate|desaturated|pale|paler|washed out|faded|pastel|dull|duller|less color|less colour",
        Look("saturation", _DOWN),
    ),
    ("warmer|warm|warmth|warm up|cozy|cosy|cosier|sunnier|sunny", Look("warmth", _UP)),
    ("cooler|cool|colder|cold|cool down|chilly|icy|wintry|frosty", Look("warmth", _DOWN)),
    (
        "blur|blurred|blurry|blurring|blurrier|bokeh|out of focus|portrait mode|defocus|depth of field|unfocused",
        Look("blur"),
    ),
    ("sharpen|sharper|sharp|sharpened|crisp|crisper|crispy|focus|in focus", Look("sharpen", _UP)),
    ("clarity|clearer|more detail|more details|detailed|texture|structure|dehaze|haze|hazy", Look("clarity")),
    ("vignette|vignetting|dark corners|darken the corners", Look("vignette")),
    (
        "black and white|black white|b and w|bw|monochrome|monochromatic|grayscale|greyscale|noir|gray scale|"
        "grey scale|desaturate completely|no color|no colour|without color|without colour|colorless|colourless",
        Look("black_and_white"),
    ),
    (
        "sepia|vintage|retro|old photo|old photograph|old fashioned|antique|nostalgic|old timey|aged",
        Look("sepia"),
    ),
    (
        "remove|removed|removing|delete|erase|get rid of|take out|take away|clean up|eliminate|crop out|hide",
        Look("remove"),
    ),
    (
        "better|nicer|improve|improved|enhance|enhanced|fix|beautiful|prettier|pretty|professional|amazing|awesome|good|"
        "great|stunning|perfect|cooler looking|interesting|magic|nice|more|touch up|retouch|do something|edit",
        Look("enhance", {}, 0.45),
    ),
)

#: Colours by name, as paint: clearer than the same words on the web.
COLOURS: Final[Mapping[str, str]] = {
    "red": "#c8281e",
    "crimson": "#a81c32",
    "scarlet": "#d02818",
    "orange": "#e67a1c",
    "yellow": "#f0c828",
    "gold": "#d4a62a",
    "green": "#2f8f3a",
    "lime": "#8fce3a",
    "teal": "#1f8a8a",
    "turquoise": "#2bb5ae",
    "cyan": "#29b5d0",
    "blue": "#2458b8",
    "navy": "#1b2a55",
    "purple": "#6a3a9c",
    "violet": "#7a4ab4",
    "pink": "#e67aa6",
    "magenta": "#c02a8c",
    "brown": "#7a4a28",
    "beige": "#d8c6a0",
    "white": "#f2f2f0",
    "grey": "#808080",
    "gray": "#808080",
    "black": "#1c1c1c",
}

#: "greener" and its like: the named colour is laid over what is there, not put in its place.
_TOWARDS: Final[Mapping[str, str]] = {
    "greener": "green",
    "bluer": "blue",
    "redder": "red",
    "yellower": "yellow",
    "pinker": "pink",
    "purpler": "purple",
    "oranger": "orange",
    "whiter": "white",
    "blacker": "black",
    "browner": "brown",
}

#: How strong: the first that is found wins, so longer phrases stand first.
_STRENGTHS: Final[tuple[tuple[str, float], ...]] = (
    ("a tiny bit|ever so slightly|barely|a hint of|a hint|hardly", 0.2),
    (
        "a little bit|a little|a bit|slightly|slight|subtly|subtle|a touch|somewhat|a tad|gently|gentle|softly|lightly",
        0.35,
    ),
    ("as much as possible|extremely|insanely|super|ultra|completely|totally|maximum|crazy|incredibly", 1.0),
    ("very much|a lot more|a lot|much more|much|very|really|strongly|strong|way|far|heavily|significantly", 0.85),
)
DEFAULT_STRENGTH: Final = 0.6

_LESS: Final = "less|reduce|reduced|decrease|lower|lessen|too|not so|not as|not too|tone down|turn down|cut"


def normalise(prompt: str) -> str:
    """Lower case, plain apostrophes, known words spelt right, single spaces; `,` and `;` kept as clause marks."""
    text = prompt.lower().replace("\u2019", "'").replace("b&w", "b and w").replace("&", " and ").replace("n't", " not")
    text = re.sub(r"[^\w\s'%,;.#-]", " ", text).replace("-", " ").replace("_", " ")
    text = re.sub(r"\.(?!\d)", " ; ", text)
    text = re.sub(r"\s*([,;])\s*", r" \1 ", text)
    return " ".join(_spelt(word) for word in text.split())


def _spelt(word: str) -> str:
    if len(word) < 5 or not word.isalpha() or word in vocabulary():
        return word
    close = difflib.get_close_matches(word, sorted(vocabulary()), n=1, cutoff=0.86)
    # "building" and "buildings" are both right: only the same word misspelt is replaced.
    return close[0] if close and not word.startswith(close[0]) and not close[0].startswith(word) else word


@cache
def vocabulary() -> frozenset[str]:
    """All words that mean something here."""
    from flows.engines.targets import NOUNS

    words: set[str] = set(COLOURS) | set(_TOWARDS) | set(_COMMON)
    for phrases, _ in _PHRASES:
        words |= set(phrases.replace("|", " ").split())
    for phrases, _ in _STRENGTHS:
        words |= set(phrases.replace("|", " ").split())
    for nouns in NOUNS.values():
        words |= set(nouns.replace("|", " ").split())
    return frozenset(words)


#: Words of prompts that must not be "corrected" into something else.
_COMMON: Final = [
    "photo",
    "picture",
    "image",
    "please",
    "could",
    "would",
    "should",
    "everything",
    "whole",
    "entire",
    "except",
    "without",
    "keeping",
    "leave",
    "change",
    "color",
    "colour",
    "colors",
    "colours",
    "around",
    "behind",
    "front",
    "there",
    "where",
    "which",
    "thing",
    "things",
    "still",
    "while",
    "style",
    "other",
    "right",
    "light",
    "night",
]


def pattern(words: str | Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of the phrases as whole words, longest first."""
    phrases = words.split("|") if isinstance(words, str) else list(words)
    joined = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=lambda p: (-len(p), p)))
    return re.compile(rf"(?<![\w'])(?:{joined})(?![\w'])")


@cache
def _look_patterns() -> tuple[tuple[re.Pattern[str], Look], ...]:
    return tuple((pattern(phrases), look) for phrases, look in _PHRASES)


@cache
def _pattern(words: str) -> re.Pattern[str]:
    return pattern(words)


def clauses(text: str) -> list[str]:
    """The parts of a normalised prompt that each ask for one thing. "black and white" is one thing."""
    guarded = re.sub(r"\b(black|b) and (white|w)\b", r"\1_and_\2", text)
    parts = re.split(r"\s*(?:[,;]|\b(?:and then|and also|and|then|but|plus|while)\b)\s*", guarded)
    return [part.replace("_and_", " and ").strip() for part in parts if part.strip()]


def look_in(clause: str) -> tuple[Look, str] | None:
    """The look that a clause asks for and the phrase that says so; None when no phrase is known.

    Longer phrases beat shorter ones, and sure ones beat vague ones ("better colours" is about colours).
    """
    best: tuple[float, int, Look, str] | None = None
    for compiled, look in _look_patterns():
        for match in compiled.finditer(clause):
            rank = (look.certainty, len(match.group()))
            if best is None or rank > best[:2]:
                best = (*rank, look, match.group())
    coloured = _colour_look(clause)
    if coloured is not None and (best is None or best[2].action in ("enhance", "exposure", "saturation")):
        vague = best is None or best[2].action == "enhance" or best[3] in ("light", "dark", "pale", "bright")
        if vague:
            return coloured
    return None if best is None else (turned(best[2], clause, best[3]), best[3])


def _colour_look(clause: str) -> tuple[Look, str] | None:
    """ "make the door red", "a red door", "greener", "more blue" ."""
    towards = _pattern("|".join(_TOWARDS)).search(clause)
    if towards:
        return Look("tint", {"color": COLOURS[_TOWARDS[towards.group()]]}), towards.group()
    names = "|".join(COLOURS)
    more = re.search(rf"\b(?:more|extra|a bit of|some|add) ({names})\b", clause)
    if more:
        return Look("tint", {"color": COLOURS[more.group(1)]}, 0.85), more.group()
    paint = re.search(rf"\b(?:to|into|in|as|it|them|be|look) (?:\w+ )?({names})$|\b({names})$", clause)
    if paint:
        name = paint.group(1) or paint.group(2)
        return Look("recolour", {"color": COLOURS[name], "colour_name": name}), name
    return None


def turned(look: Look, clause: str, phrase: str) -> Look:
    """The look with its direction turned round by "less", "reduce", "too dark"; "not bright enough" asks for more."""
    if look.action not in SIGNED:
        return look
    before = clause[: clause.find(phrase)]
    direction = int(look.parameters.get("direction", 1))
    if re.search(rf"\bnot (?:\w+ )?{re.escape(phrase)} enough\b", clause):
        return look
    if _pattern(_LESS).search(before):
        direction = -direction
    elif phrase in ("underexposed", "overexposed", "harsh", "hazy") or re.search(
        r"\b(?:looks?|is|are|seems?|its|it's) (?:\w+ ){0,2}(?:flat|dull|pale|washed out|faded)\b", clause
    ):
        # A complaint, not a wish: "it looks dull".
        direction = 1 if phrase not in ("overexposed", "harsh") else -1
    return Look(look.action, {**look.parameters, "direction": direction}, look.certainty)


def strength_in(clause: str) -> float:
    """How strong a clause wants it, 0..1; a percentage counts as it is."""
    percent = re.search(r"\b(\d{1,3}) ?(?:%|percent)", clause)
    if percent:
        return min(1.0, max(0.05, int(percent.group(1)) / 100))
    for phrases, strength in _STRENGTHS:
        if _pattern(phrases).search(clause):
            return strength
    return DEFAULT_STRENGTH


_PAINTERLY: Final = (
    "painting|watercolor|watercolour|oil paint|van gogh|monet|picasso|anime|cartoon|comic|sketch|drawing|"
    "pixel art|in the style of|cyberpunk|ghibli|lego|impressionist|renaissance"
)
_SCENE: Final = (
    "snow|snowing|snowy|rain|raining|rainy|winter|autumn|smile|smiling|age|older|younger|wearing|night time|into night"
)


def beyond_us(text: str) -> str | None:
    """What a prompt asks for that only a generative backend can do, in words; None when there is no such thing."""
    if re.search(r"\b(?:replace|swap|substitute|exchange)\b", text):
        return "replacing one thing by another"
    if _pattern(_PAINTERLY).search(text):
        return "repainting a photo in another style"
    turn = re.search(r"\b(?:turn|change|transform|convert|morph)\b.*\b(?:into|to) (?:an? )(\w+)", text)
    if turn and look_in(turn.group(0).split()[-1]) is None and not look_in(text):
        return "turning one thing into another"
    added = re.search(r"\b(?:add|insert|put|place|include|draw|give me|generate|create)\b(.*)", text)
    if added and look_in(added.group(1)) is None and _names_a_thing(added.group(1)):
        return "adding a thing that is not in the photo"
    if _pattern(_SCENE).search(text) and look_in(text) is None:
        return "changing what the scene is"
    return None


def _names_a_thing(rest: str) -> bool:
    return re.search(r"\b(?:an?|some|two|three|the|my|more)?\s*[a-z]{3,}", rest) is not None
