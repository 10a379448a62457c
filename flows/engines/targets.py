"""From words to entities: which of the things found in this photo a clause is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from edi_storage.models import BoundingBox, EntityData
from flows.engines.nouns import ANIMALS, PARTS, VEHICLES, Noun, nouns
from flows.engines.paints import COLOURS, coloured, name_of
from flows.engines.regions import place_name

_WHOLE: Final = (
    r"\b(?:everything|everywhere|whole|entire|photos?|pictures?|images?|pics?|photograph|shot|snap|scene|all|colou?rs|"
    r"overall|mood|look|lighting|tones?|portrait|it all|atmosphere|exposure)\b"
)
#: What "it" is depends on what was said before; alone it is the picture.
_PRONOUN: Final = r"\b(?:it|this|that|them|they|these|those|its)\b"
_BACKGROUND: Final = r"\b(?:backgrounds?|backdrop|surroundings|behind|portrait mode|bokeh|depth of field)\b"
_REST: Final = r"\b(?:the rest|everything else|all else|all the rest|anything else|the others?|the remainder)\b"
_SUBJECT: Final = r"\b(?:subject|foreground|main object|main thing|centre|center|middle)\b"
#: Between two things, these make the second the place of the first: "the cup on the table".
_BESIDE: Final = (
    r"\b(?:on|in|behind|above|below|under|underneath|beside|besides|near|by|from|out of|of|over|against|at|around"
    r"|inside|along|across|next to|in front of|with|beneath|off|to)\b"
)
_PLACES: Final[Mapping[str, str]] = {
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
_STOP: Final = (
    r"\b(?:to|is|are|was|were|be|been|look|looks|looking|in|on|of|at|with|from|by|for|less|more|as|so|very|an?|bit"
    r"|little|lot|touch|tad|much|quite|slightly|somewhat|really|just|too|even|and|but|or|should|could|would|can|needs?"
    r"|has|have|does|do|not|please|stand|seems?|appears?|behind|like|that|which|than|only|instead|out|up|down|away|pop"
    r"|gets?|lose|make|now|again|way|must|might|will|came|comes|turned|got|took|taken|goes|went|over|into|the|my|completely|totally|entirely)\b|[·,;]"
)
_ARTICLES: Final = r"\b(?:the|my|our|his|her|their|its|that|those|these|this|an?)\s+"
#: A thing this many times as large as the next one of its kind is the one that is meant.
_DOMINANT: Final = 4.0
#: Things must differ this much in size for "the big one", "the one in the background".
_TELLING: Final = 1.3
#: How sure it is that one of several equals is meant, below the limit for asking.
_ONE_OF_SEVERAL: Final = 0.55


@dataclass(frozen=True)
class Aim:
    """What a clause is about. `ids` may be empty: then `unknown` says what was looked for in vain."""

    kind: str  # "entities", "whole", "background", "nothing"
    ids: tuple[str, ...] = ()
    certainty: float = 1.0
    unknown: str = ""
    #: One of `ids` is meant, and nothing says which.
    one_of: bool = False
    #: "it", "them": what was named before, if anything was.
    pronoun: bool = False
    #: "the rest": everything but what was named before, if anything was.
    rest: bool = False


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
def _pattern(words: str) -> re.Pattern[str]:
    joined = "|".join(re.escape(word) for word in sorted(words.split("|"), key=lambda w: (-len(w), w)))
    return re.compile(rf"(?<![\w'])(?:{joined})(?![\w'])")


def aim_of(clause: str, entities: Sequence[EntityData], phrase: str = "", last: Collection[str] = ()) -> Aim:
    """Resolve what a clause is about.

    `phrase` is the part of it that names the look and is no target; `last` are the ids of what was named before, for
    "the right one".
    """
    text = clause
    if phrase:
        # A mark in its place: "her brighter" is a person, "her hat" is not.
        text = re.sub(rf"(?<![\w']){re.escape(phrase)}(?![\w'])", "·", clause)
    named = mentions(text, entities, last)
    bare = _without(text, named)
    behind = re.search(_BACKGROUND, bare) or (phrase and re.search(_BACKGROUND, phrase))
    if behind and not any(m.start < _at(behind, bare, text) for m in named):
        subject = _resolved(named, entities) if named else subject_of(entities)
        if not subject.ids:
            subject = subject_of(entities)
        rest = tuple(entity.entity_id for entity in entities if entity.entity_id not in subject.ids)
        return Aim("background", rest, max(subject.certainty, 0.78) if named else subject.certainty)
    if re.search(_REST, bare) and not named:
        subject = subject_of(entities)
        rest = tuple(entity.entity_id for entity in entities if entity.entity_id not in subject.ids)
        return Aim("background", rest, subject.certainty, rest=True)
    if named and not _is_picture_of(text, named[0]):
        stranger = _stranger_before(text, named[0], entities)
        return Aim("entities", (), 0.3, stranger) if stranger else _resolved(named, entities)
    described = _by_colour(bare, entities)
    if described is not None:
        return described
    if re.search(_SUBJECT, bare):
        return subject_of(entities)
    placed = _by_place(bare, entities)
    if placed:
        return Aim("entities", placed, 0.9 if len(placed) == 1 else 0.75)
    unknown = next((word for word in _things(bare) if not _known(word, entities)), "")
    if unknown:
        return Aim("entities", (), 0.3, unknown)
    everything = tuple(entity.entity_id for entity in entities)
    if re.search(_WHOLE, bare):
        return Aim("whole", everything, 0.98)
    if re.search(_PRONOUN, bare):
        return Aim("whole", everything, 0.95, pronoun=True)
    return Aim("nothing")


def _at(found: re.Match[str] | str, bare: str, text: str) -> int:
    """Where the word for the background stands; in the look itself ("bokeh") it stands nowhere else."""
    return found.start() if isinstance(found, re.Match) and found.string == bare else text.find("·")


def _is_picture_of(text: str, first: Mention) -> bool:
    """ "the photo of my dog" is the photo."""
    return (
        re.search(r"\b(?:photo|picture|image|pic|shot|photograph|portrait) of (?:\w+ ){0,2}$", text[: first.start])
        is not None
    )


def _stranger_before(text: str, first: Mention, entities: Sequence[EntityData]) -> str:
    """ "the pole in the sky" is a pole, and the sky only says where it is."""
    from flows.engines.lexicon import fillers

    found = re.search(rf"([a-z']{{3,}})\s+{_BESIDE}\s+(?:\w+ ){{0,3}}$", text[: first.start])
    if found is None or _known(found.group(1), entities) or found.group(1) in fillers():
        return ""
    return found.group(1)


def _without(text: str, named: Iterable[Mention]) -> str:
    for mention in named:
        text = text[: mention.start] + " " * (mention.end - mention.start) + text[mention.end :]
    return text


# --- Things by name ----------------------------------------------------------------------------------


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
        found.append(replace(mention, landmark=bool(found) and re.search(_BESIDE, between) is not None))
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
        if owned is None and other is not None and not _known(other.group(1), entities):
            # "the cat's collar" is a thing that nobody has found.
            return Mention(match.start(), end + other.end(), other.group(1), Noun(()), False)
        end += owned.end() if owned else 0
    if word in ("her", "him", "me", "us", "he", "she", "we") and not _is_person(word, before, rest):
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
    if word == "we":
        return False
    following = re.match(r"\s+([a-z]+)", rest)
    if word != "her" or following is None:
        return True
    return _known(following.group(1), ()) or re.match(_STOP, following.group(1)) is not None


def _before(before: str, start: int) -> tuple[int, str, list[str]]:
    """What the words before a noun say about which one: where they begin, a colour, and places or sizes."""
    words = re.search(r"(?:[a-z]+\s+){0,4}$", before)
    given = words.group().split() if words else []
    articles = [at for at, word in enumerate(given) if re.fullmatch(_ARTICLES.strip(r"\s+") + "|both|all", word)]
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
    words = "|".join(word for names in _PLACES.values() for word in names.split("|"))
    match = re.match(
        rf"\s+(?:(?:that|which|who) (?:is|are) )?(?:on|at|in|to|towards|back)?\s*(?:the )?(?:very |far )?({words})"
        r"(?: hand)?(?: side| corner| part)?\b",
        rest,
    )
    if match is None or not re.match(r"\s+(?:(?:that|which|who) (?:is|are) )?(?:on|at|in|to|towards)\b", rest):
        return 0, []
    return match.end(), [_place_in(match.group(1))]


def _place_in(word: str) -> str:
    return next((name for name, listed in _PLACES.items() if word in listed.split("|")), "")


def _resolved(named: Sequence[Mention], entities: Sequence[EntityData]) -> Aim:
    """All that is named and is not only the place of something else."""
    ids: list[str] = []
    certainty, unknown, one_of = 1.0, "", False
    for mention in named:
        if mention.landmark and (ids or unknown):
            continue
        found, sure = which(mention, entities)
        if not found:
            unknown = unknown or mention.word
            continue
        one_of = one_of or sure == _ONE_OF_SEVERAL
        certainty = min(certainty, sure, *(_trust(entity) for entity in found))
        ids += [entity.entity_id for entity in found if entity.entity_id not in ids]
    return Aim("entities", tuple(ids), certainty if ids else 0.3, unknown, one_of)


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
    for place in mention.places:
        if len(found) > 1:
            found = _there(place, found, entities, mention.plural)
            sure = min(sure, 0.93)
    if len(found) > 1 and not mention.plural:
        found, sure = _the_one(found)
    return _with_faces(found, entities), sure


def _is_called(entity: EntityData, label: str) -> bool:
    return label in (entity.label, entity.entity_id, entity.entity_id.replace("_", " "))


def _trust(entity: EntityData) -> float:
    """How much a named entity's own confidence weighs: a doubtful building is still the likeliest building."""
    return 0.55 + 0.45 * entity.confidence


