"""Several engines for one stage: the first that works does it, and what the others failed of is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from edi_storage.errors import EdiError, EngineError, InputError, UnsupportedEditError
from edi_storage.models import Intent, PromptRecord, Question, SceneAnalysis, ValidationResult
from flows.engines.base import (
    Choice,
    EditOutcome,
    EditRequest,
    Pixels,
    Progress,
    Scene,
    ValidationRequest,
    Variations,
    as_read,
    no_progress,
)

#: The log that people see (see `flows.session`).
_log = logging.getLogger("edi")


class Fallback:
    """Tries engines in their order. `name` and `version` are those of the one that did the work.

    An engine is made when its turn comes. With a single one, its error is raised as it is: nothing takes its place.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers
        self._engine: Any = None
        #: Why engines that were asked before the one that did the last work did not do it: one sentence each.
        self.warnings: list[str] = []
        #: Engines that have failed, and why. They are not asked again: an answer may take them a minute each time.
        self._failed: dict[str, EdiError] = {}

    @property
    def name(self) -> str:
        """The engine that did the last work; before it, the first one."""
        return self._engine.name if self._engine else next(iter(self._makers))

    @property
    def version(self) -> str:
        return self._engine.version if self._engine else ""

    def _first_that_works(self, work: Callable[[Any], Any]) -> Any:
        self.warnings = []
        names = list(self._makers)
        errors: dict[str, EdiError] = {}
        for name, following in pairwise(names):
            try:
                if name in self._failed:
                    raise self._failed[name]
                return self._by(name, work)
            except UnsupportedEditError as error:
                errors[name] = error  # it may well do the next edit
            except (EngineError, InputError) as error:
                errors[name] = self._failed[name] = error
            self._warn(f"{following} was used instead of {name}: {errors[name]}")
        try:
            return self._by(names[-1], work)
        except (EngineError, InputError, UnsupportedEditError) as error:
            said = [f"{name}: {failed}" for name, failed in (errors | {names[-1]: error}).items()]
            raise type(error)(" ".join(said)) from error

    def _by(self, name: str, work: Callable[[Any], Any]) -> Any:
        engine = self._makers[name]()
        result = work(engine)
        self._engine = engine
        return result

    def _warn(self, warning: str) -> None:
        self.warnings.append(warning)
        _log.warning("%s", warning)


class FallbackAnalyzer(Fallback):
    """See `Analyzer`."""

    def analyze(self, pixels: Pixels, progress: Progress = no_progress) -> Scene:
        scene: Scene = self._first_that_works(lambda engine: engine.analyze(pixels, progress))
        return scene


class FallbackReasoner(Fallback):
    """See `Reasoner`."""

    @property
    def heeds_choice(self) -> bool:
        """That of the engine that did the last work."""
        return bool(self._engine and self._engine.heeds_choice)

    def understand(
        self, prompt: str, scene: SceneAnalysis, answer: int | None = None, asked: Question | None = None
    ) -> Intent:
        intent: Intent = self._first_that_works(lambda engine: engine.understand(prompt, scene, answer, asked))
        return intent

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
        record: PromptRecord = self._first_that_works(
            lambda engine: engine.refine(prompt, scene, intent, iteration, attempt, previous, hints, choice)
        )
        return record


class FallbackEditor(Fallback):
    """See `Editor`."""

    def edit(self, request: EditRequest, progress: Progress = no_progress) -> EditOutcome:
        outcome: EditOutcome = self._first_that_works(lambda engine: engine.edit(request, progress))
        return outcome

    def vary(self, request: EditRequest, count: int, progress: Progress = no_progress) -> Variations:
        variations: Variations = self._first_that_works(lambda engine: engine.vary(request, count, progress))
        return variations


class FallbackValidator(Fallback):
    """See `Validator`."""

    def validate(self, request: ValidationRequest, progress: Progress = no_progress) -> ValidationResult:
        result: ValidationResult = self._first_that_works(lambda engine: engine.validate(request, progress))
        return result
