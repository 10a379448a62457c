"""The bars of `tests.learning.bars` in short: fewer worlds and sessions, and looser, as there is more luck in them."""

from __future__ import annotations

from tests.benchmarks import learning
from tests.learning import worlds
from tests.learning.bars import live
from tests.learning.worlds import DEFAULT, World


def test_learning_helps_where_tastes_differ() -> None:
    runs = live(worlds.USUAL, range(5), sessions=600)
    assert runs.mean(400, 600) > 4
    assert runs.largest_error <= 1e-9
    assert runs.least_probability >= 0.009


def test_learning_costs_little_where_the_default_is_the_best() -> None:
    assert live(worlds.GOOD_DEFAULT, range(5), sessions=100).mean(0, 100) >= -3.5


def test_where_nothing_is_better_nothing_is_gained_or_lost() -> None:
    assert abs(live(worlds.NULL, range(2), sessions=200).mean(0, 200)) < 1e-9


def test_without_learning_everybody_gets_the_default() -> None:
    sessions = list(World(1).run(200, learning=False))
    assert {session.chosen.arm for session in sessions} == {DEFAULT}
    assert {session.profile_version for session in sessions} == {None}


def test_a_world_is_the_same_whenever_it_is_lived_through() -> None:
    first, second = (list(World(3).run(150)) for _ in range(2))
    assert first == second


def test_the_worlds_are_as_hard_as_was_said() -> None:
    """No learning accepts about 52 %, the one best preset about 60 %, an oracle about 73 %."""
    means = [World(seed).means() for seed in range(40)]
    average = {name: 100 * sum(mean[name] for mean in means) / len(means) for name in means[0]}
    assert abs(average["default"] - 52.5) < 1.5
    assert abs(average["global best"] - 60) < 1.5
    assert abs(average["oracle"] - 73) < 1.5


def test_a_thousand_verdicts_cost_the_same_after_ten_times_as_many() -> None:
    """A shared machine may be slow at one moment, so in short only the growth is looked at; the benchmark does both."""
    short, long = (min(cost) for cost in costs(2_000, 20_000))
    assert long < 4 * short


def costs(*histories: int) -> list[list[float]]:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return [learning.measured(Path(folder) / f"{history}.db", history)[0] for history in histories]