def _the_one(found: list[EntityData]) -> tuple[list[EntityData], float]:
    """Of several the one that is much larger than the others; without one, all of them, and no certainty."""
    ranked = sorted(found, key=lambda entity: -(entity.area_percent or 0.0))
    if (ranked[0].area_percent or 0.0) >= _DOMINANT * (ranked[1].area_percent or 0.0):
        return ranked[:1], 0.75
    return found, _ONE_OF_SEVERAL


def _there(place: str, found: Sequence[EntityData], entities: Sequence[EntityData], plural: bool) -> list[EntityData]:
    """Those of several that are at a place or of a size: one, or all in that half for "the cars on the left"."""

    def rank(entity: EntityData) -> float:
        across, down = _centre(entity, entities)
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


def _with_faces(found: Sequence[EntityData], entities: Sequence[EntityData]) -> list[EntityData]:
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


# --- Things by colour and place ----------------------------------------------------------------------

_PIECE: Final = r"parts?|areas?|regions?|bits?|things?|stuff|objects?|spots?|sections?|patch(?:es)?"


def _by_colour(text: str, entities: Sequence[EntityData]) -> Aim | None:
    """ "the red part", "richer reds", "blur the green": what has no better name than its colour."""
    names = "|".join(COLOURS)
    match = re.search(rf"\b({names}|dark|black)(?:ish)? (?:{_PIECE}|one)\b", text)
    match = match or re.search(rf"\b({names})s\b", text) or re.search(rf"\bthe ({names})\b(?!\s+[a-z])", text)
    match = match or re.search(rf"\bthe ({names})(?= (?:to|into|more|less|a|much|very|look|and)\b)", text)
    if match is None:
        return None
    regions = [entity for entity in entities if "region" in entity.label.split()]
    found = coloured(match.group(1), regions)
    if not found and re.search(rf"{_PIECE}|one", match.group()):
        found = coloured(match.group(1), entities)
    if not found:
        return None
    for place in (name for name, words in _PLACES.items() if _pattern(words).search(text)):
        found = _there(place, found, entities, True) if len(found) > 1 else found
    return Aim("entities", tuple(entity.entity_id for entity in found), 0.9 if len(found) == 1 else 0.75)


