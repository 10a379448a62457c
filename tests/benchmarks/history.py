"""What a person waits for while the history grows: `python -m tests.benchmarks.history [--sessions 10000 1000000]`.

The newest fifty, the scan for interrupted sessions, and the load of one session (25 entities, ten boundaries, 40 KB of
state), in databases of so many sessions. Medians; the ratios are those of the longest history to the shortest. A
million sessions take about 3 GB and some minutes to make.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edi_storage import EDIDatabase
from edi_storage.connection import sqlite_driver
from tests.benchmarks.boundary import boundaries, session
from tests.storage.sessions import SESSION, commit_all, prompt

HISTORIES = (10_000, 1_000_000)
#: How many times as long with the longest history as with the shortest, at most.
BARS = {"newest 50": 2.0, "interrupted, 50 of 100": 2.0, "load of one": 1.5}
_LARGE, _INTERRUPTED, _TIMES = 50, 100, 200

#: Every table with rows of a session, the column that names it, and which of its columns count by themselves.
_COPIED = (
    ("sessions", "id", ()),
    ("leases", "session_id", ()),
    ("stage_commits", "session_id", ()),
    ("entities", "session_id", ("id",)),
    ("prompts", "session_id", ("id",)),
    ("intents", "session_id", ("id",)),
)


def make(path: Path, count: int) -> None:
    """A database of `count` sessions, nearly all small and done; some are interrupted, some are large."""
    with EDIDatabase(str(path)) as database:
        lease = database.begin_session(SESSION, "bench:1:x", 30)
        commit_all(database, lease, upto=3)
        database.save_prompt_history(SESSION.session_id, [prompt(0)])
        database.release(lease)
    with closing(sqlite_driver().connect(str(path), isolation_level=None)) as raw:
        raw.execute("BEGIN")
        for table, key, counted in _COPIED:
            multiply(raw, table, key, counted, count)
        raw.execute("UPDATE sessions SET status = 'completed'")
        step = max(1, count // _INTERRUPTED)
        raw.execute(f"UPDATE sessions SET status = 'in_progress' WHERE CAST(substr(id, 3) AS INTEGER) % {step} = 0")
        raw.execute("COMMIT")
    with EDIDatabase(str(path)) as database:
        for name in large(count):
            lease = database.begin_session(session(name), "bench:1:x", 600)
            for commit in boundaries(name)[0]:
                database.commit_stage(lease, commit, 600)
            database.release(lease)


def large(count: int) -> list[str]:
    """The ids of the large sessions, all over the history."""
    return [f"m-{number * count // _LARGE:07}-large" for number in range(_LARGE)]


def multiply(raw: Any, table: str, key: str, counted: Sequence[str], count: int) -> None:
    """Copy the rows of the first session to `count` more, an hour apart; their ids are mixed, as real ones are."""
    columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})") if row[1] not in counted]
    later = "datetime('2020-01-01', '+' || i || ' minutes')"
    values = {key: "printf('m-%07d', i)", "created_at": later, "updated_at": later}
    chosen = ", ".join(values.get(name, f"t.{name}") for name in columns)
    raw.execute(
        f"WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM n CROSS JOIN {table} t WHERE t.{key} = ?",
        (SESSION.session_id,),
    )


def measured(path: Path, count: int) -> dict[str, float]:
    """Medians in milliseconds."""
    with EDIDatabase(str(path)) as database:
        names = large(count)
        return {
            "newest 50": _median(lambda _: len(database.query_history(limit=50)) == 50),
            "interrupted, 50 of 100": _median(lambda _: len(database.interrupted_sessions(50)) == 50),
            "load of one": _median(lambda turn: len(database.load_session(names[turn % _LARGE]).commits) == 10),
        }


def _median(act: Callable[[int], bool]) -> float:
    times = []
    for turn in range(_TIMES):
        started = time.perf_counter()
        if not act(turn):
            raise AssertionError("not what was stored came back")
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.history", description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=HISTORIES)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(options.sessions):
            path = Path(folder) / "edi.db"
            started = time.perf_counter()
            make(path, count)
            size = path.stat().st_size / count
            print(f"{count:>9,} sessions made in {time.perf_counter() - started:.0f} s, {size:,.0f} bytes each")
            found[count] = measured(path, count)
            path.unlink()
    few, many = min(found), max(found)
    print(f"\n| read | {few:,} sessions, ms | {many:,} sessions, ms | ratio | at most |\n|---|---:|---:|---:|---:|")
    ratios = {name: found[many][name] / found[few][name] for name in BARS}
    for name, ratio in ratios.items():
        print(f"| {name} | {found[few][name]:.2f} | {found[many][name]:.2f} | {ratio:.2f} | {BARS[name]:g} |")
    return int(any(ratio > BARS[name] for name, ratio in ratios.items()))


if __name__ == "__main__":
    sys.exit(main())
