"""What prompts mean for a given photo. Each row of the tables is one sentence a person might type."""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from edi_storage.errors import EdiError, InputError, UnsupportedEditError
from edi_storage.models import BoundingBox, EntityData, Intent, SceneAnalysis
from flows.engines.intent import SURE, understand
from flows.engines.steps import steps_of
from tests.quality import intent as prompts


def thing(
    name: str, box: tuple[int, int, int, int], area: float, confidence: float = 0.9, colour: str | None = None
) -> EntityData:
    x, y, width, height = box
    return EntityData(
        entity_id=name,
        label=name.rsplit("_", 1)[0].replace("_", " "),
        confidence=confidence,
        bbox_json=BoundingBox(x=x, y=y, width=width, height=height).model_dump_json(),
        area_percent=area,
        color_hex=colour,
    )


SCENE = SceneAnalysis(
    entities=[
        thing("sky_0", (0, 0, 640, 200), 37, 0.98),
        thing("grey_region_0", (300, 190, 340, 230), 25),
        thing("building_0", (60, 30, 300, 380), 24, 0.65),
        thing("vegetation_0", (0, 300, 300, 127), 8, 0.81),
        thing("red_region_0", (500, 350, 60, 60), 6),
    ],
    spatial_layout="Sky at the top.",
)
ALL = [entity.entity_id for entity in SCENE.entities]

STREET = SceneAnalysis(
    entities=[
        thing("building_0", (0, 0, 640, 300), 50),
        thing("ground_0", (0, 300, 640, 127), 28),
        thing("car_0", (40, 260, 160, 90), 10, colour="#a32420"),
        thing("car_1", (440, 270, 150, 80), 7, colour="#2a4a90"),
        thing("person_0", (300, 200, 50, 150), 4),
        thing("face_0", (315, 205, 20, 24), 0.4),
        thing("dog_0", (360, 310, 40, 40), 1),
    ],
    spatial_layout="A street.",
)

#: prompt, action, edit type, targets (None: everything)
CLEAR: list[tuple[str, str, str, list[str] | None]] = [
    ("make the sky dramatic", "dramatic_sky", "style", ["sky_0"]),
    ("make sky dramatic", "dramatic_sky", "style", ["sky_0"]),
    ("Dramatic clouds please!", "dramatic_sky", "style", ["sky_0"]),
    ("I want the sky to look moody", "dramatic_sky", "style", ["sky_0"]),
    ("dramtic sky", "dramatic_sky", "style", ["sky_0"]),
    ("make the clouds stormy", "dramatic_sky", "style", ["sky_0"]),
    ("black and white", "black_and_white", "style", None),
    ("turn it into black & white", "black_and_white", "style", None),
    ("make it b&w", "black_and_white", "style", None),
    ("sepia", "sepia", "style", None),
    ("give it a vintage look", "preset", "style", None),
    ("cinematic", "preset", "style", None),
    ("lift the shadows", "tones", "color", None),
    ("replace the grey sky with a stormy one", "dramatic_sky", "style", ["sky_0"]),
    ("make the sky blue and clear", "dramatic_sky", "style", ["sky_0"]),
    ("add clouds to the sky", "dramatic_sky", "style", ["sky_0"]),
    ("the house is way too yellow", "saturation", "color", ["building_0"]),
    ("get the red thing out of the picture", "remove", "remove", ["red_region_0"]),
    ("warmer", "warmth", "color", None),
    ("make the photo cooler", "warmth", "color", None),
    ("brighten the building", "exposure", "color", ["building_0"]),
    ("the trees are too dark", "exposure", "color", ["vegetation_0"]),
    ("more contrast", "contrast", "color", None),
    ("make the colors more vivid", "saturation", "color", None),
    ("make the red part blue", "recolour", "color", ["red_region_0"]),
    ("change the color of the building to green", "recolour", "color", ["building_0"]),
    ("make the grass greener", "tint", "color", ["vegetation_0"]),
    ("sky and trees darker", "exposure", "color", ["sky_0", "vegetation_0"]),
    ("blur the background", "blur", "transform", ["sky_0", "grey_region_0", "vegetation_0", "red_region_0"]),
    ("make the background white", "fill", "transform", ["sky_0", "grey_region_0", "vegetation_0", "red_region_0"]),
    ("remove the red thing", "remove", "remove", ["red_region_0"]),
    ("sharpen the house", "sharpen", "style", ["building_0"]),
    ("add a vignette", "vignette", "style", None),
    ("add some warmth", "warmth", "color", None),
    ("darken the top", "exposure", "color", ["sky_0"]),
]


