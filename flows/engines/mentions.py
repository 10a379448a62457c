"""The things that a text names, and which of the things found in a photo each of them is."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from edi_storage.models import BoundingBox, EntityData
from flows.engines.nouns import PARTS, Noun, nouns
from flows.engines.paints import COLOURS, coloured, lab_of
from flows.engines.places import centre

WHOLE: Final = (
    r"\b(?:everything|everywhere|whole|entire|photos?|pictures?|images?|pics?|photograph|shot|snap|scene|all|colou?rs|"
    r"overall|mood|look|lighting|tones?|portrait|it all|atmosphere|exposure)\b"
)
#: What "it" is depends on what was said before; alone it is the picture.
PRONOUN: Final = r"\b(?:it|this|that|them|they|these|those|its)\b"
BACKGROUND: Final = r"\b(?:backgrounds?|backdrop|surroundings|behind|portrait mode|bokeh|depth of field)\b"
REST: Final = r"\b(?:the rest|everything else|all else|all the rest|anything else|the others?|the remainder)\b"
SUBJECT: Final = r"\b(?:subject|foreground|main object|main thing|centre|center|middle)\b"
#: Between two things, these make the second the place of the first: "the cup on the table".
BESIDE: Final = (
    r"\b(?:on|in|behind|above|below|under|underneath|beside|besides|near|by|from|out of|of|over|against|at|around"
    r"|inside|along|across|next to|in front of|with|beneath|off|to)\b"
)
PLACES: Final[Mapping[str, str]] = {
    "top": "top|upper|above",
    "bottom": "bottom|lower|below",
    "left": "left|leftmost",
    "right": "right|rightmost",
    "middle": "middle|centre|center|central",
    "far": "background|distance|back|far away|horizon",
    "near": "foreground|front",
    "large": "biggest|bigger|largest|larger|big|large|main",
    "small": "smallest|smaller|small|little|tiny",
}
#: Words that follow "the" without naming a thing in the picture.
_NO_THING: Final = (
    "same|most|more|bit|little|lot|way|style|contrast|brightness|saturation|exposure|warmth|sharpness|colour|color|"
    "corners|edges|part|parts|area|areas|region|regions|thing|things|one|ones|side|rest|whole|entire|photo|picture|"
    "image|effect|vignette|details|detail|shadows|highlights|white|balance|temperature|clarity|tone|tones|dark|light|"
    "lights|first|feel|feeling|atmosphere|vibe|mood|look|finish|shade|cast|haze|fog|mist|blues|reds|greens|yellows|"
    "noise|distance|half|tiny|tad|touch|hint|contrasts|colours|colors|lighting|darkness|glow|tint|hue|mode|moment|top|"
    "bottom|left|right|centre|center|middle|upper|lower|filter|drama|dark areas|dramatic|focus|background|picture's|"
    "blur|sharpening|vibrance"
)
STOP: Final = (
    r"\b(?:to|is|are|was|were|be|been|look|looks|looking|in|on|of|at|with|from|by|for|less|more|as|so|very|an?|bit"
    r"|little|lot|touch|tad|much|quite|slightly|somewhat|really|just|too|even|and|but|or|should|could|would|can|needs?"
    r"|has|have|does|do|not|please|stand|seems?|appears?|behind|like|that|which|than|only|instead|out|up|down|away|pop"
    r"|gets?|lose|make|now|again|way|must|might|will|came|comes|turned|got|took|taken|goes|went|over|into|the|my|completely|totally|entirely)\b|[·,;]"
)
ARTICLES: Final = r"\b(?:the|my|our|his|her|their|its|that|those|these|this|an?)\s+"
#: A thing this many times as large as the next one of its kind is the one that is meant.
_DOMINANT: Final = 4.0
#: Things must differ this much in size for "the big one", "the one in the background".
_TELLING: Final = 1.3
#: From this CIE Lab chroma on a colour is plain, and so many degrees of Lab hue apart two are others.
_PLAIN: Final = 25.0
_OTHER_HUE: Final = 75.0
#: How sure it is that one of several equals is meant, below the limit for asking.
ONE_OF_SEVERAL: Final = 0.55


@dataclass(frozen=True)
class Mention:
    """A thing that is named in a text, from `start` to `end`, with what says which one."""

    start: int
    end: int
    word: str
    noun: Noun
    plural: bool
    colour: str = ""
    places: tuple[str, ...] = ()
    landmark: bool = False


@cache
def words_in(words: str) -> re.Pattern[str]:
    """A pattern that finds any of the words, which stand with bars between them."""
    joined = "|".join(re.escape(word) for word in sorted(words.split("|"), key=lambda w: (-len(w), w)))
    return re.compile(rf"(?<![\w'])(?:{joined})(?![\w'])")


@cache
def _noun_pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    words = sorted({*nouns(), *extra, "one", "ones"}, key=lambda word: (-len(word), word))
    joined = "|".join(re.escape(word) for word in words)
    return re.compile(rf"(?<![\w'])({joined})(?:'s|s')?(?!\w|'\w)")


def mentions(text: str, entities: Sequence[EntityData], last: Collection[str] = ()) -> list[Mention]:
    """The things that a text names, in order, each with the words that say which one of its kind is meant."""
    labels = tuple(sorted({entity.label for entity in entities if "region" not in entity.label.split()}))
    found: list[Mention] = []
    for match in _noun_pattern(labels).finditer(text):
        mention = _mention(match, text, entities, last, found[-1].end if found else 0)
        if mention is None:
            continue
        between = text[found[-1].end : mention.start] if found else ""
        found.append(replace(mention, landmark=bool(found) and re.search(BESIDE, between) is not None))
    return found


def _mention(
    match: re.Match[str], text: str, entities: Sequence[EntityData], last: Collection[str], after: int
) -> Mention | None:
    word, rest = match.group(1), text[match.end() :]
    before = text[after : match.start()]
    end = match.end()
    if match.group() != word:
        owned = re.match(r"\s+(?:\w+ )?(?:" + PARTS + r")\b", rest)
        if _noun_pattern(()).match(rest.lstrip()) and owned is None:
            return None  # "everyone's faces" are faces
        other = re.match(r"\s+([a-z]+)\b", rest)
        if owned is None and other is not None and not known(other.group(1)):
            # "the cat's collar" is a thing that nobody has found.
            return Mention(match.start(), end + other.end(), other.group(1), Noun(()), False)
        end += owned.end() if owned else 0
    if word in ("her", "him", "me", "us", "he", "she", "we", "i") and not _is_person(word, before, rest):
        return None
    if word in ("one", "ones"):
        kinds = tuple(dict.fromkeys(entity.label for entity in entities if entity.entity_id in last))
        if not kinds:
            return None
        noun = Noun(kinds, plural=word == "ones")
    else:
        noun = nouns().get(word) or Noun((word,))
    start, colour, places = _before(before, match.start())
    length, after_places = _after(text[end:])
    many = noun.plural or re.search(r"\b(?:both|all|every|each|two|three|several)\b", before[-24:]) is not None
    return Mention(start, end + length, word, noun, many, colour, (*places, *after_places))


def _is_person(word: str, before: str, rest: str) -> bool:
    """Whether a pronoun stands for somebody: not in "give me", and "her hat" is about a hat."""
    if word in ("me", "us") and re.search(r"\b(?:give|let|show|get|help|for|tell)\s+$", before):
        return False
    if word in ("we", "i"):
        # "we look too dark", and not "I want".
        return (
            re.match(r"\s+(?:look|looked|appear|seem|came out|(?:am|are) (?:way |much |a bit )?too)\b", rest)
            is not None
        )
    following = re.match(r"\s+([a-z]+)", rest)
    if word != "her" or following is None:
        return True
    return known(following.group(1)) or re.match(STOP, following.group(1)) is not None


def _before(before: str, start: int) -> tuple[int, str, list[str]]:
    """What the words before a noun say about which one: where they begin, a colour, and places or sizes."""
    words = re.search(r"(?:[a-z]+\s+){0,4}$", before)
    given = words.group().split() if words else []
    articles = [at for at, word in enumerate(given) if re.fullmatch(ARTICLES.strip(r"\s+") + "|both|all", word)]
    given = given[articles[-1] + 1 :] if articles else given
    colour, places, used = "", [], 0
    for number, word in enumerate(reversed(given), 1):
        place = _place_in(word)
        if word in COLOURS or word == "dark":
            colour, used = word, number
        elif place:
            places.append(place)
            used = number
        elif not articles:
            break
    kept = given[len(given) - used :] if used else []
    length = len(before) - before.rfind(kept[0]) if kept else 0
    return start - length, colour, places


def _after(rest: str) -> tuple[int, list[str]]:
    """ "... on the far left", "in the background": how long it is, and the place."""
    words = "|".join(word for names in PLACES.values() for word in names.split("|"))
    match = re.match(
        rf"\s+(?:(?:that|which|who) (?:is|are) )?(?:on|at|in|to|towards|back)?\s*(?:the )?(?:very |far )?({words})"
        r"(?: hand)?(?: side| corner| part)?\b",
        rest,
    )
    if match is None or not re.match(r"\s+(?:(?:that|which|who) (?:is|are) )?(?:on|at|in|to|towards)\b", rest):
        return 0, []
    return match.end(), [_place_in(match.group(1))]


def _place_in(word: str) -> str:
    return next((name for name, listed in PLACES.items() if word in listed.split("|")), "")


def which(mention: Mention, entities: Sequence[EntityData]) -> tuple[list[EntityData], float]:
    """The entities that a mention means, and how sure that is; people with their faces."""
    found = [entity for entity in entities if any(_is_called(entity, label) for label in mention.noun.labels)]
    for label in mention.noun.otherwise:
        found = found or [entity for entity in entities if _is_called(entity, label)]
    # Skin has no mask of its own, and a face may have none: their owner stands for them, if the person agrees.
    of_a_person = mention.noun.labels == ("face",) or mention.word.startswith("skin")
    sure = 0.65 if of_a_person and any(entity.label == "person" for entity in found) else 1.0
    if mention.colour and len(found) > 1:
        narrowed = coloured(mention.colour, found)
        found, sure = (narrowed, min(sure, 0.95)) if narrowed else (found, min(sure, 0.8))
    elif mention.colour:
        found = [entity for entity in found if _may_be(mention.colour, entity)]
    for place in mention.places:
        if len(found) > 1:
            found = there(place, found, entities, mention.plural)
            sure = min(sure, 0.93)
    if len(found) > 1 and not mention.plural:
        found, sure = _the_one(found)
    return with_faces(found, entities), sure


def _is_called(entity: EntityData, label: str) -> bool:
    return label in (entity.label, entity.entity_id, entity.entity_id.replace("_", " "))


def _may_be(colour: str, entity: EntityData) -> bool:
    """Whether a thing may have this colour: not where both are of plain, and of quite other hues."""
    if entity.color_hex is None or colour not in COLOURS:
        return True
    said, seen = (lab_of(paint) for paint in (COLOURS[colour], entity.color_hex))
    if min(math.hypot(*said[1:]), math.hypot(*seen[1:])) < _PLAIN:
        return True
    apart = abs(math.degrees(math.atan2(said[2], said[1]) - math.atan2(seen[2], seen[1]))) % 360
    return min(apart, 360 - apart) < _OTHER_HUE


def trust(entity: EntityData) -> float:
    """How much a named entity's own confidence weighs: a doubtful building is still the likeliest building."""
    return 0.55 + 0.45 * entity.confidence


