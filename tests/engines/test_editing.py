"""The editor: intents become operations, hints change them, and the picture is what was asked for."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest

from edi_storage.errors import UnsupportedEditError
from edi_storage.models import Intent, Operation
from flows.engines.base import EditOutcome, EditRequest
from flows.engines.editing import EmbeddedEditor, plan
from flows.engines.intent import understand
from flows.engines.operations import apply
from flows.engines.parameters import VERSION
from flows.engines.presets import PRESETS
from flows.engines.refinement import refine
from flows.engines.regions import to_lab
from tests.engines.conftest import Subject


def request(subject: Subject, prompt: str, *hints: str, answer: int | None = None) -> EditRequest:
    intent = understand(prompt, subject.scene, answer)
    record = refine(prompt, subject.scene, intent, 3)
    return EditRequest(subject.pixels, subject.masks, subject.scene, intent, record, 1 + len(hints), list(hints))


def edit(subject: Subject, prompt: str, *hints: str, answer: int | None = None) -> EditOutcome:
    return EmbeddedEditor().edit(request(subject, prompt, *hints, answer=answer))


def test_a_dramatic_sky_is_darker_with_more_structure_and_the_building_untouched(palace: Subject) -> None:
    outcome = edit(palace, "make the sky dramatic")
    sky = palace.masks["sky_0"] > 0.99
    before, after = to_lab(palace.pixels)[..., 0], to_lab(outcome.pixels)[..., 0]
    assert before[sky].mean() - after[sky].mean() > 20
    assert after[sky].std() > 1.5 * before[sky].std()
    assert after[:40][sky[:40]].mean() < after[150:200][sky[150:200]].mean() - 8  # darkest at the top
    building = palace.masks["building_0"] > 0.99
    changed = np.abs(outcome.pixels.astype(int) - palace.pixels.astype(int)).max(axis=2)
    assert changed[building].mean() < 0.5
    assert np.quantile(changed[building], 0.99) <= 2
    near = cv2.dilate((palace.masks["sky_0"] > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert changed[~near].max() == 0


def test_there_is_no_bright_seam_along_the_roof(palace: Subject) -> None:
    edited = edit(palace, "make the sky dramatic").pixels
    before, after = to_lab(palace.pixels)[..., 0], to_lab(edited)[..., 0]
    sky = palace.masks["sky_0"] > 0.99
    sky[175:] = False  # above the horizon
    seam = (cv2.dilate(sky.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~sky & (before > 85)
    seam[170:], seam[:, :88], seam[:, 322:] = False, False, False  # around the pagoda
    weight = sky.astype(np.float32)
    beside = cv2.GaussianBlur(after * weight, (0, 0), 6) / (cv2.GaussianBlur(weight, (0, 0), 6) + 1e-4)
    assert seam.sum() > 200
    assert np.quantile((after - beside)[seam], 0.9) < 5


def test_stronger_words_make_the_sky_darker(palace: Subject) -> None:
    sky = palace.masks["sky_0"] > 0.99
    prompts = ["make the sky a bit dramatic", "make the sky dramatic", "make the sky extremely dramatic"]
    light = [to_lab(edit(palace, prompt).pixels)[..., 0][sky].mean() for prompt in prompts]
    assert light[0] > light[1] + 3 > light[2] + 6


def test_operations_are_json_and_replay_to_the_same_picture(palace: Subject) -> None:
    outcome = edit(palace, "make the sky dramatic and the building warmer")
    stored = json.loads(json.dumps([operation.model_dump() for operation in outcome.operations]))
    again = apply(palace.pixels, palace.masks, [Operation(**entry) for entry in stored])
    assert np.array_equal(again, outcome.pixels)


def test_the_same_request_gives_the_same_bytes(coffee: Subject) -> None:
    assert np.array_equal(edit(coffee, "brighter and warmer").pixels, edit(coffee, "brighter and warmer").pixels)


def test_the_original_is_not_touched(coffee: Subject) -> None:
    before = coffee.pixels.copy()
    edit(coffee, "black and white")
    assert np.array_equal(coffee.pixels, before)


def test_stronger_and_weaker_move_the_strength(palace: Subject) -> None:
    def strength(*hints: str) -> float:
        operation = plan(request(palace, "make the sky dramatic", *hints))[0]
        return float(operation.parameters["strength"])

    assert strength("weaker") < strength() < strength("stronger") < strength("stronger", "stronger")
    assert strength("too strong") == strength("weaker")
    assert strength(*["stronger"] * 9) == 1.0


def test_a_hint_to_protect_reaches_the_operation(palace: Subject) -> None:
    operation = plan(request(palace, "make the sky dramatic", "protect building_0"))[0]
    assert operation.parameters["protect"] == ["building_0"]


def test_whole_picture_edits_need_no_masks(palace: Subject) -> None:
    assert {operation.target for operation in plan(request(palace, "warmer"))} == {"image"}


def test_an_exception_keeps_its_colours(palace: Subject) -> None:
    outcome = edit(palace, "black and white except the building")
    lab = to_lab(outcome.pixels)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    assert chroma[palace.masks["vegetation_0"] > 0.99].mean() < 3
    building = palace.masks["building_0"] == 1
    assert building.any()
    assert np.array_equal(outcome.pixels[building], palace.pixels[building])


def test_every_choice_of_a_question_can_be_edited(palace: Subject) -> None:
    for prompt in ("make it better", "make it dramatic"):
        question = understand(prompt, palace.scene).question
        assert question is not None
        for number in range(1, len(question.choices) + 1):
            outcome = edit(palace, prompt, answer=number)
            assert not np.array_equal(outcome.pixels, palace.pixels)


def asked_for(subject: Subject, action: str, scope: str = "whole", **parameters: object) -> EditRequest:
    """What the editor gets for an action with parameters, whatever the words for it."""
    intent = Intent(edit_type="style", confidence=0.9, action=action, parameters={"scope": scope, **parameters})
    record = refine("", subject.scene, intent, 0)
    return EditRequest(subject.pixels, subject.masks, subject.scene, intent, record, 1)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_a_list_of_operations_with_a_look_of_its_own(coffee: Subject, name: str) -> None:
    operations = plan(asked_for(coffee, "preset", name=name))
    assert [operation.name for operation in operations] == [step for step, _ in PRESETS[name]]
    assert {operation.version for operation in operations} == {VERSION}
    edited = apply(coffee.pixels, {}, operations)
    difference = np.abs(to_lab(edited) - to_lab(coffee.pixels)).mean(axis=(0, 1))
    assert difference.sum() > 4
    assert edited.std() > 25


def test_a_preset_on_a_thing_has_no_frame(palace: Subject) -> None:
    request = asked_for(palace, "preset", "entities", name="vintage")
    intent = request.intent.model_copy(update={"target_entities": ["building_0"]})
    operations = plan(dataclasses.replace(request, intent=intent))
    assert operations
    assert "vignette" not in {operation.name for operation in operations}


def test_a_preset_or_a_sky_that_does_not_exist_is_one_sentence(palace: Subject) -> None:
    with pytest.raises(UnsupportedEditError, match="airy, cinematic, film"):
        plan(asked_for(palace, "preset", name="sparkly"))
    request = asked_for(palace, "dramatic_sky", "entities", mood="misty")
    intent = request.intent.model_copy(update={"target_entities": ["sky_0"]})
    with pytest.raises(UnsupportedEditError, match="dramatic, stormy, golden, clear"):
        plan(dataclasses.replace(request, intent=intent))


def test_a_background_can_soften_with_distance(palace: Subject) -> None:
    request = asked_for(palace, "blur", "background", falloff="depth")
    assert plan(request)[0].parameters["falloff"] == "depth"


def test_removing_half_the_picture_names_the_backend_that_could(palace: Subject) -> None:
    with pytest.raises(UnsupportedEditError, match="ComfyUI"):
        edit(palace, "remove the sky")


def test_an_action_of_another_reasoner_is_refused_by_name(palace: Subject) -> None:
    asked = request(palace, "warmer")
    foreign = Intent(edit_type="add", confidence=0.9, action="add_object")
    with pytest.raises(UnsupportedEditError, match="add_object"):
        plan(EditRequest(asked.pixels, asked.masks, asked.scene, foreign, asked.prompt, 1))
