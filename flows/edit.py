"""The flow `edit-image`: one session from its photo to its edited picture, from wherever it stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, runtime
from prefect.settings import get_current_settings
from pydantic import Field

from edi_storage.errors import EdiError, InputError, SessionFailedError, UnsupportedEditError
from edi_storage.models import MAX_ATTEMPTS, Consent, Review, SessionData
from edi_storage.recovery import end_session
from edi_storage.settings import Settings, load_settings
from edi_storage.steps import Step, answer_step, last_attempt, next_step
from edi_storage.store import Store, open_store
from edi_storage.variations import open_question
from flows import asking, form
from flows.artifacts import Showing, show_end
from flows.engines.choices import read_choice
from flows.engines.wishes import Wishes
from flows.hooks import forgive_disk, mark_cancelled, mark_crashed
from flows.inbox import find_photo, inbox_of, photo_for
from flows.links import session_link, viewer_address
from flows.names import edit_name
from flows.output import check_output, outcome
from flows.plain import in_plain_words, tell
from flows.reviving import end_lost_run, end_lost_tasks, say_why_back
from flows.runs import has_come_back
from flows.session import SessionRun, open_session
from flows.stages import run_as_task, run_in_batch

log = logging.getLogger("edi")

#: What a person who watches the run in the UI wants to know next: where `edi serve` has a page of the session ...
_LOOK = "Watch it on its own page, where before and after are at full size and you rate it: %s"
#: ... and on another server.
_WHERE = (
    "Before and after: on the tab Artifacts of this page. At full size: %s. To rate it, run the deployment "
    "record-feedback; with its field Session left empty it is about the newest result."
)


def _run_name() -> str:
    """How the run is called in the Prefect UI: "sky dramatic - palace.jpg"."""
    return edit_name(runtime.flow_run.parameters)


@flow(
    name="edit-image",
    flow_run_name=_run_name,
    persist_result=False,
    # Prefect's own default. Where none is named it asks the server for one, twice in each run, though nothing is kept.
    result_storage=get_current_settings().results.local_storage_path,
    on_failure=[forgive_disk, show_end],
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
    variations: form.Variations = 1,
    max_attempts: form.Attempts = MAX_ATTEMPTS,
    output: Annotated[form.Output, form.NOT_SHOWN] = "",
    overwrite: Annotated[form.Overwrite, form.NOT_SHOWN] = False,
    strip: Annotated[form.Strip, form.NOT_SHOWN] = False,
    learning: Annotated[bool, form.NOT_SHOWN] = True,
    consent: Annotated[str, form.NOT_SHOWN] = "",
    answer: Annotated[str | int, form.NOT_SHOWN] = "",
    session_id: Annotated[str, Field(pattern=form.SESSION_NAME), form.NOT_SHOWN] = "",
) -> dict[str, Any]:
    """Edit a photo as you say it in your own words. The original is never changed.

    Only the first two fields are needed. While it runs, the logs tell what is done; their first line leads to the page
    of the edit, where you see before and after, and rate it. The page /edi has your photos and all your edits.
    """
    # For scripts, not in the form: a file to write besides (output; overwrite: even if it is there; strip: without
    # camera and time), whether to use what was learned, what may be done with a rating (else as EDI_CONSENT says), and
    # the session to continue, with the answer to what it asked.
    settings = load_settings()
    flow_run_id = str(runtime.flow_run.id)
    name = session_id or flow_run_id
    with open_store(settings) as store:
        known = store.database.get_session(name)
        if known is None:
            _refuse_deleted(name)
        session = asked_session(
            settings,
            session_id=name,
            image_path=photo_for(known, image_path, inbox_of(settings)),
            prompt=prompt,
            wishes=Wishes.checked(strength=strength, protect=protect, region=region, mask=_mask(known, mask, settings)),
            review=review,
            variations=variations,
            max_attempts=max_attempts,
            output=output,
            overwrite=overwrite,
            strip=strip,
            learning=learning,
            consent=form.consent_of(consent, settings.consent),
        )
        if not _has_done_something(store, name, flow_run_id):
            _say_where(settings, name)
        given = "" if _is_spent(store, name, flow_run_id) else str(answer)
        result = run_session(store, settings, session, given, flow_run_id)
        while result["waiting_for"] and asking.can_suspend():
            given = asking.ask(store, result)
            result = run_session(store, settings, session, given, flow_run_id, show_restored=False)
        if result["edited_image_path"] and asking.can_suspend() and not viewer_address(settings):
            log.info(_WHERE, result["edited_image_path"])
        return result


def asked_session(
    settings: Settings,
    *,
    session_id: str,
    image_path: str,
    prompt: str,
    wishes: Wishes,
    review: Review,
    max_attempts: int,
    output: str,
    strip: bool,
    consent: Consent,
    overwrite: bool = False,
    variations: int = 1,
    learning: bool = True,
) -> SessionData:
    """A session as it is asked for: what is not as usual stands in its options. Raises InputError."""
    options = {
        "review": review,
        "output": str(Path(output).expanduser().absolute()) if output else "",
        "overwrite": overwrite,
        **({"strip": True} if strip else {}),
        **({} if learning else {"learning": False}),
        **({} if consent == "local" else {"consent": consent}),
        **({"variations": variations} if variations > 1 else {}),
        "max_attempts": min(max_attempts, settings.max_attempts),
        **wishes.as_options(),
    }
    asked = {"session_id": session_id, "image_path": image_path, "naive_prompt": prompt}
    return SessionData.checked({**asked, "consent": consent, "options": options})


def _say_where(settings: Settings, session_id: str) -> None:
    """First of all: the last lines of a run are often not seen (see `flows.plain.let_be_seen`)."""
    address = viewer_address(settings)
    if address and asking.can_suspend():
        log.info(_LOOK, address + session_link(session_id))


def _has_done_something(store: Store, session_id: str, flow_run_id: str) -> bool:
    """Whether a boundary of the session is this run's: then its logs have a beginning already."""
    return any(commit.flow_run_id == flow_run_id for commit in store.database.get_commits(session_id))


