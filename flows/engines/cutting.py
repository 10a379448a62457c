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
    if not marks.size or not (marks == cv2.GC_BGD).any() or not (marks == cv2.GC_FGD).any():
        return np.asarray(certain)
    cv2.setRNGSeed(0)
    marks = marks.copy()
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    cv2.grabCut(bgr, marks, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    return np.asarray((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD))


def cut_out_small(pixels: Pixels, marks: NDArray[np.uint8], side: int) -> Bools:
    """The same on a copy with a long side of at most `side`: near enough for the guided filter that follows."""
    height, width = marks.shape
    factor = side / max(height, width)
    if factor >= 1:
        return cut_out(pixels, marks, rounds=2)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    fewer = np.asarray(cv2.resize(marks, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    cut = cut_out(small, fewer, rounds=2).astype(np.float32)
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)) > 0.5


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
