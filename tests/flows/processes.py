"""Pythons in processes of their own, and what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.child import import_environment
from flows.server import ENVIRONMENT
from tests import homes


def python(script: str, *arguments: str, home: Path, **more: str) -> subprocess.Popen[str]:
    """This Python in a process of its own, with a home and none of Prefect's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "EDI_"))}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**kept, **import_environment(), **homes.environment(home), **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert process.stderr
    return process.stdout.readline().strip() or pytest.fail(process.stderr.read())


def enter_prefect(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Let a Prefect server that this process starts have a home of its own, and EDI's settings: none phones home."""
    for name, value in {**ENVIRONMENT, "PREFECT_HOME": str(home)}.items():
        patch.setenv(name, value)
