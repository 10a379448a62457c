"""A real `edi serve` for tests, and how they talk to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from edi_storage.database import EDIDatabase
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
                    return answer.raise_for_status().json()
            except lost:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def start(self, name: str, **parameters: Any) -> str:
        """Trigger a deployment; returns the id of its flow run."""
        run = self.call(f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        return str(run["id"])

    def state(self, flow_run_id: str) -> str:
        return str(self.read_state(flow_run_id)["name"])

    def read_state(self, flow_run_id: str) -> Any:
        return self.read(f"/flow_runs/{flow_run_id}")["state"]

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
        return EDIDatabase(str(self.home / "edi_sessions.db"))


@contextmanager
def serving(home: Path) -> Iterator[Control]:
    """`edi serve` for a home, on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {home / "opened"}\n')
    browser.chmod(0o700)
    settings = {"EDI_HOME": str(home), "EDI_RESUME_SECONDS": str(RESUME_SECONDS), "EDI_REVIEW_HOURS": "1"}
    environment = {**os.environ, **settings, "BROWSER": str(browser)}
    environment.pop("PREFECT_API_URL", None)
    with (home / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve", "--port", str(port), "--open"],
            env=environment,
            cwd=PALACE.parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(lambda: "is ready" in (home / "serve.log").read_text(), "the ready line")
        yield Control(home, port)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, (home / "serve.log").read_text()
