"""The one question for an unclear prompt, with choices made from this very photo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edi_storage.errors import InputError
from edi_storage.models import EntityData, Question
from flows.engines.looks import DEFAULT_STRENGTH
from flows.engines.nouns import OWNERS
from flows.engines.paints import COLOURS, nearest
from flows.engines.places import is_inside
from flows.engines.reading import Reading, settle
from flows.engines.steps import Scope, Step
from flows.engines.targets import aim_of, phrase_of

EXAMPLES: Final = "for example 'make the sky dramatic', 'warmer', 'blur the background' or 'black and white'"
_MOST_CHOICES: Final = 8
_DONE: Final = {
    "blur": "blurred",
    "remove": "removed",
    "recolour": "made {colour}",
    "tint": "given a touch of {colour}",
    "exposure": "made {brighter}",
    "saturation": "made {livelier}",
    "contrast": "given {more} contrast",
    "dramatic": "made dramatic",
    "sharpen": "sharpened",
    "warmth": "made {warmer}",
    "black_and_white": "black and white",
}


@dataclass(frozen=True)
class Choice:
    """What one answer would do."""

    text: str
    steps: tuple[Step, ...]
    kept: frozenset[str] = frozenset()


def ask(
    prompt: str, text: str, readings: Sequence[Reading], entities: Sequence[EntityData]
) -> tuple[Question, list[Choice]]:
    """The question for the least sure reading, likeliest choice first. Raises InputError when nothing can be asked."""
    if not readings:
        return _ask_for_look(prompt, text, entities)
    weak = min(readings, key=lambda reading: reading.certainty)
    weak = next(reading for reading in readings if reading is weak or (weak.unknown and reading.unknown))
    # One answer cannot tell two things, and what is not found is not everything.
    others = [reading for reading in readings if reading is not weak and reading.unknown in ("", weak.unknown)]
    left_out = [reading for reading in readings if reading.unknown not in ("", weak.unknown)]
    if weak.one_of:
        choices = _candidates(weak, entities)
        asked = f"Which one should be {_done(weak.step)}?"
    elif weak.step.action == "remove" and weak.step.scope == "background":
        choices = _other_backgrounds(weak.step)
        asked = "The background cannot be cut away, but changed. What should be in its place?"
    elif weak.vague and not weak.unknown:
        choices = _enhancements(weak.step, entities)
        choices.sort(key=lambda choice: choice.steps[0].action != weak.step.action)
        asked = "What would make it better?"
    elif weak.step.action in ("dramatic", "dramatic_sky") and not weak.unknown:
        choices = _dramas(weak.step, entities)
        asked = "What should become dramatic?"
    else:
        choices = _places(weak, entities)
        asked = f"What should be {_done(weak.step)}?"
    asked = f"{_missing(weak, left_out)}{asked}"
    return _question(asked, [replace(choice, steps=_together(choice, others, weak, entities)) for choice in choices])


def _missing(weak: Reading, left_out: Sequence[Reading]) -> str:
    """What is not found: the thing that is asked for, and those to which nothing will be done."""
    told = [f"I do not see '{weak.unknown}' for certain in this photo."] if weak.unknown else []
    for reading in left_out:
        begin = "Nor do I" if told else "I do not"
        told.append(f"{begin} see '{reading.unknown}': nothing will be {_done(reading.step)}.")
    return "".join(f"{sentence} " for sentence in told)


def together(choices: Sequence[Choice]) -> tuple[list[Step], frozenset[str]]:
    """What several answers would do, and what they keep: the same on all they name, or on all but all they spare."""
    done: dict[tuple[object, ...], Step] = {}
    for step in (step for choice in choices for step in choice.steps):
        key = (step.action, step.strength, step.scope, str(sorted(step.parameters.items())))
        before = done.get(key, step)
        if step.scope == "background":
            targets = tuple(target for target in before.targets if target in step.targets)
        else:
            targets = tuple(dict.fromkeys([*before.targets, *step.targets]))
        done[key] = replace(step, targets=targets)
    whole = [key[::3] for key, step in done.items() if step.scope == "whole"]
    steps = [step for key, step in done.items() if step.scope != "entities" or key[::3] not in whole]
    return steps, frozenset().union(*(choice.kept for choice in choices))


def _together(
    choice: Choice, others: Sequence[Reading], weak: Reading, entities: Sequence[EntityData]
) -> tuple[Step, ...]:
    """All steps of an answer. What a person points out is meant wherever it was named, and is no background."""
    if not weak.unknown:
        return (*choice.steps, *(reading.step for reading in others))
    first = choice.steps[0]
    pointed = first.targets if first.scope == "entities" else ()
    steps = []
    for reading in others:
        step = reading.step
        if reading.unknown == weak.unknown:
            action, parameters = settle(step.action, dict(step.parameters), first.targets, first.scope, entities)
            step = replace(step, targets=first.targets, scope=first.scope, action=action, parameters=parameters)
        elif step.scope == "background":
            step = replace(step, targets=tuple(target for target in step.targets if target not in pointed))
        steps.append(step)
    return (*choice.steps, *(step for step in steps if step.targets))


def ask_what_to_keep(
    missing: str, kept: frozenset[str], readings: Sequence[Reading], entities: Sequence[EntityData]
) -> tuple[Question, list[Choice]]:
    """For "except the flower" where no flower is known: which part of this photo it is, or none."""
    steps = tuple(reading.step for reading in readings)
    likely = _likely(Reading(steps[0], 0.0, missing), entities)
    others = [entity for entity in likely if entity.entity_id not in kept][: _MOST_CHOICES - 1]
    choices = [Choice(phrase_of(entity, entities), steps, frozenset({entity.entity_id})) for entity in others]
    choices.append(Choice("nothing: all of it may change", steps))
    return _question(f"I do not see '{missing}' for certain in this photo. What should stay as it is?", choices)


def _done(step: Step) -> str:
    up = step.parameters.get("direction", 1) >= 0
    words = {"brighter": "darker", "livelier": "paler in its colours", "more": "less", "warmer": "cooler"}
    chosen = {word: word if up else opposite for word, opposite in words.items()}
    paint = step.parameters.get("color")
    chosen["colour"] = next((name for name, code in COLOURS.items() if code == paint), "another colour")
    return _DONE.get(step.action, "changed").format(**chosen)


def _question(text: str, choices: list[Choice]) -> tuple[Question, list[Choice]]:
    if len(choices) < 2:
        gently = tuple(replace(step, strength=0.35) for step in choices[0].steps)
        choices = [*choices, Choice(f"{choices[0].text}, only a little", gently)]
    told: list[Choice] = []
    for choice in choices:
        # Two brown regions at the top: the person has to be able to tell which is which.
        same = sum(earlier.text.split(", no. ")[0] == choice.text for earlier in told)
        told.append(replace(choice, text=f"{choice.text}, no. {same + 1}") if same else choice)
    return Question(text=text, choices=[choice.text for choice in told]), told


def _ask_for_look(prompt: str, text: str, entities: Sequence[EntityData]) -> tuple[Question, list[Choice]]:
    """A prompt that names a thing but no look ("the sky"), or nothing at all, which is an InputError."""
    aim = aim_of(text, entities)
    aim = aim if aim.kind != "nothing" else aim_of(f"the {text}", entities)
    if aim.kind == "nothing" or (aim.unknown and not re.search(r"\b(?:make|change|the|my)\b", text)):
        raise InputError(f"I do not see what to change in '{prompt.strip()[:80]}'; say what and how, {EXAMPLES}.")
    ids = aim.ids if aim.ids and not aim.unknown else tuple(entity.entity_id for entity in entities)
    scope: Scope = "background" if aim.kind == "background" else "whole" if len(ids) == len(entities) else "entities"
    step = Step("enhance", ids, DEFAULT_STRENGTH, scope)
    return _question("What should change about it?", _enhancements(step, entities))


def _enhancements(step: Step, entities: Sequence[EntityData]) -> list[Choice]:
    up = {"direction": 1}
    if step.scope == "background":
        return [
            Choice("softly out of focus", (replace(step, action="blur"),)),
            Choice("darker", (replace(step, action="exposure", parameters={"direction": -1}),)),
            Choice("paler colours", (replace(step, action="saturation", parameters={"direction": -1}),)),
            Choice("black and white", (replace(step, action="black_and_white"),)),
        ]
    lively = replace(step, action="enhance", parameters={})
    choices = [
        Choice("clearer and livelier: light, contrast and colour together", (lively,)),
        Choice("brighter", (replace(step, action="exposure", parameters=up),)),
        Choice("richer colours", (replace(step, action="saturation", parameters=up),)),
        Choice("warmer", (replace(step, action="warmth", parameters=up),)),
    ]
    sky = tuple(e.entity_id for e in entities if e.label == "sky" and e.entity_id in step.targets)
    if sky:
        dramatic = Step("dramatic_sky", sky, step.strength, "entities", {"mood": "dramatic"})
        choices.append(Choice("a dramatic sky, the rest untouched", (dramatic,)))
    return choices


def _other_backgrounds(step: Step) -> list[Choice]:
    plain = {name: {"color": COLOURS[name], "colour_name": name} for name in ("white", "grey", "black")}
    fills = [Choice(f"plain {name}", (replace(step, action="fill", parameters=plain[name]),)) for name in plain]
    return [*fills, Choice("the same, softly out of focus", (replace(step, action="blur", parameters={}),))]


def _dramas(step: Step, entities: Sequence[EntityData]) -> list[Choice]:
    ids = tuple(entity.entity_id for entity in entities)
    sky = tuple(entity.entity_id for entity in entities if entity.label == "sky")
    mood = {"mood": step.parameters.get("mood", "dramatic")}
    whole = Step("dramatic", ids, step.strength, "whole", mood)
    choices = [
        Choice("the whole picture: deeper light and stronger structure", (whole,)),
        Choice(
            "the whole picture in dramatic black and white",
            (Step("black_and_white", ids, 1.0, "whole"), Step("clarity", ids, step.strength, "whole")),
        ),
    ]
    if sky:
        choices.insert(
            0, Choice("the sky, the rest untouched", (Step("dramatic_sky", sky, step.strength, "entities", mood),))
        )
        return choices
    return [*choices, *_places(Reading(step, 0.0), entities)[:-1]][:_MOST_CHOICES]


def _candidates(weak: Reading, entities: Sequence[EntityData]) -> list[Choice]:
    """Each of several equals, and all of them. A person's face goes with the person."""
    step = weak.step
    asked = [entity for entity in entities if entity.entity_id in step.targets]
    leading = [entity for entity in asked if entity.label != "face"] or asked
    choices = []
    for entity in leading[: _MOST_CHOICES - 1]:
        own = aim_of(f"the {entity.entity_id}", entities).ids or (entity.entity_id,)
        aimed = replace(step, targets=own, scope="entities")
        choices.append(Choice(phrase_of(entity, entities), (aimed,)))
    if len(leading) > 1:
        choices.append(Choice("both of them" if len(leading) == 2 else "all of them", (step,)))
    return choices


