"""What is asked about a thing that is not found, what answers it, and what is named as it is shown."""

from __future__ import annotations

import pytest

from edi_storage.models import Question, SceneAnalysis
from flows.engines.intent import understand
from flows.engines.reasoning import EmbeddedReasoner
from flows.engines.steps import steps_of
from flows.engines.targets import phrase_of
from tests.engines.test_intent import SCENE, thing

BOWL = SceneAnalysis(
    entities=[
        thing("light_grey_region_0", (0, 0, 640, 427), 40, colour="#a29f9d"),
        thing("red_region_0", (200, 150, 240, 160), 18, colour="#ae1303"),
        thing("red_region_1", (200, 10, 240, 90), 12, colour="#d82c05"),
        thing("dark_grey_region_0", (420, 20, 200, 160), 11, colour="#34302f"),
        thing("subject_0", (300, 200, 60, 60), 4, colour="#d6b891"),
    ],
    spatial_layout="A bowl on stone.",
)


@pytest.mark.parametrize(
    ("prompt", "targets"),
    [
        ("make the dark grey region lighter", ["dark_grey_region_0"]),
        ("brighten the light grey region", ["light_grey_region_0"]),
        ("make red region 2 darker", ["red_region_1"]),
        ("darken the red region at the top", ["red_region_1"]),
        ("make the grey parts darker", ["light_grey_region_0", "dark_grey_region_0"]),
    ],
)
def test_what_is_called_as_it_is_shown_is_meant_and_nothing_else(prompt: str, targets: list[str]) -> None:
    intent = understand(prompt, BOWL)
    assert intent.target_entities == targets
    assert not intent.needs_answer


@pytest.mark.parametrize(
    ("prompt", "asked", "first"),
    [
        ("make the dark shadow behind the bowl lighter", "'shadow'", "the dark grey region at the top right (11 %)"),
        ("darken the wallpaper behind the bowl", "'wallpaper'", "the red region in the middle (18 %)"),
        ("make the grey stone ground warmer", "'ground'", "the light grey region (40 %)"),
        ("make the beige bowl blue", "'bowl'", "the subject in the middle (4 %)"),
        ("remove the hooks on the left", "'hooks'", "the subject in the middle (4 %)"),
        ("turn the beige brush purple", "'brush'", "the subject in the middle (4 %)"),
        ("blur everything behind the bowl", "'bowl'", "everything but the subject in the middle (4 %)"),
    ],
)
def test_a_thing_that_is_not_found_is_asked_for_by_its_name_and_likeliest_first_by_its_colour(
    prompt: str, asked: str, first: str
) -> None:
    question = understand(prompt, BOWL).question
    assert question is not None
    assert asked in question.text
    assert question.choices[0] == first


def test_an_answer_counts_for_all_that_is_said_of_the_thing() -> None:
    asked = understand("make the water more blue and brighter", BOWL)
    assert asked.question is not None
    answer = asked.question.choices.index("the light grey region (40 %)") + 1
    steps = steps_of(understand("make the water more blue and brighter", BOWL, answer))
    assert [(step.action, step.targets) for step in steps] == [
        ("tint", ("light_grey_region_0",)),
        ("exposure", ("light_grey_region_0",)),
    ]


@pytest.mark.parametrize(
    ("prompt", "chosen", "targets"),
    [
        ("make the bowl blue", ["red_region_0", "red_region_1"], [("red_region_0", "red_region_1")]),
        (
            "black and white except the bowl",
            ["red_region_0", "subject_0"],
            [("light_grey_region_0", "red_region_1", "dark_grey_region_0")],
        ),
        ("make the water more blue and brighter", ["red_region_0", "subject_0"], [("red_region_0", "subject_0")] * 2),
    ],
)
def test_an_answer_may_be_several_choices(prompt: str, chosen: list[str], targets: list[tuple[str, ...]]) -> None:
    asked = understand(prompt, BOWL).question
    assert asked is not None
    named = {entity.entity_id: phrase_of(entity, BOWL.entities) for entity in BOWL.entities}
    numbers = [asked.choices.index(named[name]) + 1 for name in chosen]
    intent = understand(prompt, BOWL, *numbers)
    assert sorted(map(sorted, (step.targets for step in steps_of(intent)))) == sorted(map(sorted, targets))
    assert intent.question is not None
    assert intent.answer == len(asked.choices) + 1
    assert intent.question.choices[intent.answer - 1] == "; ".join(named[name] for name in chosen)
    again = EmbeddedReasoner().understand(prompt, BOWL, intent.answer, intent.question)
    assert steps_of(again) == steps_of(intent), "by its words, whoever asked"


