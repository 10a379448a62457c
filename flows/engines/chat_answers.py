"""What a language model has to answer: its form as pydantic models, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from edi_storage.models import EditType, Intent, Question
from edi_storage.record import Record, Text, Unit
from flows.engines.intent import SURE
from flows.engines.looks import EDIT_TYPES, SIGNED
from flows.engines.painting import PAINT
from flows.engines.steps import Step, parameters_of

#: The action for what no other action can do.
CANNOT: Final = "cannot"
#: Presets and tones need a name that an answer has no field for.
_ACTIONS: Final = (*(action for action in EDIT_TYPES if action not in ("preset", "tones")), PAINT, CANNOT)
_COLOURED: Final = ("recolour", "tint", "fill")
_MOST_STEPS: Final = 6


class StepAnswer(Record):
    """One step of an answer."""

    action: Text
    targets: list[Text]
    scope: Literal["entities", "background", "whole"] = "entities"
    strength: Unit
    direction: Literal["more", "less"] = "more"
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        ids = (info.context or {}).get("ids", [])
        if self.action not in _ACTIONS:
            raise ValueError(f"contains an action {self.action[:40]!r}; there are {', '.join(_ACTIONS)}")
        if unknown := [name for name in self.targets if name not in ids]:
            raise ValueError(
                f"contains a target {unknown[0][:40]!r} that is not in the photo; there are {', '.join(ids)}"
            )
        if self.scope != "whole" and not self.targets and self.action != CANNOT:
            raise ValueError(f"contains no targets for {self.action}")
        if self.action in _COLOURED and self.color is None:
            raise ValueError(f"contains no color for {self.action}")
        return self

    def as_step(self, wish: str, ids: Sequence[str]) -> Step:
        """The step as the editors take it."""
        parameters: dict[str, Any] = {"wish": wish} if self.action == PAINT else {}
        if self.action in SIGNED:
            parameters["direction"] = 1 if self.direction == "more" else -1
        if self.action in _COLOURED:
            parameters["color"] = self.color
        targets = tuple(ids) if self.scope == "whole" else tuple(dict.fromkeys(self.targets))
        return Step(self.action, targets, self.strength, self.scope, parameters)


class Understanding(Record):
    """The answer to a prompt."""

    edit_type: EditType
    steps: Annotated[list[StepAnswer], Field(min_length=1, max_length=_MOST_STEPS)]
    confidence: Unit
    question: Text = ""
    choices: Annotated[list[Text], Field(default_factory=list)]

    @model_validator(mode="after")
    def _asks_when_unsure(self, info: ValidationInfo) -> Self:
        answered = (info.context or {}).get("answered", False)
        if self.confidence < SURE and not answered and not (self.question and 2 <= len(self.choices) <= 6):
            raise ValueError("contains a confidence below 0.7, but no question with two to six choices")
        return self

    @classmethod
    def read(cls, text: str, ids: Sequence[str], *, answered: bool) -> Self:
        """Read an answer strictly. Raises ValidationError, or ValueError where there is no JSON in it."""
        return cls.model_validate_json(_json_in(text), context={"ids": list(ids), "answered": answered})

    def as_intent(self, wish: str, ids: Sequence[str]) -> Intent:
        """The intent: what no step changes is to be preserved."""
        steps = [step.as_step(wish, ids) for step in self.steps]
        touched = {target for step in steps for target in step.targets}
        first = steps[0]
        unsure = self.confidence < SURE and self.question and len(self.choices) >= 2
        return Intent(
            edit_type=EDIT_TYPES.get(first.action, self.edit_type),
            target_entities=[name for name in ids if name in touched],
            preserve_entities=[name for name in ids if name not in touched],
            confidence=round(self.confidence, 3),
            action=first.action,
            strength=first.strength,
            parameters=parameters_of(steps),
            question=Question(text=self.question, choices=self.choices) if unsure else None,
        )


class Pair(Record):
    """The answer to a refinement."""

    positive_prompt: Annotated[Text, Field(min_length=1, max_length=4000)]
    negative_prompt: Annotated[Text, Field(max_length=4000)]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read an answer strictly. Raises ValidationError, or ValueError where there is no JSON in it."""
        return cls.model_validate_json(_json_in(text))


def schema_of(kind: type[Understanding], ids: Sequence[str], *, generative: bool) -> dict[str, Any]:
    """The JSON schema of an answer about this photo: only its ids, only actions that the editor has."""
    schema = kind.model_json_schema()
    step = schema["$defs"]["StepAnswer"]["properties"]
    step["action"] = {"enum": [action for action in _ACTIONS if generative or action != PAINT]}
    step["targets"]["items"] = {"enum": list(ids)} if ids else {"type": "string"}
    return schema


def _json_in(text: str) -> str:
    """The JSON object in an answer: models without a schema wrap it into words or a fence."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("It holds no JSON object")
    return text[start : end + 1]
