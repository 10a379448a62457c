"""Tone and colour as pure functions on bands of pixels: float32 RGB in 0..1 (sRGB, gamma encoded), any height.

Each takes a band and plain numbers and returns a new band of the same shape; values may leave 0..1 a
little, the caller clips. Amounts are in -1..1 (0 changes nothing) unless said otherwise.
"""

from __future__ import annotations

import re
from typing import Final

import cv2
import numpy as np

from edi_storage.errors import InputError
from flows.engines.bands import Floats

#: Rec. 601 luma, the weights that gamma-encoded values are usually mixed with.
LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)
#: A power stands for the sRGB curve: the piecewise one costs three times as much and differs by under 1 %.
_GAMMA: Final = 2.2


def luma(band: Floats) -> Floats:
    """Luma of a band, height x width."""
    return np.asarray(band @ LUMA, dtype=np.float32)


def three(plane: Floats) -> Floats:
    """A plane as three equal channels: several times faster than a broadcast along the last axis."""
    plane = np.asarray(plane, dtype=np.float32)
    return np.asarray(cv2.merge((plane, plane, plane)), dtype=np.float32)


def rgb_of(color: str) -> tuple[float, float, float]:
    """'#rrggbb' as three numbers in 0..1. Raises InputError for anything else."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise InputError(f"{color!r} is not a colour; write it as #rrggbb.")
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def to_linear(band: Floats) -> Floats:
    """Gamma-encoded values to linear light."""
    return np.asarray(cv2.pow(np.clip(band, 0, 1), _GAMMA), dtype=np.float32)


def to_gamma(band: Floats) -> Floats:
    """Linear light to gamma-encoded values."""
    return np.asarray(cv2.pow(np.clip(band, 0, 1), 1 / _GAMMA), dtype=np.float32)


def largest(band: Floats) -> Floats:
    """The largest of the three channels, height x width. Several times faster than a maximum along the last axis."""
    return np.asarray(np.maximum(np.maximum(band[..., 0], band[..., 1]), band[..., 2]), dtype=np.float32)


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    """0 below `low`, 1 above `high`, a smooth cubic in between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def exposure(band: Floats, stops: float) -> Floats:
    """Brighter or darker by `stops` (factor 2 of light each). Brightening rolls highlights off, it never clips them."""
    gain = 2.0**stops
    linear = to_linear(band)
    changed = 1 - cv2.pow(1 - linear, gain) if gain > 1 else linear * gain
    return to_gamma(np.asarray(changed, dtype=np.float32))


def contrast(band: Floats, amount: float, pivot: float = 0.5) -> Floats:
    """More (an S-curve through `pivot`) or less contrast; black stays black and white stays white for more."""
    if amount <= 0:
        return np.asarray(pivot + (band - pivot) * (1 + 0.7 * amount), dtype=np.float32)
    power = 1 + 1.3 * amount
    low = pivot * cv2.pow(np.clip(band / pivot, 0, 1), power)
    high = 1 - (1 - pivot) * cv2.pow(np.clip((1 - band) / (1 - pivot), 0, 1), power)
    return np.asarray(np.where(band < pivot, low, high), dtype=np.float32)


def saturation(band: Floats, amount: float) -> Floats:
    """More colour (what is colourful already gains less) or less; -1 is grey."""
    grey = luma(band)[..., None]
    if amount <= 0:
        return np.asarray(grey + (band - grey) * (1 + amount), dtype=np.float32)
    spread = (largest(band) + largest(-band))[..., None]
    return np.asarray(grey + (band - grey) * (1 + 1.3 * amount * (1 - 0.6 * spread)), dtype=np.float32)


def warmth(band: Floats, amount: float) -> Floats:
    """Warmer (more red, less blue) or cooler, at unchanged luma."""
    gains = np.array([1 + 0.20 * amount, 1 + 0.02 * amount, 1 - 0.26 * amount], dtype=np.float32)
    toned = band * gains
    scale = (luma(band) + 1e-4) / (luma(toned) + 1e-4)
    return np.asarray(toned * scale[..., None], dtype=np.float32)


