"""The constructed edits, each with the verdicts that a person would give. Written before the validator was tuned.

The edits of the coffee cup were not looked at while it was tuned: they are held out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from edi_storage.models import Intent
from flows.engines.base import Pixels
from tests.quality import edits as by
from tests.quality.edits import Edit, Masks, both, box, off, on
from tests.quality.scenes import DrawnScene, meadow, scene

HELD_OUT: Final = "coffee"

#: "not as asked" has two names, and where a person would not care which, both are right.
EITHER: Final = "not_applied or wrong_direction"


@dataclass(frozen=True)
class Case:
    """One edit. `verdicts` names what is not preserved; `decision` is what should follow at the first attempt."""

    name: str
    scene: str
    action: str
    targets: tuple[str, ...]
    edit: Edit
    verdicts: dict[str, str]
    decision: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def drawn(self) -> DrawnScene:
        """The photo with its masks."""
        return scene(self.scene)

    @property
    def edited(self) -> Pixels:
        """The result to be judged."""
        return self.edit(self.drawn.pixels, self.drawn.masks)

    @property
    def intent(self) -> Intent:
        """What was asked for."""
        kept = [] if self.parameters.get("scope") == "whole" else [n for n in self.drawn.masks if n not in self.targets]
        return Intent(
            edit_type="style",
            action=self.action,
            target_entities=list(self.targets),
            preserve_entities=kept,
            confidence=0.9,
            parameters=self.parameters,
        )

    def expected(self, entity: str) -> set[str]:
        """The verdicts on an entity that are right."""
        return set(self.verdicts.get(entity, "preserved").split(" or "))


def _dramatic(name: str, edit: Edit, sky: str, decision: str, where: str = "palace", **others: str) -> Case:
    return Case(name, where, "dramatic_sky", ("sky_0",), edit, {"sky_0": sky, **others}, decision)


def _brightness(name: str, where: str, target: str, up: bool, edit: Edit, verdict: str, decision: str) -> Case:
    way = {"direction": 1.0 if up else -1.0}
    return Case(name, where, "exposure", (target,), edit, {target: verdict}, decision, way)


def _removal(name: str, where: str, target: str, edit: Edit, verdict: str, decision: str, **others: str) -> Case:
    return Case(name, where, "remove", (target,), edit, {target: verdict, **others}, decision)


def _whole(name: str, where: str, action: str, edit: Edit, verdict: str, decision: str, **parameters: Any) -> Case:
    names = tuple(scene(where).masks)
    return Case(
        name, where, action, names, edit, dict.fromkeys(names, verdict), decision, {"scope": "whole", **parameters}
    )


_STORM: Final = on("sky_0", both(by.clouds(0.5), by.stops(-0.6)))
_UNINTENDED: Final = dict.fromkeys(("building_0", "tree_0", "vegetation_0", "water_0"), "unintended")


def _no_ball(pixels: Pixels, masks: Masks) -> Pixels:
    return meadow(ball=False)


TUNED: Final = [
    # Nothing was done, or only what a file or a backend does.
    _dramatic("no-op", by.nothing, "not_applied", "retry"),
    _dramatic("no-op at night", by.nothing, "not_applied", "retry", "rocket"),
    _removal("no-op instead of a removal", "meadow", "ball_0", by.nothing, "not_applied", "retry"),
    _dramatic("JPEG 75 only", by.jpeg(75), "not_applied", "retry"),
    _dramatic("JPEG 75 only, at night", by.jpeg(75), "not_applied", "retry", "rocket"),
    _dramatic("JPEG 60 only, meadow", by.jpeg(60), "not_applied", "retry", "meadow"),
    _whole("JPEG 75 instead of sharper", "cat", "sharpen", by.jpeg(75), "not_applied", "retry"),
    _dramatic("returned at half the size", by.resized(0.5), "not_applied", "retry"),
    _dramatic("returned at twice the size", by.resized(2), "not_applied", "retry", "rocket"),
    _dramatic("worked on at half the size", by.through(0.5), "not_applied", "retry"),
    _dramatic("worked on at half the size, meadow", by.through(0.5), "not_applied", "retry", "meadow"),
    _dramatic("moved by a pixel", by.shifted(1, 1), "not_applied", "retry"),
    _whole("JPEG 75 instead of sepia", "palace", "sepia", by.jpeg(75), "not_applied", "retry"),
    _whole("JPEG 75 instead of enhanced", "rocket", "enhance", by.jpeg(75), "not_applied", "retry"),
    _whole("JPEG 75 instead of clarity", "rocket", "clarity", by.jpeg(75), "not_applied", "retry"),
    _whole("JPEG 75 instead of dramatic", "cat", "dramatic", by.jpeg(75), "not_applied", "retry"),
    _whole(
        "JPEG 60 instead of more contrast", "meadow", "contrast", by.jpeg(60), "not_applied", "retry", direction=1.0
    ),
    _whole("JPEG 75 instead of black and white", "rocket", "black_and_white", by.jpeg(75), "not_applied", "retry"),
    Case(
        "half the size instead of a blur",
        "palace",
        "blur",
        ("vegetation_0",),
        by.through(0.5),
        {"vegetation_0": "not_applied"},
        "retry",
    ),
    # The right thing, also as it comes back from files and backends.
    _dramatic("darker clouds", _STORM, "modified", "accepted"),
    _dramatic("darker clouds, JPEG 75", both(_STORM, by.jpeg(75)), "modified", "accepted"),
    _dramatic("darker clouds, half the size", both(_STORM, by.resized(0.5)), "modified", "accepted"),
    _dramatic("darker clouds, twice the size", both(_STORM, by.resized(2)), "modified", "accepted"),
    _dramatic("darker clouds through half the size", both(_STORM, by.through(0.5)), "modified", "accepted"),
    _dramatic("darker clouds, moved by a pixel", both(_STORM, by.shifted(-1, 1)), "modified", "accepted"),
    _dramatic("darker clouds over the meadow, JPEG 60", both(_STORM, by.jpeg(60)), "modified", "accepted", "meadow"),
    _dramatic("clouds at night", _STORM, "modified", "accepted", "rocket"),
    _brightness("brighter cat", "cat", "cat_0", True, on("cat_0", by.stops(0.5)), "modified", "accepted"),
    _brightness(
        "darker building", "palace", "building_0", False, on("building_0", by.stops(-0.7)), "modified", "accepted"
    ),
    _brightness("brighter rocket", "rocket", "rocket_0", True, on("rocket_0", by.stops(0.4)), "modified", "accepted"),
    _whole("warmer", "palace", "warmth", by.warmth(0.07), "modified", "accepted", direction=1.0),
    _whole(
        "black and white, JPEG 75",
        "palace",
        "black_and_white",
        both(by.saturation(0), by.jpeg(75)),
        "modified",
        "accepted",
    ),
    _whole("sharper", "cat", "sharpen", by.sharpen(1.2), "modified", "accepted"),
    _whole("more contrast", "palace", "contrast", by.contrast(1.35), "modified", "accepted", direction=1.0),
    Case(
        "background blurred",
        "cat",
        "blur",
        ("background_0",),
        on("background_0", by.blur(7)),
        {"background_0": "modified"},
        "accepted",
    ),
    Case(
        "greener eye",
        "cat",
        "recolour",
        ("eye_0",),
        on("eye_0", by.dyed((60, 220, 60))),
        {"eye_0": "modified"},
        "accepted",
        {"color": "#3cb43c"},
    ),
    Case(
        "red ball painted blue",
        "meadow",
        "recolour",
        ("ball_0",),
        on("ball_0", by.dyed((60, 90, 230))),
        {"ball_0": "modified"},
        "accepted",
        {"color": "#2846c8"},
    ),
    Case(
        "vivid grass",
        "meadow",
        "saturation",
        ("grass_0",),
        on("grass_0", by.saturation(1.5)),
        {"grass_0": "modified"},
        "accepted",
        {"direction": 1.0},
    ),
    _removal("ball gone, painted without it", "meadow", "ball_0", _no_ball, "modified", "accepted"),
    _removal("ball covered by grass", "meadow", "ball_0", by.covered("ball_0", 0.2, 0.02), "modified", "accepted"),
    _removal(
        "ball covered by grass, JPEG 75",
        "meadow",
        "ball_0",
        both(by.covered("ball_0", 0.2, 0.02), by.jpeg(75)),
        "modified",
        "accepted",
    ),
    _removal("tower covered by sky", "rocket", "tower_0", by.covered("tower_0", 0.15, 0.0), "modified", "accepted"),
    _removal("nose inpainted", "cat", "nose_0", by.inpainted("nose_0"), "modified", "accepted"),
    # The wrong thing, or too much.
    _dramatic(
        "building instead of sky", on("building_0", by.stops(-0.8)), "not_applied", "retry", building_0="unintended"
    ),
    _dramatic("water dyed instead of sky", on("water_0", by.hue(60)), "not_applied", "retry", water_0="unintended"),
    _dramatic(
        "grass instead of sky", on("grass_0", by.stops(0.7)), "not_applied", "retry", "meadow", grass_0="unintended"
    ),
    _dramatic("everything darker", by.stops(-0.7), "modified", "retry", **_UNINTENDED),
    _dramatic("everything darker, JPEG 75", both(by.stops(-0.7), by.jpeg(75)), "modified", "retry", **_UNINTENDED),
    _dramatic("everything black and white", by.saturation(0), EITHER, "retry", **_UNINTENDED),
    _dramatic("all but the sky darker", off("sky_0", by.stops(-0.8)), "not_applied", "retry", **_UNINTENDED),
    _dramatic(
        "clouds spill far over the building",
        both(_STORM, box(0.1, 0.0, 0.6, 0.4, by.stops(-0.8))),
        "modified",
        "accepted",
        building_0="unintended",
    ),
    _dramatic(
        "clouds spill into the grass",
        on("sky_0", by.stops(-0.9), grown=50),
        "modified",
        "needs_review",
        "meadow",
        grass_0="unintended",
        post_0="unintended",
    ),
    _dramatic(
        "clouds and a hole in the building",
        both(_STORM, box(0.25, 0.45, 0.4, 0.58, by.paint((20, 20, 20)))),
        "modified",
        "accepted",
        building_0="unintended",
    ),
    _dramatic(
        "clouds, and the ball is gone",
        lambda p, m: _STORM(meadow(ball=False), m),
        "modified",
        "accepted",
        "meadow",
        ball_0="unintended",
    ),
    # Too little.
    _dramatic("hardly darker", on("sky_0", by.stops(-0.04)), "not_applied", "retry"),
    _dramatic("hardly darker, JPEG 75", both(on("sky_0", by.stops(-0.04)), by.jpeg(75)), "not_applied", "retry"),
    _brightness("hardly brighter cat", "cat", "cat_0", True, on("cat_0", by.stops(0.03)), "not_applied", "retry"),
    Case(
        "hardly a blur",
        "cat",
        "blur",
        ("background_0",),
        on("background_0", by.blur(0.4)),
        {"background_0": "not_applied"},
        "retry",
    ),
    Case(
        "hardly more vivid",
        "meadow",
        "saturation",
        ("grass_0",),
        on("grass_0", by.saturation(1.02)),
        {"grass_0": "not_applied"},
        "retry",
        {"direction": 1.0},
    ),
    # The other way round, or another thing.
    _brightness(
        "darker instead of brighter", "cat", "cat_0", True, on("cat_0", by.stops(-0.5)), "wrong_direction", "retry"
    ),
    _brightness(
        "brighter instead of darker",
        "palace",
        "building_0",
        False,
        on("building_0", by.stops(0.6)),
        "wrong_direction",
        "retry",
    ),
    _dramatic("pale and bright instead of dramatic", on("sky_0", by.stops(0.7)), "wrong_direction", "retry", "rocket"),
    _whole("colder instead of warmer", "palace", "warmth", by.warmth(-0.07), "wrong_direction", "retry", direction=1.0),
    _whole("blurred instead of sharper", "cat", "sharpen", by.blur(3), EITHER, "retry"),
    _whole("blurred instead of dramatic", "palace", "dramatic", by.blur(4), EITHER, "retry"),
    _dramatic("blurred instead of dramatic sky", on("sky_0", by.blur(5)), EITHER, "retry"),
    _dramatic("green instead of dramatic", on("sky_0", by.hue(-90)), EITHER, "retry"),
    Case(
        "painted green instead of blue",
        "meadow",
        "recolour",
        ("ball_0",),
        on("ball_0", by.dyed((60, 220, 60))),
        {"ball_0": EITHER},
        "retry",
        {"color": "#2846c8"},
    ),
    _removal(
        "ball dyed instead of removed", "meadow", "ball_0", on("ball_0", by.dyed((230, 200, 40))), EITHER, "retry"
    ),
    _removal("ball blurred instead of removed", "meadow", "ball_0", on("ball_0", by.blur(6)), EITHER, "retry"),
    _removal("ball darker instead of removed", "meadow", "ball_0", on("ball_0", by.stops(-1.2)), EITHER, "retry"),
    _removal(
        "grey patch where the ball was",
        "meadow",
        "ball_0",
        on("ball_0", by.paint((128, 128, 128)), grown=4),
        EITHER,
        "retry",
    ),
    _removal(
        "ball gone, and the grass is another",
        "meadow",
        "ball_0",
        both(_no_ball, box(0.35, 0.55, 1, 1, by.stops(-0.7))),
        "modified",
        "accepted",
        grass_0="unintended",
    ),
]

_CUP: Final = on("cup_0", by.stops(-0.6))

HELD: Final = [
    _brightness("no-op", "coffee", "cup_0", False, by.nothing, "not_applied", "retry"),
    _brightness("JPEG 75 only", "coffee", "cup_0", False, by.jpeg(75), "not_applied", "retry"),
    _whole("JPEG 75 instead of dramatic", "coffee", "dramatic", by.jpeg(75), "not_applied", "retry"),
    _brightness("worked on at half the size", "coffee", "cup_0", False, by.through(0.5), "not_applied", "retry"),
    _brightness("darker cup", "coffee", "cup_0", False, _CUP, "modified", "accepted"),
    _brightness("darker cup, JPEG 75", "coffee", "cup_0", False, both(_CUP, by.jpeg(75)), "modified", "accepted"),
    _brightness(
        "darker cup, half the size", "coffee", "cup_0", False, both(_CUP, by.resized(0.5)), "modified", "accepted"
    ),
    _brightness(
        "darker cup, moved by a pixel", "coffee", "cup_0", False, both(_CUP, by.shifted(1, 0)), "modified", "accepted"
    ),
    _brightness(
        "brighter instead of darker cup",
        "coffee",
        "cup_0",
        False,
        on("cup_0", by.stops(0.6)),
        "wrong_direction",
        "retry",
    ),
    _brightness("hardly darker cup", "coffee", "cup_0", False, on("cup_0", by.stops(-0.03)), "not_applied", "retry"),
    Case(
        "table instead of saucer",
        "coffee",
        "recolour",
        ("saucer_0",),
        on("table_0", by.dyed((60, 90, 230))),
        {"saucer_0": "not_applied", "table_0": "unintended"},
        "retry",
        {"color": "#2846c8"},
    ),
    Case(
        "blue saucer",
        "coffee",
        "recolour",
        ("saucer_0",),
        on("saucer_0", by.dyed((60, 90, 230))),
        {"saucer_0": "modified"},
        "accepted",
        {"color": "#2846c8"},
    ),
    Case(
        "blue saucer spills far over the cup",
        "coffee",
        "recolour",
        ("saucer_0",),
        both(on("saucer_0", by.dyed((60, 90, 230))), box(0.25, 0.3, 0.7, 0.8, by.dyed((60, 90, 230)))),
        {"saucer_0": "modified", "cup_0": "unintended", "spoon_0": "unintended"},
        "needs_review",
        {"color": "#2846c8"},
    ),
    Case(
        "table blurred", "coffee", "blur", ("table_0",), on("table_0", by.blur(6)), {"table_0": "modified"}, "accepted"
    ),
    Case(
        "table paler instead of vivid",
        "coffee",
        "saturation",
        ("table_0",),
        on("table_0", by.saturation(0.6)),
        {"table_0": "wrong_direction"},
        "retry",
        {"direction": 1.0},
    ),
    _removal("spoon covered by saucer", "coffee", "spoon_0", by.covered("spoon_0", -0.19, 0.0), "modified", "accepted"),
    _removal("spoon inpainted", "coffee", "spoon_0", by.inpainted("spoon_0"), "modified", "accepted"),
    _removal("spoon darker instead of removed", "coffee", "spoon_0", on("spoon_0", by.stops(-1)), EITHER, "retry"),
    _removal("JPEG 75 instead of a removal", "coffee", "spoon_0", by.jpeg(75), EITHER, "retry"),
    _whole("everything sepia", "coffee", "sepia", both(by.saturation(0.3), by.warmth(0.05)), "modified", "accepted"),
]
