"""Small copies of pictures, most of them as text that stands inside a page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from edi_storage.errors import InputError
from flows.engines.base import Mask, Pixels
from flows.engines.photo import FORMATS

#: How strongly a mask is tinted over its photo.
_TINT: Final = 0.55

#: Well apart from each other for most eyes; an entity gets the colour of its number. After the last, the first again.
COLOURS: Final = ("#e6194b", "#4363d8", "#ffe119", "#3cb44b", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45")


def colour_of(number: int) -> str:
    """The colour of the entity with this number, from 1, as #rrggbb."""
    return COLOURS[(number - 1) % len(COLOURS)]


def data_uri(pixels: Pixels, longest: int, quality: int = 80, most: int | None = None) -> str:
    """A JPEG of at most `longest` pixels a side, as a data URI. `pixels` are RGB uint8, height x width x 3.

    With `most`, smaller and plainer until the URI has at most so many characters.
    """
    while True:
        uri = _as_uri(shrink(pixels, longest), quality)
        if most is None or len(uri) <= most or longest <= 32:
            return uri
        quality, longest = max(50, quality - 10), int(longest * 0.9)


def _as_uri(pixels: Pixels, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(photo: Path | IO[bytes], longest: int, name: str) -> bytes:
    """A small JPEG of a photo that may be of any size, upright. Raises InputError for what cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(photo, formats=FORMATS) as picture:
                # A JPEG is decoded at an eighth, a quarter or a half of its size, where that is enough.
                picture.draft("RGB", (longest, longest))
                picture.thumbnail((longest, longest))
                upright: Image.Image = picture
                with suppress(Exception):  # a broken EXIF block costs the orientation only
                    upright = ImageOps.exif_transpose(picture)
                upright = upright.convert("RGB")
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a photo that EDI can open; use a PNG, JPEG or WebP file.") from None
    except Exception as error:
        # Pillow raises almost anything for what is broken.
        raise InputError(f"{name} is damaged, or too large ({error}); use another copy of it.") from error
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def shrink(pixels: Pixels, longest: int) -> Pixels:
    """A copy of at most `longest` pixels a side; a smaller picture as it is."""
    if max(pixels.shape[:2]) <= longest:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest))
    return np.asarray(picture)


def shrink_mask(mask: Mask, longest: int) -> Mask:
    """As `shrink`, for a mask."""
    if max(mask.shape) <= longest:
        return mask
    # Every n-th pixel first: an average over twenty million of them is not needed for a thumbnail.
    step = max(1, max(mask.shape) // (2 * longest))
    coarse = np.ascontiguousarray(mask[::step, ::step])
    scale = longest / max(coarse.shape)
    size = (max(1, round(coarse.shape[1] * scale)), max(1, round(coarse.shape[0] * scale)))
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_AREA), np.float32)


def tinted(pixels: Pixels, mask: Mask, colour: str = "#ff3c28") -> Pixels:
    """A grey copy of the photo in which the masked part keeps its colour under a tint (#rrggbb)."""
    return _mix(_greyed(pixels), pixels, _fitting(mask, pixels), colour)


def labelled(pixels: Pixels, masks: Mapping[int, Mask]) -> Pixels:
    """A copy of the photo with each mask tinted in the colour of its number, which stands in its middle."""
    shown = _greyed(pixels)
    for number, mask in masks.items():
        shown = _mix(shown, pixels, _fitting(mask, pixels), colour_of(number))
    picture = Image.fromarray(shown)
    for number, mask in masks.items():
        _write_number(picture, number, _middle(_fitting(mask, pixels)))
    return np.asarray(picture)


def _greyed(pixels: Pixels) -> Pixels:
    grey: Pixels = (pixels.mean(axis=2, keepdims=True) * 0.5 + 96).clip(0, 255).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def _mix(below: Pixels, pixels: Pixels, mask: Mask, colour: str) -> Pixels:
    paint = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], np.float32)
    share = np.clip(mask, 0, 1)[..., None]
    over = pixels.astype(np.float32) * (1 - _TINT) + paint * _TINT
    mixed: Pixels = (below * (1 - share) + over * share).clip(0, 255).astype(np.uint8)
    return mixed


def _fitting(mask: Mask, pixels: Pixels) -> Mask:
    height, width = pixels.shape[:2]
    if mask.shape == (height, width):
        return mask
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _middle(mask: Mask) -> tuple[int, int]:
    """The point (x, y) of a mask that is farthest from its edge: inside it, whatever its shape."""
    inside = np.pad((mask > 0.5).astype(np.uint8), 1)  # the edge of the picture is an edge, too
    deepest = int(np.argmax(cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]))
    y, x = divmod(deepest, mask.shape[1])
    return x, y


def _write_number(picture: Image.Image, number: int, where: tuple[int, int]) -> None:
    size = max(11, max(picture.size) // 26)
    ImageDraw.Draw(picture).text(
        where,
        str(number),
        fill="white",
        stroke_fill="black",
        stroke_width=max(1, size // 8),
        anchor="mm",
        font=ImageFont.load_default(size),
    )
