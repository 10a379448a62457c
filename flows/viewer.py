"""Pages of sessions beside Prefect's UI, on the server of `edi serve`. What they send: see flows/sending.py.

GET / leads to /edi, since Prefect's own pages begin at /v2. GET /edi shows the photos in the inbox and lists the newest
sessions; /edi/-/edit?photo=NAME is the form that starts an edit; /edi/-/learned is the report of what was learned, for
which new ratings are counted. /edi/SESSION is the page of a session with the slider and the forms that answer and rate
it; before its run has made the session, it says how that stands. /edi/SESSION/{photo,result,changes} is a picture as it
is stored, .../small a small one for lists, .../saved the result in the photo's own format, .../again the form of
another edit, filled in, and .../rate?verdict=accept&stars=5 leads to the form that rates it. .../stands and
/edi/-/stands change when a page that is open is to be loaded anew. SESSION may be shortened, or "last". Prefect's
password, where there is one, is asked for here too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import io
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import temporary_settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from edi_storage.errors import EdiError, InputError, NotFoundError
from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.models import SessionData, SessionHistory
from edi_storage.settings import Settings, load_settings
from edi_storage.steps import last_attempt
from edi_storage.store import Store, open_store
from flows.engines.wishes import STRENGTHS, Wishes
from flows.inbox import inbox_of, photos_in
from flows.learned.kinds import kinds
from flows.learned.page import page as learned_page
from flows.links import (
    EDIT,
    INBOX,
    LEARNED,
    LIST,
    PICTURES,
    PREFIX,
    RATINGS,
    SAVED,
    THUMBNAIL,
    has_result,
    session_link,
    stands_link,
)
from flows.output import FORMATS, given_away
from flows.pages.document import Watch, link
from flows.pages.forms import edit_page, starting_page
from flows.pages.photos import photos_page
from flows.pages.session import saved_as
from flows.pictures import thumbnail
from flows.sending import ONE_PHOTO, SMALL, digest, picture_of, sending_routes, session_page, stands_of, told
from flows.sessions import called, find_session

_TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}

#: What answers a request, and one about a session.
Answer = Callable[[Store, Request], Response]
OfSession = Callable[[Store, str, Request], Response]

#: Edits that are listed, the newest first.
_LISTED: Final = 200

#: A run that was to start so long ago has others before it.
_SOON: Final = timedelta(seconds=10)

#: How a run stands that has not made its session yet.
_BEFORE: Final = {
    StateType.SCHEDULED: "It starts in a moment.",
    StateType.PENDING: "It starts.",
    StateType.RUNNING: "It starts.",
    StateType.CANCELLING: "It is being cancelled.",
    StateType.CANCELLED: "It was cancelled before it began.",
}


#: A page that follows an edit asks again by itself, so that it need not wait for a server that is busy.
_PATIENCE: Final = {"PREFECT_API_REQUEST_TIMEOUT": 5.0, "PREFECT_CLIENT_MAX_RETRIES": 0}
_BUSY: Final = "Prefect's server is busy and does not say how this edit stands: the page asks again by itself."

_OVER: Final = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class Viewer:
    """Prefect's application with EDI's pages under /edi."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app, self._pages = app, _pages(settings.auth_string.get_secret_value())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        ours = scope["type"] == "http" and (path in ("/", PREFIX) or path.startswith(f"{PREFIX}/"))
        await (self._pages if ours else self._app)(scope, receive, send)


def _pages(password: str) -> Starlette:
    shown = {"rate": _rate, "again": _again, THUMBNAIL: _small, SAVED: _saved}
    shown |= dict.fromkeys(PICTURES, _picture)
    answers: dict[str, Answer] = {
        # No session is called "-".
        PREFIX: _photos,
        EDIT: _edit,
        INBOX: _thumbnail,
        LEARNED: _learned,
        LIST: _list_stands,
        session_link("{session}"): _page,
        stands_link("{session}"): _session_stands,
        **{session_link("{session}", name): _of_a_session(answer) for name, answer in shown.items()},
    }

    def refuses(headers: Mapping[str, str]) -> Response | None:
        return _refusal(headers, password)

    begin = Route("/", lambda _: RedirectResponse(PREFIX))
    looked_at = [Route(path, _shown(answer, password)) for path, answer in answers.items()]
    return Starlette(routes=[begin, *sending_routes(refuses), *looked_at])


def _of_a_session(answer: OfSession) -> Answer:
    return lambda store, request: answer(
        store, find_session(store.database, request.path_params["session"]).session_id, request
    )


