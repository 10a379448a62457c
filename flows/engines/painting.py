"""What only a generative editor can do: a thing that is not in the photo, one thing for another, another style.

The embedded lexicon knows such a wish when it sees one, and has no look for it: the wish itself is passed on.
"""

from __future__ import annotations

from typing import Final

from edi_storage.models import EditType, Intent, PromptRecord, SceneAnalysis
from flows.engines.lexicon import normalise
from flows.engines.refusals import beyond_us
from flows.engines.steps import Step, parameters_of
from flows.engines.targets import aim_of

#: The action of an intent that says its wish in words, in `parameters["wish"]`.
PAINT: Final = "paint"
#: It is known that a generative editor is needed, not what it will make of the wish.
_CONFIDENCE: Final = 0.8
_STRENGTH: Final = 0.8
_TYPES: Final[dict[str, EditType]] = {"adding": "add", "writing": "add", "repainting": "style", "changing": "style"}


def painting(prompt: str, scene: SceneAnalysis) -> Intent | None:
    """The intent of a prompt that needs a generative editor; None for one that does not, or that none can do.

    Where the prompt names something in the photo, that is what is painted over; else it is the whole picture.
    """
    text = normalise(prompt)
    needed = beyond_us(text)
    if needed is None:
        return None
    ids = [entity.entity_id for entity in scene.entities]
    aim = aim_of(text, scene.entities)
    edit_type = _TYPES.get(needed.split()[0], "transform")
    some = aim.kind == "entities" and bool(aim.ids) and edit_type != "style"
    targets = tuple(aim.ids) if some else tuple(ids)
    step = Step(PAINT, targets, _STRENGTH, "entities" if some else "whole", {"wish": prompt})
    return Intent(
        edit_type=edit_type,
        target_entities=[name for name in ids if name in targets],
        preserve_entities=[name for name in ids if name not in targets],
        confidence=_CONFIDENCE,
        action=PAINT,
        strength=_STRENGTH,
        parameters=parameters_of([step]),
    )


def with_wish(record: PromptRecord, intent: Intent) -> PromptRecord:
    """The prompt pair with the person's own words at its beginning, where the intent has no others."""
    wish = str(intent.parameters.get("wish", "")) if intent.action == PAINT else ""
    if not wish or record.positive_prompt.startswith(wish):
        return record
    return record.model_copy(update={"positive_prompt": f"{wish}; {record.positive_prompt}"})
