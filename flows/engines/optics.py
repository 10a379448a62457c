"""Effects that look at a pixel's surroundings: structure, focus, falling light, grain.

As in `effects`: each changes `rgb` (float32 0..1, height x width x 3) in place where `mask` (0..1) says so.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from flows.engines import tone
from flows.engines.bands import Floats, enlarge, in_bands, lay, reduced
from flows.engines.base import Mask
from flows.engines.parameters import Blur, Clarity, Grain, Sharpen, Tones, Vignette

#: Smooth things are computed on a copy of this long side.
_SMALL: Final = 900
#: Depth-like blur is mixed from discs of these shares of the full radius; between two of them it fades.
_LEVELS: Final = (0.0, 0.3, 0.6, 1.0)


def _smooth_luma(rgb: Floats) -> Floats:
    """Luma without structure but with its edges, on the small copy: what local contrast is measured against."""
    light = tone.luma(reduced(rgb, _SMALL))
    radius = max(4, round(0.03 * max(light.shape)))
    return np.asarray(cv2.ximgproc.guidedFilter(light, light, radius, 0.01), dtype=np.float32)


def clarity(rgb: Floats, mask: Mask, wanted: Clarity) -> None:
    """More local contrast: what a guided filter smooths away is added once more; edges stay free of halos."""
    base, amount = _smooth_luma(rgb), np.float32(wanted.amount)

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        light = tone.luma(band)
        # Only the smooth base is enlarged; the structure itself comes from the full-size picture.
        structure = np.clip(light - enlarge(base, mask.shape, top, bottom), -0.25, 0.25)
        room = 4 * light * (1 - light)  # nothing to gain in pure black and white
        gain = (light + mask[top:bottom] * amount * structure * room + 1e-3) / (light + 1e-3)
        band *= tone.three(gain)

    in_bands(mask.shape, work)


def tones(rgb: Floats, mask: Mask, wanted: Tones) -> None:
    """Shadows and highlights lighter or darker by their surroundings' luma, so that structure inside them stays."""
    base = _smooth_luma(rgb)
    dark, bright = 1 - tone.smoothstep(0.0, 0.5, base), tone.smoothstep(0.5, 1.0, base)
    # A power of the surroundings' luma leaves black and white where they are.
    change = 1 + np.float32(0.9 * wanted.shadows) * dark + np.float32(0.3 * wanted.highlights) * bright * (1 - base)
    change = np.asarray(change + np.float32(0.22 * wanted.highlights) * bright, dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        gain = enlarge(change, mask.shape, top, bottom)
        band = rgb[top:bottom]
        band *= tone.three(1 + mask[top:bottom] * (gain - 1))

    in_bands(mask.shape, work)


def sharpen(rgb: Floats, mask: Mask, wanted: Sharpen) -> None:
    """Unsharp mask on luma; overshoot is limited, so that edges get no bright seam."""
    amount = np.float32(wanted.amount)
    light = tone.luma(rgb)
    sigma = max(0.8, wanted.radius * max(mask.shape))
    soft = np.asarray(cv2.GaussianBlur(light, (0, 0), sigma), dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        detail = light[top:bottom] - soft[top:bottom]
        # Below about one grey level it is noise.
        square = detail * detail
        detail *= square / (square + np.float32(0.006**2))
        np.clip(detail, -0.07, 0.07, out=detail)
        band = rgb[top:bottom]
        band += tone.three(mask[top:bottom] * (2.2 * amount) * detail)

    in_bands(mask.shape, work)


def vignette(rgb: Floats, mask: Mask, wanted: Vignette) -> None:
    """Darker by the distance from the middle; 75 % darker in the corners at most."""
    height, width = mask.shape
    across = (np.arange(width, dtype=np.float32) / max(1, width - 1) - 0.5)[None] * np.float32(2)
    down = (np.arange(height, dtype=np.float32) / max(1, height - 1) - 0.5)[:, None] * np.float32(2)

    def work(top: int, bottom: int) -> None:
        far = np.sqrt((across * across + down[top:bottom] * down[top:bottom]) / 2)
        gain = np.float32(-0.75 * wanted.amount) * tone.smoothstep(0.35, 1.05, far)
        band = rgb[top:bottom]
        band *= tone.three(1 + mask[top:bottom] * gain)

    in_bands((height, width), work)


def grain(rgb: Floats, mask: Mask, wanted: Grain) -> None:
    """The grain of film: soft noise on luma, strongest in the middle tones, as coarse as the picture is large."""
    height, width = mask.shape
    side = 1024  # one tile, repeated: at least a quarter of a picture's width, and the eye finds no repetition in noise
    noise = np.random.default_rng(7).standard_normal((side, side)).astype(np.float32)
    sigma = max(0.6, max(mask.shape) / 6000)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), dtype=np.float32)
    noise *= np.float32(0.065 * wanted.amount) / float(noise.std())
    columns = np.arange(width) % side

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        light = tone.luma(band)
        there = noise[np.arange(top, bottom) % side][:, columns]
        band += tone.three(mask[top:bottom] * there * (0.12 + 3.2 * light * (1 - light)))

    in_bands((height, width), work)


