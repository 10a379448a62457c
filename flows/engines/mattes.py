"""From hard regions on the small copy to soft masks at full size, with the guided filter.

K. He, J. Sun: "Fast Guided Filter" (arXiv:1505.00996, 2015): the filter's linear coefficients are found on
the small picture and only they are enlarged, so the matte follows the edges of the full-size picture at
the price of a few multiplications per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from flows.engines.base import Mask, Pixels
from flows.engines.regions import Bools, Floats

_RADIUS: Final = 5
#: Regularisation for a guide in 0..1: below this variance a neighbourhood counts as flat.
_EPSILON: Final = 1.5e-4
#: Coverage below the first and above the second value is noise of the filter; what is between is stretched.
_CUT: Final = (0.12, 0.88)


def soft_masks(regions: Sequence[Bools], small: Pixels, full: Pixels) -> list[Mask]:
    """One mask per region, float32 in 0..1 of the size of `full`, which add up to at most 1 everywhere.

    `regions` are disjoint and of the size of `small`, the reduced copy of `full`.
    """
    guide, large = _gray(small), _gray(full)
    mean = _box(guide)
    variance = np.asarray(_box(guide * guide) - mean * mean + _EPSILON, dtype=np.float32)
    return _normalised([_matte(region, guide, mean, variance, large) for region in regions])


def _gray(pixels: Pixels) -> Floats:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)).astype(np.float32) / np.float32(255)


def _box(plane: Floats) -> Floats:
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _enlarge(plane: Floats, like: Floats) -> Floats:
    size = (like.shape[1], like.shape[0])
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _matte(region: Bools, guide: Floats, mean: Floats, variance: Floats, large: Floats) -> Mask:
    wanted = region.astype(np.float32)
    average = _box(wanted)
    slope = np.asarray((_box(guide * wanted) - mean * average) / variance, dtype=np.float32)
    offset = np.asarray(average - slope * mean, dtype=np.float32)
    matte = _enlarge(_box(slope), large)
    matte *= large
    matte += _enlarge(_box(offset), large)
    matte -= np.float32(_CUT[0])
    matte /= np.float32(_CUT[1] - _CUT[0])
    return np.clip(matte, 0, 1, out=matte)


def _normalised(masks: list[Mask]) -> list[Mask]:
    """Scale the masks down where together they cover more than everything."""
    if not masks:
        return masks
    total = masks[0].copy()
    for mask in masks[1:]:
        total += mask
    np.maximum(total, 1, out=total)
    for mask in masks:
        mask /= total
    return masks
