"""The quick crash matrix as tests, one for each row."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.crash.bench import run_row
from tests.crash.matrix import ROWS
from tests.crash.processes import Processes, processes

# Not part of every test run yet: its rows still find faults in the store that are open (see the tracker).
pytestmark = pytest.mark.skipif(
    "EDI_CRASH" not in os.environ, reason="NOT RUN: set EDI_CRASH=1, or run python -m tests.crash --quick"
)


@pytest.fixture(scope="module")
def running() -> Iterator[Processes]:
    with processes() as started:
        yield started


@pytest.mark.parametrize("name", ROWS)
def test_nothing_is_lost_and_nothing_doubled(name: str, running: Processes) -> None:
    """The seed is in the message; `python -m tests.crash --quick --only NAME --seed SEED` draws the same chances."""
    seed = int(os.environ.get("EDI_CRASH_SEED", "0")) or int.from_bytes(os.urandom(4))
    result = run_row(name, ROWS[name], running, full=False, seed=seed)
    if result.skipped:
        pytest.skip(f"NOT TESTED: {name}: {result.skipped}")
    assert result.rounds > 0
    assert result.violations == [], f"seed {seed}"
