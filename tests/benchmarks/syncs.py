"""How often each boundary of a session syncs to the disk, as strace sees it.

The process counted marks the boundaries by `kill(itself, 0)`, a call that does nothing and that nobody else makes. Its
first session is not marked: it makes the files, and SQLite's log is then begun. A checkpoint of that log, every
thousand pages, would sync more; two sessions stay below it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.boundary import Contender, boundaries

#: Whatever makes written data safe. A file opened with O_SYNC would not be seen; none of the contenders does that.
_SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
_CALL = re.compile(rf"^\d+ +({'|'.join(_SYNCS)}|kill)\(")


class NotTraceable(Exception):
    """strace is not there, or may not trace here."""


def marked(contender: Contender) -> None:
    """Store two sessions in this process, and mark the boundaries of the second."""
    with tempfile.TemporaryDirectory() as folder:
        store = contender(Path(folder))
        store("s-0", *boundaries("s-0"), lambda: None)
        store("s-1", *boundaries("s-1"), lambda: os.kill(os.getpid(), 0))


def counted(module: str, name: str) -> list[int]:
    """The syncs of each boundary of a session, of all threads, while `python -m MODULE --mark NAME` runs.

    Raises NotTraceable, and CalledProcessError when the process fails.
    """
    refuse_untraceable()
    with tempfile.TemporaryDirectory() as folder:
        calls = Path(folder) / "calls"
        command = [*_strace(calls), sys.executable, "-m", module, "--mark", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return read(calls.read_text())


def refuse_untraceable() -> None:
    """Raise NotTraceable unless strace can follow a process here."""
    if shutil.which("strace") is None:
        raise NotTraceable("strace is not installed")
    tried = subprocess.run([*_strace(Path(os.devnull)), "true"], capture_output=True, text=True)
    if tried.returncode:
        raise NotTraceable(f"strace may not trace a process here: {tried.stderr.strip()}")


def _strace(output: Path) -> list[str]:
    return ["strace", "-f", "-qq", "-o", str(output), "-e", "signal=none", "-e", f"trace={','.join(_SYNCS)},kill"]


def read(calls: str) -> list[int]:
    """The syncs between each mark and the next, in what strace wrote."""
    counts: list[int] = []
    for line in calls.splitlines():
        found = _CALL.match(line)
        if found and found[1] == "kill":
            counts.append(0)
        elif found and counts:
            counts[-1] += 1
    # After the last mark the process ends.
    return counts[:-1]
