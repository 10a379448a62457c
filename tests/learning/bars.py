"""What learning has to reach, in worlds whose truth is known: `python -m tests.learning.bars [--worlds 40]`.

The choice, the profile and the counting are the shipped ones (see `worlds`). Acceptance is that of the arm that was
chosen, which the world knows, so that no luck of the verdicts is in the figures. Prints a table and exits with 1 when a
bar is missed. The 40 worlds from 0 on are the fixed ones; others tell whether a rule was fitted to them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.learning import worlds
from tests.learning.estimates import covered, false_words, promises
from tests.learning.worlds import Tastes, World

SESSIONS = 2000


@dataclass(frozen=True)
class Bar:
    """One figure, and whether it is what was promised."""

    name: str
    promise: str
    figure: str
    is_met: bool


@dataclass(frozen=True)
class Runs:
    """Some worlds of one kind, lived through. `gains` over the default in points of acceptance: worlds x sessions."""

    gains: NDArray[np.float64]
    means: dict[str, float]
    least_probability: float
    largest_error: float

    def mean(self, first: int, end: int) -> float:
        """Mean gain of the sessions `first` to before `end`."""
        return float(self.gains[:, first:end].mean())

    def spread(self, first: int, end: int) -> float:
        """Standard error of that mean, from world to world."""
        by_world = self.gains[:, first:end].mean(axis=1)
        return float(by_world.std(ddof=1) / np.sqrt(len(by_world))) if len(by_world) > 1 else 0.0


def live(tastes: Tastes, seeds: Iterable[int], sessions: int = SESSIONS) -> Runs:
    """Live through these worlds."""
    gains, means, least, error = [], [], 1.0, 0.0
    for seed in seeds:
        world = World(seed, tastes)
        means.append(world.means())
        lived = list(world.run(sessions))
        gains.append([100 * (session.acceptance - session.default_acceptance) for session in lived])
        least = min(least, *(min(session.chosen.probabilities.values()) for session in lived))
        error = max(error, *(abs(sum(session.chosen.probabilities.values()) - 1) for session in lived))
    average = {name: 100 * float(np.mean([mean[name] for mean in means])) for name in means[0]}
    return Runs(np.array(gains), average, least, error)


def core_bars(seeds: Sequence[int]) -> list[Bar]:
    """What the choice has to reach."""
    usual = live(worlds.USUAL, seeds)
    null = live(worlds.NULL, seeds)
    weak = live(worlds.WEAK, seeds)
    good = live(worlds.GOOD_DEFAULT, seeds)
    last = (SESSIONS - 200, SESSIONS)
    means = usual.means
    _say(
        f"the usual worlds: no learning {means['default']:.1f} %, one best preset {means['global best']:.1f} %, "
        f"learned (last 200) {means['default'] + usual.mean(*last):.1f} %, oracle {means['oracle']:.1f} %"
    )
    lived = (usual, null, weak, good)
    least = min(runs.least_probability for runs in lived)
    error = max(runs.largest_error for runs in lived)
    largest_null = max(abs(null.mean(first, first + 200)) for first in range(0, SESSIONS, 200))
    return [
        _gain("usual worlds, sessions 400-600", usual, (400, 600), 8.0),
        _gain("usual worlds, last 200 of 2,000", usual, last, 11.0),
        Bar("null worlds, any 200 sessions", "|gain| <= 0.5", f"{largest_null:.2f}", largest_null <= 0.5),
        _gain("weak worlds, sessions 400-600", weak, (400, 600), 2.0),
        _gain("weak worlds, last 200", weak, last, 2.0),
        _gain("good default, first 100", good, (0, 100), -3.5),
        _gain("good default, last 200", good, last, 4.0),
        Bar("probabilities sum to 1", "error <= 1e-9", f"{error:.1e}", error <= 1e-9),
        Bar("each probability", ">= 0.9 %", f"{100 * least:.2f} %", least >= 0.009),
    ]


def _gain(name: str, runs: Runs, where: tuple[int, int], least: float) -> Bar:
    gain = runs.mean(*where)
    return Bar(name, f">= {least:+.1f} points", f"{gain:+.2f} (se {runs.spread(*where):.2f})", gain >= least)


def report_bars(seeds: Sequence[int]) -> list[Bar]:
    """What the report says: its intervals hold the truth, its promises are kept, and it names no word for nothing."""
    covers = [
        covered(world, world.run(sessions))
        for tastes in (worlds.USUAL, worlds.NULL, worlds.WEAK)
        for world in (World(seed, tastes) for seed in seeds)
        for sessions in (200, 600)
    ]
    share = covers.count(True) / len(covers)
    reports, given, broken = promises(seeds)
    words = sum(false_words(World(seed)) for seed in seeds) / len(seeds)
    return [
        Bar("doubly robust 95 % intervals", "cover >= 90 %", f"{100 * share:.1f} % of {len(covers)}", share >= 0.9),
        Bar(
            "promise of a threshold broken",
            "<= 5 % of reports",
            f"{100 * broken / reports:.1f} % ({broken} of {given} given, {reports} reports)",
            broken <= 0.05 * reports,
        ),
        Bar("words named for nothing, at 3,000", "<= 0.2 a report", f"{words:.2f}", words <= 0.2),
    ]


#: Every part of the promises: given the seeds of the worlds, its bars.
PARTS: list[Callable[[Sequence[int]], list[Bar]]] = [core_bars, report_bars]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.worlds)
    started = time.monotonic()
    bars = [bar for part in PARTS for bar in part(seeds)]
    for bar in bars:
        _say(f"{'ok  ' if bar.is_met else 'MISS'}  {bar.name:<34} {bar.promise:<18} {bar.figure}")
    _say(
        f"{sum(bar.is_met for bar in bars)} of {len(bars)} met, {len(seeds)} worlds, {time.monotonic() - started:.0f} s"
    )
    return 0 if all(bar.is_met for bar in bars) else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
