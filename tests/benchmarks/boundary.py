"""What one stage boundary costs, durably: `python -m tests.benchmarks.boundary [--sessions N] [--rounds N]`.

A session of ten boundaries whose state grows from 2 to 40 KB: 25 entities, four prompts, an edit, a validation. Each
contender stores every boundary so that a power cut keeps it, in a process of its own; the rounds are interleaved, and
what counts are the ratios of one run: on a busy disk all of them are slow.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from edi_storage import state as changes
from edi_storage.connection import sqlite_driver
from edi_storage.models import (
    BoundingBox,
    EntityData,
    EntityDelta,
    Intent,
    Operation,
    PromptRecord,
    SceneAnalysis,
    SessionData,
    StageCommit,
    ValidationData,
    ValidationResult,
)
from edi_storage.state import Json, canonical, digest, merge_patch, rows_of
from edi_storage.steps import Step
from tests.benchmarks.machine import machine

THEN = datetime(2026, 6, 1, 11, 59, tzinfo=UTC)
_ENTITIES, _PAD = 25, "the clouds stand dark and layered over the roofs; " * 60

#: Stores the boundaries of one session, given with the state after each; calls the last argument when it is ready for
#: the first of them, and whenever one is stored.
Store = Callable[[str, list[StageCommit], list[Json], Callable[[], object]], None]
#: Makes a store in an empty folder.
Contender = Callable[[Path], Store]


# --- The work ----------------------------------------------------------------------------------------


def boundaries(session_id: str) -> tuple[list[StageCommit], list[Json]]:
    """The commits of a session, and the whole state after each."""
    state: Json = {}
    commits, states = [], []
    for seq, (step, delta) in enumerate(_deltas(session_id), 1):
        state = merge_patch(state, delta)
        commits.append(
            StageCommit(
                session_id=session_id,
                seq=seq,
                stage=step.stage,
                attempt=1,
                iteration=step.iteration,
                state_delta=delta,
                sha256=digest(state),
                engine="bench",
                engine_version="1",
                fence=1,
                started_at=THEN,
                finished_at=THEN,
            )
        )
        states.append(state)
    return commits, states


def _deltas(session_id: str) -> Iterator[tuple[Step, Json]]:
    path = f"{session_id}/files/{'a' * 64}.png"
    box = BoundingBox(x=0, y=0, width=10, height=5).model_dump_json()
    entities = [
        EntityData(
            entity_id=f"thing_{number}",
            label="thing",
            confidence=0.9,
            bbox_json=box,
            mask_path=f"{session_id}/files/{number:064x}.png",
            color_hex="#a0b0c0",
            area_percent=3.5,
        )
        for number in range(_ENTITIES)
    ]
    image = {"sha256": "b" * 64, "path": path, "width": 4000, "height": 3000, "format": "JPEG", "notes": [_PAD[:1200]]}
    intent = Intent(
        edit_type="style", target_entities=["thing_0"], preserve_entities=["thing_1"], confidence=0.9, action="bench"
    )
    deltas = [
        EntityDelta(
            entity_id=entity.entity_id,
            label="thing",
            role="preserve",
            verdict="preserved",
            mean_delta_e=0.1,
            p90_delta_e=0.2,
            ssim=0.99,
        )
        for entity in entities
    ]
    measured = ValidationData(
        attempt_number=1,
        alignment_score=0.95,
        preserved_count=24,
        modified_count=1,
        unintended_count=0,
        created_at=THEN,
    )
    yield Step("upload"), changes.upload_delta(session(session_id), image)
    yield Step("analysis"), changes.analysis_delta(SceneAnalysis(entities=entities, spatial_layout=_PAD))
    yield Step("intent"), changes.intent_delta(intent)
    for iteration in range(4):
        pair = PromptRecord(
            attempt_number=1,
            iteration=iteration,
            positive_prompt=_PAD,
            negative_prompt=_PAD[:900],
            quality_score=0.5,
            created_at=THEN,
        )
        yield Step("refinement", iteration=iteration), changes.refinement_delta(pair, pair)
    yield Step("edit"), changes.edit_delta(1, path, [Operation(name="dramatic_sky", target="thing_0")])
    result = ValidationResult(deltas=deltas)
    yield Step("validation"), changes.validation_delta(measured, result, "accepted", path)
    yield Step("completed"), changes.completed_delta("accepted", measured, path)


def session(session_id: str) -> SessionData:
    return SessionData(session_id=session_id, created_at=THEN, image_path="/photos/a.jpg", naive_prompt="make it so")


# --- Contenders --------------------------------------------------------------------------------------


def fdatasync(folder: Path) -> Store:
    """The disk's own limit: 8 KB appended and synced."""
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(fd, 0, 64 << 20)

    def store(_: str, commits: list[StageCommit], __: list[Json], done: Callable[[], object]) -> None:
        done()
        for _commit in commits:
            os.write(fd, b"x" * 8192)
            os.fdatasync(fd)
            done()

    return store


