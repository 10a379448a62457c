"""Folding: whatever people say, change, delete or interrupt, the cells are those of counting everything anew."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select

from edi_storage import EDIDatabase, learning_queries
from edi_storage.connection import reading
from edi_storage.errors import EdiError
from edi_storage.learning import learn
from edi_storage.learning_tables import FeedbackEventRow, LearningRunRow
from edi_storage.models import UserFeedback
from edi_storage.wording import reasons_of, terms_of
from tests.learning.people import Learned, add_session, count_of, verdict
from tests.learning.worlds import Counts


class Interrupted(Exception):
    """Stands for a process that dies."""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """An empty database, made once: to copy it takes a tenth of the time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        EDIDatabase(str(path)).close()
        yield path


OPERATIONS = ("session", "verdict", "verdict", "verdict", "delete", "fold", "learn", "die while folding", "die rating")
histories = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 2**32)), min_size=1, max_size=40)


@settings(max_examples=25)
@given(histories)
def test_incremental_is_the_same_as_counting_again(template: Path, history: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edi.db"
        shutil.copy(template, path)
        with EDIDatabase(str(path)) as database:
            live(database, history)


def test_so_it_is_on_any_database(database_url: str) -> None:
    rng = random.Random(5)
    with EDIDatabase(database_url) as database:
        live(database, [("session", 1)] + [(rng.choice(OPERATIONS), rng.getrandbits(32)) for _ in range(120)])


def test_so_it_is_when_each_transaction_folds_in_three(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_queries, "EVENTS_A_RUN", 3)
    rng = random.Random(6)
    with EDIDatabase(database_url) as database:
        live(database, [("session", 1)] + [(rng.choice(OPERATIONS), rng.getrandbits(32)) for _ in range(120)])


def live(database: EDIDatabase, history: list[tuple[str, int]]) -> None:
    """Go through a history, and check at its end that nothing was lost or doubled."""
    sessions: list[str] = []
    for number, (operation, seed) in enumerate(history):
        rng = random.Random(seed)
        match operation:
            case "session":
                sessions.append(f"s-{number}")
                add_session(database, sessions[-1], rng)
            case "fold":
                database.fold_feedback()
            case "learn":
                learn(database)
            case "die while folding":
                dying(database, database.fold_feedback)
            case _ if not sessions:
                pass
            case "verdict":
                database.save_feedback(rng.choice(sessions), verdict(rng))
            case "die rating":
                dying(database, lambda rng=rng: database.save_feedback(rng.choice(sessions), verdict(rng)))
            case "delete":
                database.delete_session(sessions.pop(rng.randrange(len(sessions))))
    check(database, sessions)


def dying(database: EDIDatabase, act: object) -> None:
    """Do something whose transaction is broken off right before its COMMIT."""

    def die(connection: object) -> None:
        raise Interrupted

    event.listen(database.engine, "commit", die, once=True)
    try:
        act()  # type: ignore[operator]
    except (Interrupted, EdiError):
        pass
    finally:
        if event.contains(database.engine, "commit", die):
            event.remove(database.engine, "commit", die)


def check(database: EDIDatabase, sessions: list[str]) -> None:
    learn(database)
    folded = Learned.of(database)
    assert database.fold_feedback().events == 0
    before = database.active_profile()
    learn(database)
    assert database.active_profile() == before
    assert Learned.of(database) == folded
    database.recount_feedback()
    assert Learned.of(database) == folded
    with reading(database.engine) as connection:
        remembered = set(connection.scalars(select(FeedbackEventRow.session_id)))
    assert remembered <= set(sessions), "a deleted session is remembered"
    consenting = [name for name in sessions if database.require_session(name).consent != "none"]
    said = [feedback for name in consenting for feedback in database.get_feedback(name)]
    assert count_of(database) == len(said)
    check_by_hand(
        folded,
        [(database.require_session(name).naive_prompt, f) for name in consenting for f in database.get_feedback(name)],
    )


def check_by_hand(folded: Learned, said: list[tuple[str, UserFeedback]]) -> None:
    """The sums over all cells, counted again by other code."""
    for kind, name in (("accept", "accepted"), ("partial", "partial"), ("reject", "rejected")):
        of_kind = [feedback for _, feedback in said if feedback.feedback_type == kind]
        assert sum(cell[name] for cell in folded.cells) == len(of_kind)
        assert sum(score[name] for score in folded.scores) == len(of_kind)
    assert sum(cell.rating_sum for cell in folded.cells) == sum(feedback.rating or 0 for _, feedback in said)
    reasons = [reason for _, f in said for reason in reasons_of(f.comments or "", f.reasons)]
    # A comment that says nothing known beside an accept is a kind word.
    kind = sum(f.feedback_type == "accept" and reasons_of(f.comments or "", f.reasons) == ["other"] for _, f in said)
    assert sum(cell["other"] for cell in folded.cells) == reasons.count("other") - kind
    for name in ("too_strong", "edges", "colour", "artifact"):
        assert sum(cell[name] for cell in folded.cells) == reasons.count(name.replace("_", " "))
    terms = [term for prompt, _ in said for term in terms_of(prompt)]
    assert sum(cell.count for cell in folded.terms) == len(terms)
    assert {cell.term for cell in folded.terms} == set(terms)


# --- Several processes -------------------------------------------------------------------------------

RATE = """
import random, sys
from edi_storage import EDIDatabase
from tests.learning.people import verdict
rng = random.Random(int(sys.argv[2]))
with EDIDatabase(sys.argv[1]) as database:
    print("ready", flush=True); input()
    for number in range(int(sys.argv[3])):
        database.save_feedback(f"s-{rng.randrange(10)}", verdict(rng))
"""
LEARN = """
import sys
from edi_storage import EDIDatabase
from edi_storage.learning import learn
events = 0
with EDIDatabase(sys.argv[1]) as database:
    print("ready", flush=True); input()
    for number in range(int(sys.argv[3])):
        events += learn(database).new_events
print(events, flush=True)
"""


def process(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_two_writers_and_two_learners_count_every_event_once(database_url: str) -> None:
    with EDIDatabase(database_url) as database:
        for number in range(10):
            add_session(database, f"s-{number}", random.Random(number))
        writers = [process(RATE, database_url, seed, 30) for seed in (1, 2)]
        learners = [process(LEARN, database_url, 0, 30) for _ in range(2)]
        everybody = [*writers, *learners]
        for one in everybody:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        told = []
        for one in everybody:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        for one in everybody:
            told.append(one.communicate(timeout=120)[0])
            assert one.returncode == 0
        learned = sum(int(text) for text in told[2:]) + learn(database).new_events
        with reading(database.engine) as connection:
            events = connection.scalar(select(func.count()).select_from(FeedbackEventRow))
            runs = connection.execute(
                select(LearningRunRow.seq_from, LearningRunRow.seq_to).order_by(LearningRunRow.seq_from)
            ).all()
        assert learned == events
        assert [run.seq_from for run in runs[1:]] == [run.seq_to for run in runs[:-1]]
        check(database, [f"s-{number}" for number in range(10)])
        assert len(database.profiles()) >= 1
        assert [profile.status for profile in database.profiles()].count("active") == 1


@pytest.mark.parametrize("moment", ["learn.after_begin", "learn.before_commit"])
def test_a_learner_that_is_killed_leaves_its_events_to_the_next(database_url: str, moment: str) -> None:
    rng = random.Random(3)
    with EDIDatabase(database_url) as database:
        for number in range(4):
            add_session(database, f"s-{number}", random.Random(number + 20))
            database.save_feedback(f"s-{number}", verdict(rng))
        killed = process(LEARN, database_url, 0, 1, EDI_FAILPOINTS=f"{moment}=kill")
        killed.communicate("go\n", timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert database.preset_cells() == []
        check(database, [f"s-{number}" for number in range(4)])


def test_events_of_other_rules_are_counted_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EDIDatabase(database_url) as database:
        add_session(database, "s", random.Random(some_decision()))
        database.save_feedback("s", {"feedback_type": "accept"})
        learn(database)
        before = Learned.of(database)
        monkeypatch.setattr("edi_storage.learning_queries.COUNTING", "another")
        assert database.fold_feedback().events == 1
        assert Learned.of(database) == before
        assert database.fold_feedback().events == 0


# --- What stands in an event -------------------------------------------------------------------------


def test_the_worlds_count_as_the_database_does(database_url: str) -> None:
    """The bars add up cells in memory: the same ones."""
    counts = Counts()
    rng = random.Random(9)
    with EDIDatabase(database_url) as database:
        for number in range(40):
            add_session(database, f"s-{number}", random.Random(number))
            said = {**verdict(rng), "feedback_key": "attempt-1"}
            database.save_feedback(f"s-{number}", said)
            (made,) = database.get_decisions(f"s-{number}")
            if made.is_open and database.require_session(f"s-{number}").consent != "none":
                counts.add(made.edit_type, made.label, made.preset, said["feedback_type"])
        learn(database)
        stored: dict[tuple[str, str, str], list[int]] = {}
        for cell in database.preset_cells():
            if cell.preset:
                key = (cell.edit_type, cell.label, cell.preset)
                sums = (cell.accepted, cell.partial, cell.rejected)
                stored[key] = [a + b for a, b in zip(stored.get(key, (0, 0, 0)), sums, strict=True)]
    assert stored == {key: [c.accepted, c.partial, c.rejected] for key, c in counts.cells.items()}


def test_an_event_says_what_was_chosen_and_how_it_scored(database_url: str) -> None:
    with EDIDatabase(database_url) as database:
        add_session(database, "s", random.Random(some_decision()))
        database.save_feedback("s", {"feedback_type": "reject", "comments": "too strong, and halos"})
        (made,) = database.get_decisions("s")
        (score,) = database.get_validations("s")
        with reading(database.engine) as connection:
            (row,) = connection.execute(select(FeedbackEventRow.__table__)).mappings()
    assert (row["preset"], row["strength"], row["attempt"]) == (made.preset, made.strength, 1)
    assert row["score"] == round(100 * score.alignment_score)
    assert row["reasons"] == ",edges,too strong,"
    assert set(json.loads(row["terms"])) & {"sky", "vivid", "warmer", "hous"}


@cache
def some_decision() -> int:
    """A seed with which a session has something that was chosen, and consents to learning."""
    with tempfile.TemporaryDirectory() as folder, EDIDatabase(str(Path(folder) / "x.db")) as database:
        for seed in range(99):
            name = f"s-{seed}"
            add_session(database, name, random.Random(seed))
            if database.get_decisions(name)[0].is_open and database.require_session(name).consent != "none":
                return seed
    raise AssertionError("no seed will do")
