"""Small copies of pictures, as text that stands inside a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from flows.engines.base import Mask, Pixels

#: How strongly a mask is tinted over its photo.
_TINT = 0.55


def data_uri(pixels: Pixels, longest: int, quality: int = 80) -> str:
    """A JPEG of at most `longest` pixels a side, as a data URI. `pixels` are RGB uint8, height x width x 3."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def tinted(pixels: Pixels, mask: Mask, longest: int) -> Pixels:
    """A small grey copy of the photo in which the masked part keeps its colour under a red tint."""
    photo = Image.fromarray(pixels)
    photo.thumbnail((longest, longest))
    weight = Image.fromarray(np.clip(np.asarray(mask, np.float32) * 255, 0, 255).astype(np.uint8)).resize(photo.size)
    colour = np.asarray(photo, np.float32)
    grey = colour.mean(axis=2, keepdims=True) * 0.5 + 96
    red = colour * (1 - _TINT) + np.array([255, 60, 40], np.float32) * _TINT
    share = np.asarray(weight, np.float32)[..., None] / 255
    mixed: Pixels = (grey * (1 - share) + red * share).clip(0, 255).astype(np.uint8)
    return mixed
