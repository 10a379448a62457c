"""One task per stage: engine -> database -> return. The checkpoint is written by the hook afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed

from edi_storage import state as changes
from edi_storage.errors import EngineError
from edi_storage.models import (
    ITERATIONS,
    Decision,
    EntityData,
    Intent,
    Operation,
    PromptRecord,
    SceneAnalysis,
    ValidationData,
)
from edi_storage.steps import Step, verdict_on
from flows import words
from flows.album import keep_mask, keep_picture
from flows.artifacts import show_progress
from flows.choosing import by_person, choose, make_variations, to_validate, wanted_variations
from flows.deciding import choice_of, decision_for, in_words, nothing_chosen
from flows.engines.area import read_mask, with_region, without_region
from flows.engines.base import Detection, EditRequest
from flows.engines.heat import delta_picture
from flows.engines.photo import SUFFIXES, decode_photo, encode, encode_edited, encode_mask, open_photo
from flows.engines.scoring import count, decide
from flows.engines.wishes import as_wished
from flows.hooks import write_checkpoint
from flows.output import deliver
from flows.plain import in_plain_words
from flows.progress import ProgressBar
from flows.session import BuiltIn, SessionRun, log

Work = Callable[[SessionRun, Step], None]
StageTask = Task[[SessionRun, Step], Any]

#: Seconds before each new try of a stage whose engine failed in a way that may pass.
RETRY_DELAYS: list[float] = [2, 8, 30]

#: After these stages a watcher finds something new in the session's artifact.
_WATCHED = ("analysis", "edit", "validation")


def _may_pass(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Only an engine's passing failure is worth another try."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, EngineError):
        _warn_of(error)
    return isinstance(error, EngineError)


def _warn_of(error: EngineError) -> None:
    log.warning("The engine failed, and is tried again: %s", error)


#: What each stage does, by its name; `STAGES` has it as tasks.
_WORK: dict[str, Work] = {}


def stage(work: Work) -> StageTask:
    """A stage as a Prefect task. A step that was finished earlier is not run again and ends as "Restored"."""

    @in_plain_words
    def run_stage(run: SessionRun, step: Step) -> Any:
        # Any: the run, or Prefect's own state in its place.
        if step in run.restored:
            if step == run.restored[-1]:
                log.info("Restored, not run again: %s.", words.restored(run.restored))
            return Completed(name="Restored", message="Finished before the interruption; not run again.", data=run)
        with ProgressBar(run, step):
            work(run, step)
        return run

    _WORK[work.__name__] = work
    decorate = task(
        name=work.__name__,
        description=work.__doc__,
        task_run_name="{step.label}",
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_DELAYS),
        retry_delay_seconds=list(RETRY_DELAYS),
        retry_condition_fn=_may_pass,
        on_completion=[write_checkpoint, *([show_progress] if work.__name__ in _WATCHED else [])],
    )
    return decorate(run_stage)


@stage
def upload(run: SessionRun, step: Step) -> None:
    """Check the photo and keep a copy: the original is never written, and may be moved meanwhile."""
    started = run.begin(step)
    photo = open_photo(run.session.image_path)
    image = {
        "sha256": photo.sha256,
        "path": run.put_file(photo.data, SUFFIXES[photo.format]),
        "width": photo.width,
        "height": photo.height,
        "format": photo.format,
        "notes": list(photo.notes),
    }
    if run.wishes.mask:
        image["mask"] = run.put_file(encode_mask(read_mask(run.wishes.mask, photo)), ".png")
    run.commit(step, changes.upload_delta(run.session, image), BuiltIn(), started)
    name = Path(run.session.image_path).name
    log.info("Opened %s (%d x %d, %s).", name, photo.width, photo.height, photo.format)


@stage
def analysis(run: SessionRun, step: Step) -> None:
    """Find the entities and store their masks."""
    started = run.begin(step)
    found = run.analyzer.analyze(run.photo.pixels, run.part(0.0, 0.8))
    scene = with_region(found, run.wishes.region, run.photo.pixels, run.painted_mask)
    run.tell(0.8, "storing the masks")
    entities = [_stored(run, found) for found in scene.detections]
    stored = SceneAnalysis(entities=entities, spatial_layout=scene.spatial_layout)
    keep_picture(run.copies, run.state["scene_analysis"]["image"]["path"], run.photo.pixels)
    run.commit(step, changes.analysis_delta(stored), run.analyzer, started)
    log.info("Found %s.", words.found(entities))


def _stored(run: SessionRun, found: Detection) -> EntityData:
    path = run.put_file(encode_mask(found.mask), ".png")
    keep_mask(run.copies, path, found.mask)
    return found.entity.model_copy(update={"mask_path": path})


@stage
def intent(run: SessionRun, step: Step) -> None:
    """Understand the prompt; the second time (iteration 1) with the person's answer."""
    started = run.begin(step)
    if step.iteration == 0:
        understood = run.reasoner.understand(run.session.naive_prompt, without_region(run.scene))
    else:
        understood = _answered(run)
    understood = as_wished(understood, run.scene, run.masks if run.wishes.is_confined else {}, run.wishes)
    run.commit(step, changes.intent_delta(understood, run.state.get("intent")), run.reasoner, started)
    if understood.needs_answer and understood.question:
        log.info("Not sure enough to go on: %s", understood.question.text)
        return
    log.info("Understood: %s.", words.understood(understood, run.scene.entities))
    if understood.preserve_entities:
        log.info("To be kept as they are: %s.", words.called(understood.preserve_entities, run.scene.entities))


