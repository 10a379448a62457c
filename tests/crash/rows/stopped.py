"""SIGSTOP at every step of the protocol, takeover by another process, SIGCONT: the fence keeps the sleeper out.

The taker finishes the session while the sleeper stands still - or, where the sleeper holds the write lock, waits for it
and goes on after it. The sleeper may finish the one transaction it was in; it may not add a boundary out of turn, write
over the taker's rows, or end in anything but one sentence. A taker that has the lease and has not committed yet is
protected by nothing but the fence: not one boundary may come from the sleeper any more.
"""

from __future__ import annotations

import signal
from pathlib import Path

from edi_storage.errors import DatabaseBusyError, NotFoundError
from edi_storage.failpoints import NAMES
from edi_storage.owner import owner_name
from edi_storage.store import open_store
from tests.crash.bench import Bench
from tests.crash.processes import Process
from tests.crash.work import Task, settings_for

SESSIONS = ("s-5",)

#: Inside a transaction: nobody else can write until the sleeper wakes.
_LOCKED = ("commit.after_begin", "commit.after_lease", "commit.after_rows", "commit.after_insert")
LOCKED = frozenset({*_LOCKED, "commit.before_commit", "lease.before_renew", "lease.before_release"})

#: What a process that lost its session may say.
POLITE = {"LeaseLostError", "StaleBoundaryError", "LeaseHeldError"}


def row(bench: Bench) -> None:
    counts = bench.finish(Task(bench.home(), SESSIONS, beat=True)).heard[-1][1]
    for name in NAMES:
        every = range(1, counts[name] + 1, max(1, counts[name] // 12))
        for number in every if bench.full else [bench.rng.randint(1, max(1, counts[name] // 2))]:
            _stop(bench, f"{name}=stop@{number}", name in LOCKED)
            if name not in LOCKED:
                _fence(bench, f"{name}=stop@{number}")
    bench.note(f"{bench.fired} of {bench.result.rounds} processes were stopped where they should be")


def _stop(bench: Bench, trap: str, locked: bool) -> None:
    with bench.round(trap):
        home = bench.home()
        sleeper = bench.start(Task(home, SESSIONS, traps=trap, beat=True))
        if not _asleep(sleeper):
            sleeper.wait()  # it never came by: the autosaver's writes are not counted to the last one
            return
        bench.fired += 1
        taker = bench.start(Task(home, SESSIONS, force=True))
        if locked:
            taker.listen(0.3)
            bench.violation(trap, *(["somebody wrote while the lock was held"] * any(_acks(taker))))
        else:
            # SIGSTOP stops all threads: another one may have been caught inside a transaction, and holds the lock.
            taker.listen(10)
            locked = not taker.gone()
        sleeper.signal(signal.SIGCONT)
        heard = taker.wait()
        sleeper.wait()
        for what, process in (("taker", taker), ("sleeper", sleeper)):
            bench.violation(trap, *_impolite(what, process))
        if heard[-1][0] != "done" and not locked:
            bench.violation(trap, f"the taker ended with {heard[-1]}")
        bench.check(trap, home, SESSIONS, [*bench.acks(sleeper), *bench.acks(taker)])


def _fence(bench: Bench, trap: str) -> None:
    """The taker takes the lease, and computes for long."""
    with bench.round(trap):
        home, [session_id] = bench.home(), SESSIONS
        sleeper = bench.start(Task(home, SESSIONS, traps=trap, beat=True))
        asleep = _asleep(sleeper)
        taken = bench.call(_take, home, session_id) if asleep else None
        sleeper.signal(signal.SIGCONT)
        sleeper.wait()
        if taken is not None:
            bench.fired += 1
            bench.violation(trap, *_impolite("sleeper", sleeper), *bench.call(_added, home, session_id, *taken))
        bench.check(trap, home, SESSIONS, bench.acks(sleeper))


def _take(home: Path, session_id: str) -> tuple[int, int] | None:
    """Take the session over; its last boundary and the new fence. None where there is nothing to take, or no way."""
    with open_store(settings_for(home)) as store:
        try:
            lease = store.database.take_over(session_id, owner_name("taker"), 60)
        except (NotFoundError, DatabaseBusyError):
            return None  # not made yet; or SIGSTOP caught another of its threads inside a transaction
        return store.database.last_seq(session_id), lease.fence


def _added(home: Path, session_id: str, seq: int, fence: int) -> list[str]:
    with open_store(settings_for(home)) as store:
        commits = store.database.get_commits(session_id)
    # A verdict is a person's, given on a session that nobody works on: the taker of this row is gone by then.
    late = [commit for commit in commits if commit.seq > seq and commit.fence < fence and commit.stage != "feedback"]
    return [f"the sleeper added boundary {commit.seq} after it had lost the session" for commit in late]


def _asleep(process: Process) -> bool:
    """Whether the process has stopped; False when it came to its end instead."""
    while not process.stopped(0.02):
        process.listen(0.02)
        if process.gone():
            return False
    return True


def _acks(process: Process) -> list[object]:
    return [message for message in process.heard if message[0] == "ack"]


def _impolite(what: str, process: Process) -> list[str]:
    last = process.heard[-1]
    if last[0] == "done" or (last[0] == "error" and last[1] in POLITE):
        return []
    return [f"the {what} ended with {last}"]
