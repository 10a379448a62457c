"""What an engine is: one protocol per stage. Engines see models and errors only, never the store.

Pictures are `numpy` arrays: RGB, uint8, height x width x 3, upright (EXIF orientation applied), sRGB.
Masks are float32 in 0..1, height x width, of the same size as the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edi_storage.models import (
    EntityData,
    Intent,
    Operation,
    PromptRecord,
    Question,
    SceneAnalysis,
    ValidationResult,
)
from flows.engines.steps import Step

if TYPE_CHECKING:
    from flows.engines.comparing import Pair

Pixels = NDArray[np.uint8]
Mask = NDArray[np.float32]

#: Called with (fraction done 0..1, what is being done, handles of outside jobs worth saving).
Progress = Callable[[float, str, Mapping[str, Any]], None]


#: Where learning comes in: given a step and the labels of its targets, the step with the preset and the strength that
#: were chosen for it (see `arms`); all else must stay. It is asked at every iteration, so the same arguments must give
#: the same answer for as long as an attempt lasts. What it chooses is written into the prompt pair ("dramatic sky
#: (stormy) at 75 %"), where an editor reads it (`steps.steps_for`).
Choice = Callable[[Step, tuple[str, ...]], Step]


def as_read(step: Step, labels: tuple[str, ...]) -> Step:
    """The choice of somebody who has learned nothing: the step as the words say it."""
    return step


def no_progress(fraction: float, message: str, handles: Mapping[str, Any]) -> None:
    """For callers that do not care."""


@dataclass(frozen=True)
class Detection:
    """One entity with its mask. The entity's `mask_path` is still empty: the stage stores the file."""

    entity: EntityData
    mask: Mask


@dataclass(frozen=True)
class Scene:
    """What an analyzer returns. Entity ids are `<label>_<n>`, largest first, and unique."""

    detections: list[Detection]
    #: One sentence: what is where.
    spatial_layout: str


@dataclass(frozen=True)
class EditRequest:
    """All that an editor may look at. The picture is always the original, whatever the attempt."""

    pixels: Pixels
    masks: Mapping[str, Mask]  # by entity id
    scene: SceneAnalysis
    intent: Intent
    prompt: PromptRecord
    attempt: int
    hints: list[str] = field(default_factory=list)
    #: Handles saved by an earlier, interrupted try of this very attempt (for example a job id).
    handles: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EditOutcome:
    """The edited picture and what was done to get it."""

    pixels: Pixels
    operations: list[Operation]


@dataclass(frozen=True)
class Variation:
    """One of several ways to do an edit. `intent` asks for this one; `words` tell it from the others."""

    pixels: Pixels
    operations: list[Operation]
    words: str
    intent: Intent


@dataclass(frozen=True)
class Variations:
    """Variations of an edit, the one that was asked for first; `notes` are sentences about those that are not shown."""

    made: list[Variation]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ValidationRequest:
    """Original and edited pictures of the same size, and what was asked for."""

    original: Pixels
    edited: Pixels
    masks: Mapping[str, Mask]
    scene: SceneAnalysis
    intent: Intent
    operations: list[Operation]

    @cached_property
    def pair(self) -> Pair:
        """Both pictures as they are compared; made once for who measures them and who draws what has changed."""
        from flows.engines.comparing import compare

        return compare(self.original, self.edited)


class Engine(Protocol):
    """What every engine has; both are stored with each stage it ran."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


class Analyzer(Engine, Protocol):
    """Finds entities. Same pixels, same entities and masks, bit for bit."""

    def analyze(self, pixels: Pixels, progress: Progress = no_progress) -> Scene: ...


class Reasoner(Engine, Protocol):
    """Understands the prompt and writes the prompt pairs."""

    @property
    def heeds_choice(self) -> bool:
        """Whether the last prompt pair was written with the `choice` that was given."""
        ...

    def understand(
        self, prompt: str, scene: SceneAnalysis, answer: int | None = None, asked: Question | None = None
    ) -> Intent:
        """The intent; with a `question` when its confidence is below 0.7. `answer` picks choice 1..n of that question.

        `asked` is the question that was answered; another reasoner may have asked it.

        Raises InputError for a prompt that asks for nothing, UnsupportedEditError for what no embedded engine can do.
        """
        ...

    def refine(
        self,
        prompt: str,
        scene: SceneAnalysis,
        intent: Intent,
        iteration: int,
        attempt: int = 1,
        previous: PromptRecord | None = None,
        hints: list[str] | None = None,
        choice: Choice = as_read,
    ) -> PromptRecord:
        """Prompt pair of one iteration: 0 base, 1 preservation, 2 technical specificity, 3 quality modifiers.

        A reasoner that heeds `choice` says so by `heeds_choice`; the others write what they read.
        """
        ...


class Editor(Engine, Protocol):
    """Applies the intent. Raises UnsupportedEditError, naming the backend that can, for what it cannot do."""

    def edit(self, request: EditRequest, progress: Progress = no_progress) -> EditOutcome: ...

    def vary(self, request: EditRequest, count: int, progress: Progress = no_progress) -> Variations:
        """Up to `count` variations that a person can tell apart, at least one; the same request, the same ones."""
        ...


class Validator(Engine, Protocol):
    """Measures what happened to each entity."""

    def validate(self, request: ValidationRequest, progress: Progress = no_progress) -> ValidationResult: ...