@pytest.mark.parametrize(("prompt", "action", "edit_type", "targets"), CLEAR, ids=[row[0] for row in CLEAR])
def test_clear_prompts_are_understood_without_a_question(
    prompt: str, action: str, edit_type: str, targets: list[str] | None
) -> None:
    intent = understand(prompt, SCENE)
    assert intent.action == action
    assert intent.edit_type == edit_type
    assert intent.target_entities == (ALL if targets is None else targets)
    assert intent.preserve_entities == [name for name in ALL if name not in intent.target_entities]
    assert intent.confidence >= SURE
    assert intent.question is None


@pytest.mark.parametrize(
    ("prompt", "direction"),
    [
        ("brighter", 1),
        ("darker", -1),
        ("less bright", -1),
        ("the photo is too dark", 1),
        ("it is too bright", -1),
        ("not bright enough", 1),
        ("more saturation", 1),
        ("reduce the saturation", -1),
        ("its a little dull", 1),
        ("less contrast", -1),
        ("make it cooler", -1),
    ],
)
def test_less_and_too_turn_the_direction_round(prompt: str, direction: int) -> None:
    assert understand(prompt, SCENE).parameters["direction"] == direction


def test_words_of_degree_set_the_strength() -> None:
    words = ["a hint of warmth", "a bit warmer", "warmer", "much warmer", "extremely warm"]
    strengths = [understand(word, SCENE).strength for word in words]
    assert strengths == sorted(strengths)
    assert len(set(strengths)) == 5
    assert understand("30% brighter", SCENE).strength == 0.3


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("black and white except the building", ["building_0"]),
        ("make everything brighter but don't touch the sky", ["sky_0"]),
        ("warmer, keep the trees as they are", ["vegetation_0"]),
        ("darken everything but the building", ["building_0"]),
        ("black and white without changing the sky and the trees", ["sky_0", "vegetation_0"]),
        ("keep only the building in color", ["building_0"]),
    ],
)
def test_what_is_excepted_is_preserved(prompt: str, kept: list[str]) -> None:
    intent = understand(prompt, SCENE)
    assert intent.preserve_entities == kept
    assert intent.target_entities == [name for name in ALL if name not in kept]


def test_two_wishes_become_two_steps() -> None:
    intent = understand("make the sky darker and the grass greener", SCENE)
    first, second = steps_of(intent)
    assert (first.action, first.targets) == ("exposure", ("sky_0",))
    assert (second.action, second.targets) == ("tint", ("vegetation_0",))
    assert intent.target_entities == ["sky_0", "vegetation_0"]


def test_a_second_look_without_a_target_is_for_the_same_thing() -> None:
    steps = steps_of(understand("make the building brighter and warmer", SCENE))
    assert [step.action for step in steps] == ["exposure", "warmth"]
    assert [step.targets for step in steps] == [("building_0",)] * 2


@pytest.mark.parametrize(
    "prompt", ["make it better", "more", "nicer please", "make it dramatic", "make it pop", "the sky"]
)
def test_ambiguous_words_ask_one_question(prompt: str) -> None:
    intent = understand(prompt, SCENE)
    assert intent.confidence < SURE
    assert intent.needs_answer
    assert intent.question is not None
    assert 2 <= len(intent.question.choices) <= 8
    assert len(set(intent.question.choices)) == len(intent.question.choices)


@pytest.mark.parametrize("prompt", ["make the door red", "blur the water", "make the car darker", "remove the people"])
def test_what_is_not_in_the_photo_is_asked_for_with_what_is(prompt: str) -> None:
    intent = understand(prompt, SCENE)
    assert intent.question is not None
    assert prompt.split()[2] in intent.question.text
    assert any("building" in choice for choice in intent.question.choices)


