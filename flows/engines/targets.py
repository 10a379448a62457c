"""From words to entities: which of the things found in this photo a clause is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from edi_storage.models import BoundingBox, EntityData
from flows.engines.regions import place_name

#: What people call the things that analyzers label.
NOUNS: Final[Mapping[str, str]] = {
    "sky": "sky|skies|cloud|clouds|heaven|heavens",
    "vegetation": (
        "vegetation|tree|trees|grass|lawn|plant|plants|leaf|leaves|foliage|forest|wood|woods|bush|bushes|greenery|garden|"
        "meadow|field|fields|hedge|jungle|nature"
    ),
    "water": "water|sea|ocean|lake|river|pond|waves|wave|stream|pool|bay",
    "building": (
        "building|buildings|house|houses|temple|palace|church|tower|towers|castle|architecture|cathedral|pagoda|skyscraper|"
        "roof|roofs|structure|facade|hotel|bridge|city|skyline|monument"
    ),
    "person": (
        "person|people|man|men|woman|women|girl|girls|boy|boys|child|children|kid|kids|guy|lady|face|faces|me|him|baby|"
        "bride|couple|model|portrait"
    ),
}
_WHOLE: Final = (
    "everything|whole picture|whole photo|whole image|entire photo|entire picture|entire image|photo|picture|image|pic|"
    "photograph|shot|scene|it|this|all|colors|colours|overall|mood|look|lighting|tones"
)
_BACKGROUND: Final = (
    "background|backdrop|surroundings|behind|bokeh|portrait mode|depth of field|the rest|everything else"
)
_SUBJECT: Final = "subject|foreground|main object|main subject|centre|center|middle"
_PLACES: Final[Mapping[str, str]] = {
    "top": "top|upper|above",
    "bottom": "bottom|lower|below|ground|floor",
    "left": "left",
    "right": "right",
}
#: Words that follow "the" without naming a thing in the picture.
_NO_THING: Final = (
    "same|most|more|bit|little|lot|way|style|contrast|brightness|saturation|exposure|warmth|sharpness|colour|color|corners|"
    "edges|part|area|region|thing|things|one|side|rest|whole|entire|photo|picture|image|effect|vignette|details|detail|"
    "shadows|highlights|white|balance|temperature|clarity|tone|dark|light|first|feel|feeling|atmosphere|vibe"
)


@dataclass(frozen=True)
class Aim:
    """What a clause is about. `ids` may be empty: then `unknown` says what was looked for in vain."""

    kind: str  # "entities", "whole", "background", "nothing"
    ids: tuple[str, ...] = ()
    certainty: float = 1.0
    unknown: str = ""


@cache
def _pattern(words: str) -> re.Pattern[str]:
    joined = "|".join(re.escape(word) for word in sorted(words.split("|"), key=lambda w: (-len(w), w)))
    return re.compile(rf"(?<![\w'])(?:{joined})(?![\w'])")


def aim_of(clause: str, entities: Sequence[EntityData], phrase: str = "") -> Aim:
    """Resolve what a clause is about; `phrase` is the part of it that names the look and is no target."""
    text = clause
    if phrase and not _pattern(_BACKGROUND).search(phrase):
        text = re.sub(rf"(?<![\w']){re.escape(phrase)}(?![\w'])", " ", clause)
    if _pattern(_BACKGROUND).search(text):
        subject = subject_of(entities)
        rest = tuple(entity.entity_id for entity in entities if entity.entity_id not in subject.ids)
        return Aim("background", rest, subject.certainty)
    named = _named(text, entities)
    if named.ids or named.unknown:
        return named
    if _pattern(_SUBJECT).search(text) and not named.ids:
        return subject_of(entities)
    if _pattern(_WHOLE).search(text):
        return Aim("whole", tuple(entity.entity_id for entity in entities), 0.98)
    return Aim("nothing")


def _named(text: str, entities: Sequence[EntityData]) -> Aim:
    ids: list[str] = []
    certainty, unknown = 1.0, ""
    for label, nouns in NOUNS.items():
        match = _pattern(nouns).search(text)
        if match is None:
            continue
        found = [entity for entity in entities if entity.label == label or _is_called(entity, match.group())]
        ids += [entity.entity_id for entity in found if entity.entity_id not in ids]
        if found:
            certainty = min(certainty, *(_trust(entity) for entity in found))
        else:
            unknown = match.group()
    for entity in entities:
        if entity.entity_id not in ids and any(_is_called(entity, word) for word in _things(text)):
            ids.append(entity.entity_id)
            certainty = min(certainty, _trust(entity))
    described = [] if ids else _described(text, entities)
    if described:
        return Aim("entities", tuple(described), 0.9 if len(described) == 1 else 0.75)
    if not ids and not unknown:
        unknown = next((word for word in _things(text) if not _known(word)), "")
    return Aim("entities", tuple(ids), certainty if ids else 0.3, unknown if not ids else "")


def _trust(entity: EntityData) -> float:
    """How much a named entity's own confidence weighs: a doubtful building is still the likeliest building."""
    return 0.55 + 0.45 * entity.confidence


