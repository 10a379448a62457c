"""Two pictures side by side at a small size: colour difference, structure, and where an entity surely is.

Measured on copies of at most 640 pixels, inside masks eroded by 5 pixels (borders belong to both sides), on CIE
Lab blurred by sigma 2.5 (else JPEG at quality 90 looks like a change). Colour difference is CIEDE2000
(G. Sharma et al. 2005), structure is SSIM of L (Z. Wang et al. 2004), of planes blurred by sigma 1.2: what a file
format or a backend that works at half the size takes from the finest octave is no change of what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cv2
import numpy as np

from flows.engines.base import Mask, Pixels
from flows.engines.regions import WORK_SIDE, Bools, Floats, shrink, to_lab

_ERODE: Final = 5
_BLUR: Final = 2.5
_FINE: Final = 1.2
#: A result smaller than this is enlarged to it: masks of fewer pixels say too little.
_LEAST_SIDE: Final = 256
#: A backend may move the picture by a rounding error; what moved further was moved on purpose. In pixels.
_MOST_SHIFT: Final = 2.5


@dataclass(frozen=True)
class Pair:
    """Both pictures at the measuring size, in Lab (height x width x 3), the second one laid over the first."""

    before: Floats
    after: Floats

    @cached_property
    def before_soft(self) -> Floats:
        """The first picture blurred by sigma 2.5."""
        return soft(self.before, _BLUR)

    @cached_property
    def after_soft(self) -> Floats:
        """The second picture blurred by sigma 2.5."""
        return soft(self.after, _BLUR)

    @cached_property
    def difference(self) -> Floats:
        """CIEDE2000 per pixel of the blurred pictures."""
        from skimage.color import deltaE_ciede2000

        measured: Any = deltaE_ciede2000  # scikit-image has no types
        return np.asarray(measured(self.before_soft, self.after_soft), dtype=np.float32)

    @cached_property
    def ssim(self) -> Floats:
        """SSIM per pixel of the lightness, without its finest octave."""
        return _ssim(soft(self.before[..., 0], _FINE), soft(self.after[..., 0], _FINE))

    @cached_property
    def detail(self) -> tuple[Floats, Floats]:
        """Fine structure of L before and after: between sigma 0.8, below which is noise and JPEG, and 2.5."""
        planes = ((self.before, self.before_soft), (self.after, self.after_soft))
        first, second = (soft(sharp[..., 0], 0.8) - blurred[..., 0] for sharp, blurred in planes)
        return first, second

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the measuring size."""
        return (int(self.before.shape[0]), int(self.before.shape[1]))


def compare(original: Pixels, edited: Pixels) -> Pair:
    """Bring both to one size, at most 640 pixels and no larger than either, and undo a shift by a pixel or two."""
    small = shrink(original, min(WORK_SIDE, max(_LEAST_SIDE, *edited.shape[:2])))
    other = edited
    if edited.shape[:2] != small.shape[:2]:
        larger = edited.shape[0] > small.shape[0]
        size = (small.shape[1], small.shape[0])
        other = np.asarray(
            cv2.resize(edited, size, interpolation=cv2.INTER_AREA if larger else cv2.INTER_CUBIC), dtype=np.uint8
        )
    before, after = to_lab(small), to_lab(other)
    return Pair(before, _aligned(before, after))


def _aligned(before: Floats, after: Floats) -> Floats:
    """`after` moved back over `before`, if it had been moved a little and lies better then.

    The shift is the peak of the phase correlation of the fine structure (H. Foroosh et al. 2002).
    """
    first, second = _structure(before), _structure(after)
    height, width = first.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    # Copies: OpenCV multiplies what it is given by the window, in place, where its size suits the Fourier transform.
    (x, y), _ = cv2.phaseCorrelate(first.copy(), second.copy(), window)
    if not 0.25 <= max(abs(x), abs(y)) <= _MOST_SHIFT:
        return after
    back = np.array([[1, 0, -x], [0, 1, -y]], dtype=np.float64)
    moved = cv2.warpAffine(after, back, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    better = float(np.abs(_structure(np.asarray(moved, dtype=np.float32)) - first).mean())
    return np.asarray(moved, dtype=np.float32) if better < 0.9 * float(np.abs(second - first).mean()) else after


def _structure(lab: Floats) -> Floats:
    return np.ascontiguousarray(soft(lab[..., 0], 0.8) - soft(lab[..., 0], _BLUR))


def soft(plane: Floats, sigma: float) -> Floats:
    """A copy blurred by a Gaussian."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.float32)


def _ssim(one: Floats, other: Floats) -> Floats:
    """SSIM per pixel of two lightness planes (range 100), Gaussian window of sigma 1.5."""
    first, second = np.float32((0.01 * 100) ** 2), np.float32((0.03 * 100) ** 2)
    mean_one, mean_other = soft(one, 1.5), soft(other, 1.5)
    variance_one = soft(one * one, 1.5) - mean_one**2
    variance_other = soft(other * other, 1.5) - mean_other**2
    together = soft(one * other, 1.5) - mean_one * mean_other
    above = (2 * mean_one * mean_other + first) * (2 * together + second)
    below = (mean_one**2 + mean_other**2 + first) * (variance_one + variance_other + second)
    return np.asarray(np.clip(above / below, -1, 1), dtype=np.float32)


def fitted(mask: Mask, shape: tuple[int, int]) -> Mask:
    """A mask at the measuring size."""
    return np.asarray(cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.float32)


def inside(mask: Mask, shape: tuple[int, int]) -> Bools:
    """Where an entity surely is: its mask at the measuring size, eroded; less eroded when nothing would be left."""
    small = fitted(mask, shape)
    for margin in (_ERODE, 2, 0):
        side = 2 * margin + 1
        kernel = np.ones((side, side), np.uint8)
        kept = cv2.erode((small > 0.9).astype(np.uint8), kernel, borderType=cv2.BORDER_REPLICATE)
        if int(kept.sum()) >= 30:
            return np.asarray(kept, dtype=bool)
    return np.asarray(small >= max(0.5 * float(small.max()), 1e-6))


def around(mask: Mask, shape: tuple[int, int]) -> Bools:
    """The surroundings of an entity: a ring of 12 pixels, 5 pixels away from it."""
    there = (fitted(mask, shape) > 0.1).astype(np.uint8)
    near = cv2.dilate(there, np.ones((2 * _ERODE + 1, 2 * _ERODE + 1), np.uint8))
    return np.asarray(cv2.dilate(near, np.ones((25, 25), np.uint8)) > near)