@pytest.mark.parametrize("prompt", ["make it better", "make it dramatic", "make the door red", "the sky"])
def test_each_answer_settles_the_question_in_its_own_way(prompt: str) -> None:
    asked = understand(prompt, SCENE)
    assert asked.question is not None
    seen: list[Intent] = []
    for number in range(1, len(asked.question.choices) + 1):
        intent = understand(prompt, SCENE, number)
        assert intent.confidence >= SURE
        assert not intent.needs_answer
        assert intent.question == asked.question
        assert intent.answer == number
        seen.append(intent.model_copy(update={"answer": None}))
    assert all(one != other for index, one in enumerate(seen) for other in seen[:index])


def test_without_an_answer_the_first_choice_would_be_done() -> None:
    best, first = understand("make it dramatic", SCENE), understand("make it dramatic", SCENE, 1)
    assert (best.action, best.target_entities) == (first.action, first.target_entities) == ("dramatic_sky", ["sky_0"])


@pytest.mark.parametrize("number", [0, 9, -1])
def test_an_answer_outside_the_choices_is_refused(number: int) -> None:
    with pytest.raises(InputError, match="1 to"):
        understand("make it better", SCENE, number)


@pytest.mark.parametrize("prompt", ["asdf qwer", "", "   ", "???", "\u202e", "12345"])
def test_nonsense_is_refused_with_examples(prompt: str) -> None:
    with pytest.raises(InputError, match="for example"):
        understand(prompt, SCENE)


def test_a_prompt_with_a_nul_or_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="NUL"):
        understand("make the sky\0 dramatic", SCENE)
    with pytest.raises(InputError, match="characters"):
        understand("very " * 1000, SCENE)


@pytest.mark.parametrize(
    "prompt",
    [
        "add a dog",
        "put a hat on the man",
        "replace the sky with mars",
        "turn the building into a castle",
        "turn it into a painting in the style of Van Gogh",
        "make it look like winter",
        "make it an anime",
    ],
)
def test_what_needs_a_generative_backend_says_which(prompt: str) -> None:
    with pytest.raises(UnsupportedEditError, match="ComfyUI"):
        understand(prompt, SCENE)


def test_a_photo_without_sky_asks_where_the_sky_is() -> None:
    scene = SceneAnalysis(
        entities=[thing("blue_region_0", (0, 0, 640, 150), 35), thing("brown_region_0", (0, 150, 640, 280), 65)],
        spatial_layout="Blue region at the top.",
    )
    intent = understand("make the sky dramatic", scene)
    assert intent.question is not None
    assert intent.question.choices[0].startswith("the blue region at the top")
    assert understand("make the sky dramatic", scene, 1).target_entities == ["blue_region_0"]


def test_a_prompt_that_changes_and_keeps_the_same_is_refused() -> None:
    with pytest.raises(InputError, match="does not tell parts of the sky at the top"):
        understand("make the sky darker but keep the sky", SCENE)


def test_what_a_person_points_out_is_no_background() -> None:
    asked = "blur the background behind the drum and make the drum brighter"
    for number, pointed_out in enumerate(("building_0", "ground_0"), 1):
        brighter, blurred = steps_of(understand(asked, STREET, number))
        assert brighter.targets == (pointed_out,)
        assert (blurred.action, blurred.scope) == ("blur", "background")
        assert pointed_out not in blurred.targets


def test_a_question_about_a_colour_names_it() -> None:
    question = understand("make the drum greener", STREET).question
    assert question is not None
    assert question.text.endswith("What should be given a touch of green?")


def test_an_exception_that_is_not_in_the_photo_is_asked_about() -> None:
    intent = understand("black and white except the flower", SCENE)
    assert intent.question is not None
    assert "flower" in intent.question.text
    assert intent.question.choices[-1] == "nothing: all of it may change"
    number = next(k for k, choice in enumerate(intent.question.choices, 1) if "red region" in choice)
    assert understand("black and white except the flower", SCENE, number).preserve_entities == ["red_region_0"]


