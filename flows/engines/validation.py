"""The embedded validator: what happened to each entity, measured on pixels, and whether it was what was asked for.

How two pictures are compared stands in `comparing`. "Preserved" is a mean difference below 2.3 (one just noticeable
difference), 90 % of the pixels below 5, SSIM above 0.88, and no spot (3 % of the entity) beyond 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from edi_storage.models import EntityData, EntityDelta, ValidationResult
from flows.engines.base import Progress, ValidationRequest, no_progress
from flows.engines.comparing import Pair, inside
from flows.engines.directions import PRESERVED_MEAN, PRESERVED_P90, Change, Seen, change_of, look
from flows.engines.scoring import Counts, alignment_score, count, decide
from flows.engines.steps import Step, steps_of

__all__ = ["Counts", "EmbeddedValidator", "alignment_score", "count", "decide"]

PRESERVED_SSIM: Final = 0.88
#: A spot: what differs by more than this on more than this share of an entity.
SPOT: Final = 10.0
SPOT_SHARE: Final = 0.03
#: A mean difference beyond this on a target is more than a strong look needs; only mentioned, never a fault.
_VERY_STRONG: Final = 45.0
Verdict = Literal["preserved", "modified", "not_applied", "wrong_direction", "unintended"]


class EmbeddedValidator:
    """Measures entity by entity; the score is computed from its verdicts by `scoring`."""

    name = "embedded"
    version = "2"

    def validate(self, request: ValidationRequest, progress: Progress = no_progress) -> ValidationResult:
        """What was preserved, modified as asked, and changed by accident, with hints for the next attempt."""
        progress(0.1, "comparing the pictures", {})
        pair = request.pair
        progress(0.6, "measuring each entity", {})
        measured = [_measure(entity, request, pair) for entity in request.scene.entities]
        something_done = any(measure.changes and set(measure.changes) == {"as asked"} for measure in measured)
        deltas = [_delta(measure, something_done) for measure in measured]
        hints = _hints(deltas)
        return ValidationResult(deltas=deltas, hints=hints, summary=_summary(deltas))


@dataclass(frozen=True)
class _Measured:
    """One entity: its difference, and for a target how each step shows on it."""

    entity: EntityData
    mean: float
    p90: float
    ssim: float
    spot: float  # share of its pixels that differ by more than SPOT
    seen: Seen | None  # None of what is too small to be looked at
    changes: tuple[Change, ...]  # empty for what is to be preserved
    steps: tuple[Step, ...]

    @property
    def preserved(self) -> bool:
        alike = self.mean < PRESERVED_MEAN and self.p90 < PRESERVED_P90 and self.ssim > PRESERVED_SSIM
        return alike and self.spot < SPOT_SHARE


def _measure(entity: EntityData, request: ValidationRequest, pair: Pair) -> _Measured:
    name, mask = entity.entity_id, request.masks.get(entity.entity_id)
    area = np.ones(pair.shape, dtype=bool) if mask is None else inside(mask, pair.shape)
    values = pair.difference[area] if area.any() else np.zeros(1, dtype=np.float32)
    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()
    if name in request.intent.target_entities:
        steps = tuple(s for s in steps_of(request.intent) if name in s.targets or s.scope == "whole")
        changes = tuple(change_of(step, pair, area, mask) for step in steps) or ("not seen",)
    return _Measured(
        entity,
        mean=float(values.mean()),
        p90=float(np.quantile(values, 0.9)),
        ssim=float(pair.ssim[area].mean()) if area.any() else 1.0,
        spot=float((values > SPOT).mean()),
        seen=look(pair, area) if area.any() else None,
        changes=changes,
        steps=steps,
    )


def _delta(measured: _Measured, something_done: bool) -> EntityDelta:
    verdict, note = _verdict(measured, something_done)
    seen = measured.seen
    return EntityDelta(
        entity_id=measured.entity.entity_id,
        label=measured.entity.label,
        role="target" if measured.changes else "preserve",
        verdict=verdict,
        mean_delta_e=round(measured.mean, 3),
        p90_delta_e=round(measured.p90, 3),
        ssim=round(measured.ssim, 4),
        lightness=round(seen.lightness, 2) if seen else None,
        chroma=round(seen.chroma, 2) if seen else None,
        detail=round(seen.detail, 3) if seen else None,
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
