"""What every row of the matrix works with: processes, a seed, counters, and the checks in their order."""

from __future__ import annotations

import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import checks, homes, work
from tests.crash.checks import HARMLESS, Snapshot
from tests.crash.processes import Process, Processes, processes
from tests.crash.work import Ack, Task


class Skipped(Exception):
    """This row cannot be run here; the message says what is missing."""


def only_for_a_file() -> None:
    """Skip the row where the database is no SQLite file."""
    if homes.SERVER:
        raise Skipped("only for a SQLite file")


def only_for_a_server() -> None:
    """Skip the row where the database is a SQLite file."""
    if not homes.SERVER:
        raise Skipped("only for PostgreSQL")


@dataclass
class Result:
    """One line of the matrix."""

    name: str
    rounds: int = 0
    acknowledged: int = 0
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""


@dataclass
class Bench:
    """The tools of one row. `full` asks for the long numbers; all chance comes from `rng`."""

    processes: Processes
    folder: Path
    full: bool
    rng: random.Random
    result: Result
    #: How many of the faults happened; a fault set for a moment that never came proves nothing.
    fired: int = 0
    _references: dict[str, dict[str, Snapshot]] = field(default_factory=dict)
    _homes: list[Path] = field(default_factory=list)

    def home(self, like: Path | None = None) -> Path:
        """A home that nobody has used, or a copy of one that nobody uses."""
        return self.settle(self.folder / f"home-{len(self._homes) + 1}", like)

    def settle(self, home: Path, like: Path | None = None) -> Path:
        """A home like that, at a place of its own."""
        homes.place(home, like)
        self._homes.append(home)
        return home

    def leave(self) -> None:
        """Remove what is left of all homes."""
        for home in self._homes:
            homes.remove(home)

    @contextmanager
    def round(self, what: str) -> Iterator[None]:
        """One fault and what follows. A hang or a traceback in it is a violation, not the end of the row."""
        self.result.rounds += 1
        try:
            yield
        except Skipped:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the other rounds are still to be run
            self.violation(what, f"{type(error).__name__}: {error}")

    def violation(self, what: str, *found: str) -> None:
        self.result.violations += [f"{what}: {text}" for text in found]

    def note(self, text: str) -> None:
        """Something worth knowing that is no violation."""
        self.result.notes.append(text)

    # --- Processes ---

    def ready(self, task: Task) -> Process:
        """A process that works on `task` as soon as it is told "go"."""
        process = self.processes.start(work.run, task)
        assert process.hear() == ("ready",)
        return process

    def start(self, task: Task) -> Process:
        """A process that works on `task`, from now on."""
        process = self.ready(task)
        process.line.say("go")
        return process

    def acks(self, process: Process, until: float = math.inf) -> list[Ack]:
        """The boundaries that a process has acknowledged (until a time of the monotonic clock); counts them."""
        found = [message[1] for message in process.heard if message[0] == "ack" and message[2] <= until]
        self.result.acknowledged += len(found)
        return found

    def finish(self, task: Task) -> Process:
        """Run `task` in a process to its end."""
        process = self.start(task)
        process.wait()
        return process

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = 60) -> Any:
        """`function(*arguments)` in a process of its own."""
        return self.processes.call(function, *arguments, seconds=seconds)

    # --- Checks ---

    def check_acks(self, what: str, home: Path, acks: Sequence[Ack]) -> None:
        """No acknowledged boundary is missing: asked before anything repairs or resumes."""
        if acks:
            self.violation(what, *self.call(checks.lost, home, acks))

    def resume(self, what: str, home: Path, sessions: tuple[str, ...]) -> list[Ack]:
        """Resume in a fresh process; every session must come to its end without an error."""
        process = self.processes.start(work.resume, home, sessions)
        process.hear()
        if process.heard[-1][0] == "found":
            process.hear()
            process.line.say("go")
        process.wait()
        last = process.heard[-1]
        if last[0] != "done":
            self.violation(what, f"resume ended with {last[1:]}")
        return self.acks(process)

    def reference(self, sessions: Sequence[str], *, commits: bool = True) -> dict[str, Snapshot]:
        """What an uninterrupted run stores of these sessions."""
        known = self._references.setdefault(f"{commits}", {})
        missing = tuple(session_id for session_id in sessions if session_id not in known)
        if missing:
            home = self.home()
            last = self.finish(Task(home, missing)).heard[-1]
            assert last[0] == "done", last
            known.update(self.call(checks.snapshot, home, missing, commits))
            homes.remove(home)
        return {session_id: known[session_id] for session_id in sessions}

    def check(
        self,
        what: str,
        home: Path,
        sessions: tuple[str, ...],
        acks: Sequence[Ack] = (),
        *,
        harmless: Collection[str] = HARMLESS,
        commits: bool = True,
        keep: bool = False,
    ) -> None:
        """The whole list: acknowledged boundaries, resume, doctor, no doubles, rows of an uninterrupted run."""
        self.check_acks(what, home, acks)
        acks = [*acks, *self.resume(what, home, sessions)]
        wrong, stored = self.call(checks.verdict, home, sessions, acks if commits else (), harmless, commits)
        self.violation(what, *wrong, *checks.differences(stored, self.reference(sessions, commits=commits)))
        if not keep:
            homes.remove(home)

    def compare(self, what: str, home: Path, sessions: tuple[str, ...], *, commits: bool = True) -> None:
        """No natural key twice, and everything stored is what an uninterrupted run stores."""
        self.violation(what, *self.call(checks.doubled, home))
        stored = self.call(checks.snapshot, home, sessions, commits)
        self.violation(what, *checks.differences(stored, self.reference(sessions, commits=commits)))


