"""What a person or a script gets of a session: the document of `--json`, and the file of `--output`."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edi_storage.disk import LocalFolder
from edi_storage.errors import InputError
from edi_storage.failpoints import reach
from edi_storage.models import SessionData, SessionHistory
from edi_storage.record import Record
from edi_storage.state import Json, fallbacks_in
from edi_storage.steps import Step, last_attempt
from edi_storage.store import Store
from edi_storage.variations import chosen_of, variations_of
from flows.words import question_of

if TYPE_CHECKING:
    from flows.engines.photo import PhotoFormat
    from flows.session import SessionRun

log = logging.getLogger("edi")

#: What --output may end in, and the format that it means.
FORMATS: dict[str, PhotoFormat] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
}


def outcome(store: Store, session_id: str, *, restored: Iterable[Step] = ()) -> dict[str, Any]:
    """The result of an edit as plain JSON. Paths can be opened as they stand."""
    history = store.database.load_session(session_id)
    session, state = history.session, history.state
    edited = state.edited_image_path if state else None
    score = state.validation.get("score") if state else None
    document = state.model_dump(mode="json") if state else {}
    return {
        "session_id": session_id,
        "status": session.status,
        "current_stage": state.current_stage if state else "upload",
        "image_path": session.image_path,
        "prompt": session.naive_prompt,
        "edited_image_path": store.files.full_path(edited) if edited else None,
        "delta_image_path": _delta(store, history),
        "output": _delivered(history),
        "alignment_score": session.final_alignment_score if session.final_alignment_score is not None else score,
        "decision": session.decision,
        "attempts": len(history.validations),
        "entities": [_entity(store, entity.model_dump()) for entity in history.entities],
        "intent": history.intent.model_dump(mode="json") if history.intent else None,
        "prompts": [prompt.model_dump(mode="json") for prompt in history.prompts],
        "variations": _variations(store, document),
        "waiting_for": session.waiting_for,
        "question": _question(history),
        "failure_reason": session.failure_reason,
        "parent_session_id": session.parent_session_id,
        "forked_from_stage": session.forked_from_stage,
        "restored_stages": [step.label for step in restored],
        "warnings": _warnings(history),
    }


def _variations(store: Store, state: Json) -> list[Json]:
    """The variations that were made, each with its picture and whether it was taken, perhaps with parts of others."""
    taken = chosen_of(state).get("number")
    return [
        {
            "number": number,
            "words": made["words"],
            "path": store.files.full_path(made["path"]),
            "chosen": number == taken,
        }
        for number, made in enumerate(variations_of(state), 1)
    ]


def _question(history: SessionHistory) -> Json | None:
    question = question_of(history)
    return question.model_dump(mode="json") if question else None


def _delta(store: Store, history: SessionHistory) -> str | None:
    """The picture of what the kept (or else the newest) attempt changed."""
    if history.state is None:
        return None
    kept = str(last_attempt(history.state.model_dump(mode="json")))
    path = history.state.validation.get("attempts", {}).get(kept, {}).get("delta_image_path")
    return store.files.full_path(path) if path else None


def _delivered(history: SessionHistory) -> str | None:
    """The file of --output, once it is written."""
    done = history.session.status == "completed" and history.state and "undelivered" not in history.state.validation
    return history.session.options.get("output") or None if done else None


def _entity(store: Store, entity: Json) -> Json:
    return {**entity, "mask_path": entity["mask_path"] and store.files.full_path(entity["mask_path"])}


def with_full_paths(store: Store, state: Mapping[str, Any]) -> Json:
    """A state document whose paths can be opened as they stand; in the store they are relative to its root."""
    document = dict(state)
    if document.get("edited_image_path"):
        document["edited_image_path"] = store.files.full_path(document["edited_image_path"])
    scene = document.get("scene_analysis", {})
    if "entities" in scene:
        entities = [_entity(store, {"mask_path": None, **entity}) for entity in scene["entities"]]
        document["scene_analysis"] = {**scene, "entities": entities}
    return document


def history_document(store: Store, history: SessionHistory) -> Json:
    """Everything of a session: the seed's state document under `state`, and the rows of each table under its name."""
    state = history.state.model_dump(mode="json", exclude={"last_updated", "checkpoint"}) if history.state else None

    def rows(records: Iterable[Record]) -> list[Json]:
        return [record.model_dump(mode="json") for record in records]

    return {
        "state": with_full_paths(store, state) if state else None,
        "sessions": rows([history.session]),
        "prompts": rows(history.prompts),
        "entities": [_entity(store, entity) for entity in rows(history.entities)],
        "validations": rows(history.validations),
        "user_feedback": rows(history.feedback),
        "intents": rows([history.intent] if history.intent else []),
        "artifacts": [{**row, "path": store.files.full_path(row["path"])} for row in rows(history.artifacts)],
        "stage_commits": rows(history.commits),
    }


