"""What the analyzer finds, and what it must not claim to have found."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flows.engines.analysis import EmbeddedAnalyzer
from flows.engines.base import Pixels
from flows.engines.photo import open_photo
from flows.engines.regions import colour_name, place_name, to_lab
from tests.engines.conftest import SAMPLES, Subject, curtain, landscape, wall


def test_the_palace_has_a_sky_and_a_building(palace: Subject) -> None:
    assert "sky_0" in palace.masks
    assert "building" in palace.labels
    assert "vegetation" in palace.labels


def test_the_sky_of_the_palace_is_where_it_is(palace: Subject) -> None:
    sky = palace.masks["sky_0"]
    assert sky[:20, 30:600].min() > 0.95  # along the top
    assert sky[90:108, 190:225].max() < 0.1  # the roof
    assert sky[225:].max() < 0.1  # lake, trees and everything below the horizon


def test_a_night_sky_is_sky(rocket: Subject) -> None:
    assert "sky" in rocket.labels


@pytest.mark.parametrize("picture", [curtain(), wall()], ids=["curtain", "wall"])
def test_a_grey_curtain_is_not_called_sky(picture: Pixels) -> None:
    labels = Subject(picture).labels
    assert "sky" not in labels
    assert all("region" in label for label in labels)


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png", "astronaut.png", "motorcycle_left.png"])
def test_indoor_and_close_up_photos_have_no_sky(name: str) -> None:
    assert not {"sky", "water", "building"} & set(Subject(open_photo(SAMPLES / name).pixels).labels)


def test_a_plain_landscape_is_sky_and_vegetation() -> None:
    assert Subject(landscape()).labels[:2] == ["sky", "vegetation"]


def test_masks_cover_the_picture_once(palace: Subject, coffee: Subject) -> None:
    for subject in (palace, coffee):
        total = np.sum(list(subject.masks.values()), axis=0)
        assert total.max() < 1.001
        assert total.mean() > 0.98
        assert all(mask.dtype == np.float32 for mask in subject.masks.values())
        assert all(mask.shape == subject.pixels.shape[:2] for mask in subject.masks.values())


def test_entities_are_few_unique_and_largest_first(palace: Subject, coffee: Subject) -> None:
    for subject in (palace, coffee):
        entities = subject.scene.entities
        assert 2 <= len(entities) <= 8
        assert len({entity.entity_id for entity in entities}) == len(entities)
        for entity in entities:
            assert re.fullmatch(r"[a-z_]+_\d", entity.entity_id)
            assert entity.entity_id.startswith(entity.label.replace(" ", "_"))
        areas = [entity.area_percent or 0 for entity in entities]
        assert areas == sorted(areas, reverse=True) or max(np.diff(areas)) < 1.5


def test_boxes_lie_in_the_picture_and_around_their_masks(palace: Subject) -> None:
    height, width = palace.pixels.shape[:2]
    for entity in palace.scene.entities:
        box = entity.bbox
        assert box is not None
        assert box.x + box.width <= width
        assert box.y + box.height <= height
        outside = palace.masks[entity.entity_id].copy()
        outside[box.y : box.y + box.height, box.x : box.x + box.width] = 0
        assert outside.sum() < 0.03 * palace.masks[entity.entity_id].sum()


def test_the_same_picture_gives_the_same_entities_and_masks(palace: Subject) -> None:
    # Whatever drew random numbers before must not matter.
    import cv2

    cv2.setRNGSeed(99)
    again = Subject(palace.pixels)
    assert again.scene == palace.scene
    assert all(np.array_equal(again.masks[name], mask) for name, mask in palace.masks.items())


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((16, 16, 3), np.uint8),
        np.full((16, 900, 3), 255, np.uint8),
        np.full((900, 16, 3), 120, np.uint8),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8),
    ],
    ids=["black", "wide", "tall", "noise"],
)
def test_odd_pictures_are_described_too(picture: Pixels) -> None:
    subject = Subject(picture)
    assert subject.scene.entities
    assert subject.scene.spatial_layout.endswith(".")


def test_the_layout_says_what_is_where(palace: Subject) -> None:
    assert palace.scene.spatial_layout.startswith("Sky at the top (")


def test_progress_only_rises() -> None:
    seen: list[float] = []
    EmbeddedAnalyzer().analyze(landscape(), lambda fraction, message, handles: seen.append(fraction))
    assert seen == sorted(seen)
    assert len(seen) >= 4


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 255, 255), "white"),
        ((0, 0, 0), "black"),
        ((128, 128, 128), "grey"),
        ((220, 30, 30), "red"),
        ((240, 130, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((50, 160, 60), "green"),
        ((40, 90, 200), "blue"),
        ((130, 60, 180), "purple"),
        ((110, 70, 40), "brown"),
        ((20, 30, 80), "dark blue"),
    ],
)
def test_colours_have_their_plain_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(to_lab(np.array([[rgb]], np.uint8))[0, 0]) == name


def test_places_have_names() -> None:
    assert place_name(0.5, 0.1, 1.0, 0.2) == "top"
    assert place_name(0.9, 0.9, 0.1, 0.1) == "bottom right"
    assert place_name(0.5, 0.5, 0.2, 0.2) == "middle"
    assert place_name(0.5, 0.5, 1.0, 1.0) == "all over"


def test_what_is_sharp_before_a_soft_background_is_the_subject(cat: Subject) -> None:
    subject = cat.masks["subject_0"]
    assert subject[120:200, 150:350].mean() > 0.95  # eyes and nose
    assert subject[10:60, 420:].max() < 0.1  # the wall behind


def test_a_photo_that_is_sharp_all_over_has_no_subject(coffee: Subject, palace: Subject) -> None:
    assert "subject" not in coffee.labels + palace.labels
