"""The arms that learning chooses among: the usual one is what was always done, the others can be told from it."""

from __future__ import annotations

import numpy as np
import pytest

from edi_storage.models import Operation
from flows.engines.arms import KINDS, USUAL, arm_of, has_open_strength, kind_of, with_arm
from flows.engines.base import EditOutcome, EditRequest, ValidationRequest
from flows.engines.editing import EmbeddedEditor, plan
from flows.engines.intent import understand
from flows.engines.parameters import checked
from flows.engines.refinement import refine
from flows.engines.scoring import count
from flows.engines.steps import Step, amount_of, steps_for, steps_of
from flows.engines.validation import EmbeddedValidator
from flows.engines.variations import look_alike
from tests.engines.conftest import Subject

#: A prompt for each kind.
PROMPTS = {
    "dramatic sky": "make the sky dramatic",
    "dramatic light": "make the whole picture dramatic",
    "brighten": "brighter",
    "darken": "darker",
    "more contrast": "more contrast",
    "vivid": "more vivid",
    "muted": "muted",
    "warmer": "warmer",
    "cooler": "cooler",
    "better": "improve the whole picture",
    "clearer": "more clarity",
    "blurred background": "blur the background",
    "black and white": "black and white",
    "sepia": "sepia",
}


def request(subject: Subject, prompt: str, arm: str = USUAL) -> EditRequest:
    intent = understand(prompt, subject.scene)
    if intent.needs_answer:
        intent = understand(prompt, subject.scene, 1)
    record = refine(prompt, subject.scene, intent, 3, choice=lambda step, labels: with_arm(step, arm))
    return EditRequest(subject.pixels, subject.masks, subject.scene, intent, record, 1)


def step_of(subject: Subject, prompt: str) -> Step:
    return steps_of(request(subject, prompt).intent)[0]


def test_every_kind_has_a_prompt_here_and_three_to_five_arms() -> None:
    assert PROMPTS.keys() == KINDS.keys()
    for arms in KINDS.values():
        assert next(iter(arms)) == USUAL
        assert 3 <= len(arms) <= 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_of_a_kind_leaves_it_open(palace: Subject, kind: str) -> None:
    step = step_of(palace, PROMPTS[kind])
    assert kind_of(step) == kind
    assert with_arm(step, USUAL) == step
    assert arm_of(step) == KINDS[kind][USUAL]


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_goes_by_the_prompt_pair_to_the_editor_and_can_be_seen(palace: Subject, kind: str) -> None:
    done: dict[str, EditOutcome] = {}
    for arm in KINDS[kind]:
        asked = request(palace, PROMPTS[kind], arm)
        told = steps_for(asked.intent, asked.prompt.positive_prompt)
        assert told == [with_arm(step, arm) for step in steps_of(asked.intent)]
        outcome = EmbeddedEditor().edit(asked)
        measured = EmbeddedValidator().validate(
            ValidationRequest(
                palace.pixels, outcome.pixels, palace.masks, palace.scene, asked.intent, outcome.operations
            )
        )
        assert count(measured).score >= 0.8, (arm, measured.summary)
        area = np.max([palace.masks[name] for name in asked.intent.target_entities], axis=0)
        assert not [name for name, other in done.items() if look_alike(other.pixels, outcome.pixels, area)], arm
        done[arm] = outcome


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.1, 0.9, 1.0])
def test_an_arm_fits_its_limits_at_any_strength(palace: Subject, kind: str, strength: float) -> None:
    asked = request(palace, PROMPTS[kind])
    for arm in KINDS[kind]:
        (step,) = steps_of(asked.intent)
        stronger = Step(step.action, step.targets, strength, step.scope, with_arm(step, arm).parameters)
        for operation in plan(asked, [stronger]):
            assert isinstance(operation, Operation)
            checked(operation)


@pytest.mark.parametrize(
    "prompt",
    ["make the sky stormy", "golden hour sky", "clear blue sky", "give it a vintage look", "make the car red", "noir"],
)
def test_what_a_person_names_is_not_open(palace: Subject, prompt: str) -> None:
    intent = understand(prompt.replace("the car", "the building"), palace.scene)
    assert kind_of(steps_of(intent)[0]) in ("", "black and white")  # "noir" is a word for black and white


@pytest.mark.parametrize(("prompt", "is_open"), [("brighter", True), ("a bit brighter", False), ("much darker", False)])
def test_a_strength_that_was_said_is_not_open(palace: Subject, prompt: str, is_open: bool) -> None:
    assert has_open_strength(step_of(palace, prompt)) == is_open


def test_the_usual_arm_writes_the_prompt_that_was_always_written(palace: Subject) -> None:
    step = step_of(palace, "warmer")
    assert amount_of(step) == "warmth at 60 %"
    assert amount_of(with_arm(step, "golden")) == "warmth (golden) at 60 %"
