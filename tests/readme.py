"""Writes the part of the README that follows from the code: `python -m tests.readme`. A test compares the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edi_storage.settings import Settings

README = Path(__file__).parents[1] / "README.md"
START = "<!-- settings: written by `python -m tests.readme` -->\n"
END = "<!-- end of settings -->"


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
    return derived.get(name, f"`{value}`" if str(value).strip("()") else "none")


def updated(text: str) -> str:
    """The README with the table as it should be."""
    before, rest = text.split(START)
    return before + START + settings_table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
