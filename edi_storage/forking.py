"""Forks: a new session that shares everything before one stage of another, and goes its own way from there.

What is shared is copied: the boundaries with their rows, and the files as second names of the same bytes. So neither
session needs the other, and either can be deleted. The fork is made by one transaction; before it there are only files,
with a marker beside them by which `edi doctor` knows them should the transaction never come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edi_storage import queries
from edi_storage.errors import EdiError, InputError
from edi_storage.failpoints import reach
from edi_storage.files import FileMissingError
from edi_storage.models import SessionData, StageCommit
from edi_storage.recovery import DELETING, FORKING, export_checkpoints, refuse_lost, write_state_file
from edi_storage.state import Json, Rows, digest, fold, merge_patch, rows_of, upload_delta
from edi_storage.steps import Step, answer_step, next_step, step_of
from edi_storage.store import Store

#: What is said between stages of how the session fared; a fork has failed at nothing.
_FATES = ("failed", "reopened")
_LABEL = re.compile(r"(?:attempt (\d+) ?:? ?)?(.+)")


@dataclass(frozen=True)
class Wanted:
    """What a fork is to be. `stage` is a label such as "refine 2" or "attempt 2: edit"; "refinement" is "refine 0".

    `prompt` "" and `strength` None: as in the parent. `output`: file to write the result to, "" for none.
    """

    stage: str
    session_id: str
    prompt: str = ""
    strength: float | None = None
    output: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class Fork:
    """A fork as it will be: its row, its boundaries, the rows they stand for, and the files of the parent it shares."""

    session: SessionData
    commits: Sequence[StageCommit]
    rows: Rows
    files: Sequence[str]


# --- What it will be ---------------------------------------------------------------------------------


def plan_fork(store: Store, parent: SessionData, wanted: Wanted) -> Fork:
    """Work out a fork; nothing is written. The parent may be at work: its boundaries do not change any more.

    Raises InputError for a stage that the parent has not reached, and for a change that comes too late at that stage,
    and for an id that is another session's.
    """
    if parent.failure_reason == DELETING:
        raise InputError(f"Session {parent.session_id} was being deleted: it cannot be forked.")
    commits = store.database.get_commits(parent.session_id)
    step, shared = _before(parent.session_id, commits, wanted.stage)
    _refuse_late(wanted, step)
    state = queries.folded(shared)
    session = _session(store, parent, wanted, step, state)
    files = [artifact.path for artifact in rows_of(state).files]
    deltas = list(_deltas(shared, session, {path: _moved_path(path, session) for path in files}, wanted.strength))
    after = fold(deltas)
    following = next_step(after)
    if isinstance(following, str):
        session = session.model_copy(update={"waiting_for": following})
    kept = [commit for commit in shared if commit.stage not in _FATES]
    _refuse_taken(store, session)
    rows = rows_of(after)
    own: Json = {name: rows.session[name] for name in ("consent", "profile_version") if name in rows.session}
    return Fork(session.model_copy(update=own), _commits(kept, deltas, session), rows, files)


def stages_of(commits: Sequence[StageCommit]) -> dict[Step, list[StageCommit]]:
    """Where a session can be forked: the stages it has come to, each with the boundaries before it."""
    reached = {step: list(commits[:number]) for number, commit in enumerate(commits) if (step := step_of(commit))}
    state = fold(commit.state_delta for commit in commits)
    following = next_step(state) if commits else None
    following = answer_step(state) if following == "question" else following
    if isinstance(following, Step):
        reached[following] = list(commits)
    # Before the first boundary there is nothing to share, and the end is no stage that could come out otherwise. Of a
    # session that came back from its last checkpoint only, the first boundary may be that it failed.
    shareable = bool(commits) and step_of(commits[0]) is not None
    return {step: before for step, before in reached.items() if before and shareable and step.stage != "completed"}


def _before(session_id: str, commits: Sequence[StageCommit], stage: str) -> tuple[Step, list[StageCommit]]:
    stages = stages_of(commits)
    label = _label(stage)
    for step, before in stages.items():
        if step.label == label:
            return step, before
    if label == "upload":
        raise InputError("A fork from upload would share nothing: `edi edit` begins a new session.")
    if not stages:
        raise InputError(f"Session {session_id} cannot be forked: it has finished no stage that is known.")
    has = ", ".join(step.label for step in stages)
    raise InputError(f"Session {session_id} cannot be forked from {_shown(stage)}: it has {has}.")


def _label(stage: str) -> str:
    """The label that a person means: blanks and case do not count, and "refinement" begins with "refine 0"."""
    found = _LABEL.fullmatch(" ".join(stage.lower().split()))
    if found is None:
        return ""
    name = "refine 0" if found[2] in ("refinement", "refine") else found[2]
    return name if found[1] in (None, "1") else f"attempt {found[1]}: {name}"


def _shown(stage: str) -> str:
    return repr(stage if len(stage) <= 40 else f"{stage[:40]}...")


def _refuse_late(wanted: Wanted, step: Step) -> None:
    """A change must come before the stages that it changes."""
    if wanted.prompt and step not in (Step("analysis"), Step("intent")):
        raise InputError(f"Another prompt changes the intent: fork from intent or analysis, not from {step.label}.")
    if wanted.strength is None:
        return
    if not 0 < wanted.strength <= 1:
        raise InputError(f"The strength is {wanted.strength:g}: give a number above 0 and up to 1.")
    if step.stage in ("edit", "validation") or (step.stage == "refinement" and step.iteration > 0):
        raise InputError(f"Another strength changes the prompts: fork from refinement or before, not {step.label}.")


def _session(store: Store, parent: SessionData, wanted: Wanted, step: Step, state: Json) -> SessionData:
    # Those of the state: the row may also hold answers that were given later.
    options = dict(state["scene_analysis"].get("options", {}))
    # The parent's file is the parent's.
    options |= {"output": wanted.output, "overwrite": wanted.overwrite}
    if wanted.strength is not None:
        options["strength"] = wanted.strength
    now = store.database.clock()
    return SessionData.checked(
        {
            "session_id": wanted.session_id,
            "created_at": now,
            "updated_at": now,
            "image_path": parent.image_path,
            "naive_prompt": wanted.prompt or parent.naive_prompt,
            "options": options,
            "parent_session_id": parent.session_id,
            "forked_from_stage": step.label,
        }
    )


def _moved_path(path: str, session: SessionData) -> str:
    return f"{session.session_id}/files/{path.rpartition('/')[2]}"


def _deltas(
    shared: Sequence[StageCommit], session: SessionData, moved: Mapping[str, str], strength: float | None
) -> list[Json]:
    """What the shared boundaries change in the fork: the same, but for whose they are and where the files stand."""
    deltas = [_replaced(commit.state_delta, moved) for commit in shared if commit.stage not in _FATES]
    first = deltas[0]
    scene = first["scene_analysis"]
    own = upload_delta(session, scene["image"])
    deltas[0] = {
        **first,
        **own,
        "current_stage": first["current_stage"],
        "scene_analysis": {**scene, **own["scene_analysis"]},
    }
    return deltas if strength is None else [_with_strength(delta, strength) for delta in deltas]


def _replaced(value: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return moved.get(value, value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, moved) for key, item in value.items()}
    return [_replaced(item, moved) for item in value] if isinstance(value, list) else value


def _with_strength(delta: Json, strength: float) -> Json:
    """A shared intent is as strong as the fork wants it; what it means stays. See `flows.engines.steps`."""
    intent = delta.get("intent")
    if not intent:
        return delta
    changed = merge_patch(intent, {"strength": strength})
    steps = (changed.get("parameters") or {}).get("steps")
    if steps:
        changed["parameters"] = {**changed["parameters"], "steps": [{**step, "strength": strength} for step in steps]}
    return {**delta, "intent": {**intent, **changed}}


def _commits(kept: Sequence[StageCommit], deltas: Sequence[Json], session: SessionData) -> list[StageCommit]:
    """The boundaries in the fork. Fence 0: nobody who held the fork's lease ran them."""
    state: Json = {}
    commits = []
    for seq, (commit, delta) in enumerate(zip(kept, deltas, strict=True), 1):
        state = merge_patch(state, delta)
        own = {"session_id": session.session_id, "seq": seq, "fence": 0, "flow_run_id": None}
        commits.append(commit.model_copy(update={**own, "state_delta": delta, "sha256": digest(state)}))
    return commits