def _warnings(history: SessionHistory) -> list[str]:
    """What the person should know although it went well."""
    session, state = history.session, history.state
    warnings = list(state.scene_analysis.get("image", {}).get("notes", [])) if state else []
    warnings += fallbacks_in(state.scene_analysis) if state else []
    warnings += state.validation.get("attempts", {}).get("1", {}).get("notes", []) if state else []
    if state and "undelivered" in state.validation:
        warnings.append(state.validation["undelivered"])
    score = session.final_alignment_score or 0.0
    if session.decision == "needs_review":
        warnings.append(f"The result scored {score:.2f}, which is not sure: look at it and rate it.")
    if session.decision == "best_effort":
        tried = len(history.validations)
        warnings.append(f"None of {tried} attempts reached a score of 0.60; the best one ({score:.2f}) was kept.")
    return warnings


def check_output(session: SessionData) -> None:
    """Raise InputError when the file of --output could not, or should not, be written."""
    output = session.options.get("output")
    if not output:
        return
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{output} does not end in {', '.join(FORMATS)}: EDI cannot tell which format to write.")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{output} cannot be written: name a file in a folder that exists.")
    if _is_original(path, session):
        raise InputError(f"{output} is the photo itself, and EDI never overwrites an original: name another file.")
    if path.exists() and not session.options.get("overwrite"):
        raise InputError(f"{output} exists already: name another file, or add --overwrite.")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass  # gone again at once: it only showed that the folder takes a file of such a name
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror or error}.") from error


def _is_original(path: Path, session: SessionData) -> bool:
    original = Path(session.image_path)
    return path.exists() and original.exists() and path.samefile(original)


def deliver(run: SessionRun, edited_path: str) -> str | None:
    """Write the stored picture to the file of --output, whole or not at all. Returns why not, if it could not."""
    output = run.session.options.get("output")
    if not output:
        return None
    try:
        _write_output(run, Path(output), edited_path)
    except OSError as error:
        reason = f"{output} could not be written: {error.strerror or error}."
        log.warning("%s", reason)
        return reason
    log.info("Wrote %s.", output)
    return None


def _write_output(run: SessionRun, path: Path, edited_path: str) -> None:
    # Imported here: `edi --help` must not wait for the picture libraries.
    from flows.engines.photo import export

    if _is_original(path, run.session):
        raise OSError(errno.EPERM, "it is the photo itself")
    exif = None if _is_stripped(run.session) else run.photo.exif
    data = export(run.store.files.read(edited_path), FORMATS[path.suffix.lower()], exif)
    reach("deliver.before_write")
    LocalFolder(str(path.parent)).write(path.name, data, writer=run.session.session_id)


def given_away(store: Store, history: SessionHistory, format: PhotoFormat) -> bytes:
    """The newest result as a file in this format, as `deliver` would write it; for a session at whose end nobody works.

    The session must have a result. Raises EdiError for pictures that are lost.
    """
    from flows.engines.photo import decode_photo, export

    assert history.state
    photo, edited = history.state.scene_analysis["image"]["path"], history.state.edited_image_path or ""
    exif = None if _is_stripped(history.session) else decode_photo(store.files.read(photo)).exif
    return export(store.files.read(edited), format, exif)


def _is_stripped(session: SessionData) -> bool:
    """What is stored carries no EXIF; a file to give away tells how the photo was taken, unless that is unwanted."""
    return bool(session.options.get("strip"))
