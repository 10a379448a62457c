"""The words the embedded reasoner knows, and how they are found in a sentence.

A prompt is cut into clauses ("make the sky darker and the grass greener" is two); in each clause the longest
phrase that names a look wins. Nothing here knows the photo.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Final

from flows.engines.looks import DEFAULT_STRENGTH, PHRASES, SHAPES, SIGNED, STRENGTHS, Look
from flows.engines.nouns import PARTS, nouns
from flows.engines.paints import COLOURS, shade

_UP, _DOWN = {"direction": 1}, {"direction": -1}

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
    "whiten": "white",
    "blacker": "black",
    "browner": "brown",
    "greyer": "grey",
    "grayer": "grey",
}
#: What has its own colour in nature: "blue water" is a blue touch, where a "blue car" is new paint.
_NATURAL: Final = frozenset({"sky", "vegetation", "water", "ground", "person", "face"})

_LESS: Final = (
    r"\b(?:(?:less|reduce|reduced|reducing|decrease|decreased|(?<!the )lower|lessen|tone down|turn down|cut|cut down"
    r"|bring down|dial down|take down|dial back|not so|not as|not too|not that|not very|lose|drop|minimi[sz]e"
    r"|limit)(?: (?!more)[\w']+){0,2}|too(?: much| many)?|bit too|way too"
    r"|(?:not like|hate|dislike)(?: (?:how|the|that|it|is|so|this|all|these|those))*)\s+$"
)
#: After the look: "turn the brightness down".
_DOWNWARD: Final = r"^(?:\s+(?!and\b)\w+){0,1}\s+(?:down|back)\b"
#: Complaints: said of a photo they are what should be otherwise, whatever stands before them.
_ALWAYS_WRONG: Final = frozenset(
    {"underexposed", "under exposed", "overexposed", "over exposed", "blown out", "harsh", "hard to see", "unsharp"}
    | {"in the shade", "in shadow", "in the shadow", "in the shadows", "in shade"}
)
#: ... and these, where the sentence says how it is: "it looks dull", but not "make it look dark".
_WRONG: Final = frozenset(
    {"dark", "dim", "bright", "dull", "flat", "pale", "washed out", "faded", "cold", "cool", "warm"}
    | {"saturated", "muted", "sharp"}
)
#: "a bit dark" is a complaint, "a bit darker" a wish.
_A_BIT_WRONG: Final = frozenset({"dark", "dim", "dull", "flat", "bright", "cold", "washed out", "pale", "harsh"})
_A_BIT: Final = r"\b(?:bit|little|kinda|kind of|rather|quite|somewhat|slightly|pretty)\s+$"
_IS: Final = (
    r"\b(?:(?:is|are|was) (?:it|this|that|(?:the|my) \w+)|is|are|was|were|looks?|seems?|appears?|it's|its|that's"
    r"|feels?|(?:came|comes?|turned) out|been)\s+(?:(?:so|very|really|pretty|quite|rather|a bit|a little|bit|kind of"
    r"|kinda|super|all|just|way|still|too|a|a little bit|much|extremely|somewhat)\s+)*$"
)
#: "it is not very sharp" asks for more of it.
_IS_NOT: Final = (
    r"\b(?:(?:is|are|was|were|looks?|it's|its|that's) not|(?:does|do) not (?:look|seem|feel)) "
    r"(?:very |really |so |that |too |as |quite |all that )?$"
)
_NOT_WANTED: Final = (
    r"\b(?:(?:do not|don't|dont|never|no need to) (?:make|turn|go|get|add|use|apply|do|put|give|want)(?: [\w']+){0,3}"
    r"|(?:do not|don't|dont|never|without|no|not)(?: any| a| an| the)?)\s+$"
)
_WISH: Final = r"\b(?:make|should|want|would|could|need|needs|let|turn|get|give|like it|more|wish)\b"


def normalise(prompt: str) -> str:
    """Lower case, plain apostrophes, known words spelt right, single spaces; `,` and `;` kept as clause marks."""
    text = prompt.lower().replace("\u2019", "'").replace("b&w", "b and w").replace("&", " and ")
    text = re.sub(r"\b(do|does|is|are|was|should|could|would)n'?t\b", r"\1 not", text).replace("n't", " not")
    text = re.sub(r"[^\w\s'%,;.#!?-]", " ", text).replace("-", " ").replace("_", " ")
    text = re.sub(r"\.(?!\d)|[!?]+", " ; ", text)
    text = re.sub(r"\s*([,;])\s*", r" \1 ", text)
    words = [_spelt(word) for word in text.split()]
    return re.sub(r"(?:^|(?<=\s))[,;]$", "", " ".join(words)).strip() if words else ""


_TYPOS: Final[Mapping[str, str]] = {
    "teh": "the",
    "hte": "the",
    "pls": "please",
    "plz": "please",
    "pic": "picture",
    "pics": "pictures",
    "bg": "background",
    "colr": "color",
    "wiht": "with",
    "adn": "and",
    "lil": "little",
    "mroe": "more",
}


@lru_cache(maxsize=4096)
def _spelt(word: str) -> str:
    if word in _TYPOS:
        return _TYPOS[word]
    if len(word) < 5 or not word.isalpha() or word in vocabulary():
        return word
    near = [known for known in _spellings() if known[0] == word[0] and abs(len(known) - len(word)) <= 2]
    close = difflib.get_close_matches(word, near, n=1, cutoff=0.87)
    # "building" and "buildings" are both right: only the same word misspelt is replaced.
    return close[0] if close and not word.startswith(close[0]) and not close[0].startswith(word) else word


@cache
def _spellings() -> tuple[str, ...]:
    return tuple(sorted(vocabulary()))


@cache
def vocabulary() -> frozenset[str]:
    """All words that mean something here."""
    words: set[str] = set(COLOURS) | set(_TOWARDS) | set(_COMMON.split()) | set(PARTS.split("|")) | fillers()
    listed = [phrases for phrases, _ in PHRASES] + [phrases for phrases, _ in STRENGTHS] + list(nouns())
    for phrases in listed:
        words |= set(phrases.replace("|", " ").split())
    return frozenset(words)


#: Words of prompts that must not be "corrected" into something else.
_COMMON: Final = (
    "photo photos picture pictures image images please could would should everything everywhere everyone whole entire "
    "except without keeping leave change color colour colors colours around behind front there where which thing "
    "things still while style other right light night background backdrop surroundings subject foreground natural "
    "untouched unchanged protect preserve touch touching apart increase decrease boost reduce lower raise photograph "
    "shadows highlights replace center centre middle upper bottom swap rotate straighten resize horizon today later "
    "again after before every these those their little large small stuff place taken maybe think about above below "
    "under over lights noise grain write letters hair shirt dress teeth smile clothes hands wall walls mountain "
    "mountains flower flowers snow table plate paint painted different distance camera stands standing sitting "
    "looking seems house's area areas region corner corners edges border frame shade shady peak rocks stone stones "
    "wooden metal wheel tiger hamster rainbow butterfly brush brushes"
)


def pattern(words: str | Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of the phrases as whole words, longest first."""
    phrases = words.split("|") if isinstance(words, str) else list(words)
    joined = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=lambda p: (-len(p), p)))
    return re.compile(rf"(?<![\w'])(?:{joined})(?![\w'])")


