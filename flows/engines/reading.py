"""From the clauses of a prompt to steps: which look, on what, how strong, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edi_storage.models import EntityData
from flows.engines.lexicon import clauses, fillers, forbidden, look_in, strength_in, vocabulary
from flows.engines.looks import LIMITED, Look
from flows.engines.paints import colour_said_of
from flows.engines.steps import Scope, Step
from flows.engines.targets import Aim, aim_of, subject_of

#: Looks that are wished for the whole picture when nothing else is said.
_ALL_OVER: Final = frozenset(
    {"exposure", "contrast", "saturation", "warmth", "sharpen", "clarity", "vignette", "black_and_white", "sepia"}
    | {"enhance", "tint", "preset", "cast", "tones"}
)
#: ... and those that are, also when the sentence before was about one thing.
_NEVER_FOR_A_PART: Final = frozenset({"vignette", "preset", "sepia", "black_and_white"})
#: A word that nothing here knows makes a reading this much less sure, and this is the most that all of them do.
_PER_STRANGE_WORD, _MOST_FOR_STRANGE_WORDS = 0.05, 0.15
_WARM: Final = frozenset({"yellow", "orange", "red", "gold", "golden", "brown", "beige"})
_COLD: Final = frozenset({"blue", "cyan", "teal", "turquoise", "navy"})


@dataclass(frozen=True)
class Reading:
    """One step as read from a clause, and how sure the reading is."""

    step: Step
    certainty: float
    #: What the clause was about but the photo does not show.
    unknown: str = ""
    #: What colour the clause says that this has, as `colour_said_of` tells it.
    colour: str = ""
    #: One of the step's targets is meant, and nothing says which.
    one_of: bool = False
    #: The look itself is vague ("nicer colours"), whatever it is for.
    vague: bool = False


@dataclass(frozen=True)
class _Part:
    clause: str
    look: Look | None
    aim: Aim


#: "not too much", "without overdoing it": how strong, said of what was wished before.
_LIMIT: Final = re.compile(
    r"(?:[,;]\s*|\bbut\s+)?\b(?:(?:but )?(?:not|nothing|never)|without (?:making|getting|going|letting)(?: (?:it|them"
    r"|the \w+))?|do not (?:make|go|let)(?: (?:it|them))?) (?:get |go )?(?:too|overly|over the top)(?: much| strong\w*"
    r"| \w+)?|\b(?:do not|without) overdo(?:ing)?(?: it)?\b"
)
#: What a person adds to explain: why, what for, and that nothing else should happen.
_ASIDE: Final = re.compile(
    r"\bso (?:that )?(?:the|it|we|they|i|you|my|he|she|people|everyone)\b[^,;]*|\b(?:because|since|cause)\b[^,;]*"
    r"|[,;]?\s*\b(?:and )?nothing else\b|\bwithout (?:losing|loss of) [^,;]*|\bthat's (?:it|all)\b|\bas usual\b"
)


def read(text: str, entities: Sequence[EntityData], kept: frozenset[str] = frozenset()) -> list[Reading]:
    """The readings of all clauses, in their order; `kept` must stay, and "the rest" is not that."""
    stripped = _ASIDE.sub(" ", text)
    wished = _LIMIT.sub(" ; ", stripped)
    limited = wished != stripped and any(look_in(clause) for clause in clauses(wished))
    parts = _aimed(_parts(wished if limited else stripped, entities), entities, kept)
    readings = [reading for part in parts for reading in _readings(part, entities)]
    if limited:
        readings = [replace(r, step=replace(r.step, strength=min(r.step.strength, LIMITED))) for r in readings]
    return _settled(readings)


def _parts(text: str, entities: Sequence[EntityData]) -> list[_Part]:
    parts: list[_Part] = []
    last: tuple[str, ...] = ()
    for clause in clauses(text):
        found = look_in(clause)
        if found and found[0].action not in ("remove", "cast") and forbidden(clause, found[1]):
            continue
        aim = aim_of(clause, entities, found[1] if found else "", last)
        last = aim.ids if aim.kind == "entities" and aim.ids else last
        parts.append(_Part(clause, found[0] if found else None, aim))
    return parts


def _aimed(parts: Sequence[_Part], entities: Sequence[EntityData], kept: frozenset[str]) -> list[_Part]:
    """The parts that have a look, each with its aim: a part without a look lends its target, one without borrows it."""
    done: list[_Part] = []
    waiting: list[Aim] = []
    last: Aim | None = None
    for part in parts:
        aim = _rest(part.aim, last, entities, kept)
        if part.look is None:
            if aim.unknown and re.fullmatch(r"an? \w+", part.clause):
                continue  # "a calmer, darker river"
            if done and aim.kind == "entities" and re.search(r"\bless$", part.clause):
                done.append(_Part(part.clause, _contrary(done[-1].look), aim))
                continue  # "the animals more saturated, the sky less"
            if not _lent(done, aim, part.clause) and _is_thing(aim) and not (done and aim.unknown):
                waiting.append(aim)
            last = aim if _is_thing(aim) and not aim.unknown else last
            continue
        if aim.kind == "nothing" or aim.pronoun:
            borrowed = waiting[-1] if waiting and not done else None
            if len(waiting) > 1 and not done and aim.kind == "nothing":
                borrowed = _together(waiting)
            aim = borrowed or _borrowed(last, part.look, aim)
        elif waiting and not done and aim.kind == "entities":
            aim = _together([*waiting, aim])
        last = aim if aim.kind != "nothing" and not aim.pronoun else last
        done.append(_Part(part.clause, part.look, aim))
    return done


def _contrary(look: Look | None) -> Look | None:
    if look is None or "direction" not in look.parameters:
        return look
    return replace(look, parameters={**look.parameters, "direction": -look.parameters["direction"]})


def _is_thing(aim: Aim) -> bool:
    return aim.kind in ("entities", "background")


def _borrowed(last: Aim | None, look: Look, aim: Aim) -> Aim:
    if last is None or (look.action in _NEVER_FOR_A_PART and not aim.pronoun):
        return aim
    return last


def _rest(aim: Aim, last: Aim | None, entities: Sequence[EntityData], kept: frozenset[str]) -> Aim:
    """ "the rest" is everything but what was named before it, or but what must stay."""
    if not aim.rest:
        return aim
    everything = tuple(entity.entity_id for entity in entities)
    if kept:
        return Aim("whole", everything, 0.95)
    if last is not None and last.kind == "entities" and last.ids:
        return Aim("background", tuple(name for name in everything if name not in last.ids), last.certainty, rest=True)
    return aim


def _together(aims: Sequence[Aim]) -> Aim:
    """ "sky and trees darker": one aim for what several clauses name before the look comes."""
    named = [aim for aim in aims if aim.kind != "nothing"]
    if len(named) == 1 or any(aim.kind != "entities" for aim in named):
        return named[-1]
    ids = tuple(dict.fromkeys(name for aim in named for name in aim.ids))
    unknown = next((aim.unknown for aim in named if aim.unknown), "")
    return Aim("entities", ids, min(aim.certainty for aim in named), unknown, any(aim.one_of for aim in named))


def _lent(done: list[_Part], aim: Aim, clause: str) -> bool:
    """ "make the sky darker and the trees": the trees too. "More dramatic, but only the sky": the sky alone."""
    if not done or not _is_thing(aim) or aim.unknown:
        return False
    before = done[-1]
    if before.aim.kind in ("nothing", "whole") or re.search(r"\b(?:only|just)\b", clause):
        done[-1] = replace(before, aim=aim)
    elif before.aim.kind == "entities" and aim.kind == "entities":
        done[-1] = replace(before, aim=_together([before.aim, aim]))
    return True


def _readings(part: _Part, entities: Sequence[EntityData]) -> list[Reading]:
    """The steps of one clause: one, but for golden light, which is a sky and what it shines on."""
    look, aim, clause = part.look, part.aim, part.clause
    assert look is not None
    mood = look.parameters.get("mood")
    sky = tuple(entity.entity_id for entity in entities if entity.label == "sky")
    if look.action == "dramatic" and mood == "golden" and aim.kind in ("whole", "nothing"):
        return _golden(look, clause, sky, entities)
    if (
        look.action == "dramatic"
        and aim.kind == "whole"
        and not re.search(r"\b(?:whole|entire|everything|overall)\b", clause)
    ):
        # "make it dramatic" mostly means the sky, but says the picture.
        aim = Aim("nothing")
    targets, sure, scope = _targets(look, aim, entities)
    certainty = min(look.certainty, sure) - _strangeness(clause, entities)
    action, parameters = settle(look.action, dict(look.parameters), targets, scope, entities)
    if action == "remove" and scope != "entities":
        certainty = min(certainty, 0.3)
    step = Step(action, targets, strength_in(clause), scope, parameters)
    colour = colour_said_of(aim.unknown, clause) if aim.unknown else ""
    return [Reading(step, max(0.05, certainty), aim.unknown, colour, aim.one_of, look.certainty < 0.7)]


def _golden(look: Look, clause: str, sky: tuple[str, ...], entities: Sequence[EntityData]) -> list[Reading]:
    strength = strength_in(clause)
    everything = tuple(entity.entity_id for entity in entities)
    if not sky:
        return [Reading(Step("dramatic", everything, strength, "whole", dict(look.parameters)), 0.85)]
    rest = tuple(name for name in everything if name not in sky)
    readings = [Reading(Step("dramatic_sky", sky, strength, "entities", dict(look.parameters)), 0.85)]
    if rest:
        readings.append(Reading(Step("warmth", rest, strength, "background", {"direction": 1}), 0.85))
    return readings


def _targets(look: Look, aim: Aim, entities: Sequence[EntityData]) -> tuple[tuple[str, ...], float, Scope]:
    ids = tuple(entity.entity_id for entity in entities)
    if aim.kind == "nothing":
        return _default_aim(look, entities)
    if aim.unknown and not aim.ids:
        return ids, 0.3, "entities"
    scope: Scope = "background" if aim.kind == "background" else "whole" if aim.kind == "whole" else "entities"
    sure = min(aim.certainty, 0.3) if aim.unknown or not aim.ids else aim.certainty
    return aim.ids or ids, sure, scope


def _default_aim(look: Look, entities: Sequence[EntityData]) -> tuple[tuple[str, ...], float, Scope]:
    """What a look is for when the prompt does not say."""
    ids = tuple(entity.entity_id for entity in entities)
    sky = tuple(entity.entity_id for entity in entities if entity.label == "sky")
    if look.action == "dramatic":
        if look.parameters.get("mood") == "clear":
            return (sky, 0.75, "entities") if sky else (ids, 0.75, "whole")
        named = look.parameters.get("mood") != "dramatic"  # "stormy" can only be the sky
        return (sky, 0.85, "entities") if named and sky else (sky or ids, 0.5, "entities" if sky else "whole")
    if look.action == "blur":
        subject = subject_of(entities)
        return tuple(name for name in ids if name not in subject.ids), subject.certainty, "background"
    if look.action == "recolour" and len(ids) > 1:
        return ids, 0.4, "whole"
    return ids, (0.93 if look.action in _ALL_OVER else 0.4), "whole"


def settle(
    action: str, parameters: dict[str, Any], targets: Sequence[str], scope: Scope, entities: Sequence[EntityData]
) -> tuple[str, dict[str, Any]]:
    """The action that a look is on these targets: a dramatic look on nothing but sky is the sky's own, and so on."""
    labels = {entity.label for entity in entities if entity.entity_id in targets}
    if labels == {"sky"}:
        mood = _sky_mood(action, parameters)
        return ("dramatic_sky", {"mood": mood}) if mood else _on_a_thing(action, parameters, scope)
    if action == "dramatic" and parameters.get("mood") == "clear":
        return "clarity", {}
    if action == "dramatic" and parameters.get("mood") == "golden":
        return "warmth", {"direction": 1}
    if action == "dramatic_sky":
        return "dramatic", parameters
    return _on_a_thing(action, parameters, scope)


