"""The embedded validator: what happened to each entity, measured on pixels, and whether it was what was asked for.

Measured on copies of at most 640 pixels, inside masks eroded by 5 pixels (borders belong to both sides), on CIE
Lab blurred by sigma 2.5 (else JPEG at quality 90 looks like a change). Colour difference is CIEDE2000
(G. Sharma et al. 2005), structure is SSIM of L (Z. Wang et al. 2004). "Preserved" is a mean difference below 2.3
(one just noticeable difference), 90 % of the pixels below 5, and SSIM above 0.88.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np

from edi_storage.models import EntityData, EntityDelta, ValidationResult
from flows.engines.base import Mask, Pixels, Progress, ValidationRequest, no_progress
from flows.engines.operations import rgb_of
from flows.engines.regions import Bools, Floats, shrink, to_lab
from flows.engines.scoring import Counts, alignment_score, count, decide
from flows.engines.steps import Step, steps_of

__all__ = ["Counts", "EmbeddedValidator", "alignment_score", "count", "decide"]

PRESERVED_MEAN: Final = 2.3
PRESERVED_P90: Final = 5.0
PRESERVED_SSIM: Final = 0.88
_ERODE: Final = 5
_BLUR: Final = 2.5
#: A mean difference beyond this on a target is more than a strong look needs; only mentioned, never a fault.
_VERY_STRONG: Final = 45.0
#: Mean absolute fine structure, in L, below which something is out of focus or plain.
_SOFT: Final = 0.5

#: "nothing to do": what has no colour cannot lose it, what is soft cannot be blurred. Counts as done if anything was.
Change = Literal["as asked", "not seen", "opposite", "nothing to do"]
Verdict = Literal["preserved", "modified", "not_applied", "wrong_direction", "unintended"]


@dataclass(frozen=True)
class _Pair:
    """Both pictures at the measuring size: L, a, b as they are and blurred, differences, and SSIM per pixel."""

    before: Floats
    after: Floats
    before_soft: Floats
    after_soft: Floats
    difference: Floats
    ssim: Floats


class EmbeddedValidator:
    """Measures entity by entity; the score is computed from its verdicts by `scoring`."""

    name = "embedded"
    version = "1"

    def validate(self, request: ValidationRequest, progress: Progress = no_progress) -> ValidationResult:
        """What was preserved, modified as asked, and changed by accident, with hints for the next attempt."""
        progress(0.1, "comparing the pictures", {})
        pair = _compare(request.original, request.edited)
        progress(0.6, "measuring each entity", {})
        measured = [_measure(entity, request, pair) for entity in request.scene.entities]
        something_done = any(measure.changes and set(measure.changes) == {"as asked"} for measure in measured)
        deltas = [_delta(measure, something_done) for measure in measured]
        hints = _hints(deltas)
        return ValidationResult(deltas=deltas, hints=hints, summary=_summary(deltas))


def _compare(original: Pixels, edited: Pixels) -> _Pair:
    small = shrink(original)
    size = (small.shape[1], small.shape[0])
    other = edited
    if edited.shape[:2] != small.shape[:2]:
        other = np.asarray(cv2.resize(edited, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    before, after = to_lab(small), to_lab(other)
    before_soft, after_soft = _soft(before), _soft(after)
    from skimage.color import deltaE_ciede2000

    measured: Any = deltaE_ciede2000  # scikit-image has no types
    difference = np.asarray(measured(before_soft, after_soft), dtype=np.float32)
    return _Pair(before, after, before_soft, after_soft, difference, _ssim(before[..., 0], after[..., 0]))


def _soft(plane: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _BLUR), dtype=np.float32)


def _ssim(one: Floats, other: Floats) -> Floats:
    """SSIM per pixel of two lightness planes (range 100), Gaussian window of sigma 1.5."""

    def window(plane: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.5), dtype=np.float32)

    first, second = np.float32((0.01 * 100) ** 2), np.float32((0.03 * 100) ** 2)
    mean_one, mean_other = window(one), window(other)
    variance_one = window(one * one) - mean_one**2
    variance_other = window(other * other) - mean_other**2
    together = window(one * other) - mean_one * mean_other
    above = (2 * mean_one * mean_other + first) * (2 * together + second)
    below = (mean_one**2 + mean_other**2 + first) * (variance_one + variance_other + second)
    return np.asarray(np.clip(above / below, -1, 1), dtype=np.float32)


def _inside(mask: Mask, shape: tuple[int, ...]) -> Bools:
    """Where an entity surely is: its mask at the measuring size, eroded; less eroded when nothing would be left."""
    small = np.asarray(cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.float32)
    for margin in (_ERODE, 2, 0):
        side = 2 * margin + 1
        kernel = np.ones((side, side), np.uint8)
        kept = cv2.erode((small > 0.9).astype(np.uint8), kernel, borderType=cv2.BORDER_REPLICATE)
        if int(kept.sum()) >= 30:
            return np.asarray(kept, dtype=bool)
    return np.asarray(small >= max(0.5 * float(small.max()), 1e-6))


@dataclass(frozen=True)
class _Measured:
    """One entity: its difference, and for a target how each step shows on it."""

    entity: EntityData
    mean: float
    p90: float
    ssim: float
    changes: tuple[Change, ...]  # empty for what is to be preserved
    steps: tuple[Step, ...]

    @property
    def preserved(self) -> bool:
        return self.mean < PRESERVED_MEAN and self.p90 < PRESERVED_P90 and self.ssim > PRESERVED_SSIM


def _measure(entity: EntityData, request: ValidationRequest, pair: _Pair) -> _Measured:
    name, mask = entity.entity_id, request.masks.get(entity.entity_id)
    shape = pair.difference.shape
    inside = np.ones(shape, dtype=bool) if mask is None else _inside(mask, shape)
    values = pair.difference[inside] if inside.any() else np.zeros(1, dtype=np.float32)
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    if name in request.intent.target_entities:
        steps = tuple(s for s in steps_of(request.intent) if name in s.targets or s.scope == "whole")
        changes = tuple(_change(step, pair, inside) for step in steps) or ("not seen",)
    ssim = float(pair.ssim[inside].mean()) if inside.any() else 1.0
    return _Measured(entity, float(values.mean()), float(np.quantile(values, 0.9)), ssim, changes, steps)


def _delta(measured: _Measured, something_done: bool) -> EntityDelta:
    verdict, note = _verdict(measured, something_done)
    return EntityDelta(
        entity_id=measured.entity.entity_id,
        label=measured.entity.label,
        role="target" if measured.changes else "preserve",
        verdict=verdict,
        mean_delta_e=round(measured.mean, 3),
        p90_delta_e=round(measured.p90, 3),
        ssim=round(measured.ssim, 4),
        note=note,
    )


def _verdict(measured: _Measured, something_done: bool) -> tuple[Verdict, str]:
    if not measured.changes:
        return ("preserved" if measured.preserved else "unintended"), ""
    if "opposite" in measured.changes:
        step = measured.steps[measured.changes.index("opposite")]
        return "wrong_direction", f"{step.action} went the other way"
    if "not seen" in measured.changes or ("nothing to do" in measured.changes and not something_done):
        return "not_applied", ""
    return "modified", "very strong" if measured.mean > _VERY_STRONG else ""


@dataclass(frozen=True)
class _Seen:
    """How the pixels of one entity moved, after minus before, in Lab units."""

    difference: float  # mean CIEDE2000
    lightness: float
    spread: float  # of L: contrast
    detail: float  # of fine structure, as a ratio after / before
    detail_before: float  # mean absolute fine structure, in L
    chroma: float
    warmth: float  # of b plus half of a
    mean_before: Floats
    mean_after: Floats
    before_chroma: float
    after_chroma: float
    distant: float  # 90 % quantile of the difference


def _look(pair: _Pair, inside: Bools) -> _Seen:
    before, after = pair.before_soft[inside], pair.after_soft[inside]
    chroma_before, chroma_after = np.hypot(before[:, 1], before[:, 2]), np.hypot(after[:, 1], after[:, 2])
    moved = after.mean(axis=0) - before.mean(axis=0)
    fine_before = pair.before[..., 0] - pair.before_soft[..., 0]
    fine_after = pair.after[..., 0] - pair.after_soft[..., 0]
    detail_before = float(np.abs(fine_before[inside]).mean())
    detail = (float(np.abs(fine_after[inside]).mean()) + 0.02) / (detail_before + 0.02)
    return _Seen(
        difference=float(pair.difference[inside].mean()),
        lightness=float(moved[0]),
        spread=float(after[:, 0].std() - before[:, 0].std()),
        detail=detail,
        detail_before=detail_before,
        chroma=float(chroma_after.mean() - chroma_before.mean()),
        warmth=float(moved[2] + 0.5 * moved[1]),
        mean_before=np.asarray(before.mean(axis=0), dtype=np.float32),
        mean_after=np.asarray(after.mean(axis=0), dtype=np.float32),
        before_chroma=float(chroma_before.mean()),
        after_chroma=float(chroma_after.mean()),
        distant=float(np.quantile(pair.difference[inside], 0.9)),
    )


def _change(step: Step, pair: _Pair, inside: Bools) -> Change:
    """Whether a step can be seen on an entity, and in the direction it asks for."""
    if not inside.any():
        return "not seen"
    if step.action == "contrast" and step.scope == "whole":
        # An S-curve flattens the lightest and darkest parts: contrast is the picture's, not each part's.
        inside = np.ones_like(inside)
    seen = _look(pair, inside)
    direction = -1.0 if float(step.parameters.get("direction", 1)) < 0 else 1.0
    match step.action:
        case "exposure":
            return _towards(seen.lightness * direction, 1.5)
        case "contrast":
            return _towards((seen.spread + 8 * (seen.detail - 1)) * direction, 0.3)
        case "saturation":
            seemingly = _towards(seen.chroma * direction, 0.8)
            return "nothing to do" if seemingly == "not seen" and seen.before_chroma < 6 else seemingly
        case "warmth":
            return _towards(seen.warmth * direction, 1.0)
        case "dramatic_sky" | "dramatic":
            return _drama(seen)
        case "black_and_white":
            if seen.before_chroma < 6:
                return "nothing to do" if seen.difference < 0.7 else "as asked"
            return "as asked" if seen.after_chroma < 6 else "not seen"
        case "sepia":
            # Deep shadows and what was brown already move little.
            return "as asked" if seen.difference > 0.7 else "not seen"
        case "blur":
            if seen.detail_before < _SOFT and seen.detail < 1.5:
                return "as asked" if seen.detail < 0.9 else "nothing to do"
            return "as asked" if seen.detail < 0.9 else ("not seen" if seen.detail < 1.1 else "opposite")
        case "sharpen":
            seemingly = _towards((seen.detail - 1) * direction, 0.04)
            return "nothing to do" if seemingly == "not seen" and seen.detail_before < _SOFT else seemingly
        case "clarity":
            return "as asked" if seen.detail > 1.03 or seen.spread > 0.4 else "not seen"
        case "recolour" | "fill" | "tint":
            return _coloured(seen, step.parameters)
        case "vignette":
            # Only the corners darken: entities in the middle are right as they are.
            return "nothing to do" if abs(seen.lightness) < 0.5 else _towards(-seen.lightness, 0.5)
        case "enhance":
            return "as asked" if seen.difference > 1.0 or seen.detail > 1.05 else "not seen"
        case _:
            return "as asked" if seen.difference >= PRESERVED_MEAN or seen.distant >= PRESERVED_P90 else "not seen"


def _towards(amount: float, least: float) -> Change:
    return "as asked" if amount >= least else ("opposite" if amount <= -least else "not seen")


def _drama(seen: _Seen) -> Change:
    """Darker, or clearly more structure; a brighter and flatter picture is the opposite."""
    if seen.difference < PRESERVED_MEAN and seen.detail < 1.1:
        return "not seen"
    if seen.lightness < -1.5 or seen.spread > 1.0 or seen.detail > 1.15:
        return "as asked"
    return "opposite" if seen.lightness > 3 else "not seen"


def _coloured(seen: _Seen, parameters: Mapping[str, object]) -> Change:
    """Whether the mean colour came nearer to the one asked for."""
    paint = np.array([[rgb_of(str(parameters.get("color", "#808080")))]], dtype=np.float32)
    wanted = np.asarray(cv2.cvtColor(paint, cv2.COLOR_RGB2LAB), dtype=np.float32)[0, 0]
    weight = np.array([0.4, 1.0, 1.0], dtype=np.float32)
    before = float(np.linalg.norm((seen.mean_before - wanted) * weight))
    after = float(np.linalg.norm((seen.mean_after - wanted) * weight))
    if before < 12 and after < 14:
        return "nothing to do"  # it had that colour already
    return _towards(before - after, min(2.5, 0.2 * before))


def _hints(deltas: Sequence[EntityDelta]) -> list[str]:
    """What the next attempt should do differently."""
    hints = []
    targets = [delta for delta in deltas if delta.role == "target"]
    if any(delta.verdict == "not_applied" for delta in targets):
        hints.append("stronger")
    spilt = [delta for delta in deltas if delta.verdict == "unintended"]
    hints += [f"protect {delta.entity_id}" for delta in spilt]
    return hints


def _summary(deltas: Sequence[EntityDelta]) -> str:
    counts: Mapping[str, int] = {
        verdict: sum(delta.verdict == verdict for delta in deltas)
        for verdict in ("modified", "preserved", "unintended", "not_applied", "wrong_direction")
    }
    words = {
        "modified": "changed as asked",
        "preserved": "preserved",
        "unintended": "changed by accident",
        "not_applied": "not changed although asked",
        "wrong_direction": "changed the wrong way",
    }
    parts = [f"{number} {words[verdict]}" for verdict, number in counts.items() if number]
    return (", ".join(parts) or "nothing to measure") + "."
