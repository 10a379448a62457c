"""What an alignment score is worth: the chance that a person accepts a result that scored so.

Below 30 verdicts nothing is said, to 199 Platt's sigmoid, from 200 that or a shrunken isotonic curve, whichever
predicts verdicts better that it has not seen (cross-validated log loss).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from edi_storage.learning.intervals import Z95, wilson
from edi_storage.record import Count, Record, Unit

#: Verdicts from which anything is said, and from which the isotonic curve may compete.
LEAST_ROWS: Final = 30
ISOTONIC_ROWS: Final = 200
#: The acceptance that a recommended threshold promises.
PROMISE: Final = 0.80
#: The thresholds that may be recommended. The product asks a person from 0.6 on.
THRESHOLDS: Final = (0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)

_FOLDS: Final = 5
_BINS: Final = 10
#: How many verdicts Platt's curve counts for in each bin of the isotonic one.
_PSEUDO: Final = 10.0
#: Verdicts that each step down of the threshold must let in.
_LEAST_A_STEP: Final = 10
#: Predictions stay off 0 and 1, where one wrong verdict would cost everything.
_EDGE: Final = 1e-3


@dataclass(frozen=True)
class ScoreCount:
    """`n` verdicts on results that scored `score` (0..1), of which `accepted` were accepts. One verdict: n = 1."""

    score: float
    n: int
    accepted: int


class CalibrationBin(Record):
    """Some neighbouring scores: what was promised there and what came, with Wilson's 95 % interval."""

    score: Unit
    n: Count
    accepted: Count
    predicted: Unit
    low: Unit
    high: Unit


class ThresholdAdvice(Record):
    """Accept on its own from `threshold` on: of `n` such results `accepted` were accepted, at least `low` (Wilson)."""

    threshold: Unit
    n: Count
    accepted: Count
    low: Unit


class Calibration(Record):
    """The fitted curve as points between which it is straight, and how far off it is.

    `ece` is the expected calibration error of predictions for verdicts that the curve was not fitted to;
    `noise_floor` is what a perfect curve would show with so few verdicts. An ece near it means: as good as can be told.
    """

    method: Literal["none", "platt", "isotonic"]
    rows: Count
    points: tuple[tuple[float, float], ...] = ()
    ece: Unit | None = None
    noise_floor: Unit | None = None
    bins: tuple[CalibrationBin, ...] = ()
    advice: ThresholdAdvice | None = None

    def chance(self, score: float) -> float | None:
        """P(accept) of a result that scored so; None while nothing is known."""
        return _between(self.points, score) if self.points else None


ItemT = TypeVar("ItemT")
_Predictor = Callable[[float], float]


def calibrate(counts: Iterable[ScoreCount], current: float = 0.80) -> Calibration:
    """Fit the curve, and say whether another auto-accept threshold than `current` keeps its promise.

    The same counts in any order give the same curve. Only sums are used: a history of any length may come as one
    count for each hundredth of the score.
    """
    merged = _merged(counts)
    rows = sum(count.n for count in merged)
    if rows < LEAST_ROWS:
        return Calibration(method="none", rows=rows)
    method: Literal["platt", "isotonic"] = "platt"
    if rows >= ISOTONIC_ROWS and _loss(merged, _isotonic) < _loss(merged, _platt):
        method = "isotonic"
    fit = {"platt": _platt, "isotonic": _isotonic}[method]
    fitted = fit(merged)
    bins = tuple(_bin(group, fitted) for group in _groups(merged, _size))
    unseen = [(count, predict(count.score)) for count, predict in _cross_validated(merged, fit)]
    ece, floor = _error(unseen)
    return Calibration(
        method=method,
        rows=rows,
        points=tuple((step / 50, round(fitted(step / 50), 4)) for step in range(51)),
        ece=ece,
        noise_floor=floor,
        bins=bins,
        advice=advise(merged, current),
    )


