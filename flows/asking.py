"""How a run asks a person in the Prefect UI: it suspends, and the resume dialog shows the pictures and a small form.

The answer comes to a new process, which stores it before it goes on: so it counts once, however often that process
is killed. What is answered elsewhere is stored there, and the run goes on with it: in this process, if that has not
ended yet. A run without a deployment (`edi edit`) cannot suspend; there the terminal asks, or nobody.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import count
from typing import Annotated, Any, Literal

from prefect import runtime
from prefect.exceptions import ObjectNotFound, Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, keyset_from_base_key, read_flow_run_input
from pydantic import Field, ValidationError, WithJsonSchema, create_model

from edi_storage.errors import InputError
from edi_storage.models import MAX_ATTEMPTS, EntityData, Question
from edi_storage.recovery import give_verdict
from edi_storage.settings import load_settings
from edi_storage.store import Store
from flows import form
from flows.album import SMALL, album
from flows.engines.choices import read_choice
from flows.links import session_link, viewer_address
from flows.markdown import before_and_after, found_in, plain
from flows.pictures import data_uri
from flows.plain import let_be_seen
from flows.reviving import SAID, hand_on
from flows.runs import is_deployed
from flows.sheet import sheet_of
from flows.words import as_before, measured

log = logging.getLogger("edi")

#: Prefect's page hides the dialog in a menu.
_HOW = "It waits for you: answer on %s. Or here: in some seconds the menu (⋮) at the top right has Resume."

#: Pixels of the longer side of a picture in the dialog, which is not wide.
_LONGEST = 320
#: And of the one that shows all variations.
_SHEET = 900

#: Prefect fails a suspended run after this time by itself, without a word to EDI. So EDI's own limit, which
#: `resume-interrupted` minds, comes first.
_NEVER = 10 * 365 * 24 * 3600


class Verdict(RunInput):
    """The form about a finished attempt."""

    verdict: form.Verdict
    rating: form.Rating = 0
    comment: form.Comment = ""
    # Last: its list opens over what is below it.
    reasons: form.Reasons = []  # noqa: RUF012 - pydantic copies it


def can_suspend() -> bool:
    """Whether this run can leave its process and come back: it belongs to a deployment, and to no other run."""
    return is_deployed() and not runtime.flow_run.parent_flow_run_id


def ask(store: Store, result: dict[str, Any]) -> str:
    """Ask what the session waits for; the first time, this ends the process (by Prefect's `Pause`).

    `result` is what `run_session` returned. Returns what answers a question: the number of a choice, or a blend of
    variations; "" for what is stored already when this returns: a verdict, and what was said elsewhere meanwhile.
    """
    try:
        return _ask(store, result)
    except _SaidElsewhereError:
        log.info(SAID)
        return ""


class _SaidElsewhereError(Exception):
    """What is asked has been answered on another way, before the run began to wait."""


def _ask(store: Store, result: dict[str, Any]) -> str:
    if result["waiting_for"] == "question":
        question = Question.model_validate(result["question"])
        return _pick(store, result, question) if result["variations"] else str(_choose(store, result, question))
    _judge(store, result)
    return ""


def _pick(store: Store, result: dict[str, Any], question: Question) -> str:
    """Which of several variations, or which blend of them; one that cannot be made is asked for again."""
    listed = [f"{number}: {words}" for number, words in enumerate(question.choices, 1)]
    choices: Any = Annotated[Literal[tuple(listed)], Field(title="Your choice")]
    model: Any = create_model("Pick", __base__=RunInput, answer=(choices, listed[0]), blend=(form.Blend, ""))
    entities = [EntityData.model_validate(entity) for entity in result["entities"]]
    history = store.database.load_session(result["session_id"])
    sheet = sheet_of(history, album(store, history, SMALL), _SHEET)
    picture = f"![variations]({data_uri(sheet, _SHEET)})" if sheet is not None else ""
    wrong = ""
    for number in count(1):
        said = f"{wrong} {question.text}".strip()
        text = "\n\n".join([f"## {plain(result['prompt'])}", picture, f"**{plain(wrong)} {plain(question.text)}**"])
        given = _suspend(store, model.with_initial_data(description=text), f"variation-{number}", said, result)
        answer = given.blend.strip() or str(listed.index(given.answer) + 1)
        try:
            read_choice(answer, len(listed), entities)
        except InputError as error:
            wrong = str(error)
        else:
            return str(answer)
    raise AssertionError("never reached")


def _choose(store: Store, result: dict[str, Any], question: Question) -> int:
    choices: Any = Annotated[Literal[tuple(question.choices)], Field(title="Your choice")]
    model: Any = create_model("Answer", __base__=RunInput, answer=(choices, question.choices[0]))
    text = f"## {plain(result['prompt'])}\n\n{_pictures(store, result['session_id'])}\n\n**{plain(question.text)}**"
    given = _suspend(store, model.with_initial_data(description=text), "question", question.text, result)
    log.info("Your answer: %s.", given.answer)
    return question.choices.index(given.answer) + 1


def _judge(store: Store, result: dict[str, Any]) -> None:
    session_id, attempt = result["session_id"], result["attempts"]
    told = as_before(store.database.load_session(session_id)) or measured(result["alignment_score"])
    said = f"Attempt {attempt} is made. {told} What do you think of it?"
    text = f"## {plain(result['prompt'])}\n\n{_pictures(store, session_id, told)}"
    if attempt >= int(store.database.require_session(session_id).options.get("max_attempts", MAX_ATTEMPTS)):
        text += " It is the last attempt."
    form_of = _verdict_on(attempt).with_initial_data(description=text)
    given = _suspend(store, form_of, f"verdict-{attempt}", said, result)
    log.info("Your verdict: %s.", given.verdict)
    give_verdict(
        store, session_id, given.verdict, rating=given.rating or None, comment=given.comment, reasons=given.reasons
    )


def _verdict_on(attempt: int) -> Any:
    """The form about this attempt: sent from a dialog that was left open on an earlier one, it is refused."""
    this = f"attempt {attempt}"
    only: Any = Annotated[
        Literal[this],
        WithJsonSchema({"type": "string", "enum": [this]}),
        form.shown("Attempt", "The one in the pictures above."),
    ]
    return create_model("Verdict", __base__=Verdict, about=(only, this))


def _suspend(store: Store, model: Any, key: str, said: str, result: dict[str, Any]) -> Any:
    """The filled-in form. The log has what is `said` before the run begins to wait, not when it takes the answer."""
    session_id = result["session_id"]

    def is_said() -> bool:
        session = store.database.get_session(session_id)
        return session is not None and session.status == "in_progress" and session.waiting_for is None

    for number in count(1):
        if not _is_answered(f"{key}-{number}"):
            log.info("%s %s", said, _HOW % _elsewhere(session_id))
            if let_be_seen(is_said):
                raise _SaidElsewhereError
        # The key is what tells Prefect, in the new process, that this was asked already. Without an answer to it, the
        # process was killed between its suspension and the saving of the form; then it is asked once more.
        with suppress(ValidationError, ObjectNotFound):
            try:
                return suspend_flow_run(wait_for_input=model, timeout=_NEVER, key=f"{key}-{number}")
            except Pause:
                # Who answered before it was suspended could not take it up again.
                if is_said():
                    hand_on(store, session_id)
                raise
    raise AssertionError("never reached")


def _elsewhere(session_id: str) -> str:
    """Where else one answers: on EDI's own page of the edit, if there is one."""
    address = viewer_address(load_settings())
    return address + session_link(session_id) if address else "a terminal with `edi review`"


def _is_answered(key: str) -> bool:
    """Whether an answer is there already: this process was started to take it."""
    return read_flow_run_input(keyset_from_base_key(f"suspended-{key}")["response"]) is not None


def _pictures(store: Store, session_id: str, said: str = "") -> str:
    """Before and after, or the photo and what is seen in it; on one line below, what is `said` of a result."""
    history = store.database.load_session(session_id)
    pictures = album(store, history, _LONGEST)
    if pictures.after is None and pictures.before is not None:
        return found_in(history, pictures, _LONGEST)
    is_served = bool(viewer_address(load_settings()))
    look = f"[Look at it at full size]({session_link(session_id)})" if is_served else ""
    return "\n\n".join([*before_and_after(history, pictures, _LONGEST), f"{said} {look}".strip()])
