"""Work on bands of rows, a few at a time: small enough for the processor's cache, with a low peak of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

ROWS: Final = 256


def _workers() -> int:
    """How many bands at a time: the processors this process may use (fewer than the machine has, in a container).

    numpy and OpenCV let go of the interpreter while they compute; beyond four the memory bus is the limit.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, allowed)


def in_bands(first: int, last: int, work: Callable[[int, int], None]) -> None:
    """Call `work(top, bottom)` for bands that cover rows `first` to `last`; the bands must not depend on each other.

    Raises what `work` raises. The result does not depend on the number of processors.
    """
    edges = [(top, min(top + ROWS, last)) for top in range(first, last, ROWS)]
    workers = _workers()
    if len(edges) < 2 or workers == 1:
        for top, bottom in edges:
            work(top, bottom)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda edge: work(*edge), edges))
