"""Words that stand out: those that truly do, and hardly ever others."""

from __future__ import annotations

import random

from edi_storage.learning.phrases import Tally, TermCount, phrases

CELL = Tally(accepted=300, partial=0, rejected=200)


def test_a_word_that_people_dislike_is_found_and_put_beside_what_was_expected() -> None:
    counts = [TermCount("neon", Tally(5, 0, 35), CELL), TermCount("sunset", Tally(25, 0, 15), CELL)]
    (found,) = phrases(counts, sessions=500)
    assert (found.term, found.n, found.mean, round(found.expected, 3)) == ("neon", 40, 0.125, 0.6)
    assert found.z < -3


def test_it_is_the_cell_that_is_disliked_and_not_the_word() -> None:
    disliked = Tally(accepted=30, rejected=270)
    assert phrases([TermCount("car", Tally(6, 0, 54), disliked)], sessions=500) == []


def test_too_early_and_too_seldom_is_nothing() -> None:
    strong = TermCount("neon", Tally(0, 0, 40), CELL)
    assert phrases([strong], sessions=299) == []
    assert phrases([TermCount("neon", Tally(0, 0, 19), CELL)], sessions=500) == []


def test_words_that_mean_nothing_are_hardly_ever_shown() -> None:
    shown = 0
    for seed in range(40):
        random_ = random.Random(seed)
        terms = [f"word{number}" for number in range(60)]
        sums: dict[tuple[str, int], list[int]] = {}
        cells = {cell: [0, 0] for cell in range(12)}
        for _ in range(3000):
            cell = random_.randrange(12)
            accepted = random_.random() < 0.2 + cell / 20
            cells[cell][not accepted] += 1
            for term in random_.sample(terms, 4):
                sums.setdefault((term, cell), [0, 0])[not accepted] += 1
        counts = [
            TermCount(term, Tally(yes, 0, no), Tally(cells[cell][0], 0, cells[cell][1]))
            for (term, cell), (yes, no) in sums.items()
        ]
        shown += len(phrases(counts, sessions=3000))
    assert shown / 40 <= 0.2