def test_with_the_whole_picture_no_part_of_it_is_changed_twice() -> None:
    asked = understand("make the bowl blue", BOWL).question
    assert asked is not None
    (step,) = steps_of(understand("make the bowl blue", BOWL, 1, len(asked.choices)))
    assert step.scope == "whole"


def test_all_but_several_things_spares_each_of_them() -> None:
    intent = understand("blur everything behind the bowl", BOWL, 1, 2)
    asked = understand("blur everything behind the bowl", BOWL).question
    assert asked is not None
    spared = {phrase_of(e, BOWL.entities) for e in BOWL.entities if e.entity_id in intent.preserve_entities}
    assert spared == {choice.removeprefix("everything but ") for choice in asked.choices[:2]}


def test_of_two_things_that_are_not_found_one_is_asked_for_and_nothing_is_done_to_the_other() -> None:
    prompt = "get rid of the river and make the cable red"
    asked = understand(prompt, BOWL)
    assert asked.question is not None
    told = "I do not see 'river' for certain in this photo. Nor do I see 'cable': nothing will be made red."
    assert asked.question.text == f"{told} What should be removed?"
    for number in range(1, len(asked.question.choices) + 1):
        assert [step.action for step in steps_of(understand(prompt, BOWL, number))] == ["remove"]
    backdrop = understand("remove the background and make the cable red", BOWL).question
    assert backdrop is not None
    assert "see 'cable'" in backdrop.text, "whatever is asked"
    both = understand("get rid of the river and make the red region 2 brighter", BOWL, 1)
    assert [step.action for step in steps_of(both)] == ["remove", "exposure"], "what is found is done"


def test_a_thing_of_quite_another_colour_is_not_the_one_that_is_meant() -> None:
    scene = SceneAnalysis(
        entities=[
            thing("vegetation_0", (0, 300, 300, 127), 20, 0.8, colour="#6a8a2a"),
            thing("red_region_0", (400, 100, 90, 200), 10, colour="#d8275e"),
        ],
        spatial_layout="A painting.",
    )
    question = understand("turn the pink plant purple", scene).question
    assert question is not None
    assert "'plant'" in question.text
    assert question.choices[0].startswith("the red region")
    for same in ("make the green plant darker", "make the yellow plant darker", "make the plant purple"):
        assert understand(same, scene).target_entities == ["vegetation_0"], same


def test_what_must_stay_is_no_answer() -> None:
    question = understand("make the water brighter, keep the subject as it is", BOWL).question
    assert question is not None
    assert not any("subject" in choice for choice in question.choices)


def test_a_question_of_another_version_is_answered_by_what_was_chosen_not_by_its_number() -> None:
    engine, prompt = EmbeddedReasoner(), "make the grey stone ground warmer"
    own = engine.understand(prompt, BOWL).question
    assert own is not None
    before = Question(text=own.text, choices=own.choices[::-1])
    for number, choice in enumerate(before.choices, 1):
        answered = engine.understand(prompt, BOWL, number, before)
        assert (
            answered.target_entities
            == engine.understand(prompt, BOWL, own.choices.index(choice) + 1, own).target_entities
        )


def test_the_lower_part_is_a_place_and_to_lower_is_a_wish() -> None:
    darker = understand("make the lower part darker", SCENE)
    brighter = understand("lower the darkness", SCENE)
    assert [steps_of(intent)[0].parameters["direction"] for intent in (darker, brighter)] == [-1, 1]
