"""How a flow process reaches a Prefect API: the user's own, the one `edi serve` runs, or an embedded one of its own.

A server that EDI starts is a child whose life hangs on a pipe: it reads its standard input, of which only the parent
holds the other end. When the parent ends, by whatever means, the kernel closes that end and the child leaves: a killed
parent needs no clean-up of its own. Prefect is imported inside functions only, because it reads its settings once,
when it is imported, and because that import takes a second.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from edi_storage.errors import EdiError
from edi_storage.settings import Settings

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"

#: The names under which a person reaches a server of this machine.
LOCAL_NAMES = frozenset({HOST, "localhost", "::1"})

#: Patience with a server that starts. The first start in a new EDI_HOME runs all of Prefect's migrations (7 s here).
START_SECONDS = 60.0

#: How long a server may take to write its last events down once its pipe is closed.
STOP_SECONDS = 4.0

#: How long a running server may take to say that it is alive.
HEALTH_SECONDS = 5.0

#: A server that is asked to end stays until its event queues were empty for so many tenths of a second.
QUIET_TICKS = 3

#: server.log is begun anew by the first server that finds it longer than this.
LOG_BYTES = 1_000_000

#: Settings of every EDI process that touches Prefect. What the user set in the environment is kept.
ENVIRONMENT: Mapping[str, str] = {
    # Nothing phones home, and the UI advertises nothing.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Without an API URL Prefect must fail, not start a server of its own: that one outlives a killed parent.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    # The least Prefect accepts: a dead flow process is noticed by its missing heartbeats.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # Processor and memory figures of flow processes, which nobody looks at.
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    # Logs go to the API, where the UI shows them; the console is for EDI's own lines. ERROR would print tracebacks.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

#: What an embedded server leaves out on top of Prefect's ephemeral mode (no UI, no scheduler, no late runs, ...).
EMBEDDED: Mapping[str, str] = {
    # Automations are for a server that stays; two servers on one database would both fire them.
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    # Nobody listens to its event stream, and the page of an old run needs states, logs and artifacts only.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
}


@dataclass(frozen=True)
class ServerInfo:
    """What server.json says about the server that `edi serve` runs."""

    url: str
    pid: int
    port: int
    started_at: float


def prepare_environment(settings: Settings) -> None:
    """Set what Prefect reads when it is imported, so call it before. Never overrides what the user set.

    Prefect's own files go to EDI_HOME/prefect, unless the user names a server or a home: then theirs are used.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(folder(settings)))


def folder(settings: Settings) -> Path:
    """EDI_HOME/prefect, made private if it is not there."""
    path = settings.home / "prefect"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def api_for(settings: Settings) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, and make it the one that Prefect uses inside the block.

    First the server that PREFECT_API_URL names, then the one `edi serve` runs for this EDI_HOME, else an embedded one
    that ends with the block, or with this process however it ends. Raises EdiError with one sentence.
    """
    prepare_environment(settings)
    with contextlib.ExitStack() as stack:
        url = _named_server() or _served(settings)
        embedded = url is None
        if url is None:
            url = stack.enter_context(start_server(settings, full=False))
        stack.enter_context(_using(url, heartbeats=not embedded))
        yield url


def _named_server() -> str | None:
    url = os.environ.get("PREFECT_API_URL")
    if url and not answers(url):
        raise EdiError(
            f"PREFECT_API_URL is {url}, but no Prefect server answers there: "
            "start it, or unset PREFECT_API_URL and EDI runs its own."
        )
    return url or None


def _served(settings: Settings) -> str | None:
    info = running_server(settings)
    return info.url if info else None


def running_server(settings: Settings) -> ServerInfo | None:
    """The server that `edi serve` runs for this EDI_HOME, if it is alive."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        info = ServerInfo(**json.loads((folder(settings) / "server.json").read_text()))
        # A left-over file may name a port that somebody else has now: only the living `edi serve` holds the lock.
        if _is_held(serve_lock(settings)) and answers(info.url):
            return info
    return None


