"""What a person asks for beside the prompt: how strong, what to leave alone, and where.

A reasoner knows nothing of it: `as_wished` changes the intent that it returned, so the wishes hold with any engine. A
region or a painted mask becomes an entity named "region" (`area.py`); what an edit may touch stands in the intent's
`parameters`: `protect` (entity ids that nothing changes) and `within` (the region, outside of which nothing changes).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edi_storage.errors import InputError
from edi_storage.models import EntityData, Intent, Question, SceneAnalysis
from edi_storage.record import check_text
from flows.engines.area import REGION, Region, read_region, without_region
from flows.engines.base import Mask
from flows.engines.lexicon import normalise
from flows.engines.steps import Step, parameters_of, steps_of
from flows.engines.targets import aim_of, phrase_of

#: The words for a strength; None leaves it to the prompt ("a bit", "very").
STRENGTHS: Final[Mapping[str, float | None]] = {
    "as the prompt says": None,
    "subtle": 0.3,
    "normal": 0.6,
    "strong": 0.85,
    "very strong": 1.0,
}
#: Longest text for what to protect.
MAX_PROTECT: Final = 500
#: "everything except the sky" would protect the sky.
_TURNED = re.compile(r"\b(?:except|but|not|without|other than|apart from)\b", re.IGNORECASE)
#: An entity with less of the region than this fraction is not in it ...
_LEAST_INSIDE: Final = 0.02
#: ... and one with less than this fraction of itself outside it is all in it.
_LEAST_OUTSIDE: Final = 0.1


@dataclass(frozen=True)
class Wishes:
    """Checked wishes. `strength` is 0..1, or None for what the prompt says."""

    strength: float | None = None
    protect: str = ""
    region: Region | None = None
    #: Path of a painted mask, white where the photo may change.
    mask: str = ""

    @property
    def is_confined(self) -> bool:
        """Whether there is a region or a mask outside of which nothing changes."""
        return self.region is not None or bool(self.mask)

    def as_options(self) -> dict[str, Any]:
        """What is kept with the session: only what was wished."""
        region = str(self.region or "")
        kept = {"strength": self.strength, "protect": self.protect, "region": region, "mask": self.mask}
        return {name: value for name, value in kept.items() if value not in (None, "")}

    @classmethod
    def checked(cls, *, strength: str | float = "", protect: str = "", region: str = "", mask: str = "") -> Wishes:
        """Read what a person wrote; empty texts wish for nothing. Raises InputError."""
        wishes = cls(_strength(strength), _protect(protect), read_region(region), mask)
        if wishes.region is not None and mask:
            raise InputError("A region and a mask say the same in two ways: give one of them.")
        return wishes

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Wishes:
        """The wishes kept with a session."""
        named = {name: options[name] for name in ("strength", "protect", "region", "mask") if name in options}
        return cls.checked(**named)


def _strength(given: str | float) -> float | None:
    text = str(given).strip().lower()
    if not text or text in STRENGTHS:
        return STRENGTHS.get(text)
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        words = ", ".join(f"'{word}'" for word in STRENGTHS)
        raise InputError(f"The strength is {str(given)[:40]!r}: say {words}, or a number above 0 and up to 1.")
    return round(number, 4)


def _protect(given: str) -> str:
    try:
        check_text(given)
    except ValueError as error:
        raise InputError(f"What to protect {error}.") from None
    if len(given) > MAX_PROTECT:
        raise InputError(f"What to protect has {len(given)} characters: name it in at most {MAX_PROTECT}.")
    return " ".join(given.split())


# --- The intent --------------------------------------------------------------------------------------


def as_wished(intent: Intent, scene: SceneAnalysis, masks: Mapping[str, Mask], wishes: Wishes) -> Intent:
    """The intent with the person's wishes: strength, things protected, and nothing outside the region.

    `masks` are only looked at for a region. Raises InputError when nothing is left to change, and for a thing to
    protect that the photo does not show, naming what was found.
    """
    if wishes == Wishes():
        return intent
    entities = without_region(scene).entities
    steps = steps_of(intent)
    if wishes.strength is not None:
        steps = [replace(step, strength=wishes.strength) for step in steps]
    protected = _named(wishes.protect, entities)
    if intent.needs_answer:
        # The first guess may change what is protected; the answer decides, and cannot be about that alone.
        return intent.model_copy(update={"question": _about_others(intent.question, protected, entities)})
    steps = _sparing(steps, protected, entities)
    kept = [entity.entity_id for entity in entities]
    if wishes.is_confined:
        where = "white in the mask" if wishes.region is None else f"inside the region {wishes.region}"
        _refuse_outside(steps, entities, masks, where)
        steps, kept = _confined(steps, kept, masks)
    touched = {target for step in steps for target in step.targets}
    parameters = parameters_of(steps)
    parameters |= {"protect": sorted(protected)} if protected else {}
    parameters |= {"within": REGION} if wishes.is_confined else {}
    return intent.model_copy(
        update={
            "target_entities": [e.entity_id for e in scene.entities if e.entity_id in touched],
            "preserve_entities": [name for name in kept if name not in touched],
            "action": steps[0].action,
            "strength": steps[0].strength,
            "parameters": parameters,
        }
    )


def _about_others(
    question: Question | None, protected: frozenset[str], entities: Sequence[EntityData]
) -> Question | None:
    """The question without the choices that are protected, as long as it leaves a choice."""
    named = {phrase_of(entity, entities) for entity in entities if entity.entity_id in protected}
    left = [choice for choice in question.choices if choice not in named] if question else []
    return question.model_copy(update={"choices": left}) if question and len(left) > 1 else question


def _named(protect: str, entities: Sequence[EntityData]) -> frozenset[str]:
    """The ids of the things that a text such as "the car, people and sky" names."""
    if turned := _TURNED.search(protect):
        raise InputError(f"What to protect says '{turned[0]}': name the things themselves that must not change.")
    found: set[str] = set()
    ids = {entity.entity_id for entity in entities}
    for part in re.split(r"[,;]|\band\b|&", protect):
        word = part.strip()
        if word in ids:
            found.add(word)
        elif text := normalise(word):
            aim = aim_of(text if re.search(r"\b(?:the|my|a)\b", text) else f"the {text}", entities)
            if aim.kind == "whole":
                raise InputError(f"To protect '{word}' leaves nothing to change: name the things that should stay.")
            if not aim.ids:
                seen = ", ".join(phrase_of(entity, entities).removeprefix("the ") for entity in entities)
                raise InputError(
                    f"I do not see '{word}' in this photo to protect it; I found: {seen or 'nothing'}. "
                    "Name one of these, or leave it out."
                )
            found |= set(aim.ids)
    if protect.strip() and not found:
        raise InputError(f"What to protect names nothing ({protect[:60]!r}): say for example 'the car, people'.")
    return frozenset(found)


def _sparing(steps: Sequence[Step], protected: frozenset[str], entities: Sequence[EntityData]) -> list[Step]:
    """The steps without the protected things; the whole picture becomes everything but them."""
    if not protected:
        return list(steps)
    spared = [
        replace(
            step,
            targets=tuple(target for target in step.targets if target not in protected),
            scope="background" if step.scope == "whole" else step.scope,
        )
        for step in steps
    ]
    spared = [step for step in spared if step.targets]
    if not spared:
        raise InputError(
            f"What the prompt would change is protected ({_listed(protected, entities)}): protect less, or ask for "
            "another edit."
        )
    return spared


def _listed(ids: Collection[str], entities: Sequence[EntityData]) -> str:
    return ", ".join(phrase_of(entity, entities) for entity in entities if entity.entity_id in ids)


def _inside(name: str, masks: Mapping[str, Mask]) -> float:
    """How much of an entity lies in the region, as a fraction of the region."""
    area = masks[REGION]
    return float((masks[name] * area).sum()) / max(1e-6, float(area.sum()))


def _refuse_outside(
    steps: Sequence[Step], entities: Sequence[EntityData], masks: Mapping[str, Mask], where: str
) -> None:
    """Raise InputError when a step's targets are all outside the region."""
    for step in steps:
        if step.scope != "whole" and all(_inside(name, masks) < _LEAST_INSIDE for name in step.targets):
            raise InputError(
                f"What the prompt would change ({_listed(step.targets, entities)}) is not {where}: "
                "give another region or mask."
            )


