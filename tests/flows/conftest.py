"""A real Prefect server for all flow tests, and the `edi` command as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edi_storage.settings import Settings
from edi_storage.store import Store, open_store
from tests import homes

if TYPE_CHECKING:
    from tests.flows.control import Control

PALACE = Path(__file__).parents[2] / "flows" / "examples" / "palace.jpg"


@dataclass
class Edi:
    """The `edi` command in a home of its own. Its Prefect server is the one that all tests share."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it must exit with `expect`."""
        done = self._run([sys.executable, "-m", "flows.cli", *arguments])
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, expect: int = 0) -> Any:
        """Run a command with --json; all of its standard output must be the one document."""
        return json.loads(self(*arguments, "--json", expect=expect).stdout)

    def killed(self, moment: str, label: str, *arguments: str) -> None:
        """Run a command that is killed at a moment (see `tests.flows.worker`)."""
        done = self._run([sys.executable, "-m", "tests.flows.worker", moment, label, *arguments])
        assert done.returncode == -signal.SIGKILL, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **homes.environment(self.home), **self.environment}
        return subprocess.run(
            command,
            env=environment,
            cwd=PALACE.parents[2],
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def all_is_well(edi: Edi) -> bool:
    """Whether `edi doctor` finds nothing at all."""
    said = edi.json("doctor")
    return bool(said["ok"] and said["findings"] == [] and all(look["ok"] for look in said["engines"]))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect API."""
    from flows.server import api_for

    with api_for(Settings(home=tmp_path_factory.mktemp("server"))) as url:
        yield url


@pytest.fixture
def edi(tmp_path: Path, server: str) -> Edi:
    return Edi(tmp_path / "home", {"PREFECT_API_URL": server})


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A running `edi serve`. One for each module that wants it: its resumes would slow all other tests down."""
    from tests.flows.control import serving

    with serving(tmp_path_factory.mktemp("served")) as control:
        yield control


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> Iterator[Store]:
    homes.enter(monkeypatch, tmp_path / "home")
    with open_store(Settings()) as opened:
        yield opened
