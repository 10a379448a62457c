"""The ways that the embedded engines have to do each kind of edit, as the report needs them."""

from __future__ import annotations

from edi_storage.learning.report import Kind
from flows.engines.arms import KINDS, USUAL


def kinds() -> dict[str, Kind]:
    """Each kind with its arms, by the names under which decisions are kept: "brighten: soft"."""
    return {
        kind: Kind(
            default=f"{kind}: {USUAL}",
            arms=tuple(f"{kind}: {name}" for name in arms),
            words={f"{kind}: {name}": arm.words for name, arm in arms.items() if name != USUAL},
        )
        for kind, arms in KINDS.items()
    }
