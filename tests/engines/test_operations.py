"""Operations on pixels: what they do, what they leave alone, and that they do it again the same way."""

from __future__ import annotations

import numpy as np
import pytest

from edi_storage.errors import InputError
from edi_storage.models import Operation
from flows.engines.base import Mask, Pixels
from flows.engines.operations import REGISTRY, apply
from flows.engines.regions import to_lab
from tests.engines.conftest import Subject, landscape


def halves(pixels: Pixels) -> dict[str, Mask]:
    left = np.zeros(pixels.shape[:2], np.float32)
    left[:, : pixels.shape[1] // 2] = 1
    return {"left_0": left, "right_0": 1 - left}


def once(pixels: Pixels, name: str, target: str = "image", **parameters: object) -> Pixels:
    return apply(pixels, halves(pixels), [Operation(name=name, target=target, parameters=dict(parameters))])


def lightness(pixels: Pixels) -> float:
    return float(to_lab(pixels)[..., 0].mean())


def chroma(pixels: Pixels) -> float:
    lab = to_lab(pixels)
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def test_no_operations_give_back_every_byte() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3)).astype(np.uint8)
    assert np.array_equal(apply(noise, {}, []), noise)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_operation_changes_its_target_and_nothing_else(name: str) -> None:
    pixels = landscape()
    pixels[40:60, 30:60] = (200, 40, 40)  # something for "remove" to remove
    masks = halves(pixels)
    if name == "remove":
        masks["left_0"][:] = 0
        masks["left_0"][40:60, 30:60] = 1
    edited = apply(pixels, masks, [Operation(name=name, target="left_0")])
    assert edited.dtype == np.uint8
    assert edited.shape == pixels.shape
    assert not np.array_equal(edited[:, :160], pixels[:, :160])
    # dramatic_sky and remove soften their border by a few pixels.
    assert np.array_equal(edited[:, 175:], pixels[:, 175:])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_an_operation_replayed_gives_the_same_bytes(name: str) -> None:
    pixels = landscape(120, 160)
    operation = Operation(name=name, target="left_0")
    assert np.array_equal(apply(pixels, halves(pixels), [operation]), apply(pixels, halves(pixels), [operation]))


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"remove", "dramatic_sky"}))
@pytest.mark.parametrize("grey", [0, 255])
def test_black_and_white_pictures_survive_every_operation(name: str, grey: int) -> None:
    pixels = np.full((40, 60, 3), grey, np.uint8)
    assert once(pixels, name).shape == pixels.shape


def test_exposure_goes_both_ways_and_never_clips_highlights() -> None:
    pixels = landscape()
    up, down = once(pixels, "exposure", stops=1.0), once(pixels, "exposure", stops=-1.0)
    assert lightness(down) < lightness(pixels) - 10 < lightness(pixels) + 5 < lightness(up)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(20, axis=0)
    brighter = once(ramp, "exposure", stops=1.0).astype(int)[:, :, 0].mean(axis=0)
    assert (np.diff(brighter) > -1.5).all()
    assert brighter[250] > brighter[235] + 2


def test_one_stop_doubles_the_light_of_shadows() -> None:
    dark = np.full((40, 40, 3), 40, np.uint8)
    light = (once(dark, "exposure", stops=1.0).mean() / 255) ** 2.2 / (40 / 255) ** 2.2
    assert light == pytest.approx(2.0, rel=0.05)


def test_saturation_warmth_and_contrast_go_both_ways() -> None:
    pixels = landscape()
    assert (
        chroma(once(pixels, "saturation", amount=-0.5))
        < chroma(pixels)
        < chroma(once(pixels, "saturation", amount=0.5))
    )
    warm, cool = once(pixels, "warmth", amount=0.6), once(pixels, "warmth", amount=-0.6)
    assert to_lab(cool)[..., 2].mean() < to_lab(pixels)[..., 2].mean() < to_lab(warm)[..., 2].mean()
    spread = [float(to_lab(once(pixels, "contrast", amount=a))[..., 0].std()) for a in (-0.6, 0.0, 0.6)]
    assert spread == sorted(spread)


def test_grey_stays_grey_when_saturated_or_contrasted() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (50, 50, 1)), 3, axis=2).astype(np.uint8)
    for name in ("saturation", "contrast", "exposure", "clarity", "sharpen", "vignette", "black_and_white"):
        edited = once(grey, name).astype(int)
        assert np.ptp(edited, axis=2).max() <= 1


def test_black_and_white_has_no_colour_and_sepia_is_brown() -> None:
    assert chroma(once(landscape(), "black_and_white")) < 1.5
    sepia = once(landscape(), "sepia", amount=1.0).astype(int)
    assert (sepia[..., 0] >= sepia[..., 1]).mean() > 0.99
    assert (sepia[..., 1] >= sepia[..., 2]).mean() > 0.99


