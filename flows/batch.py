"""The flow `edit-batch`: many photos, one session each.

A session's id follows from the batch and the photo, and the batch's own id from what was asked. So a batch that was
killed and is started again with the same words does what is left and what failed, and no photo twice.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from prefect import flow, runtime, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner

from edi_storage.errors import EdiError
from edi_storage.models import GAVE_UP, MAX_ATTEMPTS
from edi_storage.owner import is_gone
from edi_storage.recovery import export_the_end, reopen
from edi_storage.settings import Settings, load_settings
from edi_storage.store import Store, open_store
from flows import form
from flows.edit import asked_session, run_session
from flows.engines.bands import processors
from flows.engines.wishes import Wishes
from flows.hooks import mark_batch_cancelled
from flows.jobs import Job, jobs_of, with_outputs
from flows.jobs import batch_id as batch_id_of
from flows.links import session_link, viewer_address
from flows.markdown import bare, plain
from flows.names import batch_name
from flows.output import outcome
from flows.plain import in_plain_words
from flows.room import side_by_side
from flows.runners import batch_runner

log = logging.getLogger("edi.batch")

#: Seconds between two updates of the progress. Each is a request, and who watches its page sees no more of them.
_TELL_EVERY: Final = 1.0

#: What became of one photo: photo, prompt, decision, score, session, and an error where there was one.
Row = dict[str, Any]


def _run_name() -> str:
    """How the run is called in the Prefect UI: "sky dramatic - holiday"."""
    return batch_name(runtime.flow_run.parameters)


@flow(name="edit-batch", flow_run_name=_run_name, persist_result=False, on_cancellation=[mark_batch_cancelled])
@in_plain_words
def edit_batch(
    prompt: form.BatchPrompt = "",
    photos: form.Photos = [],  # noqa: B006 - never changed; a list is what Prefect's form starts from
    strength: form.Strength = "as the prompt says",
    protect: form.Protect = "",
    region: form.Region = "",
    max_attempts: form.Attempts = MAX_ATTEMPTS,
    output_folder: form.OutputFolder = "",
    strip: form.Strip = False,
    workers: form.Workers = 0,
    batch_id: form.BatchName = "",
) -> dict[str, Any]:
    """Edit many photos, each in a session of its own: all in the same way, or as a list says.

    One photo that fails does not stop the others. Started again with the same fields, it does only what is left, and
    what failed.
    """
    settings = load_settings()
    # Before anything is started: a wrong wish would fail every photo in the same way.
    wishes: dict[str, Any] = {"strength": strength, "protect": protect, "region": region}
    folder = str(Path(output_folder).expanduser().absolute()) if output_folder else ""
    jobs = with_outputs(jobs_of(photos, settings, prompt, wishes), folder)
    batch = batch_id or batch_id_of(photos, settings, prompt, Wishes.checked(**wishes), folder)
    runner = batch_runner(settings.task_runner, _at_once(settings, jobs, workers))
    options = {"max_attempts": max_attempts, "strip": strip}
    # Kept open for all of them: opened for each photo, it would make its connections and statements each time anew.
    with open_store(settings):
        rows = _work_off([(job.session_id(batch), job) for job in jobs], runner, batch, options)
    create_table_artifact(
        _table(rows, served=bool(viewer_address(settings))),
        key=f"batch-{batch.lower()}".replace("_", "-"),
        description=f"{bare(prompt) or 'As the list says'}: {_summary(rows)}",
    )
    log.info("Batch %s: %s.", batch, _summary(rows))
    return {"batch_id": batch, "prompt": prompt, "photos": len(rows), "results": rows}


def _at_once(settings: Settings, jobs: Sequence[Job], wanted: int) -> int:
    """How many photos at the same time; what a cluster's machines can bear is for a person to say."""
    if settings.task_runner not in ("threads", "processes"):
        return min(wanted or processors(), len(jobs))
    count, why = side_by_side((job.photo for job in jobs), wanted)
    if why:
        log.warning("%d at a time: %s.", count, why)
    return count


def _work_off(
    jobs: Sequence[tuple[str, Job]], runner: TaskRunner[PrefectFuture[Row]], batch: str, options: dict[str, Any]
) -> list[Row]:
    """Edit the photos, each in its session, and tell how far it is. The rows come in the order of the photos."""
    progress = cast("UUID", create_progress_artifact(0.0, description=f"Batch {batch}: 0 of {len(jobs)} photos"))
    done: dict[str, Row] = {}
    told = time.monotonic()
    with runner:
        futures = {runner.submit(edit_one, _parameters(name, job, options)): (name, job) for name, job in jobs}
        for number, future in enumerate(as_completed(list(futures)), 1):
            row = _result(future, *futures[future])
            done[row["session"]] = row
            word = row["decision"] if row["score"] is None else f"{row['decision']} ({row['score']:.2f})"
            log.info("%d of %d: %s: %s", number, len(jobs), row["photo"], row["error"] or word)
            if number == len(jobs) or time.monotonic() >= told + _TELL_EVERY:
                far = f"Batch {batch}: {number} of {len(jobs)} photos"
                update_progress_artifact(progress, 100 * number / len(jobs), description=far)
                told = time.monotonic()
    return [done[name] for name, _ in jobs]