@cache
def _look_patterns() -> tuple[tuple[re.Pattern[str], Look], ...]:
    shaped = tuple((re.compile(shape), look) for shape, look in SHAPES)
    return shaped + tuple((pattern(phrases), look) for phrases, look in PHRASES)


@cache
def _pattern(words: str) -> re.Pattern[str]:
    return pattern(words)


#: Pairs that "and" joins into one thing.
_PAIRS: Final = r"\b(black|b|teal|dark|grey|gray|blue|light|bright) and (white|w|orange|moody|gloomy|clear|airy)\b"


def clauses(text: str) -> list[str]:
    """The parts of a normalised prompt that each ask for one thing. "black and white" is one thing."""
    guarded = re.sub(_PAIRS, r"\1_and_\2", text)
    parts = re.split(r"\s*(?:[,;]|\b(?:and then|and also|and|then|but|plus|while|by(?= \w+ing))\b)\s*", guarded)
    return [part.replace("_and_", " and ").strip() for part in parts if part.strip()]


@lru_cache(maxsize=4096)
def look_in(clause: str) -> tuple[Look, str] | None:
    """The look that a clause asks for and the phrase that says so; None when no phrase is known.

    Sure phrases beat vague ones ("better colours" is about colours), then every other one beats a word that only says
    which thing is meant ("darken the bright sky"), then longer ones beat shorter ones.
    """
    matches = [(match, look) for compiled, look in _look_patterns() for match in compiled.finditer(clause)]
    # "soft focus" is no focus.
    outer = [(m, look) for m, look in matches if not any(_within(m, other) for other, _ in matches)]
    best = max(
        outer,
        key=lambda found: (found[1].certainty, not _describes(found[0], clause), len(found[0].group())),
        default=None,
    )
    coloured = _colour_look(clause)
    if coloured is not None and (best is None or best[1].action == "enhance" or best[0].group() in _TONES):
        return coloured
    if best is None:
        return None
    phrase = best[0].group()
    return turned(best[1], clause, phrase), phrase