def test_recolouring_keeps_light_and_shade() -> None:
    shaded = np.zeros((60, 256, 3), np.uint8)
    shaded[..., 0] = np.linspace(60, 230, 256)[None]
    shaded[..., 1] = shaded[..., 2] = shaded[..., 0] // 4
    blue = once(shaded, "recolour", color="#2458b8")
    before, after = to_lab(shaded)[30], to_lab(blue)[30]
    assert (np.diff(after[::16, 0]) > 0).all()
    assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] > 0.98
    assert after[128, 2] < -20


def test_background_blur_does_not_bleed_the_subject_into_it() -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[..., 2] = 200
    pixels[40:80, 60:100] = (250, 20, 20)
    subject = np.zeros((120, 160), np.float32)
    subject[40:80, 60:100] = 1
    blur = Operation(name="blur", target="background", parameters={"keep": ["subject_0"], "radius": 0.05})
    edited = apply(pixels, {"subject_0": subject}, [blur])
    assert np.array_equal(edited[40:80, 60:100], pixels[40:80, 60:100])
    assert edited[60, 52].astype(int)[0] < 12


def test_blur_smooths_and_sharpen_roughens() -> None:
    pixels = landscape()
    grass = pixels[150:230, :, 1].astype(float).std()
    assert once(pixels, "blur")[150:230, :, 1].astype(float).std() < 0.5 * grass
    assert once(pixels, "sharpen")[150:230, :, 1].astype(float).std() > 1.05 * grass


def test_a_vignette_darkens_the_corners_only() -> None:
    edited = once(np.full((100, 160, 3), 180, np.uint8), "vignette")
    assert edited[50, 80, 0] == 180
    assert edited[0, 0, 0] < 130


def test_a_removed_spot_is_gone() -> None:
    pixels = landscape()
    pixels[60:80, 100:130] = (200, 30, 30)
    spot = np.zeros((240, 320), np.float32)
    spot[58:82, 98:132] = 1
    edited = apply(pixels, {"spot_0": spot}, [Operation(name="remove", target="spot_0")])
    clean = landscape()[58:82, 98:132].astype(float).mean(axis=(0, 1))
    assert np.abs(edited[58:82, 98:132].astype(float).mean(axis=(0, 1)) - clean).max() < 20
    assert np.array_equal(edited[150:], pixels[150:])


def test_what_fills_a_hole_is_as_sharp_as_what_is_around_it() -> None:
    random = np.random.default_rng(4)
    pixels = np.repeat(random.integers(60, 190, (600, 900, 1)), 3, axis=2).astype(
        np.uint8
    )  # finer than 320 pixels show
    pixels[280:330, 430:500] = (220, 30, 30)
    spot = np.zeros((600, 900), np.float32)
    spot[278:332, 428:502] = 1
    edited = apply(pixels, {"spot_0": spot}, [Operation(name="remove", target="spot_0")])[280:330, 430:500]
    assert edited.astype(float).std() > 0.8 * pixels[100:150, 430:500].astype(float).std()
    assert np.ptp(edited.astype(int), axis=2).max() < 60  # no red is left


def test_a_background_softens_with_its_distance_from_the_foot_of_the_subject() -> None:
    random = np.random.default_rng(5)
    pixels = np.repeat(random.integers(0, 256, (240, 320, 1)), 3, axis=2).astype(np.uint8)
    subject = np.zeros((240, 320), np.float32)
    subject[90:220, 140:180] = 1
    wanted = {"keep": ["subject_0"], "radius": 0.02, "falloff": "depth"}
    edited = apply(pixels, {"subject_0": subject}, [Operation(name="blur", target="background", parameters=wanted)])
    rough = [float(edited[top : top + 20, 200:].astype(float).std()) for top in (200, 170, 140, 60)]
    assert rough == sorted(rough, reverse=True)
    assert rough[0] > 2 * rough[-1]
    assert np.array_equal(edited[90:220, 140:180], pixels[90:220, 140:180])


def test_a_plain_background_leaves_no_rim_of_the_old_one() -> None:
    soft = np.clip((80 - np.hypot(*(np.indices((240, 320)) - np.array([[[120]], [[160]]])))) / 12 + 0.5, 0, 1)
    subject = soft.astype(np.float32)
    mixed = subject[..., None] * np.array([40, 40, 60]) + (1 - subject[..., None]) * np.array([250, 250, 250])
    parameters = {"keep": ["subject_0"], "color": "#103010"}
    fill = Operation(name="fill", target="background", parameters=parameters)
    edited = apply(mixed.astype(np.uint8), {"subject_0": subject}, [fill]).astype(int)
    assert edited.max() < 90  # both colours are dark: what is bright is the old background


