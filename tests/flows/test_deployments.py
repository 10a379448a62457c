"""EDI on a work pool of one's own: the wheel, the documented commands and a real worker; and one list in two places."""

from __future__ import annotations

import http
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.serve import deployments_for
from edi_storage.database import EDIDatabase
from edi_storage.settings import Settings
from flows import VERSION
from tests.flows.conftest import PALACE

CHECKOUT = Path(__file__).parents[2]
PREFECT_FILE = CHECKOUT / "deployments" / "prefect.yaml"


def documented() -> list[str]:
    """The commands in the head of prefect.yaml."""
    return re.findall(r"^#   (prefect .*)$", PREFECT_FILE.read_text(), re.MULTILINE)


# --- one list ---------------------------------------------------------------------------------------------------------


def test_prefect_yaml_deploys_what_edi_serve_serves() -> None:
    file = yaml.safe_load(PREFECT_FILE.read_text())
    told = {entry["name"]: _of_file(entry) for entry in file["deployments"]}
    served = {
        each.name: (each.entrypoint, each.interval, each.active if each.interval else None, each.alone)
        for each in deployments_for(Settings())
    }
    assert told == served
    assert {entry["version"] for entry in file["deployments"]} == {VERSION}


def test_the_readme_gives_the_commands_of_the_file() -> None:
    assert "\n".join(documented()) in (CHECKOUT / "README.md").read_text()


def _of_file(entry: Mapping[str, Any]) -> tuple[str, float | None, bool | None, bool]:
    plans = entry.get("schedules", [])
    interval, active = (plans[0]["interval"], plans[0].get("active", True)) if plans else (None, None)
    alone = entry.get("concurrency_limit") == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    return entry["entrypoint"], interval, active, alone


# --- a work pool ------------------------------------------------------------------------------------------------------


def test_an_installed_wheel_edits_on_a_work_pool_with_no_checkout(tmp_path: Path, server: str) -> None:
    create_pool, deploy, start_worker = documented()
    environment = _environment(tmp_path, server, _install(_wheel(tmp_path), tmp_path / "venv"))
    _run(create_pool, environment, tmp_path)
    # From a checkout, as the README says, and then with nothing but the wheel.
    _run("prefect deploy --all --prefect-file deployments/prefect.yaml", environment, CHECKOUT)
    _run(deploy, environment, tmp_path)
    with _worker(start_worker, environment, tmp_path) as said:
        deployment = _call(f"{server}/deployments/name/edit-image/edit-image")
        assert (deployment["version"], deployment["work_pool_name"]) == (VERSION, "edi")
        assert deployment["pull_steps"] in (None, [])
        wanted = {"image_path": str(PALACE), "prompt": "make it black and white"}
        run = _call(f"{server}/deployments/{deployment['id']}/create_flow_run", {"parameters": wanted})["id"]
        _until_completed(server, run, said)
        standing = json.loads(_run("edi status --json", environment, tmp_path))
        assert [worker["alive"] for worker in standing["workers"]] == [True]
    with EDIDatabase(str(tmp_path / "home" / "edi_sessions.db")) as database:
        assert database.require_session(run).status == "completed"


def _wheel(folder: Path) -> Path:
    pytest.importorskip("hatchling", reason="the wheel cannot be built: install the extra 'test', which has hatchling")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *build, str(CHECKOUT)], check=True, timeout=300)
    [wheel] = folder.glob("*.whl")
    assert "deployments/prefect.yaml" in zipfile.ZipFile(wheel).namelist()
    return wheel


def _install(wheel: Path, venv: Path) -> Path:
    """A virtual environment with the wheel; everything else is borrowed from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    python = venv / "bin" / "python"
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True, timeout=300)
    return venv


def _environment(folder: Path, server: str, venv: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "EDI_", "PYTHON"))}
    return {
        **kept,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "EDI_HOME": str(folder / "home"),
        "PREFECT_API_URL": server,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


#: The `prefect` command is installed in the environment that is borrowed from.
PREFECT = 'prefect() { python -m prefect "$@"; }; '


def _run(command: str, environment: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", PREFECT + command],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def _worker(command: str, environment: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """The worker, with what it says in a file."""
    said = folder / "worker.log"
    with said.open("w") as log:
        started = ["bash", "-c", f"exec python -m {command}"]
        worker = subprocess.Popen(
            started, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield said
    finally:
        worker.terminate()
        try:
            worker.wait(60)
        finally:
            worker.kill()


def _until_completed(server: str, run: str, said: Path) -> None:
    deadline = time.monotonic() + 180
    while (state := _call(f"{server}/flow_runs/{run}")["state_name"]) != "Completed":
        assert state not in {"Failed", "Crashed", "Cancelled"}, said.read_text()
        assert time.monotonic() < deadline, f"{state}: {said.read_text()}"
        time.sleep(0.2)


def _call(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    for _ in range(50):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=60
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
            time.sleep(0.2)
    raise AssertionError(f"{url} stayed unavailable")
