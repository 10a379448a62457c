"""Another process keeps the database locked: EDI waits, or says so in one sentence, and goes on when it is free."""

from __future__ import annotations

import time
from pathlib import Path

from edi_storage.connection import make_engine, sqlite_driver, writing
from tests.crash import homes
from tests.crash.bench import Bench
from tests.crash.processes import Line
from tests.crash.work import Task, settings_for

SESSIONS = ("s-1",)


def row(bench: Bench) -> None:
    # 60 s are longer than EDI's patience (BUSY_TIMEOUT_MS), 6 s are not.
    for seconds in (60, 6) if bench.full else (6,):
        what = f"locked for {seconds} s"
        with bench.round(what):
            home = bench.home()
            bench.finish(Task(home, SESSIONS, upto=4))
            holder = bench.processes.start(hold_server if homes.SERVER else hold, home, seconds)
            holder.hear()
            started = time.monotonic()
            process = bench.start(Task(home, SESSIONS))
            process.wait(seconds + 60)
            waited = time.monotonic() - started
            bench.violation(what, *_wrong(process.heard[-1], waited, seconds))
            holder.wait(seconds + 60)
            bench.check(what, home, SESSIONS, bench.acks(process))


def _wrong(last: tuple[str, ...], waited: float, seconds: float) -> list[str]:
    if seconds < 30:
        return [] if last[0] == "done" and waited > seconds - 2 else [f"after {waited:.0f} s: {last}"]
    busy = last[:2] == ("error", "DatabaseBusyError") and "locked by another process" in last[2]
    return [] if busy and waited < 45 else [f"after {waited:.0f} s: {last}"]


def hold(home: Path, seconds: float, line: Line) -> None:
    """Hold the write lock for so long."""
    raw = sqlite_driver().connect(str(home / "edi_sessions.db"), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    line.say("held")
    time.sleep(seconds)
    raw.rollback()
    raw.close()


def hold_server(home: Path, seconds: float, line: Line) -> None:
    """The same on a server, busy all the time: who stands still would lose the lock."""
    engine = make_engine(settings_for(home).database_url)
    with writing(engine) as connection:
        line.say("held")
        connection.exec_driver_sql(f"SELECT pg_sleep({seconds})")
    engine.dispose()
