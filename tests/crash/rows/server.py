"""What only a database server does: links are cut, its processes and the whole server are killed, it ends transactions.

The processes may end with one sentence; what they had acknowledged is there, and the next one goes on. A server that
was started by `python -m tests.postgres` is also killed: it comes back by itself, as it would under a service manager.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from edi_storage import migrations
from edi_storage.connection import make_engine, reading, writing
from edi_storage.database_server import IDLE_TIMEOUT_MS
from tests.crash.bench import Bench, Skipped, only_for_a_server
from tests.crash.processes import Line, Process
from tests.crash.rows.stopped import POLITE
from tests.crash.work import Ack, Task, settings_for
from tests.postgres import DATA

SESSIONS = ("s-1", "s-2")


# --- Links cut, servers killed -----------------------------------------------------------------------


def links(bench: Bench) -> None:
    """Every link of a database is cut at random moments: at a COMMIT, while the schema is made, between two stages."""
    only_for_a_server()
    _series(bench, "links cut", 300 if bench.full else 25, _cut_links)


def backends(bench: Bench) -> None:
    """SIGKILL of one process of the server: it then ends all the others, and recovers from its log."""
    _need_control()
    _series(bench, "backend killed", 60 if bench.full else 6, _kill_backend)


def servers(bench: Bench) -> None:
    """The whole server dies at once (as by `pg_ctl stop -m immediate`), and is started again."""
    _need_control()
    _series(bench, "server killed", 60 if bench.full else 6, _kill_server)


def _need_control() -> None:
    only_for_a_server()
    if DATA not in os.environ:
        raise Skipped("needs a server of its own, started by tests.postgres without --s3")


def _series(bench: Bench, what: str, times: int, harm: Callable[[str], int]) -> None:
    while bench.result.rounds < times:
        home = bench.home()
        acks: list[Ack] = []
        for _ in range(bench.rng.randint(1, 5)):
            if bench.result.rounds < times:
                with bench.round(what):
                    acks += _harmed(bench, what, home, harm)
                    bench.check_acks(what, home, acks)
        bench.check(what, home, SESSIONS, acks)
    bench.note(f"{bench.fired} of {bench.result.rounds} came while a process was connected")


def _harmed(bench: Bench, what: str, home: Path, harm: Callable[[str], int]) -> list[Ack]:
    url = settings_for(home).database_url
    process = bench.start(Task(home, SESSIONS, beat=True))
    process.listen(bench.rng.uniform(0, 1.2))
    bench.fired += bool(harm(url))
    process.wait()
    _databases().wait(url)
    bench.violation(what, *_bad_end(process))
    return bench.acks(process)


def _bad_end(process: Process) -> list[str]:
    """It may have gone on as if nothing were, or end with one sentence."""
    last = process.heard[-1]
    if last[0] == "done" or (last[0] == "error" and "\n" not in last[2]):
        return []
    return [f"ended with {last}"]


def _cut_links(url: str) -> int:
    return int(_databases().cut_links(url))


def _kill_backend(url: str) -> int:
    found = _databases().backends(url)
    for pid in found[:1]:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def _kill_server(url: str) -> int:
    found = len(_databases().backends(url))
    os.kill(_postmaster(), signal.SIGQUIT)
    return found


def _postmaster() -> int:
    return int((Path(os.environ[DATA]) / "postmaster.pid").read_text().split()[0])


def _databases():  # type: ignore[no-untyped-def]
    # Only where there is a server: it needs its driver.
    from tests import databases

    return databases


# --- Standing still ----------------------------------------------------------------------------------


def stand_still(bench: Bench) -> None:
    """A process stopped inside a transaction keeps its session locked, but not for longer than the server allows."""
    only_for_a_server()
    names = ["after_begin", "after_lease", "after_rows", "after_insert", "before_commit"]
    for name in names if bench.full else bench.rng.sample(names, 1):
        what = f"stopped at commit.{name}"
        with bench.round(what):
            home = bench.home()
            sleeper = bench.start(Task(home, SESSIONS, traps=f"commit.{name}=stop@4"))
            while not sleeper.stopped(0.02):
                sleeper.listen(0.02)
            started = time.monotonic()
            taker = bench.finish(Task(home, SESSIONS, force=True))
            waited = time.monotonic() - started
            sleeper.signal(signal.SIGCONT)
            sleeper.wait()
            if taker.heard[-1][0] != "done" or waited > IDLE_TIMEOUT_MS / 1000 + 10:
                bench.violation(what, f"the taker ended after {waited:.0f} s with {taker.heard[-1]}")
            last = sleeper.heard[-1]
            if last[0] != "error" or last[1] not in POLITE or "\n" in last[2]:
                bench.violation(what, f"the sleeper ended with {sleeper.heard[-1]}")
            bench.note(f"the taker was done after {waited:.0f} s; the sleeper ended with {sleeper.heard[-1][1:]}")
            bench.check(what, home, SESSIONS, [*bench.acks(sleeper), *bench.acks(taker)])


# --- Migrations --------------------------------------------------------------------------------------

_ROWS = """
    INSERT INTO sessions (id, image_path, naive_prompt, status)
        SELECT CASE WHEN n % 10 = 0 THEN '../' || n ELSE 's-' || n END, 'a.jpg', 'p', 'completed'
        FROM generate_series(1, 400) AS n;
    INSERT INTO prompts (session_id, iteration, quality_score)
        SELECT 's-' || n, CASE n % 7 WHEN 0 THEN -1 ELSE n % 4 END, CASE n % 5 WHEN 0 THEN 'NaN' ELSE 0.5 END
        FROM generate_series(1, 400) AS n WHERE n % 10 <> 0;
    INSERT INTO user_feedback (session_id, feedback_type, rating)
        SELECT 's-' || n, 'accept', 5 FROM generate_series(1, 400) AS n WHERE n % 10 <> 0
