"""A power cut: the shutdown ioctl of ext4 and XFS on a loop mount drops everything that was not synced.

Whatever was acknowledged before the cut is there after the next mount, files included, and the session goes on.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.crash.bench import Bench, Skipped
from tests.crash.processes import brief
from tests.crash.work import Ack, Task

SESSIONS = ("s-1", "s-5", "s-0")

#: XFS_IOC_GOINGDOWN, which ext4 knows too, and its flag for "flush nothing".
_GOINGDOWN, _NO_FLUSH = 0x8004587D, 2

#: How each is made, and the least size it may have.
KINDS = {"ext4": (["mkfs.ext4", "-q"], 64 << 20), "xfs": (["mkfs.xfs", "-q"], 320 << 20)}


def row(bench: Bench) -> None:
    kinds = [kind for kind, (make, _) in KINDS.items() if shutil.which(make[0])]
    if os.geteuid() != 0 or not kinds:
        raise Skipped("needs root and mkfs.ext4 or mkfs.xfs")
    cuts = (500 if bench.full else 10) // len(kinds)
    for kind in kinds:
        with _made(bench.folder / kind, kind) as disk:
            _series(bench, disk, cuts)
    if len(kinds) < len(KINDS):
        bench.note(f"only on {kinds[0]}: mkfs of the other is not installed")
    bench.note(f"{bench.fired} of {bench.result.rounds} cuts came while a process was at work")


def _series(bench: Bench, disk: Disk, cuts: int) -> None:
    """Homes that lose their power again and again until their sessions are finished."""
    left = cuts
    while left:
        home = bench.settle(disk.mount / f"home-{left}")
        acks: list[Ack] = []
        for _ in range(min(left, bench.rng.randint(1, 4))):
            left -= 1
            acks += _cut(bench, disk, home, acks)
        bench.check(f"{disk.kind}, cut {left}", home, SESSIONS, acks)


def _cut(bench: Bench, disk: Disk, home: Path, before: list[Ack]) -> list[Ack]:
    what = f"{disk.kind}, cut {bench.result.rounds}"
    with bench.round(what):
        process = bench.start(Task(home, SESSIONS))
        process.listen(bench.rng.uniform(0, 0.5))
        moment = disk.cut()
        process.listen(1)  # it meets an I/O error now
        process.signal(signal.SIGKILL)
        process.wait()
        bench.fired += process.heard[-1][0] != "done"
        if process.heard[-1][0] == "raised":
            bench.violation(what, brief(process.heard[-1][1]))
        # A process does not outlive a power cut. Here it does, and ext4 (6.18) may tell it that an fsync which was
        # under way has succeeded: what it acknowledges after the moment of the cut does not count.
        acks = bench.acks(process, until=moment)
        disk.power_on()
        bench.check_acks(what, home, [*before, *acks])
        return acks
    return []


@dataclass(frozen=True)
class Disk:
    """A file system in a file, mounted."""

    kind: str
    image: Path
    mount: Path

    def cut(self) -> float:
        """Lose all that is not on the disk, at once; returns when, by the monotonic clock."""
        handle = os.open(self.mount, os.O_RDONLY)
        try:
            moment = time.monotonic()
            fcntl.ioctl(handle, _GOINGDOWN, _NO_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(handle)
        return moment

    def power_on(self) -> None:
        self.unmount()
        self.mount_again()

    def mount_again(self) -> None:
        command = ["mount", "-o", "loop", str(self.image), str(self.mount)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise Skipped(f"mounting a loop device is not allowed here: {done.stderr.decode().strip()}")

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.mount)], check=True)


@contextmanager
def _made(folder: Path, kind: str) -> Iterator[Disk]:
    folder.mkdir()
    make, size = KINDS[kind]
    disk = Disk(kind, folder / "image", folder / "mount")
    disk.mount.mkdir()
    with disk.image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(disk.image)], check=True, capture_output=True)
    disk.mount_again()
    try:
        yield disk
    finally:
        disk.unmount()