def _sky_mood(action: str, parameters: Mapping[str, Any]) -> str:
    if action in ("dramatic", "dramatic_sky"):
        return str(parameters.get("mood", "dramatic"))
    if action == "preset" and parameters.get("name") in ("moody", "cinematic"):
        return "dramatic"
    name = str(parameters.get("colour_name", "")).split(" ")[-1] if action == "recolour" else ""
    return {"blue": "clear", "grey": "stormy", "gray": "stormy", "black": "stormy"}.get(name, "")


def _on_a_thing(action: str, parameters: dict[str, Any], scope: Scope) -> tuple[str, dict[str, Any]]:
    if action == "recolour" and scope == "background":
        return "fill", parameters
    if action == "recolour" and scope == "whole":
        grey = parameters.get("colour_name") in ("grey", "gray")
        return ("black_and_white", {}) if grey else ("tint", {"color": parameters["color"]})
    if action == "cast":
        return _cast(str(parameters["name"]), scope)
    return action, parameters


def _cast(name: str, scope: Scope) -> tuple[str, dict[str, Any]]:
    """ "too yellow": of a picture its light, of a thing its colour."""
    if name in ("white", "black", "grey", "gray"):
        return "exposure", {"direction": -1 if name == "white" else 1}
    if scope == "whole" and name in _WARM | _COLD:
        return "warmth", {"direction": -1 if name in _WARM else 1}
    return "saturation", {"direction": -1}


