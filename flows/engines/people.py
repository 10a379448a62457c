"""People: mattes where the detector has seen a person.

The matting network (MediaPipe's selfie segmentation) was made for one person before a camera. Asked about anything
else, it finds a person in a cat; so it is asked only about the surroundings of a box that the detector calls a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from flows.engines import models
from flows.engines.base import Pixels
from flows.engines.detection import Thing
from flows.engines.regions import Floats

_SIDE: Final = 256
#: The crop is larger than the box by this share of it on each side: hair, elbows and feet stand out of boxes.
_AROUND: Final = 0.2
#: How far outside of the box, as a share of its size, a person may reach.
_REACH: Final = 0.06


def person_mattes(pixels: Pixels, people: Sequence[Thing]) -> list[Floats]:
    """One matte of the size of `pixels` per person, 0..1. Where people overlap, a pixel is the nearest one's."""
    mattes = [_matte(pixels, person) for person in people]
    if len(mattes) < 2:
        return mattes
    nearest = np.argmin(np.stack([_remoteness(person, pixels.shape[:2]) for person in people]), axis=0)
    return [np.where(nearest == number, matte, 0).astype(np.float32) for number, matte in enumerate(mattes)]


def _matte(pixels: Pixels, person: Thing) -> Floats:
    height, width = pixels.shape[:2]
    left, top, right, bottom = _grown(person, _AROUND, width, height)
    crop = cv2.resize(pixels[top:bottom, left:right], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    (answer,) = models.network("selfie_segmentation").run(np.asarray(crop, np.float32) / np.float32(255)).values()
    size = (right - left, bottom - top)
    matte = np.zeros((height, width), np.float32)
    matte[top:bottom, left:right] = np.clip(cv2.resize(answer[0], size, interpolation=cv2.INTER_LINEAR), 0, 1)
    left, top, right, bottom = _grown(person, _REACH, width, height)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    matte[~inside] = 0
    return matte


def _grown(person: Thing, share: float, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in pixels, larger by `share` of its size on each side: left, top, right, bottom."""
    left, top, right, bottom = person.box
    across, down = (right - left) * share, (bottom - top) * share
    x0, x1 = max(0, int((left - across) * width)), min(width, int((right + across) * width) + 1)
    y0, y1 = max(0, int((top - down) * height)), min(height, int((bottom + down) * height) + 1)
    return min(x0, width - 1), min(y0, height - 1), max(x1, x0 + 1), max(y1, y0 + 1)


def _remoteness(person: Thing, shape: tuple[int, ...]) -> Floats:
    """Distance from the middle of the box in units of its half size: below 1 inside an ellipse that fills it."""
    left, top, right, bottom = person.box
    across = (np.arange(shape[1]) + 0.5) / shape[1] - (left + right) / 2
    down = (np.arange(shape[0]) + 0.5) / shape[0] - (top + bottom) / 2
    x, y = across / max((right - left) / 2, 1e-6), down / max((bottom - top) / 2, 1e-6)
    return np.asarray(np.hypot(x[None, :], y[:, None]), dtype=np.float32)
