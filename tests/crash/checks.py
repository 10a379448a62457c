"""What must hold after every fault. These run in processes of their own, which read what is on the disk."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from edi_storage.connection import reading
from edi_storage.doctor import Finding, doctor
from edi_storage.errors import EdiError
from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from edi_storage.tables import Base
from tests.crash.work import Ack, delivers, settings_for

Snapshot = dict[str, list[str]]

#: What differs between two runs that did the same: times, ids given by the database, who did it, and how often.
_VOLATILE = {
    "sessions": {"updated_at", "flow_run_id", "recovery_attempts", "exported_seq"},
    "stage_commits": {"started_at", "finished_at", "fence", "flow_run_id"},
    "user_feedback": {"id", "created_at"},
    "feedback_events": {"seq", "created_at"},
    "prompts": {"id"},
    "entities": {"id"},
    "validations": {"id"},
}
_NOT_COMPARED = {"leases", "quarantine"}

#: Kinds of findings that a crash may leave for `doctor --repair` even after a resume: a file that was written and
#: never committed, and what nobody came back to write because the session was finished.
HARMLESS = frozenset({"orphan", "late"})

#: The columns that make a row the one it is.
_KEYS = {
    "prompts": ("session_id", "attempt_number", "iteration"),
    "entities": ("session_id", "entity_id"),
    "validations": ("session_id", "attempt_number"),
    "user_feedback": ("session_id", "feedback_key"),
    "intents": ("session_id",),
    "artifacts": ("session_id", "kind", "name"),
    "stage_commits": ("session_id", "seq"),
    "leases": ("session_id",),
}


# --- Acknowledged boundaries -------------------------------------------------------------------------


def lost(home: Path, acks: Sequence[Ack]) -> list[str]:
    """Acknowledged boundaries that are not in the database as they were acknowledged."""
    with open_store(settings_for(home)) as store:
        stored = {sid: _digests(store, sid) for sid in {ack.session_id for ack in acks}}
    return [
        f"acknowledged boundary {ack.seq} of {ack.session_id} is {stored[ack.session_id].get(ack.seq, 'gone')}"
        for ack in acks
        if stored[ack.session_id].get(ack.seq) != ack.sha256
    ]


def _digests(store: Store, session_id: str) -> dict[int, str]:
    return {commit.seq: commit.sha256 for commit in store.database.get_commits(session_id)}


# --- Rows --------------------------------------------------------------------------------------------


def snapshot(home: Path, sessions: Iterable[str], commits: bool = True) -> dict[str, Snapshot]:
    """Everything that is stored of each session, without what differs between two runs that did the same.

    Without `commits` the boundaries are left out: a session rebuilt from checkpoints has fewer of them.
    """
    with open_store(settings_for(home)) as store:
        return {session_id: _of_session(home, store, session_id, commits) for session_id in sessions}


def _of_session(home: Path, store: Store, session_id: str, commits: bool) -> Snapshot:
    found: Snapshot = {}
    with reading(store.database.engine) as connection:
        for name, table in Base.metadata.tables.items():
            if name in _NOT_COMPARED or name.startswith("learning_") or (name == "stage_commits" and not commits):
                continue
            column = table.c.id if name == "sessions" else table.c.get("session_id")
            if column is not None:
                rows = [dict(row) for row in connection.execute(select(table).where(column == session_id)).mappings()]
                rows = _net(rows) if name == "feedback_events" else rows
                found[name] = sorted(_steady(home, name, row) for row in rows)
    state = store.database.get_state(session_id)
    found["state"] = [_text(home, state.model_dump(mode="json", exclude={"checkpoint"}))] if state else []
    files = store.files.list(f"{session_id}/files")
    found["files"] = [f"{path} {len(store.files.read(path))}" for path in files]
    output = home / "out" / f"{session_id}.png"
    found["output"] = [output.name] if output.exists() else []
    # The output file could not be written, and the session says so: it is complete all the same.
    found["undelivered"] = ["yes"] if state and "undelivered" in state.validation else []
    return found


def _net(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was learned in the end: a verdict taken back and given again counts as the one verdict it is."""
    sums: Counter[str] = Counter()
    for event in events:
        key = {name: event[name] for name in event.keys() - {"seq", "created_at", "sign"}}
        sums[json.dumps(key, sort_keys=True)] += event["sign"]
    return [{**json.loads(key), "sign": total} for key, total in sums.items() if total]


def _steady(home: Path, table: str, row: dict[str, Any]) -> str:
    # SQLite may have kept a text as bytes (one flipped bit says which): it reads the same.
    fields = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in row.items()
        if name not in _VOLATILE.get(table, ())
    }
    if table == "stage_commits":
        fields["state_delta"] = json.loads(fields["state_delta"])
        if fields["stage"] == "feedback" or delivers(fields["session_id"]):
            del fields["sha256"]  # it covers the time of the verdict, and the name of the home
    return _text(home, fields)


