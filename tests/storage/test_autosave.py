"""Autosaver: when it saves, what it never loses, and when it stops."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edi_storage.autosave import Autosaver, Progress, progress_of, with_progress, without_progress
from edi_storage.checkpoints import SessionStateManager
from edi_storage.errors import DatabaseBusyError, InputError, LeaseLostError, SessionGoneError, StorageFullError
from edi_storage.state import Json, digest

#: No test waits for this long unless it fails.
PATIENCE = 20


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Saves:
    """A place to save to: remembers the states, fails on demand, and counts writers at work at once."""

    def __init__(self) -> None:
        self.states: list[Json] = []
        self.error: Exception | None = None
        self.saved = threading.Condition()
        self.writers = self.most_writers = 0

    def __call__(self, state: Json) -> None:
        with self.saved:
            self.writers += 1
            self.most_writers = max(self.most_writers, self.writers)
        try:
            if self.error:
                raise self.error
            os.sched_yield()
        finally:
            with self.saved:
                self.writers -= 1
        with self.saved:
            self.states.append(state)
            self.saved.notify_all()

    def wait_for(self, count: int) -> None:
        with self.saved:
            assert self.saved.wait_for(lambda: len(self.states) >= count, PATIENCE)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def saves() -> Saves:
    return Saves()


def make(saves: Saves, clock: Clock, state: Mapping[str, Any] | None = None, **options: Any) -> Autosaver:
    """A saver without a thread: the test is the thread and calls `tick`."""
    return Autosaver(saves, state, clock=clock, **options)


def pass_time(saver: Autosaver, clock: Clock, seconds: float) -> None:
    for _ in range(int(seconds)):
        clock.now += 1
        saver.tick()


# --- When it saves -----------------------------------------------------------------------------------


def test_nothing_is_saved_while_nothing_changes(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, {"a": 1})
    pass_time(saver, clock, 60)
    saver.update({"a": 1})
    saver.set({"a": 1})
    saver.stop()
    assert saves.states == []


def test_a_change_is_saved_once_at_the_next_interval(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, {"a": 1})
    saver.update({"b": {"c": 2}})
    pass_time(saver, clock, 4)
    assert saves.states == []
    pass_time(saver, clock, 1)
    assert saves.states == [{"a": 1, "b": {"c": 2}}]
    pass_time(saver, clock, 60)
    assert len(saves.states) == 1


def test_many_changes_are_saved_together_every_interval(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock)
    for second in range(20):
        saver.update({"second": second})
        pass_time(saver, clock, 1)
    assert [state["second"] for state in saves.states] == [4, 9, 14, 19]


def test_a_significant_change_is_saved_before_the_call_returns(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, {"a": 1})
    saver.update({"b": 2})
    saver.significant({"c": 3})
    assert saves.states == [{"a": 1, "b": 2, "c": 3}]
    pass_time(saver, clock, 10)
    assert len(saves.states) == 1


def test_updates_merge_and_set_replaces(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, {"a": {"x": 1, "y": 2}, "b": 1})
    saver.update({"a": {"y": None, "z": 3}})
    assert saver.state == {"a": {"x": 1, "z": 3}, "b": 1}
    saver.set({"c": 1})
    assert saver.state == {"c": 1}
    assert saver.dirty


def test_what_the_caller_changes_later_is_not_saved_unasked(saves: Saves, clock: Clock) -> None:
    inner = {"n": 1}
    saver = make(saves, clock, {"inner": inner})
    changes = {"more": [1]}
    saver.update(changes)
    inner["n"] = 2
    changes["more"].append(2)
    saver.flush()
    assert saves.states == [{"inner": {"n": 1}, "more": [1]}]


def test_a_watched_mapping_is_looked_at_every_interval_and_at_the_end(saves: Saves, clock: Clock) -> None:
    mine: Json = {"a": {"n": 1}}
    saver = make(saves, clock, mine, watch=mine)
    pass_time(saver, clock, 10)
    assert saves.states == []
    mine["a"]["n"] = 2
    pass_time(saver, clock, 5)
    mine["b"] = 3
    saver.stop()
    assert saves.states == [{"a": {"n": 2}}, {"a": {"n": 2}, "b": 3}]


def test_stop_saves_the_last_change_and_only_once(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock)
    saver.update({"a": 1})
    saver.stop()
    saver.stop()
    assert saves.states == [{"a": 1}]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("interval", "beat"),
    [(0, None), (-1, None), (NAN, None), (INF, None), (86_401, None), (5, 0), (5, NAN), (5, INF), (5, 1e12)],
)
def test_intervals_must_be_positive_and_end(saves: Saves, clock: Clock, interval: float, beat: float | None) -> None:
    with pytest.raises(InputError, match="more than 0 and at most 86400"):
        make(saves, clock, interval=interval, heartbeat_interval=beat)


@pytest.mark.parametrize("interval", [INF, NAN, 1e12])
def test_auto_save_state_starts_no_thread_with_a_bad_interval(tmp_path: Any, interval: float) -> None:
    state: Json = {"session_id": "s1", "current_stage": "upload", "image_path": "a.jpg", "naive_prompt": "p"}
    with pytest.raises(InputError, match="at most 86400"):
        SessionStateManager(tmp_path).auto_save_state("s1", state, interval)
    assert not [thread for thread in threading.enumerate() if thread.name == "edi-autosave"]


# --- When saving fails -------------------------------------------------------------------------------


def test_a_failed_save_is_logged_kept_and_tried_again(
    saves: Saves, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    saver = make(saves, clock)
    saves.error = StorageFullError()
    saver.significant({"a": 1})
    assert (saver.error, saver.dirty) == (saves.error, True)
    assert "disk is full" in caplog.text
    assert "Traceback" not in caplog.text
    saves.error = None
    pass_time(saver, clock, 5)
    assert saves.states == [{"a": 1}]
    assert (saver.error, saver.dirty) == (None, False)


def test_a_change_made_during_a_save_is_saved_by_the_next(clock: Clock) -> None:
    states: list[Json] = []

    def save(state: Json) -> None:
        if not states:
            saver.update({"b": 2})
        states.append(state)

    saver = Autosaver(save, clock=clock)
    saver.significant({"a": 1})
    assert saver.dirty
    pass_time(saver, clock, 5)
    assert states == [{"a": 1}, {"a": 1, "b": 2}]


# --- The lease ---------------------------------------------------------------------------------------


def test_the_heartbeat_goes_on_while_nothing_changes(saves: Saves, clock: Clock) -> None:
    beats: list[float] = []
    saver = make(saves, clock, heartbeat=lambda: beats.append(clock.now), heartbeat_interval=10)
    pass_time(saver, clock, 30)
    assert beats == [1010, 1020, 1030]
    assert saves.states == []


@pytest.mark.parametrize("error", [LeaseLostError(), SessionGoneError()])
def test_after_the_lease_is_lost_nothing_is_saved_any_more(
    saves: Saves, clock: Clock, error: LeaseLostError | SessionGoneError
) -> None:
    def heartbeat() -> None:
        raise error

    saver = make(saves, clock, heartbeat=heartbeat)
    saver.check()
    saver.update({"a": 1})
    pass_time(saver, clock, 5)
    with pytest.raises(type(error)):
        saver.check()
    saver.significant({"b": 1})
    pass_time(saver, clock, 20)
    saver.stop()
    assert saves.states == []
    assert saver.lost is error


def test_who_slept_through_a_takeover_finds_out_before_saving(saves: Saves, clock: Clock) -> None:
    def heartbeat() -> None:
        raise LeaseLostError

    saver = make(saves, clock, heartbeat=heartbeat, heartbeat_interval=10)
    clock.now += 3600
    saver.significant({"a": 1})
    assert saves.states == []


def test_a_heartbeat_that_fails_for_a_moment_is_tried_again(
    saves: Saves, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    beats: list[int] = []

    def heartbeat() -> None:
        beats.append(1)
        if len(beats) == 1:
            raise DatabaseBusyError

    saver = make(saves, clock, heartbeat=heartbeat)
    saver.update({"a": 1})
    pass_time(saver, clock, 10)
    saver.check()
    assert len(beats) == 2
    assert saves.states == [{"a": 1}]
    assert "could not be renewed" in caplog.text


# --- The thread --------------------------------------------------------------------------------------


def test_the_thread_saves_and_beats_and_ends(saves: Saves) -> None:
    beaten = threading.Event()
    with Autosaver(saves, interval=0.01, heartbeat=beaten.set, heartbeat_interval=0.01) as saver:
        assert saver.start() is saver
        saver.update({"a": 1})
        saves.wait_for(1)
        assert beaten.wait(PATIENCE)
        saver.update({"a": 2})
    assert saves.states[-1] == {"a": 2}
    assert not [thread for thread in threading.enumerate() if thread.name == "edi-autosave"]


def test_the_thread_sleeps_until_something_is_due(saves: Saves, clock: Clock) -> None:
    pauses: list[float] = []

    def wait(_: threading.Event, seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds
        if len(pauses) == 6:
            saver._end.set()

    saver = make(saves, clock, interval=5, heartbeat=lambda: None, heartbeat_interval=2, wait=wait)
    saver._run()
    assert pauses == [2, 2, 1, 1, 2, 2]


def test_what_is_to_be_saved_soon_does_not_wait_for_the_interval(saves: Saves) -> None:
    with Autosaver(saves, interval=3600) as saver:
        for number in (1, 2):
            saver.set({"a": number})
            saver.save_soon()
            saves.wait_for(number)
    assert saves.states == [{"a": 1}, {"a": 2}]


def test_what_is_to_be_saved_soon_again_and_again_is_saved_twice_a_second(saves: Saves, clock: Clock) -> None:
    pauses: list[float] = []

    def wait(_: threading.Event, seconds: float) -> None:
        # The stages are faster than the pauses.
        pauses.append(seconds)
        clock.now += min(seconds, 0.125)
        saver.set({"a": len(pauses)})
        saver.save_soon()
        if len(pauses) == 9:
            saver._end.set()

    saver = make(saves, clock, interval=3600, wait=wait)
    saver._run()
    assert pauses == [3600, 0.375, 0.25, 0.125, 3600, 0.375, 0.25, 0.125, 3600]
    assert saves.states == [{"a": 4}, {"a": 8}]


def test_the_thread_ends_when_the_lease_is_lost(saves: Saves) -> None:
    def heartbeat() -> None:
        raise LeaseLostError

    saver = Autosaver(saves, interval=0.01, heartbeat=heartbeat).start()
    assert saver._thread is not None
    saver._thread.join(PATIENCE)
    assert not saver._thread.is_alive()
    with pytest.raises(LeaseLostError):
        saver.check()
    saver.stop()


def test_never_two_writers_at_once_and_nothing_lost(saves: Saves) -> None:
    def work(number: int) -> None:
        order = random.Random(number)
        for step in range(60):
            change = {str(number): step}
            order.choice([saver.significant, saver.update])(change)

    with Autosaver(saves, interval=0.001, heartbeat=lambda: None, heartbeat_interval=0.001) as saver:
        workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)
    assert saves.most_writers == 1
    assert saves.states[-1] == {str(number): 59 for number in range(6)}
    for before, after in zip(saves.states, saves.states[1:], strict=False):
        assert all(after[number] >= step for number, step in before.items())


def test_a_forgotten_saver_does_not_keep_the_process_from_ending() -> None:
    code = "from edi_storage.autosave import Autosaver; Autosaver(print, interval=3600).start()"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_forked_child_leaves_the_session_to_its_parent() -> None:
    # In a process of its own: forking the test process would copy its threads' locks too.
    code = """
