"""The four prompt pairs and the score that compares them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edi_storage.errors import InputError
from edi_storage.models import PromptRecord
from flows.engines.intent import understand
from flows.engines.reasoning import EmbeddedReasoner
from flows.engines.refinement import quality_score, refine
from flows.engines.steps import Step, steps_for, steps_of
from tests.engines.test_intent import CLEAR, SCENE, STREET


def pairs(prompt: str, hints: list[str] | None = None) -> list[PromptRecord]:
    intent = understand(prompt, SCENE)
    records: list[PromptRecord] = []
    for iteration in range(4):
        previous = records[-1] if records else None
        records.append(refine(prompt, SCENE, intent, iteration, 1, previous, hints))
    return records


@pytest.mark.parametrize("prompt", [row[0] for row in CLEAR])
def test_every_iteration_scores_higher_than_the_one_before(prompt: str) -> None:
    scores = [record.quality_score or 0.0 for record in pairs(prompt)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 4
    assert 0.3 < scores[0] < 0.7
    assert scores[3] > 0.95


def test_iterations_add_what_they_are_meant_to() -> None:
    base, kept, technical, quality = pairs("make the sky dramatic")
    assert "dramatic sky" in base.positive_prompt
    assert "keep" not in base.positive_prompt
    assert "keep the building" in kept.positive_prompt
    assert "changes to the building" in kept.negative_prompt
    assert "60 %" in technical.positive_prompt
    assert "halos" in quality.negative_prompt
    assert "halos" not in technical.negative_prompt


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_an_iteration_written_anew_equals_one_continued(iteration: int) -> None:
    intent = understand("make the sky dramatic", SCENE)
    anew = refine("make the sky dramatic", SCENE, intent, iteration)
    continued = pairs("make the sky dramatic")[iteration]
    assert anew.positive_prompt == continued.positive_prompt
    assert anew.negative_prompt == continued.negative_prompt


def test_what_a_person_complains_of_is_not_what_is_asked_for() -> None:
    first = pairs("make the sky dramatic", ["wrong region", "too strong", "artifact"])[0]
    assert "wrong region" not in first.positive_prompt
    assert "too strong" not in first.positive_prompt
    assert "weaker than the attempt before" in first.positive_prompt
    assert "changes beside what is meant; visible traces of the edit" in first.negative_prompt


def test_hints_of_earlier_attempts_are_in_the_prompts() -> None:
    record = pairs("make the sky dramatic", ["stronger", "protect building_0"])[0]
    assert "stronger than the attempt before" in record.positive_prompt
    assert "spill onto the building" in record.negative_prompt


def test_a_contradiction_costs() -> None:
    intent = understand("make the sky dramatic", SCENE)
    record = pairs("make the sky dramatic")[3]
    good = quality_score(record.positive_prompt, record.negative_prompt, SCENE, intent)
    spoilt = quality_score(record.positive_prompt, "changes to the sky (top)", SCENE, intent)
    assert spoilt < good - 0.3


def test_naming_fewer_of_the_kept_things_costs() -> None:
    intent = understand("make the sky dramatic", SCENE)
    record = pairs("make the sky dramatic")[3]
    fewer = "; ".join(part for part in record.positive_prompt.split("; ") if "keep the building" not in part)
    assert quality_score(fewer, record.negative_prompt, SCENE, intent) < (record.quality_score or 0)


def test_an_empty_pair_is_worth_little() -> None:
    assert quality_score("", "", SCENE, understand("make the sky dramatic", SCENE)) == 0.0


def test_there_are_four_iterations_only() -> None:
    with pytest.raises(InputError, match="iteration 4"):
        refine("warmer", SCENE, understand("warmer", SCENE), 4)


def test_keeping_a_target_is_a_contradiction_too() -> None:
    intent = understand("make the sky dramatic", SCENE)
    record = pairs("make the sky dramatic")[3]
    spoilt = quality_score(f"{record.positive_prompt}; keep the sky as it is", record.negative_prompt, SCENE, intent)
    assert spoilt < (record.quality_score or 0) - 0.3


def test_of_twins_each_has_to_be_named() -> None:
    intent = understand("make the cars darker", STREET)
    record = refine("make the cars darker", STREET, intent, 3)
    assert "the car (bottom left)" in record.positive_prompt
    one = record.positive_prompt.replace("the car (bottom right)", "the car")
    assert quality_score(one, record.negative_prompt, STREET, intent) < (record.quality_score or 0)


def test_a_thing_that_only_stays_is_not_named_as_a_target() -> None:
    intent = understand("make the sky dramatic", SCENE)
    assert quality_score("keep the sky as it is", "", SCENE, intent) == 0.0


# --- The choice --------------------------------------------------------------------------------------


def stormier(step: Step, labels: tuple[str, ...]) -> Step:
    assert labels == ("sky",)
    return replace(step, strength=0.72, parameters={"mood": "stormy"})


def test_a_choice_of_preset_and_strength_is_in_the_prompt_and_an_editor_reads_it_there() -> None:
    prompt = "make the sky dramatic"
    intent = understand(prompt, SCENE)
    record = EmbeddedReasoner().refine(prompt, SCENE, intent, 3, choice=stormier)
    assert record.positive_prompt.startswith("stormy sky in the sky")
    assert "dramatic sky (stormy) at 72 %" in record.positive_prompt
    (step,) = steps_for(intent, record.positive_prompt)
    assert (step.strength, step.parameters, step.targets) == (0.72, {"mood": "stormy"}, ("sky_0",))
    assert (record.quality_score or 0) > 0.95


def test_a_strength_that_was_said_is_not_chosen_anew() -> None:
    prompt = "make the sky a bit more dramatic"
    intent = understand(prompt, SCENE)
    record = refine(prompt, SCENE, intent, 3, choice=stormier)
    assert "dramatic sky (stormy) at 35 %" in record.positive_prompt


@pytest.mark.parametrize(
    "prompt", ["make the sky darker and the house brighter and much warmer", "cinematic", "sunset"]
)
def test_without_a_choice_the_prompt_says_what_the_intent_does(prompt: str) -> None:
    intent = understand(prompt, SCENE)
    record = EmbeddedReasoner().refine(prompt, SCENE, intent, 3)
    assert steps_for(intent, record.positive_prompt) == steps_of(intent)
    assert steps_for(intent, "words of somebody else, at 100 km") == steps_of(intent)
