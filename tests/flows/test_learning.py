"""Learning end to end, with the real command: what people reject is chosen less, and nothing that they said is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from edi_storage.connection import reading
from edi_storage.store import open_store
from flows.cli import app
from tests import homes
from tests.flows.conftest import PALACE, Edi, all_is_well

PROMPT = "make the sky dramatic"
USUAL = "dramatic sky: usual"
#: Enough that a preset which nobody likes is hardly chosen any more; with thirty as the promise says, in two minutes.
SESSIONS = int(os.environ.get("EDI_TEST_LEARNING_SESSIONS", "10"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A photo that is edited in a second."""
    path = tmp_path / "small.jpg"
    with Image.open(PALACE) as photo:
        photo.convert("RGB").resize((300, 200)).save(path, quality=92)
    return path


def rows(edi: Edi, query: str) -> list[tuple[Any, ...]]:
    with homes.database(edi.home) as database, reading(database.engine) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def decided(edi: Edi, session_id: str) -> Any:
    with open_store(homes.settings_of(edi.home)) as store:
        return store.database.get_decisions(session_id)[0]


def rate(edi: Edi, monkeypatch: pytest.MonkeyPatch, session_ids: list[str], *said: str) -> None:
    """`edi feedback`, in this process: thirty starts of Python would take a minute."""
    homes.enter(monkeypatch, edi.home)
    for session_id in session_ids:
        done = CliRunner().invoke(app, ["feedback", session_id, *said])
        assert done.exit_code == 0, done.output


def test_a_preset_that_is_rejected_again_and_again_is_chosen_less(
    edi: Edi, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(SESSIONS):
        (folder / f"{number}.jpg").write_bytes(small.read_bytes())
    edi.json("batch", str(folder), "--prompt", PROMPT, "--workers", "2")
    before = {row[0] for row in rows(edi, "SELECT session_id FROM decisions")}
    assert len(before) == SESSIONS
    # Nothing was learned yet: the usual, and nothing else.
    assert rows(edi, "SELECT DISTINCT preset, propensity, profile_version, holdout FROM decisions") == [
        (USUAL, 1.0, None, 0)
    ]
    rate(edi, monkeypatch, sorted(before), "reject", "--reason", "tone")
    assert edi.json("learn")["new_events"] == SESSIONS
    edi.json("edit", str(small), PROMPT, "--session-id", "next-1")
    decision = decided(edi, "next-1")
    assert decision.profile_version == 1
    assert len(decision.probabilities) == 5
    assert decision.probabilities[USUAL] < 0.2
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    (change,) = [one for one in edi.json("learn")["changes"] if one["now"]["what"] == "dramatic sky"]
    assert change["before"] == USUAL != change["now"]["favourite"]["name"], "the report names it"
    edi.json("edit", str(small), PROMPT, "--session-id", "without", "--no-learning")
    assert decided(edi, "without").probabilities == {USUAL: 1.0}
    assert all_is_well(edi)


def test_what_a_person_says_is_not_overridden(edi: Edi, small: Path) -> None:
    edi.json("edit", str(small), "make the sky a bit stormy", "--session-id", "named")
    decision = decided(edi, "named")
    assert (decision.engine, decision.preset, decision.strength) == ("none", "", 0)
    edi.json("edit", str(small), PROMPT, "--session-id", "strong", "--strength", "normal")
    decision = decided(edi, "strong")
    assert (decision.preset, decision.strength) == (USUAL, 0)


def test_without_consent_nothing_is_learned(edi: Edi, small: Path) -> None:
    edi.json("edit", str(small), PROMPT, "--session-id", "private", "--consent", "none")
    edi("feedback", "private", "reject", "--comment", "too strong")
    assert edi.json("learn")["new_events"] == 0
    assert rows(edi, "SELECT consent FROM sessions") == [("none",)]
    assert rows(edi, "SELECT count(*) FROM feedback_events") == [(0,)]
    assert len(rows(edi, "SELECT id FROM user_feedback")) == 1
    homes.lose_database(edi.home)
    edi.json("doctor", "--repair")
    assert rows(edi, "SELECT consent FROM sessions") == [("none",)]
    assert rows(edi, "SELECT count(*) FROM feedback_events") == [(0,)]


def test_a_resumed_session_keeps_its_decision(edi: Edi, small: Path) -> None:
    edi.killed("hook", "refine 1", "edit", str(small), PROMPT, "--session-id", "killed")
    made = rows(edi, "SELECT preset, strength, seed, created_at FROM decisions")
    edi.json("resume", "killed")
    assert rows(edi, "SELECT preset, strength, seed, created_at FROM decisions") == made
    assert all_is_well(edi)
