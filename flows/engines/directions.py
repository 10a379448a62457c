"""Whether a step can be seen on an entity, and in the direction that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from flows.engines.base import Mask
from flows.engines.comparing import Pair
from flows.engines.gone import is_gone
from flows.engines.operations import rgb_of
from flows.engines.regions import Bools, Floats
from flows.engines.steps import Step

#: A mean difference (CIEDE2000) from here on is a change, and so is one of a tenth of the pixels from there on.
PRESERVED_MEAN: Final = 2.3
PRESERVED_P90: Final = 5.0
#: Mean absolute fine structure, in L, below which something is out of focus or plain ...
_PLAIN: Final = 0.5
#: ... and of what sensors and JPEG leave on something plain; so much more or less of it says nothing.
_NOISE: Final = 0.12
#: Fine structure (after / before) of what is blurred. A backend that works at half the size leaves 0.8.
_BLURRED: Final = 0.65

#: Chroma below which something counts as grey.
_GREY: Final = 6.0

#: "nothing to do": what has no colour cannot lose it, what is soft cannot be blurred. Counts as done if anything was.
Change = Literal["as asked", "not seen", "opposite", "nothing to do"]


@dataclass(frozen=True)
class Seen:
    """How the pixels of one entity moved, after minus before, in Lab units."""

    difference: float  # mean CIEDE2000
    moved: float  # of the mean colour; JPEG moves it by up to 1.4 where it is dark
    lightness: float
    spread: float  # of L: contrast
    structure: float  # the same, less what a mere exposure does: it multiplies L + 16
    detail: float  # of fine structure, as a ratio after / before
    detail_before: float  # mean absolute fine structure, in L
    crisper: float  # more (or less) fine structure than files and sizes account for, as a share of it; mostly 0
    chroma: float
    warmth: float  # of b plus half of a
    mean_before: Floats
    mean_after: Floats
    before_chroma: float
    after_chroma: float
    distant: float  # 90 % quantile of the difference


def look(pair: Pair, area: Bools) -> Seen:
    """Measure how the pixels of an area moved."""
    before, after = pair.before_soft[area], pair.after_soft[area]
    chroma_before, chroma_after = np.hypot(before[:, 1], before[:, 2]), np.hypot(after[:, 1], after[:, 2])
    moved = after.mean(axis=0) - before.mean(axis=0)
    detail_before, detail_after = (float(np.abs(fine[area]).mean()) for fine in pair.detail)
    exposed = (after[:, 0].mean() + 16) / (before[:, 0].mean() + 16)
    return Seen(
        difference=float(pair.difference[area].mean()),
        moved=float(np.linalg.norm(moved)),
        lightness=float(moved[0]),
        spread=float(after[:, 0].std() - before[:, 0].std()),
        structure=float(after[:, 0].std() - before[:, 0].std() * exposed),
        detail=(detail_after + _NOISE) / (detail_before + _NOISE),
        detail_before=detail_before,
        crisper=_crisper(detail_before, detail_after),
        chroma=float(chroma_after.mean() - chroma_before.mean()),
        warmth=float(moved[2] + 0.5 * moved[1]),
        mean_before=np.asarray(before.mean(axis=0), dtype=np.float32),
        mean_after=np.asarray(after.mean(axis=0), dtype=np.float32),
        before_chroma=float(chroma_before.mean()),
        after_chroma=float(chroma_after.mean()),
        distant=float(np.quantile(pair.difference[area], 0.9)),
    )


def _crisper(before: float, after: float) -> float:
    """By what share of it fine structure grew beyond 5 % and the noise, or (negative) fell below 70 %."""
    ratio = (after + _NOISE) / (before + _NOISE)
    if ratio > 1:
        return max(0.0, ratio - 1.05) if after - before > _NOISE else 0.0
    return min(0.0, ratio - 0.7)


def change_of(step: Step, pair: Pair, area: Bools, mask: Mask | None) -> Change:
    """What a step did to an entity: `area` is where it surely is, `mask` (height x width of the photo) all of it."""
    if not area.any():
        return "not seen"
    if step.action == "remove" and mask is not None:
        return "as asked" if is_gone(pair, mask) else "not seen"
    if step.action == "contrast" and step.scope == "whole":
        # An S-curve flattens the lightest and darkest parts: contrast is the picture's, not each part's.
        area = np.ones_like(area)
    return _JUDGES.get(step.action, _any_change)(look(pair, area), step)


def _direction(step: Step) -> float:
    return -1.0 if float(step.parameters.get("direction", 1)) < 0 else 1.0


def _exposure(seen: Seen, step: Step) -> Change:
    return _towards(seen.lightness * _direction(step), 1.5)


def _contrast(seen: Seen, step: Step) -> Change:
    return _towards((seen.spread + 8 * seen.crisper) * _direction(step), 0.3)


def _saturation(seen: Seen, step: Step) -> Change:
    seemingly = _towards(seen.chroma * _direction(step), 0.8)
    return "nothing to do" if seemingly == "not seen" and seen.before_chroma < _GREY else seemingly


def _warmth(seen: Seen, step: Step) -> Change:
    return _towards(seen.warmth * _direction(step), 1.0)


def _black_and_white(seen: Seen, step: Step) -> Change:
    if seen.before_chroma < _GREY:
        return "as asked" if seen.chroma < -1 else "nothing to do"
    return "as asked" if seen.after_chroma < _GREY and seen.chroma < -1.5 else "not seen"


def _sepia(seen: Seen, step: Step) -> Change:
    # Deep shadows and what was brown already move little.
    return "as asked" if seen.moved > 1.4 and seen.mean_after[2] > 0 else "not seen"


def _blur(seen: Seen, step: Step) -> Change:
    if seen.detail < _BLURRED:
        return "as asked"
    if seen.detail_before < _PLAIN:
        return "nothing to do"
    return "opposite" if seen.crisper > 0.1 else "not seen"


def _sharpen(seen: Seen, step: Step) -> Change:
    seemingly = _towards(seen.crisper * _direction(step), 0.01)
    return "nothing to do" if seemingly == "not seen" and seen.detail_before < _PLAIN else seemingly


def _clarity(seen: Seen, step: Step) -> Change:
    if seen.crisper > 0 or seen.spread > 0.4:
        return "as asked"
    return "nothing to do" if seen.detail_before < _PLAIN else "not seen"


def _vignette(seen: Seen, step: Step) -> Change:
    # Only the corners darken: entities in the middle are right as they are.
    return "nothing to do" if abs(seen.lightness) < 0.5 else _towards(-seen.lightness, 0.5)


def _enhance(seen: Seen, step: Step) -> Change:
    return "as asked" if seen.moved > 1.6 or abs(seen.structure) > 0.4 or seen.crisper > 0 else "not seen"


def _any_change(seen: Seen, step: Step) -> Change:
    return "as asked" if seen.difference >= PRESERVED_MEAN or seen.distant >= PRESERVED_P90 else "not seen"


def _towards(amount: float, least: float) -> Change:
    return "as asked" if amount >= least else ("opposite" if amount <= -least else "not seen")


def _drama(seen: Seen, step: Step) -> Change:
    """Darker, or clearly more structure; a brighter and flatter picture is the opposite."""
    if seen.difference < PRESERVED_MEAN and seen.crisper < 0.05:
        return "not seen"
    if seen.lightness < -1.5 or seen.structure > 1.0 or seen.crisper > 0.1:
        return "as asked"
    return "opposite" if seen.lightness > 3 else "not seen"


def _coloured(seen: Seen, step: Step) -> Change:
    """Whether the mean colour came nearer to the one asked for."""
    paint = np.array([[rgb_of(str(step.parameters.get("color", "#808080")))]], dtype=np.float32)
    wanted = np.asarray(cv2.cvtColor(paint, cv2.COLOR_RGB2LAB), dtype=np.float32)[0, 0]
    weight = np.array([0.4, 1.0, 1.0], dtype=np.float32)
    before = float(np.linalg.norm((seen.mean_before - wanted) * weight))
    after = float(np.linalg.norm((seen.mean_after - wanted) * weight))
    if before < 12 and after < 14:
        return "nothing to do"  # it had that colour already
    return _towards(before - after, min(2.5, 0.2 * before))


_JUDGES: Final[Mapping[str, Callable[[Seen, Step], Change]]] = {
    "black_and_white": _black_and_white,
    "blur": _blur,
    "clarity": _clarity,
    "contrast": _contrast,
    "dramatic": _drama,
    "dramatic_sky": _drama,
    "enhance": _enhance,
    "exposure": _exposure,
    "fill": _coloured,
    "recolour": _coloured,
    "saturation": _saturation,
    "sepia": _sepia,
    "sharpen": _sharpen,
    "tint": _coloured,
    "vignette": _vignette,
    "warmth": _warmth,
}
