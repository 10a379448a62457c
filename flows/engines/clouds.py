"""Invented clouds: fractal noise in perspective, as a layer over a sky that has none, and as a sky of its own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.bands import Floats
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


def fair_weather(gradient: Floats) -> Floats:
    """A blue sky with fair clouds, RGB 0..1, height x width x 3. `gradient` is 0 at its top and 1 at its foot.

    Always the same sky for the same size and gradient.
    """
    height, width = gradient.shape
    depth = np.asarray(1 / (0.20 + 0.9 * (1 - gradient)), dtype=np.float32)
    across = (np.arange(width, dtype=np.float32)[None] - width / 2) / max(height, width) * depth * 2.6
    along = depth * 1.7
    warp = _noise(across * 1.1 + 9.2, along * 1.1 + 4.4, 3)
    across, along = across + 0.16 * warp, along + 0.10 * warp
    body = _noise(across, along, 8)
    lit = body - _noise(across + 0.03, along + 0.07, 8)
    # Clouds lie apart overhead and close up to a thin veil over the horizon.
    density = smoothstep(0.08, 0.55, body) * smoothstep(0.0, 0.25, 1 - gradient) * np.float32(0.96)
    blue = _blue(gradient)
    bright = np.clip(0.90 - 0.16 * smoothstep(0.25, 0.9, body) + 0.5 * np.clip(lit, -0.3, 0.2), 0.55, 0.99)
    cloud = bright[..., None] * np.array([0.985, 0.992, 1.0], dtype=np.float32)
    return np.asarray(blue + density[..., None] * (cloud - blue), dtype=np.float32)


def _blue(gradient: Floats) -> Floats:
    """Deep blue overhead, pale over the horizon."""
    down = smoothstep(-0.15, 1.05, gradient)[..., None]
    zenith = np.array([0.20, 0.42, 0.74], dtype=np.float32)
    horizon = np.array([0.74, 0.85, 0.94], dtype=np.float32)
    return np.asarray(zenith + down * (horizon - zenith), dtype=np.float32)


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
