"""Photos with masks drawn by hand, roughly, as a person would: independent of what the analyzer finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import skimage

from edi_storage.models import EntityData, SceneAnalysis
from flows.engines.base import Mask, Pixels
from flows.engines.photo import open_photo

_EXAMPLES = Path(__file__).parents[2] / "flows" / "examples"
_SAMPLES = Path(skimage.__file__).parent / "data"

Outline = list[tuple[float, float]]


@dataclass(frozen=True)
class DrawnScene:
    """A photo, its entities and their masks."""

    pixels: Pixels
    masks: dict[str, Mask]

    @property
    def analysis(self) -> SceneAnalysis:
        """The scene as analysis would describe it."""
        entities = [
            EntityData(
                entity_id=name, label=name.rsplit("_", 1)[0], confidence=1, area_percent=100 * float(mask.mean())
            )
            for name, mask in self.masks.items()
        ]
        return SceneAnalysis(entities=entities, spatial_layout="drawn by hand")


#: In fractions of width and height. What stands first lies in front of what comes later.
_OUTLINES: dict[str, dict[str, Outline]] = {
    "palace": {
        "building_0": [
            *((0.32, 0.07), (0.34, 0.14), (0.43, 0.24), (0.5, 0.28), (0.49, 0.31), (0.47, 0.36), (0.51, 0.4)),
            *((0.5, 0.44), (0.5, 0.55), (0.55, 0.59), (0.52, 0.72), (0.57, 0.8), (0.5, 0.86), (0.45, 0.95)),
            *((0.3, 0.84), (0.2, 0.78), (0.12, 0.76), (0.12, 0.65), (0.1, 0.6), (0.15, 0.55), (0.15, 0.45)),
            *((0.13, 0.4), (0.18, 0.37), (0.18, 0.31), (0.15, 0.29), (0.15, 0.25), (0.25, 0.21), (0.3, 0.14)),
        ],
        "tree_0": [(0.88, 0.4), (0.93, 0.31), (1, 0.34), (1, 1), (0.9, 1), (0.86, 0.6)],
        "vegetation_0": [
            *((0, 0.72), (0.1, 0.8), (0.22, 0.78), (0.36, 0.86), (0.48, 0.93), (0.55, 0.82), (0.68, 0.7)),
            *((0.82, 0.62), (0.9, 0.7), (0.9, 1), (0, 1)),
        ],
        "water_0": [(0.52, 0.53), (0.86, 0.51), (0.87, 0.6), (0.7, 0.68), (0.56, 0.76), (0.52, 0.62)],
        "sky_0": [(0, 0), (1, 0), (1, 0.3), (0.86, 0.42), (0.52, 0.45), (0.1, 0.45), (0.02, 0.4), (0, 0.3)],
    },
    "rocket": {
        "rocket_0": [
            (0.505, 0.3),
            (0.515, 0.33),
            (0.525, 0.42),
            (0.52, 0.94),
            (0.48, 0.94),
            (0.482, 0.42),
            (0.49, 0.33),
        ],
        "tower_0": [(0.08, 0), (0.14, 0), (0.11, 1), (0, 1), (0.0, 0.85)],
        "tower_1": [(0.87, 0), (0.94, 0), (1, 0.6), (1, 1), (0.9, 1)],
        "sky_0": [(0, 0), (1, 0), (1, 0.84), (0, 0.84)],
    },
    "cat": {
        "eye_0": [(0.31, 0.29), (0.36, 0.28), (0.42, 0.32), (0.46, 0.42), (0.44, 0.49), (0.36, 0.46), (0.31, 0.4)],
        "nose_0": [(0.52, 0.76), (0.58, 0.78), (0.65, 0.77), (0.61, 0.83), (0.57, 0.89), (0.54, 0.83)],
        "cat_0": [
            *((0.12, 0), (0.86, 0), (0.8, 0.25), (0.8, 0.5), (0.72, 0.65), (0.7, 0.85), (0.68, 1), (0.05, 1)),
            *((0, 0.8), (0, 0.5), (0.08, 0.35), (0.1, 0.1)),
        ],
        "background_0": [(0.9, 0.05), (1, 0), (1, 1), (0.78, 1), (0.76, 0.7), (0.84, 0.5), (0.84, 0.25)],
    },
    "coffee": {
        "spoon_0": [(0.55, 0.62), (0.61, 0.6), (0.675, 0.7), (0.67, 0.78), (0.6, 0.815), (0.545, 0.76), (0.54, 0.68)],
        "cup_0": [
            *((0.3, 0.15), (0.37, 0.07), (0.5, 0.045), (0.6, 0.08), (0.67, 0.18), (0.68, 0.3), (0.63, 0.52)),
            *(
                (0.52, 0.6),
                (0.42, 0.62),
                (0.41, 0.72),
                (0.36, 0.77),
                (0.33, 0.72),
                (0.38, 0.6),
                (0.31, 0.5),
                (0.29, 0.3),
            ),
        ],
        "saucer_0": [
            *((0.28, 0.24), (0.7, 0.28), (0.78, 0.42), (0.8, 0.58), (0.76, 0.76), (0.66, 0.91), (0.52, 0.95)),
            *((0.36, 0.9), (0.22, 0.77), (0.14, 0.58), (0.13, 0.45), (0.2, 0.31)),
        ],
        "table_0": [(0.3, 0), (1, 0), (1, 1), (0, 1), (0, 0.4)],
    },
}

_FILES = {
    "palace": _EXAMPLES / "palace.jpg",
    "rocket": _SAMPLES / "rocket.jpg",
    "cat": _SAMPLES / "chelsea.png",
    "coffee": _SAMPLES / "coffee.png",
}


@cache
def scene(name: str) -> DrawnScene:
    """A scene by name: "palace", "rocket", "cat", "coffee", or the painted "meadow", with a red ball and a post."""
    if name == "meadow":
        return _meadow()
    pixels = open_photo(_FILES[name]).pixels
    return DrawnScene(pixels, _masks(pixels.shape, _OUTLINES[name]))


def _masks(shape: tuple[int, ...], outlines: dict[str, Outline]) -> dict[str, Mask]:
    height, width = shape[:2]
    taken = np.zeros((height, width), np.uint8)
    masks = {}
    for name, outline in outlines.items():
        area = np.zeros((height, width), np.uint8)
        cv2.fillPoly(area, [np.rint(np.array(outline) * (width - 1, height - 1)).astype(np.int32)], 1)
        area[taken > 0] = 0
        taken |= area
        masks[name] = np.asarray(cv2.GaussianBlur(area.astype(np.float32), (0, 0), 1.0), dtype=np.float32)
    return masks


#: The ball's centre and radius, and the post's box, in pixels of the meadow of 480 x 360.
_BALL, _POST = (330, 262, 26), (96, 150, 110, 300)


def _meadow() -> DrawnScene:
    shape = (360, 480)
    ball, post, grass = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    cv2.circle(ball, _BALL[:2], _BALL[2], 1.0, -1)
    post[_POST[1] : _POST[3], _POST[0] : _POST[2]] = 1
    grass[190:] = 1
    grass *= (1 - ball) * (1 - post)
    sky = np.zeros(shape, np.float32)
    sky[:180] = 1
    sky *= 1 - post
    return DrawnScene(meadow(), {"ball_0": ball, "post_0": post, "grass_0": grass, "sky_0": sky})


def meadow(ball: bool = True, seed: int = 7) -> Pixels:
    """A blue sky over grass with a wooden post and a red ball, 480 x 360; without the ball there is grass."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 1, 360, dtype=np.float64)[:, None, None]
    picture = np.array([70, 130, 215]) + rows * np.array([160, 120, 50]) + np.zeros((360, 480, 1))
    blades = cv2.GaussianBlur(random.normal(0, 60, (360, 480)), (0, 0), 0.8, sigmaY=2.0)[..., None]
    grass = np.array([80, 125, 45]) + blades
    picture = np.where(rows > 0.52, grass, picture)
    picture[_POST[1] : _POST[3], _POST[0] : _POST[2]] = (120, 85, 55)
    if ball:
        _draw_ball(picture)
    return np.clip(picture + random.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)


def _draw_ball(picture: np.ndarray) -> None:
    x, y, radius = _BALL
    down, across = np.mgrid[: picture.shape[0], : picture.shape[1]]
    inside = (across - x) ** 2 + (down - y) ** 2 <= radius**2
    light = 1.15 - 0.5 * np.hypot(across - x + 9, down - y + 9) / radius
    picture[inside] = (np.array([205, 40, 35]) * light[..., None])[inside]
