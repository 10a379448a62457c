"""What a stage boundary asks of the disk."""

from __future__ import annotations

import pytest

from tests.benchmarks import syncs


def test_a_boundary_is_durable_with_exactly_one_sync() -> None:
    try:
        counts = syncs.counted("tests.benchmarks.peers", "edi")
    except syncs.NotTraceable as reason:
        pytest.skip(f"NOT TESTED: how often a boundary syncs ({reason})")
    assert counts == [1] * 10


def test_syncs_are_counted_between_the_marks_and_in_all_threads() -> None:
    calls = """\
10 fdatasync(3)                      = 0
10 kill(10, 0)                       = 0
10 fdatasync(3 <unfinished ...>
11 fsync(4)                          = 0
10 <... fdatasync resumed>)          = 0
10 kill(10, 0)                       = 0
10 kill(10, 0)                       = 0
10 fsync(3)                          = 0
10 +++ exited with 0 +++
"""
    assert syncs.read(calls) == [2, 0]