def advise(counts: Iterable[ScoreCount], current: float = 0.80) -> ThresholdAdvice | None:
    """Another threshold whose acceptance is at least `PROMISE` by Wilson's lower bound; None to leave it as it is.

    Lower than `current`: step by step, and stopping at the first step that does not hold or lets in too few verdicts
    to tell, which keeps the chance of a false promise at that of one test however many steps there are. Higher, when
    `current` does not hold: the first that does, each tested more strictly for their number (Bonferroni).
    """
    merged = _merged(counts)
    held = None
    for threshold in sorted((t for t in THRESHOLDS if t <= current), reverse=True):
        found = _from(merged, threshold, Z95)
        if found.low < PROMISE or (held and found.n - held.n < _LEAST_A_STEP):
            break
        held = found
    if held is not None:
        return held if held.threshold < current else None
    higher = [t for t in THRESHOLDS if t > current]
    strict = {0: Z95, 1: Z95, 2: 2.241403, 3: 2.393980}.get(len(higher), 2.5)
    # Only where the present one is known to be broken, not where there are too few verdicts to tell.
    if wilson(*_passed(merged, current))[1] >= PROMISE:
        return None
    return next((found for t in higher if (found := _from(merged, t, strict)).low >= PROMISE), None)


def _from(counts: Sequence[ScoreCount], threshold: float, z: float) -> ThresholdAdvice:
    accepted, n = _passed(counts, threshold)
    return ThresholdAdvice(threshold=threshold, n=n, accepted=accepted, low=wilson(accepted, n, z)[0])


def _passed(counts: Sequence[ScoreCount], threshold: float) -> tuple[int, int]:
    # As the product compares: a score that is shown as 0.80 passes 0.80.
    passed = [count for count in counts if count.score >= threshold - 1e-9]
    return sum(count.accepted for count in passed), sum(count.n for count in passed)


def _merged(counts: Iterable[ScoreCount]) -> list[ScoreCount]:
    sums: dict[float, tuple[int, int]] = {}
    for count in counts:
        n, accepted = sums.get(count.score, (0, 0))
        sums[count.score] = (n + count.n, accepted + count.accepted)
    return [ScoreCount(score, n, accepted) for score, (n, accepted) in sorted(sums.items()) if n > 0]


# --- Curves -------------------------------------------------------------------------------------------


def _platt(counts: Sequence[ScoreCount]) -> _Predictor:
    """Platt's sigmoid: p = 1 / (1 + exp(-(a s + b))), fitted to smoothed targets (J. Platt, 1999, section 2.2).

    A slope below 0 would say that better results are accepted less: that is taken as no slope.
    """
    from scipy.optimize import minimize

    yes = sum(count.accepted for count in counts)
    no = sum(count.n for count in counts) - yes
    high, low = (yes + 1) / (yes + 2), 1 / (no + 2)

    def loss(parameters: Sequence[float]) -> tuple[float, list[float]]:
        total, slope, shift = 0.0, 0.0, 0.0
        for count in counts:
            margin = parameters[0] * (count.score - 0.5) + parameters[1]
            wanted = count.accepted * high + (count.n - count.accepted) * low
            total += count.n * _softplus(margin) - wanted * margin
            off = count.n * _sigmoid(margin) - wanted
            slope, shift = slope + off * (count.score - 0.5), shift + off
        return total, [slope, shift]

    found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.0, 60.0), (-30.0, 30.0)])
    steepness, offset = (float(value) for value in found.x)
    return lambda score: _clipped(_sigmoid(steepness * (score - 0.5) + offset))


def _isotonic(counts: Sequence[ScoreCount]) -> _Predictor:
    """A rising curve through ten bins, each shrunk to Platt's curve by ten verdicts."""
    from scipy.optimize import isotonic_regression

    prior = _platt(counts)
    groups = _groups(counts, _size)
    sizes = [sum(count.n for count in group) for group in groups]
    middles = [sum(c.score * c.n for c in group) / n for group, n in zip(groups, sizes, strict=True)]
    shrunk = [
        (sum(c.accepted for c in group) + _PSEUDO * prior(middle)) / (n + _PSEUDO)
        for group, n, middle in zip(groups, sizes, middles, strict=True)
    ]
    rising = isotonic_regression(shrunk, weights=[n + _PSEUDO for n in sizes]).x
    points = [(middle, _clipped(float(value))) for middle, value in zip(middles, rising, strict=True)]
    return lambda score: _between(points, score)


