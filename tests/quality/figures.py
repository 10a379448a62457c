"""A figure of quality beside the bar that it must reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the report: what was measured, on how much, and what it must be at least (or at most)."""

    name: str
    value: float
    #: None: reported only.
    bar: float | None
    #: On what it was measured: "34 photos".
    measured_on: str
    at_least: bool = True

    @property
    def holds(self) -> bool:
        """Whether the bar is reached."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | measured | bar | on |", "|---|---:|---:|---|"]
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        bar = "reported" if figure.bar is None else f"{sign} {figure.bar:g}"
        missed = "" if figure.holds else " MISSED"
        lines.append(f"| {figure.name} | {figure.value:.3g}{missed} | {bar} | {figure.measured_on} |")
    return "\n".join(lines)