def black_and_white(band: Floats, amount: float) -> Floats:
    """Grey with a little more red than luma has (kind to faces, deep skies), and a gentle S-curve; 0..1."""
    grey = band @ np.array([0.36, 0.54, 0.10], dtype=np.float32)
    toned = contrast(grey, 0.3)[..., None]
    return np.asarray(band + amount * (toned - band), dtype=np.float32)


def sepia(band: Floats, amount: float) -> Floats:
    """The warm brown of old prints, 0..1: dark brown shadows, cream highlights."""
    grey = contrast(luma(band), 0.1)[..., None]
    tint = grey * np.array([1.06, 0.90, 0.68], dtype=np.float32) + np.array([0.035, 0.02, 0.005], dtype=np.float32)
    return np.asarray(band + amount * (tint - band), dtype=np.float32)


def tint(band: Floats, color: tuple[float, float, float], amount: float) -> Floats:
    """Lay the hue of `color` (RGB 0..1) over a band at unchanged luma, 0..1."""
    paint = np.array(color, dtype=np.float32)
    grey = luma(band)[..., None]
    shifted = grey + (paint - float(paint @ LUMA)) * np.minimum(grey, 1 - grey) * 2
    return np.asarray(band + amount * (shifted - band), dtype=np.float32)


def fade(band: Floats, amount: float) -> Floats:
    """Blacks lifted to a matte grey and whites a little lowered, as on an old print, 0..1."""
    return np.asarray(np.float32(0.17 * amount) + band * np.float32(1 - 0.23 * amount), dtype=np.float32)


def split_tone(
    band: Floats, shadows: tuple[float, float, float], lights: tuple[float, float, float], amount: float
) -> Floats:
    """Shadows lean to the hue of one colour, lights to that of another, at unchanged luma, 0..1."""
    grey = luma(band)
    share = three(smoothstep(0.15, 0.85, grey))
    room = three(np.minimum(grey, 1 - grey) * np.float32(1.6 * amount))
    dark, bright = np.array(shadows, dtype=np.float32), np.array(lights, dtype=np.float32)
    dark, bright = dark - float(dark @ LUMA), bright - float(bright @ LUMA)
    return np.asarray(band + room * (dark + share * (bright - dark)), dtype=np.float32)


def recolour(band: Floats, color: tuple[float, float, float], mean_lightness: float, amount: float) -> Floats:
    """Give a thing another colour and keep its light and shade, 0..1.

    In CIE Lab: hue and chroma become those of `color` (less where it is very bright or very dark, as on
    real things), lightness keeps its structure while its mean moves towards that of `color`.
    `mean_lightness` is the present mean L of the thing, 0..100.
    """
    lab = np.asarray(cv2.cvtColor(np.clip(band, 0, 1), cv2.COLOR_RGB2LAB), dtype=np.float32)
    wanted = cv2.cvtColor(np.array([[color]], dtype=np.float32), cv2.COLOR_RGB2LAB)[0, 0]
    chroma = float(np.hypot(wanted[1], wanted[2]))
    # A colour without hue (white, grey, black) is told by its lightness alone, so that moves further.
    pull = 0.85 if chroma < 12 else 0.6
    shift = pull * (float(wanted[0]) - mean_lightness)
    lightness = lab[..., 0]
    room = np.minimum(lightness / max(mean_lightness, 1.0), (100 - lightness) / max(100 - mean_lightness, 1.0))
    moved = lightness + shift * np.clip(room, 0, 1)
    light = np.clip(moved / max(float(wanted[0]), 1.0), 0, 1) * np.clip((103 - moved) / 30, 0, 1)
    target = np.dstack([moved, float(wanted[1]) * light, float(wanted[2]) * light])
    mixed = lab + np.float32(amount) * (target.astype(np.float32) - lab)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), dtype=np.float32)
