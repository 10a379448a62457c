"""The ways to a Prefect API, with real servers and real kills. Nothing here waits for a fixed time."""

from __future__ import annotations

import base64
import http
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from deployments import serve as serving
from edi_storage.errors import EdiError, InputError
from edi_storage.settings import Settings
from flows.child import import_environment
from flows.server import ENVIRONMENT, check_host, named_server, prepare_environment, running_server, start_server
from tests.flows.conftest import PALACE, Edi
from tests.flows.csrf import csrf_headers
from tests.flows.processes import line_of, python
from tests.waiting import PATIENCE, is_alive, wait_until

#: A process with an embedded server and a flow; it stays until a line comes in.
EMBEDDED = """
import sys
from edi_storage.settings import load_settings
from flows.server import api_for
with api_for(load_settings()) as url:
    from tests.flows.tiny import count
    assert count(8) == 28
    print(url, flush=True)
    sys.stdin.readline()
"""

#: Its server ends between two flows.
GONE = """
from edi_storage.errors import EdiError
from edi_storage.settings import load_settings
from flows.server import api_for, one_client, prepare_environment, start_server
settings = load_settings()
prepare_environment(settings)
with start_server(settings, full=False) as server:
    import os
    os.environ["PREFECT_API_URL"] = server.url
    try:
        with api_for(settings) as url, one_client(url):
            from tests.flows.tiny import count
            assert count(2) == 1
            server.child.kill()
            server.child.wait()
            count(2)
    except EdiError as error:
        print(error)
"""

#: `edi serve` with small flows.
SERVE = """
import sys
from deployments.serve import Served, serve
from edi_storage.errors import EdiError
from edi_storage.settings import load_settings
deployments = [
    Served("wait", "tests.flows.tiny.wait"),
    Served("tick", "tests.flows.tiny.tick", interval=15, alone=True),
]
try:
    serve(load_settings(), port=int(sys.argv[1]), host=[*sys.argv, "127.0.0.1"][2], deployments=deployments)
except EdiError as error:
    sys.exit(str(error))
"""


def ready_line(serve: subprocess.Popen[str]) -> str:
    """What `edi serve` says when it is ready; before that it says that it starts."""
    assert line_of(serve).startswith("Starting")
    return line_of(serve)


def descendants(process: int) -> set[int]:
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    pairs = [(int(parent), int(child)) for parent, child in (line.split() for line in listed.splitlines())]
    found, size = {process}, 0
    while size < len(found):
        size = len(found)
        found |= {child for parent, child in pairs if parent in found}
    return found - {process}


def call(url: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    known = csrf_headers(f"{url.partition('/api')[0]}/api") if data else {}
    sent = {"Content-Type": "application/json", **known, **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            # The server's database was busy. Prefect's own client asks again, too.
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
            error.close()
            time.sleep(0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of `edi serve`."""
    return tmp_path_factory.mktemp("served") / "home"


@pytest.fixture(scope="module")
def other_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the embedded servers; only the first start has to make Prefect's database."""
    return tmp_path_factory.mktemp("embedded") / "home"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of Prefect's variables."""
    for name in [*ENVIRONMENT, "PREFECT_API_URL", "PREFECT_HOME"]:
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)


# --- which server -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
def test_the_environment_keeps_what_the_user_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    prepare_environment(Settings(home=tmp_path))
    assert os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "60"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "prefect")


@pytest.mark.usefixtures("quiet")
def test_a_named_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(EdiError, match=r"PREFECT_API_URL is http://127\.0\.0\.1:9/api, but no Prefect server answers"):
        named_server()


def test_a_server_of_another_age_is_an_error(tmp_path: Path) -> None:
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'"2.20.1"' if self.path.endswith("/version") else b"true")

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as old:
        threading.Thread(target=old.serve_forever).start()
        url = f"http://127.0.0.1:{old.server_port}/api"
        told = Edi(tmp_path / "home", {"PREFECT_API_URL": url})("edit", str(PALACE), "make it warmer", expect=1).stderr
        old.shutdown()
    assert told.startswith(f"The Prefect server at {url} cannot be used: Found incompatible versions: ")


def test_a_server_that_goes_away_between_two_flows_is_an_error(other_home: Path) -> None:
    done = python(GONE, home=other_home, PREFECT_CLIENT_MAX_RETRIES="0")
    told, errors = done.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors
    assert re.fullmatch(r"The Prefect server at http://127\S+ does not answer any more \(.+\)\. What was .*\n", told)


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(EdiError, match=f"Port {port} is not free"),
            start_server(Settings(home=tmp_path), full=True, port=port),
        ):
            pass


# --- embedded servers -------------------------------------------------------------------------------------------------


def task_runs(home: Path) -> list[tuple[str, str, str]]:
    """Name and time of the state, and id, of all task runs that Prefect's database has."""
    path = home / "prefect" / "prefect.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT state_name, state_timestamp, id FROM task_run").fetchall()


