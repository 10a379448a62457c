"""The flow `edit-image`: one session from its photo to its edited picture, from wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, runtime

from edi_storage.errors import InputError, SessionFailedError, UnsupportedEditError
from edi_storage.models import MAX_ATTEMPTS, SessionData
from edi_storage.recovery import export_checkpoints
from edi_storage.settings import Settings, load_settings
from edi_storage.state import Step, last_attempt, next_step
from edi_storage.store import Store, open_store
from flows import asking, form
from flows.artifacts import show_end, show_session
from flows.engines.wishes import Wishes
from flows.hooks import mark_cancelled, mark_crashed, mark_failed
from flows.inbox import find_photo, inbox_of, photo_for
from flows.names import edit_name
from flows.output import check_output, outcome
from flows.plain import in_plain_words
from flows.reviving import has_worked
from flows.session import SessionRun, open_session
from flows.stages import STAGES


def _run_name() -> str:
    """How the run is called in the Prefect UI: "sky dramatic - palace.jpg"."""
    return edit_name(runtime.flow_run.parameters)


@flow(
    name="edit-image",
    flow_run_name=_run_name,
    persist_result=False,
    on_failure=[mark_failed, show_end],
    on_crashed=[mark_crashed],
    on_cancellation=[mark_cancelled, show_end],
)
@in_plain_words
def edit_image(
    image_path: form.Photo,
    prompt: form.Prompt,
    strength: form.Strength = "as the prompt says",
    protect: form.Protect = "",
    region: form.Region = "",
    mask: form.Mask = "",
    review: form.Review = "unsure",
    max_attempts: form.Attempts = MAX_ATTEMPTS,
    output: form.Output = "",
    overwrite: form.Overwrite = False,
    strip: form.Strip = False,
    answer: form.Answer = 0,
    session_id: form.SessionName = "",
) -> dict[str, Any]:
    """Edit a photo as you say it in your own words. The original is never changed.

    Only the first two fields are needed. While it runs, the logs tell what is done; the result, before and after, is
    among the run's artifacts.
    """
    settings = load_settings()
    flow_run_id = str(runtime.flow_run.id)
    name = session_id or flow_run_id
    with open_store(settings) as store:
        known = store.database.get_session(name)
        if known is None:
            _refuse_deleted(name)
        session = SessionData.checked(
            {
                "session_id": name,
                "image_path": photo_for(known, image_path, inbox_of(settings)),
                "naive_prompt": prompt,
                "options": {
                    "review": review,
                    "output": str(Path(output).expanduser().absolute()) if output else "",
                    "overwrite": overwrite,
                    **({"strip": True} if strip else {}),
                    "max_attempts": min(max_attempts, settings.max_attempts),
                    **Wishes.checked(
                        strength=strength, protect=protect, region=region, mask=_mask(known, mask, settings)
                    ).as_options(),
                },
            }
        )
        result = run_session(store, settings, session, answer, flow_run_id)
        while result["waiting_for"] and asking.can_suspend():
            answer = asking.ask(store, result)
            result = run_session(store, settings, session, answer, flow_run_id, show_restored=False)
        return result


def _mask(known: SessionData | None, mask: str, settings: Settings) -> str:
    """The mask's absolute path; a session that goes on has its own copy, and needs the file no more."""
    kept = str(known.options.get("mask", "")) if known else ""
    if not mask or (kept and mask in (kept, Path(kept).name)):
        return kept if mask else ""
    return find_photo(mask, inbox_of(settings))


def _refuse_deleted(session_id: str) -> None:
    """A run that comes back, with an answer or after a crash, must not make anew what was deleted meanwhile."""
    if runtime.deployment.id and has_worked(runtime.flow_run.id):
        raise InputError(f"Session {session_id} was deleted. Start a new edit if you want the photo edited.")


def run_session(
    store: Store,
    settings: Settings,
    session: SessionData,
    answer: int,
    flow_run_id: str,
    *,
    show_restored: bool = True,
) -> dict[str, Any]:
    """Take the session as far as it goes without a person, and return what `edi edit --json` prints.

    show_restored: the stages that were finished before stand among the tasks of this run, as "Restored".
    """
    with open_session(store, settings, session, flow_run_id) as run:
        if not run.restored:
            _check(run.session)
        run.answer = _answer(run, answer)
        for step in run.restored if show_restored else ():
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
    if step == "review" and run.session.options.get("unreviewed"):
        return Step("completed", last_attempt(run.state))
    return step


def _check(session: SessionData) -> None:
    """What would make the session fail at its end fails it at its start."""
    try:
        check_output(session)
    except InputError as error:
        raise SessionFailedError(error, session.session_id) from error


def _answer(run: SessionRun, answer: int) -> int | None:
    """The answer to the open question: the one given now, which is kept at once, or the one kept before."""
    kept: int | None = run.session.options.get("answer") or run.state.get("intent", {}).get("answer")
    # A run that is taken up again brings the answer that it was started with.
    if answer in (0, kept):
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
