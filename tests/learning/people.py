"""Made-up people who rate made-up sessions in a real database, change their minds, and delete what they did."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from edi_storage import EDIDatabase
from edi_storage.connection import writing
from edi_storage.learning_models import LoggedDecision
from edi_storage.models import ValidationData
from edi_storage.rows import TABLES, upsert, values_of

PRESETS = ("vivid: usual", "vivid: soft", "warmer: golden")
PROMPTS = ("make the sky more vivid", "warmer, please", "Vivid colours for the old house")
COMMENTS = ("", "way too strong", "halos around the trees", "meh", "the colours are off, and it is noisy")
REASONS = ("too strong", "too weak", "wrong region", "edges", "colour", "artifact", "tone")


def decision(rng: random.Random) -> LoggedDecision:
    """A decision of a first attempt, sometimes one in which nothing was chosen."""
    preset = rng.choice(PRESETS)
    where = {"edit_type": rng.choice(("color", "style")), "label": rng.choice(("sky", "image"))}
    if rng.random() < 0.2:
        return LoggedDecision(**where)
    return LoggedDecision(
        **where,
        preset=preset,
        params={"step": 0, "arm": preset.rpartition(": ")[2]},
        strength=rng.randint(0, 5),
        propensity=0.5,
        probabilities={preset: 0.5, "another": 0.5},
        seed=rng.getrandbits(63),
        profile_version=1,
        engine="embedded",
    )


def add_session(database: EDIDatabase, session_id: str, rng: random.Random) -> None:
    """A finished session with its decision and its score, without the pictures."""
    database.save_session(
        {
            "id": session_id,
            "image_path": "a.jpg",
            "naive_prompt": rng.choice(PROMPTS),
            "status": "completed",
            "consent": rng.choice(("none", "local", "local", "export")),
        }
    )
    data = ValidationData(
        attempt_number=1, alignment_score=rng.random(), preserved_count=1, modified_count=1, unintended_count=0
    )
    with writing(database.engine, session_id) as connection:
        for record in (decision(rng), data):
            table, keys = TABLES[type(record)]
            upsert(connection.dialect, table, [values_of(session_id, record)], keys).run(connection)


def verdict(rng: random.Random) -> dict[str, Any]:
    """What somebody says of it."""
    return {
        "feedback_type": rng.choice(("accept", "partial", "reject")),
        "rating": rng.choice((None, 1, 3, 5)),
        "reasons": rng.sample(REASONS, rng.randint(0, 2)),
        "comments": rng.choice(COMMENTS) or None,
        "feedback_key": rng.choice(("attempt-1", "verdict")),
    }


@dataclass(frozen=True)
class Learned:
    """All that the cells say."""

    cells: list[Any]
    terms: list[Any]
    scores: list[Any]
    summary: list[Any]

    @classmethod
    def of(cls, database: EDIDatabase) -> Learned:
        return cls(database.preset_cells(), database.term_cells(), database.score_bins(), database.learning_cells())


def count_of(database: EDIDatabase) -> int:
    """Verdicts in the cells."""
    return sum(cell.count for cell in database.preset_cells())