def _within(inner: re.Match[str], outer: re.Match[str]) -> bool:
    one, other = inner.span(), outer.span()
    return other[0] <= one[0] and one[1] <= other[1] and one != other


def _describes(match: re.Match[str], clause: str) -> bool:
    """Whether a word says how a thing is, not how it is to be: "the bright sky", but not "make the sky bright"."""
    before, after = clause[: match.start()], clause[match.end() :]
    return (
        match.group() in _ADJECTIVES.split("|")
        and re.search(r"\b(?:the|this|that|these|those|my|our|its) (?:very |too |so |rather )?$", before) is not None
        and re.match(r" [a-z]", after) is not None
    )


#: Looks that may as well be said of a thing as it is.
_ADJECTIVES: Final = (
    "bright|dark|light|dim|pale|dull|vivid|vibrant|colorful|colourful|saturated|rich|muted|faded|flat|harsh|soft|sharp|"
    "crisp|blurry|blurred|fuzzy|warm|cold|cool|overexposed|underexposed|moody|gloomy"
)

#: Words that tell how a colour is, where one follows.
_TONES: Final = (
    "light",
    "dark",
    "pale",
    "bright",
    "rich",
    "vivid",
    "deep",
    "deeper",
    "richer",
    "warm",
    "cool",
    "pastel",
)


def _colour_look(clause: str) -> tuple[Look, str] | None:
    """ "make the door red", "a red door", "greener", "more blue", "too yellow"."""
    names = "|".join(COLOURS)
    cast = re.search(
        rf"\b(?:too|less|reduce the|remove the|fix the|has an?|so|overly) (?:much )?({names})"
        r"(?: \w*cast| tint)?(?: in)?\b",
        clause,
    )
    if cast:
        return Look(
            "cast", {"name": cast.group(1)}, 0.72 if cast.group(1) in ("white", "black", "grey") else 0.85
        ), cast.group()
    towards = _pattern("|".join(_TOWARDS)).search(clause)
    if towards:
        return Look("tint", {"color": COLOURS[_TOWARDS[towards.group()]]}), towards.group()
    more = re.search(
        rf"\b(?:more|extra|some|add|a bit|a little|slightly|touch of|hint of|deep|deeper) ({names})(?:ish)?\b"
        rf"|\b({names})ish\b|\b({names}) (?:tint|tinge|tone|hue|glow|wash|touch)\b|\btint.* ({names})\b",
        clause,
    )
    if more:
        name = next(group for group in more.groups() if group)
        phrase = name if more.group().startswith("tint") else more.group()
        return Look("tint", {"color": COLOURS[name]}, 0.85), phrase
    return _paint(clause, names)


