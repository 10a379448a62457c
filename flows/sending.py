"""What a person sends from EDI's own pages: a photo, a wish for an edit, an answer, a verdict.

PUT /edi/-/photo?name=NAME puts the body, a photo, into the inbox. POST /edi/-/edit starts a run of `edit-image` and
leads to the page of its session; /edi/SESSION/answer and /edi/SESSION/rate keep what is said, as the deployments
`answer-question` and `record-feedback` do, and lead back; /edi/SESSION/stop gives up an edit that waits, and leads to
the form of another one. Another site's page can send nothing here.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import temporary_settings
from pydantic import BaseModel, Field, ValidationError
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from edi_storage.errors import EdiError, InputError, LeaseHeldError, NotFoundError
from edi_storage.models import MAX_ATTEMPTS, MAX_VARIATIONS, FeedbackType, Reason, Review
from edi_storage.owner import owner_name
from edi_storage.record import describe
from edi_storage.recovery import end_session, give_verdict
from edi_storage.settings import load_settings
from edi_storage.steps import last_attempt
from edi_storage.store import Store, open_store
from flows.album import Copies
from flows.artifacts import show_stored
from flows.edit import keep_answer
from flows.editing import Request as Wish
from flows.engines.photo import MAX_BYTES
from flows.inbox import find_photo, inbox_of, keep_photo, make_inbox, photos_in
from flows.links import ALREADY_THERE, EDIT, INBOX, PREFIX, again_link, inbox_link, session_link, stop_link
from flows.names import edit_name
from flows.pages.forms import edit_page
from flows.pages.session import Served, page
from flows.pictures import thumbnail
from flows.reviving import hand_on, let_go
from flows.sessions import find_session
from flows.words import CANCELLED

#: Full-size photos are decoded one at a time, so that a few open tabs do not take gigabytes.
ONE_PHOTO: Final = threading.Lock()

#: Small copies of the pictures of the session that was looked at last: a page that follows an edit is made many times.
_copies: tuple[str, Copies] = "", {}

#: Pixels of the longer side of a photo of the inbox.
SMALL: Final = 480

#: How long a run may take to end after its result is there, and how often it is looked: seconds.
_ENDING_SECONDS: Final = 10.0
_TICK: Final = 0.2

#: Long enough to end a session that waits.
_LEASE_SECONDS: Final = 10

#: Bytes of a form that was filled in.
_MAX_FORM: Final = 64 << 10

#: Fields of which several may be ticked.
_LISTS: Final = ("reasons", "several")

#: Prefect's client asks a server that is busy again for more than a minute, while a person waits at a page.
_PATIENCE: Final = {"PREFECT_API_REQUEST_TIMEOUT": 10.0, "PREFECT_CLIENT_MAX_RETRIES": 2}

#: What takes the body of a request.
Taking = Callable[[Request, bytes], Response]

Sent = TypeVar("Sent", bound=BaseModel)


class _Edit(BaseModel):
    """The form that starts an edit."""

    photo: str
    prompt: str
    strength: str = ""
    protect: str = ""
    region: str = ""
    mask: str = ""
    review: Review = "unsure"
    variations: Annotated[int, Field(ge=1, le=MAX_VARIATIONS)] = 1
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = MAX_ATTEMPTS
    once: UUID


class _Verdict(BaseModel):
    """The form that rates an attempt."""

    attempt: int
    verdict: FeedbackType
    stars: Annotated[int, Field(ge=0, le=5)] = 0
    comment: Annotated[str, Field(max_length=2000)] = ""
    reasons: list[Reason] = []


def sending_routes(refuses: Callable[[Mapping[str, str]], Response | None]) -> list[Route]:
    """The routes. `refuses` has an answer for a request, by its headers, that brings no password where one is asked."""
    taken: dict[str, tuple[str, Taking, int]] = {
        INBOX: ("PUT", _keep, MAX_BYTES),
        EDIT: ("POST", _edit, _MAX_FORM),
        f"{PREFIX}/{{session}}/answer": ("POST", _answer, _MAX_FORM),
        f"{PREFIX}/{{session}}/rate": ("POST", _rate, _MAX_FORM),
        stop_link("{session}"): ("POST", _stop, _MAX_FORM),
    }
    return [
        Route(path, _endpoint(take, most, refuses), methods=[method]) for path, (method, take, most) in taken.items()
    ]


def told(error: EdiError) -> Response:
    """What went wrong, as one sentence."""
    status = 404 if isinstance(error, NotFoundError) else 400 if isinstance(error, InputError) else 500
    return PlainTextResponse(f"{error}\n", status)


def _endpoint(
    take: Taking, most: int, refuses: Callable[[Mapping[str, str]], Response | None]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def endpoint(request: Request) -> Response:
        if refusal := refuses(request.headers) or _foreign(request.headers):
            return refusal
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > most:
                limit = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} KB"
                return PlainTextResponse(f"That is too large: {limit} are the most.\n", 413)
        return await run_in_threadpool(_taken, take, request, bytes(body))

    return endpoint


def _taken(take: Taking, request: Request, body: bytes) -> Response:
    try:
        with temporary_settings(_PATIENCE):
            return take(request, body)
    except EdiError as error:
        return told(error)


def _foreign(headers: Mapping[str, str]) -> Response | None:
    """A refusal of what the page of another site, or of another port of this machine, has sent."""
    fetched, origin = headers.get("sec-fetch-site"), headers.get("origin")
    own = (
        fetched in ("same-origin", "none") if fetched else not origin or urlsplit(origin).netloc == headers.get("host")
    )
    return None if own else PlainTextResponse("This is not for other sites' pages.\n", 403)


def _form(kind: type[Sent], body: bytes) -> tuple[Sent, dict[str, list[str]]]:
    """A form that was filled in, checked and as it was sent. Raises InputError."""
    try:
        sent = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=100)
        given = {name: values if name in _LISTS else values[-1] for name, values in sent.items()}
        return kind.model_validate(given), sent
    except ValidationError as error:
        raise InputError(describe(error, "The form")) from error
    except ValueError as error:
        raise InputError(f"The form cannot be read: {error}.") from error


def _keep(request: Request, body: bytes) -> Response:
    name = request.query_params.get("name", "")
    with ONE_PHOTO:
        thumbnail(io.BytesIO(body), SMALL, name[:80] or "the file")
        kept, is_new = keep_photo(make_inbox(load_settings()), name, body)
    return PlainTextResponse(f"{kept}\n", 201 if is_new else ALREADY_THERE)


def _edit(_: Request, body: bytes) -> Response:
    """Everything that can be wrong is told in the form itself, before anything is started."""
    sent, given = _form(_Edit, body)
    try:
        run = _start("edit-image", _parameters(sent), sent.once)
    except EdiError as error:
        filled = {name: values[-1] for name, values in given.items()}
        return HTMLResponse(edit_page(filled, picture_of(sent.photo), str(error)), 400)
    return RedirectResponse(session_link(run), 303)


def _parameters(sent: _Edit) -> dict[str, Any]:
    """What the form asks for, checked, as `edit-image` takes it. Raises InputError."""
    if not sent.prompt.strip():
        raise InputError('Say what to do with the photo, such as "make the sky dramatic".')
    inbox = inbox_of(load_settings())
    # Of the folder where `edi serve` was started, a person at the page knows nothing.
    image, mask = find_photo(sent.photo, inbox), find_photo(sent.mask, inbox) if sent.mask else ""
    with ONE_PHOTO:
        wish = Wish.checked(image=image, mask=mask, **sent.model_dump(exclude={"photo", "mask", "once"}))
    return {
        "image_path": wish.image_path,
        "prompt": wish.prompt,
        "strength": sent.strength or "as the prompt says",
        "protect": wish.protect,
        "region": wish.region,
        "mask": wish.mask,
        "review": wish.review,
        "variations": wish.variations,
        "max_attempts": wish.max_attempts,
    }


def _start(deployment: str, parameters: Mapping[str, Any], once: UUID) -> str:
    """Run a deployment; returns the id of the run, which is the same one for what is sent twice.

    A form that was gone back to and changed is something else.
    """
    key = hashlib.sha256(json.dumps([str(once), deployment, parameters], sort_keys=True).encode()).hexdigest()
    try:
        with get_client(sync_client=True) as client:
            known = client.read_deployment_by_name(f"{deployment}/{deployment}").id
            run = client.create_flow_run_from_deployment(
                known, parameters=dict(parameters), name=edit_name(parameters), idempotency_key=key
            )
            return str(run.id)
    except ObjectNotFound:
        raise NotFoundError(f"The deployment {deployment} is not served here.") from None
    except httpx.HTTPError as error:
        raise EdiError(f"Prefect's server did not take it ({error}): send it again.") from error


def picture_of(photo: str) -> str:
    """The address of a small picture of a photo, if it is in the inbox: by its name there, or its path."""
    inbox, path = inbox_of(load_settings()), Path(photo)
    is_there = path.parent in (Path(), inbox) and inbox / path.name in photos_in(inbox)
    return inbox_link(path.name) if is_there else ""


class _Answer(BaseModel):
    """An answer: the number of a choice, or a blend of variations; or the numbers of several choices."""

    answer: Annotated[str, Field(max_length=200)] = ""
    several: list[str] = []


def _answer(request: Request, body: bytes) -> Response:
    sent, _ = _form(_Answer, body)
    answer = sent.answer or ",".join(sent.several)
    with open_store(load_settings()) as store:
        session_id = find_session(store.database, request.path_params["session"]).session_id
        try:
            keep_answer(store, session_id, answer)
        except EdiError as error:
            return _not_taken(store, session_id, error, {"answer": answer})
        hand_on(store, session_id)
    return RedirectResponse(session_link(session_id), 303)


def _stop(request: Request, _: bytes) -> Response:
    with open_store(load_settings()) as store:
        session_id = find_session(store.database, request.path_params["session"]).session_id
        try:
            session = store.database.require_session(session_id)
            if session.status != "in_progress" or not session.waiting_for:
                raise InputError("It does not wait for you any more.")
            end_session(store, store.database.acquire(session_id, owner_name(), _LEASE_SECONDS), CANCELLED)
        except EdiError as error:
            return _not_taken(store, session_id, error, {})
        let_go(store, session_id)
    return RedirectResponse(again_link(session_id), 303)


def _rate(request: Request, body: bytes) -> Response:
    sent, _ = _form(_Verdict, body)
    with open_store(load_settings()) as store:
        session_id = find_session(store.database, request.path_params["session"]).session_id
        state = store.database.get_state(session_id)
        newest = last_attempt(state.model_dump(mode="json")) if state else 0
        try:
            if newest != sent.attempt:
                raise InputError(f"Attempt {newest} is there by now: look at it first.")
            _keep_verdict(store, session_id, sent)
        except EdiError as error:
            return _not_taken(store, session_id, error, {"comment": sent.comment})
        hand_on(store, session_id)
    return RedirectResponse(f"{session_link(session_id)}#said", 303, background=BackgroundTask(_show, session_id))


def _keep_verdict(store: Store, session_id: str, sent: _Verdict) -> None:
    """Keep it as soon as the run has let go of the session, whose result was there a moment before. LeaseHeldError."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            give_verdict(
                store, session_id, sent.verdict, rating=sent.stars or None, comment=sent.comment, reasons=sent.reasons
            )
        except LeaseHeldError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_TICK)
        else:
            return


