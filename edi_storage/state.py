"""The state document: how each stage changes it, and which rows it stands for.

A stage boundary is stored as one JSON merge patch (RFC 7396), its `state_delta`. The state is the fold of
all deltas; the rows of the tables are read off a delta by `rows_of`, the same function whether a stage
commits or a lost database is rebuilt from a checkpoint. So rows and state cannot tell two stories.

Where things stand in the document:

    scene_analysis  image {sha256, path, width, height, format}, options, created_at, entities, spatial_layout
    intent          the fields of `Intent`
    prompts         iteration_0.. of attempt 1, attempt_2_iteration_0.. of later ones, final
    validation      score, delta, decision, attempts {"1": {edited_image_path, operations, counts ...}},
                    feedback {key: ...}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edi_storage.models import (
    Artifact,
    Decision,
    EntityData,
    EntityDelta,
    Intent,
    Operation,
    PromptRecord,
    SceneAnalysis,
    SessionData,
    UserFeedback,
    ValidationData,
    ValidationResult,
)

Json = dict[str, Any]

#: Not part of the digest: when and where the document was written, not what it says.
_UNSIGNED = ("last_updated", "checkpoint")


def canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of the state document without `last_updated`, `checkpoint` and empty (null) fields, in hex."""
    signed = {key: value for key, value in state.items() if key not in _UNSIGNED and value is not None}
    return hashlib.sha256(canonical(signed).encode()).hexdigest()


def merge_patch(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """A new document: `patch` applied to `target` by RFC 7396 (null removes, objects merge, the rest replaces)."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge_patch(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def fold(deltas: Iterable[Mapping[str, Any]]) -> Json:
    """The state after all `deltas`, oldest first."""
    state: Json = {}
    for delta in deltas:
        state = merge_patch(state, delta)
    return state


# --- What each stage changes -------------------------------------------------------------------------


def upload_delta(session: SessionData, image: Mapping[str, Any]) -> Json:
    """`image` is {sha256, path, width, height, format}; `path` is the stored copy of the original."""
    return {
        "session_id": session.session_id,
        "current_stage": "upload",
        "image_path": session.image_path,
        "naive_prompt": session.naive_prompt,
        "scene_analysis": {
            "image": dict(image),
            "options": session.options,
            "created_at": session.created_at.isoformat(),
        },
    }


def analysis_delta(scene: SceneAnalysis) -> Json:
    return {"current_stage": "analysis", "scene_analysis": scene.model_dump(mode="json", exclude_none=True)}


def intent_delta(intent: Intent) -> Json:
    return {"current_stage": "intent", "intent": intent.model_dump(mode="json")}


def refinement_delta(prompt: PromptRecord, final: PromptRecord) -> Json:
    """`final` is the best prompt so far, which may be an earlier iteration."""
    return {
        "current_stage": "refinement",
        "prompts": {prompt_key(prompt): _pair(prompt), "final": _pair(final)},
    }


def edit_delta(attempt: int, edited_path: str, operations: Iterable[Operation]) -> Json:
    edited = {
        "edited_image_path": edited_path,
        "operations": [operation.model_dump(mode="json") for operation in operations],
    }
    return {
        "current_stage": "edit",
        "edited_image_path": edited_path,
        "validation": {"attempts": {str(attempt): edited}},
    }


def validation_delta(data: ValidationData, result: ValidationResult, decision: Decision) -> Json:
    counts = data.model_dump(mode="json", exclude_none=True)
    measured = {
        **counts,
        "decision": decision,
        "hints": result.hints,
        "summary": result.summary,
        "delta": _deltas(result.deltas),
    }
    return {
        "current_stage": "validation",
        "validation": {
            "score": data.alignment_score,
            "delta": _deltas(result.deltas),
            "attempts": {str(data.attempt_number): measured},
        },
    }


def completed_delta(decision: Decision, best: ValidationData, edited_path: str) -> Json:
    """The end of the edit: the attempt that is kept, and why."""
    return {
        "current_stage": "completed",
        "edited_image_path": edited_path,
        "validation": {"score": best.alignment_score, "decision": decision, "kept_attempt": best.attempt_number},
    }


def feedback_delta(feedback: UserFeedback) -> Json:
    """Leaves `current_stage` alone: feedback says something about the edit, it does not move it."""
    return {"validation": {"feedback": {feedback.feedback_key: feedback.model_dump(mode="json")}}}


def prompt_key(prompt: PromptRecord) -> str:
    """The seed's `iteration_0` for the first attempt, `attempt_2_iteration_0` for later ones."""
    prefix = "" if prompt.attempt_number == 1 else f"attempt_{prompt.attempt_number}_"
    return f"{prefix}iteration_{prompt.iteration}"


def _pair(prompt: PromptRecord) -> Json:
    pair = prompt.model_dump(mode="json", exclude_none=True)
    return {"positive": pair.pop("positive_prompt"), "negative": pair.pop("negative_prompt"), **pair}


def _deltas(deltas: Iterable[EntityDelta]) -> Json:
    return {delta.entity_id: delta.model_dump(mode="json", exclude={"entity_id"}) for delta in deltas}


# --- Which rows a delta (or a whole state) stands for ------------------------------------------------


@dataclass
class Rows:
    """What goes into the tables beside the stage commit. `session` holds columns of `sessions` to set."""

    session: Json = field(default_factory=dict)
    entities: list[EntityData] = field(default_factory=list)
    intent: Intent | None = None
    prompts: list[PromptRecord] = field(default_factory=list)
    validations: list[ValidationData] = field(default_factory=list)
    feedback: list[UserFeedback] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)


