"""From a naive prompt and a described photo to an intent, with one question where the words leave it open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edi_storage.errors import InputError, UnsupportedEditError
from edi_storage.models import EntityData, Intent, Question, SceneAnalysis, check_text
from flows.engines.lexicon import DEFAULT_STRENGTH, EDIT_TYPES, beyond_us, clauses, look_in, normalise, strength_in
from flows.engines.steps import Scope, Step, parameters_of
from flows.engines.targets import Aim, aim_of, phrase_of

#: Below this the person is asked.
SURE: Final = 0.7
#: The confidence of a choice the person made.
_CHOSEN: Final = 0.95
_LONGEST: Final = 2000
_MOST_CHOICES: Final = 6
_EXAMPLES: Final = "for example 'make the sky dramatic', 'warmer', 'blur the background' or 'black and white'"

#: Looks that are wished for the whole picture when nothing else is said.
_ALL_OVER: Final = frozenset(
    [
        "exposure",
        "contrast",
        "saturation",
        "warmth",
        "sharpen",
        "clarity",
        "vignette",
        "black_and_white",
        "sepia",
        "enhance",
        "tint",
    ]
)


@dataclass(frozen=True)
class _Reading:
    """One step as read from a clause, and how sure the reading is."""

    step: Step
    certainty: float
    #: What the clause was about but the photo does not show.
    unknown: str = ""


@dataclass(frozen=True)
class _Choice:
    text: str
    steps: tuple[Step, ...]
    kept: frozenset[str] = frozenset()


def understand(prompt: str, scene: SceneAnalysis, answer: int | None = None) -> Intent:
    """The intent of a prompt; see `Reasoner.understand`. Without an answer, choice 1 is what it would do."""
    text = _checked(prompt)
    if re.search(r"\b(?:crop|rotate|resize|flip|mirror|straighten|zoom|upscale|enlarge)\b", text):
        raise UnsupportedEditError(
            "EDI changes light, colour and focus; to crop, turn or resize a photo use an image editor or viewer."
        )
    impossible = beyond_us(text)
    if impossible:
        raise UnsupportedEditError(
            f"{impossible[0].upper()}{impossible[1:]} needs a generative backend, which the embedded editor is not: "
            "set EDI_EDITOR=comfyui with a ComfyUI server, or ask for a change of light, colour or focus."
        )
    text, kept, missing = _split_kept(text, scene.entities)
    readings = _read(text, scene.entities)
    confidence = min((reading.certainty for reading in readings), default=0.0)
    if readings and confidence >= SURE and not missing:
        return _intent([reading.step for reading in readings], kept, scene, confidence)
    if readings and missing:
        confidence = min(confidence, 0.4)
        question, choices = _ask_what_to_keep(missing, kept, readings, scene.entities)
    else:
        question, choices = _ask(prompt, text, readings, scene.entities)
    number = 1 if answer is None else answer
    if not 1 <= number <= len(choices):
        raise InputError(f"The answer {number} is none of the choices: give a number from 1 to {len(choices)}.")
    certainty = min(confidence, 0.65) if answer is None else _CHOSEN
    chosen = choices[number - 1]
    intent = _intent(chosen.steps, kept | chosen.kept, scene, certainty)
    return intent.model_copy(update={"question": question, "answer": answer})


def _checked(prompt: str) -> str:
    try:
        check_text(prompt)
    except ValueError as error:
        raise InputError(f"The prompt {error}.") from None
    if len(prompt) > _LONGEST:
        raise InputError(f"The prompt has {len(prompt)} characters; say it in at most {_LONGEST}.")
    text = normalise(prompt)
    if not text:
        raise InputError(f"The prompt says nothing; say what to change, {_EXAMPLES}.")
    return text


_KEPT: Final = re.compile(
    r"(?:\b(?:but|and|while)\s+)?(?:"
    r"\b(?:do not|don't|without|not|never) (?:touch|touching|chang\w*|affect\w*|alter\w*|edit\w*|modify\w*|los\w*)"
    r"|\b(?:keep|keeping|leave|leaving|preserve|preserving|protect|protecting|maintain|maintaining)\b"
    r"|\bexcept(?: for)?\b|\bapart from\b|\bother than\b|\bexcluding\b|\bbut not\b|\b(?:everything|all) but\b"
    r")(?P<what>.*?)(?=$|[,;]|\b(?:and|but|then) (?:make|turn|add|blur|give|the \w+ (?:more|less|\w+er))\b)"
)
_KEPT_COLOUR: Final = re.compile(r"\b(?:keep|leave|with)(?: only| just)? (?P<what>.*?) in colou?r\b")


def _split_kept(text: str, entities: Sequence[EntityData]) -> tuple[str, frozenset[str], str]:
    """The prompt without its "except", "keep" and "don't touch" parts, what they name, and a thing not found."""
    kept: set[str] = set()
    missing = ""
    selective = _KEPT_COLOUR.search(text)
    if selective:
        aim = aim_of("the " + selective.group("what").removeprefix("the "), entities)
        kept |= set(aim.ids)
        missing = aim.unknown
        text = _KEPT_COLOUR.sub(" ; black and white ; ", text)
    for match in _KEPT.finditer(text):
        what = re.sub(
            r"\b(?:as (?:it|they) (?:is|are)|unchanged|untouched|alone|the same|natural|as is)\b", "", match["what"]
        )
        for part in re.split(r"\band\b|,", what):
            aim = aim_of(part if re.search(r"\b(?:the|my|a)\b", part) else f"the {part}", entities)
            kept |= set(aim.ids) if aim.kind != "whole" else set()
            missing = missing or aim.unknown
    everything = re.search(r"\b(?:everything|all) but\b", text)
    rest = _KEPT.sub(" everything ; " if everything else " ; ", text).strip(" ;,")
    return rest, frozenset(kept), missing


def _read(text: str, entities: Sequence[EntityData]) -> list[_Reading]:
    """The readings of all clauses. A clause without a look lends its target, one without a target borrows it."""
    readings: list[_Reading] = []
    waiting: list[Aim] = []
    last: Aim | None = None
    for clause in clauses(text):
        found = look_in(clause)
        aim = aim_of(clause, entities, found[1] if found else "")
        if found is None:
            if aim.kind != "nothing" and not aim.unknown:
                waiting.append(aim)
                _lend(readings, aim)
            elif aim.unknown and not readings:
                waiting.append(aim)
            continue
        if waiting and not readings and aim.kind in ("nothing", "entities"):
            aim = _together([*waiting, aim])
        elif aim.kind == "nothing":
            aim = last or aim
        last = aim if aim.kind != "nothing" else last
        look, _ = found
        readings.append(_reading(look.action, dict(look.parameters), look.certainty, aim, clause, entities))
    sure = [reading for reading in readings if reading.step.action != "enhance"]
    # "make it better and brighter" says what better means.
    return sure or readings


def _together(aims: Sequence[Aim]) -> Aim:
    """ "sky and trees darker": one aim for what several clauses name before the look comes."""
    named = [aim for aim in aims if aim.kind != "nothing"]
    if len(named) == 1 or any(aim.kind != "entities" for aim in named):
        return named[-1]
    ids = tuple(dict.fromkeys(name for aim in named for name in aim.ids))
    unknown = next((aim.unknown for aim in named if aim.unknown), "")
    return Aim("entities", ids, min(aim.certainty for aim in named), unknown)


def _lend(readings: list[_Reading], aim: Aim) -> None:
    """ "make the sky darker and the trees": the trees too."""
    if readings and aim.kind == "entities":
        previous = readings[-1]
        targets = tuple(dict.fromkeys((*previous.step.targets, *aim.ids)))
        if previous.step.scope == "entities":
            readings[-1] = replace(previous, step=replace(previous.step, targets=targets))


def _reading(
    action: str,
    parameters: dict[str, Any],
    certainty: float,
    aim: Aim,
    clause: str,
    entities: Sequence[EntityData],
) -> _Reading:
    ids = tuple(entity.entity_id for entity in entities)
    strength = strength_in(clause)
    scope: Scope = "entities"
    targets, sure, unknown = aim.ids, aim.certainty, aim.unknown
    if aim.kind == "background":
        scope = "background"
    elif aim.kind == "whole":
        scope = "whole"
    elif aim.kind == "nothing":
        targets, sure, scope = _default_aim(action, parameters, entities)
    if (
        action == "dramatic"
        and aim.kind == "whole"
        and not re.search(r"\b(?:whole|entire|everything|all|overall)\b", clause)
    ):
        # "make it dramatic" mostly means the sky, but says the picture.
        targets, sure, scope = _default_aim(action, parameters, entities)
    if unknown or (not targets and aim.kind != "nothing"):
        targets, sure = targets or ids, 0.3
    if action == "recolour" and scope == "background":
        action = "fill"
    if action == "recolour" and scope == "whole":
        action, parameters = "tint", {"color": parameters["color"]}
    if action == "remove" and scope != "entities":
        sure = 0.3
    if action == "blur" and scope == "whole" and re.search(r"\bbackground|behind\b", clause):
        scope = "background"
    action = _settle(action, targets, entities)
    return _Reading(Step(action, targets, strength, scope, parameters), min(certainty, sure), unknown)


def _settle(action: str, targets: Sequence[str], entities: Sequence[EntityData]) -> str:
    """A dramatic look on nothing but sky is the sky's own operation."""
    labels = {entity.label for entity in entities if entity.entity_id in targets}
    return "dramatic_sky" if action == "dramatic" and labels == {"sky"} else action


