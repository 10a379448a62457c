"""How tests wait: for something to be true, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

#: Seconds that anything may take on a machine that has other things to do. What comes sooner is not kept waiting.
PATIENCE = 240.0


def wait_until(
    what: Callable[[], Found],
    why: str = "what was waited for",
    seconds: float = PATIENCE,
    instead: Callable[[], object] = lambda: "",
) -> Found:
    """What `what` gives, once that is true; polls. `seconds` only where the time itself was promised to people.

    instead: tells, where it did not happen, what has.
    """
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"{why} did not happen within {seconds} s {instead()}"
        time.sleep(0.1)
    return found


def is_alive(process: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
