"""The quick crash matrix as tests, one for each row; two rows run at the same time.

Of the faults of Prefect's processes, which take minutes, one is drawn; `python -m tests.crash --quick` has them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.crash.bench import Result, running
from tests.crash.matrix import ROWS
from tests.crash.rows import prefect

#: Printed with what was found; EDI_CRASH_SEED draws the same chances again.
SEED = int(os.environ.get("EDI_CRASH_SEED", "0")) or int.from_bytes(os.urandom(4))


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[Result]]]:
    rows = {name: prefect.one_fault if fault.run is prefect.row else fault.run for name, fault in ROWS.items()}
    with running(rows, full=False, seed=SEED) as futures:
        yield futures


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_lost_and_nothing_doubled(name: str, results: dict[str, Future[Result]]) -> None:
    """`python -m tests.crash --quick --only NAME --seed SEED` draws the same chances."""
    result = results[name].result()
    if result.skipped:
        pytest.skip(f"NOT TESTED: {name}: {result.skipped}")
    assert result.rounds > 0
    assert result.violations == [], f"seed {SEED}"
