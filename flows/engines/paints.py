"""Colours by name: as paint that is laid on, and to tell things of one kind apart ("the red car")."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np

from edi_storage.models import EntityData
from flows.engines.regions import colour_name

#: Colours by name, as paint: clearer than the same words on the web.
COLOURS: Final[Mapping[str, str]] = {
    "red": "#c8281e",
    "crimson": "#a81c32",
    "scarlet": "#d02818",
    "maroon": "#6a1a24",
    "orange": "#e67a1c",
    "yellow": "#f0c828",
    "gold": "#d4a62a",
    "golden": "#d4a62a",
    "green": "#2f8f3a",
    "olive": "#7a7a32",
    "lime": "#8fce3a",
    "teal": "#1f8a8a",
    "turquoise": "#2bb5ae",
    "cyan": "#29b5d0",
    "blue": "#2458b8",
    "navy": "#1b2a55",
    "purple": "#6a3a9c",
    "violet": "#7a4ab4",
    "lilac": "#b094d0",
    "pink": "#e67aa6",
    "magenta": "#c02a8c",
    "brown": "#7a4a28",
    "beige": "#d8c6a0",
    "cream": "#efe6cc",
    "white": "#f2f2f0",
    "silver": "#b8bcc0",
    "grey": "#808080",
    "gray": "#808080",
    "black": "#1c1c1c",
}
#: Nearer than this much to each other (in CIE Lab) two things have no colour that tells them apart.
_APART: Final = 8.0
#: Labels of regions say colours in few words; other names of the same colours lead to them.
_SAME_AS: Final[Mapping[str, str]] = {
    "crimson": "red",
    "scarlet": "red",
    "gold": "yellow",
    "golden": "yellow",
    "gray": "grey",
    "silver": "grey",
    "turquoise": "teal",
    "cyan": "teal",
    "navy": "blue",
    "violet": "purple",
    "lilac": "purple",
    "magenta": "pink",
    "cream": "beige",
    "dark": "black",
    "tan": "beige",
}


#: Words that say how light a colour is, or a thing.
_TONES: Final = frozenset({"dark", "deep", "light", "pale", "bright"})


@cache
def lab_of(paint: str) -> tuple[float, float, float]:
    """CIE Lab (D65) of "#rrggbb"; the formulas are those of IEC 61966-2-1 and CIE 15."""
    rgb = [int(paint[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def shade(name: str, tone: str = "") -> str:
    """The paint of that name, lighter or darker where `tone` says so ("dark", "light", "pale", "bright")."""
    paint = COLOURS[name]
    towards = {"dark": 0, "deep": 0, "light": 255, "pale": 255}.get(tone)
    if towards is None:
        return paint
    parts = (int(paint[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + 0.4 * (towards - part)):02x}" for part in parts)


def name_of(entity: EntityData) -> str:
    """What colour an entity has, in a word; empty when it is not known."""
    return "" if entity.color_hex is None else colour_name(np.array(lab_of(entity.color_hex)))


def coloured(name: str, entities: Sequence[EntityData]) -> list[EntityData]:
    """The entities that have this colour: by their label, else the one whose colour is nearest to the paint."""
    word = _SAME_AS.get(name, name)
    labelled = [entity for entity in entities if word in entity.label.split()]
    if labelled or name not in COLOURS:
        return labelled
    ranked = sorted((_distance(entity, COLOURS[name]), entity.entity_id) for entity in entities if entity.color_hex)
    if not ranked or (len(ranked) > 1 and ranked[1][0] - ranked[0][0] < _APART):
        return []
    return [entity for entity in entities if entity.entity_id == ranked[0][1]]


def nearest(said: str, entities: Sequence[EntityData]) -> list[EntityData]:
    """The entities whose colour is known, by how near it is to what is said: "blue", "light blue", "dark", "bright"."""
    *tone, name = said.split()
    if name in COLOURS:
        paint, called = shade(name, tone[0] if tone else ""), {entity.entity_id for entity in coloured(name, entities)}
        return sorted(_known(entities), key=lambda entity: (entity.entity_id not in called, _distance(entity, paint)))
    sign = 1 if name in ("dark", "deep") else -1
    return sorted(_known(entities), key=lambda entity: sign * lab_of(entity.color_hex or "")[0])


def _known(entities: Sequence[EntityData]) -> list[EntityData]:
    return [entity for entity in entities if entity.color_hex]


def colour_said_of(thing: str, text: str) -> str:
    """How the words before a thing tell its colour, for `nearest`: "the light blue stripe"; "" where they do not."""
    found = re.search(rf"((?:[a-z]+ ){{1,4}}){re.escape(thing)}\b", text)
    given = found.group(1).split() if found else []
    tones = [word for word in given if word in _TONES]
    named = next((word for word in reversed(given) if word in COLOURS), "")
    return " ".join([*tones[-1:], named] if named else tones[-1:])


def _distance(entity: EntityData, paint: str) -> float:
    """How far a thing is from a paint. Hue says more than lightness, which light and shade change."""
    lightness, a, b = (one - other for one, other in zip(lab_of(entity.color_hex or paint), lab_of(paint), strict=True))
    return math.hypot(0.5 * lightness, a, b)
