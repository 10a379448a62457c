"""The autosaver: a thread that saves the live state every few seconds while something changed, and at once
after a significant event or a boundary, and that renews the lease meanwhile.

What it saves is a convenience for people and for outside jobs, never the truth: stage commits are. So a
failed save is logged and tried again, and does not fail the stage. A lost lease does: nothing is saved any
more, and `check` raises it for the worker.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pydantic import Field, ValidationError

from edi_storage.errors import EdiError, InputError, LeaseLostError, SessionGoneError
from edi_storage.models import BoundaryStage
from edi_storage.record import Count, JsonObject, Ordinal, Record, Text, Unit, UtcTime, now_utc
from edi_storage.state import Json, make_patch, merge_patch

_log = logging.getLogger(__name__)


class Progress(Record):
    """How far a running stage is: `scene_analysis.progress` of the live state file, and of no checkpoint."""

    stage: BoundaryStage
    attempt: Ordinal = 1
    iteration: Count = 0
    #: None where the stage cannot tell.
    fraction: Unit | None = None
    message: Text = ""
    #: What is needed to find an outside job again, by backend, for example {"comfyui": {"prompt_id": "..."}}.
    handles: JsonObject = Field(default_factory=dict)
    at: UtcTime = Field(default_factory=now_utc)


def progress_of(state: Mapping[str, Any]) -> Progress | None:
    """The progress a live state carries; None where there is none, or none that can be read."""
    scene = state.get("scene_analysis")
    found = scene.get("progress") if isinstance(scene, Mapping) else None
    try:
        return None if found is None else Progress.model_validate(found)
    except ValidationError:
        return None


def with_progress(state: Mapping[str, Any], progress: Progress) -> Json:
    """The state with this progress in place of any other, so that no handle of an earlier attempt stays."""
    fields = progress.model_dump(mode="json", exclude_none=True)
    return merge_patch(without_progress(state), {"scene_analysis": {"progress": fields}})


def without_progress(state: Mapping[str, Any]) -> Json:
    """The state as a checkpoint holds it."""
    scene = state.get("scene_analysis")
    if not isinstance(scene, Mapping) or "progress" not in scene:
        return dict(state)
    return {**state, "scene_analysis": {key: value for key, value in scene.items() if key != "progress"}}


def _boot_clock() -> float:
    """Seconds that also count while the machine sleeps, as a lease does, where the system has such a clock."""
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock_id is None else time.clock_gettime(clock_id)


def _warn(what: str, error: Exception) -> None:
    _log.warning("%s: %s", what, error, exc_info=_log.isEnabledFor(logging.DEBUG))


#: A longer interval protects nothing, and a thread cannot wait for ever: `Event.wait` refuses.
_MAX_SECONDS = 86_400

#: Seconds between two saves that are asked for soon: each takes two syncs, and stages that follow at once need but one.
_SOON = 0.5


class Autosaver:
    """Saves one session's live state from one thread; a context manager.

    `save` takes the whole state. It is called every `interval` seconds while something changed, and by
    `significant` and `stop` in the caller's thread, never twice at the same time, and never after the lease
    was lost. `heartbeat`, if given, is called every `heartbeat_interval` seconds; LeaseLostError and
    SessionGoneError from it end all saving. `watch`, if given, is a mapping its owner changes in place: it is
    looked at before every save. `clock` gives seconds, `wait` sleeps until an event is set or a time has passed.
    """

    def __init__(
        self,
        save: Callable[[Json], object],
        state: Mapping[str, Any] | None = None,
        *,
        interval: float = 5.0,
        heartbeat: Callable[[], object] | None = None,
        heartbeat_interval: float | None = None,
        watch: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = _boot_clock,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        beat_every = interval if heartbeat_interval is None else heartbeat_interval
        if not (0 < interval <= _MAX_SECONDS and 0 < beat_every <= _MAX_SECONDS):
            raise InputError(
                f"The seconds between autosaves and between heartbeats must be more than 0 and at most {_MAX_SECONDS}."
            )
        self.interval = interval
        self.heartbeat_interval = beat_every
        #: Why saving ended for good: another process took the session over, or it was deleted.
        self.lost: EdiError | None = None
        #: Why the last save failed; None once one has worked again.
        self.error: Exception | None = None
        self._save, self._heartbeat = save, heartbeat
        self._clock, self._wait = clock, wait
        # `_lock` guards the state and is held for moments; `_work` is held during a save or a heartbeat.
        self._lock, self._work = threading.Lock(), threading.Lock()
        self._state: Json = copy.deepcopy(dict(state or {}))
        self._version = self._saved = 0
        self._watch, self._seen = watch, copy.deepcopy(dict(watch or {}))
        self._last_look = self._last_beat = clock()
        self._end, self._wake, self._soon = threading.Event(), threading.Event(), False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self) -> Self:
        """Start the thread; again is a no-op."""
        if self._thread is None and not self._end.is_set():
            # A daemon: a forgotten saver must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="edi-autosave", daemon=True)
            self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def state(self) -> Json:
        """A copy of the state as it would be saved now."""
        with self._lock:
            return copy.deepcopy(self._state)

    @property
    def dirty(self) -> bool:
        """Whether something changed since the last save that worked."""
        with self._lock:
            return self._version != self._saved

    def set(self, state: Mapping[str, Any]) -> None:
        """Replace the state; saved at the next interval when it is another one."""
        whole = copy.deepcopy(dict(state))
        self._change(lambda _: whole)

    def update(self, changes: Mapping[str, Any]) -> None:
        """Merge changes into the state (RFC 7396: null removes); saved at the next interval."""
        patch = copy.deepcopy(dict(changes))
        self._change(lambda state: merge_patch(state, patch))

    def report(self, progress: Progress, *, at_once: bool = False) -> None:
        """Say how far the stage is. `at_once` for the handle of an outside job: it must not be lost."""
        self._change(lambda state: with_progress(state, progress))
        if at_once:
            self.flush()

    def significant(self, changes: Mapping[str, Any]) -> None:
        """Merge changes and save before returning."""
        self.update(changes)
        self.flush()

    def save_soon(self) -> None:
        """Have the thread save what has changed, half a second after the last time; the caller does not wait for it."""
        if not self._forked():
            self._soon = True
            self._wake.set()

    def flush(self) -> None:
        """Save now what has changed, in the caller's thread."""
        if not self._forked():
            self._look(beat=self._beat_is_due(), save=True)

    def check(self) -> None:
        """Raise LeaseLostError or SessionGoneError if a heartbeat has met one."""
        if self.lost is not None:
            raise self.lost

    def stop(self) -> None:
        """Save the last change, end the thread and wait for it. Again is a no-op."""
        if self._forked() or self._end.is_set():
            return
        self._end.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.flush()

    def tick(self) -> None:
        """What the thread does every time it wakes: whatever is due by the clock."""
        due = self._clock() >= self._save_at()
        if due:
            self._soon, self._last_look = False, self._clock()
        self._look(beat=self._beat_is_due(), save=due)

    def _run(self) -> None:
        while not self._end.is_set() and self.lost is None:
            self._wait(self._wake, self._pause())
            self._wake.clear()
            if not self._end.is_set():
                self.tick()

    def _pause(self) -> float:
        """Seconds until something is due."""
        due = self._save_at()
        if self._heartbeat is not None:
            due = min(due, self._last_beat + self.heartbeat_interval)
        return max(0.0, due - self._clock())

    def _save_at(self) -> float:
        return self._last_look + (min(_SOON, self.interval) if self._soon else self.interval)

    def _beat_is_due(self) -> bool:
        if self._heartbeat is None or self.lost is not None:
            return False
        return self._clock() - self._last_beat >= self.heartbeat_interval

    def _look(self, *, beat: bool, save: bool) -> None:
        with self._work:
            # The heartbeat first: who slept through a takeover must not write over the new owner's file.
            if beat:
                self._beat()
            if save and self.lost is None:
                self._save_changes()

    def _beat(self) -> None:
        assert self._heartbeat is not None
        self._last_beat = self._clock()
        try:
            self._heartbeat()
        except (LeaseLostError, SessionGoneError) as error:
            self.lost = error
            _log.warning("Autosave ended: %s", error)
        except Exception as error:  # noqa: BLE001 - a database busy for a moment is no lost lease
            _warn(f"The lease could not be renewed, trying again in {self.heartbeat_interval:g} s", error)

    def _save_changes(self) -> None:
        try:
            self._take_watched()
            with self._lock:
                state, version = self._state, self._version
            if version != self._saved:
                # Handed out without a copy: a change makes a new state and leaves this one as it is.
                self._save(state)
                with self._lock:
                    self._saved = version
            self.error = None
        except Exception as error:  # noqa: BLE001 - a state not saved now is saved later, and the stage goes on
            self.error = error
            _warn(f"The state could not be saved, trying again in {self.interval:g} s", error)

    def _take_watched(self) -> None:
        if self._watch is not None:
            present = copy.deepcopy(dict(self._watch))
            changes = make_patch(self._seen, present)
            self._seen = present
            self.update(changes)

    def _change(self, changed: Callable[[Json], Json]) -> None:
        if self._forked():
            return
        with self._lock:
            state = changed(self._state)
            if state != self._state:
                self._state = state
                self._version += 1

    def _forked(self) -> bool:
        """In a forked child the thread is gone and a lock may be held for ever; the session is the parent's."""
        return os.getpid() != self._pid
