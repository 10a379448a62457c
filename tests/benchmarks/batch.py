"""A batch of small photos: `python -m tests.benchmarks.batch [--photos N] [--parts N]`.

The same photos with one worker, with two threads, with as many as EDI takes by itself (one more than there are
processors), and with so many processes, each in a home of its own. The photos lie in some folders, and each folder is
an `edi batch`: with these all take turns, in one order and in the other, for a machine may be twice as fast as it was
two minutes ago, and one turn says little. Last, all folders as one batch that is killed twice (SIGKILL) and started
again.

What counts is how many photos are done in a second, from when each worker has done one of a folder to the last,
compared in one run, and that every photo was done once. One worker is not one core: OpenCV and Prefect's server use
the second one too. So the same with everything on one core is there as well: it says what two cores bring. The whole
commands, each with the start of Prefect's server and of the workers, stand beside it.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from edi_storage.settings import Settings
from edi_storage.store import open_store
from flows.engines.bands import processors
from tests.benchmarks.machine import machine

PALACE: Final = Path(__file__).parents[2] / "flows" / "examples" / "palace.jpg"
SIZE: Final = (480, 320)

#: The least that two threads do on two cores, as a multiple of what one worker does.
LEAST: Final = 1.7


def make_photos(folder: Path, count: int, parts: int) -> list[Path]:
    """Small photos that are all different, in so many folders."""
    folders = [folder / str(part) for part in range(parts)]
    for made in folders:
        made.mkdir(parents=True)
    with Image.open(PALACE) as palace:
        width, height = palace.size
        for number in range(count):
            shift = number % 60
            palace.crop((shift, shift // 2, width - 60 + shift, height - 30 + shift // 2)).resize(SIZE).save(
                folders[number * parts // count] / f"{number:04}.jpg", quality=85 + number // 60
            )
    return folders


@dataclass(frozen=True)
class Contender:
    """How a batch is run: workers (0: as many as EDI takes), EDI_TASK_RUNNER, kills at shares of the photos, cores."""

    workers: int = 0
    runner: str = "threads"
    kills: Sequence[float] = ()
    cores: Sequence[int] = ()

    @property
    def at_once(self) -> int:
        """How many photos are worked on at the same time, where the memory is enough for so many."""
        return self.workers or processors() + 1


CONTENDERS: Final = {
    "one worker": Contender(1),
    "one worker, everything on one core": Contender(1, cores=(0,)),
    "two threads": Contender(2),
    "by itself": Contender(),
    "by itself, in processes": Contender(runner="processes"),
    "by itself, killed twice": Contender(kills=(0.25, 0.6)),
}


@dataclass(frozen=True)
class Turn:
    """Photos in a second: from when each worker had done one to the last, and of the whole command."""

    steady: float
    whole: float


class Batch:
    """The `edi batch` commands of a contender, in a home of its own."""

    def __init__(self, home: Path, contender: Contender) -> None:
        self._home, self._contender = home, contender
        self.turns: list[Turn] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDI_", "PREFECT_"))}
        self._environment = {**kept, "EDI_HOME": str(home), "EDI_TASK_RUNNER": contender.runner}

    @property
    def steady(self) -> float:
        """Photos in a second, from when each worker had done one of a turn to its last: the median of the turns."""
        return statistics.median(turn.steady for turn in self.turns)

    @property
    def whole(self) -> float:
        """Photos in a second of a whole command: the median of the turns."""
        return statistics.median(turn.whole for turn in self.turns)

    def run(self, folders: Sequence[Path]) -> None:
        """To its end; before, killed each time when such a share of the photos is done, and started again."""
        count = sum(len(list(folder.iterdir())) for folder in folders)
        started = time.perf_counter()
        for share in self._contender.kills:
            process = self._start(folders)
            while self._done(count) < share * count:
                assert process.poll() is None, "it was done before it could be killed"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = self._start(folders).wait()
        assert code == 0, f"the batch ended with {code}"
        whole = time.perf_counter() - started
        self.turns.append(Turn(self._together(count), count / whole))

    def _start(self, folders: Sequence[Path]) -> subprocess.Popen[bytes]:
        workers = ["--workers", str(self._contender.workers)] if self._contender.workers else []
        asked = ["batch", *map(str, folders), "--prompt", "make it warmer", *workers, "--json"]
        cores = ["taskset", "--cpu-list", ",".join(map(str, self._contender.cores))] if self._contender.cores else []
        return subprocess.Popen(
            [*cores, sys.executable, "-m", "flows.cli", *asked],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _together(self, count: int) -> float:
        """Photos in a second of the last turn, from when each worker had done one to the last.

        Workers that begin together end their first photos together: from the first one, two workers would seem to do
        one photo more than they do in that time.
        """
        with open_store(Settings(home=self._home)) as store:
            sessions = store.database.query_history(limit=count)
            ends = sorted(store.database.get_commits(session.session_id)[-1].finished_at for session in sessions)
        # With more processors than a folder has photos, from when half of them are done.
        workers = min(self._contender.at_once, count // 2)
        return (count - workers) / (ends[-1] - ends[workers - 1]).total_seconds()

    def _done(self, count: int) -> int:
        """Photos that are done."""
        if not (self._home / "edi_sessions.db").exists():
            return 0
        with open_store(Settings(home=self._home)) as store:
            return len(store.database.query_history(status="completed", limit=count))

    def twice(self, count: int) -> list[str]:
        """What is wrong: of so many photos some that are not done, or stages done more than once."""
        wrong = []
        with open_store(Settings(home=self._home)) as store:
            sessions = store.database.query_history(limit=10 * count)
            photos = [session.image_path for session in sessions]
            if len(set(photos)) != count or len(photos) != count:
                wrong.append(f"{len(photos)} sessions of {len(set(photos))} photos, not {count}")
            for session in sessions:
                keys = [commit.key for commit in store.database.get_commits(session.session_id)]
                if len(set(keys)) != len(keys) or session.status != "completed":
                    wrong.append(f"{session.session_id} is {session.status}, with {len(keys)} boundaries")
        return wrong


def turns(folders: Sequence[Path]) -> Iterator[tuple[str, Sequence[Path]]]:
    """Who is to do which folders, one after the other: in turns, and at last who does them all at once."""
    names = [name for name, contender in CONTENDERS.items() if not contender.kills]
    for number, folder in enumerate(folders):
        yield from ((name, [folder]) for name in (names if number % 2 == 0 else reversed(names)))
    yield from ((name, folders) for name, contender in CONTENDERS.items() if contender.kills)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.batch", description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--parts", type=int, default=10, help="folders in which the photos lie")
    asked = parser.parse_args()
    if not 0 < 2 * asked.parts <= asked.photos:
        parser.error("each folder needs two photos: more --photos, or fewer --parts (one at least)")
    with tempfile.TemporaryDirectory() as folder:
        folders = make_photos(Path(folder) / "photos", asked.photos, asked.parts)
        batches = {name: Batch(Path(folder) / f"home-{n}", one) for n, (name, one) in enumerate(CONTENDERS.items())}
        for name, some in turns(folders):
            batches[name].run(some)
            # A line for each: all of them take many minutes.
            print(f"{name}: {batches[name].steady:.2f} photos a second so far", file=sys.stderr, flush=True)
        wrong = [f"{name}: {what}" for name, batch in batches.items() for what in batch.twice(asked.photos)]
    print(f"{machine()}; {asked.photos} photos of {SIZE[0]} x {SIZE[1]}, medians of {asked.parts} turns\n")
    print("| `edi batch` | photos a second | times one worker | times one core | with its start | times one worker |")
    print("|---|---:|---:|---:|---:|---:|")
    one, core = batches["one worker"], batches["one worker, everything on one core"]
    for name, batch in batches.items():
        ratios = [batch.steady / one.steady, batch.steady / core.steady]
        print(
            f"| {name} | {batch.steady:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {batch.whole:.2f} | "
            f"{batch.whole / one.whole:.2f} |"
        )
    pairs = [some.steady / alone.steady for some, alone in zip(batches["two threads"].turns, one.turns, strict=True)]
    print(f"\nIn single turns two threads did {min(pairs):.2f} to {max(pairs):.2f} times what one worker did.")
    print(f"Bar: two threads at least {LEAST} times one worker. Every photo done once: {'no' if wrong else 'yes'}.")
    print(json.dumps(wrong[:5]) if wrong else "", end="")
    return int(bool(wrong) or batches["two threads"].steady < LEAST * one.steady)


if __name__ == "__main__":
    sys.exit(main())
