"""The edit with variations: several pictures are made and stored, then a person, or the validator, chooses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from edi_storage.models import Intent, Operation
from edi_storage.state import Json, edit_delta, merge_patch
from edi_storage.steps import Step
from edi_storage.variations import choice_delta, intents_of, variation, variations_delta, variations_of
from flows import words
from flows.album import keep_picture
from flows.engines.base import EditRequest, Engine, Pixels, ValidationRequest
from flows.engines.choices import Choice, chosen_intent, chosen_operations, read_choice
from flows.engines.operations import apply
from flows.engines.photo import decode_photo, encode_edited
from flows.engines.scoring import count
from flows.engines.wishes import to_measure
from flows.session import BuiltIn, SessionRun, log


def wanted_variations(run: SessionRun, step: Step) -> int:
    """How many variations an edit is to have: later attempts are of the one that was chosen."""
    return int(run.session.options.get("variations", 1)) if step.attempt == 1 else 1


def make_variations(run: SessionRun, step: Step, request: EditRequest, wanted: int, started: datetime) -> None:
    """Make up to `wanted` variations and store them in one boundary. A single one is the attempt's result at once."""
    variations = run.editor.vary(request, wanted, run.part(0.1, 0.7))
    run.tell(0.7, "writing the pictures")
    stored = [variation(_stored(run, one.pixels), one.operations, one.words, one.intent) for one in variations.made]
    if len(stored) > 1:
        delta = variations_delta(step.attempt, stored, variations.notes)
    else:
        delta = edit_delta(step.attempt, stored[0]["path"], variations.made[0].operations)
        notes: Json = {"attempts": {str(step.attempt): {"notes": variations.notes}}}
        delta = merge_patch(delta, {"validation": notes})
    run.commit(step, delta, run.editor, started)
    log.info("Made %s.", words.variations(stored))
    for note in variations.notes:
        log.info("%s", note)


def _stored(run: SessionRun, pixels: Pixels) -> str:
    path = run.put_file(encode_edited(run.photo, pixels), ".png")
    keep_picture(run.copies, path, pixels)
    return path


def choose(run: SessionRun, step: Step, started: datetime) -> None:
    """Make one variation, or a blend, the attempt's result: what the person answered, else what measures best."""
    made = variations_of(run.state)
    engine: Engine = BuiltIn()
    if run.choice is not None:
        choice = read_choice(run.choice, len(made), run.scene.entities)
        why: Json = {"by": "person"}
    else:
        scores = _scores(run, made)
        # The first of equals is the nearest to what was asked for.
        choice = Choice(1 + max(range(len(made)), key=lambda number: (scores[number], -number)))
        why, engine = {"by": "score", "scores": [score for _, score in scores]}, run.validator
    operations = chosen_operations(choice, [_operations(one) for one in made])
    path = made[choice.number - 1]["path"]
    if choice.parts:
        run.tell(0.2, "blending")
        path = _stored(run, apply(run.photo.pixels, run.masks, operations, run.part(0.2, 0.8)))
    chosen = choice.as_json() | {"words": words.choice(choice.as_json(), made, run.scene.entities)} | why
    intent = chosen_intent(choice, intents_of(run.state))
    delta = choice_delta(step.attempt, path, operations, chosen, intent, run.state["intent"])
    run.commit(step, delta, engine, started)
    log.info("%s", words.chosen(chosen))


def _operations(record: Mapping[str, object]) -> list[Operation]:
    listed = record["operations"]
    assert isinstance(listed, list)
    return [Operation.model_validate(operation) for operation in listed]


def _scores(run: SessionRun, made: Sequence[Json]) -> list[tuple[bool, float]]:
    """For each variation whether it did anything of what was asked, and its alignment, each by its own intent."""
    scores = []
    for number, (one, intent) in enumerate(zip(made, intents_of(run.state), strict=True)):
        run.tell(number / len(made), f"measuring variation {number + 1}")
        edited = decode_photo(run.store.files.read(one["path"])).pixels
        counts = count(run.validator.validate(to_validate(run, edited, intent, _operations(one))))
        scores.append((counts.applied > 0, counts.score))
    return scores


def to_validate(run: SessionRun, edited: Pixels, intent: Intent, operations: Sequence[Operation]) -> ValidationRequest:
    """What a validator needs to measure an edit of this session's photo."""
    scene, masks = to_measure(run.scene, run.masks, intent)
    return ValidationRequest(run.photo.pixels, edited, masks, scene, intent, list(operations))


def by_person(record: Mapping[str, object]) -> bool:
    """Whether a person chose what this attempt shows."""
    chosen = record.get("chosen")
    return isinstance(chosen, Mapping) and chosen.get("by") == "person"