import os
from edi_storage.autosave import Autosaver
saver = Autosaver(lambda state: print(state, flush=True), interval=3600).start()
saver.update({"a": 1})
saver._lock.acquire()
if os.fork() == 0:
    saver.significant({"child": 1})
    saver.stop()
    os._exit(0)
assert os.wait()[1] == 0
saver._lock.release()
saver.stop()
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{'a': 1}\n"), done.stderr


# --- Progress ----------------------------------------------------------------------------------------

PLAIN = {"session_id": "s1", "scene_analysis": {"entities": [], "spatial_layout": "sky on top"}}


def test_progress_is_reported_and_read_back(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, PLAIN)
    progress = Progress(stage="edit", attempt=2, fraction=0.5, message="half", handles={"comfyui": {"prompt_id": "p"}})
    saver.report(progress, at_once=True)
    assert progress_of(saves.states[-1]) == progress
    assert saves.states[-1]["scene_analysis"]["spatial_layout"] == "sky on top"


def test_progress_replaces_earlier_progress_with_its_handles(saves: Saves, clock: Clock) -> None:
    saver = make(saves, clock, PLAIN)
    saver.report(Progress(stage="edit", attempt=1, handles={"comfyui": "old"}), at_once=True)
    saver.report(Progress(stage="edit", attempt=2))
    assert len(saves.states) == 1
    found = progress_of(saver.state)
    assert found is not None
    assert (found.attempt, found.handles) == (2, {})


