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

from edi_storage.models import Intent, Operation
from flows.engines.base import EditRequest, Mask, Pixels, Progress, Variation, Variations, no_progress
from flows.engines.comparing import compare, inside
from flows.engines.operations import apply
from flows.engines.regions import WORK_SIDE, shrink
from flows.engines.steps import PRESET_OF, Step, parameters_of, steps_for

#: Mean colour difference (CIEDE2000) inside the targets below which a person calls two pictures the same.
DISTINCT: Final = 1.5
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
_SHADES: Final = (("darker", 0, 0.4), ("lighter", 255, 0.4))

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
    area = _area(request)
    for words, steps in _candidates(steps_for(request.intent, request.prompt.positive_prompt)):
        if len(kept) == count:
            break
        operations = plan(request, steps)
        twin = next((number for number, other in enumerate(plans) if other == operations), None)
        if twin is None:
            pixels = apply(request.pixels, request.masks, operations, _part(progress, len(kept), count))
            copy = shrink(pixels, WORK_SIDE)
            twin = next((number for number, other in enumerate(small) if distance(other, copy, area) < DISTINCT), None)
        if twin is None:
            kept.append(Variation(pixels, operations, words, with_steps(request.intent, steps)))
            plans.append(operations)
            small.append(copy)
        else:
            alike.append(f"'{words}' looks nearly like '{kept[twin].words}'")
    return Variations(kept, _notes(len(kept), count, alike))


def _part(progress: Progress, number: int, count: int) -> Progress:
    def tell(fraction: float, message: str, handles: Mapping[str, Any]) -> None:
        progress((number + fraction) / count, f"variation {number + 1}: {message}", handles)

    return tell


def _notes(made: int, count: int, alike: Sequence[str]) -> list[str]:
    """What became of candidates that are not shown, in sentences."""
    if made < count:
        because = f": {'; '.join(alike)}" if alike else ", as this edit comes out in one way only"
        return [f"Only {made} of {count} variations can be told apart{because}."]
    return [f"Another variation was made instead: {'; '.join(alike)}."] if alike else []


def distance(one: Pixels, other: Pixels, area: Mask | None) -> float:
    """Mean CIEDE2000 of two pictures inside an area (0..1, height x width of any size); everywhere without one."""
    pair = compare(one, other)
    where = inside(area, pair.shape) if area is not None else np.ones(pair.shape, dtype=bool)
    return float(pair.difference[where].mean())


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
            yield name, [*steps[:number], shade, *steps[number + 1 :]]
    for factor in _strengths(max(step.strength for step in steps)):
        name = "stronger" if factor > 1 else "much softer" if factor < 0.5 else "softer"
        stronger = [replace(step, strength=round(min(1.0, max(_LEAST, step.strength * factor)), 2)) for step in steps]
        yield _called(name, stronger, number)


def _called(name: str, steps: Sequence[Step], number: int | None) -> _Candidate:
    """A candidate with its name: that of its preset where it has one, and how strong it is."""
    varied = steps[number or 0]
    named = name if number is None or "color" in varied.parameters else _preset(varied) or name
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
        yield f"{name}, #{mixed}", replace(step, parameters={"color": f"#{mixed}"})


def _strengths(asked: float) -> Iterator[float]:
    """Factors of the strength that was asked for, each a strength well apart from the others."""
    known = [asked]
    for factor in _FACTORS:
        strength = min(1.0, max(_LEAST, asked * factor))
        if all(max(strength, other) / min(strength, other) >= _APART for other in known):
            known.append(strength)
            yield factor
