"""What the faulted processes do: whole edits through the real store, with small pictures and known engine results.

Everything but times, fences and ids of runs follows from the session's id, so that two runs can be compared.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from edi_storage import failpoints
from edi_storage import state as changes
from edi_storage.errors import EdiError, LeaseHeldError
from edi_storage.models import (
    BoundingBox,
    EntityData,
    EntityDelta,
    Intent,
    Operation,
    PromptRecord,
    SceneAnalysis,
    SessionData,
    ValidationData,
    ValidationResult,
)
from edi_storage.owner import is_gone, owner_name
from edi_storage.recovery import export_checkpoints, give_verdict
from edi_storage.settings import Settings
from edi_storage.state import Json
from edi_storage.steps import Step, next_step
from edi_storage.store import Store, open_store
from flows.output import deliver
from flows.session import SessionRun, open_session
from tests.crash.clocks import CLOCKS
from tests.crash.homes import database_url
from tests.crash.processes import Line

THEN = datetime(2026, 6, 1, 11, 59, tzinfo=UTC)
ENTITIES = ("sky", "building", "person")


@dataclass(frozen=True)
class Task:
    """What one process is to do, and what is to happen to it."""

    home: Path
    sessions: tuple[str, ...]
    #: Failpoints (see `edi_storage.failpoints.arm`).
    traps: str = ""
    #: Take each session over even from a living owner.
    force: bool = False
    #: Stop after so many boundaries of each session, as if a person had closed the laptop in good order.
    upto: int = 99
    #: Renew the lease between any two boundaries, as the heartbeat would in a long stage.
    beat: bool = False
    #: A clock of `tests.crash.clocks` in New York; "" for the right time.
    clock: str = ""
    #: Also write the checkpoints of boundaries (as the hook does); off shows what is left when no hook ever ran.
    export: bool = True
    #: Short, so that a session whose owner died after its last commit is free again soon.
    lease_seconds: float = 2.0
    autosave_seconds: float = 0.02
    options: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Ack:
    """A boundary whose commit has returned: from here on it must never be lost."""

    session_id: str
    seq: int
    sha256: str


def settings_for(home: Path, **changed: Any) -> Settings:
    defaults = {"max_recovery_attempts": 100_000, "autosave_seconds": 0.02, "database_url": database_url(home)}
    return Settings(home=home, **{**defaults, **changed})


def session_data(home: Path, session_id: str) -> SessionData:
    """Sessions differ by the number in their id: see `_retries`, `delivers`, `_rated`."""
    output = str(home / "out" / f"{session_id}.png") if delivers(session_id) else ""
    return SessionData(
        session_id=session_id,
        created_at=THEN + timedelta(seconds=_number(session_id)),
        image_path=f"/photos/{session_id}.png",
        naive_prompt="make the sky dramatic, größer \U0001f308",
        options={"review": "auto", "max_attempts": 3, "output": output},
    )


def _number(session_id: str) -> int:
    return int(session_id.rpartition("-")[2])


def _retries(session_id: str) -> bool:
    """Its first attempt is not good enough."""
    return _number(session_id) % 3 == 1


def delivers(session_id: str) -> bool:
    """Its result is also written to a file of the person's."""
    return _number(session_id) % 3 == 2


def _rated(session_id: str) -> bool:
    """A person gives a verdict at the end."""
    return _number(session_id) % 2 == 1


# --- A process ---------------------------------------------------------------------------------------


def run(task: Task, line: Line) -> None:
    """Work on the sessions of `task`, one after the other; says what becomes of it on `line`.

    ("ready",) then waits for a word; ("ack", Ack, when) after each commit; ("error", type, sentence) for one of EDI's;
    ("raised", traceback) for any other; ("done", how often each failpoint was reached).
    """
    # On a server this imports a module of the tests, which no fault is meant to hit.
    settings = settings_for(task.home)
    line.say(("ready",))
    line.hear()
    failpoints.arm(task.traps)
    try:
        with open_store(settings) as opened:
            store = _with_clock(opened, task.clock)
            for session_id in task.sessions:
                work_on(store, task, session_id, lambda ack: line.say(("ack", ack, time.monotonic())))
    except EdiError as error:
        line.say(("error", type(error).__name__, str(error)))
    except BaseException:  # noqa: BLE001 - the driver judges it
        line.say(("raised", traceback.format_exc()))
    else:
        line.say(("done", dict(failpoints.reached)))


def _with_clock(store: Store, name: str) -> Store:
    if name:
        os.environ["TZ"] = "America/New_York"
        time.tzset()
        store.database.clock = CLOCKS[name]()
    return store


def work_on(store: Store, task: Task, session_id: str, acknowledge: Callable[[Ack], object]) -> None:
    """Take one session as far as the task says, from wherever it stands."""
    found = store.database.get_session(session_id)
    if found is None or found.status != "completed":
        _edit_session(store, task, session_id, acknowledge)
    state = store.database.get_state(session_id)
    if state and state.current_stage == "completed" and _rated(session_id):
        _rate(store, session_id)


def _edit_session(store: Store, task: Task, session_id: str, acknowledge: Callable[[Ack], object]) -> None:
    with _opened(store, task, session_id) as work:
        step = next_step(work.state)
        while isinstance(step, Step) and work.seq < task.upto:
            if task.beat:
                store.database.renew(work.lease, task.lease_seconds)
            STEPS[step.stage](work, step)
            acknowledge(Ack(session_id, work.seq, changes.digest(work.state)))
            if task.export:
                _hook(store, session_id)
            step = next_step(work.state)
        if task.export:
            export_checkpoints(store, session_id)