# --- Making it ---------------------------------------------------------------------------------------


def make_fork(store: Store, fork: Fork, *, later: bool = False) -> SessionData:
    """Make the fork, unless it is there: made twice it is one. Returns its session.

    later: it waits until somebody names it; else it counts as interrupted, and whatever resumes sessions runs it.
    Raises InputError when its id is another session's, StorageError when a picture of the parent is lost.
    """
    session_id = fork.session.session_id
    known = store.database.get_session(session_id)
    if known is None:
        _share_files(store, fork)
        known = store.database.add_fork(
            fork.session, fork.commits, fork.rows, later=later, check=lambda: _check_files(store, fork)
        )
        store.files.remove(f"{session_id}/{FORKING}")
    _refuse_another(known, fork.session)
    reach("fork.before_export")
    if export_checkpoints(store, session_id):
        write_state_file(store, session_id)
    return known


def _share_files(store: Store, fork: Fork) -> None:
    session_id, parent = fork.session.session_id, fork.session.parent_session_id
    reach("fork.before_files")
    store.files.write_whole(f"{session_id}/{FORKING}", f"{parent}\n".encode())
    for path in fork.files:
        try:
            store.files.share(path, session_id)
        except FileMissingError as error:
            raise EdiError(
                f"Session {parent} cannot be forked, as a picture of it is lost ({path}): run `edi doctor --repair`."
            ) from error
        reach("fork.after_share")
    reach("fork.after_files")


