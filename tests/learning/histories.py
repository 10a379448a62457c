"""Sessions as an edit leaves them in the store, each made in one transaction: a long history takes seconds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import Image

from edi_storage import state as changes
from edi_storage.learning_models import LoggedDecision
from edi_storage.models import (
    EntityData,
    EntityDelta,
    FeedbackType,
    Intent,
    Operation,
    PromptRecord,
    Reason,
    SceneAnalysis,
    SessionData,
    StageCommit,
    ValidationData,
    ValidationResult,
)
from edi_storage.state import Json, digest, merge_patch, rows_of
from edi_storage.steps import Step, feedback_key
from edi_storage.store import Store
from edi_storage.variations import choice_delta, variation, variations_delta

THEN = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Attempt:
    """One attempt, and what is said of it."""

    colour: tuple[int, int, int] = (40, 60, 120)
    score: float = 0.85
    verdict: FeedbackType | None = None
    reasons: Sequence[Reason] = ()
    comment: str = ""
    decision: LoggedDecision | None = None
    #: Colours of variations, of which the person chooses the one with this number.
    variations: Sequence[tuple[int, int, int]] = ()
    chosen: int = 1


@dataclass(frozen=True)
class Past:
    """One session of a history."""

    session_id: str
    attempts: Sequence[Attempt]
    prompt: str = "make the sky dramatic"
    edit_type: str = "style"
    label: str = "sky"
    consent: str = "export"
    photo: tuple[int, int, int] = (120, 140, 200)
    made: datetime = THEN
    options: Json = field(default_factory=dict)


def picture(colour: tuple[int, int, int], *, exif: bool = False) -> bytes:
    """A small photo of one colour; with EXIF, one that says where it was taken and by whom."""
    image, buffer = Image.new("RGB", (48, 32), colour), io.BytesIO()
    if not exif:
        image.save(buffer, "PNG")
        return buffer.getvalue()
    told = Image.Exif()
    told[0x013B], told[0x9286] = "Anna Example", "/home/anna/secret.jpg"
    told[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    image.save(buffer, "JPEG", exif=told)
    return buffer.getvalue()


def mask() -> bytes:
    """The upper half."""
    image, buffer = Image.new("L", (48, 32), 0), io.BytesIO()
    image.paste(255, (0, 0, 48, 16))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def put(store: Store, past: Past) -> None:
    """Store a session with its pictures, and say what is said of it."""
    session = SessionData(
        session_id=past.session_id,
        created_at=past.made,
        image_path=f"/home/anna/photos/{past.session_id}.jpg",
        naive_prompt=past.prompt,
        options={"review": "auto", **past.options},
        consent=past.consent,
    )
    commits, state = _commits(store, session, past)
    store.database.rebuild_session(past.session_id, session, commits, rows_of(state))
    for number, attempt in enumerate(past.attempts, 1):
        if attempt.verdict:
            said: dict[str, Any] = {"feedback_type": attempt.verdict, "reasons": list(attempt.reasons)}
            said |= {"comments": attempt.comment or None, "feedback_key": feedback_key(number)}
            store.database.save_feedback(past.session_id, said)


def _commits(store: Store, session: SessionData, past: Past) -> tuple[list[StageCommit], Json]:
    state: Json = {}
    commits: list[StageCommit] = []
    for step, make in _steps(store, session, past):
        delta = make(state) if callable(make) else make
        state = merge_patch(state, delta)
        at = past.made + timedelta(seconds=len(commits))
        commits.append(
            StageCommit(
                session_id=session.session_id,
                seq=len(commits) + 1,
                stage=step.stage,
                attempt=step.attempt,
                iteration=step.iteration,
                state_delta=delta,
                sha256=digest(state),
                engine="test",
                engine_version="1",
                fence=1,
                started_at=at,
                finished_at=at,
            )
        )
    return commits, state


def _steps(store: Store, session: SessionData, past: Past) -> Any:
    photo = store.files.put(session.session_id, picture(past.photo, exif=True), ".jpg")
    image = {"sha256": photo.split("/")[-1][:64], "path": photo, "width": 48, "height": 32, "format": "JPEG"}
    target = f"{past.label}_0"
    entities = [
        EntityData(
            entity_id=target,
            label=past.label,
            confidence=0.9,
            area_percent=50.0,
            mask_path=store.files.put(session.session_id, mask(), ".png"),
        ),
        EntityData(entity_id="building_0", label="building", confidence=0.8, area_percent=40.0),
    ]
    intent = Intent(
        edit_type=past.edit_type,
        target_entities=[target],
        preserve_entities=["building_0"],
        confidence=0.9,
        action="dramatic_sky",
    )
    yield Step("upload"), changes.upload_delta(session, image)
    yield Step("analysis"), changes.analysis_delta(SceneAnalysis(entities=entities, spatial_layout="above"))
    yield Step("intent"), changes.intent_delta(intent)
    for number, attempt in enumerate(past.attempts, 1):
        yield from _attempt(store, past, number, attempt, intent, target)
    yield Step("completed", len(past.attempts)), _completed(past)


def _attempt(store: Store, past: Past, number: int, attempt: Attempt, intent: Intent, target: str) -> Any:
    session_id, made = past.session_id, past.made
    pair = PromptRecord(
        attempt_number=number,
        iteration=0,
        positive_prompt=f"dramatic sky, try {number}",
        negative_prompt="flat sky",
        quality_score=0.8,
        created_at=made,
    )
    yield Step("refinement", number), changes.refinement_delta(pair, pair, None, attempt.decision)
    operations = [Operation(name="dramatic_sky", target=target)]
    path = store.files.put(session_id, picture(attempt.colour), ".png")
    if attempt.variations:
        paths = [store.files.put(session_id, picture(colour), ".png") for colour in attempt.variations]
        others = [variation(one, operations, f"variation {at}", intent) for at, one in enumerate(paths, 1)]
        path = paths[attempt.chosen - 1]
        chosen = {"number": attempt.chosen, "words": "that one", "by": "person"}
        yield Step("edit", number), variations_delta(number, others, [])
        yield (
            Step("edit", number, 1),
            lambda state: choice_delta(number, path, operations, chosen, intent, state["intent"]),
        )
    else:
        yield Step("edit", number), changes.edit_delta(number, path, operations)
    delta = EntityDelta(
        entity_id=target, label="sky", role="target", verdict="modified", mean_delta_e=9, p90_delta_e=15, ssim=0.7
    )
    data = _measured(number, attempt)
    yield (
        Step("validation", number),
        changes.validation_delta(data, ValidationResult(deltas=[delta]), "accepted"),
    )


def _measured(number: int, attempt: Attempt) -> ValidationData:
    return ValidationData(
        attempt_number=number, alignment_score=attempt.score, preserved_count=1, modified_count=1, unintended_count=0
    )


def _completed(past: Past) -> Any:
    def make(state: Json) -> Json:
        last = _measured(len(past.attempts), past.attempts[-1])
        return changes.completed_delta("accepted", last, state["edited_image_path"])

    return make
