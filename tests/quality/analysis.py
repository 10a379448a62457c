"""How well the embedded analyzer finds stuff and people, on photos that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines import stuff
from flows.engines.analysis import EmbeddedAnalyzer
from flows.engines.base import Mask, Pixels
from flows.engines.regions import shrink
from tests.quality.figures import Figure
from tests.quality.training.photos import LabelledPhoto, listed, require

_SIDE = 640
#: What a class must reach, intersection over union.
_BARS = {"sky": 0.85, "vegetation": 0.6, "building": 0.6, "ground": None, "water": None}
#: Labels under which nothing is known about vegetation and ground: a mountain has both, and is neither.
_HALF_KNOWN = {"mountain": ("vegetation", "ground")}


def measure() -> list[Figure]:
    """IoU per class, false skies on pictures without any, and the IoU of person mattes."""
    scenes, plain = listed("scene", "test"), listed("plain", "test")
    people = listed("person")
    require([*scenes, *plain, *people])
    return [*_stuff(scenes), _false_sky(plain), _people(people)]


def named(pixels: Pixels, label: str) -> Mask:
    """Where the analyzer says that something is: the sum of the masks of that label."""
    found = [d.mask for d in EmbeddedAnalyzer().analyze(pixels).detections if d.entity.label == label]
    return np.sum(found, axis=0, dtype=np.float32) if found else np.zeros(pixels.shape[:2], np.float32)


def _stuff(photos: list[LabelledPhoto]) -> Iterable[Figure]:
    shared = dict.fromkeys(stuff.CLASSES, 0)
    either = dict.fromkeys(stuff.CLASSES, 0)
    seen = dict.fromkeys(stuff.CLASSES, 0)
    for photo in photos:
        pixels = shrink(photo.pixels(), _SIDE)
        labels = photo.labels(*pixels.shape[:2])
        scene = EmbeddedAnalyzer().analyze(pixels)
        for name in stuff.CLASSES:
            known = (labels != "unsure") & ~np.isin(labels, [k for k, half in _HALF_KNOWN.items() if name in half])
            found = np.zeros(labels.shape, bool)
            for detection in scene.detections:
                if detection.entity.label == name:
                    found |= detection.mask > 0.5
            there = labels == name
            seen[name] += bool(there.any())
            shared[name] += int((found & there & known).sum())
            either[name] += int(((found | there) & known).sum())
    for name in stuff.CLASSES:
        value = shared[name] / max(1, either[name])
        on = f"{len(photos)} held-out photos, {seen[name]} with it"
        yield Figure(f"{name}, intersection over union", value, _BARS[name], on)


def _false_sky(photos: list[LabelledPhoto]) -> Figure:
    wrong = [photo.name for photo in photos if named(shrink(photo.pixels(), _SIDE), "sky").mean() > 0.01]
    on = f"{len(photos)} indoor and close-up photos" + (f" ({', '.join(wrong)})" if wrong else "")
    return Figure("pictures with a false sky", len(wrong), 2, on, at_least=False)


def _people(photos: list[LabelledPhoto]) -> Figure:
    values = []
    for photo in photos:
        pixels = shrink(photo.pixels(), _SIDE)
        drawn = photo.labels(*pixels.shape[:2], margin=0) == "person"
        values.append(_overlap(_near(named(pixels, "person") > 0.5, drawn), drawn))
    return Figure(
        "person mattes, intersection over union", float(np.mean(values)), 0.9, f"{len(photos)} mattes by hand"
    )


def _near(found: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pieces of `found` that touch the drawn person: others in the photo were not drawn."""
    _, numbers = cv2.connectedComponents(found.astype(np.uint8))
    return np.asarray(found & np.isin(numbers, np.unique(numbers[drawn & found])))


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
