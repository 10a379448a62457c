"""Cutting a region along the edges of the small copy of a picture: GrabCut from marks, and small morphology."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.base import Pixels
from flows.engines.regions import Bools


def cut_out(pixels: Pixels, marks: NDArray[np.uint8], rounds: int = 3) -> Bools:
    """GrabCut on the small copy, starting from its own marks; unchanged where one side has no sure pixels.

    It draws random numbers, hence the seed: a resumed session must find the same.
    """
    certain = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    if not (marks == cv2.GC_BGD).any() or not (marks == cv2.GC_FGD).any():
        return np.asarray(certain)
    cv2.setRNGSeed(0)
    marks = marks.copy()
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    cv2.grabCut(bgr, marks, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    return np.asarray((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD))


def grow(where: Bools, size: int) -> Bools:
    """`where` and what is within about `size` / 2 pixels of it."""
    return np.asarray(cv2.dilate(where.astype(np.uint8), np.ones((size, size), np.uint8)), dtype=bool)


def shrink_mask(where: Bools, size: int) -> Bools:
    """`where` without what is within about `size` / 2 pixels of its border."""
    return np.asarray(cv2.erode(where.astype(np.uint8), np.ones((size, size), np.uint8)), dtype=bool)


def keep_large(where: Bools, least: float) -> Bools:
    """Without specks smaller than `least` (fraction of the picture)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(where.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= least * where.size
    large[0] = False
    return np.asarray(large[labels])
