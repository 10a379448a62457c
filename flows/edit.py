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
from flows.artifacts import show_session
from flows.hooks import mark_cancelled, mark_crashed, mark_failed
from flows.output import outcome
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
    on_failure=[mark_failed],
    on_crashed=[mark_crashed],
    on_cancellation=[mark_cancelled],
)
def edit_image(
    image_path: str,
    prompt: str,
    session_id: str = "",
    review: Literal["auto", "ask"] = "auto",
    output: str = "",
    answer: Annotated[int, Field(ge=0)] = 0,
) -> dict[str, Any]:
    """Edit a photo as the prompt says.

    image_path: the photo, on the machine that runs this. prompt: what to do with it, in your own words.
    session_id: empty for a new session; a known one is continued from its last finished stage. review: "auto"
    decides by the alignment score, "ask" waits for a person's verdict. output: file to write the result to, beside
    the stored one. answer: the number of your choice when the session has asked a question (0: none yet).
    """
    settings = load_settings()
    flow_run_id = str(runtime.flow_run.id)
    session = SessionData.checked(
        {
            "session_id": session_id or flow_run_id,
            "image_path": image_path,
            "naive_prompt": prompt,
            "options": {"review": review, "output": output, "max_attempts": settings.max_attempts},
        }
    )
    with open_store(settings) as store:
        return run_session(store, settings, session, answer, flow_run_id)


def run_session(
    store: Store, settings: Settings, session: SessionData, answer: int, flow_run_id: str
) -> dict[str, Any]:
    """Take the session as far as it goes without a person, and return what `edi edit --json` prints."""
    with open_session(store, settings, session, flow_run_id) as run:
        run.answer = _checked_answer(run, answer)
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


def _checked_answer(run: SessionRun, answer: int) -> int | None:
    """The answer, if there is one and the question has such a choice."""
    if not answer:
        return None
    question = run.intent.question if run.state.get("intent") else None
    if question is None or run.intent.answer:
        raise InputError(f"Session {run.session.session_id} has no open question to answer.")
    if answer > len(question.choices):
        raise InputError(f"There is no choice {answer}: answer with a number from 1 to {len(question.choices)}.")
    return answer


def _run_step(run: SessionRun, step: Step) -> None:
    # return_state: a plain call returns Prefect's state for a restored stage, and the value for any other.
    try:
        STAGES[step.stage](run, step, return_state=True).result()
    except (InputError, UnsupportedEditError) as error:
        raise SessionFailedError(error, run.session.session_id) from error
