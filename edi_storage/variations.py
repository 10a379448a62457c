"""Variations of an edit in the state: how they come into it, and how one of them becomes the attempt's result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edi_storage.models import Intent, Operation, Question
from edi_storage.state import Json, merge_patch, replacing
from edi_storage.steps import answer_step, next_step

#: What of an intent tells one variation from another.
_OWN = ("action", "strength", "parameters")


def variation(path: str, operations: Iterable[Operation], words: str, intent: Intent) -> Json:
    """One variation as it stands in the state; `intent` asks for just this one."""
    return {
        "path": path,
        "operations": [operation.model_dump(mode="json") for operation in operations],
        "words": words,
        "intent": intent.model_dump(mode="json", include=set(_OWN)),
    }


def variations_delta(attempt: int, made: Sequence[Json], notes: Sequence[str]) -> Json:
    """The edit made several pictures; which is the attempt's is chosen later. `notes` say what could not be made."""
    record = {"variations": list(made), **({"notes": list(notes)} if notes else {})}
    return {"current_stage": "edit", "validation": {"attempts": {str(attempt): record}}}


def choice_delta(
    attempt: int, path: str, operations: Iterable[Operation], chosen: Mapping[str, Any], intent: Intent, before: Json
) -> Json:
    """The picture at `path`, made by `operations`, is the attempt's result; `chosen` says why (see `state`).

    `intent` is what it does; it takes the place of the one `before`, so that all that follows is measured by it.
    """
    edited = {
        "edited_image_path": path,
        "operations": [operation.model_dump(mode="json") for operation in operations],
        "chosen": dict(chosen),
    }
    after = merge_patch({}, intent.model_dump(mode="json"))
    return {
        "current_stage": "edit",
        "edited_image_path": path,
        **({"intent": replacing(before, after)} if after != before else {}),
        "validation": {"attempts": {str(attempt): edited}},
    }


def variations_of(state: Mapping[str, Any]) -> list[Json]:
    """The variations of the first attempt, in their order; empty where there are none."""
    made: list[Json] = state.get("validation", {}).get("attempts", {}).get("1", {}).get("variations", [])
    return made


def chosen_of(state: Mapping[str, Any]) -> Json:
    """Which variation became the first attempt's result, and why; {} where none has yet."""
    chosen: Json = state.get("validation", {}).get("attempts", {}).get("1", {}).get("chosen", {})
    return chosen


def intents_of(state: Mapping[str, Any]) -> list[Intent]:
    """For each variation the intent that asks for it; the limits that the person set are in all of them."""
    common = dict(state["intent"])
    return [Intent.model_validate({**common, **made["intent"]}) for made in variations_of(state)]


def open_question(state: Mapping[str, Any]) -> Question | None:
    """What a session in this state asks: what was meant, or which variation it is to be; None when it asks nothing."""
    if next_step(state) != "question":
        return None
    if answer_step(state).stage == "intent":
        return Intent.model_validate(state["intent"]).question
    choices = [made["words"] for made in variations_of(state)]
    return Question(text="Which of these do you like best?", choices=choices)
