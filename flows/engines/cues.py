"""What can be named by classical cues: sky, vegetation, water and buildings, each with an honest confidence.

The numbers below were set by looking at some fifty photos with and without sky (landscapes, towns, nights,
rooms, close-ups). A confidence is meant as "of a hundred such findings so many are right"; what stays
under `TRUSTED` is not named by the analyzer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.regions import Bools, Floats, Picture

#: Below this a finding is described by colour and place instead of named.
TRUSTED: Final = 0.6
#: A finding smaller than this fraction of the picture is not worth a name.
_LEAST_AREA: Final = 0.015


@dataclass(frozen=True)
class Finding:
    """A named part of the picture: which pixels of the small copy, and how sure."""

    label: str
    where: Bools
    confidence: float


def ramp(value: NDArray[np.floating] | Floats | float, middle: float, width: float) -> Floats:
    """A logistic step from 0 to 1 around `middle`; `width` < 0 turns it round."""
    return np.asarray(1 / (1 + np.exp(-np.clip((value - middle) / width, -40, 40))), dtype=np.float32)


@dataclass(frozen=True)
class Superpixels:
    """Per superpixel: mean Lab, texture, and the height of its centre (0 top, 1 bottom)."""

    lab: Floats
    texture: Floats
    height: Floats


def superpixels(picture: Picture) -> Superpixels:
    """The features the cues look at."""
    lab = np.stack([picture.mean(picture.lab[..., channel]) for channel in range(3)], axis=1)
    rows = np.repeat(np.linspace(0, 1, picture.height, dtype=np.float32)[:, None], picture.width, axis=1)
    return Superpixels(lab, picture.mean(picture.texture), picture.mean(rows))


def sky_colour(lab: Floats) -> Floats:
    """0..1: how much a Lab colour (last axis 3) is a sky's: blue by day or night, white, grey, sunset."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    chroma = np.hypot(a, b)
    blue = ramp(-b, 5, 2) * ramp(lightness, 22, 6) * ramp(np.maximum(a, -0.8 * a), 14, -3)
    night = 0.6 * ramp(-b, 3, 1.5) * ramp(lightness, 5, 2) * ramp(lightness, 30, -4)
    white = 0.85 * ramp(lightness, 80, 4) * ramp(chroma, 9, -2)
    grey = 0.5 * ramp(lightness, 58, 5) * ramp(chroma, 6, -1.5) * ramp(b, 3, -1)
    warm = 0.45 * ramp(lightness, 60, 6) * ramp(b, 10, 4) * ramp(np.abs(a - 8), 30, -6)
    return np.asarray(np.max([blue, night, white, grey, warm], axis=0), dtype=np.float32)


def find_sky(picture: Picture, cells: Superpixels) -> Finding | None:
    """The part that hangs from the top edge, is smooth and has a sky's colours; None where there is none."""
    colour = sky_colour(cells.lab)
    low = 0.85 + 0.15 * ramp(-cells.lab[:, 2], 12, 3)  # only a clear blue may reach the bottom edge
    score = colour * ramp(cells.texture, 3.2, -0.5) * ramp(cells.height - low, 0, -0.06)
    likely = score > 0.3
    chosen = np.zeros(picture.count, dtype=bool)
    chosen[np.unique(picture.labels[:2])] = True
    chosen &= likely
    passage = _passages(picture, cells, score) & likely[None]
    while True:
        grown = chosen | passage[chosen].any(axis=0)
        if (grown == chosen).all():
            break
        chosen = grown
    where = np.asarray(picture.paint(chosen), dtype=bool)
    if where.mean() >= _LEAST_AREA:
        where = _refine(picture, where)
        where[_horizon(picture, where) :] = False
    if where.mean() < _LEAST_AREA:
        return None
    return Finding("sky", where, _sky_confidence(picture, where))


