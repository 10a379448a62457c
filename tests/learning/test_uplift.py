"""Whether learning helps: proven where it does, never where it does not."""

from __future__ import annotations

from edi_storage.learning.uplift import Judged, uplift
from tests.learning.simulated import estimated


def _alike(n: int, *, holdout: bool, reward: float) -> list[Judged]:
    return [Judged("style", "sky", "a", "a", {"a": 0.55, "b": 0.45}, holdout, reward)] * n


def test_nothing_is_said_too_early() -> None:
    assert uplift([]).proof == "too early"
    early = uplift([*_alike(34, holdout=False, reward=1.0), *_alike(5, holdout=True, reward=0.0)])
    assert (early.proof, early.estimate) == ("too early", None)
    assert (early.learned.n, early.holdout.n) == (34, 5)
    assert uplift(_alike(400, holdout=False, reward=1.0)).proof == "too early", "nothing to compare with"


def test_the_interval_covers_the_truth() -> None:
    covered = 0
    for seed in range(50):
        estimate, truth = estimated(seed, 400, effect=0.15)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 45


def test_help_is_proven_in_the_end_and_nothing_is_proven_where_nothing_is() -> None:
    helped = [estimated(seed, 2000, effect=0.25)[0].proof for seed in range(4)]
    assert helped.count("helps") >= 3
    in_vain = [estimated(seed, 400, effect=0.0)[0].proof for seed in range(40)]
    assert in_vain.count("not yet proven") >= 36


def test_help_that_is_harm_is_called_so() -> None:
    worse = [Judged("style", "sky", "b", "a", {"a": 0.19, "b": 0.81}, False, 0.0)] * 150
    better = [Judged("style", "sky", "a", "a", {"a": 0.19, "b": 0.81}, True, 1.0)] * 40
    mixed = [judgement for pair in zip(worse, better * 4, strict=False) for judgement in pair]
    assert uplift(mixed).proof == "harms"
