"""Whether a thing is gone: nothing of its structure is left, and what is there now could be its surroundings."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from flows.engines.base import Mask
from flows.engines.comparing import Pair, around, inside, soft
from flows.engines.regions import Bools, Floats

#: Above this correlation of the gradients before and after, the thing can still be made out.
_SAME_STRUCTURE: Final = 0.5
#: Lab distance (CIE76) to the nearest colour of the surroundings, of three quarters of the place, that fits in.
_FITS: Final = 7.0
#: Colours of the surroundings that are compared with, at most.
_COLOURS: Final = 400


def is_gone(pair: Pair, mask: Mask) -> bool:
    """Whether what the mask covers has been removed from the second picture."""
    area, ring = inside(mask, pair.shape), around(mask, pair.shape)
    if not area.any() or float(pair.difference[area].mean()) < 1.0:
        return False
    if _correlation(pair, area) > _SAME_STRUCTURE:
        return False
    return not ring.any() or strangeness(pair.after_soft, area, ring) < _FITS


def _correlation(pair: Pair, area: Bools) -> float:
    """Of the gradients of L before and after, in -1..1."""
    (before_x, before_y), (after_x, after_y) = (_gradients(plane)[:, area] for plane in (pair.before, pair.after))
    together = float((before_x * after_x + before_y * after_y).sum())
    alone = float((before_x**2 + before_y**2).sum()) * float((after_x**2 + after_y**2).sum())
    return float(together / (alone**0.5 + 1e-6))


def _gradients(lab: Floats) -> Floats:
    plane = soft(lab[..., 0], 1.2)
    return np.stack([np.asarray(cv2.Sobel(plane, cv2.CV_32F, *step)) for step in ((1, 0), (0, 1))])


def strangeness(lab: Floats, area: Bools, ring: Bools) -> float:
    """How far three quarters of the area's colours are from the nearest of the ring's, in Lab."""
    near, here = lab[ring], lab[area]
    near, here = (colours[:: max(1, len(colours) // _COLOURS)] for colours in (near, here))
    gaps = np.linalg.norm(here[:, None] - near[None], axis=-1).min(axis=1)
    return float(np.quantile(gaps, 0.75))
