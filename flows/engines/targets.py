"""From words to entities: which of the things found in this photo a clause is about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edi_storage.models import EntityData
from flows.engines.mentions import (
    ARTICLES,
    BACKGROUND,
    BESIDE,
    ONE_OF_SEVERAL,
    PLACES,
    PRONOUN,
    REST,
    STOP,
    SUBJECT,
    WHOLE,
    Mention,
    known,
    mentions,
    there,
    trust,
    which,
    with_faces,
    words_in,
)
from flows.engines.nouns import ANIMALS, VEHICLES, names_of
from flows.engines.paints import COLOURS, coloured, name_of
from flows.engines.places import edges, from_centre, is_inside, place_of


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
    if _is_background(bare, phrase, text, named):
        return _behind(named, entities)
    if re.search(REST, bare) and not named:
        return replace(_behind([], entities), rest=True)
    if named and not _is_picture_of(text, named[0]):
        stranger = _stranger_before(text, named[0])
        return Aim("entities", (), 0.3, stranger) if stranger else _resolved(named, entities)
    return _described(bare, entities)


def _described(text: str, entities: Sequence[EntityData]) -> Aim:
    """What a text without the name of any thing is about: a colour, a place, all of it, or nothing."""
    coloured_part = _by_colour(text, entities)
    if coloured_part is not None:
        return coloured_part
    if re.search(SUBJECT, text):
        return subject_of(entities)
    unknown = next((word for word in _things(text) if not known(word)), "")
    if unknown:
        return Aim("entities", (), 0.3, unknown)
    placed = _by_place(text, entities)
    if placed:
        return Aim("entities", placed, 0.9 if len(placed) == 1 else 0.75)
    everything = tuple(entity.entity_id for entity in entities)
    if re.search(WHOLE, text):
        return Aim("whole", everything, 0.98)
    if re.search(PRONOUN, text):
        return Aim("whole", everything, 0.95, pronoun=True)
    return Aim("nothing")


#: "the wall behind us" is the background.
_BACKDROPS: Final = frozenset({"wall", "walls", "view", "scenery"})


def _is_background(bare: str, phrase: str, text: str, named: Sequence[Mention]) -> bool:
    """Whether a clause is about the background: of a thing that is named before it, it is only the place."""
    found = re.search(BACKGROUND, bare)
    if found is None and not re.search(BACKGROUND, phrase):
        return False
    at = text.find("·") if found is None else found.start()
    strange = [word for word in _things(text[:at]) if _is_strange(word) and word not in _BACKDROPS]
    is_place = found is not None and found.group() == "behind" and strange
    return not is_place and not any(mention.start < at for mention in named)


def _behind(named: Sequence[Mention], entities: Sequence[EntityData]) -> Aim:
    """Everything but what is named ("behind the man"), or but the likely subject."""
    subject = _resolved(named, entities) if named else subject_of(entities)
    sure, unknown = (max(subject.certainty, 0.78), "") if named else (subject.certainty, "")
    if not subject.ids:
        sure, unknown = 0.3, subject.unknown
        subject = subject_of(entities)
    rest = tuple(entity.entity_id for entity in entities if entity.entity_id not in subject.ids)
    return Aim("background", rest, sure, unknown)


def _is_picture_of(text: str, first: Mention) -> bool:
    """ "the photo of my dog" is the photo."""
    return (
        re.search(r"\b(?:photo|picture|image|pic|shot|photograph|portrait) of (?:\w+ ){0,2}$", text[: first.start])
        is not None
    )


def _without(text: str, named: Iterable[Mention]) -> str:
    for mention in named:
        text = text[: mention.start] + " " * (mention.end - mention.start) + text[mention.end :]
    return text


def _stranger_before(text: str, first: Mention) -> str:
    """ "the pole in the sky" is a pole, and the sky only says where it is."""
    from flows.engines.lexicon import fillers

    found = re.search(rf"([a-z']{{3,}})\s+{BESIDE}\s+(?:\w+ ){{0,3}}$", text[: first.start])
    if found is None or not _is_strange(found.group(1)) or found.group(1) in fillers():
        return ""
    return found.group(1)


def _is_strange(word: str) -> bool:
    """Whether a word names a thing that nothing here knows. A shadow is a thing, where it is that of something."""
    return word == "shadow" or not known(word)


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
        one_of = one_of or sure == ONE_OF_SEVERAL
        certainty = min(certainty, sure, *(trust(entity) for entity in found))
        ids += [entity.entity_id for entity in found if entity.entity_id not in ids]
    return Aim("entities", tuple(ids), certainty if ids else 0.3, unknown, one_of)


# --- Things by colour and place ----------------------------------------------------------------------

_PIECE: Final = r"parts?|areas?|regions?|bits?|things?|stuff|objects?|spots?|sections?|patch(?:es)?"


def _by_colour(text: str, entities: Sequence[EntityData]) -> Aim | None:
    """ "the red part", "richer reds", "blur the green": what has no better name than its colour."""
    names = "|".join(COLOURS)
    match = re.search(rf"\b({names}|dark|black)(?:ish)? (?:{_PIECE}|ones?)\b", text)
    match = match or re.search(rf"\b({names})s\b", text) or re.search(rf"\bthe ({names})\b(?!\s+[a-z])", text)
    match = match or re.search(rf"\bthe ({names})(?= (?:to|into|more|less|a|much|very|look|and)\b)", text)
    if match is None:
        return None
    regions = [entity for entity in entities if "region" in entity.label.split()]
    found = _by_name(text, regions) or coloured(match.group(1), regions)
    if not found and re.search(rf"{_PIECE}|one", match.group()):
        found = coloured(match.group(1), entities)
    if not found:
        return None
    for place in (name for name, words in PLACES.items() if words_in(words).search(text)):
        found = there(place, found, entities, True) if len(found) > 1 else found
    return Aim("entities", tuple(entity.entity_id for entity in found), 0.9 if len(found) == 1 else 0.75)


def _by_name(text: str, regions: Sequence[EntityData]) -> list[EntityData]:
    """ "red region 2", "the dark grey region": what is shown to a person under this very name."""
    named = [(name, [entity_id]) for entity_id, name in names_of(regions).items()]
    named += [(label, [e.entity_id for e in regions if e.label == label]) for label in {e.label for e in regions}]
    for name, ids in sorted(named, key=lambda one: (-len(one[0]), one[0])):
        if re.search(rf"\b{re.escape(name)}\b", text):
            return [entity for entity in regions if entity.entity_id in ids]
    return []


def _by_place(text: str, entities: Sequence[EntityData]) -> tuple[str, ...]:
    """ "the top", "the left side": what lies there."""
    if not re.search(r"\b(?:the|upper|lower)\b", text):
        return ()
    places = [name for name in ("top", "bottom", "left", "right") if words_in(PLACES[name]).search(text)]
    there = [entity for entity in entities if places and set(places) <= set(place_of(entity, entities).split())]
    return tuple(entity.entity_id for entity in there)


def _things(text: str) -> list[str]:
    """The nouns that follow an article: "the old wooden door" gives door."""
    words = []
    for group in re.findall(ARTICLES + r"((?:[a-z']+\s?){1,3})", text):
        # "the dog a bit brighter" is about a dog, not about a bit.
        head = re.split(STOP, group)[0].split()
        if head:
            words.append(head[-1].removesuffix("'s"))
    return words


# --- Where things are, and what the subject is -------------------------------------------------------


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
            things = with_faces(things, entities)
            return Aim("entities", _in_order(things, entities), min(sure, *(trust(e) for e in things)))
    things = _large_ones([e for e in entities if e.label not in _SCENERY and "region" not in e.label.split()])
    if things:
        return Aim("entities", _in_order(things, entities), 0.8)
    inner = [entity for entity in entities if is_inside(entity, entities)]
    if inner:
        return Aim("entities", tuple(entity.entity_id for entity in inner), 0.78)
    ranked = sorted(entities, key=lambda e: (edges(e, entities) > 2, from_centre(e, entities), e.entity_id))
    scenery = {"sky", "vegetation", "water"} if any(entity.label == "sky" for entity in entities) else {"water"}
    ranked = [entity for entity in ranked if entity.label not in scenery] or ranked
    return Aim("entities", tuple(entity.entity_id for entity in ranked[:1]), 0.6)


def _large_ones(things: Sequence[EntityData]) -> list[EntityData]:
    most = max((entity.area_percent or 0.0 for entity in things if entity.label != "face"), default=0.0)
    return [entity for entity in things if _PASSING * (entity.area_percent or 0.0) >= most]


def _in_order(things: Sequence[EntityData], entities: Sequence[EntityData]) -> tuple[str, ...]:
    chosen = {entity.entity_id for entity in things}
    return tuple(entity.entity_id for entity in entities if entity.entity_id in chosen)
