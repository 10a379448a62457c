"""Stuff in a photo: sky, vegetation, buildings, ground and water, by a linear head on the detector's features.

`tests/quality/training/train_stuff.py` trained the head on hand-labelled photos: for each class a logistic regression
(stuff against everything else) on what the detector's backbone says about a place at four scales, on its colour, and on
how high in the picture it lies.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Final

import cv2
import numpy as np

from flows.engines import models
from flows.engines.base import Pixels
from flows.engines.regions import Floats, to_lab

CLASSES: Final = ("sky", "vegetation", "building", "ground", "water")
#: The long side at which the network looks for stuff.
SIDE: Final = 416
#: The file of the head: for each layer its mean, its spread and the weights, and the five offsets.
HEAD: Final = "stuff.npz"


def layers(glimpse: Mapping[str, Floats], pixels: Pixels) -> dict[str, Floats]:
    """What the head looks at, each channels x rows x columns: features of four scales, colour and place at stride 8."""
    fine = glimpse["features4"]
    channels, height, width = fine.shape
    fine = fine.reshape(channels, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    coarse = {name: glimpse[name] for name in ("features8", "features16", "features32")}
    return {"features4": fine, **coarse, "colour": _colour_and_place(pixels, height // 2, width // 2)}


def _colour_and_place(pixels: Pixels, height: int, width: int) -> Floats:
    small = cv2.resize(pixels, (width * 8, height * 8), interpolation=cv2.INTER_AREA)
    lab = to_lab(np.asarray(small, dtype=np.uint8))
    mean = np.asarray(cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA))
    square = np.asarray(cv2.resize(lab * lab, (width, height), interpolation=cv2.INTER_AREA))
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    down = np.repeat(((np.arange(height) + 0.5) / height)[:, None], width, axis=1)
    across = np.repeat(np.abs((np.arange(width) + 0.5) / width - 0.5)[None], height, axis=0)
    lightness, a, b = np.moveaxis(mean / 50, 2, 0)
    planes = [lightness, a, b, *np.moveaxis(spread / 10, 2, 0), lightness**2, a * a, b * b]
    planes += [lightness * a, lightness * b, a * b, down, down * down, across]
    return np.stack(planes).astype(np.float32)


@cache
def _head() -> dict[str, Floats]:
    with np.load(io.BytesIO(models.read(HEAD)), allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name], dtype=np.float32) for name in arrays.files}


def probabilities(glimpse: Mapping[str, Floats], pixels: Pixels) -> Floats:
    """How likely each place of a picture is each of CLASSES: classes x height x width of `pixels`, each 0..1."""
    head = _head()
    looked_at = layers(glimpse, pixels)
    size = looked_at["colour"].shape[2:0:-1]
    logits = np.repeat(head["offset"][None, None, :], size[1], axis=0).repeat(size[0], axis=1)
    for name, values in looked_at.items():
        # A weighted sum may be taken before enlarging as well as after it, and there it is cheaper.
        scaled = (values - head[f"{name}_mean"][:, None, None]) / head[f"{name}_spread"][:, None, None]
        part = np.einsum("crw,ck->rwk", scaled, head[f"{name}_weights"], dtype=np.float32)
        logits += cv2.resize(part, size, interpolation=cv2.INTER_LINEAR).reshape(logits.shape)
    likely = 1 / (1 + np.exp(-np.clip(logits, -40, 40)))
    full = cv2.resize(likely, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.moveaxis(np.asarray(full), 2, 0), dtype=np.float32)
