"""A checkpoint or a live state file is flipped, cut, emptied, deleted or from a newer version.

With its database, a session loses nothing: the checkpoint is written again. Without it, the session comes back from the
newest whole checkpoint, what came later is done again, and the end is the same. What is newer is left untouched; what
is damaged is set aside, never deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash import checks, damage, homes
from tests.crash.bench import Bench
from tests.crash.work import Task

#: None of them knows the path of its home, so that homes can be copied; s-4 stays half-way.
FINISHED, HALF_WAY = ("s-1", "s-3"), ("s-4",)
SESSIONS = (*FINISHED, *HALF_WAY)

KINDS: dict[str, damage.Damage] = {
    "bit flip": damage.flip,
    "cut": damage.truncate,
    "emptied": damage.empty,
    "deleted": damage.delete,
    "newer": damage.newer_state,
}


@dataclass(frozen=True)
class Case:
    kind: str
    target: str  # "newest", "any" or "live"
    without_database: bool

    def __str__(self) -> str:
        return f"{self.target} {self.kind}{', no database' if self.without_database else ''}"


def row(bench: Bench) -> None:
    whole = bench.home()
    bench.finish(Task(whole, FINISHED))
    bench.finish(Task(whole, HALF_WAY, upto=7))
    cases = [
        Case(kind, target, gone) for kind in KINDS for target in ("newest", "any", "live") for gone in (False, True)
    ]
    for _ in range(7 if bench.full else 1):
        for case in cases:
            _harm(bench, whole, case)
    bench.note(f"{bench.fired} of {bench.result.rounds} damages were named by doctor; the others changed nothing")


def _harm(bench: Bench, whole: Path, case: Case) -> None:
    with bench.round(str(case)):
        home = bench.home(like=whole)
        path = _target(bench, home, case.target)
        did = KINDS[case.kind](path, bench.rng)
        what = f"{case}: {path.name} {did}"
        if case.without_database:
            homes.lose_database(home)
        harmed = path.read_bytes() if path.exists() else None
        _look(bench, what, home, path)
        _repair(bench, what, home, case)
        bench.resume(what, home, SESSIONS)
        bench.compare(what, home, SESSIONS, commits=not case.without_database)
        if harmed is not None:
            _is_kept(bench, what, path, harmed)
        bench.violation(what, *(f"left over: {name}" for name in bench.call(checks.left_over, home)))


def _target(bench: Bench, home: Path, target: str) -> Path:
    session_id = bench.rng.choice(SESSIONS)
    if target == "live":
        return home / "sessions" / f"{session_id}.json"
    files = sorted((home / "sessions" / session_id / "checkpoints").glob("*.json"))
    return files[-1] if target == "newest" else bench.rng.choice(files)


def _look(bench: Bench, what: str, home: Path, path: Path) -> None:
    """Doctor names the file, or the boundary that its checkpoint is missing for."""
    found: Any = bench.call(checks.find, home)
    if isinstance(found, str):
        bench.violation(what, f"doctor gave up: {found}")
        return
    bench.fired += bool(found)


def _repair(bench: Bench, what: str, home: Path, case: Case) -> None:
    """Doctor repairs everything but a newer file; a second look finds only that."""
    done, again = bench.call(checks.repair, home), bench.call(checks.find, home)
    if isinstance(done, str) or isinstance(again, str):
        bench.violation(what, f"doctor gave up: {done if isinstance(done, str) else again}")
        return
    for finding in done:
        if not finding["repaired"] and not _too_new(finding, case):
            bench.violation(what, f"not repaired: {finding['message']}: {finding['fix']}")
    bench.violation(what, *(f"after the repair: {f['message']}" for f in again if not _too_new(f, case)))


def _too_new(finding: dict[str, Any], case: Case) -> bool:
    """What only an upgrade of EDI can put right: the newer file, and what would have to be written in its place."""
    text = f"{finding['message']} {finding['fix']}"
    return case.kind == "newer" and ("newer version" in text or "its newest checkpoint is" in text)


def _is_kept(bench: Bench, what: str, path: Path, harmed: bytes) -> None:
    """The damaged bytes are still somewhere: nothing is deleted on suspicion. A flip that changed nothing may go."""
    places = [path, *path.parent.glob(f"{path.name}.set-aside-*")]
    kept = any(place.exists() and place.read_bytes() == harmed for place in places)
    if not kept and bench.call(_is_damaged, path.name, harmed):
        bench.violation(what, "the damaged file was deleted or written over")


def _is_damaged(name: str, data: bytes) -> bool:
    """Whether these bytes could not have been read."""
    from edi_storage.errors import EdiError
    from edi_storage.state import digest, parse_state

    try:
        document = parse_state(data)
        return name[:6].isdigit() and digest(document) != document["checkpoint"]["sha256"]
    except (EdiError, KeyError, TypeError):
        return True