"""

Dump = dict[str, list[str]]


def migration(bench: Bench) -> None:
    """A migration from the first revision, with good rows and bad ones, is killed; eight processes migrate at once."""
    only_for_a_server()
    seed = bench.home()
    seed.mkdir()
    bench.call(_build, seed)
    whole = bench.home(like=seed)
    started = time.monotonic()
    bench.call(_upgrade, whole)
    seconds = time.monotonic() - started
    should = bench.call(_dump, whole)
    for number in range(150 if bench.full else 10):
        _kill_migration(bench, bench.home(like=seed), should, bench.rng.uniform(0, seconds), cut=number % 2 == 1)
    for _ in range(50 if bench.full else 3):
        _together(bench, bench.home(like=seed), should)


def _build(home: Path) -> None:
    engine = make_engine(settings_for(home).database_url)
    migrations.upgrade(engine, target="0001")
    with writing(engine) as connection:
        connection.exec_driver_sql(_ROWS.replace("%", "%%"))
    engine.dispose()


def _upgrade(home: Path) -> None:
    engine = make_engine(settings_for(home).database_url)
    migrations.upgrade(engine)
    engine.dispose()


def migrate(home: Path, line: Line) -> None:
    line.say("ready")
    line.hear()
    _upgrade(home)
    line.say("done")


def _kill_migration(bench: Bench, home: Path, should: Dump, after: float, *, cut: bool) -> None:
    what = "link cut" if cut else "killed"
    with bench.round(what):
        process = bench.processes.start(migrate, home)
        process.hear()
        process.line.say("go")
        process.listen(after)
        if cut:
            _cut_links(settings_for(home).database_url)
        process.signal(signal.SIGKILL)
        process.wait()
        _compare(bench, what, home, should)


def _together(bench: Bench, home: Path, should: Dump) -> None:
    with bench.round("8 at once"):
        eight = [bench.processes.start(migrate, home) for _ in range(8)]
        for process in eight:
            process.hear()
        for process in eight:
            process.line.say("go")
        for process in eight:
            if process.wait()[-1] != "done":
                bench.violation("8 at once", f"one ended with {process.heard[-1]}")
        _compare(bench, "8 at once", home, should)


def _compare(bench: Bench, what: str, home: Path, should: Dump) -> None:
    """Upgrade once more, as the next start would, and look at every row."""
    bench.call(_upgrade, home)
    found = bench.call(_dump, home)
    different = [name for name in found.keys() | should.keys() if found.get(name) != should.get(name)]
    bench.violation(what, *(f"table {name} differs" for name in different))


def _dump(home: Path) -> Dump:
    """All rows of all tables."""
    engine = make_engine(settings_for(home).database_url)
    found: Dump = {}
    with reading(engine) as connection:
        query = "SELECT c.relname, c.relkind FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace"
        relations = connection.exec_driver_sql(query).all()
        found["names"] = sorted(name for name, _ in relations)
        for name in (name for name, kind in relations if kind == "r"):
            rows = connection.exec_driver_sql(f"SELECT to_jsonb(t) - 'created_at' FROM {name} AS t").scalars()
            found[name] = sorted(map(str, rows))
    engine.dispose()
    return found
