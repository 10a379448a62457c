"""How much memory the commands take that go through everything: `python -m tests.benchmarks.memory [--sessions N M]`.

Homes with a short and a long history, of sessions as other tools leave them (no boundaries), a verdict on each; then
`edi sessions`, `edi doctor`, `edi learn` and `edi export`, each a process of its own, whose peak the kernel tells when
it has ended. What counts is how many times as much they take with the long history. A million sessions take
about 2 GB of disk; `edi doctor`, which looks at each, takes most of the time: some minutes (see `--commands`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from edi_storage import EDIDatabase
from edi_storage.connection import sqlite_driver
from tests.benchmarks.history import multiply
from tests.benchmarks.learning import add
from tests.benchmarks.machine import machine
from tests.storage.sessions import SESSION

HISTORIES: Final = (10_000, 1_000_000)
#: How many times as much memory with the longest history as with the shortest, at most.
MOST: Final = 1.3
COMMANDS: Final = ("sessions", "doctor", "learn", "export --out shared")


def make(home: Path, count: int) -> None:
    """A home with so many finished sessions that may be shared, and as many verdicts."""
    home.mkdir(mode=0o700)
    path = str(home / "edi_sessions.db")
    with EDIDatabase(path) as database:
        database.save_session({**SESSION.model_dump(), "status": "completed", "consent": "export"})
        for first in range(0, count, 100_000):
            add(database, min(100_000, count - first), seed=first + 1)
    with closing(sqlite_driver().connect(path, isolation_level=None)) as raw:
        raw.execute("BEGIN")
        for table, key in (("sessions", "id"), ("leases", "session_id")):
            multiply(raw, table, key, (), count)
        raw.execute(
            "INSERT INTO user_feedback (session_id, feedback_key, feedback_type, rating, created_at) "
            "SELECT id, 'attempt-1', 'accept', 4, created_at FROM sessions"
        )
        raw.execute("COMMIT")


def megabytes(home: Path, command: str) -> tuple[float, float]:
    """The peak of the memory of a command, and its seconds."""
    started = time.perf_counter()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
    with (home / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *command.replace("shared", str(home / "shared")).split()],
            env={**kept, "EDI_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"edi {command} ended with {status}: {(home / 'said.txt').read_text()[-500:]}")
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2), time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs=2, default=HISTORIES)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    few, many = sorted(asked.sessions)
    if asked.make:
        make(Path(asked.make), few)
        return 0
    print(f"{machine()}\n")
    print(f"| command | {few:,} sessions, MB | {many:,} sessions, MB | ratio | seconds |\n|---|---:|---:|---:|---:|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder) / f"{count}" for count in (few, many)]
        for home in homes:
            # In a process of its own: the kernel counts what this one takes to those that it starts.
            made = ["--make", str(home), "--sessions", home.name, home.name]
            subprocess.run([sys.executable, "-m", "tests.benchmarks.memory", *made], check=True)
        for command in asked.commands:
            (short, _), (long, seconds) = (megabytes(home, command) for home in homes)
            ratios.append(long / short)
            print(f"| `edi {command}` | {short:.0f} | {long:.0f} | {long / short:.2f} | {seconds:.0f} |", flush=True)
    print(f"\nBar: at most {MOST} times.")
    return int(max(ratios) > MOST)


if __name__ == "__main__":
    sys.exit(main())
