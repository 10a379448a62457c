"""Several ways to do the same edit, so far apart that a person sees which is which.

Where the look that was asked for has kin (a dramatic sky may be stormy, or one of the golden hour), those are tried
first; then other shades of a colour; then strengths well apart. A candidate that is nearly equal to one before it gives
its place to the next. The same request makes the same variations, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edi_storage.models import Intent, Operation
from flows.engines.base import EditRequest, Mask, Pixels, Progress, Variation, Variations, no_progress
from flows.engines.comparing import inside
from flows.engines.operations import apply
from flows.engines.paints import lab_of
from flows.engines.regions import WORK_SIDE, colour_name, shrink, to_lab
from flows.engines.steps import PRESET_OF, Step, parameters_of, steps_for

#: Two pictures look the same whose colour difference (CIEDE2000) inside the targets is on average below the first, and
#: below the second in that quarter of them where it is largest: a blur shows on leaves and not on a wall.
DISTINCT: Final = 1.5
_DISTINCT_IN_PLACES: Final = 3.0
#: Strengths beside the one asked for, as factors of it; a factor counts when it is this far from those before it.
_FACTORS: Final = (1.5, 0.6, 0.36, 2.2)
_APART: Final = 1.25
_LEAST: Final = 0.15

#: What else a person may have meant who asked for a look: action and preset, the nearest first. Who names a mood, such
#: as the golden hour, means it.
_KIN: Final[Mapping[tuple[str, str], Sequence[tuple[str, str]]]] = {
    ("dramatic_sky", "dramatic"): (("dramatic_sky", "stormy"), ("dramatic_sky", "golden")),
    ("dramatic", "dramatic"): (("preset", "moody"), ("preset", "cinematic"), ("dramatic", "golden")),
    ("black_and_white", ""): (("preset", "noir"),),
    ("preset", "airy"): (("preset", "matte"), ("preset", "film")),
    ("preset", "cinematic"): (("preset", "moody"), ("preset", "film")),
    ("preset", "film"): (("preset", "vintage"), ("preset", "matte")),
    ("preset", "matte"): (("preset", "film"), ("preset", "airy")),
    ("preset", "moody"): (("preset", "cinematic"), ("preset", "matte")),
    ("preset", "vintage"): (("preset", "film"), ("preset", "matte")),
}
#: Other shades of a colour: what is mixed into it, and how much of that.
_SHADES: Final = (("darker", 0, 0.4), ("lighter", 255, 0.4), ("paler", 128, 0.5))
#: What goes well with a look: the name of the two together, and the second one.
_WITH: Final[Mapping[str, Sequence[tuple[str, str, Mapping[str, Any]]]]] = {
    "black_and_white": (
        ("black and white with more structure", "clarity", {}),
        ("brighter black and white", "exposure", {"direction": 1}),
    ),
}
#: What is done by half is not what was asked for.
_WHOLE_HEARTED: Final = ("black_and_white", "fill", "recolour", "remove")

#: What a candidate is called without its strength, and its steps.
_Candidate = tuple[str, list[Step]]


def vary(
    request: EditRequest,
    count: int,
    plan: Callable[[EditRequest, Sequence[Step]], list[Operation]],
    progress: Progress = no_progress,
) -> Variations:
    """Up to `count` variations, the first of them what was asked for; fewer where no more are distinct.

    `plan` turns steps into operations. Raises what it raises.
    """
    kept: list[Variation] = []
    plans: list[list[Operation]] = []
    small: list[Pixels] = []
    alike: list[str] = []
    same: list[str] = []
    area = _area(request)
    for words, steps in _candidates(steps_for(request.intent, request.prompt.positive_prompt)):
        if len(kept) == count:
            break
        operations = plan(request, steps)
        if operations in plans:
            same.append(f"'{words}' is the same as '{kept[plans.index(operations)].words}'")
            continue
        pixels = apply(request.pixels, request.masks, operations, _part(progress, len(kept), count))
        copy = shrink(pixels, WORK_SIDE)
        twin = next((number for number, other in enumerate(small) if look_alike(other, copy, area)), None)
        if twin is not None:
            alike.append(f"'{words}' looks nearly like '{kept[twin].words}'")
            continue
        kept.append(Variation(pixels, operations, words, with_steps(request.intent, steps)))
        plans.append(operations)
        small.append(copy)
    return Variations(kept, _notes(len(kept), count, alike, same))


def _part(progress: Progress, number: int, count: int) -> Progress:
    def tell(fraction: float, message: str, handles: Mapping[str, Any]) -> None:
        progress((number + fraction) / count, f"variation {number + 1}: {message}", handles)

    return tell


def _notes(made: int, count: int, alike: Sequence[str], same: Sequence[str]) -> list[str]:
    """What became of candidates that are not shown, in sentences."""
    if made == 1 and not alike:
        return [f"This edit comes out in one way only, so there are no {count} variations of it."]
    if made < count:
        because = f": {'; '.join([*alike, *same])}" if alike or same else ", as there are no more ways to do this edit"
        return [f"Only {made} of {count} variations can be told apart{because}."]
    return [f"Another variation was made instead: {'; '.join(alike)}."] if alike else []


def look_alike(one: Pixels, other: Pixels, area: Mask | None) -> bool:
    """Whether a person would hardly see which is which (see `DISTINCT`); without an area, anywhere in the picture."""
    difference = distances(one, other, area)
    most = np.sort(difference)[-max(1, len(difference) // 4) :]
    return bool(difference.mean() < DISTINCT and most.mean() < _DISTINCT_IN_PLACES)


def distances(one: Pixels, other: Pixels, area: Mask | None) -> NDArray[np.float32]:
    """CIEDE2000 of two pictures, pixel by pixel of an area (0..1, height x width of any size).

    At the measuring size and, other than in a validation, not blurred: both are made here, no file format is between
    them, and how soft something is may be all that tells them apart.
    """
    from skimage.color import deltaE_ciede2000

    measured: Any = deltaE_ciede2000  # scikit-image has no types
    first, second = (to_lab(shrink(pixels, WORK_SIDE)) for pixels in (one, other))
    shape = (int(first.shape[0]), int(first.shape[1]))
    where = inside(area, shape) if area is not None else np.ones(shape, dtype=bool)
    return np.asarray(measured(first[where], second[where]), dtype=np.float32)


def _area(request: EditRequest) -> Mask | None:
    """Where the edit works: the masks of its targets together; None for the whole picture."""
    masks = [request.masks[name] for name in request.intent.target_entities if name in request.masks]
    return np.asarray(np.max(masks, axis=0), dtype=np.float32) if masks else None


def with_steps(intent: Intent, steps: Sequence[Step]) -> Intent:
    """The intent with other steps; what limits it stays."""
    limits = {name: intent.parameters[name] for name in ("protect", "within") if name in intent.parameters}
    first = steps[0]
    return intent.model_copy(
        update={"action": first.action, "strength": first.strength, "parameters": parameters_of(steps) | limits}
    )


# --- Candidates --------------------------------------------------------------------------------------


def _candidates(steps: Sequence[Step]) -> Iterator[_Candidate]:
    """What was asked for; then its kin, other shades, and other strengths. Several steps keep their order."""
    number = next((number for number, step in enumerate(steps) if _kin(step) or "color" in step.parameters), None)
    yield _called("as asked", steps, number)
    if number is not None:
        for step in _relatives(steps[number]):
            yield _called(_preset(step), [*steps[:number], step, *steps[number + 1 :]], number)
        for name, shade in _shades(steps[number]):
            yield _called(name, [*steps[:number], shade, *steps[number + 1 :]], number)
        for name, action, parameters in _WITH.get(steps[number].action, ()):
            yield name, [*steps, replace(steps[number], action=action, parameters=dict(parameters))]
    if any(step.action in _WHOLE_HEARTED for step in steps):
        return
    for factor in _strengths(max(step.strength for step in steps)):
        name = "stronger" if factor > 1 else "much weaker" if factor < 0.5 else "weaker"
        stronger = [replace(step, strength=round(min(1.0, max(_LEAST, step.strength * factor)), 2)) for step in steps]
        yield _called(name, stronger, number)


def _called(name: str, steps: Sequence[Step], number: int | None) -> _Candidate:
    """A candidate with its name: that of its preset where it has one, and how strong it is."""
    varied = steps[number or 0]
    if "color" in varied.parameters and varied.action in _WHOLE_HEARTED:
        return f"{name} ({colour_name(np.array(lab_of(str(varied.parameters['color']))))})", list(steps)
    named = name if number is None or "color" in varied.parameters else _preset(varied)
    return f"{named}, {round(100 * varied.strength)} %", list(steps)


def _preset(step: Step) -> str:
    """ "stormy", "noir": what the look of a step is called."""
    return str(step.parameters.get(PRESET_OF.get(step.action, "")) or step.action.replace("_", " "))


def _kin(step: Step) -> Sequence[tuple[str, str]]:
    return _KIN.get((step.action, str(step.parameters.get(PRESET_OF.get(step.action, ""), ""))), ())


def _relatives(step: Step) -> Iterable[Step]:
    for action, name in _kin(step):
        yield replace(step, action=action, parameters={PRESET_OF[action]: name})


def _shades(step: Step) -> Iterable[tuple[str, Step]]:
    colour = str(step.parameters.get("color", ""))
    if not colour:
        return
    channels = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    for name, into, share in _SHADES:
        mixed = "".join(f"{round(channel + (into - channel) * share):02x}" for channel in channels)
        yield name, replace(step, parameters={"color": f"#{mixed}"})


def _strengths(asked: float) -> Iterator[float]:
    """Factors of the strength that was asked for, each a strength well apart from the others."""
    known = [asked]
    for factor in _FACTORS:
        strength = min(1.0, max(_LEAST, asked * factor))
        if all(max(strength, other) / min(strength, other) >= _APART for other in known):
            known.append(strength)
            yield factor