def overcast(height: int = 240, width: int = 320) -> tuple[Pixels, dict[str, Mask]]:
    """A pale sky behind a dark slanted roof whose border pixels are mixtures, with a mask that is two pixels off."""
    rows, columns = np.indices((height, width))
    share = np.clip((150 - rows) + (columns - 160) * 0.5 + 0.5, 0, 1)[..., None]
    sky, roof = np.array([205.0, 215.0, 228.0]), np.array([70.0, 62.0, 60.0])
    noise = np.random.default_rng(6).normal(0, 1.5, (height, width, 3))
    pixels = np.clip(share * sky + (1 - share) * roof + noise, 0, 255).astype(np.uint8)
    mask = np.clip((148 - rows) + (columns - 160) * 0.5 + 0.5, 0, 1).astype(np.float32)
    return pixels, {"sky_0": mask}


@pytest.mark.parametrize("mood", ["dramatic", "stormy", "golden", "clear"])
def test_a_new_sky_leaves_no_seam_along_a_roof(mood: str) -> None:
    pixels, masks = overcast()
    parameters = {"mood": mood, "strength": 0.8}
    edited = apply(pixels, masks, [Operation(version=2, name="dramatic_sky", target="sky_0", parameters=parameters)])
    moved = np.abs(edited.astype(int) - pixels).max(axis=2)
    rows, columns = np.indices(moved.shape)
    above = (150 - rows) + (columns - 160) * 0.5  # rows above the border
    inside, seam, roof = (above > 12) & (above < 30), (above > 1.5) & (above < 4), above < -8
    assert moved[inside].mean() > 25
    assert abs(edited[seam].astype(float).mean() - edited[inside].astype(float).mean()) < 14
    assert moved[roof].max() == 0


def test_a_dramatic_sky_does_not_raise_its_noise() -> None:
    pixels = np.clip(np.random.default_rng(8).normal((90, 130, 200), 5, (240, 320, 3)), 0, 255).astype(np.uint8)
    sky = {"sky_0": np.ones((240, 320), np.float32)}
    edited = apply(pixels, sky, [Operation(version=2, name="dramatic_sky", target="sky_0")])
    before, after = (to_lab(p)[100:140, 100:200, 0].std() for p in (pixels, edited))
    assert after < 1.6 * before


def test_a_clear_sky_is_blue_at_its_top_and_pale_over_the_horizon() -> None:
    pixels = landscape()
    pixels[:130] = 190  # overcast
    sky = np.zeros((240, 320), np.float32)
    sky[:132] = 1
    wanted = {"mood": "clear"}
    edited = apply(
        pixels, {"sky_0": sky}, [Operation(version=2, name="dramatic_sky", target="sky_0", parameters=wanted)]
    )
    top, foot = edited[:30].astype(float).mean(axis=(0, 1)), edited[105:120].astype(float).mean(axis=(0, 1))
    assert top[2] - top[0] > 40
    assert foot[0] > top[0] + 30
    assert np.array_equal(edited[140:], pixels[140:])


def test_shadows_and_highlights_move_on_their_own() -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:, :80], pixels[:, 80:] = 50, 210
    lifted, lowered = once(pixels, "tones", shadows=0.6), once(pixels, "tones", shadows=0.0, highlights=-0.8)
    assert lifted[60, 20, 0] > 60
    assert abs(int(lifted[60, 140, 0]) - 210) < 6
    assert lowered[60, 140, 0] < 200
    assert abs(int(lowered[60, 20, 0]) - 50) < 6


def test_a_dark_gradient_has_no_bands() -> None:
    ramp = np.repeat(np.linspace(100, 110, 640)[None, :, None], 200, axis=0).repeat(3, axis=2).round().astype(np.uint8)
    columns = once(ramp, "exposure", stops=-1.6)[..., 0].astype(float).mean(axis=0)
    # Without dithering the mean of a column would move by whole grey levels.
    assert np.abs(np.diff(columns)).max() < 0.7


def test_protected_entities_keep_their_bytes(palace: Subject) -> None:
    darken = Operation(name="exposure", target="image", parameters={"stops": -1.0, "protect": ["building_0"]})
    edited = apply(palace.pixels, palace.masks, [darken])
    solid = palace.masks["building_0"] > 0.999
    assert np.array_equal(edited[solid], palace.pixels[solid])
    assert edited[~solid].mean() < 0.9 * palace.pixels[~solid].mean()


def test_progress_is_called_for_every_operation() -> None:
    seen: list[float] = []
    steps = [Operation(name="exposure"), Operation(name="contrast"), Operation(name="warmth")]
    apply(landscape(60, 80), {}, steps, lambda fraction, message, handles: seen.append(fraction))
    assert len(seen) == 4
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_unknown_operations_targets_and_colours_are_one_sentence() -> None:
    with pytest.raises(InputError, match="There is no operation"):
        once(landscape(60, 80), "teleport")
    with pytest.raises(InputError, match="There is no entity"):
        once(landscape(60, 80), "exposure", target="dog_0")
    with pytest.raises(InputError, match="#rrggbb"):
        once(landscape(60, 80), "tint", color="reddish")
