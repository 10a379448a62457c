"""From a naive prompt and a described photo to an intent, with one question where the words leave it open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edi_storage.errors import InputError
from edi_storage.models import Intent, Question, SceneAnalysis
from edi_storage.record import check_text
from flows.engines.lexicon import normalise
from flows.engines.looks import EDIT_TYPES
from flows.engines.questions import EXAMPLES, Choice, ask, ask_what_to_keep, together
from flows.engines.reading import read
from flows.engines.refusals import refuse
from flows.engines.sparing import spared
from flows.engines.steps import Scope, Step, parameters_of
from flows.engines.targets import phrase_of

#: Below this the person is asked.
SURE: Final = 0.7
#: The confidence of a choice the person made.
_CHOSEN: Final = 0.95
_LONGEST: Final = 2000


def understand(prompt: str, scene: SceneAnalysis, *answer: int) -> Intent:
    """The intent of a prompt; see `Reasoner.understand`. Without an answer, choice 1 is what it would do.

    An answer may be several choices: all of them are done.
    """
    text = _checked(prompt)
    refuse(text)
    sparing = spared(text, scene.entities)
    kept = sparing.ids
    readings = read(sparing.text, scene.entities, kept)
    confidence = min((reading.certainty for reading in readings), default=0.0)
    if readings and confidence >= SURE and not sparing.missing:
        return _intent([reading.step for reading in readings], kept, scene, confidence)
    # What is to change is asked for before what is to stay: the rest stays anyway.
    if readings and sparing.missing and not any(reading.unknown for reading in readings):
        confidence = min(confidence, 0.4)
        question, choices = ask_what_to_keep(sparing.missing, kept, readings, scene.entities)
    else:
        question, choices = ask(prompt, sparing.text, readings, scene.entities)
    question, choices = _open(question, choices, kept)
    for number in answer:
        if not 1 <= number <= len(choices):
            raise InputError(f"The answer {number} is none of the choices: give a number from 1 to {len(choices)}.")
    certainty = _CHOSEN if answer else min(confidence, 0.65)
    steps, spared_too = together([choices[number - 1] for number in answer or (1,)])
    intent = _intent(steps, kept | spared_too, scene, certainty)
    asked, taken = question.taking(answer) if answer else (question, None)
    return intent.model_copy(update={"question": asked, "answer": taken})


def _open(question: Question, choices: list[Choice], kept: frozenset[str]) -> tuple[Question, list[Choice]]:
    """Without choices that are only about what must stay, as long as there is a choice."""
    left = [one for one in choices if any({*step.targets} - kept - one.kept for step in one.steps)]
    if len(left) < 2:
        return question, choices
    return question.model_copy(update={"choices": [choice.text for choice in left]}), left


def _checked(prompt: str) -> str:
    try:
        check_text(prompt)
    except ValueError as error:
        raise InputError(f"The prompt {error}.") from None
    if len(prompt) > _LONGEST:
        raise InputError(f"The prompt has {len(prompt)} characters; say it in at most {_LONGEST}.")
    text = normalise(prompt)
    if not text:
        raise InputError(f"The prompt says nothing; say what to change, {EXAMPLES}.")
    return text


def _intent(steps: Sequence[Step], kept: frozenset[str], scene: SceneAnalysis, confidence: float) -> Intent:
    """Steps as an intent: what is not a target is to be preserved, and what is kept is never a target."""
    ids = [entity.entity_id for entity in scene.entities]
    narrowed = []
    for step in steps:
        targets = tuple(target for target in step.targets if target not in kept)
        scope: Scope = "background" if step.scope == "whole" and kept else step.scope
        narrowed.append(replace(step, targets=targets, scope=scope))
    narrowed = [step for step in narrowed if step.targets or not ids]
    if not narrowed:
        asked = {target for step in steps for target in step.targets}
        same = " and ".join(phrase_of(entity, scene.entities) for entity in scene.entities if entity.entity_id in asked)
        raise InputError(
            f"What should change and what should stay is one and the same to EDI, which does not tell parts of {same} "
            "apart. Say only what should change, or give a region or a mask that holds it."
        )
    touched = {target for step in narrowed for target in step.targets}
    first = narrowed[0]
    return Intent(
        edit_type=EDIT_TYPES[first.action],
        target_entities=[entity for entity in ids if entity in touched],
        preserve_entities=[entity for entity in ids if entity not in touched],
        confidence=round(confidence, 3),
        action=first.action,
        strength=first.strength,
        parameters=parameters_of(narrowed),
    )