def _answered(run: SessionRun) -> Intent:
    assert run.intent.question is not None
    asked, answer = run.intent.question.taking(run.answer)
    understood = run.reasoner.understand(run.session.naive_prompt, without_region(run.scene), answer, asked)
    return understood.model_copy(update={"question": asked, "answer": answer})


@stage
def refinement(run: SessionRun, step: Step) -> None:
    """Write one prompt pair; the best of the attempt so far is the final one."""
    started = run.begin(step)
    earlier = run.prompts_of(step.attempt)
    decision = decision_for(run, step)
    prompt = run.reasoner.refine(
        run.session.naive_prompt,
        run.scene,
        run.intent,
        step.iteration,
        step.attempt,
        earlier[-1] if earlier else None,
        _hints(run, step.attempt),
        choice_of(decision, run.intent),
    )
    if not run.reasoner.heeds_choice:
        decision = nothing_chosen(run, step)
    best = max([*earlier, prompt], key=_quality)
    final = run.state.get("prompts", {}).get("final")
    made = decision if step.iteration == ITERATIONS[0] else None
    run.commit(step, changes.refinement_delta(prompt, best, final, made), run.reasoner, started)
    if made and (chosen := in_words(made)):
        log.info("%sChosen from what was learned: %s.", _of(step), chosen)
    if step.iteration == ITERATIONS[-1]:
        grew = words.qualities([*earlier, prompt])
        log.info(
            "%sRefined the prompt in %d steps; its quality (1 is the best): %s.", _of(step), len(earlier) + 1, grew
        )


def _of(step: Step) -> str:
    """From which attempt on a sentence is worth its number: the first has no need of one."""
    return f"Attempt {step.attempt}: " if step.attempt > 1 else ""


def _quality(prompt: PromptRecord) -> tuple[float, int]:
    return (prompt.quality_score or 0.0, prompt.iteration)


def _hints(run: SessionRun, attempt: int) -> list[str]:
    """What the attempts before have taught: the validator's hints, and the person's reasons."""
    hints: list[str] = []
    for number, record in sorted(run.attempts().items()):
        if number < attempt:
            verdict = verdict_on(run.state, number)
            hints += [*record.get("hints", []), *(verdict.reasons if verdict else [])]
    return list(dict.fromkeys(hints))


@stage
def edit(run: SessionRun, step: Step) -> None:
    """Edit the original with the final prompt and store the picture; of several variations, one is then chosen."""
    started = run.begin(step)
    if step.iteration:
        choose(run, step, started)
        return
    run.tell(0.0, "reading the photo and its masks")
    request = EditRequest(
        pixels=run.photo.pixels,
        masks=run.masks,
        scene=run.scene,
        intent=run.intent,
        prompt=run.final_prompt,
        attempt=step.attempt,
        hints=_hints(run, step.attempt),
        handles=run.handles,
    )
    wanted = wanted_variations(run, step)
    if wanted > 1:
        make_variations(run, step, request, wanted, started)
        return
    outcome = run.editor.edit(request, run.part(0.1, 0.7))
    run.tell(0.7, "writing the picture")
    path = run.put_file(encode_edited(run.photo, outcome.pixels), ".png")
    keep_picture(run.copies, path, outcome.pixels)
    run.commit(step, changes.edit_delta(step.attempt, path, outcome.operations), run.editor, started)
    log.info("%sEdited: %s.", _of(step), words.operations(outcome.operations, run.scene.entities))


