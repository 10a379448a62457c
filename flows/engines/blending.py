"""Lays a part of one picture into another without a seam (P. Perez et al., Poisson Image Editing, 2003).

What is laid in keeps its gradients, and takes over at its border the difference to what is there: the correction is the
harmonic function with these border values, and free at the edges of the photo. It varies slowly, so it is solved on a
small copy and enlarged; the part itself is laid in at full size, through its soft mask. (`cv2.seamlessClone` takes the
edges of the photo for border values, and so gives a sky back its old colour; and for 12 megapixels it takes
14 seconds.)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from flows.engines.bands import Floats, enlarge, in_bands, lay, reduced, spread
from flows.engines.base import Mask
from flows.engines.regions import Bools

#: Pixels of the longer side of the copy on which the correction is solved; and how far, on it, the difference beside
#: the border is averaged: single bricks must not draw streaks into a sky.
_SIDE: Final = 320
_AVERAGE: Final = 3.0
#: Up to this much of the mask, a pixel is all of what is there.
_OUTSIDE: Final = 0.02


def blend(rgb: Floats, mask: Mask, other: Floats) -> None:
    """Lay `other` into `rgb` in place where `mask` (0..1) says so; both are float32 RGB 0..1 of one size."""
    here, part, cover = (reduced(plane, _SIDE) for plane in (rgb, other, mask))
    inside = cover > _OUTSIDE
    correction = np.zeros_like(here)
    if inside.any() and not inside.all():
        beside = spread(here - part, (~inside).astype(np.float32), _AVERAGE)
        correction = _harmonic(beside, inside)

    def work(top: int, bottom: int) -> None:
        new = other[top:bottom] + enlarge(correction, mask.shape, top, bottom)
        lay(rgb[top:bottom], np.clip(new, 0, 1), np.ascontiguousarray(mask[top:bottom]))

    in_bands(rgb.shape, work)


def _harmonic(plane: Floats, inside: Bools) -> Floats:
    """`plane` outside; inside the solution of Laplace's equation with it as border, and no flow over the edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    height, width = inside.shape
    number = np.full(inside.shape, -1)
    unknowns = int(inside.sum())
    number[inside] = np.arange(unknowns)
    rows, columns = np.nonzero(inside)
    count, known = np.zeros(unknowns), np.zeros((unknowns, plane.shape[2]))
    pairs: list[tuple[Any, Any]] = []
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        y, x = rows + down, columns + right
        there = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        count[there] += 1
        neighbour = number[y[there], x[there]]
        border = there[neighbour < 0]
        known[border] += plane[y[border], x[border]]
        pairs.append((there[neighbour >= 0], neighbour[neighbour >= 0]))
    first = np.concatenate([np.arange(unknowns), *(one for one, _ in pairs)])
    second = np.concatenate([np.arange(unknowns), *(other for _, other in pairs)])
    values = np.concatenate([count, *(np.full(len(one), -1.0) for one, _ in pairs)])
    matrix = coo_array((values, (first, second)), shape=(unknowns, unknowns)).tocsc()
    solved = plane.copy()
    solved[inside] = spsolve(matrix, known).reshape(unknowns, -1)
    return solved