def _not_taken(store: Store, session_id: str, error: EdiError, written: Mapping[str, str]) -> Response:
    """The page of the session as it is now, with what was wrong."""
    return HTMLResponse(session_page(store, session_id, written, str(error)), 400)


def session_page(store: Store, session_id: str, written: Mapping[str, str], wrong: str = "") -> str:
    """The page of a session, with what was chosen or `written` in its forms, and what was `wrong` with that."""
    global _copies
    with ONE_PHOTO:
        stands, history = stands_of(store, session_id), store.database.load_session(session_id)
        if _copies[0] != session_id:
            _copies = session_id, {}
        return page(store, history, Served(stands, written, wrong), _copies[1])


def stands_of(store: Store, session_id: str) -> str:
    """How a session stands, as a text that is another one when anything of it has changed."""
    said = [one.created_at for one in store.database.get_feedback(session_id)]
    return digest(store.database.get_session(session_id), store.database.last_seq(session_id), said)


def digest(*what: Any) -> str:
    """A short text that stands for all this."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _show(session_id: str) -> None:
    """Bring the artifact of the session's own run up to what was said of it; the page does not wait for it."""
    with open_store(load_settings()) as store:
        if run := store.database.last_flow_run(session_id):
            show_stored(store, session_id, UUID(run))