def serve_lock(settings: Settings) -> FileLock:
    """The lock that `edi serve` holds while it lives; the kernel frees it whatever ends the process."""
    return FileLock(folder(settings) / "serve.lock", mode=0o600)


def _is_held(lock: FileLock) -> bool:
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def answers(url: str) -> bool:
    """Whether a Prefect API answers at this URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return False
    # A proxy of the environment is right for a far server and wrong for one on this machine.
    local = parts.hostname in LOCAL_NAMES
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=HEALTH_SECONDS) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except urllib.error.HTTPError as error:
        return error.code in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}
    except (OSError, http.client.HTTPException, ValueError):
        return False


@contextlib.contextmanager
def _using(url: str, *, heartbeats: bool) -> Iterator[None]:
    with _environ("PREFECT_API_URL", url):
        from prefect.settings import temporary_settings

        # An embedded server ends with the flow: nobody would miss its heartbeats, and Prefect takes up to a second
        # to stop sending them.
        changes = {"PREFECT_API_URL": url} | ({} if heartbeats else {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": None})
        with temporary_settings(changes):
            try:
                yield
            finally:
                _flush()


@contextlib.contextmanager
def _environ(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _flush() -> None:
    """Send what Prefect still holds back: states of task runs travel as events, in a background thread."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=STOP_SECONDS)
    APILogWorker.drain_all(timeout=STOP_SECONDS)


@contextlib.contextmanager
def start_server(settings: Settings, *, full: bool, port: int = 0) -> Iterator[str]:
    """Run a Prefect server on this machine for the time of the block; yields its API's URL once it answers.

    full: with UI, scheduler and automations, as `edi serve` needs it. port 0 takes a free one. EdiError if it fails.
    """
    log = folder(settings) / "server.log"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(port))
        url = f"http://{HOST}:{listener.getsockname()[1]}/api"
        command = ["-m", "flows.server", str(listener.fileno()), *(["--full"] if full else [])]
        child = stack.enter_context(
            bound_child(command, log=log, env=_server_environment(url, full=full), pass_fds=[listener.fileno()])
        )
        with _environ("PREFECT_API_URL", url):
            import prefect  # noqa: F401  # a second of work, done while the child starts on the other core
        _wait_ready(child, log)
        listener.close()
        yield url


def _listener(port: int) -> socket.socket:
    """A bound socket, handed to the child: so no other process can take the port in between."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise EdiError(f"Port {port} is not free ({error.strerror}): give another one with --port.") from error
    return listener


def _server_environment(url: str, *, full: bool) -> dict[str, str]:
    origin = url.removesuffix("/api")
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser().absolute()
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(urllib.parse.urlsplit(url).port),
        # By default any page in the person's browser may read and steer this server.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{origin},{origin.replace(HOST, 'localhost')}",
        # The default is inside the installed package, which may be read-only or shared.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_COLORS": "false",
        **({} if full else EMBEDDED),
    }


@contextlib.contextmanager
def bound_child(
    command: Sequence[str], *, log: Path, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run this Python with `command`, in its own session, errors to `log`; it ends when its standard input does."""
    with _open_log(log) as errors:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **import_environment(), **env},
            pass_fds=pass_fds,
            # Ctrl-C goes to the parent only, which still needs the child to write down how its run ended.
            start_new_session=True,
        )
    try:
        yield child
    finally:
        end_child(child, STOP_SECONDS)


def end_child(child: subprocess.Popen[bytes], patience: float) -> None:
    """Close the pipe that keeps the child alive, and kill the child if it stays longer than `patience` seconds."""
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def import_environment() -> dict[str, str]:
    """What a child needs to find this package, and not a folder of the same name where the person works."""
    root = str(Path(__file__).absolute().parent.parent)
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # site-packages must not come before the standard library, and is found anyway.
    paths = found if Path(root).name in {"site-packages", "dist-packages"} else [root, *found]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths)))}


