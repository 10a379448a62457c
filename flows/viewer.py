"""Pages of sessions beside Prefect's UI, on the server of `edi serve`; no session is changed by them.

GET /edi shows the photos in the inbox and lists the newest sessions; /edi/-/learned is the report of what was learned,
for which new ratings are counted. /edi/SESSION is the page of a session with the slider; /edi/SESSION/{photo,result,
changes} a picture as it is stored, .../small a small one for lists, .../saved the result in the photo's own format.
Links that lead to filled-in forms of Prefect's: /edi/SESSION/rate?verdict=accept&stars=5 to that of `record-feedback`,
.../answer?choice=2 to that of `answer-question`, .../again and /edi/-/edit?photo=NAME to that of `edit-image`. SESSION
may be shortened, or "last". PUT /edi/-/photo?name=NAME puts a photo into the inbox. Prefect's password, where there is
one, is asked for here too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import io
import json
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlencode

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from edi_storage.errors import EdiError, InputError, NotFoundError
from edi_storage.learning import learn
from edi_storage.learning.evidence import report_on
from edi_storage.models import SessionHistory
from edi_storage.settings import Settings, load_settings
from edi_storage.state import last_attempt
from edi_storage.store import Store, open_store
from flows.engines.photo import MAX_BYTES
from flows.engines.wishes import STRENGTHS, Wishes
from flows.inbox import inbox_of, keep_photo, make_inbox, photos_in
from flows.learned.kinds import kinds
from flows.learned.page import page as learned_page
from flows.links import INBOX, LEARNED, PICTURES, PREFIX, RATINGS, SAVED, THUMBNAIL, has_result
from flows.output import FORMATS, given_away
from flows.page import index, page, saved_as
from flows.pictures import thumbnail
from flows.sessions import find_session

_TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}

#: Pages decode full-size photos: one at a time, so that a few open tabs do not take gigabytes.
_ONE_PAGE: Final = threading.Lock()

#: What answers a request, and one about a session.
Answer = Callable[[Store, Request], Response]
OfSession = Callable[[Store, str, Request], Response]

#: Pixels of the longer side of a photo of the inbox.
_THUMBNAIL: Final = 480

#: Edits that are listed, the newest first.
_LISTED: Final = 200


class Viewer:
    """Prefect's application with EDI's pages under /edi."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app, self._pages = app, _pages(settings.auth_string.get_secret_value())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        ours = scope["type"] == "http" and (path == PREFIX or path.startswith(f"{PREFIX}/"))
        await (self._pages if ours else self._app)(scope, receive, send)


def _pages(password: str) -> Starlette:
    shown = {"": _page, "rate": _rate, "again": _again, "answer": _answer, THUMBNAIL: _small, SAVED: _saved}
    shown |= dict.fromkeys(PICTURES, _picture)
    # No session is called "-".
    mine = {PREFIX: _index, f"{PREFIX}/-/edit": _edit, INBOX: _thumbnail, LEARNED: _learned}
    routes = [Route(INBOX, _kept(password), methods=["PUT"])]
    routes += [Route(path, _shown(answer, password)) for path, answer in mine.items()]
    routes += [
        Route("/".join(filter(None, (PREFIX, "{session}", name))), _shown(_of_a_session(answer), password))
        for name, answer in shown.items()
    ]
    return Starlette(routes=routes)


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
            return _told(error)

    return endpoint


def _told(error: EdiError) -> Response:
    status = 404 if isinstance(error, NotFoundError) else 400 if isinstance(error, InputError) else 500
    return PlainTextResponse(f"{error}\n", status)


def _refusal(headers: Mapping[str, str], password: str) -> Response | None:
    if not password or _knows(headers, password):
        return None
    return Response("A password is needed.", 401, {"WWW-Authenticate": 'Basic realm="EDI"'})


def _kept(password: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """The endpoint that takes a photo, the request's body, into the inbox; another site's page cannot send it one."""

    async def endpoint(request: Request) -> Response:
        if refusal := _refusal(request.headers, password):
            return refusal
        name, data = request.query_params.get("name", ""), bytearray()
        async for part in request.stream():
            data += part
            if len(data) > MAX_BYTES:
                return PlainTextResponse(f"{name[:80]} has more than {MAX_BYTES >> 20} MB.\n", 413)
        return await run_in_threadpool(_keep, name, bytes(data))

    return endpoint


def _keep(name: str, data: bytes) -> Response:
    try:
        with _ONE_PAGE:
            thumbnail(io.BytesIO(data), _THUMBNAIL, name[:80] or "the file")
            kept = keep_photo(make_inbox(load_settings()), name, data)
    except EdiError as error:
        return _told(error)
    return PlainTextResponse(f"{kept}\n", 201)


def _knows(headers: Mapping[str, str], password: str) -> bool:
    kind, _, code = headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(code, validate=True)
    except binascii.Error:
        return False
    return kind.lower() == "basic" and hmac.compare_digest(given, password.encode())


def _index(store: Store, _: Request) -> Response:
    inbox = inbox_of(load_settings())
    # A name that is no text can be neither shown nor told.
    names = [path.name for path in photos_in(inbox) if path.name.isprintable()]
    sessions = store.database.query_history(limit=_LISTED)
    said = store.database.verdicts_on(session.session_id for session in sessions)
    return HTMLResponse(index(sessions, said, inbox, names))


def _thumbnail(_: Store, request: Request) -> Response:
    wanted = request.query_params.get("name", "")
    for path in photos_in(inbox_of(load_settings())):
        if path.name == wanted:
            with _ONE_PAGE:
                small = thumbnail(path, _THUMBNAIL, path.name)
            return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})
    raise NotFoundError("There is no such photo in the folder for photos.")


