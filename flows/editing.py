"""What `edi edit` and `edi resume` do: check what was asked, reach a Prefect API, run the flow, ask the person."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from edi_storage.errors import InputError
from edi_storage.forking import Wanted, make_fork
from edi_storage.models import MAX_ATTEMPTS, MAX_PROMPT, Consent, FeedbackType, Question, Reason, Review, SessionData
from edi_storage.owner import is_gone
from edi_storage.record import SessionId, Text, describe
from edi_storage.recovery import export_the_end, give_verdict, reopen
from edi_storage.settings import Settings, load_settings
from edi_storage.store import open_store
from flows.inbox import find_photo, inbox_of, photo_for
from flows.output import check_output, outcome
from flows.sessions import find_session

Result = dict[str, Any]


class Person(Protocol):
    """Who sits at the terminal. `None` from a question means: nobody answers, the session waits."""

    def choose(self, question: Question) -> str | None: ...

    def pick(self, result: Result) -> str | None:
        """Which of its variations: "2", or a blend such as "1, sky from 3"."""
        ...

    def judge(self, result: Result) -> Verdict | None: ...


@dataclass(frozen=True)
class Verdict:
    """What a person says of an attempt."""

    word: FeedbackType
    rating: int | None = None
    reasons: Sequence[Reason] = ()
    comment: str = ""


@dataclass(frozen=True)
class Request:
    """A checked request for an edit."""

    image_path: str
    prompt: str
    session_id: str
    output: str
    overwrite: bool
    review: Review
    strength: str = ""
    protect: str = ""
    region: str = ""
    mask: str = ""
    max_attempts: int = MAX_ATTEMPTS
    strip: bool = False
    variations: int = 1
    learning: bool = True
    #: "" as EDI_CONSENT says.
    consent: Consent | Literal[""] = ""

    @classmethod
    def checked(
        cls,
        *,
        image: str,
        prompt: str,
        session_id: str = "",
        output: str = "",
        overwrite: bool = False,
        review: Review | None = None,
        somebody: bool = False,
        strength: str = "",
        protect: str = "",
        region: str = "",
        mask: str = "",
        max_attempts: int | None = None,
        strip: bool = False,
        variations: int = 1,
        learning: bool = True,
        consent: Consent | None = None,
    ) -> Request:
        """Check everything that can be wrong before anything is started or written. Raises InputError.

        `somebody` is there to answer; without `review`, it is what EDI_REVIEW says to them.
        """
        from flows.engines.area import read_mask
        from flows.engines.photo import open_photo
        from flows.engines.wishes import Wishes

        prompt = _checked_prompt("PROMPT", prompt)
        if session_id:
            _fits("--session-id", SessionId, session_id)
        Wishes.checked(strength=strength, protect=protect, region=region, mask=mask)
        _check_engines(load_settings())
        known = _known(session_id) if session_id else None
        path = photo_for(known, _fits("IMAGE", Text, image), inbox_of(load_settings()), here=True)
        if known is None:
            photo = open_photo(path)
            mask = find_photo(_fits("--mask", Text, mask), inbox_of(load_settings()), here=True) if mask else ""
            if mask:
                read_mask(mask, photo)
        output = _fits("--output", Text, output)
        attempts = max_attempts or load_settings().max_attempts
        chosen = review or _default_review(somebody)
        wishes = (strength, protect, region, mask, attempts, strip, variations, learning, consent or "")
        request = cls(path, prompt, session_id, output, overwrite, chosen, *wishes)
        if output:
            check_output(request.as_session())
        return request

    def as_session(self) -> SessionData:
        """As much of a session as checking the output needs."""
        output = str(Path(self.output).expanduser().absolute())
        return SessionData(
            session_id=self.session_id or "new",
            image_path=self.image_path,
            naive_prompt=self.prompt,
            options={"output": output, "overwrite": self.overwrite},
        )


def _check_engines(settings: Settings) -> None:
    """Raise InputError for a setting that names an engine that there is none of."""
    from flows import engines
    from flows.session import engine_names

    for setting, names in engine_names(settings).items():
        engines.names_in(setting, names)


def _checked_prompt(name: str, prompt: str) -> str:
    prompt = _fits(name, Text, prompt).strip()
    if not prompt:
        raise InputError(f'{name} is empty: say what to do with the photo, such as "make the sky dramatic".')
    if len(prompt) > MAX_PROMPT:
        raise InputError(f"{name} has {len(prompt)} characters: say it in at most {MAX_PROMPT}.")
    return prompt


def _fits(name: str, kind: Any, value: str) -> str:
    try:
        fitting: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(describe(error, name).replace(f"{name}: {name} ", f"{name} ")) from error
    return fitting


def _default_review(somebody: bool) -> Review:
    review = load_settings().review
    return "auto" if review == "unsure" and not somebody else review


def _known(session_id: str) -> SessionData | None:
    """The session, if it has got so far that it has its own copy of the photo."""
    with open_store(load_settings()) as store:
        return store.database.get_session(session_id) if store.database.last_seq(session_id) else None


def edit(request: Request, person: Person) -> Result:
    """Run the edit until it is done or waits for a person who is not there."""
    with _flows() as settings:
        from flows.edit import edit_image

        result = edit_image(
            image_path=request.image_path,
            prompt=request.prompt,
            session_id=request.session_id,
            review=request.review,
            output=request.output,
            overwrite=request.overwrite,
            strength=request.strength,
            protect=request.protect,
            region=request.region,
            mask=request.mask,
            max_attempts=request.max_attempts,
            strip=request.strip,
            variations=request.variations,
            learning=request.learning,
            consent=request.consent,
        )
        return _with(person, settings, result)


def batch(photos: Sequence[str], request: Mapping[str, Any]) -> Result:
    """Run the batch that `edit_batch` describes, on files, folders and lists.

    Raises InputError before anything is started.
    """
    from flows.form import BATCH_ID
    from flows.jobs import is_list, jobs_of

    listed = any(is_list(Path(photo)) for photo in photos)
    prompt = "" if listed and not request["prompt"] else _checked_prompt("--prompt", request["prompt"])
    if not re.fullmatch(BATCH_ID, request["batch_id"]):
        raise InputError("--batch-id must be up to 40 letters, digits, '_' or '-', and start with a letter or a digit.")
    inbox = inbox_of(load_settings())
    missing = [photo for photo in photos if not os.path.exists(find_photo(photo, inbox, here=True))]
    if missing:
        raise InputError(f"There is no file {missing[0]}; check the path.")
    # What is here is meant, not what has the same name in the inbox.
    meant = [str(Path(photo).absolute()) if os.path.exists(photo) else photo for photo in photos]
    # What is asked is read before Prefect starts, which takes seconds.
    jobs_of(meant, load_settings(), prompt, {name: request[name] for name in ("strength", "protect", "region")})
    # A batch takes hours: who watches it wants to see that it has died.
    with _flows(heartbeats=True) as settings:
        from flows.batch import edit_batch

        attempts = request["max_attempts"] or settings.max_attempts
        result: Result = edit_batch(**{**request, "prompt": prompt, "max_attempts": attempts, "photos": meant})
        return result


def resume(name: str, answer: str, person: Person) -> Result:
    """Continue one session; a failed one is tried again. Raises NotFoundError, LeaseHeldError."""
    settings = load_settings()
    with open_store(settings) as store:
        session = find_session(store.database, name)
        store.database.free_leases(is_gone, session.session_id)
        if session.status == "completed" and not answer:
            # Nothing to do; the flow would only say so, after seconds.
            export_the_end(store, session.session_id)
            return outcome(store, session.session_id)
        reopen(store, session.session_id)
    with _flows():
        return _with(person, settings, _continue(settings, session.session_id, answer))


def resume_all(person: Person) -> list[Result]:
    """Continue every interrupted session, the oldest first."""
    with open_store(load_settings()) as store:
        store.database.free_leases(is_gone)
        if not store.database.interrupted_sessions(limit=1):
            return []
    with _flows(heartbeats=True) as settings:
        from flows.resume import resume_interrupted

        return [_with(person, settings, result) for result in resume_interrupted()]


def _continue(settings: Settings, session_id: str, answer: str = "") -> Result:
    from flows.resume import continue_session

    with open_store(settings) as store:
        session = store.database.require_session(session_id)
    return continue_session(session, answer)


def _with(person: Person, settings: Settings, result: Result) -> Result:
    """Ask the person what the session waits for, and go on, until it is done or nobody answers."""
    while result.get("waiting_for"):
        if result["waiting_for"] == "question":
            question = Question.model_validate(result["question"])
            answer = person.pick(result) if result["variations"] else person.choose(question)
            if answer is None:
                return result
            result = _continue(settings, result["session_id"], answer)
        else:
            verdict = person.judge(result)
            if verdict is None:
                return result
            with open_store(settings) as store:
                give_verdict(
                    store,
                    result["session_id"],
                    verdict.word,
                    rating=verdict.rating,
                    comment=verdict.comment,
                    reasons=verdict.reasons,
                )
            result = _continue(settings, result["session_id"])
    return result


def fork(name: str, wanted: Wanted, person: Person, *, run: bool) -> Result:
    """Go back in a session: make the fork, and unless it is left for later, run it. Raises InputError."""
    from flows.forking import planned

    if len(wanted.prompt) > MAX_PROMPT:
        raise InputError(f"--prompt has {len(wanted.prompt)} characters: say it in at most {MAX_PROMPT}.")
    _fits("--prompt", Text, wanted.prompt)
    _fits("--session-id", SessionId, wanted.session_id)
    _fits("--output", Text, wanted.output)
    settings = load_settings()
    with open_store(settings) as store:
        # What cannot be is said at once; Prefect takes seconds to start.
        planned_fork = planned(store, name, wanted)
        if not run:
            make_fork(store, planned_fork, later=True)
            return outcome(store, wanted.session_id)
    with _flows():
        # Only now: while Prefect starts, `edi serve` might take it for interrupted.
        with open_store(settings) as store:
            make_fork(store, planned_fork)
        return _with(person, settings, _continue(settings, wanted.session_id))


@contextmanager
def _flows(*, heartbeats: bool = False) -> Iterator[Settings]:
    """A process in which flows can run: Prefect set up for EDI_HOME, and a server that answers."""
    from flows.server import api_for, one_client, prepare_environment

    settings = load_settings()
    prepare_environment(settings)
    with api_for(settings, heartbeats=heartbeats) as url, one_client(url):
        yield settings
