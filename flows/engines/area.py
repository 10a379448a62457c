"""Where an edit may work: a rectangle or a painted mask that a person gives, as one more entity of the scene."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from edi_storage.errors import InputError
from edi_storage.models import BoundingBox, EntityData, SceneAnalysis
from flows.engines.base import Detection, Mask, Pixels, Scene
from flows.engines.photo import Photo, open_photo

#: The id and label of the entity that a region or a mask becomes.
REGION: Final = "region"
#: Longest text for a region.
MAX_REGION: Final = 100
#: By how much the proportions of a mask may differ from those of the photo: what rounding to pixels does.
_ASPECT: Final = 0.02
#: Darker than the first is black, brighter than the second white: JPEG leaves noise on both.
_CERTAIN: Final = (0.06, 0.94)


@dataclass(frozen=True)
class Region:
    """A rectangle in percent of the upright picture; `x`, `y` is its top left corner."""

    x: float
    y: float
    width: float
    height: float

    def __str__(self) -> str:
        # All digits: what is read back must be the same region.
        return ",".join(repr(value).removesuffix(".0") for value in (self.x, self.y, self.width, self.height))

    def box(self, width: int, height: int) -> BoundingBox:
        """The same in pixels of a picture of this size; at least one pixel."""
        left, top = min(round(self.x * width / 100), width - 1), min(round(self.y * height / 100), height - 1)
        right = max(left + 1, round((self.x + self.width) * width / 100))
        bottom = max(top + 1, round((self.y + self.height) * height / 100))
        return BoundingBox(x=left, y=top, width=min(right, width) - left, height=min(bottom, height) - top)


def read_region(given: str) -> Region | None:
    """Read "left, top, width, height" in percent; None for an empty text. Raises InputError."""
    if not given.strip():
        return None
    if len(given) > MAX_REGION:
        raise InputError(f"The region has {len(given)} characters: four numbers take at most {MAX_REGION}.")
    parts = re.split(r"[\s,;%]+", given.strip(" \t%,;"))
    try:
        x, y, width, height = (float(part) for part in parts)
    except ValueError:
        x = y = width = height = float("nan")
    if not (x >= 0 and y >= 0 and width >= 1 and height >= 1 and x + width <= 100 and y + height <= 100):
        raise InputError(
            f"The region is {given[:60]!r}: give four numbers in percent of the picture, how far from the left and "
            "from the top, how wide and how high; '0,0,100,40' is the upper two fifths, '50,0,50,100' the right half."
        )
    return Region(x, y, width, height)


def read_mask(path: str, photo: Photo) -> Mask:
    """A painted mask for a photo: 0 (black, nothing may change) to 1 (white), in its own size. Raises InputError.

    It is opened as carefully as a photo. What is transparent counts as black.
    """
    painted = open_photo(path)
    if abs(painted.width * photo.height / (painted.height * photo.width) - 1) > _ASPECT:
        raise InputError(
            f"The mask {path} is {painted.width}x{painted.height} pixels, and the photo {photo.width}x{photo.height}: "
            "give a mask with the proportions of the photo."
        )
    grey = np.asarray(cv2.cvtColor(painted.pixels, cv2.COLOR_RGB2GRAY), dtype=np.float32) / np.float32(255)
    if painted.alpha is not None:
        grey = grey * (painted.alpha.astype(np.float32) / np.float32(255))
    black, white = _CERTAIN
    mask = np.asarray(np.clip((grey - black) / (white - black), 0, 1), dtype=np.float32)
    if mask.max() < 0.5:
        raise InputError(f"The mask {path} is black all over: paint white where the photo may change.")
    return mask


def with_region(scene: Scene, region: Region | None, pixels: Pixels, painted: Mask | None = None) -> Scene:
    """The scene with the region, or the painted mask, as its last entity, if there is one."""
    if painted is not None:
        mask = _of_size(painted, pixels.shape)
    elif region is not None:
        mask = region_mask(region, pixels.shape)
    else:
        return scene
    inside = pixels[mask > 0.5] if (mask > 0.5).any() else pixels[mask > 0]
    entity = EntityData(
        entity_id=REGION,
        label=REGION,
        confidence=1.0,
        bbox_json=(region.box(pixels.shape[1], pixels.shape[0]) if region else _box(mask)).model_dump_json(),
        color_hex="#" + "".join(f"{round(float(value)):02x}" for value in inside.mean(axis=0)),
        area_percent=round(100 * float(mask.mean()), 2),
    )
    return Scene([*scene.detections, Detection(entity, mask)], scene.spatial_layout)


def _of_size(painted: Mask, shape: tuple[int, ...]) -> Mask:
    height, width = shape[:2]
    smaller = height < painted.shape[0]
    resized = cv2.resize(painted, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(np.clip(resized, 0, 1), dtype=np.float32)


def _box(mask: Mask) -> BoundingBox:
    rows, columns = np.flatnonzero(mask.max(axis=1) > 0), np.flatnonzero(mask.max(axis=0) > 0)
    x, y = int(columns[0]), int(rows[0])
    return BoundingBox(x=x, y=y, width=int(columns[-1]) - x + 1, height=int(rows[-1]) - y + 1)


def region_mask(region: Region, shape: tuple[int, ...]) -> Mask:
    """1 inside the region, 0 outside, with a soft border that lies inside; height x width as in `shape`."""
    height, width = shape[:2]
    box = region.box(width, height)
    soft = max(1.0, min(0.06 * min(box.width, box.height), 0.02 * max(height, width)))
    across = _ramp(width, box.x, box.width, soft)
    down = _ramp(height, box.y, box.height, soft)
    return np.asarray(down[:, None] * across[None], dtype=np.float32)


def _ramp(length: int, start: int, extent: int, soft: float) -> Mask:
    """0 outside, rising to 1 within `soft` pixels of both ends; not where an end is the picture's own border."""
    place = np.arange(length, dtype=np.float32)
    after, before = place - start + 0.5, start + extent - place - 0.5
    inside = (after > 0) & (before > 0)
    rise = np.ones(length, dtype=np.float32) if start == 0 else np.clip(after / soft, 0, 1)
    fall = np.ones(length, dtype=np.float32) if start + extent == length else np.clip(before / soft, 0, 1)
    return np.asarray(np.minimum(rise, fall) * inside, dtype=np.float32)


def without_region(scene: SceneAnalysis) -> SceneAnalysis:
    """What is in the photo itself: a reasoner must not take the region for a thing that the prompt names."""
    return scene.model_copy(update={"entities": [e for e in scene.entities if e.entity_id != REGION]})