def _groups(items: Sequence[ItemT], size: Callable[[ItemT], int]) -> list[list[ItemT]]:
    """Neighbours in at most ten groups of about the same number of verdicts."""
    share = sum(map(size, items)) / _BINS
    groups: list[list[ItemT]] = [[]]
    before = 0
    for item in items:
        if groups[-1] and before >= share * len(groups):
            groups.append([])
        groups[-1].append(item)
        before += size(item)
    return groups


def _size(count: ScoreCount) -> int:
    return count.n


def _bin(group: Sequence[ScoreCount], predict: _Predictor) -> CalibrationBin:
    n, accepted = sum(count.n for count in group), sum(count.accepted for count in group)
    low, high = wilson(accepted, n)
    score = sum(count.score * count.n for count in group) / n
    predicted = sum(predict(count.score) * count.n for count in group) / n
    return CalibrationBin(score=score, n=n, accepted=accepted, predicted=predicted, low=low, high=high)


# --- How far off --------------------------------------------------------------------------------------


def _cross_validated(
    counts: Sequence[ScoreCount], fit: Callable[[Sequence[ScoreCount]], _Predictor]
) -> Iterator[tuple[ScoreCount, _Predictor]]:
    """Each fifth of the verdicts with the curve that was fitted to the others."""
    folds = _folds(counts)
    for number, fold in enumerate(folds):
        others = _merged(count for other in (*folds[:number], *folds[number + 1 :]) for count in other)
        predict = fit(others)
        for count in fold:
            yield count, predict


def _folds(counts: Sequence[ScoreCount]) -> list[list[ScoreCount]]:
    """The verdicts dealt out like cards, accepts and others each in the order of their scores."""
    dealt: list[dict[float, list[int]]] = [{} for _ in range(_FOLDS)]
    place = [0, 0]
    for count in counts:
        for kind, many in ((0, count.n - count.accepted), (1, count.accepted)):
            for fold in range(_FOLDS):
                share = (many + (_FOLDS - 1) - (fold - place[kind]) % _FOLDS) // _FOLDS
                if share:
                    dealt[fold].setdefault(count.score, [0, 0])[kind] += share
            place[kind] = (place[kind] + many) % _FOLDS
    return [
        [ScoreCount(score, sum(kinds), kinds[1]) for score, kinds in sorted(fold.items())] for fold in dealt if fold
    ]


def _loss(counts: Sequence[ScoreCount], fit: Callable[[Sequence[ScoreCount]], _Predictor]) -> float:
    total = 0.0
    for count, predict in _cross_validated(counts, fit):
        chance = predict(count.score)
        total -= count.accepted * math.log(chance) + (count.n - count.accepted) * math.log(1 - chance)
    return total


def _error(unseen: Sequence[tuple[ScoreCount, float]]) -> tuple[float, float]:
    """Expected calibration error over ten bins of prediction, and its mean for a perfect curve: E|N(0, p(1-p)/n)|."""
    total = sum(count.n for count, _ in unseen)
    error = floor = 0.0
    for group in _groups(sorted(unseen, key=lambda pair: pair[1]), lambda pair: pair[0].n):
        n = sum(count.n for count, _ in group)
        promised = sum(count.n * chance for count, chance in group) / n
        error += abs(sum(count.accepted for count, _ in group) / n - promised) * n / total
        floor += math.sqrt(2 / math.pi * promised * (1 - promised) / n) * n / total
    return round(min(1.0, error), 4), round(min(1.0, floor), 4)


# --- Small functions ----------------------------------------------------------------------------------


def _between(points: Sequence[tuple[float, float]], score: float) -> float:
    place = bisect_left(points, (score, -1.0))
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (left, below), (right, above) = points[place - 1], points[place]
    return below if right == left else below + (above - below) * (score - left) / (right - left)


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin)) if margin >= 0 else math.exp(margin) / (1 + math.exp(margin))


def _softplus(margin: float) -> float:
    return max(margin, 0.0) + math.log1p(math.exp(-abs(margin)))


def _clipped(chance: float) -> float:
    return min(1 - _EDGE, max(_EDGE, chance))
