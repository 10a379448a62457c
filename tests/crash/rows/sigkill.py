"""SIGKILL at a random moment: whatever was acknowledged is there, and the next process goes on from it.

A home is killed again and again, also while its database is being made and while a resume is at work, until every
session in it is finished. The moments are spread over the time that a run without kills takes.
"""

from __future__ import annotations

import signal
import time

from tests.crash.bench import Bench
from tests.crash.work import Ack, Task

SESSIONS = ("s-1", "s-2")


def row(bench: Bench) -> None:
    seconds = _seconds_of_a_run(bench)
    kills = 1000 if bench.full else 60
    while bench.result.rounds < kills:
        _life(bench, seconds, kills)


def _seconds_of_a_run(bench: Bench) -> float:
    started = time.monotonic()
    bench.reference(SESSIONS)
    return time.monotonic() - started


def _life(bench: Bench, seconds: float, kills: int) -> None:
    """One home, from nothing to finished."""
    home = bench.home()
    acks: list[Ack] = []
    what = f"home {bench.result.rounds}"
    # Not more than a few kills each, or slow progress would keep the rounds in the same early stages.
    for _ in range(bench.rng.randint(1, 8)):
        if bench.result.rounds >= kills:
            break
        with bench.round(what):
            process = bench.start(Task(home, SESSIONS))
            process.listen(bench.rng.uniform(0, seconds * 0.7))
            process.signal(signal.SIGKILL)
            process.wait()
            acks += bench.acks(process)
            bench.check_acks(what, home, acks)
            if process.heard[-1][0] == "done":
                break
            if process.heard[-1][0] in ("error", "raised"):
                bench.violation(what, f"a process failed before it was killed: {process.heard[-1][1:]}")
    bench.check(what, home, SESSIONS, acks)
