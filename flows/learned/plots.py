"""The two plots of the report as SVG, on no background, so that they suit a light page and a dark one."""

from __future__ import annotations

import base64
import io
import logging
import os
from typing import Any, Final

from edi_storage.learning.report import Report
from edi_storage.settings import load_settings

#: Grey enough for both backgrounds.
_INK: Final = "#7d838c"
_LEARNED: Final = "#2f7fd1"
_HOLDOUT: Final = "#d9822b"
_SIZE: Final = (7.2, 2.9)


def as_uri(svg: str) -> str:
    """The plot as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def trend(report: Report) -> str | None:
    """Acceptance of first tries over time, with learning and in the holdout; None for fewer than two points."""
    if len(report.trend) < 2:
        return None
    figure, axes = _figure()
    places = list(range(1, len(report.trend) + 1))
    learned = [point.learned for point in report.trend]
    axes.fill_between(
        places, [100 * s.low for s in learned], [100 * s.high for s in learned], color=_LEARNED, alpha=0.18, linewidth=0
    )
    axes.plot(places, [100 * s.mean for s in learned], color=_LEARNED, marker="o", markersize=4, label="with learning")
    held_out = report.uplift.holdout
    if held_out.n:
        axes.axhspan(100 * held_out.low, 100 * held_out.high, color=_HOLDOUT, alpha=0.12, linewidth=0)
        axes.axhline(100 * held_out.mean, color=_HOLDOUT, linestyle="--", label="without learning (all the time)")
    axes.set_ylim(0, 100)
    axes.set_xticks(places, [f"{point.until:%d %b}" for point in report.trend])
    axes.set_ylabel("accepted, %")
    _legend(axes)
    return _svg(figure)


def calibration(report: Report) -> str | None:
    """The chance of an accept by alignment score, with what was seen; None while there is no curve."""
    found = report.calibration
    if not found.points:
        return None
    figure, axes = _figure()
    axes.plot(
        [score for score, _ in found.points],
        [100 * chance for _, chance in found.points],
        color=_LEARNED,
        label="estimated chance",
    )
    middles = [seen.score for seen in found.bins]
    shares = [100 * seen.accepted / seen.n for seen in found.bins]
    spread = [
        [share - 100 * seen.low for share, seen in zip(shares, found.bins, strict=True)],
        [100 * seen.high - share for share, seen in zip(shares, found.bins, strict=True)],
    ]
    axes.errorbar(
        middles, shares, yerr=spread, fmt="o", markersize=4, color=_HOLDOUT, linewidth=1, label="your ratings, 95 %"
    )
    axes.axvline(report.threshold, color=_INK, linestyle=":", label=f"accepted by itself from {report.threshold:.2f}")
    axes.set_xlim(max(0.0, min(middles) - 0.1), 1.02)
    axes.set_ylim(0, 104)
    axes.set_xlabel("alignment score")
    axes.set_ylabel("accepted, %")
    _legend(axes)
    return _svg(figure)


def _figure() -> tuple[Any, Any]:
    _keep_home_clean()
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(_INK)
    axes.grid(axis="y", color=_INK, alpha=0.2)
    return figure, axes


def _keep_home_clean() -> None:
    """matplotlib keeps a list of fonts in the person's home, and says so in the log: neither is wanted here."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    os.environ.setdefault("MPLCONFIGDIR", str(load_settings().home / "matplotlib"))


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, labelcolor=_INK, fontsize=9, loc="lower right")


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: small files. No date, so that the same report is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edi", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
