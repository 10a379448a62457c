"""Looks by name: each is a short list of operations, written for the usual strength (0.6) and scaled with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Parameters that say how much, and the most they can be; the others (colours, a pivot) are the same at any strength.
_SCALED: Final[Mapping[str, float]] = {"amount": 1.0, "stops": 5.0, "shadows": 1.0, "highlights": 1.0, "radius": 0.1}
#: What belongs to the frame of the picture and not to a thing in it.
_OF_THE_FRAME: Final = ("vignette",)

_Steps = tuple[tuple[str, Mapping[str, Any]], ...]

PRESETS: Final[Mapping[str, _Steps]] = {
    # Light and open: lifted shadows, little contrast, a breath of warmth.
    "airy": (
        ("exposure", {"stops": 0.35}),
        ("tones", {"shadows": 0.35, "highlights": -0.1}),
        ("saturation", {"amount": -0.12}),
        ("warmth", {"amount": 0.08}),
        ("fade", {"amount": 0.15}),
    ),
    # Teal shadows, orange lights, firm contrast.
    "cinematic": (
        ("contrast", {"amount": 0.28}),
        ("split_tone", {"shadows": "#0f4c5c", "lights": "#e8a15a", "amount": 0.5}),
        ("saturation", {"amount": -0.08}),
        ("vignette", {"amount": 0.32}),
    ),
    # Colour negative film: warm lights, greenish shadows, grain.
    "film": (
        ("contrast", {"amount": 0.18}),
        ("split_tone", {"shadows": "#2f4a3c", "lights": "#f6d08a", "amount": 0.35}),
        ("fade", {"amount": 0.25}),
        ("grain", {"amount": 0.45}),
    ),
    # Blacks lifted, soft colours.
    "matte": (
        ("fade", {"amount": 0.6}),
        ("saturation", {"amount": -0.15}),
        ("contrast", {"amount": 0.12}),
    ),
    # Dark, cool and quiet.
    "moody": (
        ("exposure", {"stops": -0.4}),
        ("contrast", {"amount": 0.3}),
        ("saturation", {"amount": -0.28}),
        ("split_tone", {"shadows": "#1d2b48", "lights": "#d8c8b0", "amount": 0.3}),
        ("fade", {"amount": 0.12}),
        ("vignette", {"amount": 0.4}),
    ),
    # Black and white with hard light and deep corners.
    "noir": (
        ("black_and_white", {"amount": 1.0}),
        ("contrast", {"amount": 0.5}),
        ("vignette", {"amount": 0.5}),
        ("grain", {"amount": 0.35}),
    ),
    # An old colour print: faded, warm, with grain.
    "vintage": (
        ("saturation", {"amount": -0.22}),
        ("warmth", {"amount": 0.28}),
        ("split_tone", {"shadows": "#3a4a6a", "lights": "#f2d7a0", "amount": 0.35}),
        ("fade", {"amount": 0.5}),
        ("vignette", {"amount": 0.35}),
        ("grain", {"amount": 0.3}),
    ),
}


def preset(name: str, strength: float, *, whole: bool) -> list[tuple[str, dict[str, Any]]]:
    """The operations of a preset (a key of `PRESETS`) at a strength of 0..1; on a thing, without those of the frame."""
    factor = strength / 0.6
    return [
        (operation, {key: scaled(key, value, factor) for key, value in parameters.items()})
        for operation, parameters in PRESETS[name]
        if whole or not of_the_frame(operation)
    ]


def scaled(key: str, value: Any, factor: float) -> Any:
    """A parameter of an operation at another strength, `factor` times as much; what is no amount stays."""
    if key not in _SCALED or isinstance(value, str) or factor == 1:
        return value
    most = _SCALED[key]
    return round(max(-most, min(most, float(value) * factor)), 5 if key == "radius" else 3)


def of_the_frame(operation: str) -> bool:
    """Whether an operation works on the frame of a picture, so that it is left out on a thing."""
    return operation in _OF_THE_FRAME
