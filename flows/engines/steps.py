"""An intent as a list of steps. Most prompts ask for one; "darker sky and greener grass" asks for two.

The first step is what `Intent` itself says. When there are several, `parameters["steps"]` holds all of them.
`parameters["scope"]` is "whole", "background" or "entities". For all steps hold `["protect"]`, ids of entities
that nothing may change, and `["within"]`, the id of the one outside of which nothing may change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from edi_storage.models import Intent

Scope = Literal["whole", "background", "entities"]

#: Parameters of an intent that are not a step's own.
_COMMON = ("steps", "scope", "protect", "within")
#: The parameter that names an action's preset, for the actions that have any; "variant" is one of `arms.KINDS`.
PRESET_OF: Final[Mapping[str, str]] = {
    "preset": "name",
    "dramatic": "mood",
    "dramatic_sky": "mood",
    **dict.fromkeys(
        ("black_and_white", "blur", "clarity", "contrast", "enhance", "exposure", "saturation", "sepia", "warmth"),
        "variant",
    ),
}


@dataclass(frozen=True)
class Step:
    """One action on some entities. `strength` is 0..1; `parameters` are what the action needs beside it."""

    action: str
    targets: tuple[str, ...]
    strength: float
    scope: Scope = "entities"
    parameters: Mapping[str, Any] = field(default_factory=dict)


def steps_of(intent: Intent) -> list[Step]:
    """All steps of an intent, whoever made it; an intent without `steps` is one step."""
    listed = intent.parameters.get("steps")
    if isinstance(listed, list) and listed:
        return [_step(entry, intent) for entry in listed if isinstance(entry, Mapping)]
    own = {name: value for name, value in intent.parameters.items() if name not in _COMMON}
    scope = intent.parameters.get("scope", "entities" if intent.preserve_entities else "whole")
    return [Step(intent.action, tuple(intent.target_entities), intent.strength, _scope(scope), own)]


def _step(entry: Mapping[str, Any], intent: Intent) -> Step:
    targets = tuple(str(target) for target in entry.get("targets", intent.target_entities))
    strength = min(1.0, max(0.0, float(entry.get("strength", intent.strength))))
    scope = _scope(entry.get("scope", "entities"))
    return Step(str(entry.get("action", intent.action)), targets, strength, scope, dict(entry.get("parameters", {})))


def _scope(value: object) -> Scope:
    if value == "whole":
        return "whole"
    return "background" if value == "background" else "entities"


def amount_of(step: Step) -> str:
    """How a prompt says what a step does and how much of it: "dramatic sky (stormy) at 60 %"."""
    preset = step.parameters.get(PRESET_OF.get(step.action, ""))
    named = f" ({preset})" if preset else ""
    return f"{step.action.replace('_', ' ')}{named} at {round(100 * step.strength)} %"


def steps_for(intent: Intent, positive_prompt: str) -> list[Step]:
    """The steps of an intent with the presets and strengths that its prompt gives them (see `amount_of`).

    What an editor does. The prompt is where refinement puts what it chose, so what was done stands in the record; a
    step that the prompt says no amount of is done as the intent says.
    """
    told: dict[str, list[re.Match[str]]] = {}
    for match in re.finditer(r"\b([a-z][a-z ]*?)(?: \(([^()]*)\))? at (\d{1,3}) %", positive_prompt):
        told.setdefault(match.group(1), []).append(match)
    steps = []
    for step in steps_of(intent):
        amounts = told.get(step.action.replace("_", " "), [])
        steps.append(_as_told(step, amounts.pop(0)) if amounts else step)
    return steps


def _as_told(step: Step, amount: re.Match[str]) -> Step:
    name = PRESET_OF.get(step.action)
    parameters = {**step.parameters, name: amount.group(2)} if name and amount.group(2) else step.parameters
    percent = int(amount.group(3))
    # The prompt rounds: what rounds to the same percent is what the intent says.
    strength = step.strength if round(100 * step.strength) == percent else min(1.0, percent / 100)
    return replace(step, parameters=parameters, strength=strength)


def parameters_of(steps: Sequence[Step]) -> dict[str, Any]:
    """The `parameters` of an intent made of these steps."""
    parameters: dict[str, Any] = {**steps[0].parameters, "scope": steps[0].scope}
    if len(steps) > 1:
        parameters["steps"] = [
            {
                "action": step.action,
                "targets": list(step.targets),
                "strength": step.strength,
                "scope": step.scope,
                "parameters": dict(step.parameters),
            }
            for step in steps
        ]
    return parameters
