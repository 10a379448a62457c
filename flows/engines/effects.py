"""Effects of tone and colour that look at one pixel at a time.

Each changes `rgb` (float32 0..1, height x width x 3) in place where `mask` (0..1) says so; where the mask is 0,
nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from flows.engines import tone
from flows.engines.bands import Floats, enlarge, in_bands, lay, reduced, spread
from flows.engines.base import Mask
from flows.engines.parameters import (
    BlackAndWhite,
    Contrast,
    Exposure,
    Fade,
    Fill,
    Recolour,
    Saturation,
    Sepia,
    SplitTone,
    Tint,
    Warmth,
)

#: Long side of the copy on which the colour behind a soft border is found.
_BORDER_SIDE: Final = 1400


def _pointwise(rgb: Floats, mask: Mask, change: Callable[[Floats], Floats]) -> None:
    """Apply a change of single pixels, band by band, skipping bands that the mask leaves out."""

    def work(top: int, bottom: int) -> None:
        cover = mask[top:bottom]
        if cover.any():
            band = rgb[top:bottom]
            lay(band, change(band), cover)

    in_bands(mask.shape, work)


def exposure(rgb: Floats, mask: Mask, wanted: Exposure) -> None:
    _pointwise(rgb, mask, lambda band: tone.exposure(band, wanted.stops))


def contrast(rgb: Floats, mask: Mask, wanted: Contrast) -> None:
    _pointwise(rgb, mask, lambda band: tone.contrast(band, wanted.amount, wanted.pivot))


def saturation(rgb: Floats, mask: Mask, wanted: Saturation) -> None:
    _pointwise(rgb, mask, lambda band: tone.saturation(band, wanted.amount))


def warmth(rgb: Floats, mask: Mask, wanted: Warmth) -> None:
    _pointwise(rgb, mask, lambda band: tone.warmth(band, wanted.amount))


def black_and_white(rgb: Floats, mask: Mask, wanted: BlackAndWhite) -> None:
    _pointwise(rgb, mask, lambda band: tone.black_and_white(band, wanted.amount))


def sepia(rgb: Floats, mask: Mask, wanted: Sepia) -> None:
    _pointwise(rgb, mask, lambda band: tone.sepia(band, wanted.amount))


def fade(rgb: Floats, mask: Mask, wanted: Fade) -> None:
    _pointwise(rgb, mask, lambda band: tone.fade(band, wanted.amount))


def tint(rgb: Floats, mask: Mask, wanted: Tint) -> None:
    color = tone.rgb_of(wanted.color)
    _pointwise(rgb, mask, lambda band: tone.tint(band, color, wanted.amount))


def split_tone(rgb: Floats, mask: Mask, wanted: SplitTone) -> None:
    shadows, lights = tone.rgb_of(wanted.shadows), tone.rgb_of(wanted.lights)
    _pointwise(rgb, mask, lambda band: tone.split_tone(band, shadows, lights, wanted.amount))


def recolour(rgb: Floats, mask: Mask, wanted: Recolour) -> None:
    color = tone.rgb_of(wanted.color)
    small, weight = reduced(rgb, 256), reduced(np.asarray(mask, np.float32), 256)
    lightness = np.asarray(cv2.cvtColor(np.clip(small, 0, 1), cv2.COLOR_RGB2LAB))[..., 0]
    mean = float((lightness * weight).sum() / max(1e-5, float(weight.sum())))
    _pointwise(rgb, mask, lambda band: tone.recolour(band, color, mean, wanted.amount))


def fill(rgb: Floats, mask: Mask, wanted: Fill) -> None:
    """One plain colour. Pixels of a soft border hold the old background too: there the subject's own colour is used."""
    paint = np.array(tone.rgb_of(wanted.color), dtype=np.float32)
    kept = np.asarray(tone.smoothstep(0.7, 1.0, 1 - reduced(np.asarray(mask, np.float32), _BORDER_SIDE)))
    subject = spread(reduced(rgb, _BORDER_SIDE), kept, 0.003 * max(kept.shape))

    def work(top: int, bottom: int) -> None:
        band, cover = rgb[top:bottom], mask[top:bottom]
        if cover.any():
            mixed = tone.smoothstep(0.02, 0.4, cover) * np.float32(wanted.amount)
            lay(band, enlarge(subject, mask.shape, top, bottom), mixed)
            lay(band, np.broadcast_to(paint, band.shape), cover * np.float32(wanted.amount))

    in_bands(mask.shape, work)
