"""`edi status` with nothing running and with a server that does not answer; beside `edi serve`, see test_serve.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edi_storage.owner import owner_name
from flows.child import import_environment
from tests import homes
from tests.flows.conftest import PALACE

#: `edi status` with the arguments; it must not take the second that Prefect's import takes.
STATUS = """
import sys
from flows.cli import app
try:
    app(["status", *sys.argv[1:]])
finally:
    assert "prefect" not in sys.modules, "Prefect was imported"
"""


def status(home: Path, *arguments: str, expect: int | None = 0, **more: str) -> str:
    """What it prints; it must exit with `expect`, or in any way where a busy server may not answer in time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "EDI_"))}
    done = subprocess.run(
        [sys.executable, "-c", STATUS, *arguments],
        env={**kept, **import_environment(), **homes.environment(home), **more},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stderr == ""
    assert expect in {done.returncode, None}, done.stdout
    return done.stdout


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes requests and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def test_with_nothing_running_it_says_how_to_start(tmp_path: Path) -> None:
    said = status(tmp_path / "home")
    assert "not running: `edi serve` starts it" in said
    assert "no session waits for you" in said


def test_each_unfinished_session_is_in_one_list_with_the_reason(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = owner_name().replace(f":{os.getpid()}:", f":{ended.pid}:")
    with homes.database(tmp_path) as database:
        for name, owner in (("busy", owner_name()), ("killed", gone), ("free", gone), ("asks", gone), ("done", gone)):
            photo = {"id": name, "image_path": str(PALACE), "naive_prompt": f"make it {name}"}
            lease = database.begin_session(photo, owner, 3600)
            if name in {"free", "asks", "done"}:
                database.release(lease, waiting_for="question" if name == "asks" else None)
        database.fail_session(database.acquire("done", gone, 3600), "it had to end")
    found = json.loads(status(tmp_path, "--json"))
    lists = {kind: {item["session_id"]: item["why"] for item in found[kind]} for kind in ("working", "waiting")}
    assert lists == {
        "working": {"busy": f"process {os.getpid()} works on it"},
        "waiting": {"asks": "has a question"},
    }
    assert {item["session_id"]: item["why"] for item in found["interrupted"]} == {
        "killed": f"process {ended.pid} is gone",
        "free": "nobody works on it",
    }
    assert "`edi resume --all` continues them." in status(tmp_path)


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path, silent: str) -> None:
    found = json.loads(status(tmp_path, "--json", expect=1, PREFECT_API_URL=silent))
    assert found["server"]["problem"] == f"The Prefect server at {silent} does not answer: timed out."
    assert found["server"]["running"] is False
