"""The state document: how each stage changes it, and which rows it stands for.

A stage boundary is stored as one JSON merge patch (RFC 7396), its `state_delta`. The state is the fold of
all deltas; the rows of the tables are read off a delta by `rows_of`, the same function whether a stage
commits or a lost database is rebuilt from a checkpoint. So rows and state cannot tell two stories.

Where things stand in the document:

    scene_analysis  image {sha256, path, width, height, format, notes}, options, created_at, entities, spatial_layout,
                    parent {session_id, stage} of a fork, fallbacks {"attempt 2: edit": [why another engine did it]}
    intent          the fields of `Intent`
    prompts         iteration_0.. of attempt 1, attempt_2_iteration_0.. of later ones, final; with iteration 0 stands
                    the `decision` of the attempt (see `learning_models.LoggedDecision`)
    validation      score, delta, decision, attempts {"1": {edited_image_path, operations, counts ...,
                    delta_image_path, and with variations: variations [{path, operations, words, intent}], notes,
                    chosen {number, parts, words, by, scores}}},
                    feedback {key: ...}, failure
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

import orjson
from pydantic import TypeAdapter

from edi_storage.errors import InputError
from edi_storage.learning_models import LoggedDecision
from edi_storage.models import (
    Artifact,
    ArtifactKind,
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
from edi_storage.record import check_json

Json = dict[str, Any]

#: A state of a busy session is 40 KB. 100 MB of small objects would take 2 GB when parsed.
MAX_STATE_BYTES = 16 << 20
#: Not part of the digest: when and where the document was written, not what it says.
UNSIGNED = ("last_updated", "checkpoint")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no NaN."""
    return _CANONICAL.encode(value)


class Compact(NamedTuple):
    """A value as JSON without spaces."""

    text: str
    #: Whether there may be a null in it; if not, a patch removes nothing.
    nulls: bool


def compact(value: Any) -> Compact:
    """JSON without spaces, keys in the order that they have: many times as fast as the canonical text.

    For what is read back as a value. It has to be what `record.check_json` lets through; ValueError for NaN.
    """
    text = orjson.dumps(value, default=_plain_float).decode()
    nulls = text.rfind("null") >= 0  # takes half as long as `in`
    if nulls:  # also written by orjson for NaN and the infinities
        check_json(value)
    return Compact(text, nulls)


def _plain_float(value: Any) -> float:
    if not isinstance(value, float):
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return float(value)  # of NumPy, say, which orjson does not take for one


