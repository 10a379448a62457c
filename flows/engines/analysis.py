"""The embedded analyzer: named things where the cues are trusted, honest colour regions everywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edi_storage.models import BoundingBox, EntityData
from flows.engines import cues
from flows.engines.base import Detection, Mask, Pixels, Progress, Scene, no_progress
from flows.engines.focus import find_subject
from flows.engines.mattes import soft_masks
from flows.engines.regions import Bools, Picture, colour_name, measure, merge, place_name, shrink

_MOST_ENTITIES: Final = 8
#: Regions smaller than this fraction of the picture are merged into another.
_LEAST_REGION: Final = 0.02
#: A region is what it is: its colour is measured, not guessed.
_REGION_CONFIDENCE: Final = 0.9


@dataclass(frozen=True)
class _Part:
    label: str
    where: Bools
    confidence: float


class EmbeddedAnalyzer:
    """Classical computer vision on the CPU: superpixels, colour and edge cues, GrabCut, guided filter."""

    name = "embedded"
    version = "1"

    def analyze(self, pixels: Pixels, progress: Progress = no_progress) -> Scene:
        """Find at most eight entities that together cover the picture. Same pixels, same entities and masks."""
        progress(0.05, "looking at colours and edges", {})
        picture = measure(shrink(pixels))
        progress(0.25, "looking for sky, subject, plants, water and buildings", {})
        findings = _name_parts(picture)
        progress(0.55, "dividing the rest into regions", {})
        parts = findings + _describe_rest(picture, findings)
        parts.sort(key=lambda part: (-int(part.where.sum()), part.label))
        progress(0.65, "cutting masks", {})
        masks = soft_masks([part.where for part in parts], picture.pixels, pixels)
        progress(0.95, "describing the picture", {})
        detections = _detections(parts, masks, picture, pixels)
        return Scene(detections, _layout(parts))


def _name_parts(picture: Picture) -> list[_Part]:
    """The findings that are sure enough to be named, disjoint, each taken from what the one before left."""
    cells = cues.superpixels(picture)
    free = np.ones(picture.labels.shape, dtype=bool)
    parts: list[_Part] = []

    def take(finding: cues.Finding | None) -> None:
        if finding is not None and finding.confidence >= cues.TRUSTED:
            parts.append(_Part(finding.label, finding.where & free, round(finding.confidence, 3)))
            free[finding.where] = False

    sky = cues.find_sky(picture, cells)
    take(sky)
    if not parts:  # in a landscape what is sharp is no subject but most of the picture
        take(find_subject(picture))
    take(cues.find_vegetation(picture, cells, free))
    take(cues.find_water(picture, cells, free, sky))
    take(cues.find_building(picture, free, sky))
    return parts


def _describe_rest(picture: Picture, findings: Sequence[_Part]) -> list[_Part]:
    """Regions of similar colour that cover what has no name yet."""
    free = np.ones(picture.labels.shape, dtype=bool)
    for part in findings:
        free[part.where] = False
    if not free.any():
        return []
    members = picture.mean(free.astype(np.float32)) > 0.5
    if free.mean() < _LEAST_REGION or not members.any():
        _give_away(free, findings)
        return []
    regions = merge(picture, members, _MOST_ENTITIES - len(findings), _LEAST_REGION)
    numbers = np.asarray(picture.paint(regions))
    numbers = np.where(free, numbers, -1)
    _give_away(free & (numbers < 0), findings or [])
    parts = []
    for number in range(int(regions.max()) + 1):
        where = numbers == number
        if where.any():
            name = colour_name(picture.lab[where].mean(axis=0))
            parts.append(_Part(f"{name} region", where, _REGION_CONFIDENCE))
    return parts


def _give_away(crumbs: Bools, findings: Sequence[_Part]) -> None:
    """Crumbs between findings go to the nearest one, so that nothing stays uncovered."""
    if not crumbs.any() or not findings:
        return
    import cv2

    distances = [cv2.distanceTransform((~part.where).astype(np.uint8), cv2.DIST_L2, 3)[crumbs] for part in findings]
    nearest = np.argmin(np.stack(distances), axis=0)
    ys, xs = np.nonzero(crumbs)
    for number, part in enumerate(findings):
        part.where[ys[nearest == number], xs[nearest == number]] = True


def _detections(parts: Sequence[_Part], masks: Sequence[Mask], picture: Picture, pixels: Pixels) -> list[Detection]:
    seen: Counter[str] = Counter()
    detections = []
    for part, mask in zip(parts, masks, strict=True):
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


def _layout(parts: Sequence[_Part]) -> str:
    """One sentence: what is where, largest first."""
    return "; ".join(f"{part.label} {_place(part.where)}" for part in parts).capitalize() + "."


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
