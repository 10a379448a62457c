"""SessionRun: one process working on one session - its lease, its state, its autosave and its commits.

Knows nothing of Prefect; the stages in `flows.stages` put it to work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from edi_storage.autosave import Autosaver, Progress, progress_of
from edi_storage.errors import AlreadyFailedError, CheckpointError
from edi_storage.models import (
    EntityData,
    Intent,
    Lease,
    PromptRecord,
    SceneAnalysis,
    SessionData,
    StageCommit,
    WaitingFor,
)
from edi_storage.owner import is_gone, owner_name
from edi_storage.record import now_utc
from edi_storage.recovery import export_boundary, export_checkpoints, refuse_lost, with_checkpoint
from edi_storage.settings import Settings
from edi_storage.state import Json, digest, fold, merge_patch, read_pair, rows_of, with_fallbacks
from edi_storage.steps import Step, steps_done
from edi_storage.store import Store
from flows import VERSION, engines
from flows.engines.backends import Backends
from flows.engines.base import Analyzer, Editor, Engine, Mask, Reasoner, Validator
from flows.engines.base import Progress as EngineProgress
from flows.engines.photo import Photo, decode_mask, decode_photo
from flows.engines.wishes import Wishes

#: One line per thing worth telling a person; the terminal and the Prefect UI show the same lines.
log = logging.getLogger("edi")
log.setLevel(logging.INFO)


@dataclass(frozen=True)
class BuiltIn:
    """The engine of the stages that need none."""

    name: str = "edi"
    version: str = VERSION


class SessionRun:
    """What the stages share while one process holds the lease of a session.

    `state` and `seq` are those of the last committed boundary; `restored` are the steps found done.
    A plain class on purpose: Prefect copies dataclasses that are passed to tasks.
    """

    def __init__(
        self, store: Store, settings: Settings, session: SessionData, lease: Lease, flow_run_id: str | None = None
    ) -> None:
        self.store, self.settings, self.session, self.lease = store, settings, session, lease
        self.flow_run_id = flow_run_id
        commits = store.database.get_commits(session.session_id)
        self.state: Json = fold(commit.state_delta for commit in commits)
        self.seq = commits[-1].seq if commits else 0
        #: Up to which boundary this process has written checkpoints, and the newest one that it has committed.
        self._exported, self._newest = 0, None if not commits else commits[-1]
        self.restored = steps_done(self.state)
        #: The numbers of the choices that answer the intent's question, when somebody has given them.
        self.answer: list[int] = []
        #: Which variation it is to be ("2", "1, sky from 3"), when somebody has said so.
        self.choice: str | None = None
        self.waiting_for: WaitingFor | None = None
        #: Small copies of stored pictures, by path: what is shown several times is decoded once (see `flows.album`).
        self.copies: dict[str, Any] = {}
        #: The pictures of its pages that were drawn before, as text (see `flows.album`).
        self.drawn: dict[Hashable, str] = {}
        #: The page of this session in the present flow run, once there is one (see `flows.artifacts`).
        self.artifact: UUID | None = None
        #: Asks for the session to be shown as it stands; returns at once (see `flows.artifacts.Showing`).
        self.show: Callable[[], None] | None = None
        #: Told of every report of an engine, in the engine's thread: it must return at once.
        self.on_progress: Callable[[Progress], None] | None = None
        self._step: Step | None = None
        self._handles: Mapping[str, Any] = {}
        self._interrupted = self._saved_progress()
        self.autosaver = Autosaver(
            lambda state: store.checkpoints.save_session_state(session.session_id, state),
            with_checkpoint(self.state, commits[-1]) if commits else first_state(session),
            interval=settings.autosave_seconds,
            heartbeat=lambda: store.database.renew(lease, settings.lease_seconds),
            heartbeat_interval=settings.lease_seconds / 3,
        )

    @property
    def is_continued(self) -> bool:
        """Whether another process has worked on this session before; it may have been killed while it wrote."""
        return bool(self.restored or self._interrupted)

    # --- What the stages read -------------------------------------------------------------------------

    @cached_property
    def photo(self) -> Photo:
        """The original, from the copy stored at upload: the person's own file may be gone by now."""
        path = self.state["scene_analysis"]["image"]["path"]
        return decode_photo(self.store.files.read(path), self.session.image_path)

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """The masks by entity id."""
        files = self.store.files
        return {e.entity_id: decode_mask(files.read(e.mask_path)) for e in self.scene.entities if e.mask_path}

    @cached_property
    def wishes(self) -> Wishes:
        """What the person asked for beside the prompt."""
        return Wishes.of(self.session.options)

    @property
    def painted_mask(self) -> Mask | None:
        """The mask that the person gave, from the copy stored at upload."""
        path = self.state["scene_analysis"]["image"].get("mask")
        return decode_mask(self.store.files.read(path)) if path else None

    @property
    def scene(self) -> SceneAnalysis:
        """What analysis found."""
        stored = self.state["scene_analysis"]
        entities = [EntityData.model_validate(entity) for entity in stored["entities"]]
        return SceneAnalysis(entities=entities, spatial_layout=stored["spatial_layout"])

    @property
    def intent(self) -> Intent:
        """What the prompt asks for."""
        return Intent.model_validate(self.state["intent"])

    @property
    def final_prompt(self) -> PromptRecord:
        """The best prompt of the newest attempt."""
        return read_pair(self.state["prompts"]["final"])

    def prompts_of(self, attempt: int) -> list[PromptRecord]:
        """The prompts of one attempt so far, by iteration."""
        prompts = [prompt for prompt in rows_of(self.state).prompts if prompt.attempt_number == attempt]
        return sorted(prompts, key=lambda prompt: prompt.iteration)

    def attempts(self) -> dict[int, Json]:
        """What is known of each attempt: its edited image, operations and, once validated, its scores."""
        return {int(number): found for number, found in self.state.get("validation", {}).get("attempts", {}).items()}

    # Made once for the whole run: what has failed is not asked again at every stage.

    @cached_property
    def analyzer(self) -> Analyzer:
        """The engine of the analysis, or several in their order."""
        return engines.analyzer(self.settings.analyzer, backends_of(self.settings))

    @cached_property
    def reasoner(self) -> Reasoner:
        """The engine of intent and refinement, or several in their order."""
        return engines.reasoner(self.settings.reasoner, backends_of(self.settings))

    @cached_property
    def editor(self) -> Editor:
        """The engine of the edit, or several in their order."""
        return engines.editor(self.settings.editor, backends_of(self.settings))

    @cached_property
    def validator(self) -> Validator:
        """The engine of the validation, or several in their order."""
        return engines.validator(self.settings.validator, backends_of(self.settings))

    @property
    def handles(self) -> Mapping[str, Any]:
        """Handles of outside jobs that an earlier try of the present step has saved, in this process or before it."""
        saved, step = self._interrupted, self._step
        if saved is None or step is None or (saved.stage, saved.attempt) != (step.stage, step.attempt):
            return {}
        return saved.handles

    # --- What the stages write ------------------------------------------------------------------------

    def export(self) -> None:
        """Write the checkpoint of the newest boundary, and any before it that is missing."""
        if self._newest is not None and self._exported == self.seq - 1:
            export_boundary(self.store, self.state, self._newest)
        elif self._exported < self.seq:
            export_checkpoints(self.store, self.session.session_id)
        self._exported = self.seq

    def export_rest(self) -> None:
        """Write the checkpoints that are missing still, note that all are there, and remove what is not kept."""
        there = self._newest if self._exported == self.seq else None
        export_checkpoints(self.store, self.session.session_id, there)
        self._exported = self.seq

    def begin(self, step: Step) -> datetime:
        """A step starts: its name goes to the live state. Returns the time."""
        self.autosaver.check()
        self._step = step
        # With the handles of an interrupted try: a second kill must not lose them.
        self.progress(0.0, step.label, self.handles)
        return now_utc()

    def put_file(self, data: bytes, suffix: str) -> str:
        """Store a file of this session, whole, before anything refers to it. Returns its relative path."""
        return self.store.files.put(self.session.session_id, data, suffix)

    def progress(self, fraction: float, message: str, handles: Mapping[str, Any]) -> None:
        """Engines report here; a handle of an outside job is saved at once. Raises LeaseLostError."""
        self.autosaver.check()
        step, before, self._handles = self._step, self._handles, handles
        assert step is not None
        report = Progress(
            stage=step.stage,
            attempt=step.attempt,
            iteration=step.iteration,
            fraction=min(max(fraction, 0.0), 1.0),
            message=message,
            handles=dict(handles),
        )
        if handles:
            self._interrupted = report  # the next try of this step, in this very process, begins with them too
        # At once when they are new: an engine repeats them with every report.
        self.autosaver.report(report, at_once=bool(handles) and handles != before)
        if self.on_progress is not None:
            self.on_progress(report)

    def part(self, low: float, high: float) -> EngineProgress:
        """For an engine whose work is the stage's from `low` to `high` (0..1): its reports, as parts of the stage."""
        return lambda fraction, message, handles: self.progress(low + (high - low) * fraction, message, handles)

    def tell(self, fraction: float, message: str) -> None:
        """Report what the stage itself does; the handle of an outside job, if any, stays."""
        self.progress(fraction, message, self._handles)

    def commit(self, step: Step, delta: Json, engine: Engine, started_at: datetime) -> None:
        """Commit a stage boundary. Raises LeaseLostError when another process has taken over."""
        self.autosaver.check()
        delta = with_fallbacks(delta, step.label, getattr(engine, "warnings", []))
        state = merge_patch(self.state, delta)
        commit = StageCommit(
            session_id=self.session.session_id,
            seq=self.seq + 1,
            stage=step.stage,
            attempt=step.attempt,
            iteration=step.iteration,
            state_delta=delta,
            sha256=digest(state),
            engine=engine.name,
            engine_version=engine.version,
            fence=self.lease.fence,
            flow_run_id=self.flow_run_id,
            started_at=started_at,
            finished_at=now_utc(),
        )
        stored = self.store.database.commit_stage(self.lease, commit, self.settings.lease_seconds)
        self.state, self.seq, self._newest = merge_patch(self.state, stored.state_delta), stored.seq, stored
        self.autosaver.set(with_checkpoint(self.state, stored))
        # It is no part of the commit, so the next stage does not wait for its two syncs.
        if step.stage == "completed":
            self.autosaver.flush()
        else:
            self.autosaver.save_soon()

    def _saved_progress(self) -> Progress | None:
        try:
            live = self.store.checkpoints.load_session_state(self.session.session_id)
        except CheckpointError:
            return None  # a damaged live file costs only the progress; the next autosave replaces it
        return progress_of(live) if live else None