def _is_spent(store: Store, session_id: str, flow_run_id: str) -> bool:
    """Whether this run has used the answer it was started with: taken up again, it must not answer what came later."""
    commits = store.database.get_commits(session_id)
    answered = [commit for commit in commits if commit.iteration and commit.stage in ("intent", "edit")]
    return any(commit.flow_run_id == flow_run_id for commit in answered)


def _mask(known: SessionData | None, mask: str, settings: Settings) -> str:
    """The mask's absolute path; a session that goes on has its own copy, and needs the file no more."""
    kept = str(known.options.get("mask", "")) if known else ""
    if not mask or (kept and mask in (kept, Path(kept).name)):
        return kept if mask else ""
    return find_photo(mask, inbox_of(settings))


def _refuse_deleted(session_id: str) -> None:
    """A run that comes back, with an answer or after a crash, must not make anew what was deleted meanwhile."""
    if has_come_back():
        raise InputError(f"Session {session_id} was deleted. Start a new edit if you want the photo edited.")


def run_session(
    store: Store,
    settings: Settings,
    session: SessionData,
    answer: str,
    flow_run_id: str,
    *,
    show_restored: bool = True,
    in_batch: bool = False,
) -> dict[str, Any]:
    """Take the session as far as it goes without a person, and return what `edi edit --json` prints.

    show_restored: the stages that were finished before stand among the tasks of this run, as "Restored". in_batch: the
    run is a batch's, whose page has one task for each photo.
    """
    run_step = run_in_batch if in_batch else run_as_task
    with ExitStack() as stack:
        run = stack.enter_context(open_session(store, settings, session, flow_run_id))
        showing = None if in_batch else stack.enter_context(Showing(run))
        # Innermost: what has failed is ended before anybody waits for a page.
        stack.enter_context(_ending(run))
        if flow_run_id and not in_batch:
            _end_lost(run, flow_run_id)
        if not run.restored:
            _check(run.session)
        _take_answer(run, answer)
        for step in run.restored if show_restored and not in_batch else ():
            _stage(run_step, run, step)
        following = _next(run)
        while isinstance(following, Step):
            _stage(run_step, run, following)
            following = _next(run)
        run.waiting_for = following
        if showing:
            showing.finish()
        run.export_rest()
        result = outcome(store, run.session.session_id, restored=run.restored)
    result["waiting_for"] = run.waiting_for
    return result


