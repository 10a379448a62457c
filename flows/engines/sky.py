"""Another sky: deeper and with more structure in three moods, or blue with fair clouds.

Everything that varies slowly is computed on a small copy and enlarged. The new sky is laid in as
`old + mask * (new - old)`, where at the soft border of the mask "old" is the colour that the sky has
nearby and not the mixed colour of the border pixel: so roofs and branches get neither a bright nor a dark seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from flows.engines.bands import Floats, enlarge, in_bands, planes_of, reduced, spread
from flows.engines.base import Mask
from flows.engines.borders import Planes, border_of, colour_of, share_of_sky, surely_sky
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
    #: How much less everything leans at the top than over the horizon, 0..1.
    horizon: float = 0.0


_GRADES: Final[Mapping[str, _Grade]] = {
    "dramatic": _Grade(0.46, 0.50, 0.60, (0.10, 0.17, 0.28), (0.76, 0.86, 0.95), 0.85),
    "stormy": _Grade(0.60, 0.55, 0.30, (0.12, 0.15, 0.19), (0.70, 0.74, 0.77), 0.75),
    "golden": _Grade(0.34, 0.45, 0.75, (0.24, 0.17, 0.28), (1.00, 0.70, 0.36), 0.95, 0.65),
}


@dataclass(frozen=True)
class _Plan:
    """What happens to the sky, on the small copy; all of it varies slowly, so it can be enlarged."""

    colour: Floats  # height x width x 4: the sky's colour, also under the foreground, and its luma without structure
    change: Floats  # height x width x 3: new luma, structure gain, lean to the split tone
    border: Floats  # see `border_of`
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

    core = np.float32(max(0.008, 4 * _noise_level(rgb, mask)) ** 2)

    def work(top: int, bottom: int) -> None:
        *colour, base = planes_of(enlarge(plan.colour, mask.shape, top, bottom))
        shaped, gain, lean = planes_of(enlarge(plan.change, mask.shape, top, bottom))
        band = planes_of(rgb[top:bottom])
        share = share_of_sky(mask[top:bottom], band, colour, planes_of(enlarge(plan.border, mask.shape, top, bottom)))
        old = _undisturbed(band, colour, share)
        new = _graded(old, shaped, _structure(old, base, core) * gain, lean, tones, keep)
        rgb[top:bottom] = _laid(band, old, new, share)

    in_bands(mask.shape, work, _rows(plan.rows, len(plan.colour), len(mask)))


def _noise_level(rgb: Floats, mask: Mask) -> float:
    """Standard deviation of the finest structure of the sky's luma, 0..1, from eight strips of its full-size rows.

    By the median of its absolute values, which the edges of clouds hardly move.
    """
    rows = np.flatnonzero(mask[:, :: max(1, mask.shape[1] // 64)].max(axis=1) > 0.99)
    found = []
    for top in rows[:: max(1, len(rows) // 8)][:8]:
        light = luma(rgb[top : top + 16])
        fine = np.abs(light - np.asarray(cv2.GaussianBlur(light, (0, 0), 1.5)))
        found.append(fine[mask[top : top + 16] > 0.99])
    values = np.concatenate(found) if found else np.zeros(1)
    return float(np.median(values)) / 0.6745 if len(values) else 0.0


def _replace(rgb: Floats, mask: Mask, small: Floats, cover: Floats, strength: float) -> None:
    """A blue sky with fair clouds in place of the old one; below the usual strength the old one shines through."""
    pure = surely_sky(small, cover)
    colour, gradient = colour_of(small, pure), _gradient(cover)
    mean = float((luma(small) * pure).sum() / max(1e-5, float(pure.sum())))
    border = border_of(small, cover, gradient)
    factor = _FINE / max(cover.shape)
    size = (round(cover.shape[1] * factor), round(cover.shape[0] * factor))
    paint = fair_weather(np.asarray(cv2.resize(gradient, size), dtype=np.float32))
    # At dusk and at night a sky is blue too, but not as bright as at noon.
    paint *= np.float32(np.clip(mean / 0.6, 0.35, 1.0))
    amount = np.float32(min(1.0, strength / 0.6))

    def work(top: int, bottom: int) -> None:
        near = planes_of(enlarge(colour, mask.shape, top, bottom))
        fresh = planes_of(enlarge(paint, mask.shape, top, bottom))
        band = planes_of(rgb[top:bottom])
        share = share_of_sky(mask[top:bottom], band, near, planes_of(enlarge(border, mask.shape, top, bottom)))
        share *= amount
        rgb[top:bottom] = _laid(band, _undisturbed(band, near, share), fresh, share)

    in_bands(mask.shape, work, _rows(_touched(cover, border), len(cover), len(mask)))


def _touched(cover: Floats, border: Floats) -> tuple[int, int]:
    """First and last row of the small copy in which anything is sky, or may be."""
    rows = np.flatnonzero(np.maximum(cover, border[..., 3]).max(axis=1) > 0)
    return int(rows[0]), int(rows[-1])


def _rows(rows: tuple[int, int], small: int, large: int) -> tuple[int, int]:
    """Rows of the small copy as rows of the picture, with one to spare."""
    scale = large / small
    return max(0, int((rows[0] - 1) * scale)), min(large, int((rows[1] + 2) * scale))


def _undisturbed(band: Planes, colour: Planes, share: Floats) -> list[Floats]:
    """The old sky without what stands before it."""
    pure = smoothstep(0.7, 1.0, share)
    return [there + pure * (here - there) for here, there in zip(band, colour, strict=True)]


def _laid(band: Planes, old: Planes, new: Planes, share: Floats) -> Floats:
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


def _structure(old: Planes, base: Floats, core: np.float32) -> Floats:
    """What the sky's luma has beside its base. What is smaller than the root of `core` is noise and is not raised."""
    detail = old[0] * LUMA[0] + old[1] * LUMA[1] + old[2] * LUMA[2] - base
    square = detail * detail
    return np.asarray(detail * (square / (square + core)), dtype=np.float32)


