"""From what a validator measured to a score and a decision. Pure arithmetic: no pixels, no imports that cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from edi_storage.models import ValidationResult

ACCEPT: Final = 0.8
REVIEW: Final = 0.6

Verdict = Literal["accepted", "needs_review", "retry", "best_effort"]


@dataclass(frozen=True)
class Counts:
    """Entities counted by what should and what did happen to them."""

    preserved: int
    to_preserve: int
    applied: int
    intended: int
    unintended: int
    total: int

    @property
    def score(self) -> float:
        """The alignment score of these counts."""
        return alignment_score(
            self.preserved, self.to_preserve, self.applied, self.intended, self.unintended, self.total
        )


def count(result: ValidationResult) -> Counts:
    """Count the verdicts of a validation."""
    targets = [delta for delta in result.deltas if delta.role == "target"]
    kept = [delta for delta in result.deltas if delta.role == "preserve"]
    return Counts(
        preserved=sum(delta.verdict == "preserved" for delta in kept),
        to_preserve=len(kept),
        applied=sum(delta.verdict == "modified" for delta in targets),
        intended=len(targets),
        unintended=sum(delta.verdict == "unintended" for delta in result.deltas),
        total=len(result.deltas),
    )


def alignment_score(
    preserved: int, to_preserve: int, applied: int, intended: int, unintended: int, total: int
) -> float:
    """0.4 x preserved/to_preserve + 0.4 x applied/intended + 0.2 x (1 - unintended/total), in 0..1.

    A ratio of nothing to nothing is perfect: 1 for the first two, 0 for the last.
    """
    kept = preserved / to_preserve if to_preserve else 1.0
    done = applied / intended if intended else 1.0
    spilt = unintended / total if total else 0.0
    return round(0.4 * kept + 0.4 * done + 0.2 * (1 - spilt), 6)


def decide(score: float, applied: int, attempt: int, max_attempts: int) -> Verdict:
    """ "accepted" from 0.8, "needs_review" from 0.6, "retry" below, "best_effort" when no attempt is left for a retry.

    An edit that changed nothing scores exactly 0.6 by the formula; so with `applied` = 0 it is a retry at any score.
    """
    if applied > 0 and score >= ACCEPT:
        return "accepted"
    if applied > 0 and score >= REVIEW:
        return "needs_review"
    return "retry" if attempt < max_attempts else "best_effort"