def rows_of(document: Mapping[str, Any]) -> Rows:
    """The rows that a state delta, or a whole state, stands for."""
    scene = document.get("scene_analysis", {})
    validation = document.get("validation", {})
    entities = [EntityData.model_validate(entity) for entity in scene.get("entities", [])]
    attempts = validation.get("attempts", {})
    return Rows(
        session=_session_columns(document),
        entities=entities,
        intent=Intent.model_validate(document["intent"]) if document.get("intent") else None,
        prompts=[read_pair(pair) for key, pair in document.get("prompts", {}).items() if key != "final"],
        validations=[_validation(attempt) for attempt in attempts.values() if "alignment_score" in attempt],
        feedback=[UserFeedback.model_validate(item) for item in validation.get("feedback", {}).values()],
        artifacts=list(_artifacts(scene, entities, attempts)),
    )


def _session_columns(document: Mapping[str, Any]) -> Json:
    if document.get("current_stage") != "completed":
        return {}
    validation = document["validation"]
    return {
        "status": "completed",
        "decision": validation["decision"],
        "final_alignment_score": validation["score"],
        "waiting_for": None,
        "failure_reason": None,
    }


def read_pair(pair: Mapping[str, Any]) -> PromptRecord:
    """A prompt as it stands in the document, as a record."""
    fields = dict(pair)
    return PromptRecord(positive_prompt=fields.pop("positive"), negative_prompt=fields.pop("negative"), **fields)


def _validation(attempt: Mapping[str, Any]) -> ValidationData:
    known = {key: value for key, value in attempt.items() if key in ValidationData.model_fields}
    return ValidationData.model_validate(known)


def _artifacts(scene: Json, entities: Iterable[EntityData], attempts: Json) -> Iterable[Artifact]:
    if image := scene.get("image"):
        yield Artifact(kind="original", name="original", path=image["path"], sha256=image["sha256"])
    for entity in entities:
        if entity.mask_path:
            yield _file("mask", entity.entity_id, entity.mask_path)
    for number, attempt in attempts.items():
        if "edited_image_path" in attempt:
            yield _file("edited", f"attempt_{number}", attempt["edited_image_path"])


def _file(kind: Any, name: str, path: str) -> Artifact:
    # Files are content-addressed: the name is the digest.
    return Artifact(kind=kind, name=name, path=path, sha256=PurePosixPath(path).stem)