def _shown(answer: Answer, password: str) -> Callable[[Request], Response]:
    """An endpoint; what goes wrong is one sentence. Not a coroutine: Starlette runs it in a thread."""

    def endpoint(request: Request) -> Response:
        if refusal := _refusal(request.headers, password):
            return refusal
        try:
            with open_store(load_settings()) as store:
                return answer(store, request)
        except EdiError as error:
            return told(error)

    return endpoint


def _refusal(headers: Mapping[str, str], password: str) -> Response | None:
    if not password or _knows(headers, password):
        return None
    return Response("A password is needed.", 401, {"WWW-Authenticate": 'Basic realm="EDI"'})


def _knows(headers: Mapping[str, str], password: str) -> bool:
    kind, _, code = headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(code, validate=True)
    except binascii.Error:
        return False
    return kind.lower() == "basic" and hmac.compare_digest(given, password.encode())


def _photos(store: Store, _: Request) -> Response:
    inbox, names, sessions = _listed(store)
    said = store.database.verdicts_on(session.session_id for session in sessions)
    return HTMLResponse(photos_page(sessions, said, inbox, names, digest(names, sessions, said)))


def _list_stands(store: Store, _: Request) -> Response:
    _inbox, names, sessions = _listed(store)
    said = store.database.verdicts_on(session.session_id for session in sessions)
    return PlainTextResponse(digest(names, sessions, said))


def _listed(store: Store) -> tuple[Path, list[str], list[SessionData]]:
    """The inbox, the names of the photos in it, and the newest sessions."""
    inbox = inbox_of(load_settings())
    # A name that is no text can be neither shown nor told.
    names = [path.name for path in photos_in(inbox) if path.name.isprintable()]
    return inbox, names, store.database.query_history(limit=_LISTED)


def _thumbnail(_: Store, request: Request) -> Response:
    wanted = request.query_params.get("name", "")
    for path in photos_in(inbox_of(load_settings())):
        if path.name == wanted:
            with ONE_PHOTO:
                small = thumbnail(path, SMALL, path.name)
            return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})
    raise NotFoundError("There is no such photo in the folder for photos.")


def _learned(store: Store, _: Request) -> Response:
    """What the report says now: ratings that the flow `learn-from-feedback` has not counted yet are counted here."""
    report = report_on(store.database, kinds(), learn(store.database), is_on=load_settings().learning == "on")
    return HTMLResponse(learned_page(report, called(store.database, report.examples)))


def _edit(_: Store, request: Request) -> Response:
    given = {name: value for name, value in request.query_params.items() if name != "once"}
    return HTMLResponse(edit_page(given, picture_of(given.get("photo", ""))))


def _page(store: Store, request: Request) -> Response:
    name = request.path_params["session"]
    try:
        session_id = find_session(store.database, name).session_id
    except NotFoundError:
        return _starting(name)
    return HTMLResponse(session_page(store, session_id, dict(request.query_params)))


def _session_stands(store: Store, request: Request) -> Response:
    name = request.path_params["session"]
    try:
        return PlainTextResponse(stands_of(store, find_session(store.database, name).session_id))
    except NotFoundError:
        run = _run(name)
        # A page that is open stays as it is until there is an answer.
        return PlainTextResponse(_how(run)) if run else PlainTextResponse(_BUSY, 503)


def _starting(name: str) -> Response:
    """The page of a session that its run has not made yet, or could not make."""
    run = _run(name)
    if run is None:
        watch = Watch(session_link(name), stands_link(name), _BUSY)
        return HTMLResponse(
            starting_page({"prompt": "One moment"}, "", _BUSY, watch, [link(PREFIX, "Photos and edits")])
        )
    again = {"photo": run.parameters.get("image_path", ""), "prompt": run.parameters.get("prompt", "")}
    said, is_over = _how(run), run.state_type in _OVER
    anew = [link(f"{EDIT}?{urlencode(again)}", "Say it anew")] if is_over else []
    picture = picture_of(str(run.parameters.get("image_path", "")))
    watch, ways = Watch(session_link(name), stands_link(name), said), [*anew, link(PREFIX, "Photos and edits")]
    return HTMLResponse(starting_page(run.parameters, picture, said, watch, ways))


