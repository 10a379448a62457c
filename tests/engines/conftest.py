"""Photos and scenes that the engine tests share; analysis is slow enough to be done once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage

from edi_storage.models import SceneAnalysis
from flows.engines.analysis import EmbeddedAnalyzer
from flows.engines.base import Mask, Pixels, Scene
from flows.engines.photo import open_photo

EXAMPLES = Path(__file__).parents[2] / "flows" / "examples"
SAMPLES = Path(skimage.__file__).parent / "data"


class Subject:
    """A photo with its analysis, as the stages hand it on."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.found: Scene = EmbeddedAnalyzer().analyze(pixels)
        self.scene = SceneAnalysis(
            entities=[detection.entity for detection in self.found.detections],
            spatial_layout=self.found.spatial_layout,
        )
        self.masks: dict[str, Mask] = {d.entity.entity_id: d.mask for d in self.found.detections}

    @property
    def labels(self) -> list[str]:
        return [entity.label for entity in self.scene.entities]


@pytest.fixture(scope="session")
def palace() -> Subject:
    return Subject(open_photo(EXAMPLES / "palace.jpg").pixels)


@pytest.fixture(scope="session")
def coffee() -> Subject:
    return Subject(open_photo(SAMPLES / "coffee.png").pixels)


@pytest.fixture(scope="session")
def cat() -> Subject:
    return Subject(open_photo(SAMPLES / "chelsea.png").pixels)


@pytest.fixture(scope="session")
def rocket() -> Subject:
    return Subject(open_photo(SAMPLES / "rocket.jpg").pixels)


def landscape(height: int = 240, width: int = 320) -> Pixels:
    """A blue sky that pales to the horizon over textured grass."""
    random = np.random.default_rng(1)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array([90, 150, 225], np.float32) + rows * np.array([110, 70, 20], np.float32)
    grass = np.array([70, 120, 40], np.float32) + random.normal(0, 22, (height, width, 1)).astype(np.float32)
    picture = np.where(rows < 0.55, np.broadcast_to(sky, (height, width, 3)), grass)
    return np.clip(picture + random.normal(0, 1, (height, width, 3)), 0, 255).astype(np.uint8)


def curtain(height: int = 240, width: int = 320) -> Pixels:
    """A grey curtain in folds that fills the upper three quarters of a room."""
    random = np.random.default_rng(2)
    folds = 150 + 28 * np.sin(np.arange(width) / 9.0)[None, :, None] + np.zeros((height, 1, 3))
    floor = np.array([120, 85, 60]) + random.normal(0, 14, (height, width, 1))
    rows = np.linspace(0, 1, height)[:, None, None]
    picture = np.where(rows < 0.75, folds, floor) + random.normal(0, 1.5, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def wall(height: int = 240, width: int = 320) -> Pixels:
    """A plain light wall, brighter where the lamp is, above a wooden table."""
    random = np.random.default_rng(3)
    across = np.linspace(0, 1, width)[None, :, None]
    light = np.array([205, 198, 186]) + 30 * (across - 0.5) + np.zeros((height, 1, 1))
    table = np.array([140, 90, 50]) + random.normal(0, 10, (height, width, 1))
    rows = np.linspace(0, 1, height)[:, None, None]
    return np.clip(np.where(rows < 0.7, light, table) + random.normal(0, 1, (height, width, 3)), 0, 255).astype(
        np.uint8
    )
