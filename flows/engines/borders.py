"""Where the sky ends: how much of a border pixel is sky, told from its colour.

Near a border a pixel is a mixture of the sky's colour S and that F of what stands before it. Its share of sky is where
it lies between the two, (x - F)(S - F) / |S - F|^2 (the projection that sampling-based matting starts from, as in
Y. Chuang et al., "A Bayesian Approach to Digital Matting", 2001). S and F vary slowly and come from the small copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from flows.engines.bands import Floats, spread
from flows.engines.tone import smoothstep

#: Channels as separate planes: each step then runs through memory without gaps.
Planes = Sequence[Floats]


def colour_of(small: Floats, weight: Floats, sigmas: Sequence[float] = (0.12, 0.03, 0.008)) -> Floats:
    """The colour of what `weight` covers, smooth, everywhere. Far from it only coarse blurs have anything to take from.

    `sigmas` are fractions of the long side, the coarsest first.
    """
    side = max(weight.shape)
    colour = spread(small, weight, side * sigmas[0])
    for sigma in sigmas[1:]:
        near = np.asarray(cv2.GaussianBlur(weight, (0, 0), side * sigma), dtype=np.float32)
        trust = smoothstep(0.02, 0.2, near)[..., None]
        colour = colour + trust * (spread(small, weight, side * sigma) - colour)
    return np.asarray(colour, dtype=np.float32)


def surely_sky(small: Floats, cover: Floats) -> Floats:
    """Where the sky's colour can be learnt, 0..1: not at its border, and not from small things that the mask missed."""
    pure = smoothstep(0.85, 1.0, cover)
    local = spread(small, pure, 0.03 * max(cover.shape))
    red, green, blue = cv2.split(cv2.absdiff(small, local))
    return np.asarray(pure * (1 - smoothstep(0.2, 0.4, np.maximum(np.maximum(red, green), blue))), dtype=np.float32)


def border_of(small: Floats, cover: Floats, gradient: Floats) -> Floats:
    """Height x width x 4: the colour of what stands before the sky, and a belt, 1 up to 0.5 % from the border.

    `cover` is the mask of the sky on the small copy, `gradient` 0 at its top and 1 at its foot.
    """
    size = 2 * max(1, round(0.005 * max(cover.shape))) + 1
    kernel, sky = np.ones((size, size), np.uint8), (cover > 0.5).astype(np.uint8)
    edge = cv2.dilate(sky, kernel) - cv2.erode(sky, kernel)
    belt = np.asarray(cv2.blur(edge.astype(np.float32), (3, 3)), dtype=np.float32)
    # At its foot a sky ends in haze, which is too like it to be told by colour.
    belt *= 1 - smoothstep(0.85, 1.0, gradient)
    grown = np.asarray(cv2.dilate(cover, np.ones((3, 3), np.uint8)), dtype=np.float32)
    front = colour_of(small, 1 - smoothstep(0.0, 0.1, grown), (0.03, 0.008))
    return np.dstack([front, belt]).astype(np.float32)


def share_of_sky(mask: Floats, band: Planes, sky: Planes, border: Planes) -> Floats:
    """The mask of a band at full size, corrected by colour; `border` are the planes of `border_of`, enlarged.

    Everywhere, what is much darker than the sky there (birds, branches), or brighter in one channel and darker in
    another, which no mixture of sky and shadow can be, is left out. In the belt the mixture decides.
    """
    *front, belt = border
    red, green, blue = (there - here for there, here in zip(sky, band, strict=True))
    darkest, brightest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    foreign = smoothstep(0.05, 0.16, np.minimum(darkest, -brightest))
    share = np.asarray(mask * (1 - smoothstep(0.14, 0.30, brightest)) * (1 - foreign), dtype=np.float32)
    if belt.any():
        mixed, trust = _mixture(band, sky, front)
        share += belt * trust * (mixed - share)
    return share


def _mixture(band: Planes, sky: Planes, front: Planes) -> tuple[Floats, Floats]:
    """The share of sky in each pixel, and how far it can be told: not where both colours are alike."""
    along = np.zeros_like(band[0])
    apart, away = np.full_like(along, 1e-4), np.zeros_like(along)
    for here, there, before in zip(band, sky, front, strict=True):
        step, offset = there - before, here - before
        along += offset * step
        apart += step * step
        away += offset * offset
    place = along / apart
    aside = np.sqrt(np.maximum(away - place * place * apart, 0))
    # What lies far from the line between both is something else again.
    mixed = np.clip(place, 0, 1) * (1 - smoothstep(0.25, 0.50, aside))
    return np.asarray(mixed, dtype=np.float32), smoothstep(0.10, 0.28, np.sqrt(apart))
