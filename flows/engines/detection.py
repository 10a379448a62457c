"""Things in a photo: the detector NanoDet finds the 80 kinds of COCO, and its features serve `stuff.py` as well.

NanoDet (github.com/RangiLyu/nanodet) predicts, for each cell of three grids, a score per kind and the distances
from the cell's centre to the four sides of a box, each as a distribution over 0..10 strides ("Generalized Focal
Loss", arXiv:2006.04388).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines import models
from flows.engines.base import Pixels
from flows.engines.regions import Floats

#: The names of COCO, in the order of the network's scores.
LABELS: Final = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
_STRIDES: Final = (8, 16, 32)
_BINS: Final = 11
#: Mean and deviation of the pictures that it was trained on, blue, green, red.
_MEAN: Final = np.array([103.53, 116.28, 123.675], np.float32)
_SPREAD: Final = np.array([57.375, 57.12, 58.395], np.float32)
#: Two boxes of one kind that overlap more are one thing; of two kinds, one thing seen as two.
_SAME: Final = 0.5
_SAME_PLACE: Final = 0.8


@dataclass(frozen=True)
class Thing:
    """One detected thing. The box is left, top, right, bottom as fractions of the picture."""

    label: str
    confidence: float
    box: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        """Area of the box as a fraction of the picture."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def look(pixels: Pixels, side: int) -> Mapping[str, Floats]:
    """Everything that the network says about a picture, scaled to a long side of `side`: "level8", "features8", ..."""
    height, width = (max(64, round(length * side / max(pixels.shape[:2]) / 32) * 32) for length in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    bgr = small[..., ::-1].astype(np.float32)
    return models.network("nanodet").run((bgr - _MEAN) / _SPREAD)


def find_things(glimpse: Mapping[str, Floats], least: float) -> list[Thing]:
    """The things found with a confidence of at least `least`, surest first, each once."""
    height, width = (32 * size for size in glimpse["level32"].shape[1:])
    candidates = [_decode(glimpse[f"level{stride}"], stride, least) for stride in _STRIDES]
    scores = np.concatenate([scores for scores, _, _ in candidates])
    kinds = np.concatenate([kinds for _, kinds, _ in candidates])
    boxes = np.concatenate([boxes for _, _, boxes in candidates])
    boxes = np.clip(boxes / np.array([width, height, width, height]), 0, 1)
    found = []
    for score, kind, box in zip(scores, kinds, boxes, strict=True):
        left, top, right, bottom = (float(value) for value in box)
        found.append(Thing(LABELS[kind], float(score), (left, top, right, bottom)))
    return each_once(found)


def each_once(things: Iterable[Thing]) -> list[Thing]:
    """The things, surest first, without those that another box has found already."""
    found: list[Thing] = []
    for thing in sorted(things, key=lambda thing: -thing.confidence):
        if all(overlap(thing, other) < (_SAME if thing.label == other.label else _SAME_PLACE) for other in found):
            found.append(thing)
    return found


def overlap(one: Thing, other: Thing) -> float:
    """Intersection over union of two boxes."""
    across = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    down = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    shared = max(0.0, across) * max(0.0, down)
    return shared / max(one.area + other.area - shared, 1e-9)


def _decode(
    level: Floats, stride: int, least: float
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Scores, kinds and boxes (in pixels of the network's picture) of the cells of one grid that are sure enough."""
    count = len(LABELS)
    scores = 1 / (1 + np.exp(-level[:count].astype(np.float64)))
    rows, columns = np.nonzero(scores.max(axis=0) >= least)
    kinds = scores[:, rows, columns].argmax(axis=0)
    bins = level[count:, rows, columns].astype(np.float64).reshape(4, _BINS, -1)
    bins = np.exp(bins - bins.max(axis=1, keepdims=True))
    distances = stride * (bins * np.arange(_BINS)[None, :, None]).sum(axis=1) / bins.sum(axis=1)
    x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
    boxes = np.stack([x - distances[0], y - distances[1], x + distances[2], y + distances[3]], axis=1)
    return scores[kinds, rows, columns], kinds, boxes