def _graded(old: Planes, shaped: Floats, detail: Floats, lean: Floats, tones: _Tones, keep: np.float32) -> list[Floats]:
    """The new colour of a band of sky: luma from the plan and its own structure, then colour."""
    light = old[0] * LUMA[0] + old[1] * LUMA[1] + old[2] * LUMA[2]
    new = np.clip(shaped + detail, 0.015, 1)
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
    gradient = _gradient(cover)
    with ThreadPoolExecutor(2) as pool:  # three things that do not need each other
        layer = pool.submit(cloud_layer, gradient) if clouds > 0 else None
        border = pool.submit(border_of, small, cover, gradient)
        colour, base, mean = _as_it_is(small, cover)
    shaped = _shape(base, gradient, mean, grade, strength)
    if layer is not None:
        shaped = shaped * (1 + strength * np.float32(clouds) * layer.result())
    shaped = _shoulder(np.asarray(shaped, dtype=np.float32), mean)
    # Structure fades out where there is little light left to carry it; near its border what looks like
    # structure is the sharpening seam of the camera.
    gain = _inner(cover) * (1 + 2.2 * strength) * smoothstep(0, 0.3, shaped)
    lean = grade.lean * strength * (1 - _own_colour(colour, base, mean, grade))
    # The light of a low sun lies over the horizon; overhead its sky stays blue.
    lean = lean * (1 - grade.horizon * (1 - gradient))
    change = np.dstack([shaped, gain, lean]).astype(np.float32)
    around = border.result()
    return _Plan(np.dstack([colour, base]).astype(np.float32), change, around, _touched(cover, around))


def _as_it_is(small: Floats, cover: Floats) -> tuple[Floats, Floats, float]:
    """The sky's colour and its luma without structure, both also under the foreground, and its mean luma."""
    pure = surely_sky(small, cover)
    colour = colour_of(small, pure)
    filled = luma(small) * pure + luma(colour) * (1 - pure)
    radius = max(2, max(cover.shape) // 40)
    base = np.asarray(cv2.ximgproc.guidedFilter(filled, filled, radius, 0.004), dtype=np.float32)
    return colour, base, float((luma(small) * pure).sum() / max(1e-5, float(pure.sum())))


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


def _inner(cover: Floats) -> Floats:
    """0 at the border of the sky and 1 well inside it; wide, because where structure begins must not be seen."""
    side = max(cover.shape)
    rim = 2 * max(1, round(0.005 * side)) + 1
    inside = cv2.erode((cover > 0.5).astype(np.float32), np.ones((rim, rim), np.uint8))
    soft = np.asarray(cv2.GaussianBlur(inside, (0, 0), max(1.0, 0.02 * side)), dtype=np.float32)
    return np.asarray(smoothstep(0.5, 1.0, soft) * inside, dtype=np.float32)


def _own_colour(colour: Floats, base: Floats, mean: float, grade: _Grade) -> Floats:
    """0..1: how much of its own colour the sky keeps: a blue one more than a pale one, a low sun and its glow most."""
    own = 0.6 * np.clip((colour.max(axis=2) - colour.min(axis=2)) / 0.45, 0, 1)
    sun = 0.8 * smoothstep(mean + 0.18, mean + 0.32, base)
    if grade.lights[2] > grade.lights[0]:  # a cool grade
        sun = np.maximum(sun, 0.85 * np.clip((colour[..., 0] - colour[..., 2]) / 0.15, 0, 1))
    return np.asarray(np.maximum(own, sun), dtype=np.float32)


def _shoulder(light: Floats, mean: float) -> Floats:
    """Roll off the darkest and what is above 0.68, so that neither deep blue nor clouds lose their structure.

    `mean` is the luma of the old sky: by day no part of a sky is black, by night it may be.
    """
    knee = min(0.24, 0.4 * mean + 0.03)
    room = 0.6 * knee
    low = knee - room * (1 - np.exp(-np.maximum(knee - light, 0) / room))
    high = 0.68 + 0.27 * (1 - np.exp(-np.maximum(light - 0.68, 0) / 0.27))
    return np.asarray(np.where(light < knee, low, np.where(light > 0.68, high, light)), dtype=np.float32)
