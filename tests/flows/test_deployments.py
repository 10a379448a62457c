"""EDI on a work pool of one's own: the wheel, the documented commands and a real worker; and one list in two places."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.serve import deployments_for
from edi_storage.settings import Settings
from flows import VERSION
from flows.server import start_server
from tests import homes
from tests.browser.photos import large_photo
from tests.flows.conftest import PALACE
from tests.flows.control import processes_of
from tests.flows.processes import enter_prefect
from tests.flows.test_server import call
from tests.waiting import PATIENCE, wait_until

CHECKOUT = Path(__file__).parents[2]
PREFECT_FILE = CHECKOUT / "deployments" / "prefect.yaml"


def documented() -> list[str]:
    """The commands in the head of prefect.yaml."""
    return re.findall(r"^#   (prefect .*)$", PREFECT_FILE.read_text(), re.MULTILINE)


# --- on servers of one's own ------------------------------------------------------------------------------------------


def test_compose_names_only_settings_and_commands_that_exist() -> None:
    file = yaml.safe_load((CHECKOUT / "deployments" / "compose.yaml").read_text())
    services = file["services"]
    edi = {name for name, value in file["x-edi"]["environment"].items() if name.startswith("EDI_") and value}
    assert edi <= {f"EDI_{name.upper()}" for name in Settings.model_fields}
    assert services["worker"]["command"] in documented()
    assert documented()[1] in " ".join(services["deploy"]["command"].replace("$$", "$").split())
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(file["volumes"]), name
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:4200:4200"], "nothing but the UI can be reached, and that from this machine only"


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


def test_the_backup_is_off_where_the_database_is_on_a_server() -> None:
    there = Settings(database_url="postgresql+psycopg://me@host/edi")
    assert [each.name for each in deployments_for(there) if not each.active] == ["backup-database", "prune-sessions"]


def test_the_readme_gives_the_commands_of_the_file() -> None:
    assert "\n".join(documented()) in (CHECKOUT / "README.md").read_text()


def _of_file(entry: Mapping[str, Any]) -> tuple[str, float | None, bool | None, bool]:
    plans = entry.get("schedules", [])
    interval, active = (plans[0]["interval"], plans[0].get("active", True)) if plans else (None, None)
    few = {"limit": 4, "grace_period_seconds": 60} if entry["name"] == "resume-interrupted" else {"limit": 1}
    alone = entry.get("concurrency_limit") == {**few, "collision_strategy": "CANCEL_NEW"}
    return entry["entrypoint"], interval, active, alone


# --- a work pool ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with EDI's wheel in it."""
    folder = tmp_path_factory.mktemp("installed")
    return _install(_wheel(folder), folder / "venv")


def test_an_installed_wheel_edits_on_a_work_pool_with_no_checkout(tmp_path: Path, server: str, venv: Path) -> None:
    create_pool, deploy, start_worker = documented()
    environment = _environment(tmp_path, server, venv)
    _run(create_pool, environment, tmp_path)
    # From a checkout, as the README says, and then with nothing but the wheel.
    _run("prefect deploy --all --prefect-file deployments/prefect.yaml", environment, CHECKOUT)
    _run(deploy, environment, tmp_path)
    with _worker(start_worker, environment, tmp_path) as said:
        deployment = call(f"{server}/deployments/name/edit-image/edit-image")
        assert (deployment["version"], deployment["work_pool_name"]) == (VERSION, "edi")
        assert deployment["pull_steps"] in (None, [])
        limited = call(f"{server}/deployments/name/resume-interrupted/resume-interrupted")["concurrency_options"]
        assert limited == {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60}
        run = _start(server, image_path=str(PALACE), prompt="make it black and white")
        _until_completed(server, run, said)
        standing = json.loads(_run("edi status --json", environment, tmp_path))
        assert [worker["alive"] for worker in standing["workers"]] == [True]
    with homes.database(tmp_path / "home") as database:
        assert database.require_session(run).status == "completed"


def test_an_edit_is_completed_within_two_minutes_after_its_killed_worker_is_back(
    tmp_path: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_prefect(monkeypatch, tmp_path / "server")
    (tmp_path / "often.yaml").write_text(PREFECT_FILE.read_text().replace("interval: 60\n", "interval: 10\n"))
    create_pool, _, start_worker = documented()
    with start_server(Settings(home=tmp_path / "home"), full=True) as server:
        environment = _environment(tmp_path, server.url, venv)
        _run(create_pool, environment, tmp_path)
        _run("prefect deploy --all --prefect-file often.yaml", environment, tmp_path)
        with homes.database(tmp_path / "home") as database:
            with _worker(start_worker, environment, tmp_path) as said:
                run = _start(server.url, image_path=str(large_photo(tmp_path)), prompt="make the sky dramatic")
                wait_until(lambda: database.last_seq(run) >= 2, f"the analysis: see {said}")
                # With its flow runs, as when the machine goes down: they would outlive it.
                _kill_all_of(tmp_path / "home")
            before = database.get_commits(run)
            assert database.require_session(run).status == "in_progress"
            with _worker(start_worker, environment, tmp_path) as said:
                wait_until(lambda: database.require_session(run).status == "completed", f"the edit: see {said}", 120)
                _until_completed(server.url, run, said)
            after = database.get_commits(run)
    assert after[: len(before)] == before, "a finished stage was run again"
    assert after[-1].stage == "completed"
    assert len({commit.key for commit in after}) == len(after)


def _kill_all_of(home: Path) -> None:
    """SIGKILL to every process that works for this home, but for the server."""
    for process, role in processes_of(home).items():
        if role != "server":
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


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
        **homes.environment(folder / "home"),
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
            worker.wait(PATIENCE)
        finally:
            worker.kill()


def _start(server: str, **parameters: Any) -> str:
    deployment = call(f"{server}/deployments/name/edit-image/edit-image")
    return str(call(f"{server}/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"])


def _until_completed(server: str, run: str, said: Path) -> None:
    def state() -> str:
        return str(call(f"{server}/flow_runs/{run}")["state_name"])

    wait_until(lambda: state() in {"Completed", "Failed", "Cancelled"}, f"the end of the run: see {said}")
    assert state() == "Completed", said.read_text()
