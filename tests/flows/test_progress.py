"""The progress bar of a long stage, in the Prefect UI, and what the stages report."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from edi_storage.store import Store
from tests.flows.test_artifacts import Artifact, artifacts, edit


def slow_editor(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """The embedded editor, with some reports on the way. Returns how long each report kept the engine waiting."""
    from flows.engines.editing import EmbeddedEditor

    real, waits = EmbeddedEditor.edit, []

    def slow(self: EmbeddedEditor, request: Any, progress: Any) -> Any:
        for number in range(20):
            started = time.perf_counter()
            progress(number / 20, f"part {number}", {})
            waits.append(time.perf_counter() - started)
            time.sleep(seconds / 20)
        return real(self, request, progress)

    monkeypatch.setattr(EmbeddedEditor, "edit", slow)
    return waits


def bars(server: str, flow_run_id: str) -> list[Artifact]:
    return [found for found in artifacts(server, flow_run_id={"any_": [flow_run_id]}) if found["type"] == "progress"]


def test_a_long_stage_has_a_bar_as_long_as_it_takes(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import progress

    seen: list[tuple[float, str]] = []
    shown: list[Artifact] = []
    real = progress.update_progress_artifact

    def update(bar: Any, percent: float, description: str) -> Any:
        seen.append((percent, description))
        real(bar, percent, description=description)
        shown.extend(artifacts(server, id={"any_": [str(bar)]}))

    monkeypatch.setattr(progress, "update_progress_artifact", update)
    waits = slow_editor(monkeypatch, 5.0)
    edit("long")
    run_id = str(store.database.get_commits("long")[-1].flow_run_id)
    assert bars(server, run_id) == [], "what is done needs no bar"
    assert [(bar["data"], bar["description"]) for bar in shown] == seen
    assert all(bar["task_run_id"] for bar in shown)
    moved = [percent for percent, description in seen if re.fullmatch(r"edit: part \d+, \d+ s so far", description)]
    assert len(moved) >= 2
    assert moved == sorted(moved)
    assert len(set(moved)) == len(moved)
    assert len(moved) <= 6, "once a second, however often the engine reports"
    assert sorted(waits)[len(waits) // 2] < 0.01, "no report waits for the server"


def test_short_stages_leave_no_bar(store: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import progress

    # This machine may be busy: what is long is said here.
    monkeypatch.setattr(progress.ProgressBar.__init__, "__defaults__", (60.0, 1.0))
    edit("quick")
    assert bars(server, str(store.database.get_commits("quick")[-1].flow_run_id)) == []


def test_a_bar_that_cannot_be_made_costs_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import progress

    tried: list[float] = []

    def refuses(percent: float, **_: Any) -> Any:
        tried.append(percent)
        raise RuntimeError("no server")

    monkeypatch.setattr(progress, "create_progress_artifact", refuses)
    slow_editor(monkeypatch, 3.0)
    assert edit("barless")["status"] == "completed"
    assert tried


def test_stages_report_in_order_and_keep_the_handle_of_an_outside_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.engines.editing import EmbeddedEditor
    from flows.session import SessionRun

    reports: list[tuple[str, float, Any]] = []
    real_edit, real = EmbeddedEditor.edit, SessionRun.progress

    def with_job(self: EmbeddedEditor, request: Any, progress: Any) -> Any:
        progress(0.5, "sent", {"outside": {"job": "7"}})
        return real_edit(
            self, request, lambda fraction, message, _: progress(fraction, message, {"outside": {"job": "7"}})
        )

    def note(self: SessionRun, fraction: float, message: str, handles: Any) -> None:
        assert self._step is not None
        reports.append((self._step.label, fraction, dict(handles)))
        real(self, fraction, message, handles)

    monkeypatch.setattr(EmbeddedEditor, "edit", with_job)
    monkeypatch.setattr(SessionRun, "progress", note)
    edit("ordered")
    for label in ("analysis", "validation"):
        fractions = [fraction for step, fraction, _ in reports if step == label]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] <= fractions[-1] <= 1
    assert [handles for step, _, handles in reports if step == "edit"][-1] == {"outside": {"job": "7"}}
    assert [handles for step, _, handles in reports if step == "validation"][-1] == {}
