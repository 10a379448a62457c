"""A session as something to learn from: a picture, a wish, results, and what a person thought of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edi_storage.models import Artifact, ArtifactKind, FeedbackType, PromptRecord, SessionHistory, UserFeedback
from edi_storage.state import Json
from edi_storage.steps import feedback_key

#: Of one session, so that a person who tries often does not outweigh others.
MOST_PAIRS: Final = 3


@dataclass(frozen=True)
class Result:
    """One edited picture of a session, how it was asked for, and what was said of it.

    `preferred`: whether a person chose it among variations; None where there were none to choose from.
    """

    picture: Artifact
    attempt: int
    prompt: PromptRecord | None
    strength: float | None
    preset: str
    score: float | None
    said: UserFeedback | None = None
    preferred: bool | None = None

    @property
    def verdict(self) -> FeedbackType | None:
        """What the person said of it, if anything."""
        return self.said.feedback_type if self.said else None

    @property
    def liked(self) -> bool | None:
        """True for what was accepted or chosen, False for what was not; None where nobody said anything."""
        if self.verdict is not None:
            return self.verdict == "accept"
        return self.preferred


@dataclass(frozen=True)
class Example:
    """A session with its original, the masks of what was to be changed, and its results in their order."""

    session_id: str
    source: Artifact
    instruction: str
    edit_type: str
    labels: tuple[str, ...]
    masks: tuple[Artifact, ...]
    results: tuple[Result, ...]

    def pairs(self) -> list[tuple[Result, Result, float]]:
        """Better, worse and weight: at most three, which weigh 1 together; the same bytes twice are no pair.

        Accepted stands against rejected and partial, a chosen variation against the others.
        """
        found = [
            (better, worse)
            for better in self.results
            for worse in self.results
            if better.liked and worse.liked is False and better.picture.sha256 != worse.picture.sha256
        ][:MOST_PAIRS]
        return [(better, worse, 1 / len(found)) for better, worse in found]


def example_of(history: SessionHistory, presets: Mapping[int, str] | None = None) -> Example | None:
    """The example that a session is; None while it has no picture. `presets` are what was chosen, by attempt."""
    files = {(item.kind, item.name): item for item in history.artifacts}
    source = files.get(("original", "original"))
    if source is None or history.state is None:
        return None
    intent = history.intent
    targets = intent.target_entities if intent else []
    return Example(
        session_id=history.session.session_id,
        source=source,
        instruction=history.session.naive_prompt,
        edit_type=intent.edit_type if intent else "",
        labels=tuple(sorted({entity.label for entity in history.entities if entity.entity_id in targets})),
        masks=tuple(files["mask", name] for name in targets if ("mask", name) in files),
        results=tuple(_results(history, files, presets or {})),
    )


def _results(
    history: SessionHistory, files: Mapping[tuple[ArtifactKind, str], Artifact], presets: Mapping[int, str]
) -> Iterator[Result]:
    assert history.state is not None
    said = {item.feedback_key: item for item in history.feedback}
    scores = {scored.attempt_number: scored.alignment_score for scored in history.validations}
    for number, attempt in sorted(_attempts(history.state.validation).items()):
        prompt, chosen = _final_prompt(history, number), attempt.get("chosen", {})
        made = attempt.get("variations", [])
        preset = presets.get(number, "")
        if kept := files.get(("edited", f"attempt_{number}")):
            strength = history.intent.strength if history.intent else None
            verdict = said.get(feedback_key(number))
            preferred = True if made and chosen.get("by") == "person" else None
            yield Result(kept, number, prompt, strength, preset, scores.get(number), verdict, preferred)
        if chosen.get("by") == "person":
            for variation, record in enumerate(made, 1):
                other = files.get(("edited", f"attempt_{number}_variation_{variation}"))
                if other and variation not in _taken(chosen):
                    strength = record.get("intent", {}).get("strength")
                    yield Result(other, number, prompt, strength, preset, None, preferred=False)


def _attempts(validation: Mapping[str, Any]) -> dict[int, Json]:
    return {int(number): attempt for number, attempt in validation.get("attempts", {}).items()}


def _taken(chosen: Json) -> set[int]:
    """The variations that are in the result, whole or in part."""
    return {int(chosen["number"]), *(int(part["from"]) for part in chosen.get("parts", []))}


def _final_prompt(history: SessionHistory, attempt: int) -> PromptRecord | None:
    """The prompt that the attempt was made with: the best one, the later of equals."""
    prompts = [prompt for prompt in history.prompts if prompt.attempt_number == attempt]
    return max(prompts, key=lambda prompt: (prompt.quality_score or 0.0, prompt.iteration), default=None)
