"""Writes the parts of the README that follow from the code, or from what the crash suite saw.

`python -m tests.readme` writes the settings; `python -m tests.crash --full --readme` what survives what. Tests compare.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edi_storage.settings import Settings
from tests.crash.bench import Result, counts
from tests.crash.matrix import ROWS

README = Path(__file__).parents[1] / "README.md"
SETTINGS = ("<!-- settings: written by `python -m tests.readme` -->\n", "<!-- end of settings -->")
SURVIVAL = ("<!-- survival: written by `python -m tests.crash --full --readme` -->\n", "<!-- end of survival -->")

#: The head of the table of what survives what.
HEAD = ["what happens", "what is promised", "times", "broken promises", "acknowledged boundaries checked"]


def settings_table() -> str:
    """One line for each setting: name, default, meaning."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(
            f"| `EDI_{name.upper()}` | {_default(name, field.get_default(call_default_factory=True))} | "
            f"{field.description} |"
        )
    return "\n".join(lines) + "\n"


def _default(name: str, value: Any) -> str:
    derived = {"database_url": "`sqlite:///$EDI_HOME/edi_sessions.db`", "storage_url": "`$EDI_HOME/sessions`"}
    return derived.get(name, f"`{value}`" if value is not None and str(value).strip("()") else "none")


def survival_table(results: Sequence[Result], seed: int, minutes: float) -> str:
    """What the crash suite was last seen to print, with the promise that each row stands for.

    A row that does not apply to a database server, or only to one, is left out.
    """
    seen = [
        _line([result.name, ROWS[result.name].promise, *counts(result)]) for result in results if not result.skipped
    ]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    ending = f"Seen on {datetime.now(UTC):%Y-%m-%d}: {machine}, seed {seed}, {minutes:.0f} minutes."
    return "\n".join([_line(HEAD), "|---|---|---:|---:|---:|", *seen]) + f"\n\n{ending}\n"


def with_rows(table: str, results: Sequence[Result], seed: int) -> str:
    """The table with the lines of some rows as they were seen now; it says so."""
    for result in results:
        lines = [_row(result) if old.startswith(f"| {result.name} |") else old for old in table.splitlines()]
        again = f"Run again alone on {datetime.now(UTC):%Y-%m-%d}: {result.name}, seed {seed}."
        table = "\n".join([*(old for old in lines if f": {result.name}, seed" not in old), again]) + "\n"
    return table


def _row(result: Result) -> str:
    return _line([result.name, ROWS[result.name].promise, *counts(result)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def between(text: str, marks: tuple[str, str]) -> str:
    """What stands between the two marks."""
    return text.split(marks[0])[1].split(marks[1])[0]


def replaced(text: str, marks: tuple[str, str], part: str) -> str:
    """The README with another part between the two marks."""
    before, rest = text.split(marks[0])
    return before + marks[0] + part + marks[1] + rest.split(marks[1])[1]


def write_survival(results: Sequence[Result], seed: int, minutes: float, *, whole: bool) -> None:
    """Put the table of what survives what in its place, or (unless `whole`) the lines of these rows in the table."""
    text = README.read_text(encoding="utf-8")
    table = survival_table(results, seed, minutes) if whole else with_rows(between(text, SURVIVAL), results, seed)
    README.write_text(replaced(text, SURVIVAL, table), encoding="utf-8")


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(encoding="utf-8"), SETTINGS, settings_table()), encoding="utf-8")
