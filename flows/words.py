"""How a session is told to a person: the sentences that logs, the session artifact and the web page share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from edi_storage.models import (
    Decision,
    EntityData,
    EntityDelta,
    Intent,
    Operation,
    PromptRecord,
    Question,
    Reason,
    SessionData,
    SessionHistory,
    UserFeedback,
    ValidationResult,
    WaitingFor,
)
from edi_storage.state import Json
from edi_storage.steps import Step, answer_step, last_attempt, next_step
from edi_storage.variations import chosen_of, open_question, variations_of
from flows.engines.nouns import names_of
from flows.engines.scoring import count
from flows.engines.steps import Step as MeantStep
from flows.engines.steps import steps_of
from flows.links import RATINGS

#: What a decision means for whoever reads it.
_DECISIONS: dict[Decision, str] = {
    "accepted": "good",
    "needs_review": "not sure, so have a look at it",
    "retry": "not good enough, tried again",
    "best_effort": "not good enough, but the last attempt there was",
    "partial": "right in part, as you said",
    "rejected": "not what you wanted",
    "unreviewed": "nobody has looked at it",
}

#: Why a session ended that a person has cancelled.
CANCELLED = "cancelled by a person"

#: What is less certain than this is only perhaps what it is called: a tree trunk was a giraffe at 0.65.
SURE = 0.7

#: What was wrong, as a person says it.
REASONS: Mapping[Reason, str] = {
    "too strong": "too strong",
    "too weak": "too weak",
    "wrong region": "in the wrong places",
    "edges": "one sees where it begins",
    "colour": "the colours",
    "tone": "too light or too dark",
    "artifact": "spots, halos or other traces",
}

#: What the figures mean, where they stand.
ALIGNMENT = (
    "Alignment says how far the result is as asked, from 0 to 1: what was to change has changed, and nothing else has. "
    "From 0.80 on it is taken for good; under 0.60, or where nothing was done, it is tried again. It is measured in "
    "the regions found in the photo: what was not told apart there is not seen."
)
QUALITY = "Quality says how exactly the prompt tells what to do and what to leave alone; 1 is the best."
DELTA_E = (
    "ΔE is how much its colours changed on average (CIEDE2000): under 2 is hardly seen, over 10 is plain; "
    "a blur changes the sharpness rather than the colours."
)

#: From here on a mean ΔE is seen without looking for it.
_PLAIN_CHANGE = 5.0

#: What is being done while the next boundary is on its way.
_DOING = {
    "upload": "Opening the photo.",
    "analysis": "Looking at what is in the photo.",
    "intent": "Working out what the prompt means.",
    "refinement": "Writing the prompt.",
    "edit": "Editing the photo.",
    "validation": "Measuring what the edit did.",
    "completed": "Ending the session.",
}


def standing(session: SessionData) -> str:
    """How a session stands, in a word or two: "completed", "in progress", "waiting for you (question)"."""
    if session.waiting_for and session.status == "in_progress":
        return f"waiting for you ({session.waiting_for})"
    return "given up" if session.failure_reason == CANCELLED else session.status.replace("_", " ")


def decision_in_words(decision: Decision) -> str:
    """A decision as half a sentence."""
    return _DECISIONS[decision]


def fit(score: float) -> str:
    """An alignment score for whoever does not know the word: "89 % as asked"."""
    return f"{100 * score:.0f} % as asked"


def measured(score: float) -> str:
    """An alignment score in sentences that claim no more than was measured."""
    return f"EDI measures {fit(score)}; whether it found the right places, only you can see."


def verdict(said: UserFeedback | None) -> str:
    """What a person has said of a result: "right in part ★★★"; "" where nobody has."""
    if said is None:
        return ""
    (meant,) = (rating.words for rating in RATINGS if rating.verdict == said.feedback_type)
    return f"{meant} {'★' * (said.rating or 0)}".strip()


def reasons(said: UserFeedback) -> str:
    """What a person found wrong: "too strong, the colours"; "" where it was nothing."""
    return ", ".join(map(reason, said.reasons))


def reason(given: str) -> str:
    """A reason in a person's words; one of another version as it stands."""
    return next((said for known, said in REASONS.items() if known == given), given)


def found(entities: Sequence[EntityData]) -> str:
    """ "sky (37 %), building (23 %)"; "nothing that stands out" where there is nothing."""
    listed = ", ".join(f"{entity.label} ({percent(entity.area_percent)})" for entity in entities)
    return listed or "nothing that stands out"


def percent(share: float | None) -> str:
    """A share of the picture; what is there is never called nothing."""
    return "?" if share is None else (f"{share:.0f} %" if share >= 0.5 or not share else "under 1 %")


def largest_first(entities: Iterable[EntityData]) -> list[EntityData]:
    """In the order in which they are numbered for a person."""
    return sorted(entities, key=lambda entity: (-(entity.area_percent or 0), entity.entity_id))


def number_of(entity_id: str, entities: Iterable[EntityData]) -> int:
    """The number of an entity for a person, from 1."""
    return [entity.entity_id for entity in largest_first(entities)].index(entity_id) + 1


