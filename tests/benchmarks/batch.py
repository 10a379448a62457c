"""A batch of small photos: `python -m tests.benchmarks.batch [--photos N] [--rounds N]`.

The same photos with one worker, with two, and with two while the whole batch is killed twice (SIGKILL) and started
again; each is the `edi batch` command in a home of its own, its start included. What counts is how many photos it does
in a second, compared in one run, and that every photo was done once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from edi_storage.settings import Settings
from edi_storage.store import open_store
from tests.benchmarks.machine import machine

PALACE: Final = Path(__file__).parents[2] / "flows" / "examples" / "palace.jpg"
SIZE: Final = (480, 320)

#: The least that two workers do on two cores, as a multiple of what one does.
LEAST: Final = 1.7


def make_photos(folder: Path, count: int) -> None:
    """Small photos that are all different."""
    folder.mkdir()
    with Image.open(PALACE) as palace:
        width, height = palace.size
        for number in range(count):
            shift = number % 60
            palace.crop((shift, shift // 2, width - 60 + shift, height - 30 + shift // 2)).resize(SIZE).save(
                folder / f"{number:04}.jpg", quality=85 + number // 60
            )


class Batch:
    """One `edi batch` over the photos of a folder, in a home of its own."""

    def __init__(self, photos: Path, home: Path, workers: int) -> None:
        self.home, self._photos = home, len(list(photos.iterdir()))
        asked = ["batch", str(photos), "--prompt", "make it warmer", "--workers", str(workers), "--json"]
        self._command = [sys.executable, "-m", "flows.cli", *asked]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
        runner = os.environ.get("EDI_TASK_RUNNER", "threads")
        self._environment = {**kept, "EDI_HOME": str(home), "EDI_TASK_RUNNER": runner}

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self) -> float:
        """To its end; returns photos in a second."""
        started = time.perf_counter()
        code = self._start().wait()
        assert code == 0, f"the batch ended with {code}"
        return self._photos / (time.perf_counter() - started)

    def killed(self, shares: Sequence[float]) -> float:
        """Killed each time when such a share of the photos is done, and started again; photos in a second of it all."""
        started = time.perf_counter()
        for share in shares:
            process = self._start()
            while self.done() < share * self._photos:
                assert process.poll() is None, "it was done before it could be killed"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.run()
        return self._photos / (time.perf_counter() - started)

    def done(self) -> int:
        """Photos that are done."""
        if not (self.home / "edi_sessions.db").exists():
            return 0
        with open_store(Settings(home=self.home)) as store:
            return len(store.database.query_history(status="completed", limit=self._photos))

    def twice(self) -> list[str]:
        """What is wrong: photos not done, or stages done more than once."""
        wrong = []
        with open_store(Settings(home=self.home)) as store:
            sessions = store.database.query_history(limit=10 * self._photos)
            photos = [session.image_path for session in sessions]
            if len(set(photos)) != self._photos or len(photos) != self._photos:
                wrong.append(f"{len(photos)} sessions of {len(set(photos))} photos, not {self._photos}")
            for session in sessions:
                keys = [commit.key for commit in store.database.get_commits(session.session_id)]
                if len(set(keys)) != len(keys) or session.status != "completed":
                    wrong.append(f"{session.session_id} is {session.status}, with {len(keys)} boundaries")
        return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batch", description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    contenders: dict[str, Callable[[Path, Path], Batch]] = {
        "one worker": lambda photos, home: Batch(photos, home, 1),
        "two workers": lambda photos, home: Batch(photos, home, 2),
        "two workers, killed twice": lambda photos, home: Batch(photos, home, 2),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    wrong: list[str] = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "photos"
            make_photos(photos, asked.photos)
            for number, (name, contender) in enumerate(contenders.items()):
                batch = contender(photos, Path(folder) / f"home-{number}")
                found[name].append(batch.killed((0.25, 0.6)) if "killed" in name else batch.run())
                wrong += [f"{name}: {what}" for what in batch.twice()]
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    print(f"{machine()}; {asked.photos} photos of {SIZE[0]} x {SIZE[1]}, medians of {asked.rounds} rounds\n")
    print("| `edi batch` | photos a second | times one worker |\n|---|---:|---:|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:.2f} | {speed / medians['one worker']:.2f} |")
    print(f"\nBar: two workers at least {LEAST} times one. Every photo done once: {'no' if wrong else 'yes'}.")
    print(json.dumps(wrong[:5]) if wrong else "", end="")
    return int(bool(wrong) or medians["two workers"] < LEAST * medians["one worker"])


if __name__ == "__main__":
    sys.exit(main())