def test_what_is_in_focus_is_the_subject_of_words_nobody_taught_us() -> None:
    scene = SceneAnalysis(
        entities=[thing("green_region_0", (0, 0, 640, 427), 70), thing("subject_0", (200, 100, 200, 200), 30, 0.85)],
        spatial_layout="Green region all over.",
    )
    assert understand("blur the background", scene).target_entities == ["green_region_0"]
    assert understand("blur the background", scene).question is None
    asked = understand("make the axolotl red", scene)
    assert asked.question is not None
    assert asked.question.choices[0].startswith("the subject")


@pytest.mark.parametrize(
    ("prompt", "action", "direction"),
    [
        ("darken the bright sky", "exposure", -1),
        ("make the bright sky darker", "exposure", -1),
        ("brighten the dark building", "exposure", 1),
        ("the sky is too bright, darken it", "exposure", -1),
        ("fix the dark building", "exposure", 1),
        ("desaturate the vivid vegetation", "saturation", -1),
        ("blur the sharp building", "blur", 1),
    ],
)
def test_a_word_that_says_how_a_thing_is_does_not_say_how_it_is_to_be(prompt: str, action: str, direction: int) -> None:
    (step,) = steps_of(understand(prompt, SCENE))
    assert (step.action, step.parameters.get("direction", 1)) == (action, direction)


def test_of_two_things_that_are_not_seen_the_one_to_change_is_asked_for() -> None:
    asked = "make the bird more colourful and darken the background, but keep the fence as it is"
    intent = understand(asked, SCENE)
    assert intent.question is not None
    assert intent.question.text == "I do not see 'bird' for certain in this photo. What should be made livelier?"
    building = next(number for number, words in enumerate(intent.question.choices, 1) if "building" in words)
    lively, darker = steps_of(understand(asked, SCENE, building))
    assert (lively.action, lively.targets) == ("saturation", ("building_0",))
    assert (darker.action, darker.scope, "building_0" in darker.targets) == ("exposure", "background", False)


def test_any_words_on_any_photo_end_in_an_intent_or_one_sentence() -> None:
    words = [
        *("make", "the", "sky", "trees", "building", "background", "door", "it", "everything", "photo", "red", "blue"),
        *("darker", "brighter", "dramatic", "blur", "remove", "keep", "except", "but", "don't", "touch", "and", ","),
        *(
            "more",
            "less",
            "very",
            "bit",
            "better",
            "black",
            "white",
            "warm",
            "not",
            "too",
            "sharpen",
            "subject",
            "left",
        ),
        *("vintage", "clear", "sunset", "him", "the rest", "one", "biggest", "everyone's", "faces", "can't", "without"),
        *("top", "region", "part", "in", "color", "vignette", "add", "with", "behind", "only", "50%", "cloud"),
    ]
    whole = thing("black_region_0", (0, 0, 64, 64), 100)
    twins = [thing(f"brown_region_{n}", (n * 10, 0, 10, 100), 12.5) for n in range(8)]
    scenes = [SCENE, STREET, *(SceneAnalysis(entities=some, spatial_layout="-") for some in ([], [whole], twins))]
    random = Random(7)
    for _ in range(100):
        prompt = " ".join(random.choice(words) for _ in range(random.randint(1, 8)))
        for scene in scenes:
            with contextlib.suppress(EdiError):
                question = understand(prompt, scene).question
                choices = [] if question is None else question.choices
                assert len(set(choices)) == len(choices)
                for number in range(1, len(choices) + 1):
                    assert understand(prompt, scene, number).confidence >= SURE


@pytest.mark.parametrize(
    "prompt", ["make the dog a bit brighter", "make the dog much warmer", "make my dog slightly darker"]
)
def test_a_thing_that_is_not_seen_is_asked_about_whatever_the_amount(prompt: str) -> None:
    intent = understand(prompt, SCENE)
    assert intent.needs_answer
    assert "'dog'" in (intent.question.text if intent.question else "")


