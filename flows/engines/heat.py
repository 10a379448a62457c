"""A picture of what an edit changed: a heat map of the colour difference, with the borders of the entities.

Without a letter of text, which other versions of the font library would draw otherwise: the same input gives the same
bytes. What the colours mean is said where the picture is shown (`LEGEND`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np

from edi_storage.models import EntityDelta
from flows.engines.base import Mask, Pixels
from flows.engines.comparing import Pair, fitted
from flows.engines.regions import Floats

#: The difference (CIEDE2000) at which the colours end: another colour, whoever looks.
_HOTTEST: Final = 30.0
#: From the first difference on a change is shown, and from the second on it hides the photo below.
_SEEN: Final = 1.0
_HIDES: Final = 9.0
#: Colours of the borders by verdict; what comes later is drawn over what comes earlier.
_BORDERS: Final[Mapping[str, tuple[int, int, int]]] = {
    "preserved": (235, 235, 235),
    "modified": (70, 220, 110),
    "not_applied": (70, 170, 255),
    "wrong_direction": (255, 70, 80),
    "unintended": (255, 70, 80),
}
#: Pixels of the scale below the picture, and of the gap above it.
_SCALE: Final = 10
_GAP: Final = 4

#: What the colours of the borders mean, as far as they differ.
BORDERS: Final[Sequence[tuple[str, tuple[int, int, int], str]]] = (
    ("green", _BORDERS["modified"], "changed, as you asked"),
    ("white", _BORDERS["preserved"], "left as it was"),
    ("red", _BORDERS["unintended"], "changed by accident or the wrong way"),
    ("blue", _BORDERS["not_applied"], "not changed, though you asked"),
)
SCALE: Final = "Grey is as it was; violet has changed a little, orange more, yellow most."
LEGEND: Final = f"{SCALE} Lines: {'; '.join(f'{colour}, {meant}' for colour, _, meant in BORDERS)}."


def delta_picture(pair: Pair, masks: Mapping[str, Mask], deltas: Sequence[EntityDelta]) -> Pixels:
    """The heat map, at most 640 pixels wide or high, and a scale of its colours below it.

    `masks` are those of the entities (height x width of the original), whose verdicts `deltas` holds.
    """
    shown = _heated(pair.before[..., 0], pair.difference)
    # Where two borders meet, the one that says more lies on top. By name too: a state does not keep their order.
    for delta in sorted(deltas, key=lambda delta: (list(_BORDERS).index(delta.verdict), delta.entity_id)):
        if delta.entity_id in masks:
            _outline(shown, fitted(masks[delta.entity_id], pair.shape), _BORDERS[delta.verdict])
    return np.vstack([shown, _scale(pair.shape[1])])


def _colours(heat: Floats) -> Floats:
    """Colours of a heat of 0..1: the upper part of "inferno", whose steps look equally large."""
    levels = np.rint(255 * (0.2 + 0.75 * np.clip(heat, 0, 1))).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1], dtype=np.float32)


def _heated(lightness: Floats, difference: Floats) -> Pixels:
    grey = np.repeat((30 + 1.5 * lightness)[..., None], 3, axis=2)
    share = 0.9 * np.clip((difference - _SEEN) / (_HIDES - _SEEN), 0, 1)[..., None]
    # A little of the light and shade stays, so that one sees what it was that changed.
    heat = _colours(difference / _HOTTEST) * (0.75 + 0.25 * lightness / 100)[..., None]
    return np.asarray(np.clip(grey * (1 - share) + heat * share, 0, 255), dtype=np.uint8)


def _outline(picture: Pixels, mask: Mask, colour: tuple[int, int, int]) -> None:
    """Draw the border of a mask, in its colour between two dark lines, so that it shows on light and dark."""
    # Smooth: a fleck of the mask that is smaller than a letter has no border. The picture's own edge is none either.
    smooth = np.asarray(cv2.GaussianBlur(mask, (0, 0), 2.5), dtype=np.float32)
    inside = (smooth > 0.5).astype(np.uint8)
    border = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    wide = cv2.dilate(border, np.ones((3, 3), np.uint8))
    for area, paint in ((wide, (0, 0, 0)), (border, colour)):
        share = cv2.GaussianBlur(area.astype(np.float32), (0, 0), 0.7)[..., None]
        picture[:] = np.rint(picture * (1 - share) + np.array(paint, np.float32) * share).astype(np.uint8)


def _scale(width: int) -> Pixels:
    """From no difference at the left to the hottest at the right."""
    difference = np.linspace(0, _HOTTEST, width, dtype=np.float32)[None].repeat(_SCALE, axis=0)
    band = _heated(np.full_like(difference, 60), difference)
    return np.vstack([np.full((_GAP, width, 3), 255, np.uint8), band])
