"""strace makes the k-th write, fsync, rename, openat ... of a process fail, or kills it there: k = 1, 2, 3 ...

No name of a failpoint is involved: these are the calls that SQLite and Python really make, the database's own included.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.bench import Bench, Skipped
from tests.crash.processes import Process, brief
from tests.crash.work import Task

SESSIONS = ("s-5",)

#: The calls that change what is on the disk, and those that open it.
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "openat", "unlink", "ftruncate", "mkdir")
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC")


def row(bench: Bench) -> None:
    need_strace(bench)
    used = bench.home()
    bench.finish(Task(used, ("s-0",)))
    counts = _counts(bench, used)
    cases = [(call, fault, k) for call in CALLS for fault in FAULTS for k in range(1, counts[call] + 1)]
    if not bench.full:
        cases = bench.rng.sample(cases, 40)
    elif len(cases) > _FULL:
        cases = bench.rng.sample(cases, _FULL)
    for case in cases:
        _fail(bench, used, *case)
    bench.note(f"{bench.fired} of {bench.result.rounds} calls were faulted; an undisturbed run makes {_listed(counts)}")


#: More would take longer than the whole suite may.
_FULL = 700


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {call}" for call, count in counts.items() if count)


def need_strace(bench: Bench) -> None:
    if shutil.which("strace") is None:
        raise Skipped("strace is not installed")
    process = bench.ready(Task(bench.home(), ()))
    with traced(process, "-e", "trace=fsync") as attached:
        process.line.say("go")
        process.wait()
    if not attached:
        raise Skipped("strace may not attach to a process here")


@contextmanager
def traced(process: Process, *options: str) -> Iterator[bool]:
    """strace at work on a process and its threads; yields whether it got hold of it."""
    tracer = subprocess.Popen(["strace", "-f", "-qq", *options, "-p", str(process.pid)], stderr=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    until = time.monotonic() + 10
    attached = False
    while not attached and time.monotonic() < until and tracer.poll() is None:
        attached = "TracerPid:\t0\n" not in status.read_text()
        time.sleep(0.002)
    try:
        yield attached
    finally:
        tracer.terminate()
        tracer.wait(10)


def _counts(bench: Bench, used: Path) -> dict[str, int]:
    """How often an undisturbed run makes each call."""
    output = bench.folder / "calls"
    process = bench.ready(Task(bench.home(like=used), SESSIONS))
    with traced(process, "-o", str(output), "-e", f"trace={','.join(CALLS)}"):
        process.line.say("go")
        process.wait()
    lines = output.read_text().splitlines()
    return {call: sum(f" {call}(" in line for line in lines) for call in CALLS}


def _fail(bench: Bench, used: Path, call: str, fault: str, k: int) -> None:
    what = f"{call}:{fault}:when={k}"
    with bench.round(what):
        home = bench.home(like=used)
        process = bench.ready(Task(home, SESSIONS))
        # The line to here is a socket and not a file: sendto is not among the calls.
        with traced(process, "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={what}"):
            process.line.say("go")
            process.wait()
        last = process.heard[-1]
        bench.fired += last[0] != "done"
        if last[0] == "raised":
            bench.violation(what, brief(last[1]))
        elif last[0] == "error" and "\n" in last[2]:
            bench.violation(what, f"more than one sentence: {last[2]}")
        bench.check(what, home, SESSIONS, bench.acks(process))
