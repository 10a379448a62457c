"""The ways to do an edit among which learning may choose, where the person has left it open which.

A kind is what was asked for ("brighten", "dramatic sky"), an arm one way to do it, as a photographer would name it. The
arm "usual" is what is done where nothing was learned. Arms of different kinds that share a name are alike in character,
so what is liked of one says something of the others. An arm is a change to the operations that the step comes to
anyway: amounts are multiplied, or operations added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from flows.engines.looks import DEFAULT_STRENGTH
from flows.engines.presets import of_the_frame, scaled
from flows.engines.steps import PRESET_OF, Step

USUAL: Final = "usual"

#: Operations with their parameters, written for the usual strength and scaled with it.
_Added = tuple[tuple[str, Mapping[str, Any]], ...]
_Planned = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Arm:
    """One way to do a kind of edit; `words` say what is different about it."""

    words: str
    #: By operation, what its amounts are multiplied by; 0 leaves it out.
    times: Mapping[str, float] = field(default_factory=dict)
    added: _Added = ()
    #: The mood of a sky or a light that it is done in.
    mood: str = ""


Arms = Mapping[str, Arm]

_AS_EVER: Final[dict[str, Arm]] = {USUAL: Arm("as it is done where nothing was learned")}
_COOL_TONES: Final = {"shadows": "#1d2f55", "lights": "#c9d6e8", "amount": 0.3}
_GOLD_TONES: Final = {"shadows": "#5a4632", "lights": "#f3c777", "amount": 0.6}

#: What was asked for, by its name, and its arms.
KINDS: Final[Mapping[str, Arms]] = {
    "dramatic sky": _AS_EVER
    | {
        "stormy": Arm("grey, heavy and darker", mood="stormy"),
        "golden": Arm("the warm light of the golden hour", mood="golden"),
        "moody": Arm(
            "deep blue: darker, and cooler", added=(("exposure", {"stops": -0.4}), ("warmth", {"amount": -0.3}))
        ),
        "punchy": Arm(
            "more structure and contrast", added=(("clarity", {"amount": 0.5}), ("contrast", {"amount": 0.2}))
        ),
    },
    "dramatic light": _AS_EVER
    | {
        "moody": Arm(
            "low key: darker, less colour",
            added=(("exposure", {"stops": -0.3}), ("saturation", {"amount": -0.2}), ("fade", {"amount": 0.1})),
        ),
        "punchy": Arm(
            "more contrast and colour, not darker",
            {"exposure": 0, "saturation": 0, "contrast": 1.4},
            (("saturation", {"amount": 0.18}),),
        ),
        "golden": Arm("the warm light of the golden hour", mood="golden"),
        "cool": Arm("a cool cast", added=(("warmth", {"amount": -0.4}),)),
    },
    "brighten": _AS_EVER
    | {
        "soft": Arm(
            "gentle, highlights held back",
            {"exposure": 0.9},
            (("tones", {"shadows": 0.0, "highlights": -0.35}), ("contrast", {"amount": -0.12})),
        ),
        "airy": Arm(
            "light and open, a little faded",
            {"exposure": 0.85},
            (
                ("tones", {"shadows": 0.25, "highlights": 0.0}),
                ("saturation", {"amount": -0.1}),
                ("fade", {"amount": 0.15}),
            ),
        ),
        "shadows": Arm(
            "mostly the shadows lifted", {"exposure": 0.5}, (("tones", {"shadows": 0.6, "highlights": 0.0}),)
        ),
        "crisp": Arm(
            "with clearer structure", {"exposure": 0.9}, (("clarity", {"amount": 0.5}), ("contrast", {"amount": 0.15}))
        ),
    },
    "darken": _AS_EVER
    | {
        "soft": Arm("shadows kept open", {"exposure": 0.8}, (("tones", {"shadows": 0.35, "highlights": 0.0}),)),
        "highlights": Arm(
            "mostly the highlights brought down",
            {"exposure": 0.45},
            (("tones", {"shadows": 0.0, "highlights": -0.85}),),
        ),
        "deep": Arm("with more contrast", {"exposure": 0.9}, (("contrast", {"amount": 0.28}),)),
        "moody": Arm(
            "with less colour, and cooler",
            {"exposure": 0.85},
            (("saturation", {"amount": -0.25}), ("warmth", {"amount": -0.12})),
        ),
    },
    "more contrast": _AS_EVER
    | {
        "soft": Arm("gentler", {"contrast": 0.55, "clarity": 0.7}),
        "punchy": Arm("with more colour", added=(("saturation", {"amount": 0.25}),)),
        "crisp": Arm("more of the fine structure", {"contrast": 0.6, "clarity": 3.0}, (("sharpen", {"amount": 0.8}),)),
        "deep": Arm("and a little darker", added=(("exposure", {"stops": -0.25}),)),
    },
    "vivid": _AS_EVER
    | {
        "soft": Arm("gentler", {"saturation": 0.55}),
        "punchy": Arm(
            "with more contrast",
            {"saturation": 0.85},
            (("contrast", {"amount": 0.25}), ("clarity", {"amount": 0.2})),
        ),
        "warm": Arm("and warmer", {"saturation": 0.8}, (("warmth", {"amount": 0.35}),)),
        "deep": Arm("and a little darker", {"saturation": 0.95}, (("exposure", {"stops": -0.28}),)),
    },
    "muted": _AS_EVER
    | {
        "airy": Arm("pastel: lighter", {"saturation": 0.8}, (("exposure", {"stops": 0.25}), ("fade", {"amount": 0.2}))),
        "matte": Arm("blacks lifted", {"saturation": 0.8}, (("fade", {"amount": 0.5}),)),
        "moody": Arm(
            "and darker", {"saturation": 0.85}, (("exposure", {"stops": -0.3}), ("contrast", {"amount": 0.12}))
        ),
    },
    "warmer": _AS_EVER
    | {
        "soft": Arm("gentler", {"warmth": 0.5}),
        "golden": Arm("golden lights, brown shadows", {"warmth": 0.7}, (("split_tone", _GOLD_TONES),)),
        "bright": Arm(
            "sunny: brighter, more colour",
            {"warmth": 0.85},
            (("exposure", {"stops": 0.25}), ("saturation", {"amount": 0.12})),
        ),
        "deep": Arm(
            "with more contrast", {"warmth": 0.9}, (("exposure", {"stops": -0.2}), ("contrast", {"amount": 0.2}))
        ),
    },
    "cooler": _AS_EVER
    | {
        "soft": Arm("gentler", {"warmth": 0.5}),
        "moody": Arm(
            "steel: less colour, more contrast",
            {"warmth": 0.9},
            (("saturation", {"amount": -0.25}), ("contrast", {"amount": 0.15})),
        ),
        "deep": Arm(
            "the blue hour: darker", {"warmth": 0.95}, (("exposure", {"stops": -0.3}), ("split_tone", _COOL_TONES))
        ),
    },
    "better": _AS_EVER
    | {
        "soft": Arm("hardly more than a touch", {"exposure": 0.6, "clarity": 0.45, "contrast": 0.5, "saturation": 0.5}),
        "punchy": Arm("more contrast and colour", {"contrast": 1.7, "saturation": 1.5}),
        "bright": Arm(
            "brighter, shadows lifted",
            added=(("exposure", {"stops": 0.25}), ("tones", {"shadows": 0.25, "highlights": 0.0})),
        ),
        "warm": Arm("and warmer", added=(("warmth", {"amount": 0.32}),)),
    },
    "clearer": _AS_EVER
    | {
        "soft": Arm("gentler", {"clarity": 0.3, "sharpen": 0.3}),
        "crisp": Arm("sharper", {"sharpen": 4.0}),
        "punchy": Arm(
            "with contrast and colour", added=(("contrast", {"amount": 0.25}), ("saturation", {"amount": 0.15}))
        ),
    },
    "blurred background": _AS_EVER
    | {
        "strong": Arm("far out of focus", {"blur": 2.6}),
        "moody": Arm("and darker", added=(("exposure", {"stops": -0.4}),)),
        "muted": Arm("with less colour", added=(("saturation", {"amount": -0.4}),)),
    },
    "black and white": _AS_EVER
    | {
        "punchy": Arm("with firm contrast", added=(("contrast", {"amount": 0.4}),)),
        "moody": Arm(
            "noir: dark, with corners and grain",
            added=(
                ("exposure", {"stops": -0.25}),
                ("contrast", {"amount": 0.45}),
                ("vignette", {"amount": 0.5}),
                ("grain", {"amount": 0.3}),
            ),
        ),
        "soft": Arm("gentle and faded", added=(("contrast", {"amount": -0.15}), ("fade", {"amount": 0.4}))),
        "bright": Arm("lighter", added=(("exposure", {"stops": 0.4}),)),
    },
    "sepia": _AS_EVER
    | {
        "matte": Arm("faded like an old print", added=(("fade", {"amount": 0.5}), ("contrast", {"amount": -0.1}))),
        "deep": Arm("darker, with contrast", added=(("exposure", {"stops": -0.3}), ("contrast", {"amount": 0.2}))),
    },
}
#: The kind of a step by its action, or by its action and direction.
_KIND_OF: Final[Mapping[str, str]] = {
    "dramatic_sky": "dramatic sky",
    "dramatic": "dramatic light",
    "exposure+": "brighten",
    "exposure-": "darken",
    "contrast+": "more contrast",
    "saturation+": "vivid",
    "saturation-": "muted",
    "warmth+": "warmer",
    "warmth-": "cooler",
    "enhance": "better",
    "clarity": "clearer",
    "black_and_white": "black and white",
    "sepia": "sepia",
}
#: Looks that are had in full, or not at all.
_WHOLE: Final = ("black_and_white", "fill", "recolour", "remove", "sepia")
_MOODY: Final = ("dramatic", "dramatic_sky")


def kind_of(step: Step) -> str:
    """What a step asks for: a key of `KINDS`, or "" when there is one way to do it, or the person has named theirs."""
    named = step.parameters.get(PRESET_OF.get(step.action, ""))
    if named and not (step.action in _MOODY and named == "dramatic"):
        return ""
    if step.action == "blur":
        return "blurred background" if step.scope == "background" else ""
    sign = "-" if float(step.parameters.get("direction", 1)) < 0 else "+"
    return _KIND_OF.get(step.action) or _KIND_OF.get(step.action + sign, "")


def has_open_strength(step: Step) -> bool:
    """Whether the person has said nothing of how strong, and it is a matter of more or less."""
    return step.strength == DEFAULT_STRENGTH and step.action not in _WHOLE


def with_arm(step: Step, arm: str) -> Step:
    """The step done in the way of this arm; with "usual" it is the step as it is."""
    if arm == USUAL:
        return step
    return replace(step, parameters={**step.parameters, PRESET_OF[step.action]: arm})


def arm_of(step: Step) -> Arm:
    """The arm that a step names, by `with_arm`; the usual one where it names none."""
    bare = replace(step, parameters={**step.parameters, PRESET_OF.get(step.action, ""): ""})
    named = str(step.parameters.get(PRESET_OF.get(step.action, "")) or USUAL)
    return KINDS.get(kind_of(bare), _AS_EVER).get(named, _AS_EVER[USUAL])


def without_arm(step: Step, arm: Arm) -> Step:
    """What the operations of an arm are made from: the step as it would usually be, in the mood of the arm."""
    if step.action not in _MOODY or arm is _AS_EVER[USUAL]:
        return step
    return replace(step, parameters={**step.parameters, "mood": arm.mood or "dramatic"})


def in_the_way_of(arm: Arm, planned: _Planned, strength: float, *, whole: bool) -> _Planned:
    """The operations of a step (name, parameters), done in the way of an arm.

    `strength` is 0..1; `whole`: on all of the picture, which has a frame.
    """
    changed = [
        (name, {key: scaled(key, value, arm.times.get(name, 1.0)) for key, value in parameters.items()})
        for name, parameters in planned
        if arm.times.get(name) != 0
    ]
    factor = strength / DEFAULT_STRENGTH
    added = [
        (name, {key: scaled(key, value, factor) for key, value in parameters.items()})
        for name, parameters in arm.added
        if whole or not of_the_frame(name)
    ]
    return changed + added