def _parameters(session_id: str, job: Job, options: dict[str, Any]) -> dict[str, Any]:
    """What the task of a photo is given, and its page shows."""
    asked = {**options, "wishes": job.wishes.as_options(), "output": job.output}
    return {"photo": job.photo, "session_id": session_id, "prompt": job.prompt, "options": asked}


def _result(future: PrefectFuture[Row], session_id: str, job: Job) -> Row:
    try:
        return future.result()
    except Exception as problem:  # noqa: BLE001 - of the runner: `edit_one` itself tells everything in its row
        ended = f"the process that edits has ended ({type(problem).__name__}): start the batch again for what is left"
        with open_store(load_settings()) as store:
            return _row(store, job.photo, session_id, job.prompt, ended)


def _task_name() -> str:
    return Path(str(runtime.task_run.parameters["photo"])).name


@task(name="edit-one", task_run_name=_task_name, cache_policy=NO_CACHE, persist_result=False)
def edit_one(photo: str, session_id: str, prompt: str, options: dict[str, Any]) -> Row:
    """Edit one photo of a batch, unless that is done already. Whatever goes wrong is told in the row."""
    settings = load_settings()
    with open_store(settings) as store:
        error = ""
        try:
            if not _is_done(store, session_id):
                _edit(store, settings, photo, session_id, prompt, options)
        except EdiError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - one photo must not keep the others from being edited
            error = f"{type(problem).__name__}: {problem}"
        return _row(store, photo, session_id, prompt, error)


def _edit(store: Store, settings: Settings, photo: str, session_id: str, prompt: str, options: dict[str, Any]) -> None:
    session = asked_session(
        settings,
        session_id=session_id,
        image_path=photo,
        prompt=prompt,
        wishes=Wishes.of(options["wishes"]),
        # Nobody waits beside a batch: what is not sure is listed as such.
        review="auto",
        max_attempts=options["max_attempts"],
        output=options["output"],
        strip=options["strip"],
        consent=settings.consent,
    )
    with _in_one_record():
        run_session(store, settings, session, "", str(runtime.flow_run.id), in_batch=True)


#: What the stages of the photo that this thread edits have said so far.
_said: ContextVar[list[str] | None] = ContextVar("_said", default=None)


@contextmanager
def _in_one_record() -> Iterator[None]:
    """Log what the stages of a photo say as one record of several lines, at its end; what warns, at once.

    To send and store a record of its own for each line costs a twentieth of the edit of a small photo; and the page of
    a batch shows the lines of each photo together, not among those of the others.
    """
    stages = logging.getLogger("edi")
    stages.addFilter(_keep_for_later)
    said: list[str] = []
    before = _said.set(said)
    try:
        yield
    finally:
        _said.reset(before)
        if said:
            stages.info("\n".join(said))


def _keep_for_later(record: logging.LogRecord) -> bool:
    """False for a line that goes with the others of its photo."""
    said = _said.get()
    if said is None or record.levelno > logging.INFO:
        return True
    said.append(record.getMessage())
    return False


def _is_done(store: Store, session_id: str) -> bool:
    """Whether the session has come to its end earlier. One that failed is opened again, to go on where it stood.

    But for one that was given up: it may end the process, and with it the others, each time.
    """
    store.database.free_leases(is_gone, session_id)
    session = store.database.get_session(session_id)
    if session is None or session.status == "in_progress":
        return False
    if session.status == "failed" and not _is_given_up(session.failure_reason):
        reopen(store, session_id)
        return False
    export_the_end(store, session_id)
    return True


def _is_given_up(reason: str | None) -> bool:
    return (reason or "").startswith(GAVE_UP)


def _row(store: Store, photo: str, session_id: str, prompt: str, error: str) -> Row:
    row = {
        "photo": Path(photo).name,
        "prompt": prompt,
        "decision": "failed",
        "score": None,
        "session": session_id,
        "error": error,
    }
    if store.database.get_session(session_id) is None:
        return row
    result = outcome(store, session_id)
    waits = f"waiting for you ({result['waiting_for']})" if result["waiting_for"] else "not finished"
    failed = "given up" if _is_given_up(result["failure_reason"]) else "failed"
    standing = {"completed": result["decision"], "failed": failed}.get(result["status"], waits)
    return row | {
        "decision": str(standing).replace("_", " "),
        "score": result["alignment_score"],
        "error": result["failure_reason"] or error,
        "output": result["output"] or result["edited_image_path"],
    }


def _table(rows: Sequence[Row], *, served: bool) -> list[dict[str, Any]]:
    """The rows of the artifact; what was asked stands in it where that is not the same for all."""
    differs = len({row["prompt"] for row in rows}) > 1
    return [
        {
            "photo": plain(row["photo"]),
            **({"prompt": plain(row["prompt"])} if differs else {}),
            "decision": row["decision"],
            "score": row["score"],
            "session": f"[{row['session']}]({session_link(row['session'])})" if served else row["session"],
        }
        for row in rows
    ]


def _summary(rows: Sequence[Row]) -> str:
    """ "12 photos: 10 accepted, 1 needs review, 1 failed" """
    counts = Counter(row["decision"] for row in rows)
    parts = ", ".join(f"{count} {decision}" for decision, count in counts.most_common())
    return f"{len(rows)} photo{'' if len(rows) == 1 else 's'}: {parts}"
