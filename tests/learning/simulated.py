"""Small worlds whose truth is known, to hold what is estimated against."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from edi_storage.learning.calibration import ScoreCount
from edi_storage.learning.uplift import HOLDOUT, Judged, Uplift, learned_part, uplift

ARMS = ("default", "airy", "film", "matte", "noir")
#: From which the chances of a choice follow.
_DRAWS = 15
CELLS = [(edit_type, label) for edit_type in ("style", "color", "remove") for label in ("sky", "person", "car", "tree")]


def scored(seed: int, n: int, *, temptingly: bool = False) -> tuple[list[ScoreCount], Callable[[float], float]]:
    """Scores with verdicts, and the true chance of an accept by score.

    `temptingly`: a chance that hardly rises and stays just below 0.80, so that every recommendation is wrong.
    """
    random_ = random.Random(seed)
    slope, shift = random_.uniform(2, 14), random_.uniform(-9, 2)
    if temptingly:
        slope, shift = random_.uniform(0, 0.2), 1.12

    def chance(score: float) -> float:
        return 1 / (1 + math.exp(-(slope * score + shift)))

    scores = [round(random_.betavariate(5, 2), 2) for _ in range(n)]
    return [ScoreCount(score, 1, int(random_.random() < chance(score))) for score in scores], chance


def judged(seed: int, n: int, *, effect: float) -> Iterator[tuple[Judged, float]]:
    """Choices of somebody who learns as they go, with what the learned part truly changes at each.

    `effect` is how far the arms lie apart (standard deviation of their chances); 0: learning cannot help.
    """
    random_ = random.Random(seed)
    chances = {cell: {arm: min(0.95, max(0.05, random_.gauss(0.5, effect))) for arm in ARMS} for cell in CELLS}
    known = {cell: {arm: [1, 1] for arm in ARMS} for cell in CELLS}
    for _ in range(n):
        cell = random_.choice(CELLS)
        wins = dict.fromkeys(ARMS, 0)
        for _ in range(_DRAWS):
            draws = {arm: random_.betavariate(*known[cell][arm]) for arm in ARMS}
            wins[max(draws, key=lambda arm: draws[arm])] += 1
        learned = {arm: 0.95 * wins[arm] / _DRAWS + 0.01 for arm in ARMS}
        holdout = random_.random() < HOLDOUT
        arm = "default" if holdout else random_.choices(ARMS, [learned[arm] for arm in ARMS])[0]
        accepted = random_.random() < chances[cell][arm]
        known[cell][arm][0 if accepted else 1] += 1
        logged = {arm: (1 - HOLDOUT) * learned[arm] + HOLDOUT * (arm == "default") for arm in ARMS}
        truth = sum(learned[arm] * chances[cell][arm] for arm in ARMS) - chances[cell]["default"]
        yield Judged(*cell, arm, "default", logged, holdout, float(accepted)), truth


def estimated(seed: int, n: int, *, effect: float) -> tuple[Uplift, float]:
    """The estimate in such a world, and the truth."""
    choices, truths = zip(*judged(seed, n, effect=effect), strict=True)
    for choice in choices:
        assert math.isclose(sum(learned_part(choice.probabilities, "default").values()), 1)
    return uplift(choices), sum(truths) / n
