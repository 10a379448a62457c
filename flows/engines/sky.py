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
from numpy.typing import NDArray

from flows.engines.base import Mask
from flows.engines.regions import Floats
from flows.engines.tone import luma, smoothstep

Mood = Literal["dramatic", "stormy", "golden"]

_SMALL: Final = 720
_BAND: Final = 256


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
class _Field:
    """What is known of the sky on the small copy."""

    coverage: Floats  # the mask
    colour: Floats  # the sky's colour, smooth, also under the foreground
    base: Floats  # its luma without fine structure
    clouds: Floats  # invented clouds in -1..1
    gradient: Floats  # 0 at the top of the sky, 1 at its foot
    border: Floats  # 1 in the sky and up to half a percent of the long side beyond it
    inner: Floats  # 1 where it is well inside the sky
    mean: float  # mean luma of the sky


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
    grade = _GRADES[str(parameters.get("mood", "dramatic"))]
    if not mask.max() > 0:
        return
    field = _measure(rgb, mask, float(parameters.get("clouds", 0.0)))
    scale = len(mask) / len(field.border)
    rows = np.flatnonzero(np.maximum(field.coverage, field.border).max(axis=1) > 0)
    first, last = max(0, int((rows[0] - 1) * scale)), min(len(mask), int((rows[-1] + 2) * scale))
    for top in range(first, last, _BAND):
        bottom = min(top + _BAND, last)
        band = rgb[top:bottom]
        local = {name: _enlarge(getattr(field, name), mask.shape, top, bottom) for name in _PLANES}
        cover = _cover(mask[top:bottom], band, local)[..., None]
        pure = smoothstep(0.7, 1.0, cover)
        old = local["colour"] + pure * (band - local["colour"])
        band += cover * (_grade(old, local, field.mean, grade, strength) - old)


_PLANES: Final = ("colour", "base", "clouds", "gradient", "border", "inner")


def _cover(mask: Mask, band: Floats, local: Mapping[str, Floats]) -> Floats:
    """The mask, corrected by colour at full size: leaves and birds out, the bright seam along roofs in."""
    darker = local["colour"] - band
    gap = np.maximum(darker, -0.35 * darker).max(axis=2)
    alike = 1 - smoothstep(0.05, 0.20, gap)
    sky = mask * (1 - smoothstep(0.14, 0.30, darker.min(axis=2)))
    return np.asarray(np.maximum(sky, local["border"] * alike), dtype=np.float32)