def _places(weak: Reading, entities: Sequence[EntityData]) -> list[Choice]:
    """The action on each likely part of this photo, likeliest first, and on the whole picture."""
    ids = tuple(entity.entity_id for entity in entities)
    step = weak.step
    choices = []
    if step.scope == "background":
        subject = [entity for entity in entities if entity.entity_id not in step.targets]
        names = " and ".join(phrase_of(entity, entities) for entity in subject[:3])
        if subject:
            choices.append(Choice(f"everything but {names}", (step,)))
        for entity in _likely(weak, entities):
            if [entity] != subject:
                rest = tuple(name for name in ids if name != entity.entity_id)
                aimed = replace(step, targets=rest)
                choices.append(Choice(f"everything but {phrase_of(entity, entities)}", (aimed,)))
    else:
        together = [entity for entity in entities if entity.entity_id in step.targets]
        if not weak.unknown and step.scope == "entities" and 1 < len(together) < len(entities):
            choices.append(Choice(" and ".join(phrase_of(entity, entities) for entity in together[:3]), (step,)))
        for entity in _likely(weak, entities):
            aimed = replace(step, targets=(entity.entity_id,), scope="entities")
            action, parameters = settle(aimed.action, dict(aimed.parameters), aimed.targets, "entities", entities)
            choices.append(Choice(phrase_of(entity, entities), (replace(aimed, action=action, parameters=parameters),)))
    choices = choices[: _MOST_CHOICES - 1]
    whole = replace(
        step, targets=ids, scope="whole", action="dramatic" if step.action == "dramatic_sky" else step.action
    )
    if step.action != "remove" or len(choices) < 2:
        choices.append(Choice("the whole picture", (whole,)))
    return choices


