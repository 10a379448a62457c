"""Why a session got its preset: what stood to be chosen, how likely each was, and what was known of it then."""

from __future__ import annotations

from edi_storage.database import EDIDatabase
from edi_storage.learning.profile import Profile
from edi_storage.learning_models import LoggedDecision
from edi_storage.record import Record, Text, Unit


class Alternative(Record):
    """One way that stood to be chosen; `expected` and `verdicts` are what the profile of that time knew of it."""

    name: Text
    chance: Unit
    chosen: bool
    verdicts: float | None = None
    reward: float | None = None
    expected: Unit | None = None


class Explanation(Record):
    """How one attempt came to its preset and strength, the likeliest ways first."""

    decision: LoggedDecision
    presets: list[Alternative]
    strengths: list[Alternative]
    #: Whether the profile is still kept.
    profile_known: bool


def explain(database: EDIDatabase, session_id: str) -> list[Explanation]:
    """An explanation for each attempt that has one, in their order."""
    return [_explained(database, decision) for decision in database.get_decisions(session_id)]


def _explained(database: EDIDatabase, decision: LoggedDecision) -> Explanation:
    stored = database.get_profile(decision.profile_version) if decision.profile_version else None
    profile = Profile(stored.profile) if stored else None
    return Explanation(
        decision=decision,
        presets=_alternatives(decision, profile, strengths=False),
        strengths=_alternatives(decision, profile, strengths=True),
        profile_known=profile is not None,
    )


def _alternatives(decision: LoggedDecision, profile: Profile | None, *, strengths: bool) -> list[Alternative]:
    chances = decision.strength_probabilities if strengths else decision.probabilities
    chosen = str(decision.strength) if strengths else decision.preset
    names = sorted(chances, key=lambda name: (-chances[name], name))
    known = {}
    if profile is not None:
        tallies = profile.strengths if strengths else profile.presets
        known = {belief.arm: belief for belief in tallies.beliefs(decision.edit_type, decision.label, names)}
    found = []
    for name in names:
        belief = known.get(name)
        alternative = Alternative(name=name, chance=chances[name], chosen=name == chosen)
        if belief:
            what = {"verdicts": belief.count, "reward": belief.reward, "expected": belief.mean}
            alternative = alternative.model_copy(update=what)
        found.append(alternative)
    return found
