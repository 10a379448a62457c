"""The picture of what an edit changed: hot where it changed, grey where not, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edi_storage.models import EntityDelta
from flows.engines.base import Pixels
from flows.engines.comparing import compare
from flows.engines.heat import delta_picture
from tests.quality.edits import on, stops
from tests.quality.scenes import scene


def delta(name: str, verdict: str) -> EntityDelta:
    return EntityDelta.model_validate(
        {"entity_id": name, "label": name, "role": "preserve", "verdict": verdict}
        | {"mean_delta_e": 0, "p90_delta_e": 0, "ssim": 1}
    )


def colour(picture: Pixels) -> NDArray[np.floating]:
    """How far each pixel is from grey."""
    return np.ptp(picture.astype(float), axis=2)


def drawn(amount: float, verdict: str = "modified") -> Pixels:
    meadow = scene("meadow")
    edited = on("sky_0", stops(amount))(meadow.pixels, meadow.masks)
    return delta_picture(
        compare(meadow.pixels, edited), meadow.masks, [delta("sky_0", verdict), delta("grass_0", "preserved")]
    )


def test_what_changed_is_coloured_and_the_rest_is_grey() -> None:
    picture = drawn(-1.0)
    assert picture.shape == (374, 480, 3)
    assert colour(picture)[10:170, 120:].min() > 60
    assert colour(picture)[200:355].max() == 0


def test_more_change_is_brighter() -> None:
    weak, strong = drawn(-0.5), drawn(-2.0)
    assert strong[80, 300].astype(int).sum() > weak[80, 300].astype(int).sum() + 60


@pytest.mark.parametrize(
    ("verdict", "channel"), [("modified", 1), ("unintended", 0), ("wrong_direction", 0), ("not_applied", 2)]
)
def test_a_border_has_the_colour_of_its_verdict(verdict: str, channel: int) -> None:
    band = drawn(0.0, verdict)[174:190, 200:400].reshape(-1, 3).astype(int)
    loudest = band[np.argmax(np.ptp(band, axis=1))]
    assert loudest.argmax() == channel
    assert np.ptp(loudest) > 80


def test_the_same_input_gives_the_same_bytes() -> None:
    assert drawn(-1.0).tobytes() == drawn(-1.0).tobytes()


def test_the_order_of_the_entities_does_not_matter() -> None:
    photo = scene("palace")
    deltas = [delta(name, "preserved") for name in photo.masks]
    one, other = (
        delta_picture(compare(photo.pixels, photo.pixels), photo.masks, order) for order in (deltas, deltas[::-1])
    )
    assert one.tobytes() == other.tobytes()


def test_a_result_of_another_size_can_be_drawn() -> None:
    meadow = scene("meadow")
    small = np.ascontiguousarray(meadow.pixels[::2, ::2])
    assert delta_picture(compare(meadow.pixels, small), meadow.masks, []).shape[1] == 256
