"""A session that tests put through the store: an edit of one attempt, boundary by boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

from edi_storage import EDIDatabase
from edi_storage import state as changes
from edi_storage.models import (
    BoundingBox,
    EntityData,
    EntityDelta,
    Intent,
    Lease,
    Operation,
    PromptRecord,
    SceneAnalysis,
    SessionData,
    StageCommit,
    ValidationData,
    ValidationResult,
)
from edi_storage.state import Json, digest, merge_patch
from edi_storage.steps import Step
from edi_storage.store import Store

THEN = datetime(2026, 6, 1, 11, 59, tzinfo=UTC)

SESSION = SessionData(
    session_id="s-1",
    created_at=THEN,
    image_path="/photos/palace.jpg",
    naive_prompt="make the sky dramatic",
    options={"review": "auto", "max_attempts": 3},
)


def file_path(content: str, suffix: str = ".png", session_id: str = SESSION.session_id) -> str:
    """Where a file of this content stands in the storage."""
    return f"{session_id}/files/{hashlib.sha256(content.encode()).hexdigest()}{suffix}"


#: The contents of its files and their suffixes, in the order in which the stages make them.
CONTENTS = (("photo", ".jpg"), ("sky_0", ".png"), ("building_0", ".png"), ("edited", ".png"), ("delta", ".png"))


def put_files(store: Store, count: int = len(CONTENTS)) -> None:
    """Store the first `count` files of the session."""
    for content, suffix in CONTENTS[:count]:
        store.files.put(SESSION.session_id, content.encode(), suffix)


def entity(entity_id: str, label: str, area: float) -> EntityData:
    box = BoundingBox(x=0, y=0, width=10, height=5)
    return EntityData(
        entity_id=entity_id,
        label=label,
        confidence=0.9,
        bbox_json=box.model_dump_json(),
        mask_path=file_path(entity_id),
        color_hex="#a0b0c0",
        area_percent=area,
    )


def prompt(iteration: int, attempt: int = 1) -> PromptRecord:
    return PromptRecord(
        attempt_number=attempt,
        iteration=iteration,
        positive_prompt=f"dramatic sky, step {iteration}",
        negative_prompt="flat sky",
        quality_score=0.5 + iteration / 10,
        created_at=THEN,
    )


def boundaries() -> Iterator[tuple[Step, Json]]:
    """The steps of an edit that succeeds at once, each with what it changes."""
    image = {
        "sha256": hashlib.sha256(b"photo").hexdigest(),
        "path": file_path("photo", ".jpg"),
        "width": 640,
        "height": 427,
        "format": "JPEG",
    }
    scene = SceneAnalysis(
        entities=[entity("sky_0", "sky", 40.0), entity("building_0", "building", 35.0)], spatial_layout="sky above"
    )
    intent = Intent(
        edit_type="style",
        target_entities=["sky_0"],
        preserve_entities=["building_0"],
        confidence=0.9,
        action="dramatic_sky",
    )
    delta = EntityDelta(
        entity_id="sky_0", label="sky", role="target", verdict="modified", mean_delta_e=12, p90_delta_e=20, ssim=0.6
    )
    data = ValidationData(
        attempt_number=1,
        alignment_score=0.95,
        preserved_count=1,
        modified_count=1,
        unintended_count=0,
        created_at=THEN,
    )
    edited = file_path("edited")
    yield Step("upload"), changes.upload_delta(SESSION, image)
    yield Step("analysis"), changes.analysis_delta(scene)
    yield Step("intent"), changes.intent_delta(intent)
    for iteration in range(4):
        pair = prompt(iteration)
        yield Step("refinement", iteration=iteration), changes.refinement_delta(pair, pair)
    yield Step("edit"), changes.edit_delta(1, edited, [Operation(name="dramatic_sky", target="sky_0")])
    measured = ValidationResult(deltas=[delta])
    yield Step("validation"), changes.validation_delta(data, measured, "accepted", file_path("delta"))
    yield Step("completed"), changes.completed_delta("accepted", data, edited)


def commits() -> Iterator[StageCommit]:
    """The boundaries as commits."""
    state: Json = {}
    for seq, (step, delta) in enumerate(boundaries(), 1):
        state = merge_patch(state, delta)
        yield StageCommit(
            session_id=SESSION.session_id,
            seq=seq,
            stage=step.stage,
            attempt=step.attempt,
            iteration=step.iteration,
            state_delta=delta,
            sha256=digest(state),
            engine="test",
            engine_version="1",
            fence=1,
            started_at=THEN,
            finished_at=THEN,
        )


def commit_all(database: EDIDatabase, lease: Lease, upto: int = 99) -> list[StageCommit]:
    """Commit the boundaries of the session up to `upto`; those that are there already are passed over."""
    return [database.commit_stage(lease, commit, 30) for commit in commits() if commit.seq <= upto]


def edited_session(database: EDIDatabase) -> None:
    """A whole edit, done, its lease given back."""
    lease = database.begin_session(SESSION, "test", 30)
    commit_all(database, lease)
    database.release(lease)
