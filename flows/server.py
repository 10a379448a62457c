"""How a flow process reaches a Prefect API: the user's own, the one `edi serve` runs, or an embedded one of its own.

A server that EDI starts ends with the process that started it, even with a killed one: see flows/child.py. Prefect is
imported inside functions only, because it reads its settings once, when it is imported, and that takes a second.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import http.client
import ipaddress
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edi_storage.errors import EdiError, InputError
from edi_storage.settings import Settings
from flows.child import bound_child, wait_ready

HOST = "127.0.0.1"

#: Listening here, a server can be reached from every network that the machine is on.
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only with a password, see `check_host`

#: How long a running server may take to say that it is alive.
HEALTH_SECONDS = 5.0

#: How long what Prefect holds back may take to be sent, and after how long it is looked whether the server still lives.
FLUSH_SECONDS = 30.0
FLUSH_TICK = 4.0

#: How often to look whether a port has become free: seconds.
PORT_TICK = 0.2

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
    # Five lines a stage about hooks and states, between which nobody would find a sentence. Failures are still told.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "WARNING",
    # The sentences of the stages, which the terminal shows too.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "edi",
    # Seconds until a person sees them; 2 by default.
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
}

#: What an embedded server leaves out on top of Prefect's ephemeral mode (no UI, no scheduler, no late runs, ...).
EMBEDDED: Mapping[str, str] = {
    # Automations are for a server that stays; two servers on one database would both fire them.
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    # Nobody listens to its event stream, and the page of an old run needs states, logs and artifacts only.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
    # States of tasks are written a second's worth at a time, and the rest at the end: one by one, each costs 10 ms. A
    # whole number of seconds, since a part of one counts as none, and the server would do nothing else.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}

#: How the server of `edi serve` differs from Prefect's defaults.
FULL: Mapping[str, str] = {
    # Runs are planned for the next three minutes instead of the next hour: so few can be missed and caught up.
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT3M",
    # Of the week that Prefect keeps by default: a run of `resume-interrupted` leaves 30 kB of events every minute.
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
}


@dataclass(frozen=True)
class ServerInfo:
    """What server.json says about the server that `edi serve` runs."""

    url: str
    #: Of `edi serve` itself.
    pid: int
    port: int
    started_at: float
    #: How many edits run at once, and the process that runs them.
    workers: int = 0
    runner: int = 0
    #: Whether it also has the pages of flows/viewer.py: a server that somebody else runs has not.
    viewer: bool = False

    @property
    def ui(self) -> str:
        """Where a person looks at it."""
        return self.url.removesuffix("/api")


@dataclass(frozen=True)
class Server:
    """A server that this process started."""

    url: str
    child: subprocess.Popen[bytes]


def prepare_environment(settings: Settings) -> None:
    """Set what Prefect reads when it is imported, so call it before. Never overrides what the user set.

    Prefect's own files go to EDI_HOME/prefect, unless the user names a server or a home: then theirs are used.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_HOME", str(folder(settings)))
        # Only here: the password of our own server is none of another one's business.
        if password := settings.auth_string.get_secret_value():
            os.environ.setdefault("PREFECT_API_AUTH_STRING", password)


def folder(settings: Settings) -> Path:
    """EDI_HOME/prefect, made private if it is not there."""
    path = settings.home / "prefect"
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextlib.contextmanager
def api_for(settings: Settings, *, heartbeats: bool = False) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, and make it the one that Prefect uses inside the block.

    First the server that PREFECT_API_URL names, then the one `edi serve` runs for this EDI_HOME, else an embedded one
    that ends with the block, or with this process however it ends. Raises EdiError with one sentence. heartbeats: by
    their absence a server that goes on sees that this process has died; each flow run then ends up to a second later.
    """
    prepare_environment(settings)
    with contextlib.ExitStack() as stack:
        url = named_server() or _served(settings)
        embedded = url is None
        if url is None:
            url = stack.enter_context(start_server(settings, full=False)).url
        stack.enter_context(_using(url, heartbeats=heartbeats and not embedded))
        yield url


@contextlib.contextmanager
def one_client(url: str) -> Iterator[None]:
    """One client of the server at `url` for all flows of the block. Raises EdiError for a server that is of no use.

    Each of its own would load a hundred certificates and ask for a token. For the whole of a command only: inside of
    the block Prefect gives this client to whoever asks for one, whatever server its settings name.
    """
    import httpx
    from prefect.context import SyncClientContext

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(SyncClientContext())
        except (RuntimeError, ValueError, httpx.HTTPError) as error:  # ValueError: a version that is none
            why = str(error).rstrip(".")
            if "Unauthorized" in why:
                why = "it asks for a password: set PREFECT_API_AUTH_STRING to user:password"
            raise EdiError(f"The Prefect server at {url} cannot be used: {why}.") from error
        try:
            yield
        except httpx.TransportError as error:
            raise EdiError(
                f"The Prefect server at {url} does not answer any more ({error or type(error).__name__}). What was "
                "finished is kept: when the server is back, `edi resume --all` goes on from there."
            ) from error


def named_server() -> str | None:
    """The URL in PREFECT_API_URL, if it is set; EdiError if nothing answers there."""
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
    info = read_server_file(settings)
    return info if info and answers(info.url) else None


def read_server_file(settings: Settings) -> ServerInfo | None:
    """What the living `edi serve` of this EDI_HOME says of itself, whether its server answers or not."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        info = ServerInfo(**json.loads(server_file(settings).read_text()))
        # A left-over file may name a port that somebody else has now: only the living `edi serve` holds the lock.
        return info if is_served(settings) else None
    return None


