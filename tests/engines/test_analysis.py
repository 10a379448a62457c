"""What the analyzer finds, and what it must not claim to have found."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from edi_storage.errors import EngineError
from flows.engines import models, parts
from flows.engines.analysis import EmbeddedAnalyzer
from flows.engines.base import Pixels
from flows.engines.cutting import grow, shrink_mask
from flows.engines.detection import Thing, each_once, look
from flows.engines.focus import find_subject
from flows.engines.people import person_mattes
from flows.engines.photo import open_photo
from flows.engines.regions import colour_name, join_shades, measure, merge, place_name, to_lab
from tests.engines.conftest import EXAMPLES, SAMPLES, Subject, curtain, landscape, wall
from tests.quality.training import digests


def test_the_palace_has_a_sky_and_a_building(palace: Subject) -> None:
    assert "sky_0" in palace.masks
    assert "building" in palace.labels
    assert "vegetation" in palace.labels


def test_the_sky_of_the_palace_is_where_it_is(palace: Subject) -> None:
    sky = palace.masks["sky_0"]
    assert sky[:20, 30:600].min() > 0.95  # along the top
    assert sky[90:108, 190:225].max() < 0.1  # the roof
    assert sky[235:].max() < 0.1  # lake, trees and everything below the horizon


@pytest.mark.parametrize("picture", [curtain(), wall()], ids=["curtain", "wall"])
def test_a_grey_curtain_is_not_called_sky(picture: Pixels) -> None:
    labels = Subject(picture).labels
    assert "sky" not in labels
    assert all("region" in label for label in labels)


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png", "astronaut.png", "motorcycle_left.png"])
def test_indoor_and_close_up_photos_have_no_sky(name: str) -> None:
    assert not {"sky", "water"} & set(Subject(open_photo(SAMPLES / name).pixels).labels)


def test_things_are_called_by_their_names(cat: Subject, coffee: Subject) -> None:
    assert "cat" in cat.labels
    assert "cup" in coffee.labels


def test_a_cat_is_cut_from_the_wall_behind(cat: Subject) -> None:
    found = cat.masks["cat_0"]
    assert found[120:200, 150:350].mean() > 0.95  # eyes and nose
    assert found[:60, :20].max() < 0.1  # the wall


def test_a_person_is_cut_out_of_a_portrait() -> None:
    person = Subject(open_photo(SAMPLES / "astronaut.png").pixels).masks["person_0"]
    assert person[60:200, 190:250].mean() > 0.97  # the face
    assert person[250:400, 100:250].mean() > 0.97  # the suit
    assert person[:150, :60].max() < 0.1  # the flag
    assert person[:150, 350:].max() < 0.1  # the rocket


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


def test_one_thing_in_light_and_shade_is_one_region() -> None:
    picture = measure(orange(shaded=True))
    regions = merge(picture, np.ones(picture.count, dtype=bool), 8, 0.02)
    before, after = (np.asarray(picture.paint(labels)) for labels in (regions, join_shades(picture, regions)))
    assert len(np.unique(before[120, 100:220])) > 1
    assert len(np.unique(after[120, 100:220])) == 1
    assert after[10, 10] != after[120, 160]


def test_two_things_of_one_hue_with_an_edge_between_stay_two() -> None:
    picture = measure(orange(shaded=False))
    regions = merge(picture, np.ones(picture.count, dtype=bool), 8, 0.02)
    numbers = np.asarray(picture.paint(join_shades(picture, regions)))
    assert numbers[120, 120] != numbers[120, 200]


def orange(*, shaded: bool) -> Pixels:
    """An orange before a grey wall, its left side in the dark: by and by, or from one pixel to the next."""
    across = np.linspace(0, 1, 320)[None, :].repeat(240, axis=0)
    light = np.clip((across - 0.3) / 0.35, 0, 1) if shaded else (across > 0.5).astype(float)
    picture = np.full((240, 320, 3), 150.0)
    ball = (np.arange(240)[:, None] - 120) ** 2 + (np.arange(320)[None, :] - 160) ** 2 < 80**2
    picture[ball] = ((0.4 + 0.6 * light)[..., None] * (240, 130, 20))[ball]
    return picture.astype(np.uint8)


def test_places_have_names() -> None:
    assert place_name(0.5, 0.1, 1.0, 0.2) == "top"
    assert place_name(0.9, 0.9, 0.1, 0.1) == "bottom right"
    assert place_name(0.5, 0.5, 0.2, 0.2) == "middle"
    assert place_name(0.5, 0.5, 1.0, 1.0) == "all over"


def test_what_is_sharp_before_a_soft_background_is_the_subject() -> None:
    random = np.random.default_rng(4)
    picture = np.full((240, 320, 3), 120, np.uint8)
    picture[80:160, 110:210] = random.integers(0, 256, (80, 100, 3))
    found = find_subject(measure(picture))
    assert found is not None
    assert found.where[100:140, 130:190].all()
    assert not found.where[:40].any()


def test_a_photo_that_is_sharp_all_over_has_no_subject(coffee: Subject, palace: Subject) -> None:
    assert "subject" not in coffee.labels + palace.labels


def test_another_process_finds_the_same_bit_for_bit(palace: Subject) -> None:
    script = (
        "import hashlib, sys; from flows.engines.analysis import EmbeddedAnalyzer; "
        "from flows.engines.photo import open_photo; "
        "scene = EmbeddedAnalyzer().analyze(open_photo(sys.argv[1]).pixels); "
        "print(hashlib.sha256(b''.join(d.mask.tobytes() for d in scene.detections)).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(EXAMPLES / "palace.jpg")]
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    here = hashlib.sha256(b"".join(detection.mask.tobytes() for detection in palace.found.detections)).hexdigest()
    assert there == here


def test_looking_at_another_photo_between_changes_nothing(coffee: Subject) -> None:
    # The network keeps buffers of its last picture's size.
    first = look(coffee.pixels, 416)
    look(landscape(), 416)
    again = look(coffee.pixels, 416)
    assert all(np.array_equal(again[name], values) for name, values in first.items())


def test_threads_look_side_by_side_and_each_sees_what_it_would_alone(palace: Subject, coffee: Subject) -> None:
    pictures = [palace.pixels, coffee.pixels] * 3
    alone = [look(pixels, 320) for pixels in pictures[:2]] * 3
    meet = threading.Barrier(3)

    def mine(_: int) -> models.Network:
        meet.wait(60)  # three threads, not one that is faster
        return models.network("nanodet")

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(mine, range(3)))) == 3
        together = list(pool.map(lambda pixels: look(pixels, 320), pictures))
    for here, there in zip(alone, together, strict=True):
        assert all(np.array_equal(here[name], there[name]) for name in here)
    assert models.network("nanodet") is models.network("nanodet")


def test_the_detector_sees_the_same_with_any_number_of_threads(
    coffee: Subject, capfd: pytest.CaptureFixture[str]
) -> None:
    before, seen = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 3, 1):
            cv2.setNumThreads(threads)
            seen.append(look(coffee.pixels, 320))
    finally:
        cv2.setNumThreads(before)
    for other in seen[1:]:
        assert all(np.array_equal(other[name], values) for name, values in seen[0].items())
    # ncnn says there where a network is run with other threads than it was read for, and takes those.
    assert capfd.readouterr().err == ""


def test_a_damaged_model_file_is_one_sentence(tmp_path: Path) -> None:
    shutil.copytree(models.FOLDER, tmp_path / "models")
    data = bytearray((tmp_path / "models" / "stuff.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "models" / "stuff.npz").write_bytes(data)
    with pytest.raises(EngineError, match=r"stuff\.npz is damaged: .*; install EDI again\.$"):
        models.read("stuff.npz", tmp_path / "models")
    (tmp_path / "models" / "stuff.npz").unlink()
    with pytest.raises(EngineError, match=r"stuff\.npz cannot be read .*; install EDI again\.$"):
        models.read("stuff.npz", tmp_path / "models")


def test_every_model_file_is_whole_and_has_its_source() -> None:
    sources = (models.FOLDER / "SOURCES.md").read_text("utf-8")
    names = [path.name for path in models.FOLDER.iterdir() if path.suffix in digests.KINDS]
    assert len(names) == 4
    for name in names:
        assert models.read(name)
        assert f"`{name}`" in sources
    assert all((models.FOLDER / licence).is_file() for licence in re.findall(r"`(LICENSE-[^`]+)`", sources))


def test_a_box_found_twice_is_one_thing() -> None:
    sure = Thing("cat", 0.9, (0.1, 0.1, 0.5, 0.5))
    same = Thing("cat", 0.6, (0.12, 0.1, 0.5, 0.52))
    other = Thing("cat", 0.6, (0.6, 0.1, 0.9, 0.5))
    as_dog = Thing("dog", 0.5, (0.1, 0.1, 0.5, 0.5))
    assert each_once([same, other, as_dog, sure]) == [sure, other]


def test_people_side_by_side_share_no_pixel() -> None:
    pixels = open_photo(SAMPLES / "astronaut.png").pixels
    twins = np.concatenate([pixels[:, :400], pixels[:, :400]], axis=1)
    left, right = person_mattes(twins, [Thing("person", 0.9, (0, 0, 0.5, 1)), Thing("person", 0.9, (0.5, 0, 1, 1))])
    assert left[:, :350].max() > 0.9
    assert right[:, 450:].max() > 0.9
    assert np.minimum(left, right).max() == 0


def test_the_rim_of_sky_beside_a_tower_is_sky_up_to_the_edge_of_the_tower_and_no_farther() -> None:
    pixels = np.full((200, 300, 3), (120, 165, 225), np.uint8)
    pixels[60:, 130:170] = (140, 80, 50)
    tower = (pixels == (140, 80, 50)).all(axis=2)
    seen_too_wide = np.asarray(cv2.dilate(tower.astype(np.uint8), np.ones((41, 41), np.uint8)), bool)
    likely = np.where(seen_too_wide, 0.2, 0.95).astype(np.float32)
    sky = parts._up_to_edges(measure(pixels), ~seen_too_wide, likely)
    assert not (sky & shrink_mask(tower, 5)).any()
    assert (sky | grow(tower, 5)).all()


def test_where_the_head_is_sure_that_there_is_no_sky_a_wall_of_its_colour_stays_a_wall() -> None:
    pixels = np.full((200, 300, 3), (200, 205, 210), np.uint8)
    where = np.zeros((200, 300), bool)
    where[:100] = True
    likely = np.where(where, 0.95, 0.01).astype(np.float32)
    assert (parts._up_to_edges(measure(pixels), where, likely) == where).all()
