"""A batch of small photos: `python -m tests.benchmarks.batch [--photos N] [--rounds N]`.

The same photos with one worker, with two threads, with as many as EDI takes by itself (one more than there are
processors), with so many processes, and by itself while the whole batch is killed twice (SIGKILL) and started again;
each is the `edi batch` command in a home of its own. What counts is how many
photos it does in a second, from the first that is done to the last, compared in one run, and that every photo was done
once. One worker is not one core: OpenCV and Prefect's server use the second one too. So the same with everything on one
core is there as well: it says what two cores bring. The whole command, with the start of Prefect's server and of the
workers, stands beside it.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from edi_storage.settings import Settings
from edi_storage.store import open_store
from tests.benchmarks.machine import machine

PALACE: Final = Path(__file__).parents[2] / "flows" / "examples" / "palace.jpg"
SIZE: Final = (480, 320)

#: The least that two threads do on two cores, as a multiple of what one worker does.
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


@dataclass(frozen=True)
class Contender:
    """How a batch is run: workers (0: as many as EDI takes), EDI_TASK_RUNNER, kills at shares of the photos, cores."""

    workers: int = 0
    runner: str = "threads"
    kills: Sequence[float] = ()
    cores: Sequence[int] = ()


CONTENDERS: Final = {
    "one worker": Contender(1),
    "one worker, everything on one core": Contender(1, cores=(0,)),
    "two threads": Contender(2),
    "by itself": Contender(),
    "by itself, in processes": Contender(runner="processes"),
    "by itself, killed twice": Contender(kills=(0.25, 0.6)),
}


@dataclass(frozen=True)
class Speed:
    """Photos in a second: from the first that was done to the last, and of the whole command."""

    steady: float
    whole: float


class Batch:
    """One `edi batch` over the photos of a folder, in a home of its own."""

    def __init__(self, photos: Path, home: Path, contender: Contender) -> None:
        self.home, self._photos, self._contender = home, len(list(photos.iterdir())), contender
        workers = ["--workers", str(contender.workers)] if contender.workers else []
        asked = ["batch", str(photos), "--prompt", "make it warmer", *workers, "--json"]
        cores = ["taskset", "--cpu-list", ",".join(map(str, contender.cores))] if contender.cores else []
        self._command = [*cores, sys.executable, "-m", "flows.cli", *asked]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
        self._environment = {**kept, "EDI_HOME": str(home), "EDI_TASK_RUNNER": contender.runner}

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self) -> Speed:
        """To its end; before, killed each time when such a share of the photos is done, and started again."""
        started = time.perf_counter()
        for share in self._contender.kills:
            process = self._start()
            while self.done() < share * self._photos:
                assert process.poll() is None, "it was done before it could be killed"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = self._start().wait()
        assert code == 0, f"the batch ended with {code}"
        whole = time.perf_counter() - started
        return Speed((self._photos - 1) / self._between(), self._photos / whole)

    def _between(self) -> float:
        """Seconds from the first photo that was done to the last."""
        with open_store(Settings(home=self.home)) as store:
            sessions = store.database.query_history(limit=self._photos)
            ends = [store.database.get_commits(session.session_id)[-1].finished_at for session in sessions]
        return (max(ends) - min(ends)).total_seconds()

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
    found: dict[str, list[Speed]] = {name: [] for name in CONTENDERS}
    wrong: list[str] = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "photos"
            make_photos(photos, asked.photos)
            for number, (name, contender) in enumerate(CONTENDERS.items()):
                batch = Batch(photos, Path(folder) / f"home-{number}", contender)
                found[name].append(batch.run())
                # A line for each: all of them take many minutes.
                print(f"{name}: {found[name][-1].steady:.2f} photos a second", file=sys.stderr, flush=True)
                wrong += [f"{name}: {what}" for what in batch.twice()]
    steady = {name: statistics.median(one.steady for one in speeds) for name, speeds in found.items()}
    whole = {name: statistics.median(one.whole for one in speeds) for name, speeds in found.items()}
    print(f"{machine()}; {asked.photos} photos of {SIZE[0]} x {SIZE[1]}, medians of {asked.rounds} rounds\n")
    print("| `edi batch` | photos a second | times one worker | times one core | with its start | times one worker |")
    print("|---|---:|---:|---:|---:|---:|")
    one, core = "one worker", "one worker, everything on one core"
    for name in found:
        ratios = [steady[name] / steady[one], steady[name] / steady[core]]
        print(
            f"| {name} | {steady[name]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {whole[name]:.2f} | "
            f"{whole[name] / whole[one]:.2f} |"
        )
    print(f"\nBar: two threads at least {LEAST} times one worker. Every photo done once: {'no' if wrong else 'yes'}.")
    print(json.dumps(wrong[:5]) if wrong else "", end="")
    return int(bool(wrong) or steady["two threads"] < LEAST * steady["one worker"])


if __name__ == "__main__":
    sys.exit(main())
