"""Strength, protection and region: what a person asks for beside the prompt has a real effect on real pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edi_storage.errors import InputError
from edi_storage.models import Intent, SceneAnalysis
from flows.engines.area import REGION, Region, read_mask, region_mask, with_region, without_region
from flows.engines.base import EditOutcome, EditRequest, Mask, ValidationRequest
from flows.engines.editing import EmbeddedEditor
from flows.engines.intent import understand
from flows.engines.photo import Photo, decode_mask, decode_photo, encode, encode_mask
from flows.engines.refinement import refine
from flows.engines.scoring import Counts, count
from flows.engines.targets import phrase_of
from flows.engines.validation import EmbeddedValidator
from flows.engines.wishes import Wishes, as_wished, to_measure
from tests.engines.conftest import Subject


@dataclass
class Wished:
    """An edit with wishes, run through the engines as the stages do."""

    intent: Intent
    outcome: EditOutcome
    counts: Counts
    changed: Any  # mean absolute difference of each pixel, in grey levels
    masks: dict[str, Mask]

    def on(self, entity: str) -> float:
        inside = self.masks[entity] > 0.99
        return float(self.changed[inside].mean())


def wished(subject: Subject, prompt: str, **given: Any) -> Wished:
    wishes = Wishes.checked(**given)
    found = with_region(subject.found, wishes.region, subject.pixels)
    scene = SceneAnalysis(entities=[d.entity for d in found.detections], spatial_layout=found.spatial_layout)
    # Through 8 bits, as masks come back from the store.
    masks = {d.entity.entity_id: decode_mask(encode_mask(d.mask)) for d in found.detections}
    intent = as_wished(understand(prompt, without_region(scene)), scene, masks, wishes)
    record = refine(prompt, scene, intent, 3)
    outcome = EmbeddedEditor().edit(EditRequest(subject.pixels, masks, scene, intent, record, 1))
    measured, parts = to_measure(scene, masks, intent)
    asked = ValidationRequest(subject.pixels, outcome.pixels, parts, measured, intent, outcome.operations)
    counts = count(EmbeddedValidator().validate(asked))
    changed = np.abs(outcome.pixels.astype(float) - subject.pixels.astype(float)).mean(axis=2)
    return Wished(intent, outcome, counts, changed, masks)


def outside(region: str, changed: Any) -> Any:
    parsed = Wishes.checked(region=region).region
    assert parsed is not None
    box = parsed.box(changed.shape[1], changed.shape[0])
    rest = np.ones(changed.shape, dtype=bool)
    rest[box.y : box.y + box.height, box.x : box.x + box.width] = False
    return changed[rest]


@pytest.mark.parametrize("prompt", ["make the sky dramatic", "make it brighter"])
def test_a_stronger_edit_changes_more(palace: Subject, prompt: str) -> None:
    words = ["subtle", "normal", "strong", "very strong"]
    changes = [wished(palace, prompt, strength=word).on("sky_0") for word in words]
    assert changes == sorted(changes)
    assert changes[-1] > 1.5 * changes[0]
    assert changes[0] > 2


def test_as_the_prompt_says_is_what_no_wish_is(palace: Subject) -> None:
    intent = understand("make the sky a bit darker", palace.scene)
    wishes = Wishes.checked(strength="as the prompt says")
    assert as_wished(intent, palace.scene, {}, wishes) == intent
    assert as_wished(intent, palace.scene, {}, Wishes.checked(strength="0.9")).strength == 0.9


def test_a_strength_holds_for_every_step_of_a_prompt(palace: Subject) -> None:
    intent = understand("make the sky a bit darker and the trees much greener", palace.scene)
    strong = as_wished(intent, palace.scene, {}, Wishes.checked(strength="strong"))
    assert [step["strength"] for step in strong.parameters["steps"]] == [0.85, 0.85]


def test_what_is_protected_hardly_changes_and_the_rest_does(palace: Subject) -> None:
    free, spared = wished(palace, "make it brighter"), wished(palace, "make it brighter", protect="the palace, sky")
    for entity in ("building_0", "sky_0"):
        assert free.on(entity) > 10
        assert spared.on(entity) < 0.01
    assert spared.on("vegetation_0") > 0.9 * free.on("vegetation_0")
    assert set(spared.intent.preserve_entities) == {"building_0", "sky_0"}
    assert spared.counts.score >= 0.8


def test_a_new_sky_does_not_reach_into_what_is_protected(palace: Subject) -> None:
    spilt = wished(palace, "make the sky dramatic").changed
    spared = wished(palace, "make the sky dramatic", protect="building")
    covered = spared.masks["building_0"] > 0.5
    assert spilt[covered].max() > 10, "along roofs the effect reaches beyond the sky, or this test shows nothing"
    assert spared.changed[covered].max() < spilt[covered].max() / 4, "a soft border counts for both sides"
    assert spared.changed[spared.masks["building_0"] > 0.9].max() < 1


@pytest.mark.parametrize(
    "prompt", ["make the sky dramatic", "make it warmer", "blur the background", "make it black and white", "vignette"]
)
@pytest.mark.parametrize("region", ["0,0,50,100", "20,10,60,50"])
def test_outside_the_region_not_one_byte_changes(palace: Subject, prompt: str, region: str) -> None:
    done = wished(palace, prompt, region=region)
    assert outside(region, done.changed).max() == 0
    assert done.changed.max() > 10
    assert done.intent.parameters["within"] == REGION


def test_an_edit_in_a_region_is_judged_by_what_it_did_there(palace: Subject) -> None:
    for prompt in ("make the sky dramatic", "make it warmer"):
        assert wished(palace, prompt, region="50,0,50,100").counts.score >= 0.8
    whole = wished(palace, "make it warmer", region="50,0,50,100")
    assert whole.intent.target_entities == [REGION]
    assert "sky_0" in whole.intent.preserve_entities, "half of the sky lies outside and is to stay"


def test_region_and_protection_go_together(palace: Subject) -> None:
    done = wished(palace, "make it black and white", region="25,25,50,50", protect="sky", strength="strong")
    assert outside("25,25,50,50", done.changed).max() == 0
    assert done.on("sky_0") < 0.01
    assert done.on("building_0") > 1
    assert done.counts.score >= 0.8


def test_an_unknown_thing_to_protect_is_refused_and_what_was_found_is_named(palace: Subject) -> None:
    with pytest.raises(InputError, match=r"^I do not see 'the unicorn' .* I found: sky at the top \(\d+ %\), .*\.$"):
        wished(palace, "make it warmer", protect="sky and the unicorn")


@pytest.mark.parametrize(
    ("prompt", "given", "told"),
    [
        ("make the sky dramatic", {"protect": "sky"}, "is protected"),
        ("make it warmer", {"protect": "everything"}, "leaves nothing to change"),
        ("make the sky dramatic", {"region": "0,90,100,10"}, "not inside the region 0,90,100,10"),
        ("make it warmer", {"protect": "everything except the sky"}, "says 'except'"),
        ("make it warmer", {"protect": "?!"}, "names nothing"),
    ],
)
def test_wishes_that_leave_nothing_to_change_are_refused(palace: Subject, prompt: str, given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        wished(palace, prompt, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"strength": "mighty"},
        {"strength": "0"},
        {"strength": "1.5"},
        {"strength": "nan"},
        {"strength": "-20%"},
        {"region": "left half"},
        {"region": "0,0,50"},
        {"region": "60,0,50,50"},
        {"region": "0,0,0,50"},
        {"region": "-5,0,50,50"},
        {"region": "nan,0,50,50"},
        {"region": "1e999,0,50,50"},
        {"protect": "x" * 501},
        {"protect": "a\x00b"},
        {"protect": "\udcff"},
    ],
    ids=repr,
)
def test_wishes_that_cannot_be_read_are_one_sentence(given: dict[str, str]) -> None:
    with pytest.raises(InputError) as refused:
        Wishes.checked(**given)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [{}, {"strength": "40 %", "protect": " the car,\n people ", "region": " 0 0 100 40 % "}, {"strength": 1}],
    ids=["none", "all", "number"],
)
def test_wishes_come_back_from_the_sessions_options(given: dict[str, Any]) -> None:
    wishes = Wishes.checked(**given)
    assert Wishes.of(wishes.as_options()) == wishes
    assert Wishes.of({"review": "auto", "max_attempts": 3, **wishes.as_options()}) == wishes
    assert bool(wishes.as_options()) == bool(given)


def test_a_region_is_read_back_from_its_own_text_to_the_last_digit() -> None:
    wishes = Wishes.checked(region="6.458333333333333,0,93.54166666666667,100")
    assert Wishes.of(wishes.as_options()) == wishes


def test_a_question_is_asked_before_what_is_protected_is_held_against_the_first_guess(palace: Subject) -> None:
    intent = understand("remove it", palace.scene)
    assert intent.needs_answer
    first = palace.scene.entities[0]
    asked = as_wished(intent, palace.scene, {}, Wishes.checked(protect=first.label))
    assert intent.question is not None
    assert asked.question is not None
    left = [choice for choice in intent.question.choices if choice != phrase_of(first, palace.scene.entities)]
    assert asked.question.choices == left != intent.question.choices, "it is no answer either"
    assert asked.model_copy(update={"question": intent.question}) == intent
    everything = Wishes.checked(protect=", ".join(entity.label for entity in palace.scene.entities))
    assert as_wished(intent, palace.scene, {}, everything) == intent, "there has to be a choice"


@pytest.mark.parametrize("size", [(16, 16), (427, 640), (3000, 17)])
@pytest.mark.parametrize("region", [Region(0, 0, 100, 100), Region(99, 99, 1, 1), Region(33.3, 0, 1, 100)])
def test_a_region_has_pixels_in_every_picture_and_none_outside(size: tuple[int, int], region: Region) -> None:
    mask = region_mask(region, size)
    box = region.box(size[1], size[0])
    assert mask.shape == size
    assert mask[box.y : box.y + box.height, box.x : box.x + box.width].max() > 0
    rest = mask.copy()
    rest[box.y : box.y + box.height, box.x : box.x + box.width] = 0
    assert rest.max() == 0
    if region == Region(0, 0, 100, 100):
        assert mask.min() == 1, "the border of the picture is no border of the edit"


def painted(path: Path, picture: Any) -> str:
    Image.fromarray(picture).save(path)
    return str(path)


def photo_of(width: int = 64, height: int = 48) -> Photo:
    return decode_photo(encode(np.zeros((height, width, 3), np.uint8)))


def test_a_painted_mask_is_an_area_like_a_region(palace: Subject, tmp_path: Path) -> None:
    half = np.zeros((107, 160), np.uint8)
    half[:, 80:] = 255
    mask = read_mask(painted(tmp_path / "half.png", half), photo_of(640, 427))
    found = with_region(palace.found, None, palace.pixels, mask)
    given = found.detections[-1]
    assert given.entity.entity_id == REGION
    assert given.mask.shape == palace.pixels.shape[:2]
    assert given.mask[:, :310].max() == 0
    assert given.mask[:, 330:].min() == 1
    scene = SceneAnalysis(entities=[d.entity for d in found.detections], spatial_layout=found.spatial_layout)
    masks = {d.entity.entity_id: decode_mask(encode_mask(d.mask)) for d in found.detections}
    prompt = "make it black and white"
    intent = as_wished(understand(prompt, without_region(scene)), scene, masks, Wishes.checked(mask="half.png"))
    record = refine(prompt, scene, intent, 3)
    edited = EmbeddedEditor().edit(EditRequest(palace.pixels, masks, scene, intent, record, 1)).pixels
    changed = np.abs(edited.astype(int) - palace.pixels.astype(int)).max(axis=2)
    assert changed[:, :310].max() == 0
    assert changed[:, 330:].mean() > 5


def test_noise_of_a_jpeg_does_not_open_what_is_black(tmp_path: Path) -> None:
    half = np.zeros((48, 64), np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(tmp_path / "half.jpg", quality=60)
    mask = read_mask(str(tmp_path / "half.jpg"), photo_of())
    assert mask[:, :28].max() == 0
    assert mask[:, 36:].min() == 1


def test_what_is_transparent_in_a_mask_is_black(tmp_path: Path) -> None:
    clear = np.full((48, 64, 4), 255, np.uint8)
    clear[:, :32, 3] = 0
    mask = read_mask(painted(tmp_path / "clear.png", clear), photo_of())
    assert mask[:, :32].max() == 0
    assert mask[:, 32:].min() == 1


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.full((64, 48), 255, np.uint8), "proportions of the photo"),
        (np.zeros((48, 64), np.uint8), "black all over"),
    ],
    ids=["upright", "black"],
)
def test_a_mask_that_cannot_be_meant_is_refused_in_one_sentence(picture: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read_mask(painted(tmp_path / "mask.png", picture), photo_of())


def test_a_mask_is_opened_as_carefully_as_a_photo(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"not a picture")
    for path, says in (("mask.png", "not a photo"), ("none.png", "no file"), (".", "folder")):
        with pytest.raises(InputError, match=says):
            read_mask(str(tmp_path / path), photo_of())


def test_a_region_and_a_mask_are_one_too_many() -> None:
    with pytest.raises(InputError, match="give one of them"):
        Wishes.checked(region="0,0,50,50", mask="mask.png")


def test_a_mask_is_kept_with_the_options() -> None:
    wishes = Wishes.checked(mask="/photos/mask.png")
    assert wishes.as_options() == {"mask": "/photos/mask.png"}
    assert Wishes.of(wishes.as_options()) == wishes
    assert wishes.is_confined
