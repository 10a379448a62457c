"""The operations an edit is made of, and `apply`, which replays a list of them on the original.

An operation is a name, a target and parameters (see `parameters`), driven by JSON numbers and text, so that a stored
list makes the same picture again. Work is done in float32; what no operation touched comes out with exactly the bytes
it had, and what was touched gets half a grey level of fixed noise, so that deep skies do not band.

`python -m flows.engines.operations --schema` prints the JSON schema of a list.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np

from edi_storage.errors import InputError
from edi_storage.models import Operation
from flows.engines import effects, optics
from flows.engines.bands import Floats, in_bands
from flows.engines.base import Mask, Pixels, Progress, no_progress
from flows.engines.blending import blend
from flows.engines.parameters import Blend, Parameters, checked, schema
from flows.engines.removal import remove
from flows.engines.sky import dramatic_sky
from flows.engines.tone import rgb_of

__all__ = ["REGISTRY", "apply", "rgb_of"]

#: Changes `rgb` (float32 0..1, height x width x 3) in place where the mask says so.
Effect = Callable[[Floats, Mask, Any], None]

#: All but "blend", which needs more than what is there.
REGISTRY: Final[Mapping[str, Effect]] = {
    "black_and_white": effects.black_and_white,
    "blur": optics.blur,
    "clarity": optics.clarity,
    "contrast": effects.contrast,
    "dramatic_sky": dramatic_sky,
    "exposure": effects.exposure,
    "fade": effects.fade,
    "fill": effects.fill,
    "grain": optics.grain,
    "recolour": effects.recolour,
    "remove": remove,
    "saturation": effects.saturation,
    "sepia": effects.sepia,
    "sharpen": optics.sharpen,
    "split_tone": effects.split_tone,
    "tint": effects.tint,
    "tones": optics.tones,
    "vignette": optics.vignette,
    "warmth": effects.warmth,
}


def apply(
    pixels: Pixels,
    masks: Mapping[str, Mask],
    operations: Sequence[Operation],
    progress: Progress = no_progress,
) -> Pixels:
    """The edited copy of `pixels` after all `operations`, in order. `progress` is called before each.

    Raises InputError for an operation, a parameter or a target that does not exist.
    """
    # All are checked first: a mistake in the last one is told before the work on the others.
    known = [(operation, checked(operation)) for operation in operations]
    rgb = _as_floats(pixels)
    for number, (operation, wanted) in enumerate(known):
        progress(number / max(1, len(operations)), operation.name.replace("_", " "), {})
        limit = _limit_of(wanted, masks)
        before = None if limit is None else rgb.copy()
        mask = _mask_of(operation.target, wanted, masks, pixels.shape)
        if isinstance(wanted, Blend):
            blend(rgb, mask, _as_floats(apply(pixels, masks, wanted.operations)))
        else:
            REGISTRY[operation.name](rgb, mask, wanted)
        _settle(rgb, before, limit)
    progress(1.0, "developing the picture", {})
    return _to_bytes(rgb, pixels)


def _as_floats(pixels: Pixels) -> Floats:
    rgb = np.empty(pixels.shape, dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        np.multiply(pixels[top:bottom], np.float32(1 / 255), out=rgb[top:bottom])

    in_bands(pixels.shape, work)
    return rgb


def _mask_of(target: str, wanted: Parameters, masks: Mapping[str, Mask], shape: tuple[int, ...]) -> Mask:
    """The area an operation works on, without what it has to protect."""
    size = (shape[0], shape[1])
    if target == "image":
        mask = np.ones(size, dtype=np.float32)
    elif target == "background":
        mask = 1 - _union(wanted.keep, masks, size)
    else:
        mask = _named(target, masks)
    feather = wanted.feather * max(size)
    if feather >= 0.5 and target != "image":
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), dtype=np.float32)
    if wanted.protect:
        mask = mask * (1 - _grown(_union(wanted.protect, masks, size)))
    return np.ascontiguousarray(mask, dtype=np.float32)


def _limit_of(wanted: Parameters, masks: Mapping[str, Mask]) -> Mask | None:
    """1 where the operation may change the picture, 0 where it must not; None for everywhere."""
    limit = None if wanted.within is None else _named(wanted.within, masks)
    if wanted.untouched:
        size = _named(wanted.untouched[0], masks).shape
        # A pixel that is half the protected thing is its own. No margin: it would be a rim of what is not edited.
        free = 1 - np.clip(2 * _union(wanted.untouched, masks, (size[0], size[1])), 0, 1)
        limit = free if limit is None else limit * free
    return limit


def _settle(rgb: Floats, before: Floats | None, limit: Mask | None) -> None:
    """Bring an effect's result back into 0..1, and take back what it changed beyond the limit.

    Where the limit is 0 the picture is exactly what it was `before`.
    """

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        np.clip(band, 0, 1, out=band)
        if before is not None and limit is not None:
            cover = np.ascontiguousarray(limit[top:bottom])
            band -= before[top:bottom]
            band *= cv2.merge((cover, cover, cover))
            band += before[top:bottom]

    in_bands(rgb.shape, work)


def _named(name: str, masks: Mapping[str, Mask]) -> Mask:
    if name not in masks:
        raise InputError(f"There is no entity {name!r} in this photo; there are {', '.join(sorted(masks)) or 'none'}.")
    return masks[name]


def _union(names: Sequence[str], masks: Mapping[str, Mask], size: tuple[int, int]) -> Mask:
    total = np.zeros(size, dtype=np.float32)
    for name in names:
        total += _named(name, masks)
    return np.clip(total, 0, 1, out=total)


def _grown(mask: Mask) -> Mask:
    """A mask with a margin of half a percent of the long side."""
    side = 2 * max(1, round(0.0025 * max(mask.shape))) + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), dtype=np.float32)


def _to_bytes(rgb: Floats, original: Pixels) -> Pixels:
    """Round to 8 bits; pixels that did not change keep their bytes."""
    result = np.empty_like(original)
    height, width = original.shape[:2]
    noise = np.random.default_rng(0).random((512, 512), dtype=np.float32) - np.float32(0.5)
    columns = np.arange(width) % 512

    def work(top: int, bottom: int) -> None:
        before = original[top:bottom]
        scaled = np.multiply(rgb[top:bottom], np.float32(255))
        moved = np.asarray(cv2.absdiff(scaled, before.astype(np.float32)))
        changed = np.asarray(cv2.inRange(moved, (0, 0, 0), (0.02, 0.02, 0.02))) == 0
        if changed.any():
            grain = noise[np.arange(top, bottom) % 512][:, columns]
            # Rounds to the nearest and stops at 255.
            scaled = np.maximum(np.asarray(cv2.add(scaled, cv2.merge((grain, grain, grain)))), 0)
            before = np.asarray(cv2.copyTo(cv2.convertScaleAbs(scaled), changed.astype(np.uint8), before.copy()))
        result[top:bottom] = before

    in_bands((height, width), work)
    return result


if __name__ == "__main__":
    if sys.argv[1:] != ["--schema"]:
        raise SystemExit("usage: python -m flows.engines.operations --schema")
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