def _confined(steps: Sequence[Step], ids: Sequence[str], masks: Mapping[str, Mask]) -> tuple[list[Step], list[str]]:
    """The steps inside the region, and which entities are then still to be preserved."""
    confined = []
    for step in steps:
        if step.scope == "whole":
            confined.append(replace(step, targets=(REGION,), scope="entities"))
        else:
            here = tuple(name for name in step.targets if _inside(name, masks) >= _LEAST_INSIDE)
            confined.append(replace(step, targets=here))
    if not any(REGION in step.targets for step in confined):
        return confined, list(ids)
    # The region itself changes: what is all in it need not stay.
    return confined, [name for name in ids if _outside(name, masks) >= _LEAST_OUTSIDE]


def _outside(name: str, masks: Mapping[str, Mask]) -> float:
    """How much of an entity lies outside the region, as a fraction of the entity."""
    mask = masks[name]
    return float((mask * (1 - masks[REGION])).sum()) / max(1e-6, float(mask.sum()))


# --- Validation --------------------------------------------------------------------------------------


def to_measure(
    scene: SceneAnalysis, masks: Mapping[str, Mask], intent: Intent
) -> tuple[SceneAnalysis, Mapping[str, Mask]]:
    """What a validator has to look at: with a region, what should change inside of it, and what should not outside."""
    area = masks.get(REGION)
    if area is None:
        return scene, masks
    judged = {*intent.target_entities, *intent.preserve_entities}
    entities = [entity for entity in scene.entities if entity.entity_id in judged]
    protected = [str(name) for name in intent.parameters.get("protect", [])]

    def part(name: str) -> Mask:
        if name == REGION:
            free = area.copy()
            for spared in protected:
                free *= 1 - masks[spared]
            return free
        if name in intent.target_entities:
            return masks[name] * area
        # All of it, unless the region itself is what changes.
        return masks[name] * (1 - area) if REGION in intent.target_entities and name not in protected else masks[name]

    judged_masks = {entity.entity_id: part(entity.entity_id) for entity in entities}
    return scene.model_copy(update={"entities": entities}), judged_masks
