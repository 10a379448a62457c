"""Superpixels, their features, their merging into a few regions, and plain names for colours and places.

Everything here works on a small copy of the picture (long side `WORK_SIDE` pixels): what a region is
does not depend on more, and it keeps analysis of a 12 megapixel photo near a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.base import Pixels

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Bools = NDArray[np.bool_]

WORK_SIDE: Final = 640
#: About as many superpixels as keep a roof line straight at 640 pixels.
_SUPERPIXELS: Final = 700
#: One thing in light and shade: least chroma, degrees of Lab hue, pixels of common border, and the step in Lab over
#: eight pixels across it.
_SHADE_CHROMA: Final = 14.0
_SHADE_HUE: Final = 25.0
_SHADE_BORDER: Final = 40
_SHADE_STEP: Final = 10.0


def shrink(pixels: Pixels, side: int = WORK_SIDE) -> Pixels:
    """The picture with a long side of at most `side` pixels (area averaging; never enlarged)."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def to_lab(pixels: Pixels) -> Floats:
    """CIE Lab (D65) of sRGB pixels: L in 0..100, a and b in about -110..110, float32."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


@dataclass(frozen=True)
class Picture:
    """The small copy and what is measured on it once: Lab, texture, superpixels and who touches whom."""

    pixels: Pixels
    lab: Floats
    texture: Floats  # height x width: mean absolute Laplacian-like detail of L, in L units
    labels: Labels  # height x width: superpixel number, 0..count-1
    count: int
    area: Floats  # per superpixel, in pixels
    adjacency: Bools  # count x count, symmetric, False on the diagonal

    @property
    def height(self) -> int:
        return int(self.labels.shape[0])

    @property
    def width(self) -> int:
        return int(self.labels.shape[1])

    def mean(self, plane: NDArray[np.floating] | Floats) -> Floats:
        """Mean of a height x width plane over each superpixel."""
        total = np.bincount(self.labels.ravel(), weights=plane.ravel(), minlength=self.count)
        return (total / self.area).astype(np.float32)

    def paint(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """A height x width plane in which each pixel carries the value of its superpixel."""
        return np.asarray(values[self.labels])


def measure(pixels: Pixels) -> Picture:
    """Measure a small RGB picture. Same pixels, same result."""
    lab = to_lab(pixels)
    smooth = np.asarray(cv2.GaussianBlur(lab, (0, 0), 1.0), dtype=np.float32)
    detail = np.abs(lab[..., 0] - np.asarray(cv2.GaussianBlur(lab[..., 0], (0, 0), 2.5)))
    texture = np.asarray(cv2.GaussianBlur(detail, (0, 0), 4.0), dtype=np.float32)
    labels = _superpixels(smooth)
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=count).astype(np.float32)
    return Picture(pixels, lab, texture, labels, count, area, _adjacency(labels, count))


def _superpixels(lab: Floats) -> Labels:
    side = max(4, round(math.sqrt(lab.shape[0] * lab.shape[1] / _SUPERPIXELS)))
    # SLIC wants 8 bits; its own scale for Lab is OpenCV's 8-bit one.
    scaled = np.clip(lab * (2.55, 1, 1) + (0, 128, 128), 0, 255).astype(np.uint8)
    slic = cv2.ximgproc.createSuperpixelSLIC(scaled, cv2.ximgproc.SLIC, side, 12.0)
    slic.iterate(8)
    slic.enforceLabelConnectivity(20)
    _, labels = np.unique(np.asarray(slic.getLabels()), return_inverse=True)
    return labels.reshape(lab.shape[:2]).astype(np.int32)


def _adjacency(labels: Labels, count: int) -> Bools:
    touching = np.zeros((count, count), dtype=bool)
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        touching[one.ravel(), other.ravel()] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    return touching


def merge(picture: Picture, members: Bools, at_most: int, least_area: float, farthest: float = 14.0) -> Labels:
    """Merge the superpixels in `members` into at most `at_most` regions; return a region number per superpixel.

    Ward's criterion on mean Lab over neighbours: the pair whose union adds least squared colour error
    goes first. Merging goes on while there are too many regions, while one is smaller than `least_area`
    (fraction of the picture), or while two neighbours are nearer than `farthest` (CIE76). Regions without a
    neighbour of their own are merged with the one most like them in colour. -1 outside `members`.
    """
    chosen = np.flatnonzero(members)
    groups = [[int(index)] for index in chosen]
    colour = np.stack([picture.mean(picture.lab[..., channel]) for channel in range(3)], axis=1)[chosen]
    area = picture.area[chosen].astype(np.float64)
    touching = picture.adjacency[np.ix_(chosen, chosen)].copy()
    alive = np.ones(len(chosen), dtype=bool)
    total = float(picture.labels.size)
    cost = _ward(colour, area, touching)
    while alive.sum() > 1:
        few = alive.sum() <= at_most
        small = alive & (area < least_area * total)
        one, other = _pair(cost, colour, area, touching, alive, small if few and small.any() else None)
        distance = float(np.linalg.norm(colour[one] - colour[other]))
        if few and not small.any() and (distance > farthest or not touching[one, other]):
            break
        _join(one, other, groups, colour, area, touching, alive)
        cost[one], cost[:, one] = _ward_row(one, colour, area, touching, alive)
        cost[other], cost[:, other] = np.inf, np.inf
    result = np.full(picture.count, -1, dtype=np.int32)
    for number, index in enumerate(np.flatnonzero(alive)):
        result[groups[index]] = number
    return result


def _ward(colour: NDArray[np.floating], area: NDArray[np.floating], touching: Bools) -> NDArray[np.float64]:
    gap = ((colour[:, None].astype(np.float64) - colour[None]) ** 2).sum(-1)
    weight = area[:, None] * area[None] / (area[:, None] + area[None])
    return np.where(touching, gap * weight, np.inf)


def _ward_row(
    index: int, colour: NDArray[np.floating], area: NDArray[np.floating], touching: Bools, alive: Bools
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gap = ((colour.astype(np.float64) - colour[index]) ** 2).sum(-1)
    weight = area * area[index] / (area + area[index])
    row = np.where(touching[index] & alive, gap * weight, np.inf)
    return row, row


def _pair(
    cost: NDArray[np.float64],
    colour: NDArray[np.floating],
    area: NDArray[np.floating],
    touching: Bools,
    alive: Bools,
    small: Bools | None,
) -> tuple[int, int]:
    """The next two regions to join: the smallest region and its best partner, or the cheapest pair of all."""
    if small is None and np.isfinite(cost).any():
        one, other = divmod(int(np.argmin(cost)), len(cost))
        return one, other
    candidates = np.flatnonzero(alive if small is None else small)
    one = int(candidates[np.argmin(area[candidates])])
    gap = ((colour.astype(np.float64) - colour[one]) ** 2).sum(-1)
    partners = touching[one] & alive
    gap = np.where(partners if partners.any() else alive, gap, np.inf)
    gap[one] = np.inf
    return one, int(np.argmin(gap))


def _join(
    one: int,
    other: int,
    groups: list[list[int]],
    colour: NDArray[np.floating],
    area: NDArray[np.floating],
    touching: Bools,
    alive: Bools,
) -> None:
    total = area[one] + area[other]
    colour[one] = (colour[one] * area[one] + colour[other] * area[other]) / total
    area[one] = total
    groups[one] += groups[other]
    touching[one] |= touching[other]
    touching[:, one] |= touching[:, other]
    touching[one, one] = False
    touching[other], touching[:, other] = False, False
    alive[other] = False


def join_shades(picture: Picture, regions: Labels) -> Labels:
    """Join neighbouring regions that are one thing in light and shade; the same numbers without gaps, -1 as it was.

    Shading changes the lightness slowly and the hue little; where one thing ends and another begins there is a step.
    So two regions are one where their hues are near (both have a hue) and the picture has no step along their border.
    """
    mean = np.stack([picture.mean(picture.lab[..., channel]) for channel in range(3)], axis=1)
    regions = regions.copy()
    while True:
        numbers = np.unique(regions[regions >= 0])
        colours = {
            int(number): np.average(mean[regions == number], axis=0, weights=picture.area[regions == number])
            for number in numbers
        }
        pairs = [(one, other) for one in colours for other in colours if one < other]
        alike = [pair for pair in pairs if _is_one_hue(colours[pair[0]], colours[pair[1]])]
        found = next((pair for pair in alike if _is_soft(picture, regions, *pair)), None)
        if found is None:
            break
        regions[regions == found[1]] = found[0]
    _, dense = np.unique(regions, return_inverse=True)
    return np.asarray(dense - (regions.min() < 0), dtype=np.int32).reshape(regions.shape)


def _is_one_hue(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether two Lab colours have a hue, and much the same one."""
    chroma = (math.hypot(*one[1:]), math.hypot(*other[1:]))
    cosine = float(one[1:] @ other[1:]) / max(1e-6, chroma[0] * chroma[1])
    return min(chroma) > _SHADE_CHROMA and cosine > math.cos(math.radians(_SHADE_HUE))


