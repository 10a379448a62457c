"""Variations of an edit: that a person can tell them apart, how one answers which it is to be, and blends of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from edi_storage.errors import InputError
from edi_storage.models import Operation
from flows.engines.backends import Backends
from flows.engines.base import EditRequest, Mask, Pixels, ValidationRequest, Variations
from flows.engines.blending import blend
from flows.engines.choices import Choice, Part, chosen_intent, chosen_operations, read_choice
from flows.engines.editing import EmbeddedEditor
from flows.engines.operations import apply
from flows.engines.reasoning import EmbeddedReasoner
from flows.engines.scoring import count
from flows.engines.validation import EmbeddedValidator
from flows.engines.variations import distances, look_alike
from tests.engines.conftest import Subject


def request(subject: Subject, prompt: str) -> EditRequest:
    """What the stages would ask of an editor, of a photo of half the size."""
    reasoner = EmbeddedReasoner(Backends())
    intent = reasoner.understand(prompt, subject.scene)
    assert not intent.needs_answer, prompt
    pair = reasoner.refine(prompt, subject.scene, intent, 2)
    masks = {name: np.ascontiguousarray(mask[::2, ::2]) for name, mask in subject.masks.items()}
    pixels = np.ascontiguousarray(subject.pixels[::2, ::2])
    return EditRequest(pixels, masks, subject.scene, intent, pair, attempt=1)


@pytest.fixture(scope="module")
def skies(palace: Subject) -> tuple[EditRequest, Variations]:
    asked = request(palace, "make the sky dramatic")
    return asked, EmbeddedEditor().vary(asked, 3)


def area(asked: EditRequest) -> Mask:
    masks = [asked.masks[name] for name in asked.intent.target_entities]
    return np.asarray(np.max(masks, axis=0), np.float32)


def test_three_dramatic_skies_differ_and_the_first_is_what_was_asked_for(
    skies: tuple[EditRequest, Variations],
) -> None:
    asked, variations = skies
    assert [one.words for one in variations.made] == ["dramatic, 60 %", "stormy, 60 %", "golden, 60 %"]
    assert variations.notes == []
    plain = EmbeddedEditor().edit(asked)
    assert variations.made[0].operations == plain.operations
    assert np.array_equal(variations.made[0].pixels, plain.pixels)
    assert variations.made[0].intent == asked.intent


def test_the_same_request_makes_the_same_variations(skies: tuple[EditRequest, Variations]) -> None:
    asked, variations = skies
    again = EmbeddedEditor().vary(asked, 3)
    assert [one.operations for one in again.made] == [one.operations for one in variations.made]
    assert all(np.array_equal(*(x.pixels for x in pair)) for pair in zip(again.made, variations.made, strict=True))


@pytest.mark.parametrize(
    ("prompt", "wanted", "made"),
    [
        ("make it warmer", 4, 4),
        ("make it cinematic", 4, 4),
        ("black and white", 3, 3),
        ("blur the trees", 3, 3),
        ("make the building blue", 3, 3),
        ("make the whole picture dramatic", 4, 4),
        ("make the sky clear", 3, 3),
    ],
)
def test_every_two_variations_can_be_told_apart_and_do_what_was_asked(
    palace: Subject, prompt: str, wanted: int, made: int
) -> None:
    asked = request(palace, prompt)
    variations = EmbeddedEditor().vary(asked, wanted)
    assert len(variations.made) == made, variations.notes
    for one, other in combinations(variations.made, 2):
        assert not look_alike(one.pixels, other.pixels, area(asked)), (one.words, other.words)
    for one in variations.made:
        assert np.array_equal(apply(asked.pixels, asked.masks, one.operations), one.pixels)
        measured = EmbeddedValidator().validate(
            ValidationRequest(asked.pixels, one.pixels, asked.masks, asked.scene, one.intent, one.operations)
        )
        assert count(measured).applied > 0, f"{one.words} does nothing of what it is called"


def test_what_looks_nearly_alike_is_left_out_with_a_sentence(palace: Subject) -> None:
    asked = request(palace, "sharpen it")
    variations = EmbeddedEditor().vary(asked, 4)
    assert 1 < len(variations.made) < 4
    (note,) = variations.notes
    assert note.startswith(f"Only {len(variations.made)} of 4 variations can be told apart: '")
    assert "looks nearly like" in note


# --- The answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("2", Choice(2)),
        ("variation 2", Choice(2)),
        ("1, sky from 3", Choice(1, (Part(("sky_0",), 3),))),
        (
            "1 with the sky from 3 and the building from no. 2",
            Choice(1, (Part(("sky_0",), 3), Part(("building_0",), 2))),
        ),
        ("2; sky_0, trees from 1", Choice(2, (Part(("sky_0", "vegetation_0"), 1),))),
        ("1, sky from 1", Choice(1)),
    ],
)
def test_an_answer_is_a_number_or_a_blend(palace: Subject, answer: str, choice: Choice) -> None:
    assert read_choice(answer, 3, palace.scene.entities) == choice


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "number, or with a blend such as '1, sky from 3'"),
        ("the golden one", "is not clear"),
        ("4", "There is no choice 4: answer with a number from 1 to 3"),
        ("0, sky from 1", "There is no choice 0"),
        ("1, sky from 9", "There is no choice 9"),
        ("1, sky", "'sky' is not clear"),
        ("1, sky from 3 oh no", "'sky from 3 oh no' is not clear"),
        ("1, unicorn from 2", "I do not see 'unicorn' in this photo to take it; I found: sky"),
        ("1, everything from 2", "I do not see 'everything'"),
        ("9" * 5000, "is not clear"),
        ("1, " + "sky, " * 60 + "from 2", "is not clear"),
    ],
)
def test_an_answer_that_is_none_is_told_in_one_sentence(palace: Subject, answer: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_choice(answer, 3, palace.scene.entities)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 300


# --- Blends ------------------------------------------------------------------------------------------


def test_a_blend_has_the_region_of_the_one_and_every_byte_of_the_other_beside_it(
    skies: tuple[EditRequest, Variations],
) -> None:
    asked, variations = skies
    choice = read_choice("1, sky from 3", 3, asked.scene.entities)
    operations = chosen_operations(choice, [one.operations for one in variations.made])
    stored = [Operation.model_validate_json(operation.model_dump_json()) for operation in operations]
    blended = apply(asked.pixels, asked.masks, stored)
    first, third, sky = variations.made[0].pixels, variations.made[2].pixels, asked.masks["sky_0"]
    assert np.array_equal(blended[sky == 0], first[sky == 0])
    assert distances(blended, third, sky).mean() < 0.3 * distances(first, third, sky).mean()
    intent = chosen_intent(choice, [one.intent for one in variations.made])
    assert (intent.action, intent.parameters["mood"]) == ("dramatic_sky", "golden")


@pytest.mark.parametrize(("rows", "columns"), [((60, 180), (80, 240)), ((0, 120), (0, 160))])
def test_a_blend_meets_what_is_around_it_where_a_seam_would_be_seen(
    rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    """On a plain wall a brighter part would show its outline; at the edges of the photo it need not meet anything."""
    wall = np.full((240, 320, 3), 0.4, np.float32)
    mask = np.zeros((240, 320), np.float32)
    mask[slice(*rows), slice(*columns)] = 1
    blended = wall.copy()
    blend(blended, mask, wall + np.float32(0.2))
    changed = blended - wall
    assert np.abs(np.diff(changed, axis=0)).max() < 0.02
    assert np.abs(np.diff(changed, axis=1)).max() < 0.02
    assert changed[rows[0] + 59, columns[0] + 79].min() > 0.05, "within, it is what was chosen"


def test_a_blend_leaves_its_part_as_it_is_where_the_border_is_an_edge_anyway() -> None:
    """The tone of dark roofs must not glow in a bright sky."""
    picture = np.full((240, 320, 3), 0.2, np.float32)
    picture[:120] = 0.9
    mask = np.zeros((240, 320), np.float32)
    mask[:120] = 1
    other = picture.copy()
    other[:120] -= 0.3
    other[120:] += 0.3
    blended = picture.copy()
    blend(blended, mask, other)
    assert np.abs(blended[:120] - other[:120]).max() < 0.02
    assert np.array_equal(blended[120:], picture[120:])


def test_a_blend_of_everything_is_the_other_picture() -> None:
    picture, other = np.zeros((40, 50, 3), np.float32), np.full((40, 50, 3), 0.5, np.float32)
    blend(picture, np.ones((40, 50), np.float32), other)
    assert np.allclose(picture, 0.5)


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        ({"name": "blend", "parameters": {"operations": []}}, "cannot be blended again"),
        ({"name": "sparkle"}, "no operation 'sparkle'"),
        ({"name": "exposure", "parameters": {"stops": 99}}, "stops"),
    ],
)
def test_a_stored_blend_is_checked_all_through(inner: dict[str, object], told: str) -> None:
    pixels: Pixels = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(InputError, match=told):
        apply(pixels, {}, [Operation(version=2, name="blend", parameters={"operations": [inner]})])
