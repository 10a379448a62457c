"""The subject by focus: what is sharp before a soft background, as in most portraits of people, animals and flowers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from flows.engines.cutting import cut_out, keep_large, shrink_mask
from flows.engines.regions import Bools, Floats, Picture

#: Sharpness of subject over background (difference of mean log energies) below which nothing stands out.
_LEAST_CONTRAST: Final = 0.75
#: A photo whose border is sharp over more than this share has no soft background.
_MOST_SHARP_BORDER: Final = 0.32


@dataclass(frozen=True)
class Subject:
    """Which pixels of the small copy are the subject, and how sure that is."""

    where: Bools
    confidence: float


def find_subject(picture: Picture) -> Subject | None:
    """The sharp part of a photo with a soft background; None where everything, or nothing, is sharp."""
    sharpness = _sharpness(picture)
    sharp, contrast = _split(sharpness)
    border = ~_without_border(sharp)
    edge = float(sharp[border].mean())
    if contrast < _LEAST_CONTRAST or edge > _MOST_SHARP_BORDER or not 0.02 < sharp.mean() < 0.6:
        return None
    core = _largest(shrink_mask(sharp, 9))
    if not core.any():
        return None
    where = _cut(picture, core, sharpness < _threshold(sharpness) - 0.3 * contrast)
    if not 0.02 < where.mean() < 0.65 or where[border].mean() > 0.4:
        return None
    confidence = 0.45 + 0.3 * min(1.0, contrast - 0.6) + 0.3 * (1 - edge / 0.35)
    return Subject(where, float(np.clip(confidence, 0, 0.92)))


def _sharpness(picture: Picture) -> Floats:
    """Log of the energy of the finest structure in Lab, averaged over some 12 pixels."""
    fine = picture.lab - np.asarray(cv2.GaussianBlur(picture.lab, (0, 0), 1.0))
    energy = cv2.GaussianBlur(np.linalg.norm(fine, axis=2).astype(np.float32), (0, 0), 6.0)
    return np.asarray(np.log(np.asarray(energy) + 0.15), dtype=np.float32)


def _threshold(values: Floats) -> float:
    """Otsu's threshold of a plane."""
    low, span = float(values.min()), float(np.ptp(values)) + 1e-6
    level, _ = cv2.threshold(((values - low) / span * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    return float(level) / 255 * span + low


def _split(sharpness: Floats) -> tuple[Bools, float]:
    sharp = np.asarray(sharpness > _threshold(sharpness))
    if not sharp.any() or sharp.all():
        return sharp, 0.0
    return sharp, float(sharpness[sharp].mean() - sharpness[~sharp].mean())


def _without_border(like: Bools) -> Bools:
    inner = np.zeros_like(like)
    margin = max(1, round(0.07 * min(like.shape)))
    inner[margin:-margin, margin:-margin] = True
    return inner


def _largest(where: Bools) -> Bools:
    """The largest group of parts that lie within some 15 pixels of each other."""
    near = cv2.dilate(where.astype(np.uint8), np.ones((15, 15), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    if len(stats) < 2:
        return where
    return np.asarray(where & (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))))


def _cut(picture: Picture, core: Bools, soft: Bools) -> Bools:
    """GrabCut from the sharp core; what it encloses belongs to it, what is far or soft does not."""
    filled = np.asarray(cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((61, 61), np.uint8)), bool)
    near = np.asarray(cv2.dilate(core.astype(np.uint8), np.ones((41, 41), np.uint8)), bool)
    marks = np.full(core.shape, cv2.GC_PR_BGD, dtype=np.uint8)
    marks[filled] = cv2.GC_PR_FGD
    marks[core] = cv2.GC_FGD
    marks[~near & ~filled] = cv2.GC_BGD
    marks[soft & ~filled] = cv2.GC_BGD
    return keep_large(cut_out(picture.pixels, marks), 0.005)
