"""Removing a thing: the hole is filled with shifted pieces of what is around it, at full resolution.

Which pieces go where is found on a copy of 320 pixels by OpenCV's SHIFTMAP (K. He, J. Sun: "Statistics of Patch
Offsets for Image Completion", 2012). It tells no shifts, only the filled picture; but that holds exact copies, so the
shifts are read off it. The full-size pixels are then copied by the same shifts, and what is left of a step in
brightness at the rim of the hole is spread over its inside (a membrane, as in Poisson blending).
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.bands import Floats, lay, reduced, spread
from flows.engines.base import Mask
from flows.engines.parameters import Remove
from flows.engines.tone import smoothstep

Bools = NDArray[np.bool_]
Keys = NDArray[np.int64]

_SIDE: Final = 320
#: The step at the rim varies slowly: so many pixels are enough for it.
_MEMBRANE: Final = 400
#: More shifts than SHIFTMAP itself works with.
_MOST_SHIFTS: Final = 80


def remove(rgb: Floats, mask: Mask, wanted: Remove) -> None:
    """Fill the masked area of `rgb` (float32, 0..1) in place; nothing happens under an empty mask."""
    margin = max(2, round(0.006 * max(mask.shape)))
    hole = cv2.dilate(
        (mask > 0.1).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1,) * 2)
    )
    hole_large = np.asarray(hole, dtype=bool)
    if not hole_large.any() or hole_large.all():
        return
    small = reduced(rgb, _SIDE)
    size = (small.shape[1], small.shape[0])
    hole_small = np.asarray(cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0
    lab = cv2.cvtColor(np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2LAB)
    filled = np.zeros_like(lab)
    cv2.setRNGSeed(0)
    cv2.xphoto.inpaint(lab, np.where(hole_small, 0, 255).astype(np.uint8), filled, cv2.xphoto.INPAINT_SHIFTMAP)
    shifts = _shifts(_keys(lab), _keys(filled), hole_small)
    patch = np.asarray(cv2.cvtColor(filled, cv2.COLOR_LAB2RGB)).astype(np.float32) / np.float32(255)
    _lay_in(rgb, hole_large, shifts, patch, margin)


def _keys(lab: NDArray[np.integer[Any] | np.floating[Any]]) -> Keys:
    """One number for each colour."""
    wide = lab.astype(np.int64)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])


def _squares(keys: Keys) -> Keys:
    """One number for each square of two by two pixels: a hash, by odd multipliers modulo 2**64."""
    corners = (keys[:-1, :-1], keys[:-1, 1:], keys[1:, :-1], keys[1:, 1:])
    factors = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
    return np.asarray(sum(corner * np.int64(factor) for corner, factor in zip(corners, factors, strict=True)))


def _votes(known: Keys, filled: Keys, hole: Bools) -> list[tuple[int, int]]:
    """The shifts (down, right) by which the squares of the filled hole were copied, the commonest first."""
    corners = (hole[:-1, :-1], hole[:-1, 1:], hole[1:, :-1], hole[1:, 1:])
    free, inside = ~np.logical_or.reduce(corners), np.logical_and.reduce(corners)
    from_y, from_x = np.nonzero(free)
    to_y, to_x = np.nonzero(inside)
    there = _squares(known)[free]
    order = np.argsort(there, kind="stable")
    wanted = _squares(filled)[inside]
    first = np.searchsorted(there[order], wanted, "left")
    last = np.searchsorted(there[order], wanted, "right")
    only = np.flatnonzero(last - first == 1)  # a square that is found twice says nothing
    source = order[first[only]]
    moved = np.stack([from_y[source] - to_y[only], from_x[source] - to_x[only]], axis=1)
    found, count = np.unique(moved, axis=0, return_counts=True)
    ranked = np.lexsort((found[:, 1], found[:, 0], -count)).tolist()
    return [(int(found[k][0]), int(found[k][1])) for k in ranked[:_MOST_SHIFTS]]


def _shifts(known: Keys, filled: Keys, hole: Bools) -> NDArray[np.int32]:
    """For each small pixel the shift (down, right) it was copied by; 0, 0 outside the hole and where none is found."""
    shifts = np.zeros((*hole.shape, 2), dtype=np.int32)
    open_ = hole.copy()
    rows, columns = np.indices(hole.shape)
    for down, right in _votes(known, filled, hole):
        y, x = np.asarray(rows + down), np.asarray(columns + right)
        inside = (y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1]) & open_
        there = (np.where(inside, y, 0), np.where(inside, x, 0))
        equal = inside & ~hole[there] & (known[there] == filled)
        # Lone pixels of equal colour are chance; a piece is connected.
        same = np.asarray(cv2.morphologyEx(equal.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), bool)
        shifts[same] = (down, right)
        open_ &= ~same
    return shifts


def _lay_in(rgb: Floats, hole: Bools, shifts: NDArray[np.int32], patch: Floats, margin: int) -> None:
    """Copy the full-size pixels, fit their brightness to the rim, and soften the seam."""
    height, width = hole.shape
    top, bottom, left, right = _box(hole, 4 * margin)
    window = rgb[top:bottom, left:right]
    cover = hole[top:bottom, left:right]
    rows, columns = np.nonzero(cover)
    factor = (height / shifts.shape[0], width / shifts.shape[1])
    small_y = np.minimum(((rows + top) / factor[0]).astype(np.int32), shifts.shape[0] - 1)
    small_x = np.minimum(((columns + left) / factor[1]).astype(np.int32), shifts.shape[1] - 1)
    moved = shifts[small_y, small_x]
    y = np.rint(rows + top + moved[:, 0] * factor[0]).astype(np.int64)
    x = np.rint(columns + left + moved[:, 1] * factor[1]).astype(np.int64)
    found = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    found &= ~hole[y, x]
    # Where no shift was found the small fill has to do.
    plain = np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC))[top:bottom, left:right]
    new = window.copy()
    new[rows, columns] = np.where(found[:, None], rgb[y, x], plain[rows, columns])
    new += _membrane(window, new, cover)
    # The hole has a margin around the thing: in that, the fill fades in.
    soft = np.asarray(cv2.GaussianBlur(cover.astype(np.float32), (0, 0), margin / 4), dtype=np.float32)
    lay(window, new, np.asarray(smoothstep(0.5, 0.98, soft) * cover, dtype=np.float32))


def _box(hole: Bools, margin: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    return (
        max(0, int(rows[0]) - margin),
        min(hole.shape[0], int(rows[-1]) + 1 + margin),
        max(0, int(columns[0]) - margin),
        min(hole.shape[1], int(columns[-1]) + 1 + margin),
    )


def _membrane(old: Floats, new: Floats, hole: Bools) -> Floats:
    """How far the fill is off at the rim of the hole, carried smoothly into it."""
    before, after = reduced(old, _MEMBRANE), reduced(new, _MEMBRANE)
    inside = reduced(hole.astype(np.float32), _MEMBRANE)
    side = max(inside.shape)
    depth = np.asarray(cv2.GaussianBlur(inside, (0, 0), max(1.0, 0.015 * side)), dtype=np.float32)
    rim = np.asarray(inside * (depth < 0.98), dtype=np.float32)
    near = max(1.0, 0.02 * side)
    gap = np.clip(spread(before, 1 - inside, near) - spread(after, rim, near), -0.25, 0.25)
    total = spread(gap, rim, 0.25 * side)
    for part in (0.08, 0.03):
        close = np.asarray(cv2.GaussianBlur(rim, (0, 0), part * side), dtype=np.float32)[..., None]
        total += np.clip(3 * close, 0, 1) * (spread(gap, rim, part * side) - total)
    large = cv2.resize(total, (hole.shape[1], hole.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, dtype=np.float32)
