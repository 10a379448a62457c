"""The dramatic sky: deeper, with more structure in its clouds, darker to the top, cooler; flat skies get clouds.

Everything that varies slowly is computed on a small copy and enlarged. The new sky is laid in as
`old + mask * (new - old)`, where at the soft border of the mask "old" is the colour that the sky has
nearby and not the mixed colour of the border pixel: so roofs and branches get neither a bright nor a dark seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np

from flows.engines.bands import in_bands
from flows.engines.base import Mask
from flows.engines.clouds import cloud_layer
from flows.engines.regions import Floats
from flows.engines.tone import largest, luma, smoothstep

Mood = Literal["dramatic", "stormy", "golden"]

_SMALL: Final = 720


@dataclass(frozen=True)
class _Grade:
    """How a mood looks at full strength: gains, and RGB the shadows and lights lean to."""

    darker: float
    top: float
    colour: float
    shadows: tuple[float, float, float]
    lights: tuple[float, float, float]
    lean: float


_GRADES: Final[Mapping[str, _Grade]] = {
    "dramatic": _Grade(0.46, 0.50, 0.60, (0.10, 0.17, 0.28), (0.76, 0.86, 0.95), 0.85),
    "stormy": _Grade(0.60, 0.55, 0.30, (0.12, 0.15, 0.19), (0.70, 0.74, 0.77), 0.75),
    "golden": _Grade(0.34, 0.45, 0.75, (0.24, 0.17, 0.28), (1.00, 0.74, 0.42), 0.70),
}


@dataclass(frozen=True)
class _Plan:
    """What happens to the sky, on the small copy; all of it varies slowly, so it can be enlarged."""

    colour: Floats  # height x width x 4: the sky's colour, also under the foreground, and its luma without structure
    change: Floats  # height x width x 4: new luma, structure gain, lean to the split tone, reach beyond the mask
    rows: tuple[int, int]  # first and last row that change


def flatness(rgb: Floats, mask: Mask) -> float:
    """0..1: how little structure a sky has of its own. 1 means haze or overcast without a cloud to work with."""
    small, cover = _reduced(rgb, mask, 256)
    inside = cover > 0.9
    if inside.sum() < 50:
        return 1.0
    light = np.asarray(cv2.GaussianBlur(luma(small), (0, 0), 1.2), dtype=np.float32)
    structure = light - _spread(light, inside.astype(np.float32), 14.0)
    spread = float(np.std(structure[inside]))
    # A clear blue sky is no empty one: it deepens well and needs no clouds.
    paint = small[inside].mean(axis=0)
    pale = 1 - float(np.clip((paint.max() - paint.min()) / 0.3, 0, 1))
    return float(np.clip((0.035 - spread) / 0.02, 0, 1)) * pale


def dramatic_sky(rgb: Floats, mask: Mask, parameters: Mapping[str, Any]) -> None:
    """Change `rgb` (float32, 0..1) in place under `mask`.

    `parameters`: strength 0..1, mood ("dramatic", "stormy", "golden"), clouds 0..1 (how much is invented).
    """
    strength = float(parameters.get("strength", 0.6))
    grade = _GRADES.get(str(parameters.get("mood", "dramatic")), _GRADES["dramatic"])
    if not mask.max() > 0:
        return
    plan = _plan(rgb, mask, grade, strength, float(parameters.get("clouds", 0.0)))
    scale = len(mask) / len(plan.colour)
    first, last = max(0, int((plan.rows[0] - 1) * scale)), min(len(mask), int((plan.rows[1] + 2) * scale))
    tones = _split_tone(grade)
    keep = np.float32(1 - (1 - grade.colour) * strength)

    def lay(top: int, bottom: int) -> None:
        band = rgb[top:bottom]
        colour = _enlarge(plan.colour, mask.shape, top, bottom)
        change = _enlarge(plan.change, mask.shape, top, bottom)
        cover = _cover(mask[top:bottom], band, colour[..., :3], change[..., 3])[..., None]
        pure = smoothstep(0.7, 1.0, cover)
        old = colour[..., :3] + pure * (band - colour[..., :3])
        new = _grade(old, colour[..., 3], change, tones, keep)
        new -= old
        new *= cover
        band += new

    in_bands(first, last, lay)


def _cover(mask: Mask, band: Floats, colour: Floats, reach: Floats) -> Floats:
    """The mask, corrected by colour at full size.

    Out: what is much darker than the sky there (leaves, birds), and what is brighter in one channel and darker in
    another, which no mixture of sky and shadow can be (grey rock before blue). In: the bright seam along roofs.
    """
    darker = colour - band
    gap = largest(np.maximum(darker, np.float32(-0.35) * darker))
    alike = 1 - smoothstep(0.05, 0.20, gap)
    brighter = largest(-darker)
    foreign = smoothstep(0.02, 0.10, np.minimum(brighter, largest(darker)))
    sky = mask * (1 - smoothstep(0.14, 0.30, -brighter)) * (1 - foreign)
    return np.asarray(np.maximum(sky, reach * alike), dtype=np.float32)


def _grade(old: Floats, base: Floats, change: Floats, tones: Floats, keep: np.float32) -> Floats:
    """The new colour of a band of sky: luma from the plan and its own structure, then colour."""
    light = luma(old)
    detail = light - base
    # Coring: structure below one or two grey levels is noise or JPEG blocks and is not raised.
    square = detail * detail
    detail *= square / (square + np.float32(0.008**2))
    new = change[..., 0] + detail * change[..., 1]
    np.clip(new, 0.015, 1, out=new)
    toned = old * (keep * new / np.maximum(light, np.float32(0.02)))[..., None]
    toned += ((1 - keep) * new)[..., None]
    lean = tones[(new * np.float32(len(tones) - 1)).astype(np.int32)]
    lean -= toned
    lean *= change[..., 2, None]
    toned += lean
    return np.asarray(toned, dtype=np.float32)


def _split_tone(grade: _Grade) -> Floats:
    """For 1024 lumas from 0 to 1 the colour of that luma between the grade's shadows and lights; 1024 x 3."""
    light = np.linspace(0, 1, 1024, dtype=np.float32)
    mix = smoothstep(0.15, 0.85, light)[:, None]
    paint = np.array(grade.shadows, np.float32) * (1 - mix) + np.array(grade.lights, np.float32) * mix
    return np.asarray(paint * (light / np.maximum(luma(paint), 1e-3))[:, None], dtype=np.float32)


