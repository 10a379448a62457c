"""The data of an edit session as pydantic models: what goes into the store and what comes out of it.

Scores and confidences are in 0..1, areas in percent of the picture, boxes in pixels of the upright original (EXIF
orientation applied), times aware UTC. What values may hold at all is said in `record`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from edi_storage.record import (
    Count,
    JsonObject,
    JsonText,
    Ordinal,
    Percent,
    Record,
    SessionId,
    Text,
    Unit,
    UtcTime,
    Whole,
    check_text,
    now_utc,
)

#: Version of the state document and of everything derived from it; raised together with an upcast step.
SCHEMA_VERSION = 1

MAX_ATTEMPTS = 3

#: How the reason of a session begins that has failed because no resume got any further with it.
GAVE_UP: Final = "gave up after"
MAX_VARIATIONS = 4
#: Longer prompts are not naive prompts but a mistake, such as a pasted file.
MAX_PROMPT = 2000
ITERATIONS = (0, 1, 2, 3)

Stage = Literal["upload", "analysis", "intent", "refinement", "edit", "validation", "completed"]
#: A boundary is a committed stage. What is said of the session between stages is one too, so that it survives
#: like the rest: a person's feedback, and that the session failed or was taken up again.
BoundaryStage = Literal[
    "upload",
    "analysis",
    "intent",
    "refinement",
    "edit",
    "validation",
    "completed",
    "feedback",
    "failed",
    "reopened",
]
Status = Literal["in_progress", "completed", "failed"]
EditType = Literal["color", "style", "add", "remove", "transform"]
FeedbackType = Literal["accept", "reject", "partial"]
Reason = Literal["too strong", "too weak", "wrong region", "edges", "colour", "artifact", "tone"]
Decision = Literal["accepted", "needs_review", "retry", "best_effort", "partial", "rejected", "unreviewed"]
WaitingFor = Literal["question", "review"]
#: When a person judges an attempt: never, when its score is between 0.6 and 0.8, or always.
Review = Literal["auto", "unsure", "ask"]
#: What may be done with what a person says of an edit: nothing, learn from it here, or share it in exports as well.
Consent = Literal["none", "local", "export"]
ArtifactKind = Literal["original", "mask", "edited", "delta"]


class SessionData(Record):
    """One row of `sessions`. `id` is accepted for `session_id`, as in the seed's own calls."""

    session_id: SessionId = Field(validation_alias=AliasChoices("session_id", "id"), description="UUID for the session")
    created_at: UtcTime = Field(default_factory=now_utc)
    image_path: Text = Field(description="Path to the original image")
    naive_prompt: Text = Field(description="Initial user prompt")
    status: Status = "in_progress"
    final_alignment_score: Unit | None = None
    updated_at: UtcTime | None = None
    options: JsonObject = {}
    decision: Decision | None = None
    waiting_for: WaitingFor | None = None
    failure_reason: Text | None = None
    flow_run_id: Text | None = None
    recovery_attempts: Count = 0
    #: Of a fork: the session it shares its beginning with (which may be deleted since), and the first stage of its own.
    parent_session_id: SessionId | None = None
    forked_from_stage: Text | None = None
    #: The learned profile that the session was refined with; None when there was none.
    profile_version: Count | None = None
    consent: Consent = "local"

    @property
    def id(self) -> str:
        """The seed's name for `session_id`."""
        return self.session_id


class PromptRecord(Record):
    """One refinement iteration: the prompt pair and its quality score."""

    attempt_number: Ordinal = 1
    iteration: Count
    positive_prompt: Text
    negative_prompt: Text
    quality_score: Unit | None = None
    created_at: UtcTime = Field(default_factory=now_utc)


class BoundingBox(Record):
    """A box in pixels of the upright original; `x`, `y` is its top left corner."""

    x: Count
    y: Count
    width: Ordinal
    height: Ordinal


class EntityData(Record):
    """One thing found in the picture. `id` is accepted for `entity_id`, as in the seed's state file."""

    entity_id: Text = Field(min_length=1, validation_alias=AliasChoices("entity_id", "id"))  # e.g., "sky_0"
    label: Text
    confidence: Unit
    bbox_json: JsonText | None = None  # Serialized bounding box
    mask_path: Text | None = None
    color_hex: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None
    area_percent: Percent | None = None

    @property
    def bbox(self) -> BoundingBox | None:
        """The box as a model, or None where there is none (or the seed wrote another form)."""
        try:
            return None if self.bbox_json is None else BoundingBox.model_validate_json(self.bbox_json)
        except ValidationError:
            return None


