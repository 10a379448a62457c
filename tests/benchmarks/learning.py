"""What a thousand new verdicts cost, however many there were before: `python -m tests.benchmarks.learning`.

For a history of 10,000, 100,000 and 1,000,000 events, already folded in: the time of `fold_feedback` for 1,000 more,
and of making a profile from the cells. In a file database, synced as it ships. The fastest of 25 counts, as on a
busy machine the others tell of its other work; the median is printed beside it.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from edi_storage import EDIDatabase
from edi_storage.connection import writing
from edi_storage.learning.profile import document_of
from edi_storage.learning_tables import FeedbackEventRow
from edi_storage.wording import terms_of

HISTORIES = (10_000, 100_000, 1_000_000)
NEW = 1000
#: Milliseconds, and how many times as long with the longest history as with the shortest.
MOST, RATIO = 50.0, 2.0
_TIMES = 25
_LABELS = ("sky", "person", "building", "vegetation", "water", "car", "image", "background")
_TYPES = ("color", "style", "transform")
_PRESETS = tuple(f"{kind}: {arm}" for kind in ("brighten", "vivid", "warmer", "clearer") for arm in ("usual", "soft"))
_WORDS = re.findall(
    r"\w+",
    "sky house tree road river people child face hair car dog cat flower garden beach sunset snow mountain lake boat "
    "warmer brighter darker vivid muted softer sharper dramatic golden stormy cloud window door wall roof street light "
    "shadow colour contrast background foreground portrait evening morning winter summer autumn festival wedding",
)


def events(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Verdicts of made-up sessions."""
    rng = random.Random(seed)
    for number in range(count):
        yield {
            "session_id": f"s-{seed}-{number}",
            "feedback_key": "attempt-1",
            "sign": 1,
            "edit_type": rng.choice(_TYPES),
            "label": rng.choice(_LABELS),
            "feedback_type": rng.choice(("accept", "accept", "partial", "reject")),
            "rating": rng.choice((None, 3, 5)),
            "preset": rng.choice(_PRESETS),
            "strength": rng.choice((0, 3, 3, 2)),
            "score": rng.randint(40, 100),
            "reasons": rng.choice(("", "", ",too strong,", ",colour,edges,")),
            "terms": json.dumps(terms_of(" ".join(rng.sample(_WORDS, 4)))),
        }


def add(database: EDIDatabase, count: int, seed: int) -> None:
    """Put so many events into the log."""
    rows = list(events(count, seed))
    with writing(database.engine) as connection:
        for first in range(0, count, 20_000):
            connection.execute(insert(FeedbackEventRow), rows[first : first + 20_000])


def milliseconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - started)


def measured(path: Path, history: int) -> tuple[list[float], list[float]]:
    """Milliseconds of folding `NEW` events in, and of making a profile."""
    with EDIDatabase(str(path)) as database:
        for first in range(0, history, 100_000):
            add(database, min(100_000, history - first), seed=first + 1)
        while database.fold_feedback().events:
            pass
        folding, making = [], []
        for number in range(_TIMES):
            add(database, NEW, seed=-number - 1)
            folding.append(milliseconds(lambda: expect(database.fold_feedback().events)))
            making.append(milliseconds(lambda: document_of(database.preset_cells())))
    return folding, making


def expect(folded: int) -> None:
    if folded != NEW:
        raise AssertionError(f"{folded} events were folded in, not {NEW}")


def main(histories: Sequence[int] = HISTORIES) -> int:
    """Measure and print; 1 when a thousand events cost too much."""
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for history in histories:
            fold, make = measured(Path(folder) / f"{history}.db", history)
            costs.append(min(fold))
            told = f"{min(fold):.1f} ms (median {statistics.median(fold):.1f}), a profile in {min(make):.1f} ms"
            print(f"{history:>9,} events before: {NEW:,} more in {told}", flush=True)
    ratio = max(costs) / min(costs)
    print(f"largest ratio {ratio:.2f} (at most {RATIO:g}), slowest {max(costs):.1f} ms (under {MOST:g})")
    return 0 if ratio <= RATIO and max(costs) < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