def _is_soft(picture: Picture, regions: Labels, one: int, other: int) -> bool:
    """Whether most of the border between two regions is no step: Lab differs little across it."""
    numbers = np.asarray(picture.paint(regions))
    smooth = np.asarray(cv2.GaussianBlur(picture.lab, (0, 0), 2.0))
    steps = []
    for axis in (0, 1):
        near, far = (np.take(numbers, range(gap, numbers.shape[axis] - 8 + gap), axis) for gap in (3, 4))
        before, after = (np.take(smooth, range(gap, numbers.shape[axis] - 8 + gap), axis) for gap in (0, 8))
        border = ((near == one) & (far == other)) | ((near == other) & (far == one))
        steps.append(np.linalg.norm(after[border] - before[border], axis=1))
    found = np.concatenate(steps)
    return len(found) >= _SHADE_BORDER and float(np.median(found)) < _SHADE_STEP


def colour_name(lab: NDArray[np.floating]) -> str:
    """A plain English name for a Lab colour, without a claim about what has that colour."""
    lightness, a, b = (float(value) for value in lab)
    chroma = math.hypot(a, b)
    if chroma < 7 or (chroma < 10 and lightness > 85) or lightness < 7:
        names = ((12, "black"), (35, "dark grey"), (65, "grey"), (88, "light grey"))
        return next((name for limit, name in names if lightness < limit), "white")
    hue = math.degrees(math.atan2(b, a)) % 360
    name = _hue_name(hue)
    if name in ("orange", "red") and hue > 25 and (chroma < 38 or (hue > 50 and lightness < 52)):
        name = "brown" if lightness < 62 else "beige"
    elif name == "red" and hue > 36 and lightness > 58:
        name = "orange"
    elif name == "yellow" and chroma < 32:
        name = "beige" if lightness > 62 else "olive"
    elif name == "red" and lightness > 60:
        name = "pink"
    if lightness < 28 and name not in ("brown", "olive"):
        return f"dark {name}"
    return f"pale {name}" if lightness > 78 and chroma < 30 and name not in ("beige", "pink") else name


def _hue_name(hue: float) -> str:
    """The name of a Lab hue angle in degrees (0 is pinkish red, 90 yellow, 180 green, 270 blue)."""
    limits = ((12, "pink"), (48, "red"), (76, "orange"), (103, "yellow"), (165, "green"), (215, "teal"), (296, "blue"))
    return next((name for limit, name in limits if hue < limit), "purple" if hue < 330 else "pink")


def place_name(x: float, y: float, width: float, height: float) -> str:
    """Where a region lies. Centre `x`, `y` and size as fractions of the picture."""
    across = "" if width > 0.8 else ("left" if x < 0.36 else "right" if x > 0.64 else "")
    along = "" if height > 0.8 else ("top" if y < 0.36 else "bottom" if y > 0.64 else "")
    if width > 0.8 and height > 0.8:
        return "all over"
    if not across and not along:
        return "middle"
    return " ".join(part for part in (along, across) if part)