#: Between the choices that one answer takes together.
_TOGETHER: Final = "; "


class Question(Record):
    """The one question asked when the intent is unclear. An answer is the number of a choice, from 1."""

    text: Text
    choices: Annotated[list[Text], Field(min_length=2)]

    def taking(self, numbers: Sequence[int]) -> tuple[Question, int]:
        """The question with its answer, and the number of that: several choices together are one more choice."""
        if len(numbers) == 1:
            return self, numbers[0]
        together = _TOGETHER.join(self.choices[number - 1] for number in numbers)
        return self.model_copy(update={"choices": [*self.choices, together]}), len(self.choices) + 1

    def numbers_in(self, answer: str) -> list[int]:
        """The choices that are meant by "2" or "2, 5", each once, in order; [] where it is no answer."""
        if not re.fullmatch(r"[0-9]{1,3}(?:(?: ?, ?| )[0-9]{1,3})*", answer):
            return []
        numbers = sorted({int(number) for number in re.findall("[0-9]+", answer)})
        return numbers if 1 <= numbers[0] <= numbers[-1] <= len(self.choices) else []

    def numbers_of(self, choice: str) -> list[int]:
        """The numbers of what was chosen, by its words; of several choices together, of each. [] for other words."""
        parts = choice.split(_TOGETHER)
        chosen = parts if set(parts) <= set(self.choices) else [choice]
        return [self.choices.index(part) + 1 for part in chosen if part in self.choices]


class Intent(Record):
    """What the naive prompt asks for, in terms of the entities found."""

    edit_type: EditType
    target_entities: list[Text] = []
    preserve_entities: list[Text] = []
    confidence: Unit
    #: The engine's name of the look asked for, for example "dramatic_sky" or "recolour".
    action: Text = ""
    #: 0 is hardly visible, 1 as strong as the engine goes.
    strength: Unit = 0.6
    #: What the action needs beside its strength, for example {"color": "#c03020"}.
    parameters: JsonObject = {}
    question: Question | None = None
    answer: Ordinal | None = None

    @property
    def needs_answer(self) -> bool:
        """Whether a person has to choose before the edit can go on."""
        return self.question is not None and self.answer is None


class ValidationData(Record):
    """What an attempt preserved, modified as asked, and changed by accident, counted in entities."""

    attempt_number: Count
    alignment_score: Unit
    preserved_count: Count
    modified_count: Count
    unintended_count: Count
    user_feedback: Text | None = None
    created_at: UtcTime = Field(default_factory=now_utc)


class UserFeedback(Record):
    """A person's verdict. The same `feedback_key` again replaces the verdict instead of adding one."""

    feedback_type: FeedbackType
    comments: Text | None = None
    rating: Annotated[int, Field(ge=1, le=5, strict=True)] | None = None
    reasons: list[Reason] = []
    feedback_key: Annotated[str, AfterValidator(check_text), Field(min_length=1, max_length=64)] = "verdict"
    created_at: UtcTime = Field(default_factory=now_utc)


class Artifact(Record):
    """A file that a session references. `path` is relative to the storage root; its name is its digest."""

    kind: ArtifactKind
    name: Text  # "original", an entity id, "attempt_1", or "attempt_1_variation_2"
    path: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CheckpointInfo(Record):
    """The `checkpoint` object of a state document."""

    format: Whole = 1
    seq: Count
    stage: BoundaryStage
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    schema_version: Whole = SCHEMA_VERSION


class SessionState(Record):
    """The state document: exactly the seed's keys, plus `last_updated` and `checkpoint`."""

    session_id: SessionId
    current_stage: Stage
    image_path: Text
    naive_prompt: Text
    scene_analysis: JsonObject = {}
    intent: JsonObject = {}
    prompts: JsonObject = {}
    edited_image_path: Text | None = None
    validation: JsonObject = {}
    last_updated: UtcTime | None = None
    checkpoint: CheckpointInfo | None = None