def _the_one(found: list[EntityData]) -> tuple[list[EntityData], float]:
    """Of several the one that is much larger than the others; without one, all of them, and no certainty."""
    ranked = sorted(found, key=lambda entity: -(entity.area_percent or 0.0))
    if (ranked[0].area_percent or 0.0) >= _DOMINANT * (ranked[1].area_percent or 0.0):
        return ranked[:1], 0.75
    return found, ONE_OF_SEVERAL


def there(place: str, found: Sequence[EntityData], entities: Sequence[EntityData], plural: bool) -> list[EntityData]:
    """Those of several that are at a place or of a size: one, or all in that half for "the cars on the left"."""

    def rank(entity: EntityData) -> float:
        across, down = centre(entity, entities)
        area = entity.area_percent or 0.0
        return {"left": across, "right": -across, "top": down, "bottom": -down, "far": area, "small": area}.get(
            place, abs(across - 0.5) if place == "middle" else -area
        )

    if place in ("far", "near", "large", "small"):
        sizes = sorted((entity.area_percent or 0.0 for entity in found), reverse=place in ("near", "large"))
        if max(sizes[:2]) < _TELLING * min(sizes[:2]):
            return list(found)  # of two about the same size none is the big one
    limits = {"left": 0.5, "right": -0.5, "top": 0.5, "bottom": -0.5, "middle": 0.2}
    if plural and place in limits:
        return [entity for entity in found if rank(entity) < limits[place]] or list(found)
    return [min(found, key=lambda entity: (rank(entity), entity.entity_id))]


def with_faces(found: Sequence[EntityData], entities: Sequence[EntityData]) -> list[EntityData]:
    """People with the faces that lie inside of their boxes, for a face is an entity of its own."""
    people = [entity.bbox for entity in found if entity.label == "person"]
    faces = [
        entity
        for entity in entities
        if entity.label == "face" and entity not in found and any(_holds(box, entity.bbox) for box in people)
    ]
    return [*found, *faces]


def _holds(outer: BoundingBox | None, inner: BoundingBox | None) -> bool:
    if outer is None or inner is None:
        return False
    x, y = inner.x + inner.width / 2, inner.y + inner.height / 2
    return outer.x <= x <= outer.x + outer.width and outer.y <= y <= outer.y + outer.height


def known(word: str) -> bool:
    """Whether a word is no name of a thing: a colour, a look, a degree, part of another phrase."""
    from flows.engines.lexicon import is_degree, look_in

    listed = "|".join((_NO_THING, *PLACES.values()))
    patterns = (WHOLE, SUBJECT, BACKGROUND, REST, PRONOUN)
    if word in COLOURS or words_in(listed).fullmatch(word) or any(re.fullmatch(p, word) for p in patterns):
        return True
    return look_in(word) is not None or is_degree(word)