def _text(home: Path, value: Any) -> str:
    plain = json.dumps(_without_chance(value), sort_keys=True, default=str)
    return plain.replace(str(home), "HOME")


def _without_chance(value: Any) -> Any:
    if isinstance(value, dict):
        drop = {"created_at", "undelivered"} if "feedback_key" in value else {"undelivered"}
        return {key: _without_chance(item) for key, item in value.items() if key not in drop}
    return [_without_chance(item) for item in value] if isinstance(value, list) else value


def doubled(home: Path) -> list[str]:
    """Natural keys that stand twice, and steps of an edit that were committed twice."""
    found: list[str] = []
    with open_store(settings_for(home)) as store, reading(store.database.engine) as connection:
        for name, keys in _KEYS.items():
            table = Base.metadata.tables[name]
            count = Counter(tuple(row) for row in connection.execute(select(*(table.c[key] for key in keys))))
            found += [f"{name}: {key} stands {times} times" for key, times in count.items() if times > 1]
        table = Base.metadata.tables["stage_commits"]
        steps = select(table.c.session_id, table.c.stage, table.c.attempt, table.c.iteration)
        rows = connection.execute(steps.where(table.c.stage != "feedback"))
        found += [
            f"{key[0]}: the step {key[1:]} was done {times} times"
            for key, times in Counter(tuple(row) for row in rows).items()
            if times > 1
        ]
    return found


def differences(are: dict[str, Snapshot], should: dict[str, Snapshot]) -> Iterator[str]:
    """Where two snapshots differ, short enough to be read."""
    for session_id, expected in should.items():
        found = are[session_id]
        for name, rows in expected.items():
            if name == "undelivered":
                continue
            excused = name == "output" and found["undelivered"]
            if name in found and found[name] != rows and not excused:
                yield f"{session_id}: {name} {_first_difference(found[name], rows)}"


def _first_difference(are: list[str], should: list[str]) -> str:
    extra, missing = sorted(set(are) - set(should)), sorted(set(should) - set(are))
    if not extra and not missing:
        return f"has rows twice: {len(are)} instead of {len(should)}"
    return f"has {len(extra)} rows too many {extra[:1]} and {len(missing)} too few {missing[:1]}"


# --- Doctor ------------------------------------------------------------------------------------------


def verdict(
    home: Path, sessions: Sequence[str], acks: Sequence[Ack], harmless: Collection[str], commits: bool
) -> tuple[list[str], dict[str, Snapshot]]:
    """All that is wrong with a home after a resume, and what is stored there (in one process, for speed)."""
    wrong = lost(home, acks) + examine(home, harmless) + doubled(home)
    return wrong, snapshot(home, sessions, commits=commits)


def examine(home: Path, harmless: Collection[str] = HARMLESS) -> list[str]:
    """What `doctor` finds that it should not, what it cannot repair, and what is left over after the repair."""
    chosen = settings_for(home)
    _wait_for_leases(chosen)
    age_temp_files(home)
    found = doctor(chosen, repair=True)
    wrong = [f"doctor: {finding.message}" for finding in found if _kind(finding) not in harmless]
    wrong += [f"not repaired: {finding.message}, {finding.fix}" for finding in found if not finding.repaired]
    wrong += [f"after the repair: {finding.message}" for finding in doctor(chosen)]
    return wrong + [f"left over: {path}" for path in left_over(home)]


def _kind(finding: Finding) -> str:
    """The kind; "late" for a checkpoint or state file that is whole, but behind the database."""
    behind = finding.message.endswith("behind the database") or finding.fix == "write it from the database"
    return "late" if behind else finding.kind


def _wait_for_leases(settings: Settings) -> None:
    """Until nobody holds a session: `doctor` passes over those that somebody does."""
    until = time.monotonic() + 10
    with open_store(settings) as store:
        ids = [session.session_id for session in store.database.query_history(limit=10_000)]
        while time.monotonic() < until and any(map(store.database.lease_of, ids)):
            time.sleep(0.05)


def left_over(home: Path) -> list[str]:
    """Temp files anywhere below the home, with what SQLite may have put beside one."""
    return sorted(str(path.relative_to(home)) for path in home.rglob(".*.tmp*"))


def age_temp_files(home: Path) -> None:
    """Make what a killed process left look a day old: a young temp file may be somebody's at work."""
    for path in left_over(home):
        os.utime(home / path, (time.time() - 86400,) * 2)


def repair(home: Path) -> list[dict[str, Any]] | str:
    """What `doctor --repair` found and did, as plain dicts; or the one sentence with which it gives up."""
    return _found(home, repair=True)


def find(home: Path) -> list[dict[str, Any]] | str:
    """What `doctor` finds; or the one sentence with which it gives up."""
    return _found(home, repair=False)


def _found(home: Path, *, repair: bool) -> list[dict[str, Any]] | str:
    try:
        return [finding.model_dump() for finding in doctor(settings_for(home), repair=repair)]
    except EdiError as error:
        return str(error)
