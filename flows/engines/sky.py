"""Another sky: deeper and with more structure in three moods, or blue with fair clouds.

Everything that varies slowly is computed on a small copy and enlarged. The new sky is laid in as
`old + mask * (new - old)`, where at the soft border of the mask "old" is the colour that the sky has
nearby and not the mixed colour of the border pixel: so roofs and branches get neither a bright nor a dark seam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from flows.engines.bands import Floats, enlarge, in_bands, planes_of, reduced, spread
from flows.engines.base import Mask
from flows.engines.clouds import cloud_layer, fair_weather
from flows.engines.parameters import DramaticSky
from flows.engines.tone import LUMA, luma, smoothstep

_SMALL: Final = 720
#: A sky that is put in place of the old one is seen as it is, so it is made finer.
_FINE: Final = 1280


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
    small, cover = reduced(rgb, 256), reduced(mask, 256)
    inside = cover > 0.9
    if inside.sum() < 50:
        return 1.0
    light = np.asarray(cv2.GaussianBlur(luma(small), (0, 0), 1.2), dtype=np.float32)
    structure = light - spread(light, inside.astype(np.float32), 14.0)
    deviation = float(np.std(structure[inside]))
    # A clear blue sky is no empty one: it deepens well and needs no clouds.
    paint = small[inside].mean(axis=0)
    pale = 1 - float(np.clip((paint.max() - paint.min()) / 0.3, 0, 1))
    return float(np.clip((0.035 - deviation) / 0.02, 0, 1)) * pale


def dramatic_sky(rgb: Floats, mask: Mask, wanted: DramaticSky) -> None:
    """Change `rgb` (float32, 0..1) in place under `mask`."""
    if not mask.max() > 0:
        return
    small, cover = reduced(rgb, _SMALL), reduced(mask, _SMALL)
    if wanted.mood == "clear":
        _replace(rgb, mask, small, cover, wanted.strength)
        return
    grade = _GRADES[wanted.mood]
    plan = _plan(small, cover, grade, wanted.strength, wanted.clouds)
    tones = _split_tone(grade)
    keep = np.float32(1 - (1 - grade.colour) * wanted.strength)

    def work(top: int, bottom: int) -> None:
        *colour, base = planes_of(enlarge(plan.colour, mask.shape, top, bottom))
        shaped, gain, lean, reach = planes_of(enlarge(plan.change, mask.shape, top, bottom))
        band = planes_of(rgb[top:bottom])
        share = _cover(mask[top:bottom], band, colour, reach)
        old = _undisturbed(band, colour, share)
        new = _graded(old, base, shaped, gain, lean, tones, keep)
        rgb[top:bottom] = _laid(band, old, new, share)

    in_bands(mask.shape, work, _rows(plan.rows, len(plan.colour), len(mask)))


def _replace(rgb: Floats, mask: Mask, small: Floats, cover: Floats, strength: float) -> None:
    """A blue sky with fair clouds in place of the old one; below the usual strength the old one shines through."""
    pure = smoothstep(0.85, 1.0, cover)
    colour, gradient = _sky_colour(small, pure), _gradient(cover)
    mean = float((luma(small) * pure).sum() / max(1e-5, float(pure.sum())))
    reach, _ = _rims(cover, gradient)
    factor = _FINE / max(cover.shape)
    size = (round(cover.shape[1] * factor), round(cover.shape[0] * factor))
    paint = fair_weather(np.asarray(cv2.resize(gradient, size), dtype=np.float32))
    # At dusk and at night a sky is blue too, but not as bright as at noon.
    paint *= np.float32(np.clip(mean / 0.6, 0.35, 1.0))
    around = np.dstack([colour, reach]).astype(np.float32)
    amount = np.float32(min(1.0, strength / 0.6))

    def work(top: int, bottom: int) -> None:
        *near, beyond = planes_of(enlarge(around, mask.shape, top, bottom))
        fresh = planes_of(enlarge(paint, mask.shape, top, bottom))
        band = planes_of(rgb[top:bottom])
        share = _cover(mask[top:bottom], band, near, beyond) * amount
        rgb[top:bottom] = _laid(band, _undisturbed(band, near, share), fresh, share)

    rows = np.flatnonzero(np.maximum(cover, reach).max(axis=1) > 0)
    in_bands(mask.shape, work, _rows((int(rows[0]), int(rows[-1])), len(cover), len(mask)))


def _rows(rows: tuple[int, int], small: int, large: int) -> tuple[int, int]:
    """Rows of the small copy as rows of the picture, with one to spare."""
    scale = large / small
    return max(0, int((rows[0] - 1) * scale)), min(large, int((rows[1] + 2) * scale))


#: Channels as separate planes: each step then runs through memory without gaps.
_Planes = Sequence[Floats]


def _cover(mask: Floats, band: _Planes, colour: _Planes, reach: Floats) -> Floats:
    """The mask, corrected by colour at full size.

    Out: what is much darker than the sky there (leaves, birds), and what is brighter in one channel and darker in
    another, which no mixture of sky and shadow can be (grey rock before blue). In: the bright seam along roofs.
    """
    red, green, blue = (there - here for there, here in zip(colour, band, strict=True))
    darkest, brightest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    foreign = smoothstep(0.02, 0.10, np.minimum(darkest, -brightest))
    sky = mask * (1 - smoothstep(0.14, 0.30, brightest)) * (1 - foreign)
    if not reach.any():
        return np.asarray(sky, dtype=np.float32)
    alike = 1 - smoothstep(0.05, 0.20, np.maximum(darkest, np.float32(-0.35) * brightest))
    return np.asarray(np.maximum(sky, reach * alike), dtype=np.float32)


def _undisturbed(band: _Planes, colour: _Planes, share: Floats) -> list[Floats]:
    """The old sky without what stands before it."""
    pure = smoothstep(0.7, 1.0, share)
    return [there + pure * (here - there) for here, there in zip(band, colour, strict=True)]


def _laid(band: _Planes, old: _Planes, new: _Planes, share: Floats) -> Floats:
    mixed = [here + share * (after - before) for here, before, after in zip(band, old, new, strict=True)]
    return np.asarray(cv2.merge(mixed), dtype=np.float32)


@dataclass(frozen=True)
class _Tones:
    """A colour for each luma: from the shadows' colour to the lights', scaled to have that luma."""

    dark: Floats  # RGB
    step: Floats  # RGB, lights less shadows


def _split_tone(grade: _Grade) -> _Tones:
    dark, bright = np.array(grade.shadows, np.float32), np.array(grade.lights, np.float32)
    return _Tones(dark, np.asarray(bright - dark, dtype=np.float32))


def _graded(
    old: _Planes, base: Floats, shaped: Floats, gain: Floats, lean: Floats, tones: _Tones, keep: np.float32
) -> list[Floats]:
    """The new colour of a band of sky: luma from the plan and its own structure, then colour."""
    light = old[0] * LUMA[0] + old[1] * LUMA[1] + old[2] * LUMA[2]
    detail = light - base
    # Coring: structure below one or two grey levels is noise or JPEG blocks and is not raised.
    square = detail * detail
    detail *= square / (square + np.float32(0.008**2))
    new = np.clip(shaped + detail * gain, 0.015, 1)
    own, plain = keep * new / np.maximum(light, np.float32(0.02)), (1 - keep) * new
    mix = smoothstep(0.15, 0.85, new)
    scale = new / np.maximum(float(tones.dark @ LUMA) + mix * float(tones.step @ LUMA), np.float32(1e-3))
    planes = []
    for channel, dark, step in zip(old, tones.dark, tones.step, strict=True):
        toned = channel * own + plain
        toned += lean * (scale * (dark + mix * step) - toned)
        planes.append(np.asarray(toned, dtype=np.float32))
    return planes


def _plan(small: Floats, cover: Floats, grade: _Grade, strength: float, clouds: float) -> _Plan:
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
    colour = spread(small, pure, side * 0.12)
    for sigma in (0.03, 0.008):
        near = np.asarray(cv2.GaussianBlur(pure, (0, 0), side * sigma), dtype=np.float32)
        trust = smoothstep(0.02, 0.2, near)[..., None]
        colour = colour + trust * (spread(small, pure, side * sigma) - colour)
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