def _hook(store: Store, session_id: str) -> None:
    """The stage-boundary hook. Prefect logs whatever it raises, and goes on."""
    try:
        export_checkpoints(store, session_id)
    except Exception:  # noqa: BLE001
        return


def _rate(store: Store, session_id: str) -> None:
    """Give the verdict, if it is not there; a person whose feedback is refused tries again in a while."""
    until = time.monotonic() + 10
    while not store.database.get_feedback(session_id):
        try:
            give_verdict(store, session_id, "accept", rating=4, comment="lovely", reasons=[])
        except LeaseHeldError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextmanager
def _opened(store: Store, task: Task, session_id: str) -> Iterator[SessionRun]:
    settings = settings_for(task.home, autosave_seconds=task.autosave_seconds, lease_seconds=task.lease_seconds)
    session = session_data(task.home, session_id)
    if not task.force or store.database.get_session(session_id) is None:
        with open_session(store, settings, session) as work:
            yield work
        return
    lease = store.database.take_over(session_id, owner_name(), task.lease_seconds)
    try:
        work = SessionRun(store, settings, store.database.require_session(session_id), lease)
        with work.autosaver:
            yield work
    finally:
        store.database.release(lease)


def resume(home: Path, sessions: tuple[str, ...], line: Line) -> None:
    """What `edi resume --all` does, then the sessions that were never begun. Says the same as `run`."""
    with open_store(settings_for(home)) as store:
        store.database.free_leases(is_gone)
        found = [session.session_id for session in store.database.interrupted_sessions(1000)]
        for session_id in found:
            assert store.database.count_recovery(session_id, 100_000)
    line.say(("found", found))
    rest = tuple(session_id for session_id in sessions if session_id not in found)
    run(Task(home, (*found, *rest)), line)


# --- Stand-ins for the stages ------------------------------------------------------------------------


class _Engine:
    name, version = "stand-in", "1"


def picture(session_id: str, what: str) -> bytes:
    """Bytes that nobody decodes; a few KB, so that a torn write shows."""
    return hashlib.shake_256(f"{session_id} {what}".encode()).digest(6000)


def photo(session_id: str) -> bytes:
    """A small real photo: the last stage opens it again, for what its file tells of the camera."""
    buffer = io.BytesIO()
    pixels = hashlib.shake_256(f"{session_id} photo".encode()).digest(40 * 40 * 3)
    Image.frombytes("RGB", (40, 40), pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _put(work: SessionRun, what: str) -> str:
    return work.put_file(picture(work.session.session_id, what), ".png")


def _upload(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    path = work.put_file(photo(work.session.session_id), ".png")
    image = {"sha256": Path(path).stem, "path": path, "width": 40, "height": 40, "format": "PNG"}
    work.commit(step, changes.upload_delta(work.session, image), _Engine(), started)


def _analysis(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    entities = [_entity(work, label, number) for number, label in enumerate(ENTITIES)]
    scene = SceneAnalysis(entities=entities, spatial_layout="sky above building, person before it")
    work.commit(step, changes.analysis_delta(scene), _Engine(), started)


def _entity(work: SessionRun, label: str, number: int) -> EntityData:
    return EntityData(
        entity_id=f"{label}_0",
        label=label,
        confidence=0.9,
        bbox_json=BoundingBox(x=number, y=0, width=10, height=5).model_dump_json(),
        mask_path=_put(work, label),
        color_hex="#a0b0c0",
        area_percent=30.0,
    )


def _intent(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    kept = [f"{label}_0" for label in ENTITIES[1:]]
    intent = Intent(edit_type="style", target_entities=["sky_0"], preserve_entities=kept, confidence=0.9)
    work.commit(step, changes.intent_delta(intent), _Engine(), started)


def _refinement(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    prompt = PromptRecord(
        attempt_number=step.attempt,
        iteration=step.iteration,
        positive_prompt=f"dramatic sky, attempt {step.attempt}, step {step.iteration}, " + "storm " * 20,
        negative_prompt="change of building_0",
        quality_score=0.5 + step.iteration / 10,
        created_at=THEN,
    )
    work.progress(0.5, "half way", {"outside": {"job": f"{step.attempt}-{step.iteration}"}})
    work.commit(step, changes.refinement_delta(prompt, prompt), _Engine(), started)


def _edit(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    path = _put(work, f"edited {step.attempt}")
    operations = [Operation(name="dramatic_sky", target="sky_0", parameters={"strength": 0.6})]
    work.commit(step, changes.edit_delta(step.attempt, path, operations), _Engine(), started)


def _validation(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    good = step.attempt > 1 or not _retries(work.session.session_id)
    data = ValidationData(
        attempt_number=step.attempt,
        alignment_score=0.95 if good else 0.5,
        preserved_count=2,
        modified_count=1,
        unintended_count=0,
        created_at=THEN,
    )
    changed = EntityDelta(
        entity_id="sky_0", label="sky", role="target", verdict="modified", mean_delta_e=12, p90_delta_e=20, ssim=0.6
    )
    result = ValidationResult(deltas=[changed], hints=[] if good else ["stronger"])
    delta = changes.validation_delta(data, result, "accepted" if good else "retry")
    work.commit(step, delta, _Engine(), started)


def _completed(work: SessionRun, step: Step) -> None:
    started = work.begin(step)
    best = changes.rows_of(work.state).validations[-1]
    edited = work.attempts()[best.attempt_number]["edited_image_path"]
    undelivered = deliver(work, edited)
    work.commit(step, changes.completed_delta("accepted", best, edited, undelivered), _Engine(), started)


STEPS: dict[str, Callable[[SessionRun, Step], None]] = {
    "upload": _upload,
    "analysis": _analysis,
    "intent": _intent,
    "refinement": _refinement,
    "edit": _edit,
    "validation": _validation,
    "completed": _completed,
}