def _by_place(text: str, entities: Sequence[EntityData]) -> tuple[str, ...]:
    """ "the top", "the left side": what lies there."""
    if not re.search(r"\b(?:the|upper|lower)\b", text):
        return ()
    places = [name for name in ("top", "bottom", "left", "right") if _pattern(_PLACES[name]).search(text)]
    there = [entity for entity in entities if places and set(places) <= set(place_of(entity, entities).split())]
    return tuple(entity.entity_id for entity in there)


def _things(text: str) -> list[str]:
    """The nouns that follow an article: "the old wooden door" gives door."""
    words = []
    for group in re.findall(_ARTICLES + r"((?:[a-z']+\s?){1,3})", text):
        # "the dog a bit brighter" is about a dog, not about a bit.
        head = re.split(_STOP, group)[0].split()
        if head:
            words.append(head[-1].removesuffix("'s"))
    return words


def _known(word: str, entities: Sequence[EntityData]) -> bool:
    """Whether a word is no name of a thing: a colour, a look, a degree, part of another phrase."""
    from flows.engines.lexicon import is_degree, look_in

    listed = "|".join((_NO_THING, *_PLACES.values()))
    patterns = (_WHOLE, _SUBJECT, _BACKGROUND, _REST, _PRONOUN)
    if word in COLOURS or _pattern(listed).fullmatch(word) or any(re.fullmatch(p, word) for p in patterns):
        return True
    return look_in(word) is not None or is_degree(word)


# --- Where things are, and what the subject is -------------------------------------------------------


def frame(entities: Iterable[EntityData]) -> tuple[int, int]:
    """Width and height of the picture, which the boxes of its entities span."""
    boxes = [entity.bbox for entity in entities if entity.bbox is not None]
    width = max((box.x + box.width for box in boxes), default=1)
    return width, max((box.y + box.height for box in boxes), default=1)