def parse_state(data: bytes) -> Json:
    """The JSON object in `data`, strictly: InputError for what another reader would see otherwise or not at all.

    Refused are more than 16 MiB, what is not UTF-8 or not JSON, a key twice in one object, NaN, infinities, NUL
    and lone surrogates, and more than 100 levels.
    """
    if len(data) > MAX_STATE_BYTES:
        raise InputError(f"The state is larger than {MAX_STATE_BYTES:,} bytes.")
    try:
        document = check_json(
            json.loads(
                data.decode(),
                object_pairs_hook=_without_duplicates,
                parse_constant=_no_constant,
                parse_int=_whole_number,
            )
        )
    except RecursionError as error:
        raise InputError("The state is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise InputError("The state is not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"The state is not JSON: {error}.") from error
    except ValueError as error:
        raise InputError(f"The state {error}.") from error
    if not isinstance(document, dict):
        raise InputError("The state is not a JSON object.")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("contains a key twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"contains {name}, which is no JSON number")


def _whole_number(digits: str) -> int:
    # Python itself refuses to read more than 4,300 digits, and is slow before that.
    if len(digits) > 20:
        raise ValueError("contains a whole number of more than 64 bits")
    return int(digits)


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of the state document without `last_updated`, `checkpoint` and empty (null, `{}`) fields, in hex.

    Empty fields say nothing: a fold of deltas has no `intent` yet where the document written from it has `{}`.
    """
    signed = {key: value for key, value in state.items() if key not in UNSIGNED and value not in (None, {})}
    return hashlib.sha256(canonical(signed).encode()).hexdigest()


def merge_patch(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """A new document: `patch` applied to `target` by RFC 7396 (null removes, objects merge, the rest replaces)."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge_patch(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def fold(deltas: Iterable[Mapping[str, Any]]) -> Json:
    """The state after all `deltas`, oldest first."""
    state: Json = {}
    for delta in deltas:
        state = merge_patch(state, delta)
    return state


def make_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """The merge patch that turns `before` into `after`: merge_patch(before, make_patch(before, after)) == after."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := make_patch(old, value):
                patch[key] = inner
        elif value != old or key not in before:
            patch[key] = value
    return patch


def replacing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """A merge patch that holds all of `after` and removes what else `before` has: objects would merge otherwise."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            patch[key] = replacing(old, value)
        else:
            patch[key] = value
    return patch


# --- What each stage changes -------------------------------------------------------------------------


def with_fallbacks(delta: Json, label: str, why: Sequence[str]) -> Json:
    """The delta of a step with the reasons why not the first engine of its setting did it, if there are any."""
    return merge_patch(delta, {"scene_analysis": {"fallbacks": {label: list(why)}}}) if why else delta


def fallbacks_in(scene: Mapping[str, Any]) -> list[str]:
    """The reasons that the `scene_analysis` of a state holds, each once, in their order."""
    return list(dict.fromkeys(reason for why in scene.get("fallbacks", {}).values() for reason in why))


def upload_delta(session: SessionData, image: Mapping[str, Any]) -> Json:
    """`image` is {sha256, path, width, height, format, notes}; `path` is the stored copy of the original.

    With `mask`, it also holds the stored copy of the mask that the person gave.
    """
    parent = {"session_id": session.parent_session_id, "stage": session.forked_from_stage}
    return {
        "session_id": session.session_id,
        "current_stage": "upload",
        "image_path": session.image_path,
        "naive_prompt": session.naive_prompt,
        "scene_analysis": {
            "image": dict(image),
            "options": session.options,
            "created_at": session.created_at.isoformat(),
            **({"parent": parent} if session.parent_session_id else {}),
        },
    }


def analysis_delta(scene: SceneAnalysis) -> Json:
    return {"current_stage": "analysis", "scene_analysis": scene.model_dump(mode="json", exclude_none=True)}


def intent_delta(intent: Intent, before: Mapping[str, Any] | None = None) -> Json:
    """`before` is the intent that this one takes the place of, as it stands in the document."""
    after = merge_patch({}, intent.model_dump(mode="json"))
    return {"current_stage": "intent", "intent": replacing(before or {}, after)}


def refinement_delta(
    prompt: PromptRecord,
    final: PromptRecord,
    before: Mapping[str, Any] | None = None,
    decision: LoggedDecision | None = None,
) -> Json:
    """`final` is the best prompt so far, which may be an earlier iteration; `before` the final one until now.

    `decision`, with iteration 0, is what was chosen for the attempt; its time is that of the prompt.
    """
    pair = _pair(prompt)
    if decision is not None:
        pair["decision"] = decision.model_dump(mode="json", exclude={"attempt", "created_at"}, exclude_none=True)
    return {
        "current_stage": "refinement",
        "prompts": {prompt_key(prompt): pair, "final": replacing(before or {}, _pair(final))},
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


def validation_delta(data: ValidationData, result: ValidationResult, decision: Decision, delta_path: str = "") -> Json:
    """`delta_path` is the stored picture of what changed, "" where there is none."""
    counts = data.model_dump(mode="json", exclude_none=True)
    measured = {
        **counts,
        "decision": decision,
        "hints": result.hints,
        "summary": result.summary,
        "delta": _deltas(result.deltas),
        **({"delta_image_path": delta_path} if delta_path else {}),
    }
    return {
        "current_stage": "validation",
        "validation": {
            "score": data.alignment_score,
            "delta": _deltas(result.deltas),
            "attempts": {str(data.attempt_number): measured},
        },
    }


def completed_delta(decision: Decision, best: ValidationData, edited_path: str, undelivered: str | None = None) -> Json:
    """The end of the edit: the attempt that is kept, and why; `undelivered` is why --output could not be written."""
    kept = {"score": best.alignment_score, "decision": decision, "kept_attempt": best.attempt_number}
    return {
        "current_stage": "completed",
        "edited_image_path": edited_path,
        "validation": kept | ({"undelivered": undelivered} if undelivered else {}),
    }


def failed_delta(reason: str) -> Json:
    """The session ended without a result; it stays so until a person takes it up again."""
    return {"validation": {"failure": reason}}


def reopened_delta() -> Json:
    """A person wants the failed session to go on."""
    return {"validation": {"failure": None}}


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
    # Without nulls: in a merge patch they would remove.
    return {
        delta.entity_id: delta.model_dump(mode="json", exclude={"entity_id"}, exclude_none=True) for delta in deltas
    }


# --- Which rows a delta (or a whole state) stands for ------------------------------------------------


@dataclass
class Rows:
    """What goes into the tables beside the stage commit. `session` holds columns of `sessions` to set.

    The masks of entities are not among the `artifacts`: their rows are those of the entities. `shared` are the keys of
    verdicts that a fork has from its parent, where they were counted for learning.
    """

    session: Json = field(default_factory=dict)
    entities: list[EntityData] = field(default_factory=list)
    intent: Intent | None = None
    prompts: list[PromptRecord] = field(default_factory=list)
    validations: list[ValidationData] = field(default_factory=list)
    feedback: list[UserFeedback] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    decisions: list[LoggedDecision] = field(default_factory=list)
    shared: frozenset[str] = frozenset()

    @property
    def files(self) -> list[Artifact]:
        """All that is referenced, the masks of the entities among them, in the order in which the stages make them."""
        given = [item for item in self.artifacts if item.kind in ("original", "mask")]
        made = [item for item in self.artifacts if item.kind not in ("original", "mask")]
        return [*given, *masks_of(self.entities), *made]


def masks_of(entities: Iterable[EntityData]) -> list[Artifact]:
    """The masks of these entities, as artifacts. A mask from elsewhere, as in a seed database, is none of EDI's."""
    masks = [(one.entity_id, one.mask_path) for one in entities if one.mask_path]
    return _artifacts(("mask", name, path) for name, path in masks if _NAMED_BY_DIGEST(path))


def rows_of(document: Mapping[str, Any], *, nulls: bool = True) -> Rows:
    """The rows that a state delta, or a whole state, stands for. Without `nulls`, none is looked for in it."""
    if nulls:
        document = merge_patch({}, document)  # without the nulls of a patch
    rows = Rows()
    # A delta holds one of these parts, seldom two.
    if scene := document.get("scene_analysis"):
        _add_scene(rows, scene)
    if intent := document.get("intent"):
        rows.intent = Intent.model_validate(intent)
    if prompts := document.get("prompts"):
        _add_prompts(rows, prompts)
    if validation := document.get("validation"):
        _add_validation(rows, validation)
        rows.shared = _shared(scene or {}, rows.feedback)
    rows.session = _session_columns(document, rows.decisions)
    return rows


def _add_scene(rows: Rows, scene: Json) -> None:
    if image := scene.get("image"):
        rows.artifacts.append(Artifact(kind="original", name="original", path=image["path"], sha256=image["sha256"]))
        if "mask" in image:
            rows.artifacts += _artifacts([("mask", "given", image["mask"])])
    rows.entities = _ENTITIES.validate_python(scene.get("entities", []))
    for entity in rows.entities:
        if (path := entity.mask_path) and not _NAMED_BY_DIGEST(path):
            raise ValueError(f"the mask of {entity.entity_id} is not named by its digest: {path}")


def _add_prompts(rows: Rows, prompts: Json) -> None:
    pairs = [pair for key, pair in prompts.items() if key != "final"]
    rows.prompts = [read_pair(pair) for pair in pairs]
    rows.decisions = [read_decision(pair) for pair in pairs if "decision" in pair]


def _add_validation(rows: Rows, validation: Json) -> None:
    attempts = validation.get("attempts", {})
    rows.validations = [_validation(attempt) for attempt in attempts.values() if "alignment_score" in attempt]
    rows.feedback = [UserFeedback.model_validate(item) for item in validation.get("feedback", {}).values()]
    for number, attempt in attempts.items():
        rows.artifacts += _artifacts(_files_of(number, attempt))


#: Kind, name and path of what becomes an artifact.
_File = tuple[ArtifactKind, str, str]

# All at once: one by one they take a fifth (entities) to a third (artifacts) longer.
_ENTITIES: Final = TypeAdapter(list[EntityData])
_ARTIFACTS: Final = TypeAdapter(list[Artifact])
#: Whether a path is that of a file that is content-addressed.
_NAMED_BY_DIGEST: Final = re.compile(r"(?:.*/)?[0-9a-f]{64}(?:\.[^/]*)?", re.DOTALL).fullmatch


def _files_of(number: str, attempt: Json) -> Iterator[_File]:
    if "edited_image_path" in attempt:
        yield "edited", f"attempt_{number}", attempt["edited_image_path"]
    for variation, made in enumerate(attempt.get("variations", []), 1):
        yield "edited", f"attempt_{number}_variation_{variation}", made["path"]
    if "delta_image_path" in attempt:
        yield "delta", f"attempt_{number}", attempt["delta_image_path"]


def _artifacts(files: Iterable[_File]) -> list[Artifact]:
    # Files are content-addressed: the name is the digest. str: a path that is no text is for the model to refuse.
    return _ARTIFACTS.validate_python(
        [
            {"kind": kind, "name": name, "path": path, "sha256": str(path).rpartition("/")[2].partition(".")[0]}
            for kind, name, path in files
        ]
    )


def _validation(attempt: Mapping[str, Any]) -> ValidationData:
    fields = ValidationData.model_fields
    known = {key: value for key, value in attempt.items() if key in fields}
    return ValidationData.model_validate(known)


def _shared(scene: Json, feedback: Iterable[UserFeedback]) -> frozenset[str]:
    """What was said before the fork was made was said to its parent."""
    if "parent" not in scene:
        return frozenset()
    made = datetime.fromisoformat(scene["created_at"])
    return frozenset(said.feedback_key for said in feedback if said.created_at < made)


def _session_columns(document: Mapping[str, Any], decisions: Iterable[LoggedDecision]) -> Json:
    columns = {name: document[name] for name in ("image_path", "naive_prompt") if name in document}
    scene, validation = document.get("scene_analysis", {}), document.get("validation", {})
    if parent := scene.get("parent"):
        columns |= {"parent_session_id": parent["session_id"], "forked_from_stage": parent["stage"]}
    if consent := scene.get("options", {}).get("consent"):
        columns["consent"] = consent
    profiles = {made.attempt: made.profile_version for made in decisions if made.profile_version is not None}
    if profiles:
        columns["profile_version"] = profiles[min(profiles)]
    if document.get("current_stage") == "completed":
        columns |= {
            "status": "completed",
            "decision": validation["decision"],
            "final_alignment_score": validation["score"],
            "failure_reason": None,
        }
    if "failure" in validation:
        columns |= {"status": "failed", "failure_reason": validation["failure"]}
    return columns


def read_pair(pair: Mapping[str, Any]) -> PromptRecord:
    """A prompt as it stands in the document, as a record."""
    fields = {name: value for name, value in pair.items() if name != "decision"}
    return PromptRecord(positive_prompt=fields.pop("positive"), negative_prompt=fields.pop("negative"), **fields)


def read_decision(pair: Mapping[str, Any]) -> LoggedDecision:
    """The decision that stands with a prompt in the document."""
    prompt = read_pair(pair)
    given = {"attempt": prompt.attempt_number, "created_at": prompt.created_at}
    return LoggedDecision.model_validate({**pair["decision"], **given})