# --- Several of a kind -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "targets"),
    [
        ("make the red car darker", ["car_0"]),
        ("make the car on the right darker", ["car_1"]),
        ("darken the left car", ["car_0"]),
        ("make the biggest car darker", ["car_0"]),
        ("make the cars darker", ["car_0", "car_1"]),
        ("darker vehicles", ["car_0", "car_1"]),
        ("brighten the man", ["person_0", "face_0"]),
        ("brighten her face", ["face_0"]),
        ("the puppy is too dark", ["dog_0"]),
        ("brighten the animal", ["dog_0"]),
        ("darken the dog on the pavement", ["dog_0"]),
        ("brighten the dog's fur", ["dog_0"]),
        ("darken everything behind the man", ["building_0", "ground_0", "car_0", "car_1", "dog_0"]),
        ("blur the house and sharpen the rest", [entity.entity_id for entity in STREET.entities]),
    ],
)
def test_a_thing_is_found_by_its_kind_colour_place_and_size(prompt: str, targets: list[str]) -> None:
    intent = understand(prompt, STREET)
    assert intent.target_entities == targets
    assert intent.question is None


def test_one_of_two_is_asked_for_with_colour_and_place() -> None:
    intent = understand("make the car darker", STREET)
    assert intent.question is not None
    first, second, both = intent.question.choices
    assert first.startswith("the red car at the bottom left")
    assert second.startswith("the blue car at the bottom right")
    assert both == "both of them"
    assert understand("make the car darker", STREET, 2).target_entities == ["car_1"]
    assert understand("make the car darker", STREET, 3).target_entities == ["car_0", "car_1"]


@pytest.mark.parametrize("prompt", ["remove the dog's collar", "make her dress red", "make the man's hat blue"])
def test_what_belongs_to_a_thing_is_not_taken_for_the_thing(prompt: str) -> None:
    assert understand(prompt, STREET).needs_answer


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("make the person brighter, not the car on the left", ["car_0"]),
        ("desaturate everything but the red car", ["car_0"]),
        ("everything but the dog black and white", ["dog_0"]),
        ("warmer, the dog untouched", ["dog_0"]),
        ("only the dog in colour", ["dog_0"]),
        ("black and white but keep the man in colour", ["person_0", "face_0"]),
        ("I want the car on the left in black and white and the dog in colour", ["dog_0"]),
        ("leave the man alone and make the cars brighter", ["person_0", "face_0"]),
        ("don't touch the dog or the cars, darken the building", ["dog_0", "car_0", "car_1"]),
    ],
)
def test_what_is_spared_is_never_a_target(prompt: str, kept: list[str]) -> None:
    intent = understand(prompt, STREET)
    assert set(kept) <= set(intent.preserve_entities)
    assert intent.question is None


def test_a_thing_to_leave_alone_that_is_not_seen_is_asked_for_by_its_name() -> None:
    question = understand("make the sky dramatic but leave the mountain alone", SCENE).question
    assert question is not None
    assert "'mountain'" in question.text


# --- Degree, aside, and what cannot be done ----------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["brighter but not too much", "brighter, don't overdo it", "brighter without making it too bright"]
)
def test_a_limit_is_a_matter_of_strength(prompt: str) -> None:
    intent = understand(prompt, SCENE)
    assert (intent.action, intent.parameters["direction"]) == ("exposure", 1)
    assert intent.strength < 0.5


def test_not_too_bright_alone_is_a_wish() -> None:
    assert understand("not too bright please", SCENE).parameters["direction"] == -1


def test_golden_light_is_a_sky_and_what_it_shines_on() -> None:
    steps = steps_of(understand("make it look like evening", SCENE))
    assert [(step.action, step.scope) for step in steps] == [("dramatic_sky", "entities"), ("warmth", "background")]
    assert steps[0].parameters == {"mood": "golden"}


def test_bokeh_grows_with_the_distance() -> None:
    assert understand("portrait mode", STREET).parameters["falloff"] == "depth"
    assert "falloff" not in understand("blur the background", STREET).parameters


@pytest.mark.parametrize(
    "prompt",
    ["crop it", "get rid of the noise", "make her smile", "give him a hat", "move the car to the left", "write hello"],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(prompt: str) -> None:
    with pytest.raises(UnsupportedEditError) as refused:
        understand(prompt, STREET)
    assert str(refused.value).count(". ") == 0


def test_the_prompts_of_the_quality_report_reach_their_bars() -> None:
    figures = prompts.measure()
    assert len(prompts.cases()) > 400
    assert sum(figure.bar is not None for figure in figures) == 2
    assert [figure.name for figure in figures if not figure.holds] == []
