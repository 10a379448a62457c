"""A real `edi serve` for tests, and how they talk to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edi_storage.database import EDIDatabase
from tests import homes
from tests.flows.conftest import PALACE
from tests.flows.csrf import csrf_headers
from tests.waiting import PATIENCE, wait_until

#: Seconds between two looks for interrupted sessions: the least that there is.
RESUME_SECONDS = 10


class Control:
    """A running `edi serve` and its API."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.api = home, f"http://127.0.0.1:{port}/api"

    def call(self, path: str, **body: Any) -> Any:
        """POST as Prefect's own client does."""
        return self._send("POST", path, json=body, headers=csrf_headers(self.api))

    def deployment(self, name: str) -> Any:
        return self._send("GET", f"/deployments/name/{name}/{name}")

    def _send(self, method: str, path: str, **more: Any) -> Any:
        """503 means that the server's database was busy, no connection that it is being started: then ask again."""
        deadline = time.monotonic() + PATIENCE
        # What was asked to be changed may have been done although no answer came.
        lost = httpx.TransportError if method == "GET" else httpx.ConnectError
        while True:
            try:
                answer = httpx.request(method, f"{self.api}{path}", timeout=PATIENCE, **more)
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return self._checked(answer).json()
            except lost:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """An answer that is none of an error; what the server has said of its own errors goes with them."""
        try:
            return answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            if answer.is_server_error:
                log = self.home / "prefect" / "server.log"
                error.add_note(f"{answer.text}\n{log.read_text()[-5000:]}")
            raise

    def start(self, name: str, **parameters: Any) -> str:
        """Trigger a deployment; returns the id of its flow run."""
        run = self.call(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        return str(run["id"])

    def state(self, flow_run_id: str) -> str:
        return str(self.read_state(flow_run_id)["name"])

    def read_state(self, flow_run_id: str) -> Any:
        return self.read(f"/flow_runs/{flow_run_id}")["state"]

    def wait_for(self, flow_run_id: str, state: str, why: str) -> None:
        """Until a run is in this state; what states it was in is told where it is not."""
        wait_until(lambda: self.state(flow_run_id) == state, why, instead=lambda: self.states(flow_run_id))

    def states(self, flow_run_id: str) -> list[str]:
        """All states that a run was in, with what they say."""
        states = self.read(f"/flow_run_states/?flow_run_id={flow_run_id}")
        return [f"{state['timestamp']} {state['name']}: {state['message'] or ''}" for state in states]

    def tasks(self, flow_run_id: str) -> list[Any]:
        """The tasks of a run, in their order."""
        these = {"id": {"any_": [flow_run_id]}}
        found: list[Any] = self.call("/task_runs/filter", flow_runs=these, sort="EXPECTED_START_TIME_ASC")
        return found

    def state_of_task(self, task_run_id: str) -> str:
        return str(self.read(f"/task_runs/{task_run_id}")["state"]["name"])

    def read(self, path: str) -> Any:
        return self._send("GET", path)

    def find(self, path: str) -> Any:
        """What is there, or None."""
        try:
            return self.read(path)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            return None

    def database(self) -> EDIDatabase:
        return homes.database(self.home)


class Serve:
    """`edi serve` for a home, on a port of its own, with some settings; it may be killed and started again."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home, self.log, self._settings = home, home / "serve.log", settings
        self.folder = home / "started-in"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for its ready line."""
        browser = self.home / "browser"
        browser.write_text(f'#!/bin/sh\necho "$@" > {self.home / "opened"}\n')
        browser.chmod(0o700)
        environment = {**os.environ, **homes.environment(self.home), "BROWSER": str(browser), **self._settings}
        environment.pop("PREFECT_API_URL", None)
        # From anywhere: what lies in that folder is not what a person at a page means.
        environment["PYTHONPATH"] = str(PALACE.parents[2])
        self.folder.mkdir(exist_ok=True)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "serve", "--port", str(self.port), "--open"],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        wait_until(lambda: "is ready" in self.log.read_text(), "the ready line")

    def kill(self, roles: Collection[str]) -> None:
        """SIGKILL to all processes in these roles (see `processes_of`)."""
        for process, role in processes_of(self.home).items():
            if role in roles:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        if "serve" in roles and self._process:
            self._process.wait()

    def stop(self) -> None:
        """Ctrl-C; it must end in good order."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE) == 0, self.log.read_text()


def processes_of(home: Path) -> dict[int, str]:
    """The processes that work for a home: "serve", its "server" and "runner", and the "flow" runs."""
    roles = {b"flows.cli": "serve", b"flows.server_process": "server", b"deployments.runner": "runner"}
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"EDI_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = next((roles[word] for word in words if word in roles), "flow")
    return found


@contextmanager
def serving(home: Path) -> Iterator[Control]:
    """The API of an `edi serve` that lives as long as the block."""
    serve = Serve(home, EDI_RESUME_SECONDS=str(RESUME_SECONDS), EDI_REVIEW_HOURS="1")
    try:
        serve.start()
        yield Control(home, serve.port)
    finally:
        serve.stop()