def _is_called(entity: EntityData, word: str) -> bool:
    names = {entity.label, entity.entity_id, entity.entity_id.replace("_", " ")}
    return word in names or (word.endswith("s") and word[:-1] in names)


def _things(text: str) -> list[str]:
    """The nouns that follow an article: "the old red door" gives door."""
    found = re.findall(r"\b(?:the|my|our|his|her|their|its|that|those|these|an?)\s+((?:[a-z']+\s?){1,3})", text)
    words = []
    for group in found:
        # "the dog a bit brighter" is about a dog, not about a bit.
        parts = re.split(
            r"\b(?:to|is|are|look|looks|looking|in|on|of|at|with|from|by|for|less|more|be|as|so|very"
            r"|an?|bit|little|lot|touch|tad|much|quite|slightly|somewhat|really|just|too|even|and|but)\b",
            group,
        )
        if parts[0].split():
            words.append(parts[0].split()[-1])
    return words


def _known(word: str) -> bool:
    from flows.engines.lexicon import COLOURS, look_in

    listed = "|".join((_WHOLE, _SUBJECT, _BACKGROUND, _NO_THING, *_PLACES.values()))
    return word in COLOURS or _pattern(listed).fullmatch(word) is not None or look_in(word) is not None


def _described(text: str, entities: Sequence[EntityData]) -> list[str]:
    """Entities meant by colour or place: "the red part", "the blue region on the left", "the top"."""
    regional = re.search(r"\b(?:part|area|region|thing|things|bit|side|corner|one|stuff|object)\b", text)
    words = [word for word in text.split() if any(word in entity.label.split() for entity in entities)]
    words = [word for word in words if word not in ("region", "dark", "light", "pale")]
    chosen = [entity for entity in entities if words and all(word in entity.label.split() for word in words)]
    if not regional and not (words and chosen and re.search(r"\bthe\b", text)):
        chosen = []
    places = [name for name, listed in _PLACES.items() if _pattern(listed).search(text)]
    if places and (chosen or regional or not words):
        chosen = [entity for entity in (chosen or entities) if set(places) <= set(place_of(entity, entities).split())]
    return [entity.entity_id for entity in chosen]


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
    """An entity as a person would name it: "the grey region at the top (24 %)"."""
    place = place_of(entity, entities)
    where = {"all over": "", "middle": " in the middle"}.get(place, f" at the {place}")
    share = "" if entity.area_percent is None else f" ({max(1, round(entity.area_percent))} %)"
    return f"the {entity.label}{where}{share}"


#: Labels of things that are the subject of a photo wherever they stand.
_SUBJECTS: Final = frozenset(
    {"subject", "person", "face", "cat", "dog", "bird", "horse", "sheep", "cow", "elephant", "bear", "zebra"}
    | {"giraffe", "car", "bicycle", "motorcycle", "bus", "truck", "boat", "train"}
)


def subject_of(entities: Sequence[EntityData]) -> Aim:
    """The likely subject: a thing by name, else what lies in the middle and touches no more than one edge."""
    things = [entity for entity in entities if entity.label in _SUBJECTS]
    if things:
        return Aim("entities", tuple(e.entity_id for e in things), min(0.95, *(_trust(e) for e in things), 1.0))
    inner = [entity for entity in entities if _is_inside(entity, entities)]
    if inner:
        return Aim("entities", tuple(entity.entity_id for entity in inner), 0.78)
    ranked = sorted(entities, key=lambda e: (_edges(e, entities) > 2, _from_centre(e, entities), e.entity_id))
    scenery = {"sky", "vegetation", "water"} if any(entity.label == "sky" for entity in entities) else {"water"}
    ranked = [entity for entity in ranked if entity.label not in scenery] or ranked
    return Aim("entities", tuple(entity.entity_id for entity in ranked[:1]), 0.6)


def _is_inside(entity: EntityData, entities: Sequence[EntityData]) -> bool:
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


def _from_centre(entity: EntityData, entities: Sequence[EntityData]) -> float:
    width, height = frame(entities)
    box = entity.bbox
    if box is None:
        return 1.0
    return float(abs((box.x + box.width / 2) / width - 0.5) + abs((box.y + box.height / 2) / height - 0.5))
