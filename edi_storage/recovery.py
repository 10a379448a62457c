"""Keeps database and checkpoints together: writes what a hook missed, and brings sessions back from checkpoints.

Everything here can run again at any time; a session that somebody works on is refused (LeaseHeldError).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from edi_storage.errors import EdiError, InputError
from edi_storage.failpoints import reach
from edi_storage.files import FileMissingError
from edi_storage.models import (
    CheckpointInfo,
    FeedbackType,
    Lease,
    Reason,
    SessionData,
    StageCommit,
    UserFeedback,
)
from edi_storage.owner import is_gone, owner_name
from edi_storage.state import UNSIGNED, Json, Rows, digest, fold, make_patch, merge_patch, rows_of
from edi_storage.steps import feedback_key, last_attempt, next_step, steps_done
from edi_storage.store import Store

_log = logging.getLogger(__name__)

#: Seconds for a lease that is held for a few writes.
_MOMENT = 30
#: A finished session keeps this many of its newest checkpoints.
KEPT_CHECKPOINTS = 3
#: Set while files are being removed, so that a deletion that was interrupted is finished and not undone.
DELETING = "being deleted"
#: Stands in the folder of a fork until its transaction has ended, so that files without a session are known for what
#: they are.
FORKING = "forking"


# --- Ordinary work -----------------------------------------------------------------------------------


def export_checkpoints(store: Store, session_id: str, there: StageCommit | None = None) -> int:
    """Write every checkpoint that is behind the database; returns how many. A finished session keeps the newest 3.

    there: the boundary up to which the caller has written them himself (see `export_boundary`). It does not count once
    another one stands in its place.
    """
    commits = store.database.get_commits(session_id)
    noted = store.database.exported_seq(session_id)
    stands = there is not None and any(_which(commit) == _which(there) for commit in commits)
    exported = max(noted, there.seq if there and stands else 0)
    # A finished session cannot be interrupted any more, so the newest checkpoints are enough.
    finished = any(commit.stage == "completed" for commit in commits)
    wanted = {commit.seq for commit in (commits[-KEPT_CHECKPOINTS:] if finished else commits)}
    state: Json = {}
    written = 0
    for commit in commits:
        state = merge_patch(state, commit.state_delta)
        if commit.seq > exported and commit.seq in wanted:
            reach("export.before_checkpoint")
            store.checkpoints.write_checkpoint(state, checkpoint_info(commit))
            reach("export.after_checkpoint")
            written += 1
    if commits and commits[-1].seq > noted:
        store.database.mark_exported(session_id, commits[-1].seq)
        reach("export.after_mark")
    if finished and len(store.checkpoints.list_checkpoints(session_id)) > KEPT_CHECKPOINTS:
        store.checkpoints.prune(session_id, keep=KEPT_CHECKPOINTS)
    return written


def _which(commit: StageCommit) -> tuple[int, str, datetime]:
    """What tells a boundary from any other, also of a session that was deleted and begun anew under the same name."""
    return commit.seq, commit.sha256, commit.finished_at


def export_boundary(store: Store, state: Json, commit: StageCommit) -> None:
    """Write the checkpoint of one boundary, whose state this is, and no more: `export_checkpoints` notes it later.

    For who has just committed it and has written the ones before. Nothing is written once the boundary is gone again:
    the session was deleted, or sent back, while this process slept.
    """
    if store.database.last_seq(commit.session_id) < commit.seq:
        return
    reach("export.before_checkpoint")
    store.checkpoints.write_checkpoint(state, checkpoint_info(commit))
    reach("export.after_checkpoint")


def export_the_end(store: Store, session_id: str) -> None:
    """Write what a session has not that was killed right after its last commit: its checkpoint, its live state file."""
    if store.database.exported_seq(session_id) < store.database.last_seq(session_id):
        export_checkpoints(store, session_id)
        write_state_file(store, session_id)


def export_again(store: Store, session_id: str) -> None:
    """Write the checkpoints that a session should have, and its live state file, whatever was recorded as written."""
    store.database.forget_export(session_id)
    export_checkpoints(store, session_id)
    write_state_file(store, session_id)


def write_state_file(store: Store, session_id: str) -> None:
    """Write the live state file from the database."""
    commits = store.database.get_commits(session_id)
    if commits:
        state = fold(commit.state_delta for commit in commits)
        # Who takes the lease in this moment removes our half-written file, and writes its own.
        with suppress(FileMissingError):
            store.checkpoints.save_session_state(session_id, with_checkpoint(state, commits[-1]))


def with_checkpoint(state: Json, commit: StageCommit) -> Json:
    """The state document with the `checkpoint` object of the boundary it stands at."""
    return {**state, "checkpoint": checkpoint_info(commit).model_dump(mode="json")}


def checkpoint_info(commit: StageCommit) -> CheckpointInfo:
    return CheckpointInfo(
        seq=commit.seq, stage=commit.stage, sha256=commit.sha256, schema_version=commit.schema_version
    )


def give_verdict(
    store: Store,
    session_id: str,
    verdict: FeedbackType,
    *,
    rating: int | None = None,
    comment: str = "",
    reasons: Sequence[Reason] = (),
) -> UserFeedback:
    """Store a person's verdict on the attempt that was kept (or waits for review); a new one replaces the old one.

    Checkpoint and state file are brought up to it. Raises NotFoundError, LeaseHeldError, and InputError while there is
    no result to judge.
    """
    store.database.free_leases(is_gone, session_id)
    state = fold(commit.state_delta for commit in store.database.get_commits(session_id))
    if state and not rows_of(state).validations:
        raise InputError(f"Session {session_id} has no result yet that could be rated: `edi show {session_id}`.")
    feedback = {
        "feedback_type": verdict,
        "rating": rating,
        "comments": comment or None,
        "reasons": list(reasons),
        "feedback_key": feedback_key(last_attempt(state)),
    }
    saved = store.database.save_feedback(session_id, feedback)
    try:
        export_checkpoints(store, session_id)
        write_state_file(store, session_id)
    except EdiError as error:
        # The verdict is stored; the copy is written by the next boundary or by doctor.
        _log.warning("The checkpoint of session %s could not be written: %s", session_id, error)
    return saved


def end_session(store: Store, lease: Lease, reason: str) -> None:
    """End a session as failed, in the database and in its checkpoints. Raises LeaseLostError."""
    store.database.fail_session(lease, reason)
    export_checkpoints(store, lease.session_id)
    write_state_file(store, lease.session_id)


def reopen(store: Store, session_id: str) -> None:
    """Let a failed session be resumed: a person asked for it. Raises InputError, NotFoundError, LeaseHeldError."""
    session = store.database.require_session(session_id)
    if session.failure_reason == DELETING:
        raise InputError(f"Session {session_id} was being deleted: `edi delete {session_id}` finishes that.")
    if session.status == "failed":
        lease = store.database.acquire(session_id, owner_name(), _MOMENT)
        store.database.reopen_session(lease)
        store.database.release(lease)


def delete_session(store: Store, session_id: str) -> None:
    """Delete a session with its checkpoints and pictures. Raises NotFoundError, LeaseHeldError.

    The row goes last: were it first, checkpoints left behind by a kill would bring the session back.
    """
    store.database.free_leases(is_gone, session_id)
    lease = store.database.acquire(session_id, owner_name(), _MOMENT)
    store.database.mark_deleting(lease, DELETING)
    store.checkpoints.delete_session(session_id)
    store.files.remove_tree(session_id)
    store.database.delete_session(session_id, lease)


def collect_garbage(store: Store, session_id: str) -> int:
    """Remove files of a session that nothing refers to, under its lease; returns how many. Raises LeaseHeldError."""
    lease = store.database.acquire(session_id, owner_name(), _MOMENT)
    try:
        strays = stray_files(store, session_id) + store.checkpoints.temp_live_files().get(session_id, [])
        store.files.remove(*strays)
    finally:
        store.database.release(lease)
    return len(strays)


def stray_files(store: Store, session_id: str) -> list[str]:
    """Files of a session that nothing refers to: of a stage that was killed before its commit, or unfinished writes."""
    commits = store.database.get_commits(session_id)
    known = {artifact.path for artifact in rows_of(fold(commit.state_delta for commit in commits)).files}
    strays = [path for path in store.files.list(f"{session_id}/files") if path not in known]
    marker = f"{session_id}/{FORKING}"
    left = [marker] if store.files.exists(marker) else []
    return [path for path in strays if not _is_set_aside(path)] + left + store.files.temp_files(session_id)


def _is_set_aside(path: str) -> bool:
    return ".set-aside-" in path


# --- Bringing sessions back --------------------------------------------------------------------------


def import_checkpoints(store: Store, session_id: str) -> int:
    """Bring the boundaries that only checkpoints know into the database; returns how many.

    Where the checkpoints do not continue what is stored without a gap, the first of them takes the place of all of it:
    it holds the whole state.
    """
    stored = store.database.get_commits(session_id)
    known = stored[-1].seq if stored else 0
    later = [found for found in own_checkpoints(store, session_id) if found["checkpoint"]["seq"] > known]
    if not later:
        return 0
    follows = later[0]["checkpoint"]["seq"] == known + 1
    state = fold(commit.state_delta for commit in stored) if follows else {}
    new: list[StageCommit] = []
    for document in later:
        after = signed(document)
        new.append(_commit_from(document, make_patch(state, after)))
        state = after
    store.database.import_session(_session_from(state), new, _rows_at(state), after=known if follows else 0)
    return len(new)


def _rows_at(state: Json) -> Rows:
    """The rows of a session that stands at this state, with the person it waits for."""
    rows, following = rows_of(state), next_step(state)
    if isinstance(following, str) and rows.session.get("status") != "failed":
        rows.session["waiting_for"] = following
    return rows


def own_checkpoints(store: Store, session_id: str) -> list[Json]:
    """The valid checkpoints that are of this very session, not of an earlier one that had the same id."""
    return own_among(store.checkpoints.valid_checkpoints(session_id), store.database.get_session(session_id))


def own_among(documents: list[Json], session: SessionData | None) -> list[Json]:
    """Those of some checkpoints that are of this session; of any edit while the database knows none of their id."""
    return [document for document in documents if _is_of(session, document)]


def refuse_lost(store: Store, session_id: str) -> None:
    """A session that only checkpoints know must come back before its id is used again, or the two would mix."""
    if store.database.get_session(session_id) is not None or not own_checkpoints(store, session_id):
        return
    # Asked again: another process may have made it meanwhile, and its row is there before its first checkpoint.
    if store.database.get_session(session_id) is None:
        raise InputError(
            f"There are checkpoints of session {session_id}, but the database does not know it: "
            "`edi doctor --repair` brings it back; or choose another id."
        )


def _is_of(session: SessionData | None, document: Json) -> bool:
    if not steps_done(document):
        return False  # not written by an edit: somebody used the library to keep a state of their own
    found = _session_from(document)
    same = ("created_at", "image_path", "naive_prompt")
    return session is None or all(found[name] == session[name] for name in same)


def restore_or_rewind(store: Store, session_id: str) -> None:
    """Cut a session whose stored state is damaged back to its last whole boundary, then add what checkpoints have.

    What neither has is done again by the next resume.
    """
    whole = store.database.whole_commits(session_id)
    store.database.rewind(session_id, whole[-1].seq if whole else 0, rows_of(fold(c.state_delta for c in whole)))
    import_checkpoints(store, session_id)
    export_again(store, session_id)


def restore_unreadable(store: Store, session_id: str) -> None:
    """Write a session that cannot be read anew, from its whole boundaries and its checkpoints.

    What was there is kept in the table `quarantine`. A session that has neither exists only there from then on.
    """
    whole = store.database.whole_commits(session_id)
    state = fold(commit.state_delta for commit in whole)
    session = _session_from(state) if whole else None
    store.database.rebuild_session(session_id, session, whole, _rows_at(state))
    import_checkpoints(store, session_id)
    export_again(store, session_id)


def rewind(store: Store, session_id: str, kept: list[StageCommit]) -> None:
    """Go back to the last of these boundaries; the next resume goes on from there. Raises LeaseHeldError.

    The checkpoints of what is undone are set aside first, so that they cannot bring it back.
    """
    last = kept[-1].seq if kept else 0
    for file in store.checkpoints.list_checkpoints(session_id):
        if file.seq > last:
            store.checkpoints.set_aside(file.path)
    state = fold(commit.state_delta for commit in kept)
    store.database.rewind(session_id, last, rows_of(state))
    export_again(store, session_id)


def signed(document: Mapping[str, Any]) -> Json:
    """The part of a state document that its digest covers."""
    return {key: value for key, value in document.items() if key not in UNSIGNED and value is not None}


def _commit_from(document: Json, delta: Json) -> StageCommit:
    info, state = CheckpointInfo.model_validate(document["checkpoint"]), signed(document)
    step = steps_done(state)[-1]
    written = datetime.fromisoformat(document["last_updated"])
    return StageCommit(
        session_id=document["session_id"],
        seq=info.seq,
        stage=info.stage,
        attempt=step.attempt,
        iteration=step.iteration,
        state_delta=delta,
        sha256=digest(state),
        engine="checkpoint",
        engine_version=str(info.format),
        fence=1,
        started_at=written,
        finished_at=written,
    )


def _session_from(state: Json) -> SessionData:
    scene = state["scene_analysis"]
    return SessionData(
        session_id=state["session_id"],
        created_at=datetime.fromisoformat(scene["created_at"]),
        image_path=state["image_path"],
        naive_prompt=state["naive_prompt"],
        options=scene.get("options", {}),
        consent=scene.get("options", {}).get("consent", "local"),
    )
