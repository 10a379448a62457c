"""Whether learning helps: what it changes in acceptance, with an honest interval.

Every tenth edit is made as if nothing had been learned (the holdout). The doubly robust estimate uses the others too:
the probability of every choice was written down before it was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from edi_storage.learning.intervals import Z95, wilson
from edi_storage.record import Count, Record, Unit

#: The share of edits made without learning.
HOLDOUT: Final = 0.1
#: Verdicts, of both kinds together and in the holdout alone, before any estimate is given.
LEAST: Final = 40
LEAST_HELD_OUT: Final = 5
#: Pseudo-counts of each step of the back-off: arm, edit type and arm, cell and arm.
_SHRINK: Final = 12.0

Proof = Literal["too early", "not yet proven", "helps", "harms"]


@dataclass(frozen=True)
class Judged:
    """One judged choice: what it was about, what could have been chosen with which chance, and the reward (0..1).

    `probabilities` are those of the whole procedure, the holdout included, and sum to 1.
    """

    edit_type: str
    label: str
    arm: str
    default: str
    probabilities: Mapping[str, float]
    holdout: bool
    reward: float


class Share(Record):
    """A mean reward with Wilson's 95 % interval."""

    n: Count = 0
    mean: Unit = 0.0
    low: Unit = 0.0
    high: Unit = 1.0

    @classmethod
    def of(cls, rewards: float, n: int) -> Share:
        low, high = wilson(rewards, n)
        return cls(n=n, mean=rewards / n if n else 0.0, low=low, high=high)


class Uplift(Record):
    """By how much learning changes the mean reward (-1..1), as 95 % interval; None while it is too early."""

    learned: Share
    holdout: Share
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    proof: Proof = "too early"


def uplift(choices: Iterable[Judged]) -> Uplift:
    """The doubly robust estimate of reward with learning less reward without, over `choices` in the order of time.

    psi_i = sum_a t(a) q(a) - q(d) + (t(a_i) - [a_i = d]) / p(a_i) * (r_i - q(a_i)), with p the logged probabilities,
    t = (p - 0.1 [d]) / 0.9 the learned part of them, d the default. q is estimated from earlier choices only, so that
    what is averaged is a martingale, although the probabilities follow from earlier rewards. p(d) is at least 0.1: no
    weight exceeds 10. Sources: Dudik, Langford and Li, 2011; Hadad et al., 2021, on adaptively collected data.
    """
    model = _Means()
    n = 0
    mean = squares = 0.0
    sums = {True: [0.0, 0], False: [0.0, 0]}
    for choice in choices:
        n += 1
        side = sums[choice.holdout]
        side[0], side[1] = side[0] + choice.reward, side[1] + 1
        off = _psi(choice, model) - mean
        mean += off / n
        squares += off * off * (n - 1) / n  # Welford's sum of squares
        model.add(choice)
    learned, held_out = (Share.of(sums[side][0], int(sums[side][1])) for side in (False, True))
    if n < LEAST or held_out.n < LEAST_HELD_OUT:
        return Uplift(learned=learned, holdout=held_out)
    half = Z95 * math.sqrt(squares / (n - 1) / n)
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    proof: Proof = "helps" if low > 0 else "harms" if high < 0 else "not yet proven"
    return Uplift(learned=learned, holdout=held_out, estimate=mean, low=low, high=high, proof=proof)


def learned_part(probabilities: Mapping[str, float], default: str) -> dict[str, float]:
    """The probabilities without the holdout's share."""
    return {
        arm: max(0.0, chance - (HOLDOUT if arm == default else 0.0)) / (1 - HOLDOUT)
        for arm, chance in probabilities.items()
    }


def with_second(choice: Judged, arm: str, default: str, probabilities: Mapping[str, float]) -> Judged:
    """The choice together with a second one of the same edit, drawn for itself but for the common holdout."""
    first, second = learned_part(choice.probabilities, choice.default), learned_part(probabilities, default)
    both = {f"{a} | {b}": (1 - HOLDOUT) * first[a] * second[b] for a in first for b in second}
    usual = f"{choice.default} | {default}"
    both[usual] += HOLDOUT
    return replace(choice, arm=f"{choice.arm} | {arm}", default=usual, probabilities=both)


def _psi(choice: Judged, model: _Means) -> float:
    learned = learned_part(choice.probabilities, choice.default)
    expected = sum(chance * model.mean(choice, arm) for arm, chance in learned.items())
    weight = (learned[choice.arm] - (choice.arm == choice.default)) / choice.probabilities[choice.arm]
    surprise = choice.reward - model.mean(choice, choice.arm)
    return expected - model.mean(choice, choice.default) + weight * surprise


class _Means:
    """Running mean rewards, each shrunk to the next wider one: cell and arm, type and arm, arm, 1/2."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[float, int]] = {}

    def mean(self, choice: Judged, arm: str) -> float:
        mean = 0.5
        for key in _keys(choice, arm):
            total, n = self._sums.get(key, (0.0, 0))
            mean = (total + _SHRINK * mean) / (n + _SHRINK)
        return mean

    def add(self, choice: Judged) -> None:
        for key in _keys(choice, choice.arm):
            total, n = self._sums.get(key, (0.0, 0))
            self._sums[key] = (total + choice.reward, n + 1)


def _keys(choice: Judged, arm: str) -> tuple[tuple[str, ...], ...]:
    return (arm,), (choice.edit_type, arm), (choice.edit_type, choice.label, arm)
