"""Train the stuff head (`flows/engines/models/stuff.npz`) on the photos labelled for training.

    python -m tests.quality.training.photos && python -m tests.quality.training.train_stuff

One logistic regression per class, stuff against everything else, on standardised features with a ridge; each photo
weighs the same. A label that says nothing about a class ("mountain" about vegetation) leaves the photo's place out for
that class. Each photo is seen twice: as it is, and mirrored with its exposure and colours changed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from flows.engines import models, stuff
from flows.engines.base import Pixels
from flows.engines.detection import look
from flows.engines.regions import Floats
from tests.quality.training import digests
from tests.quality.training.photos import LabelledPhoto, listed, require

_PLACES = 300
_RIDGE = 0.01
_ROUNDS = 70
#: Labels that are no class, and the classes of which they say that they are not there.
_ABSENT = {
    "other": stuff.CLASSES,
    "mountain": ("sky", "building", "water"),
    "indoor": ("sky", "building", "water"),
    "unsure": (),
}

Table = NDArray[np.float32]


def answers(labels: NDArray[np.str_]) -> NDArray[np.int8]:
    """For each place and class: 1 it is, 0 it is not, -1 unknown."""
    result = np.full((*labels.shape, len(stuff.CLASSES)), -1, np.int8)
    for index, name in enumerate(stuff.CLASSES):
        result[..., index][np.isin(labels, stuff.CLASSES)] = 0
        result[..., index][labels == name] = 1
        result[..., index][np.isin(labels, [label for label, absent in _ABSENT.items() if name in absent])] = 0
    return result


def changed(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """The mirrored picture with another exposure, gamma and white balance."""
    gains = random.uniform(0.75, 1.2) * random.uniform(0.93, 1.07, 3)
    bent = (pixels[:, ::-1] / 255.0) ** random.uniform(0.8, 1.25)
    return np.clip(255 * bent * gains, 0, 255).astype(np.uint8)


def enlarged(values: Floats, height: int, width: int) -> Table:
    """Channels x rows x columns as rows of places at stride 8."""
    planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in values]
    return np.stack([np.asarray(plane).ravel() for plane in planes], axis=1).astype(np.float32)


def samples(photos: list[LabelledPhoto]) -> Iterator[tuple[dict[str, Table], NDArray[np.int8]]]:
    """Per photo and view: features by layer, and answers, of some hundred places that are labelled."""
    random = np.random.default_rng(0)
    for photo in photos:
        pixels = photo.pixels(640)
        for mirrored in (False, True):
            seen = changed(pixels, random) if mirrored else pixels
            looked_at = stuff.layers(look(seen, stuff.SIDE), seen)
            height, width = looked_at["colour"].shape[1:]
            labels = photo.labels(8 * height, 8 * width)[4::8, 4::8]
            known = answers(labels[:, ::-1] if mirrored else labels).reshape(height * width, -1)
            places = np.flatnonzero((known >= 0).any(axis=1))
            places = np.sort(random.choice(places, min(len(places), _PLACES), replace=False))
            yield {name: enlarged(values, height, width)[places] for name, values in looked_at.items()}, known[places]


def fit(features: Table, known: NDArray[np.int8], weights: NDArray[np.float64]) -> Table:
    """Weights and, in the last row, offsets: (features + 1) x classes."""
    count, classes = features.shape[1], known.shape[1]
    signs = np.where(known == 1, 1.0, -1.0).astype(np.float32)
    counted = (weights[:, None] * (known >= 0)).astype(np.float32) / len(features)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        head = flat.reshape(count + 1, classes).astype(np.float32)
        margins = signs * (features @ head[:-1] + head[-1])
        value = float((np.logaddexp(0, -margins) * counted).sum() + _RIDGE / 2 * (head[:-1] ** 2).sum())
        slope = -signs / (1 + np.exp(np.clip(margins, -40, 40))) * counted
        gradient = np.concatenate([features.T @ slope + _RIDGE * head[:-1], slope.sum(axis=0)[None]])
        return value, gradient.ravel().astype(np.float64)

    start = np.zeros((count + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    return found.x.reshape(count + 1, classes).astype(np.float32)


def train(photos: list[LabelledPhoto]) -> dict[str, Table]:
    """The arrays of the head's file."""
    views = [view for view in samples(photos) if len(view[1])]
    known = np.concatenate([answer for _, answer in views])
    weights = np.concatenate([np.full(len(answer), 1 / len(answer)) for _, answer in views])
    head: dict[str, Table] = {}
    columns: list[Table] = []
    for name in views[0][0]:
        table = np.concatenate([layer[name] for layer, _ in views])
        head[f"{name}_mean"], head[f"{name}_spread"] = table.mean(axis=0), table.std(axis=0) + 1e-3
        columns.append((table - head[f"{name}_mean"]) / head[f"{name}_spread"])
    found = fit(np.concatenate(columns, axis=1), known, weights / weights.mean())
    start = 0
    for name, table in zip(views[0][0], columns, strict=True):
        head[f"{name}_weights"] = found[start : start + table.shape[1]]
        start += table.shape[1]
    return head | {"offset": found[-1]}


def main() -> None:
    cv2.setNumThreads(1)
    photos = [photo for photo in listed(split="train") if photo.kind != "person"]
    require(photos)
    buffer = io.BytesIO()
    np.savez(buffer, **train(photos))  # type: ignore[arg-type]
    (models.FOLDER / stuff.HEAD).write_bytes(buffer.getvalue())
    digests.write()
    print(f"{stuff.HEAD}: {len(buffer.getvalue()):,} bytes from {len(photos)} photos")


if __name__ == "__main__":
    main()