def doubted(entities: Iterable[EntityData]) -> list[EntityData]:
    """The entities, each called "perhaps" what it is not surely."""
    return [
        entity if entity.confidence >= SURE else entity.model_copy(update={"label": f"{entity.label} (perhaps)"})
        for entity in entities
    ]


def called(entity_ids: Iterable[str], entities: Iterable[EntityData]) -> str:
    """ "sky, building": the names of these entities."""
    names = names_of(entities)
    return ", ".join(names.get(entity_id, entity_id) for entity_id in entity_ids)


def understood(intent: Intent, entities: Iterable[EntityData]) -> str:
    """ "dramatic sky on sky; warmer on building, with confidence 0.92"."""
    return f"{meant(intent, entities)}, with confidence {intent.confidence:.2f}"


def meant(intent: Intent, entities: Iterable[EntityData]) -> str:
    """ "dramatic sky on sky; warmer on building"."""
    known = list(entities)
    return "; ".join(_meant(step, intent, known) for step in steps_of(intent))


#: What looks that go both ways are called, up and down.
_BOTH_WAYS = {
    "exposure": ("brighter", "darker"),
    "contrast": ("more contrast", "less contrast"),
    "saturation": ("more colour", "less colour"),
    "warmth": ("warmer", "cooler"),
    "sharpen": ("sharper", "softer"),
}


def _meant(step: MeantStep, intent: Intent, entities: Sequence[EntityData]) -> str:
    look = step.action.replace("_", " ") or intent.edit_type
    if paint := step.parameters.get("colour_name"):
        look = f"{paint} ({look})"
    if step.action in _BOTH_WAYS:
        look = _BOTH_WAYS[step.action][step.parameters.get("direction", 1) < 0]
    if mood := step.parameters.get("mood"):
        look = f"{mood} sky" if step.action == "dramatic_sky" else str(mood)
    return f"{look} on {'the whole picture' if step.scope == 'whole' else called(step.targets, entities)}"


def operations(done: Iterable[Operation], entities: Iterable[EntityData]) -> str:
    """What an edit consists of, by where: "dramatic sky on sky; contrast, vignette on the whole picture"."""
    places = {"image": "the whole picture", "background": "the background", **names_of(entities)}
    parts = []
    for target, group in groupby(done, key=lambda operation: operation.target):
        names = ", ".join(operation.name.replace("_", " ") for operation in group)
        parts.append(f"{names} on {places.get(target, target)}")
    return "; ".join(parts) or "nothing to do"


def variations(made: Sequence[Json]) -> str:
    """ "3 variations: 1 dramatic, 60 %; 2 stormy, 60 %; 3 golden, 60 %"."""
    listed = "; ".join(f"{number} {one['words']}" for number, one in enumerate(made, 1))
    return f"{len(made)} variation{'' if len(made) == 1 else 's'}: {listed}"


def choice(number_and_parts: Json, made: Sequence[Json], entities: Iterable[EntityData]) -> str:
    """ "dramatic, 60 %, with sky from 3 (golden, 60 %)"."""
    known = list(entities)
    parts = [
        f"with {called(part['entities'], known)} from {part['from']} ({made[part['from'] - 1]['words']})"
        for part in number_and_parts.get("parts", [])
    ]
    return ", ".join([made[number_and_parts["number"] - 1]["words"], *parts])


def listed_variations(history: SessionHistory) -> list[str]:
    """A line for each variation that was made, and one about which was taken."""
    state = history.state.model_dump(mode="json") if history.state else {}
    lines = [f"variation {number}: {made['words']}" for number, made in enumerate(variations_of(state), 1)]
    taken = chosen_of(state)
    return [*lines, chosen(taken)] if taken else lines


def chosen(record: Json) -> str:
    """Which variation was taken, by whom and why, as a sentence; `record` is what the state holds of it."""
    which = f"variation {record['number']} ({record['words']})"
    if record["by"] == "person":
        return f"You chose {which}."
    scores = record["scores"]
    listed = ", ".join(f"{score:.2f}" for score in scores)
    equal = "; of equals, the nearest to what was asked" if scores.count(max(scores)) > 1 else ""
    return f"Nobody was asked: {which} was taken, as it measures best (alignment of each: {listed}{equal})."


def qualities(prompts: Iterable[PromptRecord]) -> str:
    """How the prompt got better: "0.45, 0.62, 0.80, 1.00"."""
    return ", ".join(f"{prompt.quality_score or 0:.2f}" for prompt in prompts)


def formula(deltas: Iterable[EntityDelta]) -> str:
    """The alignment score with its three parts, as it was computed (see `flows.engines.scoring`)."""
    counts = count(ValidationResult(deltas=list(deltas)))
    kept = _part(counts.preserved, counts.to_preserve, "kept")
    done = _part(counts.applied, counts.intended, "changed as asked")
    spilt = _part(counts.unintended, counts.total, "changed by accident", of_nothing=0)
    return f"{counts.score:.2f} = 0.4 x {kept} + 0.4 x {done} + 0.2 x (1 - {spilt})"


