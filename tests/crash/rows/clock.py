"""Clocks that are wrong: a day ahead, a day behind, jumping in the middle, through DST, with a leap second twice.

Expiry only decides when somebody may try; whatever the clocks say, the fence decides who may write, and a session
whose owner is gone can be taken at once.
"""

from __future__ import annotations

import signal

from tests.crash.bench import Bench
from tests.crash.clocks import CLOCKS
from tests.crash.work import Task

SESSIONS = ("s-1", "s-3")


def row(bench: Bench) -> None:
    for name in CLOCKS:
        _alone(bench, name)
        _between(bench, name, "")
        _between(bench, "", name)
    for name in ("a day ahead", "a day behind"):
        _standing_still(bench, name)


def _alone(bench: Bench, name: str) -> None:
    """One process, from beginning to end, with this clock: nothing about it matters."""
    with bench.round(name):
        home = bench.home()
        process = bench.finish(Task(home, SESSIONS, clock=name, beat=True))
        if process.heard[-1][0] != "done":
            bench.violation(name, f"ended with {process.heard[-1]}")
        bench.check(name, home, SESSIONS, bench.acks(process))


def _between(bench: Bench, first: str, then: str) -> None:
    """Killed under one clock, resumed under another: nobody has to wait for a lease that ends tomorrow."""
    what = f"killed under {first or 'the right time'}, resumed under {then or 'the right time'}"
    with bench.round(what):
        home = bench.home()
        killed = bench.finish(Task(home, SESSIONS, clock=first, traps="commit.before_commit=kill@13"))
        acks = bench.acks(killed)
        bench.check_acks(what, home, acks)
        resumed = bench.finish(Task(home, SESSIONS, clock=then))
        if resumed.heard[-1][0] != "done":
            bench.violation(what, f"the resume ended with {resumed.heard[-1]}")
        bench.check(what, home, SESSIONS, [*acks, *bench.acks(resumed)])


def _standing_still(bench: Bench, name: str) -> None:
    """An owner with a wrong clock stands still: the session is free for others, and it is kept out when it wakes."""
    what = f"stopped under {name}"
    with bench.round(what):
        home = bench.home()
        sleeper = bench.start(Task(home, SESSIONS[1:], clock=name, traps="commit.after_commit=stop@5"))
        while not sleeper.stopped(0.02):
            sleeper.listen(0.02)
        taker = bench.finish(Task(home, SESSIONS[1:]))
        sleeper.signal(signal.SIGCONT)
        sleeper.wait()
        if taker.heard[-1][0] != "done":
            bench.violation(what, f"the taker ended with {taker.heard[-1]}")
        if sleeper.heard[-1][:2] != ("error", "LeaseLostError"):
            bench.violation(what, f"the sleeper ended with {sleeper.heard[-1]}")
        bench.check(what, home, SESSIONS, [*bench.acks(sleeper), *bench.acks(taker)])