def _paint(clause: str, names: str) -> tuple[Look, str] | None:
    """A colour that is put in the place of another: at the end of the clause, or before a thing that is wished for."""
    spoken = re.sub(r"(?:\s+(?:please|now|instead|too|completely|in colou?r|coloured|colored|again))+$", "", clause)
    tone = r"(?:(dark|light|pale|bright|deep) )?"
    end = re.search(rf"(?<!the )\b{tone}({names})$", spoken)
    if end and re.search(rf"{_IS[:-1]}(?:\w+ )?$", spoken[: end.start()]) and not re.search(_WISH, spoken):
        return Look("cast", {"name": end.group(2)}, 0.72), end.group().strip()  # "the sofa looks dirty brown"
    if end:
        return _painted(end.group(2), end.group(1) or ""), end.group().strip()
    wished = re.search(rf"(?:^|\b(?:an?|plain|solid|want|to) ){tone}({names}) ([a-z]+)$", spoken)
    if wished is None:
        return None
    noun = nouns().get(wished.group(3))
    if noun is not None and noun.labels[0] in _NATURAL - {"sky"}:
        return Look("tint", {"color": COLOURS[wished.group(2)]}, 0.85), wished.group(2)
    return _painted(wished.group(2), wished.group(1) or ""), wished.group(2)


def _painted(name: str, tone: str) -> Look:
    return Look("recolour", {"color": shade(name, tone), "colour_name": f"{tone} {name}".strip()})


def turned(look: Look, clause: str, phrase: str) -> Look:
    """The look with its direction turned round by "less", "reduce", "too dark"; "not bright enough" asks for more."""
    at = clause.find(phrase)
    before, after = clause[:at], clause[at + len(phrase) :]
    says_is = re.search(_IS, before) is not None and re.search(_WISH, before) is None
    less = re.search(_LESS, before) is not None
    if look.action == "blur" and phrase in ("blurry", "out of focus", "fuzzy", "blurred"):
        return Look("sharpen", _UP, look.certainty) if says_is or less else look
    if look.action == "dramatic" and less:
        gloomy = look.parameters.get("mood") == "stormy"
        return Look("exposure", _UP, 0.75) if gloomy else Look("contrast", _DOWN, 0.75)
    if look.action not in SIGNED:
        return look
    direction = int(look.parameters.get("direction", 1))
    if re.search(rf"\bnot (?:\w+ )?{re.escape(phrase)} enough\b", clause) or re.search(_IS_NOT, before):
        return look
    mended = phrase in _WRONG and re.search(r"\b(?:fix|correct|repair|avoid)(?: the| these| those)?\s+$", before)
    a_bit = phrase in _A_BIT_WRONG and re.search(_A_BIT, before) is not None and not after.strip()
    turns = phrase in _ALWAYS_WRONG or less or mended or a_bit or (phrase in _WRONG and says_is)
    if turns or re.search(_DOWNWARD, after):
        direction = -direction
    return Look(look.action, {**look.parameters, "direction": direction}, look.certainty)


def forbidden(clause: str, phrase: str) -> bool:
    """Whether a clause says that a look is not wanted: "no vignette", "don't make it darker"."""
    before, after = clause[: clause.find(phrase)], clause[clause.find(phrase) + len(phrase) :]
    if re.match(r" enough\b", after) or re.search(_IS_NOT, before):
        return False
    return re.search(_NOT_WANTED, before) is not None


def strength_in(clause: str) -> float:
    """How strong a clause wants it, 0..1; a percentage counts as it is."""
    percent = re.search(r"\b(\d{1,3}) ?(?:%|percent)", clause)
    if percent:
        return min(1.0, max(0.05, int(percent.group(1)) / 100))
    clause = re.sub(r"\bnot (?:very|really|that|so) ", "", clause)
    for phrases, strength in STRENGTHS:
        if _pattern(phrases).search(clause):
            return strength
    return DEFAULT_STRENGTH


def is_degree(word: str) -> bool:
    """Whether a word only says how much."""
    return any(word in phrases.replace("|", " ").split() for phrases, _ in STRENGTHS)


@cache
def fillers() -> frozenset[str]:
    """Words that fill a sentence and change nothing."""
    return frozenset(_FILLERS.split())


#: Words that fill a sentence and change nothing.
_FILLERS: Final = (
    "the and for you can i'd i'm i've would like want some someone somebody get just only make making made turn have "
    "has had with from into onto its it's this that they them there here been being are was were will shall let lets "
    "let's need needs give use using try thanks thank hey hello kindly possible somehow anything something much many "
    "too also both way what how when who out off down over not but bit put set see look looks looking great please "
    "your our mine own his her actual actually really overall across than one ones which tad few take took taken "
    "apply effect filter wish hoping think maybe perhaps create came comes save saved got like likes hate dislike "
    "work working auto could should might change changed changing color colour behind front"
)