def test_an_embedded_server_ends_with_the_block_and_has_kept_all_states(other_home: Path) -> None:
    before = {run[2] for run in task_runs(other_home)}  # of processes that were killed, too
    parent = python(EMBEDDED, home=other_home)
    line_of(parent)
    started = descendants(parent.pid)
    assert len(started) == 1
    _, errors = parent.communicate("end\n", timeout=PATIENCE)
    assert (parent.returncode, errors) == (0, "")
    assert not any(map(is_alive, started))
    runs = [run for run in task_runs(other_home) if run[2] not in before]
    with sqlite3.connect(other_home / "prefect" / "prefect.db") as database:
        # What came, in case that one is not as it should be: not at all, or before what was before it?
        came = database.execute("SELECT task_run_id, name, timestamp FROM task_run_state ORDER BY 1, 3").fetchall()
    assert {run[0] for run in runs} == {"Completed"}, (runs, came, (other_home / "prefect" / "server.log").read_text())
    assert len(runs) == 8
    kept = [path for path in other_home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert kept == []


def test_a_killed_process_leaves_no_embedded_server(other_home: Path) -> None:
    parent = python(EMBEDDED, home=other_home)
    line_of(parent)
    started = descendants(parent.pid)
    assert started
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(is_alive, started)))


# --- edi serve --------------------------------------------------------------------------------------------------------


def test_a_child_that_keeps_ending_is_started_again_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSES", (0.0, 0.0))
    said: list[str] = []
    with pytest.raises(EdiError, match=r"^The runner keeps ending: see .*runner\.log\.$"):
        serving._keep("runner", Settings(home=tmp_path), lambda: None, said.append)
    assert said == ["The runner ended unexpectedly; starting it again."] * 2


def test_a_child_that_does_not_start_is_an_error_at_first_and_later_one_more_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSES", (0.0, 0.0))
    starts = iter([True, False, True])

    def start() -> None:
        if not next(starts, True):
            raise EdiError("Port 4200 is not free.")

    runs: list[str] = []
    serving._keep("server", Settings(home=tmp_path), start, runs.append, until=lambda: len(runs) == 2)
    starts = iter([False])
    with pytest.raises(EdiError, match="Port 4200 is not free"):
        serving._keep("server", Settings(home=tmp_path), start, runs.append)


#: Whether a browser would be opened by default: with a display, without one, and with one but from another machine.
WHO_IS_THERE = """
import os
from deployments.welcome import somebody_is_there
for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
    os.environ.pop(name, None)
found = [somebody_is_there()]
for name in ("DISPLAY", "SSH_CONNECTION"):
    os.environ[name] = ":0"
    found.append(somebody_is_there())
print(found, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_a_browser_opens_by_itself_only_where_somebody_sees_it() -> None:
    script = [sys.executable, "-c", WHO_IS_THERE]
    environment = {**os.environ, **import_environment()}
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            subprocess.run(script, env=environment, stdin=theirs, stdout=theirs, check=True)
        finally:
            os.close(theirs)
        assert terminal.read(100).strip() == b"[False, True, False]"
    piped = subprocess.run(script, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert piped.stdout.strip() == b"[False, False, False]"


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[str]:
    """`edi serve`; at the end it gets a Ctrl-C in the middle of a flow run, and must take everything with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = python(SERVE, str(port), home=home)
    try:
        assert ready_line(serve) == f"EDI is ready: http://127.0.0.1:{port} (Ctrl-C ends it)"
        url = f"http://127.0.0.1:{port}/api"
        yield url
        folder, _, _ = start_waiting(url, home)
        started = descendants(serve.pid)
        serve.send_signal(signal.SIGINT)
        _, errors = serve.communicate(timeout=PATIENCE)
        assert (serve.returncode, errors) == (0, "")
        assert not any(map(is_alive, started))
        assert (folder / "ended").read_text() == "Crashed"
        assert not (home / "prefect" / "server.json").exists()
    finally:
        serve.kill()
        serve.communicate()


def start_waiting(url: str, home: Path) -> tuple[Path, int, str]:
    """Start the flow `wait` as a person would in the UI: its folder, its process, its flow run."""
    folder = home / f"run-{time.monotonic_ns()}"
    folder.mkdir()
    deployment = call(f"{url}/deployments/name/wait/wait")["id"]
    run = call(f"{url}/deployments/{deployment}/create_flow_run", {"parameters": {"folder": str(folder)}})["id"]
    started = folder / "started"
    wait_until(lambda: started.exists() and started.read_text().endswith("\n"))
    return folder, int(started.read_text()), run


def test_serving_twice_says_so(served: str, home: Path) -> None:
    again = python(SERVE, "0", home=home)
    _, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 1
    assert errors.startswith(f"`edi serve` runs already for {home} at {served.removesuffix('/api')} (process ")
    assert errors.count("\n") == 1


def test_an_edit_uses_the_server_of_edi_serve(served: str, home: Path) -> None:
    parent = python(EMBEDDED, home=home)
    assert line_of(parent) == served
    assert descendants(parent.pid) == set()
    parent.communicate("end\n", timeout=PATIENCE)


