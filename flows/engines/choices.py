"""What a person answers when they are shown variations: "2", or a blend of regions such as "1, sky from 3"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edi_storage.errors import InputError
from edi_storage.models import EntityData, Intent, Operation
from flows.engines.parameters import VERSION
from flows.engines.steps import steps_of
from flows.engines.targets import aim_of, phrase_of
from flows.engines.variations import with_steps

#: Longest answer.
MAX_CHOICE: Final = 200
_EXAMPLE: Final = "answer with a number, or with a blend such as '1, sky from 3'"
_NUMBER: Final = r"(?:variation |number |no\.? ?)?(\d+)"
_WHOLE: Final = re.compile(rf"{_NUMBER}(?:(?:\s*[,;:]\s*|\s+)(?:with |but )?(?P<parts>\S.*))?", re.IGNORECASE)
_PART: Final = re.compile(rf"\s*(?:and |with |but )?(.+?) (?:from|of) {_NUMBER}\s*(?:[,;]|and\b|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """Regions, as entity ids, that are taken from another variation."""

    entities: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Choice:
    """The number of a variation, from 1, and what of others is laid into it."""

    number: int
    parts: tuple[Part, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the state."""
        parts = [{"entities": list(part.entities), "from": part.number} for part in self.parts]
        return {"number": self.number, **({"parts": parts} if parts else {})}


def read_choice(answer: str, count: int, entities: Sequence[EntityData]) -> Choice:
    """The choice among `count` variations of a photo with these entities. Raises InputError, saying what to do."""
    text = " ".join(answer.split())
    if len(text) > MAX_CHOICE or not (found := _WHOLE.fullmatch(text)):
        raise InputError(f"The answer {_short(text)} is not clear: {_EXAMPLE}.")
    number = _checked(found[1], count)
    rest, parts, at = found["parts"] or "", [], 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise InputError(f"In the answer, {_short(rest[at:])} is not clear: {_EXAMPLE}.")
        taken = Part(_named(part[1], entities), _checked(part[2], count))
        parts += [taken] if taken.number != number else []
        at = part.end()
    return Choice(number, tuple(parts))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _checked(number: str, count: int) -> int:
    # Python itself refuses to read thousands of digits.
    if len(number) > 3 or not 1 <= int(number) <= count:
        raise InputError(f"There is no choice {number[:9]}: answer with a number from 1 to {count}.")
    return int(number)


def _named(text: str, entities: Sequence[EntityData]) -> tuple[str, ...]:
    """The ids of the things that "the sky, grass and car" names."""
    ids = [entity.entity_id for entity in entities]
    found: list[str] = []
    for word in (part.strip() for part in re.split(r"[,;&]|\band\b", text)):
        if word in ids:
            found.append(word)
        elif word:
            aim = aim_of(word if re.match(r"(?:the|my|a) ", word) else f"the {word}", entities)
            if aim.kind not in ("entities", "background") or not aim.ids or aim.unknown:
                seen = ", ".join(phrase_of(entity, entities).removeprefix("the ") for entity in entities)
                raise InputError(f"I do not see {_short(word)} in this photo to take it; I found: {seen or 'nothing'}.")
            found += aim.ids
    return tuple(dict.fromkeys(found))


def chosen_operations(choice: Choice, variations: Sequence[Sequence[Operation]]) -> list[Operation]:
    """What makes the chosen picture of the original; what is taken from others is laid in by the operation "blend"."""
    operations = list(variations[choice.number - 1])
    for part in choice.parts:
        others = [operation.model_dump(mode="json") for operation in variations[part.number - 1]]
        operations += [
            Operation(version=VERSION, name="blend", target=name, parameters={"operations": others})
            for name in part.entities
        ]
    return operations


def chosen_intent(choice: Choice, intents: Sequence[Intent]) -> Intent:
    """The intent that asks for the chosen picture: what is taken from another is done as that one says."""
    intent = intents[choice.number - 1]
    if not choice.parts:
        return intent
    taken: Mapping[str, int] = {name: part.number for part in choice.parts for name in part.entities}
    steps = [
        replace(step, targets=tuple(name for name in step.targets if name not in taken)) for step in steps_of(intent)
    ]
    for part in choice.parts:
        own = [name for name in part.entities if taken[name] == part.number]
        steps += [
            replace(step, targets=tuple(name for name in step.targets if name in own), scope="entities")
            for step in steps_of(intents[part.number - 1])
        ]
    return with_steps(intent, [step for step in steps if step.targets] or steps_of(intent))
