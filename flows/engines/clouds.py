"""Invented clouds for a sky that has none: fractal noise in perspective."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.regions import Floats
from flows.engines.tone import smoothstep


def cloud_layer(gradient: Floats) -> Floats:
    """Clouds as a layer seen in perspective: fractal noise, warped by itself, lit from above; -1..1.

    Always the same clouds for the same size: the noise has a fixed seed.
    """
    height, width = gradient.shape
    # Distance to the cloud layer: far at the horizon.
    depth = np.asarray(1 / (0.22 + 0.9 * (1 - gradient)), dtype=np.float32)
    across = (np.arange(width, dtype=np.float32)[None] - width / 2) / max(height, width) * depth * 3.2
    along = depth * 1.9
    warp = _noise(across * 1.3 + 3.1, along * 1.3 + 1.7, 2)
    across, along = across + 0.12 * warp, along + 0.18 * warp
    body = _noise(across, along, 7)
    lit = body - _noise(across + 0.05, along + 0.10, 7)
    heavy = smoothstep(-0.35, 0.50, body)
    fade = smoothstep(0.0, 0.3, 1 - gradient)
    return np.asarray(fade * (0.16 - 0.50 * heavy + 0.55 * np.clip(lit, -0.4, 0.4)), dtype=np.float32)


def _noise(x: NDArray[np.floating], y: NDArray[np.floating], octaves: int) -> Floats:
    """Fractal value noise at the given coordinates (period 64), about -1..1."""
    lattice = np.random.default_rng(20).uniform(-1, 1, (64, 64)).astype(np.float32)
    total, weight = np.zeros(np.broadcast(x, y).shape, dtype=np.float32), 0.0
    x, y = np.broadcast_arrays(x, y)
    for octave in range(octaves):
        scale, share = 2.0**octave, 0.55**octave
        columns = np.mod(x * scale + 17.3 * octave, 64).astype(np.float32)
        lines = np.mod(y * scale + 5.9 * octave, 64).astype(np.float32)
        padded = cv2.copyMakeBorder(lattice, 2, 2, 2, 2, cv2.BORDER_WRAP)
        total += share * np.asarray(cv2.remap(padded, columns + 2, lines + 2, cv2.INTER_CUBIC))
        weight += share
    return np.asarray(total / weight * 1.9, dtype=np.float32)