def _default_aim(
    action: str, parameters: dict[str, Any], entities: Sequence[EntityData]
) -> tuple[tuple[str, ...], float, Scope]:
    """What a look is for when the prompt does not say."""
    ids = tuple(entity.entity_id for entity in entities)
    sky = tuple(entity.entity_id for entity in entities if entity.label == "sky")
    if action == "dramatic":
        named = parameters.get("mood") != "dramatic"  # "stormy" can only be the sky
        return (sky, 0.85, "entities") if named and sky else (sky or ids, 0.5, "entities" if sky else "whole")
    if action == "blur":
        aim = aim_of("the background", entities)
        return aim.ids, aim.certainty, "background"
    return ids, (0.95 if action in _ALL_OVER else 0.4), "whole"


def _intent(steps: Sequence[Step], kept: frozenset[str], scene: SceneAnalysis, confidence: float) -> Intent:
    """Steps as an intent: what is not a target is to be preserved, and what is kept is never a target."""
    ids = [entity.entity_id for entity in scene.entities]
    narrowed = []
    for step in steps:
        targets = tuple(target for target in step.targets if target not in kept)
        scope: Scope = "background" if step.scope == "whole" and kept else step.scope
        narrowed.append(replace(step, targets=targets, scope=scope))
    narrowed = [step for step in narrowed if step.targets or not ids]
    if not narrowed:
        raise InputError("The prompt asks to change and to keep the same things; say which of them should change.")
    touched = {target for step in narrowed for target in step.targets}
    first = narrowed[0]
    return Intent(
        edit_type=EDIT_TYPES[first.action],
        target_entities=[entity for entity in ids if entity in touched],
        preserve_entities=[entity for entity in ids if entity not in touched],
        confidence=round(confidence, 3),
        action=first.action,
        strength=first.strength,
        parameters=parameters_of(narrowed),
    )


