"""The flow `edit-image`: one session from its photo to its edited picture, from wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, runtime
from pydantic import Field

from edi_storage.errors import InputError, SessionFailedError, UnsupportedEditError
from edi_storage.models import SessionData
from edi_storage.recovery import export_checkpoints
from edi_storage.settings import Settings, load_settings
from edi_storage.state import Step, next_step
from edi_storage.store import Store, open_store
from flows.artifacts import show_end, show_session
from flows.hooks import mark_cancelled, mark_crashed, mark_failed
from flows.output import check_output, outcome
from flows.session import SessionRun, open_session
from flows.stages import STAGES


def _run_name() -> str:
    """How the run is called in the Prefect UI: "make the sky dramatic - palace.jpg"."""
    parameters = runtime.flow_run.parameters
    return f"{parameters['prompt'][:60]} - {Path(parameters['image_path']).name}"


@flow(
    name="edit-image",
    flow_run_name=_run_name,
    persist_result=False,
    on_failure=[mark_failed, show_end],
    on_crashed=[mark_crashed],
    on_cancellation=[mark_cancelled, show_end],
)
def edit_image(
    image_path: str,
    prompt: str,
    session_id: str = "",
    review: Literal["auto", "ask"] = "auto",
    output: str = "",
    overwrite: bool = False,
    answer: Annotated[int, Field(ge=0)] = 0,
) -> dict[str, Any]:
    """Edit a photo as the prompt says.

    image_path: the photo, on the machine that runs this. prompt: what to do with it, in your own words.
    session_id: empty for a new session; a known one is continued from its last finished stage, as it was begun.
    review: "auto" decides by the alignment score, "ask" waits for a person's verdict. output: file to write the
    result to, beside the stored one; overwrite: it may replace a file. answer: the number of your choice when the
    session has asked a question (0: none yet).
    """
    settings = load_settings()
    flow_run_id = str(runtime.flow_run.id)
    session = SessionData.checked(
        {
            "session_id": session_id or flow_run_id,
            "image_path": image_path,
            "naive_prompt": prompt,
            "options": {
                "review": review,
                "output": str(Path(output).expanduser().absolute()) if output else "",
                "overwrite": overwrite,
                "max_attempts": settings.max_attempts,
            },
        }
    )
    with open_store(settings) as store:
        return run_session(store, settings, session, answer, flow_run_id)


def run_session(
    store: Store, settings: Settings, session: SessionData, answer: int, flow_run_id: str
) -> dict[str, Any]:
    """Take the session as far as it goes without a person, and return what `edi edit --json` prints."""
    with open_session(store, settings, session, flow_run_id) as run:
        if not run.restored:
            _check(run.session)
        run.answer = _answer(run, answer)
        for step in run.restored:
            _run_step(run, step)
        following = _next(run)
        while isinstance(following, Step):
            _run_step(run, following)
            following = _next(run)
        run.waiting_for = following
        export_checkpoints(store, run.session.session_id)
        show_session(run)
        result = outcome(store, run.session.session_id, restored=run.restored)
    result["waiting_for"] = run.waiting_for
    return result


def _next(run: SessionRun) -> Step | Literal["question", "review"] | None:
    step = next_step(run.state)
    if step == "question" and run.answer is not None:
        return Step("intent", iteration=1)
    return step


def _check(session: SessionData) -> None:
    """What would make the session fail at its end fails it at its start."""
    try:
        check_output(session)
    except InputError as error:
        raise SessionFailedError(error, session.session_id) from error


def _answer(run: SessionRun, answer: int) -> int | None:
    """The answer to the open question: the one given now, which is kept at once, or the one kept before."""
    if not answer:
        kept: int | None = run.session.options.get("answer")
        return kept
    question = run.intent.question if run.state.get("intent") else None
    if question is None or run.intent.answer:
        raise InputError(f"Session {run.session.session_id} has no open question to answer.")
    if answer > len(question.choices):
        raise InputError(f"There is no choice {answer}: answer with a number from 1 to {len(question.choices)}.")
    run.store.database.save_answer(run.session.session_id, answer)
    return answer


def _run_step(run: SessionRun, step: Step) -> None:
    # return_state: a plain call returns Prefect's state for a restored stage, and the value for any other.
    try:
        STAGES[step.stage](run, step, return_state=True).result()
    except (InputError, UnsupportedEditError) as error:
        raise SessionFailedError(error, run.session.session_id) from error