def blur(rgb: Floats, mask: Mask, wanted: Blur) -> None:
    """Out of focus: discs of light, made in linear light and of the masked area only, so that nothing bleeds in."""
    levels = _LEVELS if wanted.falloff == "depth" else (0.0, 1.0)
    discs = [_defocused(rgb, mask, wanted.radius * max(mask.shape) * level) for level in levels[1:]]
    depth = _depth(mask) if wanted.falloff == "depth" else np.ones(len(mask), dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        soft = rgb[top:bottom].copy()
        share = np.repeat(depth[top:bottom, None], mask.shape[1], axis=1)
        for low, high, disc in zip(levels, levels[1:], discs, strict=False):
            lay(soft, enlarge(disc, mask.shape, top, bottom), np.clip((share - low) / (high - low), 0, 1))
        lay(rgb[top:bottom], soft, mask[top:bottom])

    in_bands(mask.shape, work)


def _depth(mask: Mask) -> Floats:
    """For each row, how far out of focus it is, 0..1, when what the mask leaves out stands on the ground in focus.

    On level ground the disc of confusion grows in proportion to the rows between a point and the foot of the
    subject, up to the horizon (both its distance and the disc go with one over the distance to the lens). The
    horizon is not known: it is taken to be at two fifths of the height, at least a quarter of the height above
    the foot. A subject that the lower edge cuts off shows no ground to stand on: then all is equally far.
    """
    height = len(mask)
    rows = np.flatnonzero((mask < 0.5).mean(axis=1) > 0.002)
    foot = int(rows[-1]) if len(rows) else height - 1
    if foot >= 0.98 * height:
        return np.ones(height, dtype=np.float32)
    reach = max(0.25 * height, foot - 0.4 * height)
    away = np.abs(foot - np.arange(height, dtype=np.float32)) / np.float32(reach)
    return np.asarray(np.clip(0.12 + 0.88 * away, 0, 1), dtype=np.float32)


def _defocused(rgb: Floats, mask: Mask, radius: float) -> Floats:
    """The masked area blurred by a disc, on a copy small enough that the disc has a radius of at most 12 pixels."""
    side = max(mask.shape)
    factor = min(1.0, 12 / max(radius, 1e-3))
    small = tone.to_linear(reduced(rgb, max(1, round(side * factor))))
    weight = reduced(np.asarray(mask, dtype=np.float32), max(1, round(side * factor)))
    weight = np.asarray(weight * weight, dtype=np.float32)  # half-covered pixels hold the subject's colour too
    disc = _disc(radius * factor)
    light = np.asarray(cv2.filter2D(small * tone.three(weight), -1, disc), dtype=np.float32)
    share = tone.three(np.asarray(cv2.filter2D(weight, -1, disc), dtype=np.float32))
    return tone.to_gamma(np.asarray(np.where(share > 1e-3, light / np.maximum(share, 1e-3), small), dtype=np.float32))


def _disc(radius: float) -> Floats:
    side = int(np.ceil(radius))
    grid = np.arange(-side, side + 1, dtype=np.float32)
    kernel = np.clip(radius + 0.5 - np.hypot(grid[:, None], grid[None]), 0, 1)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)
