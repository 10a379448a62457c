"""The embedded reasoner: a lexicon over the entities, nothing learned, nothing downloaded."""

from __future__ import annotations

from edi_storage.models import Intent, PromptRecord, SceneAnalysis
from flows.engines.intent import understand
from flows.engines.refinement import Choice, as_read, refine


class EmbeddedReasoner:
    """Understands prompts with `intent.understand` and writes them with `refinement.refine`.

    `choice` is what learning adds: it picks preset and strength where the person left them open.
    """

    name = "embedded"
    version = "2"

    def __init__(self, *, choice: Choice = as_read) -> None:
        self._choice = choice

    def understand(self, prompt: str, scene: SceneAnalysis, answer: int | None = None) -> Intent:
        """See `Reasoner.understand`."""
        return understand(prompt, scene, answer)

    def refine(
        self,
        prompt: str,
        scene: SceneAnalysis,
        intent: Intent,
        iteration: int,
        attempt: int = 1,
        previous: PromptRecord | None = None,
        hints: list[str] | None = None,
    ) -> PromptRecord:
        """See `Reasoner.refine`."""
        return refine(prompt, scene, intent, iteration, attempt, previous, hints, self._choice)
