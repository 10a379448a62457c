"""The embedded reasoner: a lexicon over the entities, nothing learned, nothing downloaded."""

from __future__ import annotations

from edi_storage.errors import UnsupportedEditError
from edi_storage.models import Intent, PromptRecord, Question, SceneAnalysis
from flows.engines.backends import Backends
from flows.engines.base import Choice, as_read
from flows.engines.intent import understand
from flows.engines.painting import painting, with_wish
from flows.engines.refinement import refine


class EmbeddedReasoner:
    """Understands prompts with `intent.understand` and writes them with `refinement.refine`."""

    name = "embedded"
    version = "5"
    heeds_choice = True

    def __init__(self, backends: Backends | None = None) -> None:
        self._generative = backends is not None and backends.generative

    def understand(
        self, prompt: str, scene: SceneAnalysis, answer: int | None = None, asked: Question | None = None
    ) -> Intent:
        """See `Reasoner.understand`."""
        try:
            if answer is None or asked is None:
                return understand(prompt, scene, *([answer] if answer else []))
            own, chosen = understand(prompt, scene).question, asked.choices[answer - 1]
            if numbers := own.numbers_of(chosen) if own else []:
                return understand(prompt, scene, *numbers)
            # Another reasoner's question: its choice is more words of the person.
            said = understand(f"{prompt}: {chosen}", scene)
            return said.model_copy(update={"question": None})
        except UnsupportedEditError:
            # The editor of these settings may be able to do what the embedded one is not.
            painted = painting(prompt, scene) if self._generative else None
            if painted is None:
                raise
            return painted

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
        """See `Reasoner.refine`."""
        record = refine(prompt, scene, intent, iteration, attempt, previous, hints, choice)
        return with_wish(record, intent)
