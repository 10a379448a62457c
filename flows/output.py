"""What a person or a script gets of a session: the document of `--json`, and the file of `--output`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edi_storage.errors import InputError
from edi_storage.failpoints import reach
from edi_storage.files import FileStore
from edi_storage.models import Record, SessionHistory
from edi_storage.state import Json, Step
from edi_storage.store import Store

if TYPE_CHECKING:
    from flows.session import SessionRun

log = logging.getLogger("edi")


def outcome(store: Store, session_id: str, *, restored: Iterable[Step] = ()) -> dict[str, Any]:
    """The result of an edit as plain JSON. Paths can be opened as they stand."""
    history = store.database.load_session(session_id)
    session, state = history.session, history.state
    edited = state.edited_image_path if state else None
    score = state.validation.get("score") if state else None
    return {
        "session_id": session_id,
        "status": session.status,
        "current_stage": state.current_stage if state else "upload",
        "image_path": session.image_path,
        "prompt": session.naive_prompt,
        "edited_image_path": store.files.full_path(edited) if edited else None,
        "output": session.options.get("output") or None,
        "alignment_score": session.final_alignment_score if session.final_alignment_score is not None else score,
        "decision": session.decision,
        "attempts": len(history.validations),
        "entities": [_entity(store, entity.model_dump()) for entity in history.entities],
        "intent": history.intent.model_dump(mode="json") if history.intent else None,
        "prompts": [prompt.model_dump(mode="json") for prompt in history.prompts],
        "waiting_for": session.waiting_for,
        "failure_reason": session.failure_reason,
        "restored_stages": [step.label for step in restored],
        "warnings": _warnings(history),
    }


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
    score = session.final_alignment_score or 0.0
    if session.decision == "needs_review":
        warnings.append(f"The result scored {score:.2f}, which is not sure: look at it and rate it.")
    if session.decision == "best_effort":
        tried = len(history.validations)
        warnings.append(f"None of {tried} attempts reached a score of 0.60; the best one ({score:.2f}) was kept.")
    return warnings


def check_output(output: str, image_path: str, *, overwrite: bool = False) -> str:
    """The absolute path to write to. Raises InputError for what could not, or should not, be written."""
    # Imported here: `edi --help` must not wait for the picture libraries.
    from flows.engines.photo import SUFFIXES

    path = Path(output).expanduser().absolute()
    known = [*SUFFIXES.values(), ".jpeg"]
    if path.suffix.lower() not in known:
        raise InputError(f"{output} does not end in {', '.join(known)}: EDI cannot tell which format to write.")
    if path.exists() and path.samefile(image_path):
        raise InputError(f"{output} is the photo itself, and EDI never overwrites an original: name another file.")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"{output} cannot be written: {path.parent if not path.is_dir() else path} is not a place for a file."
        )
    if path.exists() and not overwrite:
        raise InputError(f"{output} exists already: name another file, or add --overwrite.")
    return str(path)


def deliver(run: SessionRun, edited_path: str) -> None:
    """Write the stored picture to the file that was asked for, if any; whole or not at all."""
    output = run.session.options.get("output")
    if not output:
        return
    from flows.engines.photo import SUFFIXES, decode_photo, encode

    path = Path(output)
    data = run.store.files.read(edited_path)
    suffix = ".jpg" if path.suffix.lower() == ".jpeg" else path.suffix.lower()
    if suffix != ".png":
        photo = decode_photo(data)
        kind = next(kind for kind, known in SUFFIXES.items() if known == suffix)
        data = encode(photo.pixels, photo.alpha, photo.icc_profile, kind)
    reach("deliver.before_write")
    FileStore(str(path.parent)).write_whole(path.name, data)
    log.info("Wrote %s.", path)