def backends_of(settings: Settings) -> Backends:
    """What the settings say of engines outside of this process."""
    named: dict[str, Any] = {field.name: getattr(settings, field.name, None) for field in fields(Backends)}
    generative = "comfyui" in [name.strip() for name in settings.editor.split(",")]
    return Backends(**(named | {"chat_key": settings.chat_key.get_secret_value(), "generative": generative}))


def engine_names(settings: Settings) -> dict[str, str]:
    """The engine, or the engines in their order, of each setting for them."""
    return {f"EDI_{name.upper()}": getattr(settings, name) for name in ("analyzer", "reasoner", "editor", "validator")}


def first_state(session: SessionData) -> Json:
    """What the live state file says before the first boundary."""
    return {
        "session_id": session.session_id,
        "current_stage": "upload",
        "image_path": session.image_path,
        "naive_prompt": session.naive_prompt,
    }


@contextmanager
def open_session(
    store: Store, settings: Settings, session: SessionData, flow_run_id: str | None = None
) -> Iterator[SessionRun]:
    """Take a session's lease (making the session if it is new) and work on it until the end of the block.

    Raises AlreadyFailedError, InputError for a session that is about something else, LeaseHeldError when it is being
    worked on, DatabaseDamagedError when its stored state is not whole.
    """
    database = store.database
    database.free_leases(is_gone, session.session_id)
    refuse_lost(store, session.session_id)
    lease = database.begin_session(session, owner_name(flow_run_id), settings.lease_seconds)
    run: SessionRun | None = None
    try:
        stored = database.load_session(session.session_id).session
        if stored.status == "failed":
            reason = (stored.failure_reason or "").rstrip(".")
            raise AlreadyFailedError(
                f"Session {stored.session_id} has failed: {reason}. `edi resume {stored.session_id}` tries again."
            )
        run = SessionRun(store, settings, stored, lease, flow_run_id)
        if run.is_continued:
            store.checkpoints.remove_temp_live_files(stored.session_id)
        with run.autosaver:
            yield run
    finally:
        database.release(lease, run.waiting_for if run else None)
