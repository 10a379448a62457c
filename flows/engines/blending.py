"""Lays a part of one picture into another without a seam: screened Poisson editing.

What is laid in keeps its gradients; a correction h brings its border to what is there (P. Perez et al., Poisson Image
Editing, 2003). It minimises |grad h|^2 + h^2 / L^2 inside plus w (h - d)^2 on the border, where d is the difference to
be taken over. The second term (P. Bhat et al., 2008) lets it fade out over the length L: within, a part is what was
chosen. And w is 1 where both sides of the border are alike, and 0 where it is an edge in the photo anyway, as between a
sky and roofs: there nobody sees a seam, and the tone of the roofs must not glow in the sky.

The correction varies slowly, so it is solved on a small copy and enlarged; the part itself is laid in at full size,
through its soft mask. (`cv2.seamlessClone` knows no soft masks, takes the edges of the photo for borders, which gives a
sky back its old colour, and takes 14 seconds for 12 megapixels.)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from flows.engines.bands import Floats, enlarge, in_bands, lay, reduced, spread
from flows.engines.base import Mask
from flows.engines.regions import Bools

#: Pixels of the longer side of the copy on which the correction is solved, and of L on it.
_SIDE: Final = 320
_LENGTH: Final = 40.0
#: How far, on that copy, each side of the border is averaged: single bricks must not draw streaks into a sky.
_AVERAGE: Final = 3.0
#: A difference (0..1, of RGB together) between both sides of the border from which on it is an edge.
_EDGE: Final = 0.12
#: Up to this much of the mask, a pixel is all of what is there.
_OUTSIDE: Final = 0.02


def blend(rgb: Floats, mask: Mask, other: Floats) -> None:
    """Lay `other` into `rgb` in place where `mask` (0..1) says so; both are float32 RGB 0..1 of one size."""
    here, part, cover = (reduced(plane, _SIDE) for plane in (rgb, other, mask))
    inside = cover > _OUTSIDE
    correction = np.zeros_like(here)
    if inside.any() and not inside.all():
        outer, inner = (~inside).astype(np.float32), (cover > 1 - _OUTSIDE).astype(np.float32)
        step = spread(here, outer, _AVERAGE) - spread(here, inner, _AVERAGE)
        alike = np.exp(-(step**2).sum(axis=2) / _EDGE**2)
        correction = _correction(spread(here - part, outer, _AVERAGE), np.asarray(alike, np.float32), inside)

    def work(top: int, bottom: int) -> None:
        new = other[top:bottom] + enlarge(correction, mask.shape, top, bottom)
        lay(rgb[top:bottom], np.clip(new, 0, 1), np.ascontiguousarray(mask[top:bottom]))

    in_bands(rgb.shape, work)


def _correction(wanted: Floats, weight: Floats, inside: Bools) -> Floats:
    """The correction inside (see the module), where `wanted` and `weight` are d and w, of the pixels beside it.

    Beside it, it is w d: so it can be enlarged.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    height, width = inside.shape
    number = np.full(inside.shape, -1)
    unknowns = int(inside.sum())
    number[inside] = np.arange(unknowns)
    rows, columns = np.nonzero(inside)
    own, known = np.full(unknowns, _LENGTH**-2), np.zeros((unknowns, wanted.shape[2]))
    pairs: list[tuple[Any, Any]] = []
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        y, x = rows + down, columns + right
        there = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        neighbour = number[y[there], x[there]]
        border = there[neighbour < 0]
        pull = weight[y[border], x[border]]
        own[border] += pull
        known[border] += pull[:, None] * wanted[y[border], x[border]]
        own[there[neighbour >= 0]] += 1
        pairs.append((there[neighbour >= 0], neighbour[neighbour >= 0]))
    first = np.concatenate([np.arange(unknowns), *(one for one, _ in pairs)])
    second = np.concatenate([np.arange(unknowns), *(other for _, other in pairs)])
    values = np.concatenate([own, *(np.full(len(one), -1.0) for one, _ in pairs)])
    matrix = coo_array((values, (first, second)), shape=(unknowns, unknowns)).tocsc()
    solved = wanted * weight[..., None]
    solved[inside] = spsolve(matrix, known).reshape(unknowns, -1)
    return np.asarray(solved, dtype=np.float32)