def _check_files(store: Store, fork: Fork) -> None:
    """Under the lock under which doctor would remove them: they must be there when the boundaries are."""
    if not all(store.files.exists(_moved_path(path, fork.session)) for path in fork.files):
        raise EdiError(f"The files of the fork {fork.session.session_id} were removed meanwhile: try again.")


def _refuse_taken(store: Store, asked: SessionData) -> None:
    refuse_lost(store, asked.session_id)
    known = store.database.get_session(asked.session_id)
    if known is not None:
        _refuse_another(known, asked)


def _refuse_another(known: SessionData, asked: SessionData) -> None:
    same = ("parent_session_id", "forked_from_stage", "image_path", "naive_prompt")
    # A later answer stands among the options too.
    options = all(known.options.get(name) == value for name, value in asked.options.items())
    if not options or any(known[name] != asked[name] for name in same):
        raise InputError(
            f"Session {known.session_id} is there already, and is not this fork of {asked.parent_session_id}: "
            "choose another id."
        )


# --- What a killed fork left -------------------------------------------------------------------------


def unmade_forks(store: Store) -> list[str]:
    """Ids of forks whose files were laid down, and whose transaction never came."""
    folders = (entry.name for entry in store.files.entries() if entry.is_folder)
    marked = sorted(name for name in folders if store.files.exists(f"{name}/{FORKING}"))
    if not marked:
        return []
    lost = set(store.checkpoints.session_ids())
    return [name for name in marked if name not in lost and store.database.get_session(name) is None]


def remove_unmade(store: Store, session_id: str) -> None:
    """Remove the files of a fork that was not made, unless it is made by now."""
    store.database.unless_known(session_id, lambda: store.files.remove_tree(session_id))
