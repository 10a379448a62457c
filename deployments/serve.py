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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from subprocess import Popen
from urllib.parse import urlsplit

from filelock import Timeout

from deployments.welcome import welcome
from edi_storage.errors import EdiError
from edi_storage.settings import Settings
from flows.child import STOP_SECONDS, bound_child, end_child, wait_ready
from flows.server import (
    HOST,
    ServerInfo,
    check_host,
    folder,
    named_server,
    prepare_environment,
    running_server,
    serve_lock,
    server_file,
    start_server,
    write_server_file,
)


@dataclass(frozen=True)
class Served:
    """One deployment: the flow at `entrypoint` ("package.module.function") under `name`."""

    name: str
    entrypoint: str
    #: Seconds between scheduled runs; None: only when somebody asks.
    interval: float | None = None
    #: Whether its schedule is switched on at first; a person switches it on or off in the UI.
    active: bool = True
    #: A run that is due while another one runs is dropped, not queued.
    alone: bool = False
    #: Runs also as soon as the runner has started, for what was interrupted before.
    at_start: bool = False
    #: Of its runs that found nothing to do only the newest few are kept: there are thousands of them.
    tidied: bool = False


def deployments_for(settings: Settings) -> tuple[Served, ...]:
    """The deployments that `edi serve` serves."""
    often, in_a_file = settings.resume_seconds, settings.database_url.startswith("sqlite")
    return (
        Served("edit-image", "flows.edit.edit_image"),
        Served("edit-batch", "flows.batch.edit_batch"),
        Served("fork-session", "flows.fork.fork_session"),
        Served("record-feedback", "flows.feedback.record_feedback"),
        Served("answer-question", "flows.answer.answer_question"),
        Served(
            "resume-interrupted",
            "flows.resume.resume_interrupted",
            interval=often,
            alone=True,
            at_start=True,
            tidied=True,
        ),
        Served("learn-from-feedback", "flows.learn.learn_from_feedback", interval=3600, alone=True),
        # Off where the database is on a server, which its own tools back up: every run would fail.
        Served("backup-database", "flows.backup.backup_database", interval=7 * 24 * 3600, active=in_a_file, alone=True),
        # Off, because what it deletes is gone: a person switches it on.
        Served("prune-sessions", "flows.prune.prune_sessions", interval=24 * 3600, active=False, alone=True),
    )


#: Flow runs in parallel that people asked for. Scheduled ones come on top: a queue of edits must not delay a resume.
WORKERS = 2

#: How long the runner may take to end its flow runs in good order (see `deployments.runner`).
RUNNER_STOP_SECONDS = 19.0

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
    open_ui: bool = False,
    deployments: Sequence[Served] = (),
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM. `announce` gets the ready lines (see `welcome`); by default they are printed.

    open_ui: show the UI in the browser when it is ready. deployments: those of `deployments_for`, unless others are
    given. Raises InputError for a `host` that would let other machines in without a password, EdiError if this EDI_HOME
    is served already, the port is taken, or a child keeps dying.
    """
    address = check_host(settings, host), port
    prepare_environment(settings)
    serving = _Serving(
        settings, address, workers, tuple(deployments or deployments_for(settings)), announce or _say, open_ui
    )
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm(), _only_one(settings) as after_a_kill:
        # What the killed one started needs a moment to end, and has the port until then.
        serving.patience = STOP_SECONDS + 1 if after_a_kill else 0.0
        serving.announce("Starting; the first time this takes up to a minute ...")
        _keep("server", settings, serving.server_life, serving.announce)
    serving.announce("Stopped. What was under way goes on with the next `edi serve`.")


@dataclass
class _Serving:
    """What one `edi serve` keeps alive; each method is one life of a child, and returns when that has ended."""

    settings: Settings
    address: tuple[str, int]
    workers: int
    deployments: tuple[Served, ...]
    announce: Callable[[str], None]
    #: Once only: a runner that is started again must not open another window.
    open_ui: bool
    since: float = field(default_factory=time.time)
    #: Seconds to wait for the port.
    patience: float = 0.0

    def server_life(self) -> None:
        """A server, and in its time as many runners as it takes."""
        with _server(self.settings, self.address, self.patience) as (url, server):
            life = partial(self.runner_life, url, server)
            _keep("runner", self.settings, life, self.announce, until=lambda: _is_dead(server))

    def runner_life(self, url: str, server: Popen[bytes] | None) -> None:
        """A runner, until it or its server is dead."""
        with _runner(self.settings, url, self.workers, self.deployments) as runner:
            port = urlsplit(url).port or 0
            info = ServerInfo(
                url, os.getpid(), port, self.since, workers=self.workers, runner=runner.pid, viewer=server is not None
            )
            write_server_file(self.settings, info)
            welcome(self.settings, url, self.announce, viewer=info.viewer, open_ui=self.open_ui)
            self.open_ui = False
            _wait_for_a_death(server, runner)
            if _is_dead(server):
                # No use in letting its flow runs write down how they ended: nobody listens.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(runner.pid, signal.SIGKILL)


class _KeepsEndingError(EdiError):
    """A child was started again too often; also when it is the runner, a new server would not help."""


def _keep(
    name: str,
    settings: Settings,
    life: Callable[[], None],
    announce: Callable[[str], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Give a child one `life` after another, until something else is to be done or the child keeps ending.

    That it does not even start is an error at the first time, when a person reads it, and later one more failure.
    """
    started = time.monotonic()
    life()
    failures = 0
    while not until():
        failures = failures + 1 if time.monotonic() - started < STEADY_SECONDS else 1
        if failures > len(PAUSES):
            raise _KeepsEndingError(f"The {name} keeps ending: see {folder(settings) / f'{name}.log'}.")
        announce(f"The {name} ended unexpectedly; starting it again.")
        time.sleep(PAUSES[failures - 1])
        started = time.monotonic()
        try:
            life()
        except _KeepsEndingError:
            raise
        except EdiError:
            pass  # it did not start: one more failure


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
def _only_one(settings: Settings) -> Iterator[bool]:
    """Be the only `edi serve` of this EDI_HOME; yields whether the one before was killed."""
    lock = serve_lock(settings)
    try:
        lock.acquire(timeout=1)  # others hold it for a moment, to see whether it is free
    except Timeout:
        info = running_server(settings)
        where = f" at {info.ui} (process {info.pid})" if info else ""
        raise EdiError(f"`edi serve` runs already for {settings.home}{where}.") from None
    try:
        left = server_file(settings)
        after_a_kill = left.exists()
        # It would be taken for ours until our server is ready.
        left.unlink(missing_ok=True)
        yield after_a_kill
    finally:
        server_file(settings).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _server(settings: Settings, address: tuple[str, int], patience: float) -> Iterator[tuple[str, Popen[bytes] | None]]:
    """The address of a server, and its process unless it is the one that PREFECT_API_URL names."""
    url = named_server()
    if url is not None:
        yield url, None
        return
    with start_server(settings, full=True, host=address[0], port=address[1], patience=patience) as server:
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
