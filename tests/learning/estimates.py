"""Whether what the report says is true, in worlds where the truth is known: its intervals, its promises, its words."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from edi_storage.learning.calibration import PROMISE, advise
from edi_storage.learning.phrases import Tally, TermCount, phrases
from edi_storage.learning.uplift import Judged, learned_part, uplift
from tests.learning.simulated import scored
from tests.learning.worlds import DEFAULT, EDIT_TYPES, LABELS, PARTIAL, PRESETS, WRONG, Session, World

#: Words in prompts, how many of them in one, and sessions of a report.
_WORDS = 80
_IN_A_PROMPT = 4
_SESSIONS = 3000


def covered(world: World, sessions: Iterable[Session]) -> bool | None:
    """Whether the interval of the uplift holds the truth of these sessions; None while none is given."""
    choices, truth = [], 0.0
    for session in sessions:
        if session.profile_version is None:
            continue
        chosen = session.chosen
        choices.append(
            Judged(
                session.edit_type,
                session.label,
                chosen.arm,
                DEFAULT,
                chosen.probabilities,
                chosen.holdout,
                session.reward,
            )
        )
        truth += _true_uplift(world, session)
    estimate = uplift(choices)
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low <= truth / len(choices) <= estimate.high


def _true_uplift(world: World, session: Session) -> float:
    rewards = world.acceptance[EDIT_TYPES.index(session.edit_type), LABELS.index(session.label)]
    learned = learned_part(session.chosen.probabilities, DEFAULT)
    with_learning = sum(chance * _reward(float(rewards[PRESETS.index(arm)])) for arm, chance in learned.items())
    return with_learning - _reward(float(rewards[PRESETS.index(DEFAULT)]))


def _reward(acceptance: float) -> float:
    """What is said on average of what is liked with this chance."""
    likes = acceptance * (1 - WRONG) + (1 - acceptance) * WRONG
    return likes + (1 - likes) * PARTIAL / 2


def promises(seeds: Sequence[int], sizes: Sequence[int] = (200, 500, 1500)) -> tuple[int, int, int]:
    """Reports, recommended thresholds, and how many of these do not keep their promise.

    Every second world is one where none would: acceptance is just below the promise everywhere.
    """
    given = broken = 0
    for seed in seeds:
        tempting = bool(seed % 2)
        scores = [count.score for count in scored(seed + 100_000, 4000)[0]]
        for size in sizes:
            counts, chance = scored(seed, size, temptingly=tempting)
            if advice := advise(counts):
                passed = [score for score in scores if score >= advice.threshold]
                given += 1
                broken += sum(map(chance, passed)) / len(passed) < PROMISE
    return len(seeds) * len(sizes), given, broken


def false_words(world: World, sessions: int = _SESSIONS) -> int:
    """How many words a report names although none of them means anything; each label has words of its own."""
    random_ = random.Random(world.seed)
    by_term: dict[tuple[str, tuple[str, str, str]], dict[str, int]] = {}
    by_cell: dict[tuple[str, str, str], dict[str, int]] = {}
    for session in world.run(sessions):
        cell = (session.edit_type, session.label, session.chosen.arm)
        _count(by_cell.setdefault(cell, {}), session.verdict)
        first = LABELS.index(session.label) * 5
        for word in {min(_WORDS - 1, first + int(random_.expovariate(0.08))) for _ in range(_IN_A_PROMPT)}:
            _count(by_term.setdefault((f"word {word}", cell), {}), session.verdict)
    counts = [TermCount(term, _tally(said), _tally(by_cell[cell])) for (term, cell), said in by_term.items()]
    return len(phrases(counts, sessions))


def _count(counts: dict[str, int], verdict: str) -> None:
    counts[verdict] = counts.get(verdict, 0) + 1


def _tally(said: dict[str, int]) -> Tally:
    return Tally(said.get("accept", 0), said.get("partial", 0), said.get("reject", 0))