@contextmanager
def _ending(run: SessionRun) -> Iterator[None]:
    """Tell of an error, and end a session that would fail again, while nobody else can take it up.

    Without its lease, in the time that it takes until the flow run has failed too, it would be found interrupted.
    """
    try:
        yield
    except EdiError as error:
        if isinstance(error, SessionFailedError):
            run.autosaver.stop()  # its heartbeat would find the lease gone
            end_session(run.store, run.lease, str(error))
        tell(error)
        raise


def _end_lost(run: SessionRun, flow_run_id: str) -> None:
    """Nobody else says that what worked on this session before was killed."""
    if runtime.flow_run.run_count > 1:
        say_why_back(flow_run_id)
        end_lost_tasks(flow_run_id)
    else:
        end_lost_run(run.store, run.session.session_id, flow_run_id)


def _next(run: SessionRun) -> Step | Literal["question", "review"] | None:
    step = next_step(run.state)
    if step == "question":
        answering = answer_step(run.state)
        known = bool(run.answer) if answering.stage == "intent" else _is_chosen(run)
        return answering if known else step
    if step == "review" and run.session.options.get("unreviewed"):
        return Step("completed", last_attempt(run.state))
    return step


def _check(session: SessionData) -> None:
    """What would make the session fail at its end fails it at its start."""
    try:
        check_output(session)
    except InputError as error:
        raise SessionFailedError(error, session.session_id) from error


def _is_chosen(run: SessionRun) -> bool:
    """Whether a variation can be taken: a person has said which, or waited too long to be asked any more."""
    return run.choice is not None or bool(run.session.options.get("unchosen"))


def _take_answer(run: SessionRun, answer: str) -> None:
    """Give the run the answers to its questions: the one given now, which is kept at once, and those kept before."""
    run.answer, run.choice = _answered(run), run.session.options.get("choice")
    answer = " ".join(answer.split())
    among_variations = open_question(run.state) is not None and answer_step(run.state).stage == "edit"
    # A run that is taken up again brings the answer that it was started with.
    asked = run.intent.question if run.state.get("intent") else None
    numbers = asked.numbers_in(answer) if asked else []
    if answer in ("", "0") or (not among_variations and (answer == run.choice or (numbers and numbers == run.answer))):
        return
    keep_answer(run.store, run.session.session_id, answer)
    if among_variations:
        run.choice = answer
    else:
        run.answer = numbers


def _answered(run: SessionRun) -> list[int]:
    """The numbers of the choices that a person has taken: as they were kept, or as they stand in the state."""
    if kept := run.session.options.get("answer"):
        return kept if isinstance(kept, list) else [kept]
    intent = run.intent if run.state.get("intent") else None
    if intent is None or intent.question is None or intent.answer is None:
        return []
    return intent.question.numbers_of(intent.question.choices[intent.answer - 1])


def keep_answer(store: Store, session_id: str, answer: str) -> str:
    """Keep a person's answer to the open question of a session, for whoever continues it; returns it in words.

    It is the number of a choice, or several ("2,5"); among variations, of one, or a blend. Raises InputError for
    anything else, and where nothing is asked.
    """
    history, answer = store.database.load_session(session_id), " ".join(answer.split())
    state = history.state.model_dump(mode="json") if history.state else {}
    question = open_question(state)
    if question is None:
        raise InputError(f"Session {session_id} has no open question to answer.")
    if not answer:
        raise InputError("Nothing was chosen: tick what you mean, or give its number.")
    if answer_step(state).stage == "edit":
        read_choice(answer, len(question.choices), history.entities)
        store.database.save_choice(session_id, answer)
        return answer
    numbers, most = question.numbers_in(answer), len(question.choices)
    if not numbers:
        raise InputError(f"There is no choice {answer[:40]}: answer with a number from 1 to {most}, or several: 1,2.")
    store.database.save_answer(session_id, *numbers)
    asked, number = question.taking(numbers)
    return asked.choices[number - 1]


def _stage(run_step: Callable[[SessionRun, Step], object], run: SessionRun, step: Step) -> None:
    try:
        run_step(run, step)
    except (InputError, UnsupportedEditError) as error:
        raise SessionFailedError(error, run.session.session_id) from error