def _reduced(rgb: Floats, mask: Mask, side: int) -> tuple[Floats, Floats]:
    factor = min(1.0, side / max(mask.shape))
    size = (max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32), np.asarray(
        cv2.resize(mask, size, interpolation=cv2.INTER_AREA), dtype=np.float32
    )


def _spread(plane: Floats, weight: Floats, sigma: float) -> Floats:
    """A blur that takes only the sky's own pixels, and so continues the sky under the foreground."""
    if sigma > 20:  # a wide blur costs as much as all the rest and looks the same from a quarter of the size
        size = (max(1, plane.shape[1] // 4), max(1, plane.shape[0] // 4))
        soft = weight if plane.ndim == 2 else weight[..., None]
        fewer = np.asarray(cv2.resize(plane * soft, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        share = np.asarray(cv2.resize(weight, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        small = _normalised(fewer, share, sigma / 4)
        return np.asarray(cv2.resize(small, (plane.shape[1], plane.shape[0])), dtype=np.float32)
    return _normalised(plane * (weight if plane.ndim == 2 else weight[..., None]), weight, sigma)


def _normalised(weighted: Floats, weight: Floats, sigma: float) -> Floats:
    above = np.asarray(cv2.GaussianBlur(weighted, (0, 0), sigma))
    below = np.asarray(cv2.GaussianBlur(weight, (0, 0), sigma))
    return np.asarray(above / ((below if above.ndim == 2 else below[..., None]) + 1e-5), dtype=np.float32)


def _plan(rgb: Floats, mask: Mask, grade: _Grade, strength: float, clouds: float) -> _Plan:
    small, cover = _reduced(rgb, mask, _SMALL)
    pure = smoothstep(0.85, 1.0, cover)
    side = max(cover.shape)
    colour = _sky_colour(small, pure)
    filled = luma(small) * pure + luma(colour) * (1 - pure)
    base = np.asarray(cv2.ximgproc.guidedFilter(filled, filled, max(2, side // 40), 0.004), dtype=np.float32)
    mean = float((luma(small) * pure).sum() / max(1e-5, float(pure.sum())))
    gradient = _gradient(cover)
    shaped = _shape(base, gradient, mean, grade, strength)
    if clouds > 0:
        shaped = shaped * (1 + strength * np.float32(clouds) * cloud_layer(gradient))
    shaped = _shoulder(np.asarray(shaped, dtype=np.float32))
    reach, inner = _rims(cover, gradient)
    # Structure fades out where there is little light left to carry it; near its border what looks like
    # structure is the sharpening seam of the camera.
    gain = inner * (1 + 2.2 * strength) * smoothstep(0, 0.3, shaped)
    lean = grade.lean * strength * (1 - _own_colour(colour, base, mean, grade))
    rows = np.flatnonzero(np.maximum(cover, reach).max(axis=1) > 0)
    change = np.dstack([shaped, gain, lean, reach]).astype(np.float32)
    return _Plan(np.dstack([colour, base]).astype(np.float32), change, (int(rows[0]), int(rows[-1])))


def _sky_colour(small: Floats, pure: Floats) -> Floats:
    """The sky's colour, smooth, everywhere. Far from the sky only coarse blurs have anything to take from."""
    side = max(pure.shape)
    colour = _spread(small, pure, side * 0.12)
    for sigma in (0.03, 0.008):
        near = np.asarray(cv2.GaussianBlur(pure, (0, 0), side * sigma), dtype=np.float32)
        trust = smoothstep(0.02, 0.2, near)[..., None]
        colour = colour + trust * (_spread(small, pure, side * sigma) - colour)
    return np.asarray(colour, dtype=np.float32)


def _gradient(cover: Floats) -> Floats:
    """0 at the top of the sky, 1 at its foot."""
    rows = np.nonzero(cover > 0.5)[0]
    first, last = (int(rows.min()), int(np.quantile(rows, 0.98))) if len(rows) else (0, cover.shape[0])
    down = (np.arange(cover.shape[0], dtype=np.float32) - first) / np.float32(max(1, last - first))
    return np.asarray(np.repeat(np.clip(down, 0, 1)[:, None], cover.shape[1], axis=1), dtype=np.float32)


def _shape(base: Floats, gradient: Floats, mean: float, grade: _Grade, strength: float) -> Floats:
    """The new luma without structure: deeper, wider apart, darkest at the top, lighter over the horizon."""
    # A sky that is dark already keeps some light: black is not dramatic.
    deep = max(mean * (1 - grade.darker * strength), min(mean, 0.30))
    above, gap = base - np.float32(mean), 1 - gradient
    shaped = deep + np.maximum(above, 0) * (1 + 0.9 * strength) + np.minimum(above, 0) * (1 + 0.2 * strength)
    shaped = shaped * (1 - grade.top * strength * gap * np.sqrt(gap) * min(1.0, deep / 0.45))
    return np.asarray(shaped * (1 + 0.35 * strength * smoothstep(0.55, 1.05, gradient)), dtype=np.float32)


def _rims(cover: Floats, gradient: Floats) -> tuple[Floats, Floats]:
    """1 in the sky and up to half a percent of the long side beyond it; 1 where it is well inside the sky."""
    size = 2 * max(1, round(0.005 * max(cover.shape))) + 1
    kernel, sky = np.ones((size, size), np.uint8), (cover > 0.5).astype(np.float32)
    reach = np.asarray(cv2.blur(cv2.dilate(sky, kernel), (3, 3)), dtype=np.float32)
    inner = np.asarray(cv2.blur(cv2.erode(sky, kernel), (3, 3)), dtype=np.float32)
    # At its foot a sky ends in haze, which is too like it to be told by colour.
    return np.asarray(reach * (1 - smoothstep(0.85, 1.0, gradient)), dtype=np.float32), inner


def _own_colour(colour: Floats, base: Floats, mean: float, grade: _Grade) -> Floats:
    """0..1: how much of its own colour the sky keeps: a blue one more than a pale one, a low sun and its glow most."""
    own = 0.6 * np.clip((colour.max(axis=2) - colour.min(axis=2)) / 0.45, 0, 1)
    sun = 0.8 * smoothstep(mean + 0.18, mean + 0.32, base)
    if grade.lights[2] > grade.lights[0]:  # a cool grade
        sun = np.maximum(sun, 0.85 * np.clip((colour[..., 0] - colour[..., 2]) / 0.15, 0, 1))
    return np.asarray(np.maximum(own, sun), dtype=np.float32)


def _shoulder(light: Floats) -> Floats:
    """Roll off below 0.14 and above 0.68, so that neither deep blue nor clouds lose their structure."""
    low = 0.14 - 0.10 * (1 - np.exp(-np.maximum(0.14 - light, 0) / 0.10))
    high = 0.68 + 0.27 * (1 - np.exp(-np.maximum(light - 0.68, 0) / 0.27))
    return np.asarray(np.where(light < 0.14, low, np.where(light > 0.68, high, light)), dtype=np.float32)


def _enlarge(plane: Floats, shape: tuple[int, ...], top: int, bottom: int) -> Floats:
    """Rows `top` to `bottom` of a plane enlarged to `shape`, without making the rest."""
    height, width = shape[:2]
    scale_y, scale_x = plane.shape[0] / height, plane.shape[1] / width
    matrix = np.array([[scale_x, 0, 0.5 * scale_x - 0.5], [0, scale_y, (top + 0.5) * scale_y - 0.5]])
    large = cv2.warpAffine(
        plane,
        matrix,
        (width, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(large, dtype=np.float32)
