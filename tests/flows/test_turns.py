"""Many who talk to one Prefect server at once: all are answered, and none is told to ask again."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from edi_storage.settings import Settings
from flows.server import start_server
from tests.flows.csrf import csrf_headers
from tests.flows.processes import enter_prefect, line_of, python
from tests.waiting import PATIENCE, wait_until

#: The process of a server whose only page leaves garbage behind, and tells whether it was this thread that found some.
LITTERED = """
import functools, socket, threading
import fastapi
import prefect.server.api.server as prefect_server
from flows import server_process

found_here = set()

class Knot:
    def __init__(self):
        self.me = self

    def __del__(self):
        found_here.add(threading.current_thread() is threading.main_thread())

app = fastapi.FastAPI()

@app.get("/litter")
async def litter() -> list[bool]:
    for _ in range(5_000):
        Knot()
    return list(found_here)

prefect_server.create_app = lambda **_: app
server_process.collect_garbage = functools.partial(server_process.collect_garbage, 0.1)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
server_process.main([str(listener.detach())])
"""


@dataclass(frozen=True)
class Forms:
    """The forms of a Prefect server, as a person fills them in: nothing here asks again."""

    home: Path
    api: str

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.api}{path}", json=body, headers=csrf_headers(self.api), timeout=PATIENCE)

    def deployment(self) -> str:
        """A new one, whose runs nobody takes up."""
        name = str(uuid.uuid4())
        flow = self.post("/flows/", name=name).raise_for_status().json()["id"]
        return str(self.post("/deployments/", name=name, flow_id=flow).raise_for_status().json()["id"])

    def plan(self, deployment: str) -> int:
        """Ask for a run in the next century; returns the status of the answer."""
        later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
        return self.post(f"/deployments/{deployment}/create_flow_run", state=later).status_code


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forms]:
    home = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        enter_prefect(patch, home / "prefect")
        with start_server(Settings(home=home), full=True) as server:
            yield Forms(home, server.url)


def test_a_form_is_taken_while_others_write(forms: Forms) -> None:
    """SQLite refuses a transaction that has read before another one wrote; Prefect's pages do not ask again."""
    deployment = forms.deployment()
    with busy(forms.home / "prefect" / "prefect.db"):
        for _ in range(40):
            assert forms.plan(deployment) == httpx.codes.CREATED


def test_twenty_who_write_at_once_are_all_served(forms: Forms) -> None:
    """None is told to ask again, which Prefect's pages do not do."""
    deployment = forms.deployment()
    meet = threading.Barrier(20)

    def write(_: int) -> list[int]:
        meet.wait(PATIENCE)
        return [forms.plan(deployment) for _ in range(5)]

    with ThreadPoolExecutor(20) as pool:
        assert set(itertools.chain(*pool.map(write, range(20)))) == {httpx.codes.CREATED}


@contextmanager
def busy(database: Path) -> Iterator[None]:
    """Somebody who writes all the time, a little."""
    done = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            for number in itertools.count(1):
                connection.execute(f"PRAGMA user_version = {number}")
                if done.wait(0.2):
                    break

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def test_the_thread_that_answers_does_not_look_for_garbage(tmp_path: Path) -> None:
    """Where it finds a cursor of SQLite it may wait for a minute, and nobody is answered."""
    server = python(LITTERED, home=tmp_path, PREFECT_HOME=str(tmp_path))
    try:
        page = f"http://127.0.0.1:{line_of(server)}/litter"
        line_of(server)  # it is ready
        found_there = wait_until(lambda: httpx.get(page, timeout=PATIENCE).raise_for_status().json(), "a look")
        assert found_there == [False]
    finally:
        server.kill()
        server.communicate()
