"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.crash.matrix import COMMON
from tests.readme import HEAD, README, SETTINGS, SURVIVAL, between, settings_table

TEXT = README.read_text(encoding="utf-8")


def test_the_settings_are_those_of_the_code() -> None:
    assert between(TEXT, SETTINGS) == settings_table()


def test_what_survives_what_is_the_crash_suites_own_output() -> None:
    head, rule, *lines = [line for line in between(TEXT, SURVIVAL).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert head == f"| {' | '.join(HEAD)} |"
    assert rule.count("|") == head.count("|")
    assert [(name, promise) for name, promise, *_ in rows] == [(name, fault.promise) for name, fault in COMMON.items()]
    assert [row for row in rows if not re.fullmatch(r"[1-9][\d,]*", row[2]) or row[3] != "0"] == []
    assert sum(int(row[4].replace(",", "")) for row in rows) > 10_000
    assert re.search(r"^Seen on \d{4}-\d\d-\d\d: .*, seed \d+, \d+ minutes\.$", TEXT, re.MULTILINE)


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
