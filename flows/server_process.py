"""The process of a Prefect server that EDI starts: `python -m flows.server_process SOCKET [--full] [--public]`."""

from __future__ import annotations

import asyncio
import gc
import http
import os
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from flows.child import START_SECONDS, STOP_SECONDS, say_ready, watch_parent
from flows.server import is_local
from flows.turns import AsksAgain, OneWriter

if TYPE_CHECKING:
    import uvicorn

#: A server that is asked to end stays until all events were worked off, and no more came in, for so many tenths of a
#: second. In each of them whatever waits gets so many turns: on a starved machine a tenth may be over after one.
QUIET_TICKS = 3
TURNS = 50

#: Seconds between two looks for garbage.
GARBAGE_SECONDS = 10.0


def main(arguments: Sequence[str]) -> None:
    """The child: serve on the inherited socket until standard input ends. Arguments: its number [--full] [--public]."""
    os.umask(0o077)
    leave, ready = threading.Event(), threading.Event()
    watch_parent(lambda: _leave(leave, ready))
    gc.disable()  # until it serves: a fifth of the start would be spent looking for garbage among fresh modules
    import prefect.server.api.collections as collections
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

    # The pages about blocks and work pools fetch their lists from the internet; Prefect brings the same as a file.
    collections.KNOWN_VIEWS.update(dict.fromkeys(collections.KNOWN_VIEWS, "offline:"))
    app: Any = create_app(ephemeral="--full" not in arguments, final=True)
    if PREFECT_API_DATABASE_CONNECTION_URL.value().startswith("sqlite"):
        app = AsksAgain(OneWriter(app))
    if "--full" in arguments:
        from edi_storage.settings import load_settings
        from flows.viewer import Viewer

        app = Viewer(app, load_settings())
    app = _OnlyFromHere(app)
    public = "--public" in arguments
    config = uvicorn.Config(
        _NoForeignPages(app if public else _Uncompressed(app), public=public),
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=1,
        access_log=False,
    )
    listener = socket.socket(fileno=int(arguments[0]))
    _server(config, leave, ready).run(sockets=[listener])
    # All is written; Python's own way out takes Prefect another second.
    os._exit(0)


def _leave(leave: threading.Event, ready: threading.Event) -> None:
    leave.set()
    # The orderly end writes the last events down. It may hang; while the server still starts there is nothing to write.
    if ready.is_set():
        time.sleep(STOP_SECONDS - 1)
    os._exit(0)


def _server(config: uvicorn.Config, leave: threading.Event, ready: threading.Event) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        quiet_ticks = 0
        events = (0, 0)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Prefect's migrations do not bear two processes at once.
            with FileLock(Path(os.environ["PREFECT_HOME"]) / "migrate.lock", timeout=START_SECONDS, mode=0o600):
                await super().startup(sockets)
            threading.Thread(target=collect_garbage, daemon=True).start()
            if self.started:
                ready.set()
                say_ready()

        async def on_tick(self, counter: int) -> bool:
            # Prefect drops the events that it has not worked off when it ends, and with them states of task runs. On a
            # busy machine more of them may be on their way while there are none here.
            before, self.events = self.events, _events()
            received, done = self.events
            self.quiet_ticks = self.quiet_ticks + 1 if received == done and self.events == before else 0
            ending = leave.is_set() or await super().on_tick(counter)
            for _ in range(TURNS if ending else 0):
                await asyncio.sleep(0)
            return ending and self.quiet_ticks >= QUIET_TICKS

    return Server(config)


def collect_garbage(seconds: float = GARBAGE_SECONDS) -> None:
    """Look for garbage from now on, in this thread; it never returns.

    Else the thread that answers would find it. Where that holds a cursor of a connection to SQLite it waits for that
    connection, which may wait for its turn to write: a minute, in which nobody is answered, whoever's turn it is.
    """
    gc.disable()
    gc.freeze()  # what the server has started with stays
    while True:
        time.sleep(seconds)
        gc.collect()


def _events() -> tuple[int, int]:
    """How many events were delivered to Prefect's services, and how many of these they have worked off."""
    from prefect.server.utilities.messaging.memory import METRICS

    topics = list(METRICS.values())
    return sum(topic["published"] for topic in topics), sum(topic["consumed"] for topic in topics)


class _Uncompressed:
    """Has Prefect answer this machine as things are.

    To compress takes longer than to send, and nothing else is answered meanwhile: 8 MB for the first page of the UI.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


class _OnlyFromHere:
    """Forbids the UI's pages to fetch from anywhere else, which the browser sees to (Content-Security-Policy).

    Prefect's UI asks a statistics company for its configuration on every page, whatever Prefect's settings say.
    """

    def __init__(self, app: Any) -> None:
        from prefect.settings import PREFECT_UI_API_URL

        self._app = app
        # Where the UI finds the API: its pages may have been opened by another name of this machine.
        api = urllib.parse.urlsplit(PREFECT_UI_API_URL.value() or "").netloc
        sources = " ".join(["'self'", *(f"{scheme}://{api}" for scheme in ("http", "https", "ws", "wss") if api)])
        # Pictures in markdown come as data; the graph of a run makes workers out of blobs, and programs out of text.
        pages = f"default-src {sources} data: blob: 'unsafe-inline' 'unsafe-eval'"
        self._policy = f"{pages}; object-src 'none'; frame-ancestors 'self'".encode("latin-1")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", self._policy)]
            await send(message)

        await self._app(scope, receive, send_with_policy if scope["type"] == "http" else send)


class _NoForeignPages:
    """Turns away what a foreign web page makes the person's browser send.

    A server without a password is for this machine only; a public one has a password, and any name that leads to it.
    """

    def __init__(self, app: Any, *, public: bool) -> None:
        self._app, self._public = app, public

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._is_welcome(dict(scope["headers"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": http.HTTPStatus.FORBIDDEN, "headers": []})
            await send({"type": "http.response.body", "body": b"This server is not for other sites' pages.\n"})

    def _is_welcome(self, headers: dict[bytes, bytes]) -> bool:
        # A foreign Origin is another site's page; a foreign Host is a name that was made to point here (DNS rebinding).
        host = _name_in(f"//{headers.get(b'host', b'').decode('latin-1')}")
        origin = headers.get(b"origin", b"").decode("latin-1")
        page = _name_in(origin) if origin else host
        return page == host if self._public else all(not name or is_local(name) for name in (host, page))


def _name_in(url: str) -> str:
    """The host that a URL names; "" where there is none, "?" where it cannot be told."""
    try:
        name = urllib.parse.urlsplit(url).hostname
    except ValueError:  # brackets without an address between them
        return "?"
    return name or ("" if url == "//" else "?")


if __name__ == "__main__":
    main(sys.argv[1:])
