"""What gives way first when there is far more of everything: `python -m tests.benchmarks.scale [--workers N ...]`.

First what one session takes, in rows and bytes by table, and what ten million of them would. Then workers that share
one database, each with a connection of its own, as worker processes have: they pause for as long as a stage takes and
commit its boundary, one session after the other. The pictures are not made, since they meet no other worker. With
EDI_TEST_DATABASE_URL set (`python -m tests.postgres -- python -m tests.benchmarks.scale`) the workers use that server.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edi_storage import EDIDatabase
from edi_storage.checkpoints import SessionStateManager
from edi_storage.connection import sqlite_driver, sqlite_url
from edi_storage.errors import EdiError
from edi_storage.files import FileStore
from edi_storage.recovery import export_checkpoints
from edi_storage.store import Store
from tests.benchmarks.boundary import boundaries, session
from tests.benchmarks.machine import machine
from tests.postgres import URL

WORKERS: Final = (1, 10, 100, 300, 1000)
#: What the table of sizes is told for.
MANY: Final = 10_000_000
#: Threads of one process: more would wait for Python rather than for the database.
_TOGETHER: Final = 50


# --- What a session takes ----------------------------------------------------------------------------


def sizes(folder: Path, count: int) -> None:
    """Print the rows and bytes of a session, measured on `count` of them."""
    files = FileStore(str(folder / "sessions"))
    path = folder / "edi.db"
    with EDIDatabase(str(path)) as database:
        store = Store(database, SessionStateManager(store=files), files)
        for number in range(count):
            name = f"s-{number}"
            lease = database.begin_session(session(name), "bench:1:x", 600)
            for commit in boundaries(name)[0]:
                database.commit_stage(lease, commit, 600)
            database.release(lease)
            export_checkpoints(store, name)
    print("| table, with its indexes | rows a session | KB a session | GB for ten million |\n|---|---:|---:|---:|")
    total = 0.0
    for table, rows, size in _tables(path):
        if rows >= count:
            print(f"| {table} | {rows / count:.0f} | {size / count / 1e3:.1f} | {size / count * MANY / 1e9:,.0f} |")
        total += size / count
    kept = sum(file.stat().st_size for file in (folder / "sessions").rglob("*.json")) / count
    print(f"| all of the database | | {total / 1e3:.1f} | {total * MANY / 1e9:,.0f} |")
    print(f"| checkpoints and state (files) | | {kept / 1e3:.1f} | {kept * MANY / 1e9:,.0f} |\n")


def _tables(path: Path) -> list[tuple[str, int, int]]:
    """Each table with its rows and the bytes that the file is smaller without them, the largest first."""
    with closing(sqlite_driver().connect(str(path), isolation_level=None)) as raw:
        names = [name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {name: raw.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
        raw.execute("PRAGMA foreign_keys=OFF")
        sizes, before = {}, _packed(raw)
        for name in filter(rows.get, names):
            raw.execute(f'DELETE FROM "{name}"')
            sizes[name], before = before - (after := _packed(raw)), after
    return [(name, rows[name], size) for name, size in sorted(sizes.items(), key=lambda item: -item[1])]


def _packed(raw: Any) -> int:
    """The bytes of the database without the room that deleted rows have left."""
    raw.execute("VACUUM")
    return int(raw.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0])


# --- Workers that share a database -------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """So many workers for so many seconds, each with stages that take `pause` seconds on average."""

    url: str
    workers: int
    pause: float
    seconds: float


def run(load: Load) -> tuple[list[float], Counter[str]]:
    """The seconds that each commit took, and the errors there were, by their kind."""
    fork = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[tuple[list[float], Counter[str]]] = fork.Queue()
    parts = [min(_TOGETHER, load.workers - first) for first in range(0, load.workers, _TOGETHER)]
    start = time.time() + 2 + 0.05 * load.workers / len(parts)
    processes = [
        fork.Process(target=_process, args=(load, number, part, start, queue)) for number, part in enumerate(parts)
    ]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    waits = [wait for part, _ in found for wait in part]
    return waits, sum((errors for _, errors in found), Counter())


def _process(
    load: Load, number: int, threads: int, start: float, queue: multiprocessing.Queue[tuple[list[float], Counter[str]]]
) -> None:
    waits: list[float] = []
    errors: Counter[str] = Counter()
    working = [
        threading.Thread(target=_worker, args=(load, f"{load.workers}-{number}-{thread}", start, waits, errors))
        for thread in range(threads)
    ]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    queue.put((waits, errors))


def _worker(load: Load, name: str, start: float, waits: list[float], errors: Counter[str]) -> None:
    chance = random.Random(name)
    template, _ = boundaries("template")
    try:
        with EDIDatabase(load.url) as database:
            time.sleep(max(0.0, start - time.time()))
            for turn in range(10**9):
                if not _session(database, load, f"w-{name}-{turn}", start, template, chance, waits):
                    return
    except EdiError as error:
        errors[type(error).__name__] += 1


def _session(
    database: EDIDatabase,
    load: Load,
    name: str,
    start: float,
    template: Sequence[object],
    chance: random.Random,
    waits: list[float],
) -> bool:
    """One session; False when the time is over."""
    lease = database.begin_session(session(name), "bench:1:x", 600)
    for commit in template:
        time.sleep(chance.expovariate(1 / load.pause))
        if time.time() > start + load.seconds:
            return False
        begun = time.perf_counter()
        database.commit_stage(lease, commit.model_copy(update={"session_id": name}), 600)  # type: ignore[attr-defined]
        waits.append(time.perf_counter() - begun)
    database.release(lease)
    return True


def workers(url: str, counts: Sequence[int], pause: float, seconds: float) -> None:
    """Print how long workers wait for their commits, the more of them there are."""
    print("| workers | boundaries asked for, 1/s | done, 1/s | median ms | 99 % ms | longest ms | errors |")
    print("|---:|---:|---:|---:|---:|---:|---|")
    for count in counts:
        waits, errors = run(Load(url, count, pause, seconds))
        shown = [1000 * wait for wait in sorted(waits)] or [float("nan")]
        slow = shown[int(0.99 * (len(shown) - 1))]
        told = ", ".join(f"{number} x {kind}" for kind, number in errors.items()) or "none"
        print(
            f"| {count:,} | {count / pause:,.0f} | {len(waits) / seconds:,.0f} | {statistics.median(shown):,.1f} | "
            f"{slow:,.1f} | {shown[-1]:,.1f} | {told} |",
            flush=True,
        )


@contextmanager
def place(folder: Path) -> Iterator[str]:
    """The URL of an empty database: on the server that is named, or else a file."""
    if not os.environ.get(URL):
        yield sqlite_url(folder / "shared.db")
        return
    from tests import databases

    url = databases.make(os.environ[URL])
    try:
        yield url
    finally:
        databases.drop(url)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--sessions", type=int, default=300, help="on which the sizes are measured")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--pause", type=float, default=0.4, help="seconds of a stage; 0.4 is a photo of 12 megapixels")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which each number of workers is watched")
    asked = parser.parse_args()
    print(f"{machine('sqlalchemy')}\n")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes(folder, asked.sessions)
        url = stack.enter_context(place(folder))
        EDIDatabase(url).close()
        workers(url, asked.workers, asked.pause, asked.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
