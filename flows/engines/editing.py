"""The embedded editor: an intent becomes a list of parametric operations, replayed from the original."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edi_storage.errors import UnsupportedEditError
from edi_storage.models import Intent, Operation
from flows.engines.arms import arm_of, in_the_way_of, without_arm
from flows.engines.base import EditOutcome, EditRequest, Progress, Variations, no_progress
from flows.engines.operations import apply
from flows.engines.parameters import MOODS, VERSION
from flows.engines.presets import PRESETS, preset
from flows.engines.sky import flatness
from flows.engines.steps import Step, steps_for
from flows.engines.variations import vary

#: How much one "stronger" or "weaker" moves the strength.
_HINT_STEP: Final = 0.2
#: What is larger than this (percent of the picture) cannot be filled from its surroundings without being noticed.
_MOST_REMOVABLE: Final = 12.0


@dataclass(frozen=True)
class _Hints:
    """What earlier attempts and people said should be different."""

    strength: float = 0.0
    protect: tuple[str, ...] = ()
    feather: float = 0.0


class EmbeddedEditor:
    """Edits in pixel space on the CPU."""

    name = "embedded"
    version = "3"

    def edit(self, request: EditRequest, progress: Progress = no_progress) -> EditOutcome:
        """Plan and apply. Raises UnsupportedEditError, naming the backend that can, for what pixels cannot do."""
        operations = plan(request)
        pixels = apply(request.pixels, request.masks, operations, progress)
        return EditOutcome(pixels, operations)

    def vary(self, request: EditRequest, count: int, progress: Progress = no_progress) -> Variations:
        """Up to `count` variations, the first as `edit` makes it. Raises UnsupportedEditError, as `edit` does."""
        return vary(request, count, plan, progress)


def plan(request: EditRequest, steps: Sequence[Step] | None = None) -> list[Operation]:
    """The operations for an intent: its steps, stronger or weaker and with protection as the hints say.

    `steps` are done in place of those that the intent and its prompt say.
    """
    hints = _read_hints(request.hints, request.masks)
    limits = _limits(request.intent)
    operations: list[Operation] = []
    for step in steps_for(request.intent, request.prompt.positive_prompt) if steps is None else steps:
        planner = _PLANNERS.get(step.action)
        if planner is None:
            raise UnsupportedEditError(
                f"The embedded editor cannot do '{step.action or request.intent.edit_type}': set EDI_EDITOR=comfyui "
                "with a ComfyUI server, or ask for a change of light, colour or focus."
            )
        strength = min(1.0, max(0.1, step.strength + hints.strength))
        arm = arm_of(step)
        bare = without_arm(step, arm)
        for target, common in _areas(step, request):
            planned = planner(strength, bare, target, request)
            for name, parameters in in_the_way_of(arm, planned, strength, whole=target == "image"):
                extra = _shared(target, common, hints) | limits
                operations.append(
                    Operation(version=VERSION, name=name, target=target, parameters={**parameters, **extra})
                )
    return operations


def _areas(step: Step, request: EditRequest) -> list[tuple[str, dict[str, Any]]]:
    """Where a step works: the image, everything but what is kept, or one entity after the other."""
    if step.scope == "whole" or not request.masks:
        return [("image", {})]
    if step.scope == "background":
        # The region lies over the others: it limits what is changed, and is no part of the picture to keep.
        region = request.intent.parameters.get("within")
        return [("background", {"keep": [name for name in request.masks if name not in (*step.targets, region)]})]
    return [(target, {}) for target in step.targets if target in request.masks]


def _shared(target: str, common: Mapping[str, Any], hints: _Hints) -> dict[str, Any]:
    shared = dict(common)
    protect = [name for name in hints.protect if name != target]
    if protect and target != "image":
        shared["protect"] = protect
    if hints.feather and target != "image":
        shared["feather"] = hints.feather
    return shared


def _limits(intent: Intent) -> dict[str, Any]:
    """Where the person wants nothing changed, for every operation."""
    within, untouched = intent.parameters.get("within"), intent.parameters.get("protect")
    return ({"within": within} if within else {}) | ({"untouched": list(untouched)} if untouched else {})


def _read_hints(hints: Sequence[str], masks: Mapping[str, Any]) -> _Hints:
    """Understands the validator's hints ("stronger", "protect sky_0") and the reasons people give ("too weak")."""
    strength, feather = 0.0, 0.0
    protect: list[str] = []
    for hint in hints:
        text = hint.lower()
        if re.search(r"\bstronger\b|\btoo weak\b", text):
            strength += _HINT_STEP
        if re.search(r"\bweaker\b|\btoo strong\b", text):
            strength -= _HINT_STEP
        if re.search(r"\bedges?\b|\bsofter\b", text):
            feather = 0.002
        if "protect" in text:
            protect += [name for name in masks if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", hint)]
    return _Hints(strength, tuple(dict.fromkeys(protect)), feather)


#: An operation's name and its parameters.
_Planned = list[tuple[str, dict[str, Any]]]
_Planner = Callable[[float, Step, str, EditRequest], _Planned]


def _direction(step: Step) -> float:
    return -1.0 if float(step.parameters.get("direction", 1)) < 0 else 1.0


def _amount(strength: float, most: float) -> float:
    return round(strength * most, 3)


def _exposure(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    up = _direction(step) > 0
    return [("exposure", {"stops": _amount(strength, 1.5 if up else -1.9)})]


def _contrast(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    pivot = _middle(target, request)
    if _direction(step) < 0:
        return [("contrast", {"amount": _amount(strength, -0.8), "pivot": pivot})]
    return [
        ("contrast", {"amount": _amount(strength, 0.75), "pivot": pivot}),
        ("clarity", {"amount": _amount(strength, 0.4)}),
    ]


def _middle(target: str, request: EditRequest) -> float:
    """The mean luma of the area, 0.3..0.6: the grey that contrast turns around."""
    small = request.pixels[::8, ::8].astype(np.float32) / 255
    light = small @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    mask = request.masks.get(target)
    weight = np.ones_like(light) if mask is None else mask[::8, ::8] + 1e-6
    return round(float(np.clip(np.average(light, weights=weight), 0.3, 0.6)), 3)


def _saturation(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    most = 0.9 if _direction(step) > 0 else -0.95
    return [("saturation", {"amount": _amount(strength, most)})]


def _warmth(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("warmth", {"amount": _amount(strength, _direction(step))})]


def _dramatic_sky(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    if target not in request.masks:
        return _dramatic(strength, step, target, request)
    mood = str(step.parameters.get("mood", "dramatic"))
    if mood not in MOODS:
        raise UnsupportedEditError(f"There is no sky {mood!r}; there are {', '.join(MOODS)}.")
    if mood == "clear":
        return [("dramatic_sky", {"strength": round(strength, 3), "mood": mood})]
    clouds = step.parameters.get("clouds")
    if clouds is None:
        rgb = _thumbnail(request.pixels, 4).astype(np.float32) / np.float32(255)
        clouds = flatness(rgb, _thumbnail(request.masks[target], 4))
    return [("dramatic_sky", {"strength": round(strength, 3), "mood": mood, "clouds": round(float(clouds), 3)})]


def _thumbnail(plane: Any, most: int) -> Any:
    """Every n-th pixel, n at most `most`, for measuring; small pictures stay as they are."""
    step = max(1, min(most, min(plane.shape[:2]) // 256))
    return np.ascontiguousarray(plane[::step, ::step])


def _dramatic(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    golden = step.parameters.get("mood") == "golden"
    if step.parameters.get("mood") == "clear":
        return _enhance(strength, step, target, request)  # without a sky to put in, what a clear day does to light
    planned: _Planned = [
        ("clarity", {"amount": _amount(strength, 1.3)}),
        ("contrast", {"amount": _amount(strength, 0.5), "pivot": _middle(target, request)}),
        ("exposure", {"stops": _amount(strength, -0.35)}),
        ("warmth", {"amount": _amount(strength, 0.9)})
        if golden
        else ("saturation", {"amount": _amount(strength, -0.2)}),
    ]
    if target == "image":
        planned.append(("vignette", {"amount": _amount(strength, 0.6)}))
    return planned


def _enhance(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    middle = _middle(target, request)
    stops = float(np.clip((0.46 - middle) * 2.0, -0.3, 0.6))
    return [
        ("exposure", {"stops": round(stops * strength / 0.6, 3)}),
        ("clarity", {"amount": _amount(strength, 0.7)}),
        ("contrast", {"amount": _amount(strength, 0.35), "pivot": middle}),
        ("saturation", {"amount": _amount(strength, 0.45)}),
    ]


def _clarity(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("clarity", {"amount": _amount(strength, 1.3)}), ("sharpen", {"amount": _amount(strength, 0.4)})]


def _sharpen(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    if _direction(step) < 0:
        return [("blur", {"radius": round(0.004 * strength, 5)})]
    return [("sharpen", {"amount": _amount(strength, 1.2)})]


def _vignette(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("vignette", {"amount": round(strength, 3)})]


def _full(strength: float) -> float:
    """For looks one asks for as a whole: the usual strength already means all of it."""
    return round(min(1.0, strength / 0.6), 3)


def _black_and_white(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("black_and_white", {"amount": _full(strength)})]


def _sepia(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("sepia", {"amount": round(0.9 * _full(strength), 3)})]


def _recolour(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("recolour", {"color": str(step.parameters.get("color", "#c8281e")), "amount": _full(strength)})]


def _tint(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("tint", {"color": str(step.parameters.get("color", "#ffa040")), "amount": _amount(strength, 0.7)})]


def _fill(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    return [("fill", {"color": str(step.parameters.get("color", "#808080")), "amount": 1.0})]


def _blur(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    planned: dict[str, Any] = {"radius": round(0.002 + 0.016 * strength, 5)}
    # The ground at a subject's feet is as far away as the subject: blurred like the rest it looks cut out.
    if step.scope == "background" and step.parameters.get("falloff") != "even":
        planned["falloff"] = "depth"
    return [("blur", planned)]


def _preset(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    name = str(step.parameters.get("name", ""))
    if name not in PRESETS:
        raise UnsupportedEditError(f"There is no preset {name!r}; there are {', '.join(sorted(PRESETS))}.")
    return preset(name, strength, whole=target == "image")


def _tones(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    """`area` says whose tones: "shadows" or "highlights"."""
    area = "highlights" if step.parameters.get("area") == "highlights" else "shadows"
    amounts = {"shadows": 0.0, "highlights": 0.0} | {area: round(_direction(step) * min(1.0, strength), 3)}
    return [("tones", amounts)]


def _remove(strength: float, step: Step, target: str, request: EditRequest) -> _Planned:
    mask = request.masks.get(target)
    share = 100.0 if mask is None else 100 * float(mask.mean())
    if share > _MOST_REMOVABLE:
        raise UnsupportedEditError(
            f"Removing {target} would leave {share:.0f} % of the picture to be invented, the embedded editor fills "
            f"up to {_MOST_REMOVABLE:.0f} %: set EDI_EDITOR=comfyui with a ComfyUI server."
        )
    return [("remove", {})]


_PLANNERS: Final[Mapping[str, _Planner]] = {
    "black_and_white": _black_and_white,
    "blur": _blur,
    "clarity": _clarity,
    "contrast": _contrast,
    "dramatic": _dramatic,
    "dramatic_sky": _dramatic_sky,
    "enhance": _enhance,
    "exposure": _exposure,
    "fill": _fill,
    "preset": _preset,
    "recolour": _recolour,
    "remove": _remove,
    "saturation": _saturation,
    "sepia": _sepia,
    "sharpen": _sharpen,
    "tint": _tint,
    "tones": _tones,
    "vignette": _vignette,
    "warmth": _warmth,
}
