"""Every failpoint of the commit protocol, with a kill, a full disk and an I/O error at it.

A kill must cost nothing that was acknowledged. An error must reach the caller as one sentence of EDI's, and the session
must be resumable at once: in the same home, by a fresh process, without anybody's help.
"""

from __future__ import annotations

from collections import Counter

from edi_storage.failpoints import NAMES
from tests.crash.bench import Bench
from tests.crash.processes import Process
from tests.crash.work import Task

#: Gets a verdict and writes its result to a file, so that it comes by every failpoint.
SESSIONS = ("s-5",)
ACTIONS = ("kill", "ENOSPC", "EIO")

#: Outside the code that turns the operating system's errors into sentences, and so raised as they are.
BARE = ("export.", "deliver.")


def row(bench: Bench) -> None:
    counts = _counts(bench)
    missing = set(NAMES) - set(counts)
    bench.violation("an undisturbed run", *(f"never came by {name}" for name in missing))
    for name in NAMES:
        for action in ACTIONS:
            for number in _times(bench, counts[name]):
                _fail(bench, name, action, number)
    bench.note(f"{bench.result.rounds} failpoints set, {bench.fired} of them were reached")


def _counts(bench: Bench) -> Counter[str]:
    """How often an undisturbed run comes by each failpoint."""
    process = bench.finish(Task(bench.home(), SESSIONS, beat=True))
    return Counter(process.heard[-1][1])


def _times(bench: Bench, count: int) -> list[int]:
    """At which of the times the failpoint fails: once in the quick run, else spread over up to a dozen."""
    if not bench.full:
        return [bench.rng.randint(1, max(1, count))]
    step = max(1, count // 12)
    return list(range(1, count + 1, step))


def _fail(bench: Bench, name: str, action: str, number: int) -> None:
    what = f"{name}={action}@{number}"
    with bench.round(what):
        home = bench.home()
        process = bench.finish(Task(home, SESSIONS, traps=what, beat=True))
        bench.fired += process.heard[-1][0] != "done" or process.heard[-1][1].get(name, 0) >= number
        bench.violation(what, *_wrong_end(process, name, action))
        bench.check(what, home, SESSIONS, bench.acks(process))


def _wrong_end(process: Process, name: str, action: str) -> list[str]:
    """Whether the process ended as it should: killed, in good order, or with one sentence."""
    last = process.heard[-1]
    if action == "kill":
        return [] if last[0] in ("ack", "ready", "done") else [f"ended with {last[1:]}"]
    if last[0] == "raised" and not name.startswith(BARE):
        return [f"a traceback: {last[1]}"]
    if last[0] == "error" and action == "ENOSPC" and "full" not in last[2]:
        return [f"does not say that the disk is full: {last[2]}"]
    return [] if last[0] != "error" or "\n" not in last[2] else [f"more than one sentence: {last[2]}"]
