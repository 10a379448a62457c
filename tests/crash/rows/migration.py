"""A migration of the seed's database is killed at a random moment; eight processes migrate it at once.

The database holds good rows and every kind of bad one. Afterwards it is the one that an undisturbed upgrade makes, row
for row, quarantine included; nothing is left over.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.crash import checks
from tests.crash.bench import Bench, only_for_a_file
from tests.crash.processes import Line
from tests.storage import seed_database
from tests.storage.upgrading import add_bad_rows, upgrade

FILE = "edi_sessions.db"
#: When a row was set aside, and where its backup went.
_VOLATILE = {"quarantined_at", "created_at", "updated_at", "quarantine_id"}

Dump = dict[str, list[str]]


def row(bench: Bench) -> None:
    only_for_a_file()
    seed = bench.folder / "seed.db"
    bench.call(_build, str(seed), 40)
    whole = _copy(bench, seed)
    started = time.monotonic()
    bench.call(_upgrade_now, str(whole))
    seconds = time.monotonic() - started
    should = bench.call(dump, str(whole))
    for _ in range(150 if bench.full else 10):
        _kill(bench, seed, should, seconds)
    for _ in range(200 if bench.full else 5):
        _together(bench, seed, should)


def _build(path: str, sessions: int) -> None:
    seed_database.build(path, sessions)
    add_bad_rows(path)


def _copy(bench: Bench, seed: Path) -> Path:
    home = bench.home()
    home.mkdir()
    return Path(shutil.copy(seed, home / FILE))


def _upgrade_now(path: str) -> None:
    upgrade(path)


def migrate(path: str, line: Line) -> None:
    line.say("ready")
    line.hear()
    upgrade(path)
    line.say("done")


def _kill(bench: Bench, seed: Path, should: Dump, seconds: float) -> None:
    with bench.round("killed"):
        path = _copy(bench, seed)
        for _ in range(bench.rng.randint(1, 3)):
            process = bench.processes.start(migrate, str(path))
            process.hear()
            process.line.say("go")
            process.listen(bench.rng.uniform(0, seconds * 1.1))
            process.signal(signal.SIGKILL)
            process.wait()
        _compare(bench, "killed", path, should)


def _together(bench: Bench, seed: Path, should: Dump) -> None:
    with bench.round("8 at once"):
        path = _copy(bench, seed)
        eight = [bench.processes.start(migrate, str(path)) for _ in range(8)]
        for process in eight:
            process.hear()
        for process in eight:
            process.line.say("go")
        for process in eight:
            if process.wait()[-1] != "done":
                bench.violation("8 at once", f"one ended with {process.heard[-1]}")
        _compare(bench, "8 at once", path, should)


def _compare(bench: Bench, what: str, path: Path, should: Dump) -> None:
    """Upgrade once more, as the next start would, and look at every row."""
    bench.call(_upgrade_now, str(path))
    found = bench.call(dump, str(path))
    different = [name for name in found.keys() | should.keys() if found.get(name) != should.get(name)]
    bench.violation(what, *(f"table {name} differs" for name in different))
    checks.age_temp_files(path.parent)
    bench.call(checks.repair, path.parent)
    bench.violation(what, *(f"left over after doctor --repair: {name}" for name in checks.left_over(path.parent)))
    shutil.rmtree(path.parent)


def dump(path: str) -> Dump:
    """All rows of all tables, without what depends on when and in which order they were written."""
    found: Dump = {}
    with closing(sqlite3.connect(path)) as raw:
        raw.text_factory = lambda value: value.decode(errors="surrogateescape")
        raw.row_factory = sqlite3.Row
        names = [row["name"] for row in raw.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")]
        found["names"] = sorted(names)
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = [dict(row) for row in raw.execute(f"SELECT * FROM {name}")]
            found[name] = sorted(repr({k: v for k, v in row.items() if k not in _VOLATILE}) for row in rows)
    return found
