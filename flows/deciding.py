"""The choice of preset and strength for an attempt: where what was learned meets what the person asked for.

What they said is never overridden: a named look, a strength in words or as a wish. What they left open is chosen among
the arms of `engines.arms`, once for an attempt and before anything is written; the decision is committed with the first
iteration, and whoever continues the session takes it from there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from edi_storage.learning.choice import Chosen, choose_preset, choose_strength, is_holdout, only, seed_of
from edi_storage.learning.profile import Profile
from edi_storage.learning_models import LEVELS, NO_ENGINE, NO_LEVEL, LoggedDecision, StoredProfile
from edi_storage.models import Intent, UserFeedback
from edi_storage.state import rows_of
from edi_storage.steps import Step, verdict_on
from flows import engines
from flows.engines import steps as step_lists
from flows.engines.arms import KINDS, USUAL, has_open_strength, kind_of, with_arm
from flows.engines.base import Choice, as_read
from flows.engines.looks import EDIT_TYPES
from flows.session import SessionRun

#: The strength of each level; the usual one is what a prompt means that says nothing of it.
STRENGTHS: Final[Mapping[int, float]] = dict(zip(LEVELS, (0.3, 0.45, 0.6, 0.75, 0.9), strict=True))
_USUAL_LEVEL: Final = 3
#: Reasons that ask for the same with more or less of it.
_OF_STRENGTH: Final = frozenset({"too strong", "too weak"})


@dataclass(frozen=True)
class _Open:
    """What is left open: the number of the step, what it asks for, and its arms as "<kind>: <arm>"."""

    number: int
    edit_type: str
    label: str
    presets: tuple[str, ...]
    has_strength: bool

    @property
    def usual(self) -> str:
        return self.presets[0]


def decision_for(run: SessionRun, step: Step) -> LoggedDecision:
    """The decision for the attempt of a refinement step: the stored one, or a new one."""
    made = {decision.attempt: decision for decision in rows_of(run.state).decisions}
    if step.attempt in made:
        return made[step.attempt]
    found = _what_is_open(run)
    if found is None or step.iteration:  # an attempt that was begun by an EDI that did not decide
        return nothing_chosen(run, step)
    before = made.get(step.attempt - 1)
    rejected = {decision.preset for decision in made.values() if _is_refused(verdict_on(run.state, decision.attempt))}
    profile = _profile(run, made.values())
    if before is not None and (profile is None or before.preset not in rejected):
        return _the_same_again(before, run, step)
    return _new(found, profile, rejected, run, step)


def nothing_chosen(run: SessionRun, step: Step) -> LoggedDecision:
    """The decision of an attempt in which there was nothing to choose, or whose reasoner did not heed the choice."""
    first = step_lists.steps_of(run.intent)[0]
    return LoggedDecision(
        attempt=step.attempt,
        edit_type=run.intent.edit_type,
        label=_label(run, first),
        seed=seed_of(run.session.session_id, step.attempt),
    )


def choice_of(decision: LoggedDecision, intent: Intent) -> Choice:
    """The decision as refinement asks for it."""
    if not decision.is_open:
        return as_read
    meant = step_lists.steps_of(intent)[int(decision.params["step"])]
    arm = str(decision.params["arm"])
    strength = STRENGTHS[decision.strength] if decision.strength not in (NO_LEVEL, _USUAL_LEVEL) else meant.strength

    def choose(step: step_lists.Step, labels: tuple[str, ...]) -> step_lists.Step:
        return replace(with_arm(step, arm), strength=strength) if step == meant else step

    return choose


def in_words(decision: LoggedDecision) -> str:
    """What was chosen other than usual, for the log; "" when all is as usual."""
    if not decision.is_open or decision.profile_version is None:
        return ""
    parts = []
    if decision.params["arm"] != USUAL:
        parts.append(f"{decision.preset} ({round(100 * decision.propensity)} %)")
    if decision.strength not in (NO_LEVEL, _USUAL_LEVEL):
        parts.append(f"strength {round(100 * STRENGTHS[decision.strength])} %")
    return " at ".join(parts)


# --- What is open ------------------------------------------------------------------------------------


def _what_is_open(run: SessionRun) -> _Open | None:
    """The first step in which there is something to choose; None where there is none, or others choose."""
    if engines.names_in("EDI_EDITOR", run.settings.editor)[0] != "embedded":
        return None  # the arms are the embedded editor's
    if int(run.session.options.get("variations", 1)) > 1:
        return None  # the person is shown several, and chooses
    for number, step in enumerate(step_lists.steps_of(run.intent)):
        kind = kind_of(step)
        has_strength = run.wishes.strength is None and has_open_strength(step)
        if kind or has_strength:
            name = kind or step.action.replace("_", " ")
            presets = tuple(f"{name}: {arm}" for arm in KINDS.get(kind, (USUAL,)))
            edit_type = EDIT_TYPES.get(step.action, run.intent.edit_type)
            return _Open(number, edit_type, _label(run, step), presets, has_strength)
    return None


def _label(run: SessionRun, step: step_lists.Step) -> str:
    """What a step is done to: "image", "background", or the label of its first target."""
    if step.scope != "entities":
        return "image" if step.scope == "whole" else "background"
    labels = {entity.entity_id: entity.label for entity in run.scene.entities}
    return labels.get(step.targets[0], "image") if step.targets else "image"


def _is_refused(verdict: UserFeedback | None) -> bool:
    """Whether a person does not want to see this preset again; who says only "too strong" wants less of it."""
    if verdict is None or verdict.feedback_type != "reject":
        return False
    return not verdict.reasons or not _OF_STRENGTH.issuperset(verdict.reasons)


# --- The decision ------------------------------------------------------------------------------------


def _profile(run: SessionRun, made: Collection[LoggedDecision]) -> StoredProfile | None:
    """The profile of the session: that of its earlier attempts, else the active one; None when learning is off."""
    if run.settings.learning == "off" or run.session.options.get("learning") is False:
        return None
    versions = [decision.profile_version for decision in made if decision.profile_version is not None]
    database = run.store.database
    return (database.get_profile(versions[0]) if versions else None) or database.active_profile()


def _new(
    found: _Open, stored: StoredProfile | None, rejected: Collection[str], run: SessionRun, step: Step
) -> LoggedDecision:
    seed = seed_of(run.session.session_id, step.attempt)
    preset, level = only(found.usual), only(str(_USUAL_LEVEL))
    if stored is not None:
        profile, where = Profile(stored.profile), (found.edit_type, found.label)
        if len(found.presets) > 1:
            preset = choose_preset(profile, *where, found.presets, found.usual, seed, rejected)
        if found.has_strength and step.attempt == 1:
            level = choose_strength(profile, *where, LEVELS, _USUAL_LEVEL, seed)
    return LoggedDecision(
        attempt=step.attempt,
        edit_type=found.edit_type,
        label=found.label,
        preset=preset.arm,
        params={"step": found.number, "arm": preset.arm.rpartition(": ")[2]},
        propensity=preset.propensity,
        probabilities=preset.probabilities,
        **_strength(level if found.has_strength else None),
        seed=seed,
        holdout=stored is not None and not rejected and is_holdout(seed),
        profile_version=stored.version if stored else None,
        engine=run.reasoner.name,
    )


def _strength(level: Chosen | None) -> dict[str, object]:
    if level is None:
        return {"strength": NO_LEVEL}
    return {
        "strength": int(level.arm),
        "strength_propensity": level.propensity,
        "strength_probabilities": level.probabilities,
    }


def _the_same_again(before: LoggedDecision, run: SessionRun, step: Step) -> LoggedDecision:
    """The next attempt is another try of the same: what was wrong with the last one are its hints."""
    if before.engine == NO_ENGINE:
        return before.model_copy(update={"attempt": step.attempt})
    level = only(str(before.strength)) if before.strength != NO_LEVEL else None
    again = {
        "attempt": step.attempt,
        "propensity": 1.0,
        "probabilities": {before.preset: 1.0},
        **_strength(level),
        "seed": seed_of(run.session.session_id, step.attempt),
    }
    return before.model_copy(update=again)
