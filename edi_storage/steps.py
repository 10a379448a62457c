"""Where a session stands, by its state: the steps that are done, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edi_storage.models import (
    ITERATIONS,
    MAX_ATTEMPTS,
    Decision,
    Intent,
    Review,
    Stage,
    StageCommit,
    UserFeedback,
    WaitingFor,
)
from edi_storage.state import read_pair


@dataclass(frozen=True)
class Step:
    """One boundary of the edit, done or to do. `iteration` counts refinements, and the answers to a question: that of
    the intent, and which of an edit's variations it is to be."""

    stage: Stage
    attempt: int = 1
    iteration: int = 0

    @property
    def label(self) -> str:
        """How a person reads it: "analysis", "refine 2", "attempt 2: edit"."""
        name = f"refine {self.iteration}" if self.stage == "refinement" else self.stage
        name = {"intent": "answer", "edit": "choice"}.get(name, name) if self.iteration else name
        return name if self.attempt == 1 or self.stage == "completed" else f"attempt {self.attempt}: {name}"


def step_of(commit: StageCommit) -> Step | None:
    """The step that ended with this boundary; None for what is said between steps."""
    stage = commit.stage
    if stage == "feedback" or stage == "failed" or stage == "reopened":  # mypy does not follow `in`
        return None
    return Step(stage, commit.attempt, commit.iteration)


def steps_done(state: Mapping[str, Any]) -> list[Step]:
    """The boundaries behind this state, in the order they were reached (feedback is not a step)."""
    scene, intent = state.get("scene_analysis", {}), state.get("intent", {})
    steps = [Step("upload")] if "image" in scene else []
    if "entities" in scene:
        steps.append(Step("analysis"))
    if intent:
        steps.append(Step("intent"))
    if intent.get("answer"):
        steps.append(Step("intent", iteration=1))
    prompts = [read_pair(pair) for key, pair in state.get("prompts", {}).items() if key != "final"]
    attempts = state.get("validation", {}).get("attempts", {})
    for attempt in sorted({prompt.attempt_number for prompt in prompts}):
        iterations = sorted(prompt.iteration for prompt in prompts if prompt.attempt_number == attempt)
        steps += [Step("refinement", attempt, iteration) for iteration in iterations]
        edited = attempts.get(str(attempt), {})
        steps += [Step("edit", attempt)] if "operations" in edited or "variations" in edited else []
        steps += [Step("edit", attempt, 1)] if "chosen" in edited else []
        steps += [Step("validation", attempt)] if "alignment_score" in edited else []
    return [*steps, Step("completed", steps[-1].attempt)] if state.get("current_stage") == "completed" else steps


def next_step(state: Mapping[str, Any]) -> Step | WaitingFor | None:
    """What comes after this state: the next boundary, a person ("question" or "review"), or None at the end."""
    done = steps_done(state)
    if not done:
        return Step("upload")
    last = done[-1]
    match last.stage:
        case "upload":
            return Step("analysis")
        case "analysis":
            return Step("intent")
        case "intent":
            return "question" if Intent.model_validate(state["intent"]).needs_answer else Step("refinement")
        case "refinement":
            more = last.iteration < ITERATIONS[-1]
            return Step("refinement", last.attempt, last.iteration + 1) if more else Step("edit", last.attempt)
        case "edit":
            return _after_edit(state, last)
        case "validation":
            return _after_validation(state, last.attempt)
        case "completed":
            return None


def _after_edit(state: Mapping[str, Any], edited: Step) -> Step | WaitingFor:
    if edited.iteration or "variations" not in state["validation"]["attempts"][str(edited.attempt)]:
        return Step("validation", edited.attempt)
    review = state["scene_analysis"].get("options", {}).get("review")
    return "question" if review in ("unsure", "ask") else Step("edit", edited.attempt, 1)


def answer_step(state: Mapping[str, Any]) -> Step:
    """The step that takes the answer to the open question: that of the intent, or the choice among variations."""
    done = steps_done(state)
    edited = bool(done) and done[-1].stage == "edit"
    return Step("edit", done[-1].attempt, 1) if edited else Step("intent", iteration=1)


def _after_validation(state: Mapping[str, Any], attempt: int) -> Step | WaitingFor:
    validation, options = state["validation"], state["scene_analysis"].get("options", {})
    decision = validation["attempts"][str(attempt)]["decision"]
    if asks_a_person(options.get("review"), decision):
        verdict = verdict_on(state, attempt)
        if verdict is None:
            return "review"
        decision = "retry" if verdict.feedback_type == "reject" else "accepted"
    if decision == "retry" and attempt < options.get("max_attempts", MAX_ATTEMPTS):
        return Step("refinement", attempt + 1)
    return Step("completed", attempt)


def asks_a_person(review: Review | None, decision: Decision) -> bool:
    """Whether an attempt with this decision waits for a person; one that is tried again anyway never does."""
    return (review == "ask" and decision != "retry") or (review == "unsure" and decision == "needs_review")


def feedback_key(attempt: int) -> str:
    """The key of the verdict on one attempt."""
    return f"attempt-{attempt}"


def attempt_of(feedback_key: str) -> int | None:
    """The attempt that a verdict of this key is about; None when it is about the whole."""
    name, _, number = feedback_key.partition("-")
    return int(number) if name == "attempt" and number.isdecimal() and len(number) < 4 else None


def verdict_on(state: Mapping[str, Any], attempt: int) -> UserFeedback | None:
    """What the person said of this attempt, if anything."""
    found = state.get("validation", {}).get("feedback", {}).get(feedback_key(attempt))
    return UserFeedback.model_validate(found) if found else None


def last_attempt(state: Mapping[str, Any]) -> int:
    """The number of the attempt that was kept, or else of the newest edited one; 1 before there is any."""
    validation = state.get("validation", {})
    return int(validation.get("kept_attempt") or max(map(int, validation.get("attempts", {"1": {}}))))