def _ask(
    prompt: str, text: str, readings: Sequence[_Reading], entities: Sequence[EntityData]
) -> tuple[Question, list[_Choice]]:
    """The one question for an unclear prompt, and what each of its choices would do."""
    if not readings:
        return _ask_for_look(prompt, text, entities)
    weak = min(readings, key=lambda reading: reading.certainty)
    others = tuple(reading.step for reading in readings if reading is not weak)
    if weak.step.action == "enhance":
        choices = _enhancements(weak.step, entities)
        asked = "What would make it better?"
    elif weak.step.action in ("dramatic", "dramatic_sky") and not weak.unknown:
        choices = _dramas(weak.step, entities)
        asked = "What should become dramatic?"
    else:
        choices = _places(weak, entities)
        missing = f"I do not see '{weak.unknown}' for certain in this photo. " if weak.unknown else ""
        asked = f"{missing}What should be {_DONE.get(weak.step.action, 'changed')}?"
    return _question(asked, [replace(choice, steps=(*choice.steps, *others)) for choice in choices])


_DONE: Final = {
    "blur": "blurred",
    "remove": "removed",
    "recolour": "given the new colour",
    "exposure": "made brighter or darker",
    "dramatic": "made dramatic",
}


def _question(text: str, choices: list[_Choice]) -> tuple[Question, list[_Choice]]:
    if len(choices) < 2:
        gently = tuple(replace(step, strength=0.35) for step in choices[0].steps)
        choices = [*choices, _Choice(f"{choices[0].text}, only a little", gently)]
    told: list[_Choice] = []
    for choice in choices:
        # Two brown regions at the top: the person has to be able to tell which is which.
        same = sum(earlier.text.split(", no. ")[0] == choice.text for earlier in told)
        told.append(replace(choice, text=f"{choice.text}, no. {same + 1}") if same else choice)
    return Question(text=text, choices=[choice.text for choice in told]), told


def _ask_for_look(prompt: str, text: str, entities: Sequence[EntityData]) -> tuple[Question, list[_Choice]]:
    """A prompt that names a thing but no look ("the sky"), or nothing at all, which is an InputError."""
    aim = aim_of(text if re.search(r"\bthe\b", text) else f"the {text}", entities)
    if aim.kind == "nothing" or (aim.unknown and not re.search(r"\b(?:make|change|the|my)\b", text)):
        raise InputError(f"I do not see what to change in '{prompt.strip()[:80]}'; say what and how, {_EXAMPLES}.")
    ids = aim.ids if aim.ids and not aim.unknown else tuple(entity.entity_id for entity in entities)
    scope: Scope = "whole" if len(ids) == len(entities) else "entities"
    step = Step("enhance", ids, DEFAULT_STRENGTH, scope)
    return _question("What should change about it?", _enhancements(step, entities))