_FLOOR = """
CREATE TABLE commits (session_id TEXT, seq INTEGER, stage TEXT, state TEXT, sha256 TEXT, PRIMARY KEY (session_id, seq));
CREATE TABLE entities (id INTEGER PRIMARY KEY, session_id TEXT, entity_id TEXT, label TEXT, confidence REAL, bbox TEXT,
    mask TEXT, color TEXT, area REAL, UNIQUE (session_id, entity_id));
CREATE TABLE prompts (id INTEGER PRIMARY KEY, session_id TEXT, attempt INTEGER, iteration INTEGER, positive TEXT,
    negative TEXT, quality REAL, UNIQUE (session_id, attempt, iteration));
CREATE TABLE validations (id INTEGER PRIMARY KEY, session_id TEXT, attempt INTEGER, score REAL,
    UNIQUE (session_id, attempt));
"""


_ENTITY = "INSERT INTO entities VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_PROMPT = "INSERT INTO prompts VALUES (NULL, ?, 1, ?, ?, ?, ?)"
_VALIDATION = "INSERT INTO validations VALUES (NULL, ?, 1, ?)"


def raw(folder: Path) -> Store:
    """The floor: the driver's own calls, one transaction with the rows and the full state."""
    database = sqlite_driver().connect(str(folder / "raw.db"), isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(_FLOOR)

    def store(session_id: str, commits: list[StageCommit], states: list[Json], done: Callable[[], object]) -> None:
        done()
        for commit, state in zip(commits, states, strict=True):
            text, rows = canonical(state), rows_of(commit.state_delta)
            entities = [
                (session_id, e.entity_id, e.label, e.confidence, e.bbox_json, e.mask_path, e.color_hex, e.area_percent)
                for e in rows.entities
            ]
            prompts = [
                (session_id, p.iteration, p.positive_prompt, p.negative_prompt, p.quality_score) for p in rows.prompts
            ]
            database.execute("BEGIN IMMEDIATE")
            database.executemany(_ENTITY, entities)
            database.executemany(_PROMPT, prompts)
            database.executemany(_VALIDATION, [(session_id, v.alignment_score) for v in rows.validations])
            values = (session_id, commit.seq, commit.stage, text, commit.sha256)
            database.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", values)
            database.execute("COMMIT")
            done()

    return store


def edi(folder: Path) -> Store:
    """EDI as it ships: lease, fence, rows, delta and digest."""
    from edi_storage import EDIDatabase

    database = EDIDatabase(str(folder / "edi.db"))

    def store(session_id: str, commits: list[StageCommit], _: list[Json], done: Callable[[], object]) -> None:
        # To begin a session is a transaction of its own, and no boundary.
        lease = database.begin_session(session(session_id), "bench:1:x", 600)
        done()
        for commit in commits:
            database.commit_stage(lease, commit, 600)
            done()

    return store


CONTENDERS: dict[str, Contender] = {"fdatasync": fdatasync, "raw": raw, "edi": edi}


# --- Rounds ------------------------------------------------------------------------------------------


def measure(name: str, sessions: int) -> float:
    """Microseconds of a boundary: the median of all, each kind of boundary counting alike; in this process."""
    with tempfile.TemporaryDirectory() as folder:
        store = CONTENDERS[name](Path(folder))
        times = [timed(store, f"s-{number}") for number in range(sessions)]
    return statistics.mean(map(statistics.median, zip(*times, strict=True)))


def timed(store: Store, session_id: str) -> list[float]:
    """Microseconds of each boundary of a session."""
    moments: list[float] = []
    store(session_id, *boundaries(session_id), lambda: moments.append(time.perf_counter()))
    return [1e6 * (after - before) for before, after in pairwise(moments)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.boundary", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=30, help="of each contender in each round")
    parser.add_argument("--one", choices=CONTENDERS, help="one contender, in this process; prints microseconds")
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.sessions))
        return
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, of_name in times.items():
            command = [sys.executable, "-m", "tests.benchmarks.boundary", "--one", name]
            done = subprocess.check_output([*command, "--sessions", str(options.sessions)])
            of_name.append(float(done))
    print(f"{machine('sqlalchemy')}; {platform.platform()}\n")
    print("| contender | microseconds a boundary | of the floor | of a bare sync |\n|---|---:|---:|---:|")
    median = {name: statistics.median(of_name) for name, of_name in times.items()}
    for name, micros in median.items():
        print(f"| {name} | {micros:,.0f} | {micros / median['raw']:.2f} | {micros / median['fdatasync']:.2f} |")


if __name__ == "__main__":
    main()
