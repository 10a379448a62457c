"""Runs that wait for a person: suspended, answered in the Prefect UI or elsewhere, cancelled, or never answered."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from edi_storage.connection import writing
from edi_storage.database import EDIDatabase
from edi_storage.models import SessionData
from edi_storage.recovery import delete_session, end_session, give_verdict
from edi_storage.store import open_store
from edi_storage.tables import SessionRow
from tests import homes
from tests.flows.conftest import PALACE
from tests.flows.control import Control
from tests.waiting import wait_until


def suspended(control: Control, **parameters: Any) -> str:
    """An edit that has been started and waits for a person."""
    run = control.start("edit-image", **{"image_path": str(PALACE), "prompt": "make it warmer", **parameters})
    control.wait_for(run, "Suspended", "the question")
    return run


@pytest.fixture(scope="module")
def waiting(control: Control) -> list[str]:
    """Five edits that wait for a verdict, a test each; started together, because each takes seconds to get so far."""
    asked = {"image_path": str(PALACE), "prompt": "make it warmer", "review": "ask"}
    runs = [control.start("edit-image", **asked) for _ in range(5)]
    for run in runs:
        control.wait_for(run, "Suspended", "the question")
    return runs


def answer(control: Control, run: str, **form: Any) -> None:
    """What the UI sends when the form is submitted; the state that was waiting must be left."""
    asked = control.read_state(run)["id"]
    told = control.call(f"/flow_runs/{run}/resume", run_input=form)
    assert told["status"] == "ACCEPT", told
    wait_until(lambda: control.read_state(run)["id"] != asked, "the answer")


def ended(control: Control, run: str, name: str = "Completed") -> SessionData:
    control.wait_for(run, name, "the end of the run")
    with control.database() as database:
        return database.require_session(run)


def form_of(control: Control, run: str, part: str) -> Any:
    """The schema or the description of the form that a suspended run shows."""
    key = control.read_state(run)["state_details"]["run_input_keyset"][part]
    # Prefect suspends the run first and then stores what it asks.
    return wait_until(lambda: control.find(f"/flow_runs/{run}/input/{key}"), f"the {part} of the form")


def test_a_verdict_in_the_dialog_is_stored_once_and_steers_the_next_attempt(control: Control) -> None:
    run = suspended(control, review="ask")
    with control.database() as database:
        assert database.require_session(run).waiting_for == "review"
        first = database.get_commits(run)

        assert form_of(control, run, "description").count("data:image/jpeg;base64,") == 2
        assert set(form_of(control, run, "schema")["properties"]) == {
            "verdict",
            "rating",
            "reasons",
            "comment",
            "about",
        }
        refused = control.call(f"/flow_runs/{run}/resume", run_input={"verdict": "splendid"})
        assert refused["status"] == "REJECT"

        answer(control, run, verdict="reject", rating=2, reasons=["too strong"], comment="like a sunburn")
        control.wait_for(run, "Suspended", "the second question")
        assert [prompt.attempt_number for prompt in database.get_prompt_history(run)][-1] == 2

        stale = control.call(f"/flow_runs/{run}/resume", run_input={"verdict": "accept", "about": "attempt 1"})
        assert stale["status"] == "REJECT", "a dialog that was left open on the first attempt judged the second"

        answer(control, run, verdict="accept", rating=4, about="attempt 2")
        session = ended(control, run)
        said = database.get_feedback(run)
        commits = database.get_commits(run)
    assert (session.status, session.decision) == ("completed", "accepted")
    assert [(word.feedback_type, word.rating) for word in said] == [("reject", 2), ("accept", 4)]
    assert commits[: len(first)] == first, "a finished stage was run again"
    assert len({commit.key for commit in commits}) == len(commits)


def test_a_question_is_answered_by_a_choice(control: Control) -> None:
    run = suspended(control, prompt="make it better ![x](http://127.0.0.1:9/x.png)")
    description = form_of(control, run, "description")
    assert "![x]" not in description, "a prompt is text"
    assert description.count("data:image/jpeg;base64,") == 2, "the photo, and what is seen in it"
    assert "1 sky, 2 " in description
    page = _page(control, run)
    assert f'href="/v2/runs/flow-run/{run}"' in page
    assert f'<form method="post" action="/edi/{run}/answer" class="choices">' in page
    assert '<button name="answer" value="4">warmer</button>' in page
    assert f'action="/edi/{run}/stop" class="none"><button>None of these: say it in other words' in page
    choices = form_of(control, run, "schema")["properties"]["answer"]["enum"]
    answer(control, run, answer=choices[1])
    assert ended(control, run).status == "completed"
    assert '<button name="answer"' not in _page(control, run)
    with control.database() as database:
        intent = database.get_intent(run)
    assert intent is not None
    assert intent.answer == 2


def test_a_choice_that_is_a_thing_in_the_photo_is_shown(control: Control) -> None:
    page = _page(control, suspended(control, prompt="make the drum brighter"))
    shown = re.findall(r'name="answer" value="\d"><img src="data:image/jpeg;base64,[^"]+" alt="">the ', page)
    assert len(shown) > 1
    assert re.search(r'alt="">the whole picture<', page)


def test_a_question_is_answered_by_its_deployment(control: Control) -> None:
    run = suspended(control, prompt="make it better")
    refused = control.start("answer-question", session_id=run, answer="17")
    control.wait_for(refused, "Failed", "the refusal")
    assert (
        control.read_state(refused)["message"]
        == "There is no choice 17: answer with a number from 1 to 5, or several: 1,2."
    )
    # With no session named, it is the newest one that asks.
    control.start("answer-question", answer="2")
    assert ended(control, run).status == "completed"
    history = [state["message"] or "" for state in control.read(f"/flow_run_states/?flow_run_id={run}")]
    assert any("It goes on with what you said." in message for message in history), history
    with control.database() as database:
        intent = database.get_intent(run)
    assert intent is not None
    assert intent.answer == 2
    late = control.start("answer-question", session_id=run, answer="1")
    control.wait_for(late, "Failed", "the refusal")
    assert control.read_state(late)["message"] == f"Session {run} does not wait for an answer."


def _page(control: Control, session_id: str) -> str:
    answer = httpx.get(f"{control.api.removesuffix('/api')}/edi/{session_id}", timeout=60)
    return answer.raise_for_status().text


def test_a_verdict_from_the_form_lets_the_run_that_waits_go_on_at_once(control: Control) -> None:
    run = suspended(control, review="ask")
    said = {"verdict": "reject", "rating": 2, "reasons": ["too strong"], "comment": "like a\nsunburn"}
    verdict = control.start("record-feedback", session_id=run, **said)
    control.wait_for(verdict, "Completed", "the verdict")
    told = [line["message"] for line in control.call("/logs/filter", logs={"flow_run_id": {"any_": [verdict]}})]
    assert any("is rated reject (not what I wanted), 2 of 5, too strong: “like a sunburn”." in line for line in told), (
        told
    )
    wait_until(lambda: _asked_again(control, run), "the second question")
    history = [state["message"] or "" for state in control.read(f"/flow_run_states/?flow_run_id={run}")]
    assert any("It goes on with what you said." in message for message in history), history
    assert "You said of attempt 1: not what I wanted ★★, too strong." in _page(control, run)
    answer(control, run, verdict="accept", about="attempt 2")
    assert ended(control, run).decision == "accepted"


def _asked_again(control: Control, run: str) -> bool:
    with control.database() as database:
        return len(database.get_validations(run)) == 2 and control.state(run) == "Suspended"


def test_variations_are_shown_in_one_picture_and_blended_as_the_dialog_says(control: Control) -> None:
    run = suspended(control, prompt="make the sky dramatic", variations=3)
    assert form_of(control, run, "description").count("data:image/jpeg;base64,") == 1
    schema = form_of(control, run, "schema")["properties"]
    assert schema["answer"]["enum"] == ["1: dramatic, 60 %", "2: stormy, 60 %", "3: golden, 60 %"]
    answer(control, run, answer="1: dramatic, 60 %", blend="1, unicorn from 3")
    control.wait_for(run, "Suspended", "the question, asked again")
    assert "I do not see 'unicorn' in this photo" in form_of(control, run, "description")
    answer(control, run, answer="1: dramatic, 60 %", blend="1, sky from 3")
    assert ended(control, run).status == "completed"
    assert '<button name="answer"' not in _page(control, run)
    with control.database() as database:
        intent = database.get_intent(run)
    assert intent is not None
    assert intent.parameters["mood"] == "golden"


def test_what_is_answered_before_the_run_has_begun_to_wait_is_gone_on_with_at_once(control: Control) -> None:
    run = control.start("edit-image", image_path=str(PALACE), prompt="make it better")
    with control.database() as database:
        wait_until(lambda: (asked := database.get_session(run)) and asked.waiting_for == "question", "the question")
    assert control.state(run) == "Running"
    ui = control.api.removesuffix("/api")
    sent = httpx.post(f"{ui}/edi/{run}/answer", data={"answer": "2"}, timeout=60)
    assert sent.status_code == httpx.codes.SEE_OTHER, sent.text
    assert ended(control, run).status == "completed"
    with control.database() as database:
        intent = database.get_intent(run)
    assert intent is not None
    assert intent.answer == 2
    states = [state["name"] for state in control.read(f"/flow_run_states/?flow_run_id={run}")]
    assert "Suspended" not in states, "no new process was needed for it"


def test_a_verdict_given_elsewhere_lets_the_suspended_run_go_on(control: Control, waiting: list[str]) -> None:
    run = waiting[0]
    with open_store(homes.settings_of(control.home)) as store:
        give_verdict(store, run, "accept")
    assert ended(control, run).decision == "accepted"


def test_a_run_whose_session_was_finished_elsewhere_waits_no_longer(control: Control, waiting: list[str]) -> None:
    run = waiting[1]
    with open_store(homes.settings_of(control.home)) as store:
        give_verdict(store, run, "accept")
        end_session(store, store.database.acquire(run, "somebody", 30), "for the test")
    control.wait_for(run, "Cancelled", "the end of the run")
    assert "has failed: for the test" in control.read_state(run)["message"]

    # It ends in the same way where it was taken up again before that, as here by a person's Retry.
    control.call(f"/flow_runs/{run}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)
    wait_until(lambda: "tries again" in (control.read_state(run)["message"] or ""), "the end of the run")
    assert control.state(run) == "Cancelled"
    assert f"Session {run} has failed: for the test." in control.read_state(run)["message"]


def test_a_deleted_session_is_not_made_anew_by_an_answer(control: Control, waiting: list[str]) -> None:
    run = waiting[2]
    with open_store(homes.settings_of(control.home)) as store:
        delete_session(store, run)
    answer(control, run, verdict="accept")
    control.wait_for(run, "Failed", "the end of the run")
    assert "was deleted" in control.read_state(run)["message"]
    with control.database() as database:
        assert database.get_session(run) is None


def test_a_run_cancelled_while_it_waits_is_over(control: Control, waiting: list[str]) -> None:
    run = waiting[3]
    control.call(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})
    with control.database() as database:
        wait_until(lambda: database.require_session(run).status == "failed", "the end of the session")
        assert database.require_session(run).failure_reason == "cancelled by a person"
    assert control.state(run) == "Cancelled"


def test_what_nobody_answers_is_kept_unreviewed(control: Control, waiting: list[str]) -> None:
    run = waiting[4]
    with control.database() as database:
        _age(database, run)
        session = ended(control, run)
        assert not database.get_feedback(run)
    assert (session.status, session.decision) == ("completed", "unreviewed")


def test_a_question_that_nobody_answers_gets_its_likeliest_choice(control: Control) -> None:
    run = suspended(control, prompt="make it better")
    with control.database() as database:
        _age(database, run)
        assert ended(control, run).status == "completed"
        intent = database.get_intent(run)
    assert intent is not None
    assert intent.answer == 1


def _age(database: EDIDatabase, session_id: str) -> None:
    """Let the session have waited for a week."""
    week_ago = datetime.now(UTC) - timedelta(days=7)
    with writing(database.engine) as connection:
        connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(updated_at=week_ago))
