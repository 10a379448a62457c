"""Work on bands of rows, a few at a time: small enough for the processor's cache, with a low peak of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

ROWS: Final = 256
#: numpy and OpenCV let go of the interpreter while they compute; beyond four the memory bus is the limit.
_WORKERS: Final = min(4, os.cpu_count() or 1)


def in_bands(first: int, last: int, work: Callable[[int, int], None]) -> None:
    """Call `work(top, bottom)` for bands that cover rows `first` to `last`; the bands must not depend on each other.

    Raises what `work` raises. The result does not depend on the number of processors.
    """
    edges = [(top, min(top + ROWS, last)) for top in range(first, last, ROWS)]
    if len(edges) < 2 or _WORKERS == 1:
        for top, bottom in edges:
            work(top, bottom)
        return
    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(lambda edge: work(*edge), edges))
