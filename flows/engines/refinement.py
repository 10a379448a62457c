"""The four prompt pairs of an intent, and how good a pair is.

Iteration 0 says what to change, 1 adds what must stay, 2 adds how (technical terms, and how much), 3 adds quality
words. Each holds all of the one before, so that the pairs can be compared and the best one chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edi_storage.errors import InputError
from edi_storage.models import ITERATIONS, EntityData, Intent, PromptRecord, SceneAnalysis
from flows.engines.base import Choice, as_read
from flows.engines.looks import DEFAULT_STRENGTH
from flows.engines.paints import COLOURS
from flows.engines.places import place_of
from flows.engines.steps import Step, amount_of, steps_of

_BASE: Final = {
    "dramatic_sky": "{mood} sky in {target}, {sky}",
    "preset": "{target} with a {preset} look",
    "tones": "{target} with {more} {area}",
    "dramatic": "{mood} light on {target}, deep tones",
    "exposure": "{target} {more}",
    "contrast": "{target} with {amount} contrast",
    "saturation": "{target} with {rich} colours",
    "warmth": "{target} in {warm} light",
    "recolour": "{target} in {colour}",
    "tint": "{target} with a touch of {colour}",
    "fill": "plain {colour} in place of {target}",
    "enhance": "{target} clearer and livelier",
    "sharpen": "{target} in crisp focus",
    "clarity": "{target} with clear structure",
    "vignette": "corners of {target} falling off into the dark",
    "black_and_white": "{target} in black and white",
    "sepia": "{target} in sepia, like an old print",
    "blur": "{target} softly out of focus",
    "remove": "{target} removed, the surroundings continued",
}
_OPPOSITE: Final = {
    "dramatic_sky": "{unlike_sky}",
    "preset": "plain digital colours",
    "tones": "{lost} {area}",
    "dramatic": "flat light",
    "exposure": "{less}",
    "contrast": "{unlike} contrast",
    "saturation": "{poor} colours",
    "warmth": "{cold} cast",
    "recolour": "colour spill",
    "tint": "colour spill",
    "fill": "ragged outline",
    "enhance": "dull, flat",
    "sharpen": "blurred",
    "clarity": "hazy",
    "vignette": "hard-edged vignette",
    "black_and_white": "colour",
    "sepia": "modern colours",
    "blur": "blurred subject",
    "remove": "smeared patch",
}
_TECHNICAL: Final = {
    "dramatic_sky": "graduated exposure darkest at the top, split toning, sky mask with a soft horizon",
    "preset": "tone curve, split toning and grain of the {preset} preset",
    "tones": "tone curve limited to the {area}",
    "dramatic": "local contrast, S-curve, vignette",
    "exposure": "exposure in linear light with highlight roll-off",
    "contrast": "S-curve around the mid-tone, guided-filter local contrast",
    "saturation": "vibrance that spares saturated colours",
    "warmth": "white balance shift at constant luma",
    "recolour": "hue and chroma replaced in CIE Lab, shading kept",
    "tint": "split toning at constant luma",
    "fill": "alpha matte with a soft border",
    "enhance": "exposure, local contrast and vibrance balanced",
    "sharpen": "unsharp mask on luma with limited overshoot",
    "clarity": "guided-filter local contrast at 3 % radius",
    "vignette": "radial exposure falloff",
    "black_and_white": "channel mix for skin and sky, gentle S-curve",
    "sepia": "channel mix, warm toning",
    "blur": "disc bokeh in linear light, {falloff}",
    "remove": "patch-based fill",
}
_QUALITY: Final = "photorealistic, natural transitions, fine detail kept"
_DEFECTS: Final = "halos, banding, noise, artifacts"
_PRECISE: Final = "soft-edged mask, gamma-aware"


def refine(
    prompt: str,
    scene: SceneAnalysis,
    intent: Intent,
    iteration: int,
    attempt: int = 1,
    previous: PromptRecord | None = None,
    hints: Sequence[str] | None = None,
    choice: Choice = as_read,
) -> PromptRecord:
    """The prompt pair of one iteration; see `Reasoner.refine`. The same inputs give the same pair.

    `previous`, if it is the iteration just before of the same attempt, is continued; else all is written anew. A
    strength that the person gave, in words or as a wish, is no matter of `choice`.
    """
    if iteration not in ITERATIONS:
        raise InputError(f"There is no refinement iteration {iteration}; there are 0 to {ITERATIONS[-1]}.")
    first, positive, negative = 0, [], []
    if previous is not None and (previous.attempt_number, previous.iteration) == (attempt, iteration - 1):
        first, positive, negative = iteration, _parts(previous.positive_prompt), _parts(previous.negative_prompt)
    steps = [_chosen(step, scene, choice) for step in steps_of(intent)]
    for number in range(first, iteration + 1):
        more, less = _LAYERS[number](scene, intent, steps, list(hints or []))
        positive += [clause for clause in more if clause not in positive]
        negative += [clause for clause in less if clause not in negative]
    record = PromptRecord(
        attempt_number=attempt,
        iteration=iteration,
        positive_prompt="; ".join(positive),
        negative_prompt="; ".join(negative),
    )
    score = quality_score(record.positive_prompt, record.negative_prompt, scene, intent, steps)
    return record.model_copy(update={"quality_score": score})


def _chosen(step: Step, scene: SceneAnalysis, choice: Choice) -> Step:
    labels = tuple(sorted({entity.label for entity in scene.entities if entity.entity_id in step.targets}))
    chosen = choice(step, labels)
    strength = chosen.strength if step.strength == DEFAULT_STRENGTH else step.strength
    return replace(step, parameters=chosen.parameters, strength=min(1.0, max(0.0, strength)))


def _parts(prompt: str) -> list[str]:
    return [part for part in prompt.split("; ") if part]


Clauses = tuple[list[str], list[str]]


def _base(scene: SceneAnalysis, intent: Intent, steps: Sequence[Step], hints: list[str]) -> Clauses:
    positive = [_fill_in(_BASE.get(step.action, "{target} changed"), step, scene) for step in steps]
    negative = [_fill_in(_OPPOSITE.get(step.action, ""), step, scene) for step in steps]
    wishes, protected = _from_hints(hints, scene)
    return positive + wishes, [clause for clause in negative if clause] + protected


def _preservation(scene: SceneAnalysis, intent: Intent, steps: Sequence[Step], hints: list[str]) -> Clauses:
    kept = [entity for entity in scene.entities if entity.entity_id in intent.preserve_entities]
    limits = [entity for entity in scene.entities if entity.entity_id == intent.parameters.get("within")]
    limited = [f"no change outside {_called(entity, scene)}" for entity in limits]
    if not kept:
        return [*limited, "composition and all outlines unchanged"], ["distorted shapes"]
    positive = [f"keep {_called(entity, scene)} exactly as it is" for entity in kept]
    return positive + limited, [f"changes to {_called(entity, scene)}" for entity in kept]


def _technique(scene: SceneAnalysis, intent: Intent, steps: Sequence[Step], hints: list[str]) -> Clauses:
    terms = [_fill_in(_TECHNICAL[step.action], step, scene) for step in steps if step.action in _TECHNICAL]
    return [*terms, ", ".join(amount_of(step) for step in steps), _PRECISE], ["hard mask edges", "clipped highlights"]


def _quality(scene: SceneAnalysis, intent: Intent, steps: Sequence[Step], hints: list[str]) -> Clauses:
    return [_QUALITY], [_DEFECTS]


_LAYERS: Final = (_base, _preservation, _technique, _quality)


#: What a person's reasons ask for: of an editor more of something, or less.
_ASKED_FOR: Final = {
    "stronger": "stronger than the attempt before",
    "weaker": "weaker than the attempt before",
    "too weak": "stronger than the attempt before",
    "too strong": "weaker than the attempt before",
    "edges": "clean edges",
    "colour": "natural colours",
    "tone": "balanced tones",
}
_UNWANTED: Final = {"wrong region": "changes beside what is meant", "artifact": "visible traces of the edit"}


def _from_hints(hints: Sequence[str], scene: SceneAnalysis) -> Clauses:
    """What earlier attempts got wrong, as clauses."""
    positive, negative = [], []
    for hint in dict.fromkeys(hints):
        if hint.startswith("protect "):
            name = hint.removeprefix("protect ")
            entity = next((entity for entity in scene.entities if entity.entity_id == name), None)
            negative.append(f"spill onto {_called(entity, scene) if entity else name}")
        elif hint in _UNWANTED:
            negative.append(_UNWANTED[hint])
        else:
            positive.append(_ASKED_FOR.get(hint, hint))
    return positive, negative


def _called(entity: EntityData, scene: SceneAnalysis) -> str:
    place = place_of(entity, scene.entities)
    return f"the {entity.label}" + ("" if place == "all over" else f" ({place})")


def _fill_in(template: str, step: Step, scene: SceneAnalysis) -> str:
    targets = [entity for entity in scene.entities if entity.entity_id in step.targets]
    whole = step.scope == "whole" or len(targets) == len(scene.entities)
    target = "the whole picture" if whole else " and ".join(_called(entity, scene) for entity in targets)
    if step.scope == "background":
        target = "the background"
    up = float(step.parameters.get("direction", 1)) >= 0
    hexes = {paint: name for name, paint in reversed(list(COLOURS.items()))}
    paint = str(step.parameters.get("color", ""))
    even = step.scope != "background" or step.parameters.get("falloff") == "even"
    clear = step.parameters.get("mood") == "clear"
    words = {
        "target": target,
        "mood": str(step.parameters.get("mood", "dramatic")),
        "sky": "blue with fair clouds" if clear else "deep tones, structured clouds",
        "unlike_sky": "grey sky, dark clouds" if clear else "flat sky, overexposed sky",
        "preset": str(step.parameters.get("name", "chosen")),
        "area": str(step.parameters.get("area", "shadows")),
        "lost": "blocked" if up else "blown",
        "falloff": "even" if even else "softer with the distance",
        "colour": str(step.parameters.get("colour_name") or hexes.get(paint) or paint or "another colour"),
        "more": "brighter" if up else "darker",
        "less": "underexposed" if up else "overexposed",
        "amount": "more" if up else "less",
        "unlike": "flat" if up else "harsh",
        "rich": "richer" if up else "muted",
        "poor": "dull" if up else "garish",
        "warm": "warmer" if up else "cooler",
        "cold": "cold blue" if up else "warm yellow",
    }
    return template.format(**words)


def quality_score(
    positive: str, negative: str, scene: SceneAnalysis, intent: Intent, steps: Sequence[Step] | None = None
) -> float:
    """How good a prompt pair is, 0..1, read from its text alone:

        0.30 specificity   share of the target entities that it names, twins with their place; for a step on the
                           whole picture or the background it is enough to name that
      + 0.10 action        it says what to do with them: the base clause of every step is there
      + 0.25 preservation  share of the entities to preserve that it says to keep (all outlines, when there are none)
      + 0.15 technique     a technical clause for every step (0.10) and a strength as a number (0.05)
      + 0.10 quality       quality words in the positive and defects in the negative, 0.05 each
      + 0.10 counterpart   the negative prompt is not empty
      - 0.50 contradiction share of the negative's clauses that the positive asks for or that forbid a target, plus
                           the share of the targets that the positive says to keep; at most 1

    Limited to 0..1. Each iteration of `refine` adds clauses of one kind, so that its score rises with every one.
    `steps` are what the pair was written for, where a choice made them other than the intent's own.
    """
    asked, forbidden = _parts(positive.lower()), _parts(negative.lower())
    steps = steps_of(intent) if steps is None else steps
    by_id = {entity.entity_id: entity for entity in scene.entities}
    targets = [by_id[name] for name in intent.target_entities if name in by_id]
    kept = [by_id[name] for name in intent.preserve_entities if name in by_id]
    keeping = [clause for clause in asked if re.match(r"(?:keep|leave|preserve)\b", clause)]
    spared = _share(any(_names(entity, clause, scene) for clause in keeping) for entity in kept)
    score = 0.30 * _specificity(asked, targets, steps, scene)
    score += 0.10 * _share(_clause(_BASE, step, scene) in asked for step in steps)
    score += 0.25 * (spared if kept else float("outlines unchanged" in positive.lower()))
    score += 0.10 * _share(_clause(_TECHNICAL, step, scene) in asked for step in steps)
    score += 0.05 * (re.search(r"\d+ %", positive) is not None) + 0.10 * bool(forbidden)
    score += 0.05 * (_QUALITY in positive.lower()) + 0.05 * (_DEFECTS in negative.lower())
    called = [_called(entity, scene).lower() for entity in targets]
    against = _share(any(_names(entity, clause, scene) for clause in keeping) for entity in targets)
    score -= 0.50 * min(1.0, _contradiction(asked, forbidden, called) + against)
    return round(min(1.0, max(0.0, score)), 4)


def _share(hits: Iterable[bool]) -> float:
    """How many of some are so, 0..1; of none, none."""
    listed = list(hits)
    return sum(listed) / max(1, len(listed))


def _clause(table: Mapping[str, str], step: Step, scene: SceneAnalysis) -> str:
    fallback = "{target} changed" if table is _BASE else "?"
    return _fill_in(table.get(step.action, fallback), step, scene).lower()


def _names(entity: EntityData, text: str, scene: SceneAnalysis) -> bool:
    """Whether a text names this entity; where there are several of its label, with its place."""
    alone = sum(other.label == entity.label for other in scene.entities) == 1
    return (f"the {entity.label}" if alone else _called(entity, scene)).lower() in text


def _specificity(
    asked: Sequence[str], targets: Sequence[EntityData], steps: Sequence[Step], scene: SceneAnalysis
) -> float:
    about = "; ".join(clause for clause in asked if not clause.startswith(("keep ", "no change")))
    scopes = {"whole": "the whole picture", "background": "the background"}
    if any(step.scope in scopes and scopes[step.scope] in about for step in steps) or not targets:
        return float(bool(asked))
    everything = len(targets) == len(scene.entities) and scopes["whole"] in about
    return 1.0 if everything else _share(_names(entity, about, scene) for entity in targets)


def _contradiction(asked: Sequence[str], forbidden: Sequence[str], targets: Sequence[str]) -> float:
    """Share of the forbidden clauses that are also asked for, or that forbid changing a target."""
    if not forbidden:
        return 0.0
    spoilt = [f"changes to {target}" for target in targets]
    clashes = sum(
        clause in asked or any(clause == part.strip() for a in asked for part in a.split(",")) for clause in forbidden
    )
    return (clashes + sum(clause in spoilt for clause in forbidden)) / len(forbidden)