def _part(number: int, of: int, what: str, of_nothing: int = 1) -> str:
    return f"{number}/{of} {what}" if of else f"{of_nothing} (nothing to be {what})"


def deltas_of(attempt: Json) -> list[EntityDelta]:
    """What the validator measured of an attempt, as it stands in the state; empty where there is no such record."""
    measured = attempt.get("delta") or {}
    return [EntityDelta.model_validate({"entity_id": name, **fields}) for name, fields in measured.items()]


#: What happened to an entity, in the words of its verdict.
VERDICTS = {
    "preserved": "kept",
    "modified": "changed as asked",
    "not_applied": "not changed, although asked",
    "wrong_direction": "changed the wrong way",
    "unintended": "changed by accident",
}


def changes(deltas: Iterable[EntityDelta], entities: Iterable[EntityData], *, figures: bool = True) -> list[str]:
    """What became of each entity, changed ones first: ["sky changed as asked (ΔE 23.1)", "building kept (ΔE 0.4)"].

    The number, which is left out without `figures`, is the mean colour difference (CIEDE2000).
    """
    names = names_of(entities)
    listed = sorted(deltas, key=lambda delta: -delta.mean_delta_e)
    return [
        f"{names.get(delta.entity_id, delta.label)} {_became(delta)}"
        + (f" (ΔE {delta.mean_delta_e:.1f})" if figures else "")
        for delta in listed
    ]


def _became(delta: EntityDelta) -> str:
    """Of several looks that were asked for, one may be seen and another not."""
    is_changed = delta.verdict == "not_applied" and delta.mean_delta_e > _PLAIN_CHANGE
    return "changed, but not in every way that was asked" if is_changed else VERDICTS[delta.verdict]


def attempts_of(history: SessionHistory) -> dict[int, Json]:
    """What the state holds of each attempt, by its number."""
    known = history.state.validation.get("attempts", {}) if history.state else {}
    return {int(number): attempt for number, attempt in sorted(known.items(), key=lambda item: int(item[0]))}


def restored(steps: Sequence[Step]) -> str:
    """The steps that were not run again, by attempt: "upload, analysis, refine 0; attempt 2: refine 0, edit"."""
    parts = []
    for attempt, group in groupby(steps, key=lambda step: step.attempt):
        names = ", ".join(step.label.removeprefix(f"attempt {attempt}: ") for step in group)
        parts.append(names if attempt == 1 else f"attempt {attempt}: {names}")
    return "; ".join(parts)


def headline(history: SessionHistory, *, now: bool = False) -> str:
    """Where a session stands, in one sentence.

    now: it is shown only as long as it is so. What a session asks can be answered once its run has let go of it.
    """
    session = history.session
    if session.failure_reason == CANCELLED:
        return "Given up, as you said."
    if session.status == "failed":
        return f"Failed: {session.failure_reason or 'for an unknown reason'}"
    state = history.state.model_dump(mode="json") if history.state else {}
    if session.status == "completed":
        return _ended(history, last_attempt(state))
    following = next_step(state)
    if isinstance(following, Step):
        which = f"Attempt {following.attempt}: " if following.attempt > 1 else ""
        return which + _DOING[following.stage]
    told = _waiting(history, following)
    is_early = now and not session.waiting_for and told.startswith("Waiting for you")
    return "One moment: it is going to ask you something." if is_early else told


def _ended(history: SessionHistory, kept: int) -> str:
    session, tried = history.session, len(history.validations)
    score = "" if session.final_alignment_score is None else f" {measured(session.final_alignment_score)}"
    # How good one is that was accepted, the measure says.
    verdict = f": {decision_in_words(session.decision)}" if session.decision not in (None, "accepted") else ""
    which = f" (attempt {kept} of {tried} was kept)" if tried > 1 else ""
    return f"Done{verdict}{which}.{score}"


def as_before(history: SessionHistory) -> str:
    """That the newest attempt is the one before over again, and what would help; "" where it is not."""
    made = [attempt for attempt in attempts_of(history).values() if "operations" in attempt]
    if len(made) < 2 or made[-1]["operations"] != made[-2]["operations"]:
        return ""
    return (
        "It is the same as the one before: EDI did not know what to do otherwise. Say it anew in other words, or with "
        "what to protect."
    )


def question_of(history: SessionHistory) -> Question | None:
    """What the session asks, as long as nobody has answered. One that was saved by hand may have no state."""
    if history.state is None:
        return history.intent.question if history.intent else None
    return open_question(history.state.model_dump(mode="json"))


def _waiting(history: SessionHistory, for_what: WaitingFor | None) -> str:
    question = question_of(history)
    if for_what == "question" and question:
        assert history.state
        among_variations = answer_step(history.state.model_dump(mode="json")).stage == "edit"
        if history.session.options.get("choice" if among_variations else "answer"):
            return "Going on with what you said."
        return f"Waiting for your answer: {question.text}"
    if for_what == "review" and history.validations:
        newest = max(history.validations, key=lambda scored: scored.attempt_number)
        told = as_before(history) or measured(newest.alignment_score)
        return f"Waiting for your verdict on attempt {newest.attempt_number}. {told}"
    return "Not finished."