# --- Running rows ------------------------------------------------------------------------------------

Row = Callable[[Bench], None]


def run_row(name: str, row: Row, processes: Processes, *, full: bool, seed: int) -> Result:
    """Run one row of the matrix; it draws the same chances again for the same seed."""
    result = Result(name)
    folder = Path(tempfile.mkdtemp(prefix="edi-crash-"))
    started = time.monotonic()
    bench = Bench(processes, folder, full, random.Random(f"{seed} {name}"), result)
    try:
        row(bench)
    except Skipped as reason:
        result.skipped = str(reason)
    except Exception as error:  # noqa: BLE001 - one row that fails must not keep the others from being seen
        result.violations.append(f"the row itself ended with {type(error).__name__}: {error}")
    finally:
        result.seconds = time.monotonic() - started
        bench.leave()
        shutil.rmtree(folder, ignore_errors=True)
    return result


@contextmanager
def running(
    rows: Mapping[str, Row], *, full: bool, seed: int, jobs: int | None = None
) -> Iterator[dict[str, Future[Result]]]:
    """Run rows, as many at the same time as there are jobs: what will become of each.

    By default one job more than there are cores, because most rows wait most of the time, but three at most.
    """

    def run(name: str, row: Row) -> Result:
        with processes() as own:
            return run_row(name, row, own, full=full, seed=seed)

    with ThreadPoolExecutor(jobs or min(3, 1 + (os.cpu_count() or 1))) as pool:
        # The last rows take longest: begun last, they would leave a core without work at the end.
        futures = {name: pool.submit(run, name, row) for name, row in reversed(rows.items())}
        yield {name: futures[name] for name in rows}


def table(results: Sequence[Result]) -> str:
    """The matrix as markdown."""
    lines = ["| fault | rounds | violations | acknowledged | seconds |", "|---|---:|---:|---:|---:|"]
    for result in results:
        seconds = f"{result.seconds:.0f}"
        lines.append(f"| {result.name} | {' | '.join([*counts(result), seconds])} |")
    return "\n".join(lines)


def counts(result: Result) -> list[str]:
    """Rounds, violations and acknowledged boundaries as they are printed."""
    if result.skipped:
        return [f"NOT TESTED: {result.skipped}", "", ""]
    return [f"{number:,}" for number in (result.rounds, len(result.violations), result.acknowledged)]
