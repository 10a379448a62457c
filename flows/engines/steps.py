"""An intent as a list of steps. Most prompts ask for one; "darker sky and greener grass" asks for two.

The first step is what `Intent` itself says. When there are several, `parameters["steps"]` holds all of them.
`parameters["scope"]` is "whole", "background" or "entities". For all steps hold `["protect"]`, ids of entities
that nothing may change, and `["within"]`, the id of the one outside of which nothing may change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edi_storage.models import Intent

Scope = Literal["whole", "background", "entities"]

#: Parameters of an intent that are not a step's own.
_COMMON = ("steps", "scope", "protect", "within")


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