@pytest.mark.parametrize(
    "state", [{}, {"scene_analysis": None}, {"scene_analysis": {"progress": 1}}, {"scene_analysis": {"progress": {}}}]
)
def test_no_readable_progress_is_none(state: Json) -> None:
    assert progress_of(state) is None


@given(st.dictionaries(st.sampled_from(["entities", "image"]), st.integers()), st.floats(0, 1))
def test_progress_leaves_no_trace_when_taken_out(scene: Json, fraction: float) -> None:
    state = {"session_id": "s1", **({"scene_analysis": scene} if scene else {})}
    busy = with_progress(state, Progress(stage="edit", fraction=fraction))
    assert digest(without_progress(busy)) == digest(state)
    assert "progress" not in scene


def test_auto_save_state_is_running_and_follows_the_callers_dict(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    manager = SessionStateManager(tmp_path)
    state: Json = {"session_id": "s1", "current_stage": "upload", "image_path": "a.jpg", "naive_prompt": "p"}
    saver = manager.auto_save_state("s1", state)
    assert saver.interval == 5
    loaded = manager.load_session_state("s1")
    assert loaded is not None
    assert loaded["current_stage"] == "upload"
    state["current_stage"] = "analysis"
    saver.significant({"validation": {"score": 0.5}})
    saver.start()
    saver.stop()
    loaded = manager.load_session_state("s1")
    assert loaded is not None
    assert (loaded["current_stage"], loaded["validation"]) == ("analysis", {"score": 0.5})
    assert caplog.text == ""