def place_of(entity: EntityData, entities: Sequence[EntityData]) -> str:
    """Where an entity lies, in words, from its box."""
    width, height = frame(entities)
    box = entity.bbox or BoundingBox(x=0, y=0, width=width, height=height)
    across, down = (box.x + box.width / 2) / width, (box.y + box.height / 2) / height
    return place_name(across, down, box.width / width, box.height / height)


def phrase_of(entity: EntityData, entities: Sequence[EntityData]) -> str:
    """An entity as a person would name it: "the grey region at the top (24 %)"; with its colour among its like."""
    place = place_of(entity, entities)
    where = {"all over": "", "middle": " in the middle"}.get(place, f" at the {place}")
    share = "" if entity.area_percent is None else f" ({max(1, round(entity.area_percent))} %)"
    like = [other for other in entities if other.label == entity.label]
    # Of people the colour that is measured is their clothes', or their skin's: it is no way to call them.
    plain = entity.label in ("person", "face") or "region" in entity.label.split()
    colour = name_of(entity) if len(like) > 1 and not plain else ""
    return f"the {colour} {entity.label}{where}{share}".replace("  ", " ")


_BEINGS: Final = frozenset({"subject", "person", "face", *ANIMALS})
#: What a photo is rarely taken of, when there are things in it.
_SCENERY: Final = frozenset(
    {"sky", "vegetation", "water", "ground", "building", "dining table", "couch", "bed", "chair"}
)
#: A being this many times smaller than the largest one is not what the photo is about.
_PASSING: Final = 10.0


def subject_of(entities: Sequence[EntityData]) -> Aim:
    """The likely subject: people and animals, else vehicles, else things, else what lies in the middle."""
    for kinds, sure in ((_BEINGS, 0.95), (frozenset(VEHICLES), 0.9)):
        things = _large_ones([entity for entity in entities if entity.label in kinds])
        if things:
            things = _with_faces(things, entities)
            return Aim("entities", _in_order(things, entities), min(sure, *(_trust(e) for e in things)))
    things = _large_ones([e for e in entities if e.label not in _SCENERY and "region" not in e.label.split()])
    if things:
        return Aim("entities", _in_order(things, entities), 0.8)
    inner = [entity for entity in entities if is_inside(entity, entities)]
    if inner:
        return Aim("entities", tuple(entity.entity_id for entity in inner), 0.78)
    ranked = sorted(entities, key=lambda e: (_edges(e, entities) > 2, _from_centre(e, entities), e.entity_id))
    scenery = {"sky", "vegetation", "water"} if any(entity.label == "sky" for entity in entities) else {"water"}
    ranked = [entity for entity in ranked if entity.label not in scenery] or ranked
    return Aim("entities", tuple(entity.entity_id for entity in ranked[:1]), 0.6)


def _large_ones(things: Sequence[EntityData]) -> list[EntityData]:
    most = max((entity.area_percent or 0.0 for entity in things if entity.label != "face"), default=0.0)
    return [entity for entity in things if _PASSING * (entity.area_percent or 0.0) >= most]


def _in_order(things: Sequence[EntityData], entities: Sequence[EntityData]) -> tuple[str, ...]:
    chosen = {entity.entity_id for entity in things}
    return tuple(entity.entity_id for entity in entities if entity.entity_id in chosen)


def is_inside(entity: EntityData, entities: Sequence[EntityData]) -> bool:
    """Whether a thing lies in the middle of the picture and touches no more than one edge."""
    return entity.label != "sky" and _edges(entity, entities) <= 1 and _from_centre(entity, entities) < 0.22


def _edges(entity: EntityData, entities: Sequence[EntityData]) -> int:
    """How many edges of the picture an entity touches."""
    width, height = frame(entities)
    box = entity.bbox
    if box is None:
        return 4
    near = (box.x <= 0.01 * width, box.y <= 0.01 * height)
    far = (box.x + box.width >= 0.99 * width, box.y + box.height >= 0.99 * height)
    return sum(near) + sum(far)


def _centre(entity: EntityData, entities: Sequence[EntityData]) -> tuple[float, float]:
    """The middle of a thing's box, as fractions of the picture's width and height."""
    width, height = frame(entities)
    box = entity.bbox or BoundingBox(x=0, y=0, width=width, height=height)
    return (box.x + box.width / 2) / width, (box.y + box.height / 2) / height


def _from_centre(entity: EntityData, entities: Sequence[EntityData]) -> float:
    if entity.bbox is None:
        return 1.0
    across, down = _centre(entity, entities)
    return abs(across - 0.5) + abs(down - 0.5)
