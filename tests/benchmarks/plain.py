"""A dramatic sky as a plain OpenCV script: the same steps as the engines, each written down the straight way.

Find the sky (GrabCut on a small copy, matte by the guided filter), deepen it (structure by the guided filter, darker
to the top, split tone, soft mask), measure what changed (CIEDE2000 and SSIM inside and outside the sky), all on whole
pictures. It stores no session, tells no progress, takes no care of seams along roofs, and knows only this one edit.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Picture = Any


def find_sky(picture: Picture) -> Picture:
    """The mask of the sky, 0..1, of an RGB uint8 picture: GrabCut from its upper fifth at 640 pixels."""
    height, width = picture.shape[:2]
    factor = 640 / max(height, width)
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    marks = np.full(small.shape[:2], cv2.GC_PR_BGD, np.uint8)
    marks[: small.shape[0] // 3] = cv2.GC_PR_FGD
    marks[small.shape[0] // 2 :] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(small, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    sky = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.float32)
    guide = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    large = cv2.resize(sky, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(cv2.ximgproc.guidedFilter(guide, large, round(8 / factor), 1e-4), 0, 1)


def clouds(shape: tuple[int, ...]) -> Picture:
    """Fractal noise of the size of the picture, -1..1."""
    random, total = np.random.default_rng(0), np.zeros(shape[:2], np.float32)
    for octave in range(7):
        cells = (2 + 2**octave, 3 + 2 ** (octave + 1))
        noise = random.uniform(-1, 1, cells).astype(np.float32)
        total += 0.55**octave * cv2.resize(noise, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, -1, 1)


def make_dramatic(picture: Picture, mask: Picture, strength: float = 0.6) -> Picture:
    """The edited RGB uint8 picture."""
    rgb = picture.astype(np.float32) / 255
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    base = cv2.ximgproc.guidedFilter(light, light, max(light.shape) // 40, 0.004)
    mean = float((light * mask).sum() / mask.sum())
    first, *_, last = np.flatnonzero((mask > 0.5).any(axis=1)).tolist()
    down = np.clip((np.arange(len(mask), dtype=np.float32) - first) / (last - first), 0, 1)[:, None]
    new = mean * (1 - 0.46 * strength) + 1.4 * (base - mean)
    new = new * (1 - 0.5 * strength * (1 - down) ** 1.5)
    new = new * (1 + 0.4 * strength * clouds(light.shape))
    new = np.clip(new + (1 + 2.2 * strength) * (light - base), 0.015, 1)
    toned = rgb * (0.76 * new / np.maximum(light, 0.02))[..., None] + 0.24 * new[..., None]
    mix = np.clip((new - 0.15) / 0.7, 0, 1)[..., None]
    paint = np.array([0.10, 0.17, 0.28], np.float32) * (1 - mix) + np.array([0.76, 0.86, 0.95], np.float32) * mix
    paint = paint * (new / cv2.cvtColor(paint, cv2.COLOR_RGB2GRAY))[..., None]
    toned = toned + 0.5 * (paint - toned)
    noise = np.random.default_rng(0).random(light.shape, dtype=np.float32)[..., None] - 0.5
    mixed = (rgb + mask[..., None] * (toned - rgb)) * 255 + noise * (mask[..., None] > 0)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def measure(before: Picture, after: Picture, mask: Picture) -> tuple[float, float]:
    """Mean CIEDE2000 inside and outside the mask, at 640 pixels, and SSIM on the way."""
    from skimage.color import deltaE_ciede2000
    from skimage.metrics import structural_similarity

    factor = 640 / max(before.shape)
    small = [cv2.resize(p, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for p in (before, after)]
    labs = [cv2.GaussianBlur(cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 2.5) for p in small]
    difference = deltaE_ciede2000(*labs)
    structural_similarity(labs[0][..., 0], labs[1][..., 0], data_range=100)
    inside = cv2.resize(mask, (small[0].shape[1], small[0].shape[0]), interpolation=cv2.INTER_AREA)
    return float(np.average(difference, weights=inside)), float(np.average(difference, weights=1 - inside))
