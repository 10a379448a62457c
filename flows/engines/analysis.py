"""The embedded analyzer: people and things that the detector sees, stuff that fills the rest, honest colour regions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from edi_storage.models import BoundingBox, EntityData
from flows.engines import parts
from flows.engines.base import Detection, Mask, Pixels, Progress, Scene, no_progress
from flows.engines.mattes import soft_masks
from flows.engines.parts import Part
from flows.engines.regions import Bools, Picture, colour_name, join_shades, measure, merge, place_name, shrink

_MOST_ENTITIES: Final = 8
#: Regions smaller than this fraction of the picture are merged into another.
_LEAST_REGION: Final = 0.02
#: A region is what it is: its colour is measured, not guessed.
_REGION_CONFIDENCE: Final = 0.9


class EmbeddedAnalyzer:
    """NanoDet, a person matte and a stuff head on the CPU, cut along edges by GrabCut and a guided filter."""

    name = "embedded"
    version = "5"

    def analyze(self, pixels: Pixels, progress: Progress = no_progress) -> Scene:
        """Find at most eight entities that together cover the picture. Same pixels, same entities and masks."""
        progress(0.05, "looking at colours and edges", {})
        picture = measure(shrink(pixels))
        progress(0.2, "looking for people, things, sky, plants, water and buildings", {})
        named = parts.find_parts(picture, _MOST_ENTITIES - 1)
        progress(0.55, "dividing the rest into regions", {})
        found = named + _describe_rest(picture, named)
        found.sort(key=lambda part: (-int(part.where.sum()), part.label))
        progress(0.65, "cutting masks", {})
        masks = soft_masks([part.where for part in found], picture.pixels, pixels)
        progress(0.95, "describing the picture", {})
        return Scene(_detections(found, masks, picture, pixels), _layout(found))


def _describe_rest(picture: Picture, named: Sequence[Part]) -> list[Part]:
    """Regions of similar colour that cover what has no name yet."""
    free = np.ones(picture.labels.shape, dtype=bool)
    for part in named:
        free[part.where] = False
    if not free.any():
        return []
    members = picture.mean(free.astype(np.float32)) > 0.5
    if free.mean() < _LEAST_REGION or not members.any():
        _give_away(free, named)
        return []
    regions = join_shades(picture, merge(picture, members, _MOST_ENTITIES - len(named), _LEAST_REGION))
    numbers = np.where(free, np.asarray(picture.paint(regions)), -1)
    _give_away(free & (numbers < 0), named)
    described = []
    for number in range(int(regions.max()) + 1):
        where = numbers == number
        if where.any():
            name = colour_name(picture.lab[where].mean(axis=0))
            described.append(Part(f"{name} region", where, _REGION_CONFIDENCE))
    return described


def _give_away(crumbs: Bools, named: Sequence[Part]) -> None:
    """Crumbs between findings go to the nearest one, so that nothing stays uncovered."""
    if not crumbs.any() or not named:
        return
    distances = [cv2.distanceTransform((~part.where).astype(np.uint8), cv2.DIST_L2, 3)[crumbs] for part in named]
    nearest = np.argmin(np.stack(distances), axis=0)
    ys, xs = np.nonzero(crumbs)
    for number, part in enumerate(named):
        part.where[ys[nearest == number], xs[nearest == number]] = True


def _detections(found: Sequence[Part], masks: Sequence[Mask], picture: Picture, pixels: Pixels) -> list[Detection]:
    seen: Counter[str] = Counter()
    detections = []
    for part, mask in zip(found, masks, strict=True):
        word = part.label.replace(" ", "_")
        entity = EntityData(
            entity_id=f"{word}_{seen[word]}",
            label=part.label,
            confidence=part.confidence,
            bbox_json=_box(part.where, pixels).model_dump_json(),
            color_hex=_hex(picture.pixels[part.where].mean(axis=0)),
            area_percent=round(100 * float(mask.mean()), 2),
        )
        seen[word] += 1
        detections.append(Detection(entity, mask))
    return detections


def _box(where: Bools, pixels: Pixels) -> BoundingBox:
    """The box around a region of the small copy, in pixels of the full picture."""
    height, width = pixels.shape[:2]
    down, across = height / where.shape[0], width / where.shape[1]
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    x, y = int(columns[0] * across), int(rows[0] * down)
    right, bottom = min(width, round((columns[-1] + 1) * across)), min(height, round((rows[-1] + 1) * down))
    return BoundingBox(x=x, y=y, width=max(1, right - x), height=max(1, bottom - y))


def _hex(rgb: np.typing.NDArray[np.floating]) -> str:
    return "#" + "".join(f"{round(float(value)):02x}" for value in rgb)


def _layout(found: Sequence[Part]) -> str:
    """One sentence: what is where, largest first."""
    return "; ".join(f"{part.label} {_place(part.where)}" for part in found).capitalize() + "."


def _place(where: Bools) -> str:
    height, width = where.shape
    rows, columns = np.nonzero(where)
    x, y = float(columns.mean()) / width, float(rows.mean()) / height
    # The middle nine tenths: a single stray pixel must not make a region wide.
    spread_x = float(np.quantile(columns, 0.95) - np.quantile(columns, 0.05)) / width / 0.9
    spread_y = float(np.quantile(rows, 0.95) - np.quantile(rows, 0.05)) / height / 0.9
    name = place_name(x, y, spread_x, spread_y)
    percent = round(100 * float(where.mean()))
    return f"{'' if name == 'all over' else 'in the ' if name == 'middle' else 'at the '}{name} ({percent} %)"
