"""The four prompt pairs and the score that compares them."""

from __future__ import annotations

import pytest

from edi_storage.errors import InputError
from edi_storage.models import PromptRecord
from flows.engines.intent import understand
from flows.engines.refinement import quality_score, refine
from tests.engines.test_intent import CLEAR, SCENE


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