def write_server_file(settings: Settings, info: ServerInfo) -> None:
    """Say where the server is; written whole or not at all."""
    path = server_file(settings)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(info), file)
    fresh.replace(path)


def server_file(settings: Settings) -> Path:
    """Where `edi serve` says how it is reached."""
    return folder(settings) / "server.json"


def is_served(settings: Settings) -> bool:
    """Whether an `edi serve` lives for this EDI_HOME."""
    return _is_held(serve_lock(settings))


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
    try:
        with opener(url).open(f"{url.rstrip('/')}/health", timeout=HEALTH_SECONDS) as response:
            return bool(response.status == http.HTTPStatus.OK)
    except urllib.error.HTTPError as error:
        return error.code in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _listens(url: str) -> bool:
    """Whether a connection to this address is taken, or may yet be."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=HEALTH_SECONDS):
            return True
    except TimeoutError:
        return True
    except OSError:
        return False


def opener(url: str) -> urllib.request.OpenerDirector:
    """What fetches from this URL: a proxy of the environment is right for a far server, wrong for this machine's."""
    local = is_local(urllib.parse.urlsplit(url).hostname or "")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


@contextlib.contextmanager
def _using(url: str, *, heartbeats: bool) -> Iterator[None]:
    with _environ("PREFECT_API_URL", url):
        from prefect.settings import temporary_settings

        changes = {"PREFECT_API_URL": url} | ({} if heartbeats else {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": None})
        with temporary_settings(changes):
            try:
                yield
            finally:
                _flush(url)


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


def _flush(url: str) -> None:
    """Send what Prefect still holds back: states of task runs travel as events, in a background thread."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    deadline = time.monotonic() + FLUSH_SECONDS
    for worker in (EventsWorker, APILogWorker):
        sent: Any = worker.drain_all(timeout=FLUSH_TICK)  # outside of an event loop it is what `wait` returns
        left = sent.not_done
        # Prefect goes on trying for long where nobody listens any more; a busy server only answers late.
        while left and time.monotonic() < deadline and _listens(url):
            left = concurrent.futures.wait(left, timeout=FLUSH_TICK).not_done


@contextlib.contextmanager
def start_server(
    settings: Settings, *, full: bool, port: int = 0, host: str = HOST, patience: float = 0.0
) -> Iterator[Server]:
    """Run a Prefect server on this machine for the time of the block, which begins when the server answers.

    full: with UI, scheduler and automations, as `edi serve` needs it. port 0 takes a free one, which another one may
    become within `patience` seconds; `host` is the IPv4 address to listen at (see `check_host`). EdiError if it fails.
    """
    log = folder(settings) / "server.log"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(host, port, patience))
        # EDI's own processes reach it from this machine, also where it listens everywhere.
        url = f"http://{HOST if host == EVERYWHERE else host}:{listener.getsockname()[1]}/api"
        options = [*(["--full"] if full else []), *([] if is_local(host) else ["--public"])]
        command = ["-m", "flows.server_process", str(listener.fileno()), *options]
        environment = _server_environment(settings, url, full=full, public=not is_local(host))
        child = stack.enter_context(bound_child(command, log=log, env=environment, pass_fds=[listener.fileno()]))
        if not full:
            with _environ("PREFECT_API_URL", url):
                import prefect  # noqa: F401  # a second of work, done while the child starts on the other core
        wait_ready(child, log, "server")
        listener.close()
        yield Server(url, child)


def check_host(settings: Settings, host: str) -> str:
    """The address to listen at. Raises InputError for what is none, and for other machines' use without a password."""
    try:
        address = str(ipaddress.IPv4Address(HOST if host == "localhost" else host))
    except ValueError:
        raise InputError(f"{host!r} is no address to listen at: give an IPv4 address, such as {EVERYWHERE}.") from None
    if not is_local(address) and not settings.auth_string.get_secret_value():
        raise InputError(
            f"At {address} other machines could run edits here: set EDI_AUTH_STRING to user:password first, "
            f"or leave --host out to serve this machine only."
        )
    return address


def is_local(host: str) -> bool:
    """Whether an address, or the name in a URL, means this machine and can be reached from no other."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listener(host: str, port: int, patience: float) -> socket.socket:
    """A bound socket, handed to the child: so no other process can take the port in between."""
    deadline = time.monotonic() + patience
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise EdiError(
                    f"This machine does not have the address {host}: give another one with --host."
                ) from error
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise EdiError(f"Port {port} is not free ({error.strerror}): give another one with --port.") from error
            time.sleep(PORT_TICK)
        else:
            return listener


def _server_environment(settings: Settings, url: str, *, full: bool, public: bool) -> dict[str, str]:
    origin = url.removesuffix("/api")
    password = settings.auth_string.get_secret_value() if full else ""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser().absolute()
    return {
        "EDI_HOME": str(settings.home),
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
        # Either a password or a token, neither of which a page of another site can read. Not both: the UI asks for the
        # token without the password, and would get nothing.
        **({"PREFECT_SERVER_API_AUTH_STRING": password} if password else {}),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": str(full and not password).lower(),
        # Whatever name another machine's browser knows this one by.
        **({"PREFECT_UI_API_URL": "/api"} if public else {}),
        **(FULL if full else EMBEDDED),
    }