def _passages(picture: Picture, cells: Superpixels, score: Floats) -> Bools:
    """From which superpixel (row) sky may spread to which neighbour (column).

    Through nearly equal colours; to anything not darker, since clouds are brighter than blue; and upwards
    with some patience. Never downwards into something darker: so it would run into hazy hills and lakes.
    """
    difference = np.linalg.norm(cells.lab[:, None] - cells.lab[None], axis=2)
    good = score > 0.35
    both = good[:, None] & good[None]
    not_darker = (cells.lab[None, :, 0] > cells.lab[:, None, 0] - 3) & both
    upwards = (cells.height[None] < cells.height[:, None]) & (difference < 14) & both
    near = picture.adjacency & ((difference < 6) | not_darker | upwards)
    # Past cables, masts and branches one superpixel thick, to what looks the same on the other side.
    steps = picture.adjacency.astype(np.float32)
    beyond = (steps @ steps > 0) & (difference < 5) & both
    return np.asarray(near | beyond)


def _horizon(picture: Picture, where: Bools) -> int:
    """The row at which the finding, over at least 0.3 of the width, turns darker at once: haze over a lake, a sea.

    Its height if there is no such row. Rows are compared over 8 pixels after a blur of sigma 2; a step is
    at least 3.5 of L in the median and present in nine columns of ten.
    """
    gap = 4
    lightness = np.asarray(cv2.GaussianBlur(picture.lab[..., 0], (0, 0), 2.0))
    steps = np.zeros(picture.height)
    for row in range(max(gap, picture.height // 10), picture.height - gap):
        both = where[row - gap] & where[row + gap]
        if both.mean() >= 0.3:
            step = (lightness[row - gap] - lightness[row + gap])[both]
            steps[row] = float(np.median(step)) if float((step > 1.2).mean()) > 0.9 else 0.0
    found = int(np.argmax(steps))
    if steps[found] <= 3.5:
        return picture.height
    while steps[found - 1] > 0.4 * steps.max():  # the land begins where the step does
        found -= 1
    return found


def _refine(picture: Picture, where: Bools) -> Bools:
    """GrabCut around the border of the finding; what it adds must have a sky's colour."""
    marks = np.full(where.shape, cv2.GC_BGD, dtype=np.uint8)
    near = grow(where, 17)
    marks[near] = cv2.GC_PR_BGD
    marks[where] = cv2.GC_PR_FGD
    marks[shrink_mask(where, 7)] = cv2.GC_FGD
    marks[near & ~where & (sky_colour(picture.lab) < 0.05)] = cv2.GC_BGD
    cut = cut_out(picture, marks)
    for _ in range(3):
        cut = _like_nearby(picture, cut)
    return keep_large(cut, 0.00005)


def _like_nearby(picture: Picture, where: Bools) -> Bools:
    """With the pixels that have the colour which the finding has nearby: under eaves, between branches, past cables."""
    if not where.any():
        return where
    weight = where.astype(np.float32)
    below = np.asarray(cv2.GaussianBlur(weight, (0, 0), 14.0))[..., None]
    local = np.asarray(cv2.GaussianBlur(picture.lab * weight[..., None], (0, 0), 14.0)) / (below + 1e-4)
    gap = picture.lab - local
    # Between leaves a sky is often brighter than beside the tree, so that direction counts less.
    gap[..., 0] = np.where(gap[..., 0] > 0, 0.4 * gap[..., 0], gap[..., 0])
    near = np.linalg.norm(gap, axis=2) < 6.5
    return np.asarray(where | (near & (below[..., 0] > 0.02)))


def cut_out(picture: Picture, marks: NDArray[np.uint8], rounds: int = 3) -> Bools:
    """GrabCut on the small copy, starting from its own marks; unchanged where one side has no sure pixels.

    It draws random numbers, hence the seed: a resumed session must find the same.
    """
    certain = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    if not (marks == cv2.GC_BGD).any() or not (marks == cv2.GC_FGD).any():
        return np.asarray(certain)
    cv2.setRNGSeed(0)
    marks = marks.copy()
    bgr = np.ascontiguousarray(picture.pixels[..., ::-1])
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


def _sky_confidence(picture: Picture, where: Bools) -> float:
    """How sure it is sky: from colour, reach along the top edge, blueness, smoothness, and folds of cloth."""
    rest, inner = ~where, shrink_mask(where, 9)
    lab = picture.lab[where]
    smooth = float(picture.texture[inner].mean()) if inner.any() else 3.0
    contrast = np.log((float(picture.texture[rest].mean()) if rest.any() else 1.0) / max(smooth, 0.1))
    features = (
        float(sky_colour(lab).mean()),
        float(where[:3].any(axis=0).mean()),
        float(np.clip(-lab[:, 2].mean() / 10, -0.6, 1)),
        float(np.clip(contrast, 0, 2.5)),
        _folds(picture.lab[..., 0], inner),
    )
    return confidence_from(features)


def _folds(lightness: Floats, inner: Bools) -> float:
    """0..1.5: how much more the lightness changes sideways than downwards, as in curtains and panelled walls.

    A sky changes towards the horizon; clouds change both ways.
    """
    if not inner.any():
        return 0.0
    smooth = cv2.GaussianBlur(lightness, (0, 0), 3.0)
    sideways = float(np.abs(cv2.Sobel(smooth, cv2.CV_32F, 1, 0))[inner].mean())
    downwards = float(np.abs(cv2.Sobel(smooth, cv2.CV_32F, 0, 1))[inner].mean())
    return float(np.clip(np.log((sideways + 0.1) / (downwards + 0.1)), 0, 1.5))


#: Logistic weights for the features of `_sky_confidence`, fitted with a ridge to the fifty photos and rounded.
_WEIGHTS: Final = (4.8, 2.2, 1.5, 1.6, -1.5)
_OFFSET: Final = -7.0


def confidence_from(features: tuple[float, ...]) -> float:
    """A logistic of the weighted features."""
    total = _OFFSET + sum(weight * value for weight, value in zip(_WEIGHTS, features, strict=True))
    return float(ramp(total, 0, 1))


def find_vegetation(picture: Picture, cells: Superpixels, free: Bools) -> Finding | None:
    """Green and textured, anywhere; smooth green (a wall, a blurred background) stays a green region."""
    a, b = cells.lab[:, 1], cells.lab[:, 2]
    hue = np.degrees(np.arctan2(b, a))  # below 100 lie yellow walls, sand and dry grass
    green = ramp(-a, 5, 1.5) * ramp(b, 6, 2) * ramp(b + a, -4, 3) * ramp(hue, 102, 2)
    rough = ramp(cells.texture, 1.3, 0.3)
    where = np.asarray(picture.paint(green * rough > 0.4), dtype=bool) & free
    where = keep_large(where, 0.004)
    if where.mean() < _LEAST_AREA:
        return None
    inside = picture.mean(where.astype(np.float32)) > 0.5
    if not inside.any():
        return None
    strength = float(np.average((green * rough)[inside], weights=picture.area[inside]))
    return Finding("vegetation", where, 0.45 + 0.5 * strength)


def find_water(picture: Picture, cells: Superpixels, free: Bools, sky: Finding | None) -> Finding | None:
    """Bluish, wide, below a trusted sky, with lightness that changes downwards (ripples) more than sideways."""
    if sky is None or sky.confidence < TRUSTED:
        return None
    horizon = float(np.quantile(np.nonzero(sky.where)[0], 0.95)) / picture.height
    lab = cells.lab
    # Less blue than this are wet roads, hazy hills and shingle in evening light.
    blue = ramp(-lab[:, 2], 13, 2) * ramp(lab[:, 1], 10, -3) * ramp(lab[:, 0], 15, 4)
    likely = blue * ramp(cells.height, horizon, 0.03) > 0.4
    where = keep_large(np.asarray(picture.paint(likely), dtype=bool) & free, 0.02)
    if where.mean() < 0.06:
        return None
    width = float(where.any(axis=0).mean())
    lightness = picture.lab[..., 0]
    inner = shrink_mask(where, 5)
    sideways = float(np.abs(cv2.Sobel(lightness, cv2.CV_32F, 1, 0))[inner].mean()) if inner.any() else 1.0
    downwards = float(np.abs(cv2.Sobel(lightness, cv2.CV_32F, 0, 1))[inner].mean()) if inner.any() else 1.0
    ripples = float(np.clip((downwards + 0.5) / (sideways + 0.5) - 1, 0, 1))
    chroma = float(np.clip(-picture.lab[..., 2][where].mean() / 20, 0, 1))
    return Finding("water", where, min(0.9, 0.9 * width * (0.35 + 0.35 * ripples + 0.3 * chroma) + 0.05))


def find_building(picture: Picture, free: Bools, sky: Finding | None) -> Finding | None:
    """Outdoors (a trusted sky), where straight edges are dense and many of them upright: walls, roofs, towers."""
    if sky is None or sky.confidence < TRUSTED:
        return None
    lines = _straight_lines(picture)
    density = _density(lines, free.shape)
    maybe = (density > 0.05) & free
    marks = np.full(free.shape, cv2.GC_BGD, dtype=np.uint8)
    marks[free] = cv2.GC_PR_BGD
    marks[maybe] = cv2.GC_PR_FGD
    marks[shrink_mask((density > 0.10) & free, 9)] = cv2.GC_FGD
    if (marks == cv2.GC_FGD).mean() < 0.01:
        return None
    where = keep_large(cut_out(picture, marks) & grow(maybe, 9) & free, 0.01)
    where = _up_to_the_sky(where, free)
    if where.mean() < 0.03:
        return None
    dense = float(np.clip(density[where].mean() / 0.16, 0, 1))
    return Finding("building", where, 0.2 + 0.35 * dense + 0.35 * _upright(lines, free))


def _up_to_the_sky(where: Bools, free: Bools) -> Bools:
    """With the roofs: what stands without a name above a wall, up to the sky, and the holes in the wall."""
    below = np.cumsum(where[::-1], axis=0)[::-1] > 0
    filled = (where | (free & below)).astype(np.uint8)
    closed = cv2.morphologyEx(filled, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return keep_large(np.asarray(closed, dtype=bool) & free, 0.01)


def _straight_lines(picture: Picture) -> NDArray[np.float64]:
    """Lines of at least 3 % of the long side, as rows of x1, y1, x2, y2 in pixels of the small copy."""
    gray = np.ascontiguousarray(cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY))
    shortest = max(8, round(0.03 * max(gray.shape)))
    lines = cv2.ximgproc.createFastLineDetector(shortest, 1.41, 50, 120, 3, True).detect(gray)
    return np.zeros((0, 4)) if lines is None else np.asarray(lines, dtype=np.float64).reshape(-1, 4)


def _density(lines: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """Per pixel: length of straight lines around it per pixel of area."""
    drawn = np.zeros(shape, dtype=np.float32)
    for x1, y1, x2, y2 in np.round(lines).astype(int).tolist():
        cv2.line(drawn, (x1, y1), (x2, y2), 1.0, 1)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), 12.0), dtype=np.float32)


def _upright(lines: NDArray[np.float64], free: Bools) -> float:
    """0..1: whether upright lines are many and directions few; planks lie, branches and grass point everywhere."""
    x = np.clip((lines[:, 0] + lines[:, 2]) / 2, 0, free.shape[1] - 1).astype(int)
    y = np.clip((lines[:, 1] + lines[:, 3]) / 2, 0, free.shape[0] - 1).astype(int)
    lines = lines[free[y, x]]
    if not len(lines):
        return 0.0
    across, down = lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1]
    length, angle = np.hypot(across, down), np.degrees(np.arctan2(down, across)) % 180
    upright = float(length[np.abs(angle - 90) < 8].sum()) / float(free.sum())
    share = np.bincount((angle / 10).astype(int) % 18, weights=length, minlength=18) / length.sum()
    disorder = float(-(share * np.log(share + 1e-9)).sum() / np.log(18))
    return float(np.clip(upright / 0.015, 0, 1) * np.clip((0.9 - disorder) / 0.12, 0, 1))
