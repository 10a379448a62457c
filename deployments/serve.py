"""`edi serve`: one process that keeps two children, the Prefect server with its UI and the runner of the deployments.

    edi serve --(pipe)--> server         Prefect's API, UI and scheduler
              --(pipe)--> runner         takes up due runs; each flow run is a process in the runner's process group

Both children leave when the pipe from their parent closes (see flows/server.py), and the runner takes its flow runs
with it: so nothing stays behind, however `edi serve` ends. A child that dies is started again; with the server goes the
runner, which would no longer hear of cancellations. What that interrupts is continued by the deployment
`resume-interrupted`, as after any other crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from subprocess import Popen

from filelock import Timeout

from edi_storage.errors import EdiError
from edi_storage.settings import Settings
from flows.child import bound_child, end_child, wait_ready
from flows.inbox import make_inbox
from flows.server import (
    HOST,
    ServerInfo,
    check_host,
    folder,
    named_server,
    prepare_environment,
    running_server,
    serve_lock,
    start_server,
)


@dataclass(frozen=True)
class Served:
    """One deployment: the flow at `entrypoint` ("package.module.function") under `name`."""

    name: str
    entrypoint: str
    #: Seconds between scheduled runs; None: only when somebody asks.
    interval: float | None = None
    #: A run that is due while another one runs is dropped, not queued.
    alone: bool = False
    #: Runs also as soon as the runner has started, for what was interrupted before.
    at_start: bool = False


def deployments_for(settings: Settings) -> tuple[Served, ...]:
    """The deployments that `edi serve` serves."""
    often = settings.resume_seconds
    return (
        Served("edit-image", "flows.edit.edit_image"),
        Served("edit-batch", "flows.batch.edit_batch"),
        Served("fork-session", "flows.fork.fork_session"),
        Served("record-feedback", "flows.feedback.record_feedback"),
        Served("resume-interrupted", "flows.resume.resume_interrupted", interval=often, alone=True, at_start=True),
        Served("learn-from-feedback", "flows.learn.learn_from_feedback", interval=3600, alone=True),
        Served("backup-database", "flows.backup.backup_database", interval=7 * 24 * 3600, alone=True),
    )


#: Flow runs in parallel that people asked for. Scheduled ones come on top: a queue of edits must not delay a resume.
WORKERS = 2

#: How long the runner may take to end its flow runs in good order.
RUNNER_STOP_SECONDS = 8.0

#: A child that dies sooner than this after its start counts as failed ...
STEADY_SECONDS = 60.0

#: ... and is started again after the first of these pauses, then the second, ...; after the last, `edi serve` ends.
PAUSES = (0.0, 1.0, 3.0, 10.0, 30.0)


def serve(
    settings: Settings,
    *,
    port: int = 4200,
    host: str = HOST,
    workers: int = WORKERS,
    deployments: Sequence[Served] = (),
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM. `announce` gets the ready line, with the UI's address; by default it is printed.

    deployments: those of `deployments_for`, unless others are given.
    Raises InputError for a `host` that would let other machines in without a password, EdiError if this EDI_HOME is
    served already, the port is taken, or a child keeps dying.
    """
    address = check_host(settings, host), port
    prepare_environment(settings)
    make_inbox(settings)
    announce = announce or _say
    deployments = deployments or deployments_for(settings)
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm(), _only_one(settings):

        def with_server() -> None:
            with _server(settings, address) as (url, server):

                def with_runner() -> None:
                    with _runner(settings, url, workers, deployments) as runner:
                        _write_server_file(settings, url)
                        announce(f"EDI is ready: {url.removesuffix('/api')} (Ctrl-C ends it)")
                        _wait_for_a_death(server, runner)
                        if _is_dead(server):
                            # No use in letting them write down how they ended: nobody listens.
                            with contextlib.suppress(ProcessLookupError):
                                os.killpg(runner.pid, signal.SIGKILL)

                _keep("runner", settings, with_runner, announce, until=lambda: _is_dead(server))

        _keep("server", settings, with_server, announce)


class _KeepsEndingError(EdiError):
    """A child was started again too often; also when it is the runner, a new server would not help."""


def _keep(
    name: str,
    settings: Settings,
    run: Callable[[], None],
    announce: Callable[[str], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """`run` a child again and again, until something else is to be done or the child keeps ending.

    That it does not even start is an error at the first time, when a person reads it, and later one more failure.
    """
    failures = 0
    ready = False
    while True:
        started = time.monotonic()
        try:
            run()
        except EdiError as error:
            if not ready or isinstance(error, _KeepsEndingError):
                raise
        ready = True
        if until():
            return
        failures = failures + 1 if time.monotonic() - started < STEADY_SECONDS else 1
        if failures > len(PAUSES):
            raise _KeepsEndingError(f"The {name} keeps ending: see {folder(settings) / f'{name}.log'}.")
        announce(f"The {name} ended unexpectedly; starting it again.")
        time.sleep(PAUSES[failures - 1])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the children end in good order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    lock = serve_lock(settings)
    try:
        lock.acquire(timeout=1)  # others hold it for a moment, to see whether it is free
    except Timeout:
        info = running_server(settings)
        where = f" at {info.url.removesuffix('/api')} (process {info.pid})" if info else ""
        raise EdiError(f"`edi serve` runs already for {settings.home}{where}.") from None
    try:
        yield
    finally:
        (folder(settings) / "server.json").unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _server(settings: Settings, address: tuple[str, int]) -> Iterator[tuple[str, Popen[bytes] | None]]:
    """The address of a server, and its process unless it is the one that PREFECT_API_URL names."""
    url = named_server()
    if url is not None:
        yield url, None
        return
    with start_server(settings, full=True, host=address[0], port=address[1]) as server:
        yield server.url, server.child


@contextlib.contextmanager
def _runner(settings: Settings, url: str, workers: int, deployments: Sequence[Served]) -> Iterator[Popen[bytes]]:
    log = folder(settings) / "runner.log"
    config = json.dumps({"workers": workers, "deployments": [asdict(served) for served in deployments]})
    environment = {
        "EDI_HOME": str(settings.home),
        "PREFECT_API_URL": url,
        # To runner.log, that is.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_COLORS": "false",
    }
    with bound_child(["-m", "deployments.runner", config], log=log, env=environment) as child:
        try:
            wait_ready(child, log, "runner")
            yield child
        finally:
            end_child(child, RUNNER_STOP_SECONDS)
            _end_group(child.pid)


def _end_group(group: int) -> None:
    """End the flow runs that a killed runner left behind; a runner that ended by itself left none."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)  # they write down that they crashed
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


def _wait_for_a_death(*children: Popen[bytes] | None) -> None:
    while not any(map(_is_dead, children)):
        time.sleep(0.5)


def _is_dead(child: Popen[bytes] | None) -> bool:
    return child is not None and child.poll() is not None


def _write_server_file(settings: Settings, url: str) -> None:
    port = urllib.parse.urlsplit(url).port or 0
    path = folder(settings) / "server.json"
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(ServerInfo(url, os.getpid(), port, time.time())), file)
    fresh.replace(path)
