"""The disk is full, at each of 20 levels from nothing to almost enough, then room is made.

One sentence that says so, nothing acknowledged lost, and the session goes on as soon as there is room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.bench import Bench, Skipped
from tests.crash.work import Task

LEVELS = 20
#: Bigger than anything a round writes.
DISK = 4 << 20
FINISHED, SESSIONS = ("s-3",), ("s-3", "s-4")


def row(bench: Bench) -> None:
    needs = _need(bench)
    levels = range(LEVELS) if bench.full else (1, LEVELS // 2, LEVELS - 3)
    for level in levels:
        for used in (False, True):
            _fill(bench, level, used, needs[used])
    bench.note(f"{bench.fired} of {bench.result.rounds} runs met a full disk")


def _need(bench: Bench) -> dict[bool, int]:
    """How many bytes a run takes in a new home, and in one that is in use."""
    home = bench.home()
    bench.finish(Task(home, FINISHED))
    before = _bytes(home)
    bench.finish(Task(home, SESSIONS))
    return {False: _bytes(home), True: _bytes(home) - before}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def _fill(bench: Bench, level: int, used: bool, need: int) -> None:
    what = f"level {level} in a {'used' if used else 'new'} home"
    with bench.round(what), _disk(bench.folder / "disk") as disk:
        home = bench.settle(disk / f"home-{bench.result.rounds}")
        if used:
            bench.finish(Task(home, FINISHED))
        ballast = disk / "ballast"
        _leave(ballast, need * level // LEVELS)
        process = bench.finish(Task(home, SESSIONS))
        last = process.heard[-1]
        bench.fired += last[0] != "done"
        if last[0] == "raised" or (last[0] == "error" and last[1] != "StorageFullError"):
            bench.violation(what, f"ended with {last}")
        again = bench.finish(Task(home, SESSIONS)).heard[-1]
        if again[0] == "raised":
            bench.violation(what, f"the second try ended with {again}")
        ballast.unlink()
        bench.check(what, home, SESSIONS, bench.acks(process))


def _leave(ballast: Path, free: int) -> None:
    """Fill the disk but for so many bytes."""
    disk = os.statvfs(ballast.parent)
    room = disk.f_bavail * disk.f_frsize - free
    with ballast.open("wb") as file:
        for _ in range(max(0, room) // 4096):
            file.write(bytes(4096))


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    """A small file system in memory."""
    if os.geteuid() != 0:
        raise Skipped("needs root, to mount a small disk")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Skipped("mounting a small disk is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder)