def _open_log(path: Path) -> IO[bytes]:
    long = path.exists() and path.stat().st_size > LOG_BYTES
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if long else 0)
    return os.fdopen(os.open(path, flags, 0o600), "ab")


def _wait_ready(child: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the child has written its ready line; EdiError with the end of its log if it does not."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    stdout = child.stdout
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except queue.Empty:
        reason = f"did not answer within {START_SECONDS:.0f} seconds"
    else:
        if line:
            return
        reason = f"ended with code {child.wait()}"
    child.kill()
    raise EdiError(f"The Prefect server {reason}; see {log}: {_tail(log)}")


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace")[-4000:].splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "(empty)"


def main(arguments: Sequence[str]) -> None:
    """The child: serve on the inherited socket until standard input ends. Arguments: its number [--full]."""
    os.umask(0o077)
    _watch_parent(leave := threading.Event())
    gc.disable()  # until it serves: a fifth of the start would be spent looking for garbage among fresh modules
    import prefect.server.api.collections as collections
    import uvicorn
    from prefect.server.api.server import create_app

    # The pages about blocks and work pools fetch their lists from the internet; Prefect brings the same as a file.
    collections.KNOWN_VIEWS.update(dict.fromkeys(collections.KNOWN_VIEWS, "offline:"))
    app = create_app(ephemeral="--full" not in arguments, final=True)
    config = uvicorn.Config(
        _OnlyFromHere(app), log_level="warning", lifespan="on", timeout_graceful_shutdown=1, access_log=False
    )
    listener = socket.socket(fileno=int(arguments[0]))
    _server(config, leave).run(sockets=[listener])
    # All is written; Python's own way out takes Prefect another second.
    os._exit(0)


def _watch_parent(leave: threading.Event) -> None:
    def wait() -> None:
        # Not sys.stdin: a thread blocked inside it deadlocks the interpreter's own shutdown.
        while os.read(0, 1024):
            pass
        leave.set()
        # The orderly end writes the last events down; it may hang, or never begin while the server still starts.
        time.sleep(STOP_SECONDS - 1)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _server(config: uvicorn.Config, leave: threading.Event) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        quiet_ticks = 0

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Prefect's migrations do not bear two processes at once.
            with FileLock(Path(os.environ["PREFECT_HOME"]) / "migrate.lock", timeout=START_SECONDS, mode=0o600):
                await super().startup(sockets)
            gc.enable()
            if self.started:
                with contextlib.suppress(OSError):  # the parent is gone already
                    os.write(1, b"ready\n")

        async def on_tick(self, counter: int) -> bool:
            # Prefect drops the events that wait in its queues when it ends, and with them the states of task runs.
            self.quiet_ticks = 0 if _queued_events() else self.quiet_ticks + 1
            ending = leave.is_set() or await super().on_tick(counter)
            return ending and self.quiet_ticks >= QUIET_TICKS

    return Server(config)


def _queued_events() -> int:
    from prefect.server.utilities.messaging.memory import Topic

    subscriptions = (subscription for topic in Topic._topics.values() for subscription in topic._subscriptions)
    return sum(subscription._queue.qsize() for subscription in subscriptions)


class _OnlyFromHere:
    """Turns away what a foreign web page makes the person's browser send: Prefect itself asks for no password."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._is_local(dict(scope["headers"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": http.HTTPStatus.FORBIDDEN, "headers": []})
            await send({"type": "http.response.body", "body": b"This Prefect server serves its own machine only.\n"})

    @staticmethod
    def _is_local(headers: dict[bytes, bytes]) -> bool:
        # A foreign Host is a name that was made to point here (DNS rebinding); a foreign Origin is another site's page.
        named = [f"//{headers.get(b'host', b'').decode('latin-1')}", headers.get(b"origin", b"").decode("latin-1")]
        return all(urllib.parse.urlsplit(name).hostname in LOCAL_NAMES for name in named if name)


if __name__ == "__main__":
    main(sys.argv[1:])
