"""The database file is flipped, cut, emptied, a folder, a page of HTML, from a newer version, without its -wal.

Whatever it is: `doctor` says so in one sentence or finds nothing wrong because nothing is; `doctor --repair` sets the
file aside (its bytes stay) and brings the sessions back as far as their checkpoints reach; after a resume everything
that was stored is what an undisturbed run stores. A newer database is refused and left as it is.
"""

from __future__ import annotations

import hashlib
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from edi_storage.connection import SCHEMA_REVISION
from tests.crash import checks, damage
from tests.crash.bench import Bench, only_for_a_file
from tests.crash.work import Ack, Task

SESSIONS = ("s-1", "s-3", "s-4")
FILE = "edi_sessions.db"

#: How many rounds of each in a full run; once each in a quick one.
KINDS: dict[str, tuple[damage.Damage, int]] = {
    "bit flip": (damage.flip, 60),
    "a letter changed": (damage.letter, 60),
    "page of zeros": (damage.zeros, 30),
    "cut": (damage.truncate, 30),
    "emptied": (damage.empty, 5),
    "deleted": (damage.delete, 5),
    "a folder": (damage.folder, 5),
    "HTML": (damage.html, 5),
}


def row(bench: Bench) -> None:
    only_for_a_file()
    whole = bench.home()
    bench.finish(Task(whole, ("s-1", "s-3")))
    bench.finish(Task(whole, ("s-4",), upto=7))
    for kind, (do, times) in KINDS.items():
        for _ in range(times if bench.full else 1):
            _harm(bench, whole, kind, do)
    for _ in range(20 if bench.full else 1):
        _newer(bench, whole)
        _without_wal(bench)
    bench.note(f"{bench.fired} of {bench.result.rounds} damages were named; the others changed nothing")


def _harm(bench: Bench, whole: Path, kind: str, do: damage.Damage) -> None:
    with bench.round(kind):
        home = bench.home(like=whole)
        file = home / FILE
        what = f"{kind}: {do(file, bench.rng)}"
        harmed = file.read_bytes() if file.is_file() else None
        _look(bench, what, home)
        bench.violation(what, *_badly_repaired(bench, home))
        bench.resume(what, home, SESSIONS)
        bench.compare(what, home, SESSIONS, commits=False)
        bench.violation(what, *(f"left over: {name}" for name in bench.call(checks.left_over, home)))
        if harmed is not None and not _is_kept(home, harmed):
            bench.violation(what, "the damaged file was deleted")


def _look(bench: Bench, what: str, home: Path) -> None:
    found: Any = bench.call(checks.find, home)
    bench.fired += bool(found)
    if isinstance(found, str) and "\n" in found:
        bench.violation(what, f"more than one sentence: {found}")


def _badly_repaired(bench: Bench, home: Path) -> list[str]:
    done, again = bench.call(checks.repair, home), bench.call(checks.find, home)
    if isinstance(done, str) or isinstance(again, str):
        return [f"the repair ended with: {done}" if isinstance(done, str) else f"after the repair: {again}"]
    wrong = [f"not repaired: {finding['message']}: {finding['fix']}" for finding in done if not finding["repaired"]]
    return wrong + [f"after the repair: {finding['message']}" for finding in again]


def _is_kept(home: Path, harmed: bytes) -> bool:
    """Set aside, or still in use because nothing was wrong with it."""
    if (home / FILE).is_file() and not list(home.glob(f"{FILE}.damaged-*")):
        return True
    return any(path.is_file() and path.read_bytes() == harmed for path in home.glob(f"{FILE}.damaged-*"))


def _newer(bench: Bench, whole: Path) -> None:
    """A database of a later version is refused, in one sentence that says so; not one bit of it changes."""
    what = "newer"
    with bench.round(what):
        home = bench.home(like=whole)
        file = home / FILE
        with closing(sqlite3.connect(file)) as raw:
            raw.execute(f"PRAGMA user_version={SCHEMA_REVISION + bench.rng.randint(1, 9)}")
        before = hashlib.sha256(file.read_bytes()).digest()
        found = bench.call(checks.find, home)
        bench.fired += bool(found)
        if not isinstance(found, str) or "newer version of EDI" not in found:
            bench.violation(what, f"doctor said {found}")
        last = bench.finish(Task(home, SESSIONS)).heard[-1]
        if last[:2] != ("error", "DatabaseTooNewError"):
            bench.violation(what, f"an edit ended with {last}")
        if hashlib.sha256(file.read_bytes()).digest() != before:
            bench.violation(what, "the newer file was changed")


def _without_wal(bench: Bench) -> None:
    """A -wal that is deleted takes the newest commits with it, and SQLite says nothing: the checkpoints know them."""
    what = "-wal deleted"
    with bench.round(what):
        home = bench.home()
        bench.finish(Task(home, SESSIONS[:1]))
        acks = _killed_with_wal(bench, home)
        for name in (f"{FILE}-wal", f"{FILE}-shm"):
            (home / name).unlink(missing_ok=True)
        found = bench.call(checks.find, home)
        bench.fired += bool(found)
        if not found and acks:
            bench.violation(what, f"doctor did not notice that {len(acks)} boundaries are gone")
        bench.violation(what, *_badly_repaired(bench, home))
        bench.check(what, home, SESSIONS, _exported(acks), commits=False)


def _killed_with_wal(bench: Bench, home: Path) -> list[Ack]:
    """A process killed half-way leaves its -wal behind."""
    process = bench.start(Task(home, SESSIONS[1:], traps="commit.after_begin=kill@6"))
    process.wait()
    assert process.gone(1)
    process.signal(signal.SIGKILL)
    return bench.acks(process)


def _exported(acks: list[Ack]) -> list[Ack]:
    """Those whose checkpoint was certainly written: the next one was begun after it."""
    return acks[:-1]
