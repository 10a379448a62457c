"""Several processes on the same sessions: forced takeovers all the time, and two edits of one id at once."""

from __future__ import annotations

import random
import time
import traceback
from dataclasses import replace

from edi_storage.errors import EdiError, LeaseHeldError, LeaseLostError, StaleBoundaryError
from edi_storage.store import Store, open_store
from tests.crash.bench import Bench
from tests.crash.processes import Line, Process
from tests.crash.work import Task, settings_for, work_on

PROCESSES = 6


# --- 6 processes on 100 sessions ---------------------------------------------------------------------


def takeovers(bench: Bench) -> None:
    """All take sessions from each other; every boundary is committed once, by whoever held the fence."""
    sessions = tuple(f"s-{number}" for number in range(100))
    for _ in range(10 if bench.full else 1):
        with bench.round("6 processes"):
            home = bench.home()
            bench.finish(Task(home, ()))  # so that they do not all wait for one migration
            task = Task(home, sessions, lease_seconds=30, autosave_seconds=0.5)
            seeds = [bench.rng.random() for _ in range(PROCESSES)]
            working = [bench.processes.start(scramble, task, seed) for seed in seeds]
            acks = []
            for process in working:
                process.wait(240)
                acks += bench.acks(process)
                if process.heard[-1][0] != "done":
                    bench.violation("6 processes", f"one ended with {process.heard[-1]}")
            _count(bench, working, acks)
            bench.check("6 processes", home, sessions, acks)


def _count(bench: Bench, working: list[Process], acks: list[object]) -> None:
    lost = sum(process.heard[-1][1]["lost"] for process in working if process.heard[-1][0] == "done")
    twice = len(acks) - len(set(acks))
    bench.note(f"{len(acks)} boundaries committed, {lost} leases lost to another process, {twice} done twice")
    if twice:
        bench.violation("6 processes", f"{twice} boundaries were acknowledged by two processes")
    if not lost:
        bench.violation("6 processes", "no process ever lost a lease: nothing was tried")


def scramble(task: Task, seed: float, line: Line) -> None:
    """Take any unfinished session, by force half of the time, for a few boundaries; until all are finished."""
    rng, lost = random.Random(seed), 0
    try:
        with open_store(settings_for(task.home)) as store:
            left = list(task.sessions)
            while left:
                name = rng.choice(left[:PROCESSES])  # near each other, so that they meet
                if _finished(store, name):
                    left.remove(name)
                    continue
                upto = store.database.last_seq(name) + rng.randint(1, 6)
                try:
                    part = replace(task, force=rng.random() < 0.5, upto=upto)
                    work_on(store, part, name, lambda ack: line.say(("ack", ack, time.monotonic())))
                except (LeaseHeldError, LeaseLostError, StaleBoundaryError) as error:
                    lost += not isinstance(error, LeaseHeldError)
        line.say(("done", {"lost": lost}))
    except EdiError as error:
        line.say(("error", type(error).__name__, str(error)))
    except BaseException:  # noqa: BLE001 - the driver judges it
        line.say(("raised", traceback.format_exc()))


def _finished(store: Store, session_id: str) -> bool:
    found = store.database.get_session(session_id)
    return found is not None and found.status == "completed"


# --- Two edits on one id -----------------------------------------------------------------------------


def two_edits(bench: Bench) -> None:
    """Two edits of a new id start at the same moment, in a home without a database: one runs, the other says who."""
    sessions = ("s-3",)
    for _ in range(100 if bench.full else 5):
        with bench.round("two edits"):
            home = bench.home()
            both = [bench.start(Task(home, sessions, autosave_seconds=5)) for _ in range(2)]
            for process in both:
                process.wait()
            acks = [ack for process in both for ack in bench.acks(process)]
            bench.violation("two edits", *_not_one(both), *(["a boundary done twice"] * (len(set(acks)) != len(acks))))
            bench.check("two edits", home, sessions, acks)


def _not_one(both: list[Process]) -> list[str]:
    """One is done, the other was told who holds the session."""
    # Both are done where one came when the other had finished: it had nothing to do.
    winner, loser = sorted(both, key=lambda process: (process.heard[-1][0] != "done", not _has_worked(process)))
    last = loser.heard[-1]
    if winner.heard[-1][0] != "done":
        return [f"neither finished: {winner.heard[-1]}, {last}"]
    if last[0] == "done" and not _has_worked(loser):
        return []
    if last[:2] != ("error", "LeaseHeldError"):
        return [f"the other ended with {last}"]
    return [] if f":{winner.pid}:" in last[2] else [f"the other did not say who: {last[2]}"]


def _has_worked(process: Process) -> bool:
    return any(message[0] == "ack" for message in process.heard)