class StageCommit(Record):
    """One committed stage boundary: the row of `stage_commits`."""

    session_id: SessionId
    seq: Ordinal
    stage: BoundaryStage
    attempt: Ordinal = 1
    iteration: Count = 0
    #: JSON merge patch (RFC 7396) that turns the state before this boundary into the state after it.
    state_delta: JsonObject
    #: Digest of the whole state after this boundary (see `edi_storage.state.digest`).
    sha256: Text
    schema_version: Whole = SCHEMA_VERSION
    engine: Text
    engine_version: Text
    fence: Count
    flow_run_id: Text | None = None
    started_at: UtcTime
    finished_at: UtcTime

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes the boundary: stage, attempt, iteration."""
        return (self.stage, self.attempt, self.iteration)


class Lease(Record):
    """The right to work on one session until `expires_at`; `fence` rises at every change of hands."""

    session_id: SessionId
    owner: Text
    fence: Ordinal
    expires_at: UtcTime


class LearningCell(Record):
    """What people said of one edit type on one kind of entity."""

    edit_type: Text
    label: Text
    accepted: Whole = 0
    partial: Whole = 0
    rejected: Whole = 0
    rating_sum: Whole = 0
    rating_count: Whole = 0

    @property
    def count(self) -> int:
        return self.accepted + self.partial + self.rejected

    @property
    def acceptance(self) -> float | None:
        """Mean reward in 0..1: accept 1, partial 0.5, reject 0; None without feedback."""
        return (self.accepted + 0.5 * self.partial) / self.count if self.count else None

    @property
    def mean_rating(self) -> float | None:
        """Mean of the ratings given, 1..5; None without any."""
        return self.rating_sum / self.rating_count if self.rating_count else None


class LearningRun(Record):
    """One run of the aggregation: it folded the `events` with seq_from < seq <= seq_to."""

    seq_from: Count
    seq_to: Count
    events: Count


class SessionHistory(Record):
    """Everything the database holds of one session."""

    session: SessionData
    entities: list[EntityData] = []
    intent: Intent | None = None
    prompts: list[PromptRecord] = []
    validations: list[ValidationData] = []
    feedback: list[UserFeedback] = []
    artifacts: list[Artifact] = []
    commits: list[StageCommit] = []
    state: SessionState | None = None

    @model_validator(mode="after")
    def _commits_are_in_order(self) -> Self:
        assert [c.seq for c in self.commits] == sorted(c.seq for c in self.commits)
        return self


class SceneAnalysis(Record):
    """What analysis found, without pixels: the value of `scene_analysis` beside its `image` and `options`."""

    entities: list[EntityData]
    spatial_layout: Text


class Operation(Record):
    """One parametric step of an edit, replayed from the original.

    `target` is an entity id, "background" (everything but the kept entities) or "image"; `parameters`
    are plain JSON numbers and text. `version` is that of their meaning; what was stored without one is version 1.
    """

    version: Ordinal = 1

    name: Text
    target: Text = "image"
    parameters: JsonObject = {}


class EntityDelta(Record):
    """How much one entity changed. Colour difference is CIEDE2000 (`mean_delta_e`, `p90_delta_e`)."""

    entity_id: Text
    label: Text
    role: Literal["target", "preserve"]
    verdict: Literal["preserved", "modified", "not_applied", "wrong_direction", "unintended"]
    mean_delta_e: Annotated[float, Field(ge=0)]
    p90_delta_e: Annotated[float, Field(ge=0)]
    ssim: Annotated[float, Field(ge=-1, le=1)]
    #: How the entity moved, after minus before: mean lightness (L of CIE Lab) and mean chroma; and the ratio, after to
    #: before, of its fine structure. None in what older validators measured.
    lightness: float | None = None
    chroma: float | None = None
    detail: Annotated[float, Field(ge=0)] | None = None
    note: Text = ""


class ValidationResult(Record):
    """What the validator measured; the alignment score is computed from its counts, never given by it."""

    deltas: list[EntityDelta]
    #: What the next attempt should do differently, for example "stronger" or "protect building_0".
    hints: list[Text] = []
    summary: Text = ""

    @field_validator("deltas")
    @classmethod
    def _no_entity_twice(cls, deltas: list[EntityDelta]) -> list[EntityDelta]:
        if len({delta.entity_id for delta in deltas}) != len(deltas):
            raise ValueError("contains an entity twice")
        return deltas