def _reduced(rgb: Floats, mask: Mask, side: int) -> tuple[Floats, Floats]:
    factor = min(1.0, side / max(mask.shape))
    size = (max(1, round(mask.shape[1] * factor)), max(1, round(mask.shape[0] * factor)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32), np.asarray(
        cv2.resize(mask, size, interpolation=cv2.INTER_AREA), dtype=np.float32
    )


def _spread(plane: Floats, weight: Floats, sigma: float) -> Floats:
    """A blur that takes only the sky's own pixels, and so continues the sky under the foreground."""
    soft = weight if plane.ndim == 2 else weight[..., None]
    above = cv2.GaussianBlur(plane * soft, (0, 0), sigma)
    below = cv2.GaussianBlur(weight, (0, 0), sigma)
    below = below if plane.ndim == 2 else below[..., None]
    return np.asarray(above / (below + 1e-5), dtype=np.float32)


def _measure(rgb: Floats, mask: Mask, clouds: float) -> _Field:
    small, cover = _reduced(rgb, mask, _SMALL)
    pure = smoothstep(0.85, 1.0, cover)
    side = max(cover.shape)
    # Far from the sky the fine blur has nothing to take from: coarser ones fill in behind it.
    colour = _spread(small, pure, side * 0.12)
    for sigma in (0.03, 0.008):
        near = np.asarray(cv2.GaussianBlur(pure, (0, 0), side * sigma), dtype=np.float32)
        trust = smoothstep(0.02, 0.2, near)[..., None]
        colour = colour + trust * (_spread(small, pure, side * sigma) - colour)
    filled = luma(small) * pure + luma(colour) * (1 - pure)
    base = np.asarray(cv2.ximgproc.guidedFilter(filled, filled, max(2, side // 40), 0.004), dtype=np.float32)
    rows = np.nonzero(cover > 0.5)[0]
    first, last = (int(rows.min()), int(np.quantile(rows, 0.98))) if len(rows) else (0, cover.shape[0])
    down = (np.arange(cover.shape[0], dtype=np.float32) - first) / max(1, last - first)
    gradient = np.repeat(np.clip(down, 0, 1)[:, None], cover.shape[1], axis=1)
    mean = float((luma(small) * pure).sum() / max(1e-5, float(pure.sum())))
    reach = 2 * max(1, round(0.005 * side)) + 1
    kernel = np.ones((reach, reach), np.uint8)
    border = cv2.blur(cv2.dilate((cover > 0.5).astype(np.float32), kernel), (3, 3))
    # At its foot a sky ends in haze, which is too like it to be told by colour.
    border = np.asarray(border * (1 - smoothstep(0.85, 1.0, gradient)), dtype=np.float32)
    inner = np.asarray(cv2.blur(cv2.erode((cover > 0.5).astype(np.float32), kernel), (3, 3)), dtype=np.float32)
    invented = clouds * _clouds(gradient) if clouds > 0 else np.zeros_like(cover)
    return _Field(
        cover,
        colour.astype(np.float32),
        base,
        invented.astype(np.float32),
        gradient,
        border,
        np.asarray(inner, dtype=np.float32),
        mean,
    )


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


def _grade(old: Floats, local: Mapping[str, Floats], mean: float, grade: _Grade, strength: float) -> Floats:
    """The new colour of a band of sky."""
    light = luma(old)
    base = local["base"]
    detail = light - base
    # Coring: structure below one or two grey levels is noise or JPEG blocks and is not raised.
    detail *= detail * detail / (detail * detail + np.float32(0.008**2))
    # Near its border what looks like structure is the sharpening seam of the camera.
    detail *= local["inner"]
    gap = 1 - local["gradient"]
    # A sky that is dark already keeps some light: black is not dramatic.
    deep = max(mean * (1 - grade.darker * strength), min(mean, 0.30))
    above = base - mean
    shaped = deep + np.maximum(above, 0) * (1 + 0.9 * strength) + np.minimum(above, 0) * (1 + 0.2 * strength)
    shaped = shaped * (1 - grade.top * strength * gap * np.sqrt(gap) * min(1.0, deep / 0.45))
    shaped = shaped * (1 + 0.35 * strength * smoothstep(0.55, 1.05, local["gradient"]))
    shaped = _shoulder(shaped * (1 + strength * local["clouds"]))
    # Structure fades out where there is little light left to carry it.
    new = shaped + detail * (1 + 2.2 * strength) * smoothstep(0, 0.3, shaped)
    new = np.asarray(np.clip(new, 0.015, 1), dtype=np.float32)
    toned = old * (new / np.maximum(light, 0.02))[..., None]
    grey = new[..., None]
    toned = grey + (toned - grey) * (1 - (1 - grade.colour) * strength)
    # A blue sky keeps more of its own colour than a pale one, which has none to lose.
    # So do a low sun and its warm glow.
    own = np.clip((old.max(axis=2) - old.min(axis=2)) / 0.45, 0, 1)
    warm = np.clip((old[..., 0] - old[..., 2]) / 0.15, 0, 1) if grade.lights[2] > grade.lights[0] else 0 * own
    sun = 0.8 * smoothstep(mean + 0.18, mean + 0.32, base)
    leaning = grade.lean * strength * (1 - np.max([0.6 * own, 0.85 * warm, sun], axis=0))[..., None]
    return np.asarray(toned + leaning * (_lean(new, grade) - toned), dtype=np.float32)


def _shoulder(light: Floats) -> Floats:
    """Roll off below 0.14 and above 0.68, so that neither deep blue nor clouds lose their structure."""
    low = 0.14 - 0.10 * (1 - np.exp(-np.maximum(0.14 - light, 0) / 0.10))
    high = 0.68 + 0.27 * (1 - np.exp(-np.maximum(light - 0.68, 0) / 0.27))
    return np.asarray(np.where(light < 0.14, low, np.where(light > 0.68, high, light)), dtype=np.float32)


def _lean(light: Floats, grade: _Grade) -> Floats:
    """The split tone: a colour of the given luma between the grade's shadows and lights."""
    mix = smoothstep(0.15, 0.85, light)[..., None]
    paint = np.array(grade.shadows, np.float32) * (1 - mix) + np.array(grade.lights, np.float32) * mix
    return np.asarray(paint * (light / np.maximum(luma(paint), 1e-3))[..., None], dtype=np.float32)


def _clouds(gradient: Floats) -> Floats:
    """Clouds as a layer seen in perspective: fractal noise, warped by itself, lit from above; -1..1.

    Always the same clouds for the same size: the noise has a fixed seed.
    """
    height, width = gradient.shape
    # Distance to the cloud layer: far at the horizon.
    depth = np.asarray(1 / (0.22 + 0.9 * (1 - gradient)), dtype=np.float32)
    across = (np.arange(width, dtype=np.float32)[None] - width / 2) / max(height, width) * depth * 3.2
    along = depth * 1.9
    warp = _noise(across * 1.3 + 3.1, along * 1.3 + 1.7, 2)
    across, along = across + 0.12 * warp, along + 0.18 * warp
    body = _noise(across, along, 7)
    lit = body - _noise(across + 0.05, along + 0.10, 7)
    heavy = smoothstep(-0.35, 0.50, body)
    fade = smoothstep(0.0, 0.3, 1 - gradient)
    return np.asarray(fade * (0.16 - 0.50 * heavy + 0.55 * np.clip(lit, -0.4, 0.4)), dtype=np.float32)


def _noise(x: NDArray[np.floating], y: NDArray[np.floating], octaves: int) -> Floats:
    """Fractal value noise at the given coordinates (period 64), about -1..1."""
    lattice = np.random.default_rng(20).uniform(-1, 1, (64, 64)).astype(np.float32)
    total, weight = np.zeros(np.broadcast(x, y).shape, dtype=np.float32), 0.0
    x, y = np.broadcast_arrays(x, y)
    for octave in range(octaves):
        scale, share = 2.0**octave, 0.55**octave
        columns = np.mod(x * scale + 17.3 * octave, 64).astype(np.float32)
        lines = np.mod(y * scale + 5.9 * octave, 64).astype(np.float32)
        padded = cv2.copyMakeBorder(lattice, 2, 2, 2, 2, cv2.BORDER_WRAP)
        total += share * np.asarray(cv2.remap(padded, columns + 2, lines + 2, cv2.INTER_CUBIC))
        weight += share
    return np.asarray(total / weight * 1.9, dtype=np.float32)
