"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.readme import README, updated

TEXT = README.read_text(encoding="utf-8")


def test_the_settings_are_those_of_the_code() -> None:
    assert updated(TEXT) == TEXT


def test_every_command_it_names_exists() -> None:
    from typer.main import get_command

    from flows.cli import app

    command = get_command(app)
    known = set(getattr(command, "commands", {}))
    assert set(re.findall(r"`edi ([a-z]+)", TEXT)) <= known
    assert known <= set(re.findall(r"`edi ([a-z]+)", TEXT)), "the README leaves a command out"


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|flows|edi_storage|deployments)/[\w./-]+)`", TEXT))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", TEXT))
    assert named
    assert [name for name in named if not (README.parent / name).exists()] == []


def test_there_are_exactly_two_set_up_commands() -> None:
    script = README.parent / ".ci" / "readme_commands.py"
    done = subprocess.run([sys.executable, script, README], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "edi edit" in first
    assert second.endswith("pytest")


def test_the_library_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "in_progress warm light"
