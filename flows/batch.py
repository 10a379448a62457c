"""The flow `edit-batch`: the same edit for many photos, one session each.

A session's id follows from the batch and the photo, and the batch's own id from what was asked. So a batch that was
killed and is started again with the same words does what is left, and no photo twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import flow, runtime, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner

from edi_storage.errors import EdiError, InputError
from edi_storage.models import MAX_ATTEMPTS
from edi_storage.owner import is_gone
from edi_storage.recovery import reopen
from edi_storage.settings import Settings, load_settings
from edi_storage.store import Store, open_store
from flows import form
from flows.edit import asked_session, run_session
from flows.engines.wishes import Wishes
from flows.hooks import mark_batch_cancelled
from flows.inbox import find_photo, make_inbox, photos_in
from flows.links import session_link, viewer_address
from flows.markdown import bare, plain
from flows.names import batch_name
from flows.output import outcome
from flows.plain import in_plain_words
from flows.runners import batch_runner
from flows.words import CANCELLED

log = logging.getLogger("edi.batch")

#: What became of one photo: photo, decision, score, session, and an error where there was one.
Row = dict[str, Any]


def _run_name() -> str:
    """How the run is called in the Prefect UI: "sky dramatic - holiday"."""
    return batch_name(runtime.flow_run.parameters)


@flow(name="edit-batch", flow_run_name=_run_name, persist_result=False, on_cancellation=[mark_batch_cancelled])
@in_plain_words
def edit_batch(
    prompt: form.Prompt,
    photos: form.Photos = [],  # noqa: B006 - never changed; a list is what Prefect's form starts from
    strength: form.Strength = "as the prompt says",
    protect: form.Protect = "",
    region: form.Region = "",
    max_attempts: form.Attempts = MAX_ATTEMPTS,
    output_folder: form.OutputFolder = "",
    strip: form.Strip = False,
    workers: form.Workers = 2,
    batch_id: form.BatchName = "",
) -> dict[str, Any]:
    """Edit many photos in the same way, each in a session of its own.

    One photo that fails does not stop the others. Started again with the same fields, it does only what is left.
    """
    settings = load_settings()
    # Before anything is started: a wrong wish would fail every photo in the same way.
    wishes = Wishes.checked(strength=strength, protect=protect, region=region).as_options()
    folder = str(Path(output_folder).expanduser().absolute()) if output_folder else ""
    found = find_photos(photos, settings)
    _make_folder(folder, found)
    batch = batch_id or _batch_id(photos or [str(make_inbox(settings))], prompt, wishes, folder)
    options = {"strength": wishes.get("strength", ""), "protect": protect, "region": region}
    jobs = [
        {
            "photo": photo,
            "session_id": session_id_of(batch, photo, prompt, wishes),
            "prompt": prompt,
            "options": {**options, "max_attempts": max_attempts, "output": output, "strip": strip},
        }
        for photo, output in zip(found, _outputs(folder, found), strict=True)
    ]
    runner = batch_runner(settings.task_runner, min(workers, len(jobs)))
    rows = _work_off(jobs, runner, batch)
    served = bool(viewer_address(settings))
    create_table_artifact(
        [
            {
                "photo": plain(row["photo"]),
                "decision": row["decision"],
                "score": row["score"],
                "session": f"[{row['session']}]({session_link(row['session'])})" if served else row["session"],
            }
            for row in rows
        ],
        key=f"batch-{batch.lower()}".replace("_", "-"),
        description=f"{bare(prompt)}: {_summary(rows)}",
    )
    log.info("Batch %s: %s.", batch, _summary(rows))
    return {"batch_id": batch, "prompt": prompt, "photos": len(rows), "results": rows}


def find_photos(named: Sequence[str], settings: Settings) -> list[str]:
    """The absolute paths of the photos meant, each once: files, or all photos of a folder; by default of the inbox.

    Raises InputError when there are none. A file that is not there is kept: it will be listed as failed.
    """
    inbox = make_inbox(settings)
    found: list[str] = []
    for name in named or [str(inbox)]:
        try:
            path = find_photo(name, inbox)
        except InputError:
            path = str(Path(name).absolute())
        found += map(str, photos_in(Path(path))) if Path(path).is_dir() else [path]
    if not found:
        where = ", ".join(named) or f"the folder for photos, {inbox}"
        raise InputError(f"There are no photos in {where[:200]}: EDI opens PNG, JPEG and WebP.")
    return list(dict.fromkeys(found))


def session_id_of(batch: str, photo: str, *asked: Any) -> str:
    """The session of one photo in a batch; another one when the file was replaced, or something else is asked."""
    try:
        status = Path(photo).stat()
        version = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        version = ""
    return f"{batch}-{_digest(photo, version, *asked)}"


def _batch_id(photos: Sequence[str], *asked: Any) -> str:
    places = [str(Path(name).expanduser().absolute()) for name in photos]
    return f"batch-{_digest(sorted(places), *asked)}"


def _digest(*what: Any) -> str:
    text = json.dumps(what, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _make_folder(folder: str, photos: Sequence[str]) -> None:
    if not folder:
        return
    # Started again, the batch would take its own results for photos.
    if any(Path(photo).parent == Path(folder) for photo in photos):
        raise InputError(f"{folder} holds the photos themselves: name another folder for the results.")
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}.") from error


def _outputs(folder: str, photos: Sequence[str]) -> list[str]:
    """The file of each result, called like its photo; photos of the same name get a few letters more."""
    if not folder:
        return [""] * len(photos)
    names = Counter(Path(photo).name.lower() for photo in photos)
    return [str(Path(folder) / _name(Path(photo), names[Path(photo).name.lower()] > 1)) for photo in photos]


def _name(photo: Path, is_shared: bool) -> str:
    return f"{photo.stem}-{_digest(str(photo))[:6]}{photo.suffix}" if is_shared else photo.name


def _work_off(jobs: Sequence[dict[str, Any]], runner: TaskRunner[PrefectFuture[Row]], batch: str) -> list[Row]:
    """Edit the photos, and tell how far it is. The rows come in the order of the photos."""
    progress = cast("UUID", create_progress_artifact(0.0, description=f"Batch {batch}: 0 of {len(jobs)} photos"))
    done: dict[str, Row] = {}
    with runner:
        futures = {runner.submit(edit_one, job): job for job in jobs}
        for number, future in enumerate(as_completed(list(futures)), 1):
            row = _result(future, futures[future])
            done[row["session"]] = row
            word = row["decision"] if row["score"] is None else f"{row['decision']} ({row['score']:.2f})"
            log.info("%d of %d: %s: %s", number, len(jobs), row["photo"], row["error"] or word)
            told = f"Batch {batch}: {number} of {len(jobs)} photos"
            update_progress_artifact(progress, 100 * number / len(jobs), description=told)
    return [done[job["session_id"]] for job in jobs]


def _result(future: PrefectFuture[Row], job: dict[str, Any]) -> Row:
    try:
        return future.result()
    except Exception as problem:  # noqa: BLE001 - of the runner: `edit_one` itself tells everything in its row
        ended = f"the process that edits has ended ({type(problem).__name__}): start the batch again for what is left"
        with open_store(load_settings()) as store:
            return _row(store, job["photo"], job["session_id"], ended)


def _task_name() -> str:
    return Path(str(runtime.task_run.parameters["photo"])).name


@task(name="edit-one", task_run_name=_task_name, cache_policy=NO_CACHE, persist_result=False)
def edit_one(photo: str, session_id: str, prompt: str, options: dict[str, Any]) -> Row:
    """Edit one photo of a batch, unless that is done already. Whatever goes wrong is told in the row."""
    settings = load_settings()
    with open_store(settings) as store:
        error = ""
        try:
            if not _has_ended(store, session_id):
                _edit(store, settings, photo, session_id, prompt, options)
        except EdiError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - one photo must not keep the others from being edited
            error = f"{type(problem).__name__}: {problem}"
        return _row(store, photo, session_id, error)


def _edit(store: Store, settings: Settings, photo: str, session_id: str, prompt: str, options: dict[str, Any]) -> None:
    wishes = Wishes.checked(**{name: options[name] for name in ("strength", "protect", "region")})
    session = asked_session(
        settings,
        session_id=session_id,
        image_path=photo,
        prompt=prompt,
        wishes=wishes,
        # Nobody waits beside a batch: what is not sure is listed as such.
        review="auto",
        max_attempts=options["max_attempts"],
        output=options["output"],
        strip=options["strip"],
        consent=settings.consent,
    )
    run_session(store, settings, session, "", str(runtime.flow_run.id), in_batch=True)


def _has_ended(store: Store, session_id: str) -> bool:
    """Whether the session has come to its end earlier, in good or in bad; what was cancelled with its batch has not."""
    store.database.free_leases(is_gone, session_id)
    session = store.database.get_session(session_id)
    if session is not None and session.failure_reason == CANCELLED:
        reopen(store, session_id)
        return False
    return session is not None and session.status != "in_progress"


def _row(store: Store, photo: str, session_id: str, error: str) -> Row:
    row = {"photo": Path(photo).name, "decision": "failed", "score": None, "session": session_id, "error": error}
    if store.database.get_session(session_id) is None:
        return row
    result = outcome(store, session_id)
    waits = f"waits for you ({result['waiting_for']})" if result["waiting_for"] else "not finished"
    standing = {"completed": result["decision"], "failed": "failed"}.get(result["status"], waits)
    return row | {
        "decision": str(standing).replace("_", " "),
        "score": result["alignment_score"],
        "error": result["failure_reason"] or error,
        "output": result["output"] or result["edited_image_path"],
    }


def _summary(rows: Sequence[Row]) -> str:
    """ "12 photos: 10 accepted, 1 needs review, 1 failed" """
    counts = Counter(row["decision"] for row in rows)
    parts = ", ".join(f"{count} {decision}" for decision, count in counts.most_common())
    return f"{len(rows)} photo{'' if len(rows) == 1 else 's'}: {parts}"
