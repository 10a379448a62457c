"""What learning keeps, as pydantic models: choices made, counts of verdicts, profiles.

A reward is 1 for accept, 0.5 for partial and 0 for reject; probabilities are in 0..1.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from edi_storage.record import Count, JsonObject, Ordinal, Record, Text, Unit, UtcTime, Whole, now_utc

#: Strength levels are 1 (subtle) to 5 (strong); 3 is the usual strength. What a person asked for has none: NO_LEVEL.
LEVELS: Final = (1, 2, 3, 4, 5)
NO_LEVEL: Final = 0
#: The engine of a decision in which nothing was chosen: the person said it, or there is one way to do it only.
NO_ENGINE: Final = "none"

ProfileStatus = Literal["candidate", "active", "retired"]


class LoggedDecision(Record):
    """With what an attempt was refined, and with which probability it would have been something else.

    `preset` is "<kind>: <arm>", such as "dramatic sky: stormy"; `probabilities` are those of all arms that stood to be
    chosen from, by the same names, and sum to 1. `propensity` is that of the one chosen. With `engine` "none" nothing
    was chosen: `preset` and `strength` are as the person said.
    """

    attempt: Ordinal = 1
    edit_type: Text
    label: Text
    preset: Text = ""
    #: What the choice comes to: action, step, parameters, and the strength as a number in 0..1.
    params: JsonObject = Field(default_factory=dict)
    strength: Annotated[int, Field(ge=NO_LEVEL, le=LEVELS[-1])] = NO_LEVEL
    propensity: Unit = 1.0
    probabilities: dict[str, Unit] = Field(default_factory=dict)
    #: Of the strength levels ("1" to "5"), likewise.
    strength_propensity: Unit = 1.0
    strength_probabilities: dict[str, Unit] = Field(default_factory=dict)
    seed: Whole = 0
    #: Whether the session is one of those that get the default whatever was learned, to compare with.
    holdout: bool = False
    #: The profile that was asked; None when there was none, or learning was off.
    profile_version: Ordinal | None = None
    engine: Text = NO_ENGINE
    created_at: UtcTime = Field(default_factory=now_utc)

    @model_validator(mode="after")
    def _sums_to_one(self) -> LoggedDecision:
        for shares in (self.probabilities, self.strength_probabilities):
            if shares and abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError("must have probabilities that sum to 1")
        return self

    @property
    def is_open(self) -> bool:
        """Whether there was something to choose."""
        return self.engine != NO_ENGINE


class ReasonCounts(Record):
    """How many verdicts gave each reason; one verdict may give several."""

    too_strong: Whole = 0
    too_weak: Whole = 0
    wrong_region: Whole = 0
    edges: Whole = 0
    colour: Whole = 0
    artifact: Whole = 0
    tone: Whole = 0
    other: Whole = 0


class PresetCell(ReasonCounts):
    """What people said of one preset at one strength, by edit type and label; `preset` "" is as the person asked."""

    edit_type: Text
    label: Text
    preset: Text = ""
    strength: Whole = NO_LEVEL
    accepted: Whole = 0
    partial: Whole = 0
    rejected: Whole = 0
    rating_sum: Whole = 0
    rating_count: Whole = 0

    @property
    def count(self) -> int:
        """Verdicts."""
        return self.accepted + self.partial + self.rejected

    @property
    def reward(self) -> float:
        """Sum of the rewards."""
        return self.accepted + 0.5 * self.partial


class TermCell(Record):
    """What people said of edits whose prompt has this stem, within one cell of edit type, label and preset."""

    term: Text
    edit_type: Text
    label: Text
    preset: Text = ""
    accepted: Whole = 0
    partial: Whole = 0
    rejected: Whole = 0

    @property
    def count(self) -> int:
        """Verdicts."""
        return self.accepted + self.partial + self.rejected

    @property
    def reward(self) -> float:
        """Sum of the rewards."""
        return self.accepted + 0.5 * self.partial


class ScoreBin(Record):
    """Verdicts on attempts whose alignment score was `score` percent, 0..100."""

    score: Annotated[int, Field(ge=0, le=100)]
    accepted: Whole = 0
    partial: Whole = 0
    rejected: Whole = 0


class StoredProfile(Record):
    """One version of what was learned. `profile` is the document of `edi_storage.learning.profile`."""

    version: Ordinal
    parent: Ordinal | None = None
    #: The last feedback event that it knows of.
    seq_to: Count
    profile: JsonObject
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    status: ProfileStatus
    created_at: UtcTime = Field(default_factory=now_utc)


class FirstVerdict(Record):
    """A verdict that stands on a first attempt in which a profile had a choice: one row of the uplift estimate."""

    session_id: Text
    edit_type: Text
    label: Text
    preset: Text
    propensity: Unit
    probabilities: dict[str, Unit]
    strength: Whole
    strength_probabilities: dict[str, Unit]
    holdout: bool
    profile_version: Whole
    reward: Unit
    created_at: UtcTime
