"""Edits made by plain numpy and OpenCV, not by EDI's editor: what the validator is measured on.

An edit is a function of the pixels (RGB, uint8) and the masks by entity id (0..1) that returns the edited pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.engines.base import Mask, Pixels

Masks = Mapping[str, Mask]
Edit = Callable[[Pixels, Masks], Pixels]
Floats = NDArray[np.float32]


def _bytes(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _linear(pixels: Pixels) -> NDArray[np.floating]:
    """Light from sRGB, by the plain power of 2.2."""
    return (pixels / 255.0) ** 2.2


# --- What happens to every pixel ----------------------------------------------------------------------


def nothing(pixels: Pixels, masks: Masks) -> Pixels:
    """The photo as it is."""
    return pixels


def stops(amount: float) -> Edit:
    """Exposure: light times two to the power of `amount`."""
    return lambda pixels, masks: _bytes(255 * (_linear(pixels) * 2.0**amount).clip(0, 1) ** (1 / 2.2))


def contrast(factor: float) -> Edit:
    """Values spread around the mean of the picture."""
    return lambda pixels, masks: _bytes((pixels - pixels.mean()) * factor + pixels.mean())


def saturation(factor: float) -> Edit:
    """Colours away from (or to) the grey of the same luma."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
        return _bytes(grey + (pixels - grey) * factor)

    return edit


def warmth(amount: float) -> Edit:
    """Red up and blue down by `amount` of 255, or the other way round."""
    return lambda pixels, masks: _bytes(pixels + 255 * amount * np.array([1.0, 0.15, -1.0]))


def hue(degrees: float) -> Edit:
    """Every hue turned by so many degrees."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees / 2)) % 180
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)

    return edit


def blur(sigma: float) -> Edit:
    """Out of focus."""
    return lambda pixels, masks: np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), dtype=np.uint8)


def sharpen(amount: float, sigma: float = 1.2) -> Edit:
    """Unsharp mask; with a large sigma it is local contrast."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        values = pixels.astype(np.float64)
        return _bytes(values + amount * (values - cv2.GaussianBlur(values, (0, 0), sigma)))

    return edit


def paint(colour: tuple[int, int, int], share: float = 1.0) -> Edit:
    """One colour over it; with a share below 1 the light and shade below shows through."""
    return lambda pixels, masks: _bytes(pixels * (1 - share) + np.array(colour) * share)


def dyed(colour: tuple[int, int, int]) -> Edit:
    """Light and shade stay, the hue is another: grey times colour."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        grey = (pixels @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
        return _bytes(grey * np.array(colour) * 1.3)

    return edit


def clouds(depth: float) -> Edit:
    """Dark clouds: smooth noise that takes light away."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        height, width = pixels.shape[:2]
        noise = np.random.default_rng(5).normal(size=(height // 24 + 2, width // 24 + 2))
        field = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        return _bytes(pixels * (1 - depth * np.clip(0.5 + 0.4 * field, 0, 1))[..., None])

    return edit


# --- What a file or a backend does to the whole picture -----------------------------------------------


def jpeg(quality: int) -> Edit:
    """Written as JPEG and read again."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    return edit


def resized(factor: float) -> Edit:
    """Another size, as a backend may return it."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(pixels, size, interpolation=how), dtype=np.uint8)

    return edit


def through(factor: float) -> Edit:
    """Worked on at another size and brought back to its own."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        other = resized(factor)(pixels, masks)
        size = (pixels.shape[1], pixels.shape[0])
        return np.asarray(cv2.resize(other, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)

    return edit


def shifted(x: int, y: int) -> Edit:
    """Moved by whole pixels, the border repeated."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        moved = np.pad(pixels, ((8, 8), (8, 8), (0, 0)), mode="edge")
        return np.ascontiguousarray(moved[8 - y : -8 - y, 8 - x : -8 - x])

    return edit


# --- Where ---------------------------------------------------------------------------------------------


def on(name: str, edit: Edit, grown: int = 0) -> Edit:
    """An edit inside the mask of one entity, `grown` by so many pixels (a spill), its border two pixels soft."""

    def inside(pixels: Pixels, masks: Masks) -> Pixels:
        mask = masks[name]
        if grown:
            mask = np.asarray(cv2.dilate(mask, np.ones((2 * grown + 1, 2 * grown + 1))), dtype=np.float32)
        soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.5), dtype=np.float32)[..., None]
        return _bytes(pixels * (1 - soft) + edit(pixels, masks) * soft)

    return inside


def off(name: str, edit: Edit) -> Edit:
    """An edit everywhere but on one entity."""
    return lambda pixels, masks: on("rest", edit)(pixels, {**masks, "rest": 1 - masks[name]})


def box(left: float, top: float, right: float, bottom: float, edit: Edit) -> Edit:
    """An edit inside a box, in fractions of the picture."""

    def inside(pixels: Pixels, masks: Masks) -> Pixels:
        height, width = pixels.shape[:2]
        mask = np.zeros((height, width), np.float32)
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 1
        return on("box", edit)(pixels, {"box": mask})

    return inside


def both(*edits: Edit) -> Edit:
    """One after the other."""

    def all_of_them(pixels: Pixels, masks: Masks) -> Pixels:
        for edit in edits:
            pixels = edit(pixels, masks)
        return pixels

    return all_of_them


def inpainted(name: str) -> Edit:
    """An entity filled from around it (A. Telea 2004): smooth, but gone."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        hole = cv2.dilate((masks[name] > 0.02).astype(np.uint8), np.ones((9, 9), np.uint8))
        return np.asarray(cv2.inpaint(pixels, hole, 4, cv2.INPAINT_TELEA), dtype=np.uint8)

    return edit


def covered(name: str, x: float, y: float) -> Edit:
    """An entity covered by what is at a distance of it, in fractions of the picture: a clean removal."""

    def edit(pixels: Pixels, masks: Masks) -> Pixels:
        height, width = pixels.shape[:2]
        patch = np.roll(pixels, (round(-y * height), round(-x * width)), (0, 1))
        return on(name, lambda _, __: patch, grown=4)(pixels, masks)

    return edit