def test_a_killed_flow_run_is_seen_at_once(served: str, home: Path) -> None:
    folder, process, run = start_waiting(served, home)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: (folder / "ended").exists())
    assert call(f"{served}/flow_runs/{run}")["state"]["name"] == "Crashed"


def test_scheduled_runs_start_when_they_are_due(served: str, home: Path) -> None:
    ticks = home / "ticks"
    wait_until(lambda: ticks.exists() and ticks.read_text().endswith("\n"))
    due, began = map(datetime.fromisoformat, ticks.read_text().splitlines()[0].split())
    assert began > due - timedelta(seconds=1), "Prefect's runner may be some milliseconds early"


def test_a_name_that_was_made_to_point_here_is_turned_away(served: str) -> None:
    assert refusal(f"{served}/health", headers={"Host": "photos.example"}) == 403


@pytest.mark.parametrize("origin", ["https://photos.example", "null", "http://[", "http://127.0.0.1.photos.example"])
def test_a_page_of_another_site_is_turned_away(served: str, origin: str) -> None:
    assert refusal(f"{served}/health", headers={"Origin": origin}) == 403


@pytest.mark.parametrize("name", ["localhost", "127.0.0.2", "[::1]"])
def test_this_machine_is_welcome_by_any_of_its_names(served: str, name: str) -> None:
    port = served.partition("/api")[0].rpartition(":")[2]
    assert call(f"{served}/health", headers={"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}) is True


def test_a_change_without_the_token_of_its_client_is_refused(served: str) -> None:
    bare = {"Prefect-Csrf-Token": "", "Prefect-Csrf-Client": ""}
    assert refusal(f"{served}/deployments/filter", {}, bare) == 403


def compression(url: str, headers: Mapping[str, str]) -> str:
    """How the server compresses the program of the UI's first page for a browser."""
    ui = url.removesuffix("/api")
    page = httpx.get(f"{ui}/v2/dashboard", headers={**headers, "Accept": "text/html"}).raise_for_status().text
    program = re.search(r'src="(/v2/assets/[^"]+\.js)"', page)
    assert program
    answer = httpx.get(ui + program[1], headers={**headers, "Accept-Encoding": "gzip, br"}).raise_for_status()
    assert len(answer.content) > 10_000
    return answer.headers.get("Content-Encoding", "")


def test_pages_for_this_machine_are_not_compressed(served: str) -> None:
    assert compression(served, {}) == ""


def test_serving_other_machines_needs_a_password(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert check_host(settings, "localhost") == "127.0.0.1"
    for host in ("0.0.0.0", "192.0.2.1"):
        with pytest.raises(InputError, match=f"At {host} other machines .* set EDI_AUTH_STRING"):
            check_host(settings, host)
    for host in ("", "photos.example", "::", "1.2.3"):
        with pytest.raises(InputError, match="is no address to listen at"):
            check_host(settings, host)
    assert check_host(Settings(home=tmp_path, auth_string=SecretStr("me:secret")), "0.0.0.0") == "0.0.0.0"


def test_with_a_password_nobody_comes_in_without_it(other_home: Path) -> None:
    serve = python(SERVE, "0", "0.0.0.0", home=other_home, EDI_AUTH_STRING="me:secret")
    try:
        url = f"{ready_line(serve).split()[3]}/api"
        mine = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}
        assert refusal(f"{url}/deployments/name/wait/wait") == 401
        assert compression(url, mine) == "gzip"
        assert call(f"{url}/deployments/name/wait/wait", headers=mine)["name"] == "wait"
        # Reached by whatever name, but never for a page of another site.
        lan = {**mine, "Host": "photos.lan", "Origin": "http://photos.lan"}
        assert call(f"{url}/deployments/name/wait/wait", headers=lan)["name"] == "wait"
        assert (
            refusal(f"{url}/health", headers={**mine, "Host": "photos.lan", "Origin": "http://photos.example"}) == 403
        )
        edit = python(EMBEDDED, home=other_home, EDI_AUTH_STRING="me:secret")
        assert line_of(edit) == url
        edit.communicate("end\n", timeout=PATIENCE)
        assert edit.returncode == 0
        stranger = Edi(other_home.parent / "stranger", {"PREFECT_API_URL": url})
        told = stranger("edit", str(PALACE), "make it warmer", expect=1).stderr
        assert told.endswith("cannot be used: it asks for a password: set PREFECT_API_AUTH_STRING to user:password.\n")
    finally:
        serve.send_signal(signal.SIGINT)
        _, errors = serve.communicate(timeout=PATIENCE)
    assert (serve.returncode, errors) == (0, "")


def refusal(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> int:
    """The status with which a request is refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(url, body, headers)
    refused.value.close()
    return refused.value.code


def test_a_file_that_a_dead_server_left_is_not_believed(tmp_path: Path, served: str) -> None:
    (tmp_path / "prefect").mkdir()
    left = {"url": served, "pid": os.getpid(), "port": 1, "started_at": 0.0}
    (tmp_path / "prefect" / "server.json").write_text(json.dumps(left))
    assert running_server(Settings(home=tmp_path)) is None
