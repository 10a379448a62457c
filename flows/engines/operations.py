"""The operations an edit is made of, and `apply`, which replays a list of them on the original.

Every operation is a small function in `REGISTRY`, driven by JSON numbers and text, so that a stored list
makes the same picture again. Work is done in float32; what no operation touched comes out with exactly the
bytes it had, and what was touched gets half a grey level of fixed noise, so that deep skies do not band.

Parameters that every operation takes beside its own:
`protect`: entity ids whose area is left out of the mask; `feather`: extra softness of it, fraction of the long side.
`within` (an entity id) and `untouched` (entity ids): nothing changes outside the one and inside the others, also
where an effect reaches beyond its mask, as a new sky does along roofs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np

from edi_storage.errors import InputError
from edi_storage.models import Operation
from flows.engines import tone
from flows.engines.bands import ROWS, in_bands
from flows.engines.base import Mask, Pixels, Progress, no_progress
from flows.engines.regions import Floats
from flows.engines.sky import dramatic_sky

#: Changes `rgb` (float32 0..1, height x width x 3) in place where the mask says so.
Effect = Callable[[Floats, Mask, Mapping[str, Any]], None]


def apply(
    pixels: Pixels,
    masks: Mapping[str, Mask],
    operations: Sequence[Operation],
    progress: Progress = no_progress,
) -> Pixels:
    """The edited copy of `pixels` after all `operations`, in order. `progress` is called before each.

    Raises InputError for an operation or a target that does not exist.
    """
    original = pixels
    rgb = np.asarray(pixels, dtype=np.float32) / np.float32(255)
    for number, operation in enumerate(operations):
        progress(number / max(1, len(operations)), operation.name.replace("_", " "), {})
        effect = REGISTRY.get(operation.name)
        if effect is None:
            raise InputError(f"There is no operation {operation.name!r}; there are {', '.join(sorted(REGISTRY))}.")
        limit = _limit_of(operation, masks)
        before = None if limit is None else rgb.copy()
        effect(rgb, _mask_of(operation, masks, original.shape), operation.parameters)
        np.clip(rgb, 0, 1, out=rgb)
        if limit is not None and before is not None:
            _hold(rgb, before, limit)
    progress(1.0, "developing the picture", {})
    return _to_bytes(rgb, original)


def _mask_of(operation: Operation, masks: Mapping[str, Mask], shape: tuple[int, ...]) -> Mask:
    """The area an operation works on, without what it has to protect."""
    size = (shape[0], shape[1])
    if operation.target == "image":
        mask = np.ones(size, dtype=np.float32)
    elif operation.target == "background":
        mask = 1 - _union([str(name) for name in operation.parameters.get("keep", [])], masks, size)
    else:
        mask = _named(operation.target, masks).copy()
    feather = float(operation.parameters.get("feather", 0.0)) * max(size)
    if feather >= 0.5 and operation.target != "image":
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), feather), dtype=np.float32)
    protected = [str(name) for name in operation.parameters.get("protect", [])]
    if protected:
        mask = mask * (1 - _grown(_union(protected, masks, size)))
    return np.asarray(mask, dtype=np.float32)


def _limit_of(operation: Operation, masks: Mapping[str, Mask]) -> Mask | None:
    """1 where the operation may change the picture, 0 where it must not; None for everywhere."""
    within = operation.parameters.get("within")
    untouched = [str(name) for name in operation.parameters.get("untouched", [])]
    limit = None if within is None else _named(str(within), masks)
    if untouched:
        size = _named(untouched[0], masks).shape
        free = 1 - _grown(_union(untouched, masks, (size[0], size[1])))
        limit = free if limit is None else limit * free
    return limit


def _hold(rgb: Floats, before: Floats, limit: Mask) -> None:
    """Take back, in place, what changed beyond the limit; where that is 0 the picture is exactly what it was."""

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        band -= before[top:bottom]
        band *= limit[top:bottom, :, None]
        band += before[top:bottom]

    in_bands(0, len(rgb), work)


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
    tile = np.random.default_rng(0).random((ROWS, 512, 1), dtype=np.float32) - np.float32(0.5)
    width = original.shape[1]
    noise = np.tile(tile, (1, -(-width // 512), 1))[:, :width]

    def work(top: int, bottom: int) -> None:
        before = original[top:bottom]
        band = rgb[top:bottom] * np.float32(255)
        same = tone.largest(np.abs(band - before))[..., None] < 0.02
        band += noise[: len(band)]
        rounded = np.clip(np.rint(band), 0, 255).astype(np.uint8)
        result[top:bottom] = np.where(same, before, rounded)

    in_bands(0, len(rgb), work)
    return result


def _each_band(rgb: Floats, mask: Mask, change: Callable[[Floats], Floats]) -> None:
    """Apply a pointwise change under the mask, band by band, skipping bands the mask leaves out."""

    def work(top: int, bottom: int) -> None:
        cover = mask[top:bottom, :, None]
        if cover.any():
            band = rgb[top:bottom]
            band += cover * (change(band) - band)

    in_bands(0, len(rgb), work)


def _number(parameters: Mapping[str, Any], name: str, default: float) -> float:
    return float(parameters.get(name, default))


def rgb_of(color: str) -> tuple[float, float, float]:
    """'#rrggbb' as three numbers in 0..1. Raises InputError for anything else."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise InputError(f"{color!r} is not a colour; write it as #rrggbb.")
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _exposure(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    stops = _number(parameters, "stops", 0.5)
    _each_band(rgb, mask, lambda band: tone.exposure(band, stops))


def _contrast(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount, pivot = _number(parameters, "amount", 0.4), _number(parameters, "pivot", 0.5)
    _each_band(rgb, mask, lambda band: tone.contrast(band, amount, pivot))


def _saturation(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount = _number(parameters, "amount", 0.4)
    _each_band(rgb, mask, lambda band: tone.saturation(band, amount))


def _warmth(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount = _number(parameters, "amount", 0.4)
    _each_band(rgb, mask, lambda band: tone.warmth(band, amount))


def _black_and_white(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount = _number(parameters, "amount", 1.0)
    _each_band(rgb, mask, lambda band: tone.black_and_white(band, amount))


def _sepia(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount = _number(parameters, "amount", 0.8)
    _each_band(rgb, mask, lambda band: tone.sepia(band, amount))


def _tint(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    color, amount = rgb_of(str(parameters.get("color", "#ffa040"))), _number(parameters, "amount", 0.4)
    _each_band(rgb, mask, lambda band: tone.tint(band, color, amount))


def _fill(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    paint = np.array(rgb_of(str(parameters.get("color", "#808080"))), dtype=np.float32)
    amount = np.float32(_number(parameters, "amount", 1.0))
    _each_band(rgb, mask, lambda band: np.asarray(band + amount * (paint - band), dtype=np.float32))


def _recolour(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    color, amount = rgb_of(str(parameters.get("color", "#c03020"))), _number(parameters, "amount", 1.0)
    small = cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA)
    weight = np.asarray(cv2.resize(mask, (256, 256), interpolation=cv2.INTER_AREA), dtype=np.float32)
    lightness = np.asarray(cv2.cvtColor(np.clip(small, 0, 1), cv2.COLOR_RGB2LAB))[..., 0]
    mean = float((lightness * weight).sum() / max(1e-5, float(weight.sum())))
    _each_band(rgb, mask, lambda band: tone.recolour(band, color, mean, amount))


def _clarity(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    """More local contrast: what a guided filter smooths away is added once more; edges stay free of halos."""
    amount = np.float32(_number(parameters, "amount", 0.5))
    height, width = mask.shape
    factor = min(1.0, 900 / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    light = tone.luma(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.float32))
    radius = max(4, round(0.03 * max(size)))
    base = np.asarray(cv2.ximgproc.guidedFilter(light, light, radius, 0.01), dtype=np.float32)
    # Only the smooth base is enlarged; the structure itself comes from the full-size picture.
    base = np.asarray(cv2.resize(base, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        light = tone.luma(band)
        structure = np.clip(light - base[top:bottom], -0.25, 0.25)
        room = 4 * light * (1 - light)  # nothing to gain in pure black and white
        gain = (light + mask[top:bottom] * amount * structure * room + 1e-3) / (light + 1e-3)
        band *= gain[..., None]

    in_bands(0, height, work)


def _sharpen(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    """Unsharp mask on luma; overshoot is limited, so that edges get no bright seam."""
    amount = np.float32(_number(parameters, "amount", 0.6))
    light = tone.luma(rgb)
    sigma = max(0.8, _number(parameters, "radius", 0.0006) * max(mask.shape))
    detail = light - np.asarray(cv2.GaussianBlur(light, (0, 0), sigma), dtype=np.float32)
    # Below about one grey level it is noise.
    detail *= detail * detail / (detail * detail + np.float32(0.006**2))
    np.clip(detail, -0.07, 0.07, out=detail)
    rgb += (mask * (2.2 * amount) * detail)[..., None]


def _vignette(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    amount = _number(parameters, "amount", 0.5)
    height, width = mask.shape
    across = (np.arange(width, dtype=np.float32) / max(1, width - 1) - 0.5)[None] * np.float32(2)
    down = (np.arange(height, dtype=np.float32) / max(1, height - 1) - 0.5)[:, None] * np.float32(2)
    far = np.sqrt((across * across + down * down) / 2)
    gain = 1 - np.float32(0.75 * amount) * tone.smoothstep(0.35, 1.05, far)
    rgb *= (1 + mask * (gain - 1))[..., None]


def _blur(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    """Out of focus: a disc of light, made in linear light and of the masked area only, so that nothing bleeds in.

    `radius` is a fraction of the long side. Computed on a copy small enough that the disc has at most 12 pixels.
    """
    radius = _number(parameters, "radius", 0.012) * max(mask.shape)
    factor = min(1.0, 12 / max(radius, 1e-3))
    height, width = mask.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = tone.to_linear(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.float32))
    weight = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    weight *= weight  # half-covered pixels hold the subject's colour too
    disc = _disc(radius * factor)
    light = np.asarray(cv2.filter2D(small * weight[..., None], -1, disc), dtype=np.float32)
    share = np.asarray(cv2.filter2D(weight, -1, disc), dtype=np.float32)[..., None]
    soft = tone.to_gamma(np.asarray(np.where(share > 1e-3, light / np.maximum(share, 1e-3), small), dtype=np.float32))
    large = np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)

    def work(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        band += mask[top:bottom, :, None] * (large[top:bottom] - band)

    in_bands(0, height, work)


def _disc(radius: float) -> Floats:
    side = int(np.ceil(radius))
    grid = np.arange(-side, side + 1, dtype=np.float32)
    kernel = np.clip(radius + 0.5 - np.hypot(grid[:, None], grid[None]), 0, 1)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _remove(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    """Fill a small area with what is around it, by shifted patches of the rest (OpenCV's SHIFTMAP), at 320 pixels."""
    height, width = mask.shape
    factor = min(1.0, 320 / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(_grown(_grown(mask)), size, interpolation=cv2.INTER_AREA) > 0.1
    lab = cv2.cvtColor(np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2LAB)
    filled = np.zeros_like(lab)
    cv2.setRNGSeed(0)
    cv2.xphoto.inpaint(lab, np.where(hole, 0, 255).astype(np.uint8), filled, cv2.xphoto.INPAINT_SHIFTMAP)
    patch = cv2.cvtColor(filled, cv2.COLOR_LAB2RGB).astype(np.float32) / np.float32(255)
    large = np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    cover = np.asarray(cv2.resize(hole.astype(np.float32), (width, height)), dtype=np.float32)
    cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), max(1.0, 0.003 * max(mask.shape))), dtype=np.float32)
    rgb += np.clip(cover * 1.6, 0, 1)[..., None] * (large - rgb)


REGISTRY: Final[Mapping[str, Effect]] = {
    "black_and_white": _black_and_white,
    "blur": _blur,
    "clarity": _clarity,
    "contrast": _contrast,
    "dramatic_sky": dramatic_sky,
    "exposure": _exposure,
    "fill": _fill,
    "recolour": _recolour,
    "remove": _remove,
    "saturation": _saturation,
    "sepia": _sepia,
    "sharpen": _sharpen,
    "tint": _tint,
    "vignette": _vignette,
    "warmth": _warmth,
}
