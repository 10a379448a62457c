"""Colour profiles: engines work in sRGB, whatever space a photo is in; the result goes back to the photo's own.

A photo in a larger space (Display P3, Adobe RGB) keeps its own pixels wherever an edit changes nothing. Where it does,
the change is carried over: own + (edited - original), both seen in the photo's space. So colours that sRGB cannot hold
are kept too.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from flows.engines.base import Pixels

#: A profile whose colours differ from sRGB by no more than this (of 255) is sRGB: makers write it in many ways.
_SAME: Final = 3
#: Rows converted at a time: keeps the peak of memory low.
_ROWS: Final = 512


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels | None:
    """The pixels of an RGB profile as sRGB sees them; None where the profile is sRGB itself.

    Raises ValueError when the profile cannot be used.
    """
    transform = _transform(profile, to_own=False)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    if int(np.abs(_applied(transform, cube).astype(int) - cube).max()) <= _SAME:
        return None
    _transform(profile, to_own=True)  # a profile of a scanner may know one direction only: better told now
    return _applied(transform, pixels)


def to_own(edited: Pixels, original: Pixels, own: Pixels, profile: bytes) -> Pixels:
    """An edit made in sRGB, in the photo's own space. `original` is what `to_srgb` made of `own`."""
    transform = _transform(profile, to_own=True)
    if edited.shape != own.shape:
        return _applied(transform, edited)  # a backend made a picture of another size: nothing to keep
    result = np.empty_like(own)
    for top in range(0, len(own), _ROWS):
        rows = slice(top, top + _ROWS)
        change = _applied(transform, edited[rows]).astype(np.int16) - _applied(transform, original[rows])
        result[rows] = np.clip(own[rows] + change, 0, 255)
    return result


def as_srgb_picture(image: Image.Image, profile: bytes) -> Image.Image:
    """A grey or CMYK picture as its own profile means it, in sRGB; unchanged where that is not possible."""
    if image.mode not in ("L", "CMYK"):
        return image
    try:
        converted = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted if converted is not None else image


def _transform(profile: bytes, *, to_own: bool) -> ImageCms.ImageCmsTransform:
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.buildTransform(
            srgb if to_own else own,
            own if to_own else srgb,
            "RGB",
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError) as error:
        raise ValueError("the colour profile cannot be used") from error


def _applied(transform: ImageCms.ImageCmsTransform, pixels: Pixels) -> Pixels:
    result = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):
        rows = Image.fromarray(np.ascontiguousarray(pixels[top : top + _ROWS]))
        converted = transform.apply(rows)
        result[top : top + _ROWS] = np.asarray(converted)
    return result