def _learned(store: Store, _: Request) -> Response:
    """What the report says now: ratings that the flow `learn-from-feedback` has not counted yet are counted here."""
    report = report_on(store.database, kinds(), learn(store.database), is_on=load_settings().learning == "on")
    return HTMLResponse(learned_page(report, served=True))


def _edit(_: Store, request: Request) -> Response:
    photo = request.query_params.get("photo", "")
    return _form_of("edit-image", {"image_path": photo} if photo else {})


def _page(store: Store, session_id: str, _: Request) -> Response:
    with _ONE_PAGE:
        return HTMLResponse(page(store, store.database.load_session(session_id), served=True))


def _picture(store: Store, session_id: str, request: Request) -> Response:
    name = PurePosixPath(request.url.path).name
    path = _path_of(store.database.load_session(session_id), name)
    if path is None:
        raise NotFoundError(f"Session {session_id} has no picture called {name} yet.")
    # A stored file never changes, but "the result" may be another one after the next attempt.
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(store.files.read(path), media_type=_TYPES[PurePosixPath(path).suffix], headers=headers)


def _small(store: Store, session_id: str, request: Request) -> Response:
    """A small picture of the result, or of the photo as long as there is none."""
    state = store.database.get_state(session_id)
    path = (state.edited_image_path or state.scene_analysis.get("image", {}).get("path")) if state else None
    if not path:
        raise NotFoundError(f"Session {session_id} has no picture yet.")
    # A stored file is called after what is in it.
    headers = {"ETag": f'"{PurePosixPath(path).stem}"', "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    with _ONE_PAGE:
        small = thumbnail(io.BytesIO(store.files.read(path)), _THUMBNAIL, session_id)
    return Response(small, media_type="image/jpeg", headers=headers)


def _saved(store: Store, session_id: str, _: Request) -> Response:
    """The result as a file to give away, as `edi edit --output` writes it: in the photo's own format."""
    history = store.database.load_session(session_id)
    if not has_result(history):
        raise NotFoundError(f"Session {session_id} has no result yet.")
    suffix = PurePosixPath(saved_as(history)).suffix
    with _ONE_PAGE:
        return Response(given_away(store, history, FORMATS[suffix]), media_type=_TYPES[suffix])


def _again(store: Store, session_id: str, _: Request) -> Response:
    """The form of `edit-image` with what was asked for in this session, to be changed and sent."""
    session = store.database.require_session(session_id)
    photo, wishes = Path(session.image_path), Wishes.of(session.options)
    strength = next((word for word, number in STRENGTHS.items() if number == wishes.strength), "")
    filled: dict[str, Any] = {
        "image_path": photo.name if photo.parent == inbox_of(load_settings()) else str(photo),
        "prompt": session.naive_prompt,
        "strength": strength,
        "protect": wishes.protect,
        "region": str(wishes.region or ""),
        "mask": wishes.mask,
    }
    filled |= {name: session.options.get(name) for name in ("review", "variations", "max_attempts")}
    return _form_of("edit-image", {name: value for name, value in filled.items() if value})


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
    asked = request.query_params
    fitting = [rating for rating in RATINGS if rating.verdict == asked.get("verdict")]
    if not fitting:
        raise InputError(f"A verdict is one of {', '.join(rating.verdict for rating in RATINGS)}.")
    stars = asked.get("stars", "")
    rating = int(stars) if stars in {"1", "2", "3", "4", "5"} else 0
    filled = {"verdict": fitting[0].verdict, "rating": rating, "session_id": session_id}
    return _form_of("record-feedback", filled)


def _answer(_: Store, session_id: str, request: Request) -> Response:
    choice = request.query_params.get("choice", "")
    if not (choice.isascii() and choice.isdigit()):
        raise InputError("A choice is a number.")
    return _form_of("answer-question", {"answer": choice[:3], "session_id": session_id})


def _form_of(deployment: str, filled: Mapping[str, Any]) -> Response:
    """Lead to the form that runs a deployment, with some of its fields filled in."""
    try:
        with get_client(sync_client=True) as client:
            form = client.read_deployment_by_name(f"{deployment}/{deployment}").id
    except ObjectNotFound:
        raise NotFoundError(f"The deployment {deployment} is not served here.") from None
    # Prefect's form reads what to begin with from the address.
    begun = f"?{urlencode({'parameters': json.dumps(filled)})}" if filled else ""
    return RedirectResponse(f"/v2/deployments/deployment/{form}/run{begun}", 303)