def _likely(weak: Reading, entities: Sequence[EntityData]) -> list[EntityData]:
    """Entities in the order in which they may be meant: for a sky the upper ones, for a thing the middle ones."""
    up = weak.unknown in ("sky", "skies", "cloud", "clouds") or (weak.step.action == "dramatic" and not weak.unknown)

    def height(entity: EntityData) -> float:
        box = entity.bbox
        return 0.0 if box is None else box.y + box.height / 2

    asked = [entity for entity in entities if entity.entity_id in weak.step.targets]
    pool = asked if asked and not weak.unknown and weak.step.scope == "entities" else list(entities)
    if weak.step.action == "remove":
        # What people want to be rid of is small.
        return sorted(pool, key=lambda e: (e.label == "sky", e.area_percent or 0.0, e.entity_id))
    if up:
        return sorted(pool, key=lambda entity: (height(entity), entity.entity_id))
    if weak.colour:
        near = nearest(weak.colour, pool)
        near += [entity for entity in pool if entity not in near]
        return sorted(near, key=lambda entity: _rank(entity, entities, weak.unknown) >= 0)
    return sorted(
        pool,
        key=lambda entity: (_rank(entity, entities, weak.unknown), -(entity.area_percent or 0.0), entity.entity_id),
    )


def _rank(entity: EntityData, entities: Sequence[EntityData], word: str) -> int:
    """What somebody names without our knowing the word is likely the subject, else a region that has no name yet.

    What has a name is hardly meant by another one, and least of all the sky; but a shirt is somebody's.
    """
    owners = next((labels for things, labels in OWNERS.items() if word in things.split("|")), ())
    if entity.label in owners:
        # Wild flowers and hills may be what a region without a name shows.
        return -1 if owners[0] not in ("vegetation", "ground") else 1
    if "region" in entity.label.split():
        return 0 if is_inside(entity, entities) else 1
    return {"subject": 0, "sky": 3}.get(entity.label, 2)
