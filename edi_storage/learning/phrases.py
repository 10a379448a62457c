"""Which words in prompts go with results that people like more, or less, than such edits usually are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edi_storage.record import Count, Record

#: Before so many rated sessions nothing is said, and never of a term with fewer verdicts or a weaker sign than these.
LEAST_SESSIONS: Final = 300
LEAST_VERDICTS: Final = 20
LEAST_Z: Final = 3.0


@dataclass(frozen=True)
class Tally:
    """Verdicts counted: accept is worth 1, partial 1/2, reject 0."""

    accepted: int = 0
    partial: int = 0
    rejected: int = 0

    @property
    def n(self) -> int:
        return self.accepted + self.partial + self.rejected

    @property
    def reward(self) -> float:
        """The sum of what they are worth."""
        return self.accepted + 0.5 * self.partial

    @property
    def variance(self) -> float:
        """Of one verdict: the mean square less the square of the mean."""
        if not self.n:
            return 0.0
        return (self.accepted + 0.25 * self.partial) / self.n - (self.reward / self.n) ** 2


@dataclass(frozen=True)
class TermCount:
    """The verdicts on edits of one cell whose prompt has the term; and those on all edits of that cell."""

    term: str
    with_term: Tally
    cell: Tally


class Phrase(Record):
    """A term, how it was judged (mean reward 0..1) beside what its cells would give, and the sign's strength z."""

    term: str
    n: Count
    mean: float
    expected: float
    z: float


def phrases(counts: Iterable[TermCount], sessions: int) -> list[Phrase]:
    """The terms that stand out, the strongest first; none before `LEAST_SESSIONS` rated sessions.

    z = (O - E) / sqrt(V + 1): O is the sum of the rewards, E and V are what as many verdicts of the same cells give.
    The 1 keeps few verdicts from standing out; a cell that has no other verdict says nothing.
    """
    if sessions < LEAST_SESSIONS:
        return []
    sums: dict[str, list[float]] = {}
    for count in counts:
        if not count.with_term.n or not count.cell.n:
            continue
        total = sums.setdefault(count.term, [0.0] * 4)
        n = count.with_term.n
        added = (n, count.with_term.reward, n * count.cell.reward / count.cell.n, n * count.cell.variance)
        sums[count.term] = [old + new for old, new in zip(total, added, strict=True)]
    found = [
        Phrase(term=term, n=int(n), mean=observed / n, expected=expected / n, z=z)
        for term, (n, observed, expected, variance) in sums.items()
        if n >= LEAST_VERDICTS and abs(z := (observed - expected) / math.sqrt(variance + 1)) > LEAST_Z
    ]
    return sorted(found, key=lambda phrase: (-abs(phrase.z), phrase.term))