def _ask_what_to_keep(
    missing: str, kept: frozenset[str], readings: Sequence[_Reading], entities: Sequence[EntityData]
) -> tuple[Question, list[_Choice]]:
    """For "except the flower" where no flower is known: which part of this photo it is, or none."""
    steps = tuple(reading.step for reading in readings)
    likely = _likely(_Reading(steps[0], 0.0, missing), entities)
    others = [entity for entity in likely if entity.entity_id not in kept][: min(_MOST_CHOICES, len(entities)) - 1]
    choices = [_Choice(phrase_of(entity, entities), steps, frozenset({entity.entity_id})) for entity in others]
    choices.append(_Choice("nothing", steps))
    return _question(f"I do not see '{missing}' for certain in this photo. What should stay as it is?", choices)


def _enhancements(step: Step, entities: Sequence[EntityData]) -> list[_Choice]:
    sky = tuple(e.entity_id for e in entities if e.label == "sky" and (e.entity_id in step.targets))
    up = {"direction": 1}
    choices = [
        _Choice("clearer and livelier: light, contrast and colour together", (step,)),
        _Choice("brighter", (replace(step, action="exposure", parameters=up),)),
        _Choice("richer colours", (replace(step, action="saturation", parameters=up),)),
        _Choice("warmer", (replace(step, action="warmth", parameters=up),)),
    ]
    if sky:
        dramatic = Step("dramatic_sky", sky, step.strength, "entities", {"mood": "dramatic"})
        choices.append(_Choice("a dramatic sky, the rest untouched", (dramatic,)))
    return choices


def _dramas(step: Step, entities: Sequence[EntityData]) -> list[_Choice]:
    ids = tuple(entity.entity_id for entity in entities)
    sky = tuple(entity.entity_id for entity in entities if entity.label == "sky")
    mood = {"mood": step.parameters.get("mood", "dramatic")}
    whole = Step("dramatic", ids, step.strength, "whole", mood)
    choices = [
        _Choice("the whole picture: deeper light and stronger structure", (whole,)),
        _Choice(
            "the whole picture in dramatic black and white",
            (Step("black_and_white", ids, 1.0, "whole"), Step("clarity", ids, step.strength, "whole")),
        ),
    ]
    if sky:
        choices.insert(
            0, _Choice("the sky, the rest untouched", (Step("dramatic_sky", sky, step.strength, "entities", mood),))
        )
        return choices
    return [*choices, *_places(_Reading(step, 0.0), entities)[:-1]][:_MOST_CHOICES]


def _places(weak: _Reading, entities: Sequence[EntityData]) -> list[_Choice]:
    """The action on each likely part of this photo, likeliest first, and on the whole picture."""
    ids = tuple(entity.entity_id for entity in entities)
    step = weak.step
    choices = []
    if step.scope == "background":
        subject = [entity for entity in entities if entity.entity_id not in step.targets]
        names = " and ".join(phrase_of(entity, entities) for entity in subject[:3])
        if subject:
            choices.append(_Choice(f"everything but {names}", (step,)))
        for entity in _likely(weak, entities):
            if [entity] != subject:
                rest = tuple(name for name in ids if name != entity.entity_id)
                aimed = replace(step, targets=rest)
                choices.append(_Choice(f"everything but {phrase_of(entity, entities)}", (aimed,)))
    else:
        for entity in _likely(weak, entities):
            aimed = replace(step, targets=(entity.entity_id,), scope="entities")
            aimed = replace(aimed, action=_settle(aimed.action, aimed.targets, entities))
            choices.append(_Choice(phrase_of(entity, entities), (aimed,)))
    choices = choices[: _MOST_CHOICES - 1]
    whole = replace(
        step, targets=ids, scope="whole", action="dramatic" if step.action == "dramatic_sky" else step.action
    )
    if step.action != "remove" or len(choices) < 2:
        choices.append(_Choice("the whole picture", (whole,)))
    return choices


def _likely(weak: _Reading, entities: Sequence[EntityData]) -> list[EntityData]:
    """Entities in the order in which they may be meant: for a sky the upper ones, for a thing the middle ones."""
    up = weak.unknown in ("sky", "skies", "cloud", "clouds") or weak.step.action == "dramatic"

    def height(entity: EntityData) -> float:
        box = entity.bbox
        return 0.0 if box is None else box.y + box.height / 2

    asked = [entity for entity in entities if entity.entity_id in weak.step.targets]
    pool = asked if asked and not weak.unknown and weak.step.scope == "entities" else list(entities)
    if up:
        return sorted(pool, key=lambda entity: (height(entity), entity.entity_id))
    return sorted(pool, key=lambda entity: (_rank(entity), -(entity.area_percent or 0.0), entity.entity_id))


def _rank(entity: EntityData) -> int:
    """A thing somebody names without our knowing the word is likely the subject, and hardly the sky."""
    return {"subject": 0, "sky": 2}.get(entity.label, 1)