@stage
def validation(run: SessionRun, step: Step) -> None:
    """Measure what the edit did, score it and decide."""
    started = run.begin(step)
    record = run.attempts()[step.attempt]
    run.tell(0.0, "reading the pictures")
    edited = decode_photo(run.store.files.read(record["edited_image_path"]))
    operations = [Operation.model_validate(operation) for operation in record["operations"]]
    request = to_validate(run, edited.pixels, run.intent, operations)
    result = run.validator.validate(request, run.part(0.3, 0.8))
    counts = count(result)
    data = ValidationData(
        attempt_number=step.attempt,
        alignment_score=counts.score,
        preserved_count=counts.preserved,
        modified_count=counts.applied,
        unintended_count=counts.unintended,
    )
    decision = decide(counts.score, counts.applied, step.attempt, max_attempts(run))
    if decision == "retry" and (by_person(record) or run.session.options.get("review") == "ask"):
        # What a person has picked is not thrown away without asking them, and some want to be asked every time.
        decision = "needs_review"
    run.tell(0.8, "drawing what it changed")
    shown = delta_picture(request.pair, request.masks, result.deltas)
    delta_path = run.put_file(encode(shown), ".png")
    keep_picture(run.copies, delta_path, shown)
    run.commit(step, changes.validation_delta(data, result, decision, delta_path), run.validator, started)
    told = words.decision_in_words(decision)
    log.info(
        "%sMeasured: %s, %s. Alignment %s.", _of(step), words.fit(counts.score), told, words.formula(result.deltas)
    )
    if decision == "retry" and result.hints:
        log.info("The next attempt will be told: %s.", ", ".join(result.hints))


def max_attempts(run: SessionRun) -> int:
    """How many attempts this session may make."""
    return int(run.session.options.get("max_attempts", run.settings.max_attempts))


@stage
def completed(run: SessionRun, step: Step) -> None:
    """Keep the best attempt and end the session."""
    started = run.begin(step)
    validations = sorted(changes.rows_of(run.state).validations, key=lambda data: data.attempt_number)
    last = validations[-1]
    decision, best = _verdict(run, last, _best(run, validations))
    edited = run.attempts()[best.attempt_number]["edited_image_path"]
    # Before the commit, like every file: after it nobody would come back to write what a kill prevented.
    undelivered = deliver(run, edited)
    run.commit(step, changes.completed_delta(decision, best, edited, undelivered), BuiltIn(), started)
    told = words.decision_in_words(decision)
    log.info("Done: attempt %d is kept (%s): %s.", best.attempt_number, words.fit(best.alignment_score), told)


def _verdict(run: SessionRun, last: ValidationData, best: ValidationData) -> tuple[Decision, ValidationData]:
    """How the session ends and with which attempt: a person's word first, else the last attempt's score."""
    verdict = verdict_on(run.state, last.attempt_number)
    if verdict is not None and verdict.feedback_type == "reject":
        return "rejected", best
    if verdict is not None:
        return ("accepted" if verdict.feedback_type == "accept" else "partial"), last
    if run.session.options.get("unreviewed"):
        return "unreviewed", best
    decision: Decision = run.attempts()[last.attempt_number]["decision"]
    if decision == "best_effort":
        return decision, best
    return decision, last


def _best(run: SessionRun, validations: list[ValidationData]) -> ValidationData:
    """The most worthy attempt, one that the person rejected only when there is no other."""
    verdicts = {data.attempt_number: verdict_on(run.state, data.attempt_number) for data in validations}

    def liked(data: ValidationData) -> bool:
        verdict = verdicts[data.attempt_number]
        return verdict is None or verdict.feedback_type != "reject"

    return max(validations, key=lambda data: (liked(data), *_worth(data)))


def _worth(data: ValidationData) -> tuple[bool, float, int]:
    """An attempt that did something is worth more than one that did not; then the score; then the later one."""
    return (data.modified_count > 0, data.alignment_score, data.attempt_number)


STAGES: dict[str, StageTask] = {
    "upload": upload,
    "analysis": analysis,
    "intent": intent,
    "refinement": refinement,
    "edit": edit,
    "validation": validation,
    "completed": completed,
}


def run_as_task(run: SessionRun, step: Step) -> None:
    """A stage as a task of the present flow run, whose page shows it."""
    # return_state: a plain call returns Prefect's state for a restored stage, and the value for any other.
    state = STAGES[step.stage](run, step, return_state=True)
    if not state.is_completed():
        state.result()


def run_in_batch(run: SessionRun, step: Step) -> None:
    """A stage as a part of the present task, which is one of thousands: with the same tries and the same checkpoint.

    As a task of its own it would cost as much as the edit of a small photo, and a megabyte in Prefect's database.
    """
    work = _WORK[step.stage]
    for delay in RETRY_DELAYS:
        try:
            work(run, step)
            break
        except EngineError as error:
            _warn_of(error)
            time.sleep(delay)
    else:
        work(run, step)
    try:
        run.export()
    except Exception as error:  # noqa: BLE001 - as in a hook: the boundary is committed, and the next one catches up
        log.warning("A checkpoint could not be written: %s", error)