def _strangeness(clause: str, entities: Sequence[EntityData]) -> float:
    """How much less sure a reading is for the words of its clause that mean nothing here."""
    labels = {word for entity in entities for word in entity.label.split()}
    words = {word.removesuffix("'s") for word in re.findall(r"[a-z']{3,}", clause)}
    known = vocabulary()
    strange = {word for word in words if word not in known and word.rstrip("s") not in known} - labels - fillers()
    return min(_MOST_FOR_STRANGE_WORDS, _PER_STRANGE_WORD * len(strange))


def _settled(readings: Sequence[Reading]) -> list[Reading]:
    """Without what is said twice, and without vague wishes where clear ones explain them."""
    sure = [reading for reading in readings if reading.step.action != "enhance"]
    if sure:
        # "make it better and brighter" says what better means.
        readings = sure
    firm = {reading.step.targets for reading in readings if reading.certainty >= 0.8}
    readings = [r for r in readings if r.certainty > 0.72 or r.step.targets not in firm or r.unknown or r.one_of]
    skies = {r.step.targets for r in readings if r.step.action == "dramatic_sky"}
    kept: dict[tuple[object, ...], Reading] = {}
    for reading in readings:
        step = reading.step
        family = "sky" if step.targets in skies and step.action == "dramatic_sky" else step.action
        key: tuple[object, ...] = (
            family,
            step.targets,
            step.scope,
            None if family == "sky" else step.parameters.get("direction"),
        )
        if family not in (
            "sky",
            "exposure",
            "contrast",
            "saturation",
            "warmth",
            "sharpen",
            "blur",
            "clarity",
            "enhance",
        ):
            key = (*key, str(sorted(step.parameters.items())))
        if key not in kept:
            kept[key] = reading
        else:
            first = kept[key]
            stronger = max((first.step.strength, step.strength), key=lambda strength: abs(strength - 0.6))
            parameters = step.parameters if family == "sky" else first.step.parameters
            both = replace(first.step, strength=stronger, parameters=parameters)
            kept[key] = replace(first, step=both, certainty=max(first.certainty, reading.certainty))
    return list(kept.values())
