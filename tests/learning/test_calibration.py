"""What a score is worth: nothing said too early, and no promise that is not kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edi_storage.learning.calibration import PROMISE, ScoreCount, advise, calibrate
from edi_storage.learning.intervals import wilson
from tests.learning.estimates import promises
from tests.learning.simulated import scored


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"), [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (81, 263, 0.255, 0.366)]
)
def test_wilsons_interval_is_that_of_the_literature(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=6e-4)


def test_nothing_is_known_without_verdicts() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_below_thirty_verdicts_there_is_no_curve() -> None:
    few = calibrate(scored(1, 29)[0])
    assert (few.method, few.rows, few.chance(0.9)) == ("none", 29, None)


def test_below_two_hundred_it_is_platts() -> None:
    assert calibrate(scored(1, 30)[0]).method == "platt"
    assert calibrate(scored(1, 199)[0]).method == "platt"


def test_a_bend_that_no_sigmoid_has_makes_it_isotonic() -> None:
    steps = [ScoreCount(score / 100, 40, 12 if score < 50 else 20 if score < 92 else 39) for score in range(20, 100)]
    curve = calibrate(steps)
    assert curve.method == "isotonic"
    assert curve.chance(0.3) == pytest.approx(0.3, abs=0.05)
    assert curve.chance(0.7) == pytest.approx(0.5, abs=0.05)
    assert curve.chance(0.99) == pytest.approx(0.97, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_is_near_the_truth_and_its_error_near_the_floor(seed: int) -> None:
    counts, chance = scored(seed, 3000)
    curve = calibrate(counts)
    assert curve.ece is not None
    assert curve.noise_floor is not None
    assert curve.ece < 3 * curve.noise_floor
    for score in (0.5, 0.7, 0.9):
        assert curve.chance(score) == pytest.approx(chance(score), abs=0.08)


def test_the_order_of_the_verdicts_and_how_they_are_counted_changes_nothing() -> None:
    counts, _ = scored(7, 400)
    shuffled = random.Random(1).sample(counts, len(counts))
    summed = [
        ScoreCount(score, len(here), sum(count.accepted for count in here))
        for score in {count.score for count in counts}
        if (here := [count for count in counts if count.score == score])
    ]
    assert calibrate(counts) == calibrate(shuffled) == calibrate(summed)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(ScoreCount, st.sampled_from([0.1, 0.5, 0.9]), st.just(60), st.integers(0, 60)), max_size=3))
def test_a_curve_never_falls_and_never_leaves_0_to_1(counts: list[ScoreCount]) -> None:
    chances = [chance for _, chance in calibrate(counts).points]
    assert chances == sorted(chances)
    assert all(0 <= chance <= 1 for chance in chances)


def test_a_threshold_is_recommended_only_with_proof() -> None:
    good = [ScoreCount(score, 40, 38) for score in (0.62, 0.7, 0.75, 0.85)]
    lower = advise(good)
    assert lower is not None
    assert (lower.threshold, lower.n, lower.accepted) == (0.70, 120, 114), "nothing is known of 0.65 to 0.70"
    assert lower.low >= PROMISE
    assert advise([ScoreCount(0.7, 5, 5), ScoreCount(0.85, 10, 10)]) is None, "too few to prove anything"
    assert advise([ScoreCount(0.75, 40, 20), ScoreCount(0.85, 40, 38)]) is None, "it holds, and lower would not"
    higher = advise([ScoreCount(0.82, 60, 10), ScoreCount(0.97, 90, 89)])
    assert higher is not None
    assert higher.threshold == 0.85


def test_a_recommended_threshold_keeps_its_promise() -> None:
    reports, given, broken = promises(range(120))
    assert given > 50
    assert broken <= 0.05 * reports / 2, "of those where nothing may be promised"