def _run(name: str) -> FlowRun | None:
    """The run of an edit that is not over, or that has failed; None while the server does not say.

    Raises NotFoundError for what is none.
    """
    nobody = NotFoundError(f"There is no session {name!r}: `edi sessions` lists them.")
    try:
        run_id = UUID(name)
        with temporary_settings(_PATIENCE), get_client(sync_client=True) as client:
            run = client.read_flow_run(run_id)
    except (ValueError, ObjectNotFound):
        raise nobody from None
    except httpx.HTTPError:
        return None
    if "prompt" not in run.parameters or run.state_type == StateType.COMPLETED:
        raise nobody
    return run


def _how(run: FlowRun) -> str:
    """How a run stands that has not made its session."""
    if run.state_type == StateType.SCHEDULED and run.estimated_start_time_delta > _SOON:
        return "It waits for the edits before it."
    message = run.state.message if run.state else None
    return _BEFORE.get(run.state_type or StateType.SCHEDULED) or f"Failed: {message or 'for an unknown reason'}"


def _picture(store: Store, session_id: str, request: Request) -> Response:
    name = PurePosixPath(request.url.path).name
    path = _path_of(store.database.load_session(session_id), name)
    if path is None:
        raise NotFoundError(f"Session {session_id} has no picture called {name} yet.")
    # A stored file never changes, but "the result" may be another one after the next attempt.
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(store.files.read(path), media_type=_TYPES[PurePosixPath(path).suffix], headers=headers)


def _small(store: Store, session_id: str, request: Request) -> Response:
    """A small picture of the result, or of the photo as long as there is none or "?of=photo" asks for it."""
    state = store.database.get_state(session_id)
    result = state.edited_image_path if state and request.query_params.get("of") != "photo" else None
    path = (result or state.scene_analysis.get("image", {}).get("path")) if state else None
    if not path:
        raise NotFoundError(f"Session {session_id} has no picture yet.")
    # A stored file is called after what is in it.
    headers = {"ETag": f'"{PurePosixPath(path).stem}"', "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    with ONE_PHOTO:
        small = thumbnail(io.BytesIO(store.files.read(path)), SMALL, session_id)
    return Response(small, media_type="image/jpeg", headers=headers)


def _saved(store: Store, session_id: str, _: Request) -> Response:
    """The result as a file to give away, as `edi edit --output` writes it: in the photo's own format."""
    history = store.database.load_session(session_id)
    if not has_result(history):
        raise NotFoundError(f"Session {session_id} has no result yet.")
    suffix = PurePosixPath(saved_as(history)).suffix
    with ONE_PHOTO:
        return Response(given_away(store, history, FORMATS[suffix]), media_type=_TYPES[suffix])


def _again(store: Store, session_id: str, _: Request) -> Response:
    """The form with what was asked for in this session, to be changed and sent."""
    session = store.database.require_session(session_id)
    photo, wishes = Path(session.image_path), Wishes.of(session.options)
    strength = next((word for word, number in STRENGTHS.items() if number == wishes.strength), "")
    filled: dict[str, Any] = {
        "photo": photo.name if photo.parent == inbox_of(load_settings()) else str(photo),
        "prompt": session.naive_prompt,
        "strength": strength,
        "protect": wishes.protect,
        "region": str(wishes.region or ""),
        "mask": wishes.mask,
    }
    filled |= {name: session.options.get(name) for name in ("review", "variations", "max_attempts")}
    given = {name: str(value) for name, value in filled.items() if value}
    state = store.database.get_state(session_id)
    kept = f"{session_link(session_id, THUMBNAIL)}?of=photo" if state and state.scene_analysis.get("image") else ""
    return HTMLResponse(edit_page(given, picture_of(given["photo"]) or kept))


def _path_of(history: SessionHistory, picture: str) -> str | None:
    """Where the store has a picture of PICTURES."""
    if history.state is None:
        return None
    state = history.state.model_dump(mode="json")
    paths = {
        "photo": state["scene_analysis"].get("image", {}).get("path"),
        "result": state["edited_image_path"],
        "changes": state["validation"].get("attempts", {}).get(str(last_attempt(state)), {}).get("delta_image_path"),
    }
    return paths[picture] or None


def _rate(_: Store, session_id: str, request: Request) -> Response:
    """The form that rates a session is on its page."""
    asked = request.query_params
    known = [rating.verdict for rating in RATINGS]
    if asked.get("verdict") not in known:
        raise InputError(f"A verdict is one of {', '.join(known)}.")
    stars = asked.get("stars", "")
    chosen = {"verdict": asked["verdict"], **({"stars": stars} if stars in {"1", "2", "3", "4", "5"} else {})}
    return RedirectResponse(f"{session_link(session_id)}?{urlencode(chosen)}#rate", 303)
