"""Work on bands of rows, a few at a time: small enough for the processor's cache, with a low peak of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Pixels of a band: a plane of it is an eighth of a megabyte, so that the planes in use stay in the cache.
_PIXELS: Final = 32_768


def processors() -> int:
    """The processors that this process may use: in a container, or under `taskset`, fewer than the machine has."""
    # macOS does not say.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(photos: int) -> None:
    """For so many photos at a time in this machine: each gets its part of the processors this process may use."""
    cv2.setNumThreads(max(1, processors() // photos))


def _workers() -> int:
    """How many bands at a time: as many as OpenCV has threads, which without `share_cores` are all processors.

    numpy and OpenCV let go of the interpreter while they compute; beyond four the memory bus is the limit.
    """
    return min(4, max(1, cv2.getNumThreads()))


def in_bands(shape: tuple[int, ...], work: Callable[[int, int], None], rows: tuple[int, int] | None = None) -> None:
    """Call `work(top, bottom)` for bands of a picture of this shape: for all its rows, or from one row to another.

    The bands must not depend on each other. Raises what `work` raises. The result does not depend on the number of
    processors.
    """
    first, last = rows or (0, shape[0])
    step = max(8, _PIXELS // max(1, shape[1]))
    edges = [(top, min(top + step, last)) for top in range(first, last, step)]
    workers = _workers()
    if len(edges) < 2 or workers == 1:
        for top, bottom in edges:
            work(top, bottom)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda edge: work(*edge), edges))


def planes_of(band: Floats) -> list[Floats]:
    """The channels of a band, each a plane of its own: work on planes runs through memory without gaps."""
    return [np.asarray(plane, dtype=np.float32) for plane in cv2.split(band)]


def lay(band: Floats, new: Floats, cover: Floats) -> None:
    """Mix `new` into `band` in place where `cover` (height x width, 0..1) says so; where it is 0, nothing changes."""
    difference = np.subtract(new, band)
    # Three equal channels: a broadcast along the last axis costs five times as much.
    difference *= cv2.merge((cover, cover, cover))
    band += difference


def enlarge(plane: Floats, shape: tuple[int, ...], top: int, bottom: int) -> Floats:
    """Rows `top` to `bottom` of a plane enlarged to `shape`, without making the rest."""
    height, width = shape[:2]
    scale_y, scale_x = plane.shape[0] / height, plane.shape[1] / width
    matrix = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, (top + 0.5) * scale_y - 0.5]])
    large = cv2.warpAffine(
        plane,
        matrix,
        (width, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(large, dtype=np.float32)


def reduced(plane: Floats, side: int) -> Floats:
    """A copy with a long side of at most `side`, each pixel the mean of those it stands for."""
    factor = side / max(plane.shape[:2])
    if factor >= 1:
        return plane.copy()
    size = (max(1, round(plane.shape[1] * factor)), max(1, round(plane.shape[0] * factor)))
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def spread(plane: Floats, weight: Floats, sigma: float) -> Floats:
    """A blur that takes only where `weight` is, and so continues that under the rest; sigma in pixels."""
    if sigma > 20:  # a wide blur costs as much as all the rest and looks the same from a quarter of the size
        size = (max(1, plane.shape[1] // 4), max(1, plane.shape[0] // 4))
        fewer = np.asarray(cv2.resize(_weighted(plane, weight), size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        share = np.asarray(cv2.resize(weight, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        small = _normalised(fewer, share, sigma / 4)
        return np.asarray(cv2.resize(small, (plane.shape[1], plane.shape[0])), dtype=np.float32)
    return _normalised(_weighted(plane, weight), weight, sigma)


def _weighted(plane: Floats, weight: Floats) -> Floats:
    return np.asarray(plane * (weight if plane.ndim == 2 else weight[..., None]), dtype=np.float32)


def _normalised(weighted: Floats, weight: Floats, sigma: float) -> Floats:
    above = np.asarray(cv2.GaussianBlur(weighted, (0, 0), sigma))
    below = np.asarray(cv2.GaussianBlur(weight, (0, 0), sigma))
    return np.asarray(above / ((below if above.ndim == 2 else below[..., None]) + 1e-5), dtype=np.float32)
