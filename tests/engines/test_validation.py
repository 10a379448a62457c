"""The validator must believe its eyes: no-ops, spills, wrong directions and JPEG are told apart."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from edi_storage.models import Operation, ValidationResult
from flows.engines.base import EditRequest, Pixels, ValidationRequest
from flows.engines.comparing import compare
from flows.engines.editing import EmbeddedEditor
from flows.engines.intent import understand
from flows.engines.operations import apply
from flows.engines.refinement import refine
from flows.engines.validation import EmbeddedValidator, alignment_score, count, decide
from tests.engines.conftest import Subject
from tests.quality.constructed import HELD, TUNED
from tests.quality.edits import shifted
from tests.quality.scenes import scene
from tests.quality.validation import measure


def validate(subject: Subject, prompt: str, edited: Pixels) -> ValidationResult:
    intent = understand(prompt, subject.scene)
    request = ValidationRequest(subject.pixels, edited, subject.masks, subject.scene, intent, [])
    return EmbeddedValidator().validate(request)


def edited(subject: Subject, prompt: str) -> Pixels:
    intent = understand(prompt, subject.scene)
    record = refine(prompt, subject.scene, intent, 3)
    return EmbeddedEditor().edit(EditRequest(subject.pixels, subject.masks, subject.scene, intent, record, 1)).pixels


def tone(subject: Subject, name: str, target: str, **parameters: object) -> Pixels:
    return apply(subject.pixels, subject.masks, [Operation(name=name, target=target, parameters=dict(parameters))])


def verdict(result: ValidationResult, name: str) -> str:
    return next(delta.verdict for delta in result.deltas if delta.entity_id == name)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


PROMPTS = [
    "make the sky dramatic",
    "warmer",
    "black and white",
    "make it brighter",
    "darken the building",
    "make the building red",
    "more vivid",
    "sepia",
    "black and white except the building",
    "more contrast",
    "blur the background",
    "sharpen",
    "add a vignette",
    "make it clearer",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_the_editor_did_as_asked_is_accepted(palace: Subject, prompt: str) -> None:
    result = validate(palace, prompt, edited(palace, prompt))
    counts = count(result)
    assert counts.applied == counts.intended
    assert counts.unintended == 0
    assert decide(counts.score, counts.applied, 1, 3) == "accepted"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_edit_that_changed_nothing_is_a_retry(palace: Subject, prompt: str) -> None:
    result = validate(palace, prompt, palace.pixels)
    counts = count(result)
    assert counts.applied == 0
    assert decide(counts.score, counts.applied, 1, 3) == "retry"
    assert "stronger" in result.hints


@pytest.mark.parametrize("quality", [95, 90, 75])
def test_jpeg_is_not_taken_for_a_change(palace: Subject, quality: int) -> None:
    result = validate(palace, "make the sky dramatic", jpeg(palace.pixels, quality))
    assert count(result).unintended == 0
    assert count(result).applied == 0


def test_the_edit_is_still_recognised_after_jpeg(palace: Subject) -> None:
    result = validate(palace, "make the sky dramatic", jpeg(edited(palace, "make the sky dramatic"), 75))
    assert count(result).score == 1.0


def test_a_larger_copy_of_the_result_is_measured_all_the_same(palace: Subject) -> None:
    large = cv2.resize(edited(palace, "make the sky dramatic"), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    assert count(validate(palace, "make the sky dramatic", large)).score >= 0.8  # type: ignore[arg-type]


def test_the_wrong_target_is_unintended_and_to_be_protected(palace: Subject) -> None:
    result = validate(palace, "make the sky dramatic", tone(palace, "exposure", "building_0", stops=-1.0))
    assert verdict(result, "building_0") == "unintended"
    assert verdict(result, "sky_0") == "not_applied"
    assert set(result.hints) == {"stronger", "protect building_0"}
    assert count(result).score < 0.6


def test_a_spill_over_the_whole_picture_is_seen(palace: Subject) -> None:
    result = validate(palace, "darken the sky", tone(palace, "exposure", "image", stops=-1.0))
    assert verdict(result, "sky_0") == "modified"
    assert count(result).preserved == 0


@pytest.mark.parametrize(
    ("prompt", "name", "parameters"),
    [
        ("darken the building", "exposure", {"stops": 0.8}),
        ("brighten the building", "exposure", {"stops": -0.8}),
        ("make the building warmer", "warmth", {"amount": -0.6}),
        ("make the building more vivid", "saturation", {"amount": -0.7}),
        ("make the sky dramatic", "exposure", {"stops": 0.8}),
        ("make the building blue", "recolour", {"color": "#c8281e"}),
    ],
)
def test_the_wrong_direction_is_not_as_asked(
    palace: Subject, prompt: str, name: str, parameters: dict[str, object]
) -> None:
    target = "sky_0" if "sky" in prompt else "building_0"
    result = validate(palace, prompt, tone(palace, name, target, **parameters))
    assert verdict(result, target) in ("wrong_direction", "not_applied")
    assert count(result).applied == 0


def test_a_hardly_visible_edit_is_not_applied(palace: Subject) -> None:
    result = validate(palace, "make the sky dramatic", tone(palace, "exposure", "sky_0", stops=-0.03))
    assert verdict(result, "sky_0") == "not_applied"


def test_deltas_are_given_for_every_entity(palace: Subject) -> None:
    result = validate(palace, "make the sky dramatic", edited(palace, "make the sky dramatic"))
    assert [delta.entity_id for delta in result.deltas] == [entity.entity_id for entity in palace.scene.entities]
    sky = result.deltas[0]
    assert sky.mean_delta_e > 10
    assert result.summary.startswith("1 changed as asked")


@pytest.mark.parametrize(
    ("counts", "score"),
    [
        ((4, 4, 1, 1, 0, 5), 1.0),
        ((4, 4, 0, 1, 0, 5), 0.6),
        ((2, 4, 1, 1, 2, 5), 0.72),
        ((0, 0, 5, 5, 0, 5), 1.0),
        ((0, 4, 0, 1, 4, 5), 0.04),
        ((0, 0, 0, 0, 0, 0), 1.0),
    ],
)
def test_alignment_is_the_formula(counts: tuple[int, int, int, int, int, int], score: float) -> None:
    assert alignment_score(*counts) == pytest.approx(score)


@pytest.mark.parametrize(
    ("score", "applied", "attempt", "decision"),
    [
        (0.8, 1, 1, "accepted"),
        (0.79, 1, 1, "needs_review"),
        (0.6, 1, 1, "needs_review"),
        (0.59, 1, 1, "retry"),
        (0.6, 0, 1, "retry"),
        (1.0, 0, 2, "retry"),
        (0.59, 1, 3, "best_effort"),
        (0.6, 0, 3, "best_effort"),
        (0.9, 1, 3, "accepted"),
    ],
)
def test_the_decision_follows_the_score(score: float, applied: int, attempt: int, decision: str) -> None:
    assert decide(score, applied, attempt, 3) == decision


def test_a_soft_border_is_no_spill(palace: Subject) -> None:
    feathered = tone(palace, "exposure", "sky_0", stops=-1.2, feather=0.004)
    result = validate(palace, "darken the sky", feathered)
    assert verdict(result, "sky_0") == "modified"
    assert verdict(result, "building_0") == "preserved"


@pytest.mark.parametrize(("x", "y"), [(1, 0), (0, -1), (2, 0), (-1, 2)])
@pytest.mark.parametrize("photo", ["palace", "meadow"])
def test_a_picture_moved_by_a_pixel_or_two_is_laid_over_the_original(photo: str, x: int, y: int) -> None:
    drawn = scene(photo)
    pair = compare(drawn.pixels, shifted(x, y)(drawn.pixels, drawn.masks))
    assert float(np.quantile(pair.difference, 0.99)) < 1.0
    assert float(pair.ssim.mean()) > 0.99


def test_comparing_leaves_the_pictures_as_they_are(palace: Subject) -> None:
    before, moved = palace.pixels.copy(), shifted(1, 1)(palace.pixels, {})
    again = moved.copy()
    compare(palace.pixels, moved)
    assert np.array_equal(palace.pixels, before)
    assert np.array_equal(moved, again)


def test_what_moved_far_is_not_laid_over_the_original() -> None:
    drawn = scene("meadow")
    pair = compare(drawn.pixels, shifted(6, 0)(drawn.pixels, drawn.masks))
    assert float(pair.ssim.mean()) < 0.9


def test_the_verdicts_on_constructed_edits_are_a_persons() -> None:
    figures = measure()
    assert len(TUNED) + len(HELD) >= 40
    assert [figure.name for figure in figures if not figure.holds] == []
