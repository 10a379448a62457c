"""State documents of sessions as JSON files: the live state, and immutable checkpoints at stage boundaries.

    <root>/<session>.json                                          the live state, saved again and again
    <root>/<session>/checkpoints/<seq>-<stage>-<sha12>.json        one checkpoint, never changed
    <root>/<session>/files/<sha256>.<suffix>                       masks and pictures (see `FileStore.put`)

A checkpoint carries the digest of its state, in it and in its name, so that a damaged one is found out and the
one before it used. The live state is a convenience; the database, and failing that the checkpoints, are the truth.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, get_args

from pydantic_core import to_json

from edi_storage.autosave import Autosaver, without_progress
from edi_storage.errors import CheckpointDamagedError, CheckpointError, CheckpointTooNewError, InputError
from edi_storage.files import FileMissingError, FileStore, NotAFileError, checked_session_id
from edi_storage.models import SCHEMA_VERSION, BoundaryStage, CheckpointInfo, SessionState
from edi_storage.record import check_session_id, now_utc
from edi_storage.state import MAX_STATE_BYTES, Json, digest, parse_state

_log = logging.getLogger(__name__)

#: The layout of a checkpoint file; `schema_version` is that of the state in it.
FORMAT = 1

#: The step that turns a state document of version n into one of version n + 1, by n.
UPCASTS: Mapping[int, Callable[[Json], Json]] = {}

_NAME = re.compile(rf"(\d{{6,12}})-({'|'.join(get_args(BoundaryStage))})-([0-9a-f]{{12}})\.json")


@dataclass(frozen=True, order=True)
class CheckpointFile:
    """A checkpoint by its name; `path` is relative to the storage root. Sorts oldest first."""

    seq: int
    path: str
    session_id: str
    stage: str
    sha12: str


@dataclass(frozen=True)
class CheckpointFinding:
    """A checkpoint that cannot be used. `reason` goes on after the path: "is damaged: ..."."""

    path: str
    reason: str
    #: Written by a newer EDI: to be left alone, not set aside.
    too_new: bool


class SessionStateManager:
    """Keeps the state documents of sessions in a folder, or below any URL that `FileStore` takes.

    States go in and come out as plain dicts (or `SessionState`) and are validated both ways: InputError for
    what cannot be kept, CheckpointDamagedError and CheckpointTooNewError for what cannot be read. Only the holder of a
    session's lease writes its files; within one process that may be several threads.
    """

    def __init__(
        self,
        session_dir: str | os.PathLike[str] = "sessions",
        *,
        allowed_schemes: Collection[str] = (),
        store: FileStore | None = None,
        clock: Callable[[], datetime] = now_utc,
        upcasts: Mapping[int, Callable[[Json], Json]] = UPCASTS,
    ) -> None:
        self.store = store or FileStore(session_dir, allowed_schemes=allowed_schemes, clock=clock)
        self._clock = clock
        self._upcasts = upcasts
        self._lock = threading.RLock()

    # --- The live state ---

    def save_session_state(self, session_id: str, state: Mapping[str, Any] | SessionState) -> str:
        """Replace the live state, whole; returns the file's path (or URL).

        `last_updated` is set. A damaged file in its place is set aside; one from a newer version raises
        CheckpointTooNewError and is left alone.
        """
        path = self.live_path(session_id)
        data = _encode(_document(self._stamped(_of_session(session_id, _plain(state)))))
        with self._lock:
            self._make_room(path, session_id)
            self.store.write_whole(path, data)
        return self.store.full_path(path)

    def load_session_state(self, session_id: str) -> Json | None:
        """The live state with exactly the seed's keys, `last_updated`, and `checkpoint` if it has one; or None."""
        path = self.live_path(session_id)
        state = self._read(path, session_id)
        return None if state is None else _document(state)

    def update_session_state(self, session_id: str, updates: Mapping[str, Any]) -> str:
        """Replace some top-level fields of the live state; the first update of a session must make it whole."""
        with self._lock:
            state = self.load_session_state(session_id) or {}
            return self.save_session_state(session_id, {**state, **updates})

    def auto_save_state(self, session_id: str, state: Mapping[str, Any], interval_seconds: float = 5) -> Autosaver:
        """Save now, and go on saving what changes in `state` every `interval_seconds` until `stop` is called.

        Changes may be made in `state` itself or through the returned saver, which is already running.
        """
        saver = Autosaver(
            lambda changed: self.save_session_state(session_id, changed), state, interval=interval_seconds, watch=state
        )
        self.save_session_state(session_id, state)
        return saver.start()

    def live_path(self, session_id: str) -> str:
        """The path of the live state file, relative to the root."""
        return f"{checked_session_id(session_id)}.json"

    # --- Checkpoints ---

    def write_checkpoint(self, state: Mapping[str, Any] | SessionState, info: CheckpointInfo) -> str:
        """Write the checkpoint of a stage boundary; returns its path (or URL). Again is a no-op.

        Progress of a running stage is left out. `info.sha256` must be `digest(state)`, else CheckpointError. A
        damaged file of the same name is set aside and written again.
        """
        valid = SessionState.checked(without_progress(_plain(state)))
        document = _document(valid if valid.last_updated else self._stamped(valid))
        document["checkpoint"] = info.model_dump(mode="json")
        if digest(document) != info.sha256:
            raise CheckpointError(f"Checkpoint {info.seq} does not fit its state: the digest is another one.")
        if (info.format, info.schema_version) != (FORMAT, SCHEMA_VERSION):
            raise CheckpointError(f"Checkpoint {info.seq} is not of the version that this EDI writes.")
        file = _checkpoint_file(document["session_id"], info)
        if not self._is_there(file):
            # Whoever was faster wrote the same state.
            self.store.write_new(file.path, _encode(document))
        return self.store.full_path(file.path)

    def read_checkpoint(self, file: CheckpointFile) -> SessionState:
        """One checkpoint, verified. Raises CheckpointDamagedError, CheckpointTooNewError."""
        state = self._read(file.path, file.session_id, file)
        if state is None:
            raise CheckpointDamagedError(f"{file.path} is gone.")
        return state

    def latest_checkpoint(self, session_id: str, *, skip_newer: bool = False) -> SessionState | None:
        """The newest valid checkpoint, or None. Damaged ones are passed over with a warning.

        Raises CheckpointTooNewError when a newer version of EDI wrote a later one, unless `skip_newer`.
        """
        for _, files in groupby(reversed(self.list_checkpoints(session_id)), key=lambda file: file.seq):
            if valid := self._valid(files, skip_newer=skip_newer):
                return valid
        return None

    def valid_checkpoints(self, session_id: str) -> list[Json]:
        """All valid checkpoints as plain documents, oldest first, one for each seq; others are passed over."""
        groups = groupby(self.list_checkpoints(session_id), key=lambda file: file.seq)
        return [_document(valid) for _, files in groups if (valid := self._valid(files, skip_newer=True))]

    def list_checkpoints(self, session_id: str) -> list[CheckpointFile]:
        """The checkpoints of a session by their names, oldest first, unverified."""
        folder = _checkpoint_folder(session_id)
        names = ((name, _NAME.fullmatch(name)) for name, is_folder in self.store.entries(folder) if not is_folder)
        files = (
            CheckpointFile(int(match[1]), f"{folder}/{name}", session_id, match[2], match[3])
            for name, match in names
            if match
        )
        return sorted(files)

    def checkpoint_findings(self, session_id: str) -> list[CheckpointFinding]:
        """Which checkpoints of a session cannot be used, and why. Reads all of them, changes nothing."""
        return self.survey(session_id)[1]

    def survey(self, session_id: str) -> tuple[list[Json], list[CheckpointFinding]]:
        """What `valid_checkpoints` and `checkpoint_findings` say, without a warning, each file being read once."""
        valid: dict[int, SessionState] = {}
        findings: list[CheckpointFinding] = []
        for file in self.list_checkpoints(session_id):
            seen = self._looked_at(file)
            if isinstance(seen, CheckpointFinding):
                findings.append(seen)
            else:
                # As in `_valid`: of several, the later way.
                valid[file.seq] = max(valid.get(file.seq, seen), seen, key=_age)
        return [_document(state) for state in valid.values()], findings

    def prune(self, session_id: str, keep: int = 3) -> list[str]:
        """Remove all valid checkpoints but the newest `keep`; returns the paths removed.

        Damaged ones and those of a newer EDI neither count nor go.
        """
        if keep < 1:
            raise InputError("At least one checkpoint must be kept.")
        valid = [
            file
            for file in self.list_checkpoints(session_id)
            if not isinstance(self._looked_at(file), CheckpointFinding)
        ]
        removed = [file.path for file in valid[:-keep]]
        self.store.remove(*removed)
        return removed

    # --- Whole sessions ---

    def each_session_id(self) -> Iterator[str]:
        """All sessions that have a live state or a checkpoint, each once, in no order."""
        for entry in self.store.entries():
            name = entry.name if entry.is_folder else entry.name.removesuffix(".json")
            if not _is_id(name) or (not entry.is_folder and name == entry.name):
                continue
            if not entry.is_folder or (not self.store.exists(self.live_path(name)) and self.list_checkpoints(name)):
                yield name

    def session_ids(self) -> list[str]:
        """All sessions that have a live state or a checkpoint, sorted."""
        return sorted(self.each_session_id())

    def delete_session(self, session_id: str) -> None:
        """Remove everything of a session: state, checkpoints, files, and what was set aside. Again is a no-op."""
        live = self.live_path(session_id)
        names = (entry.name for entry in self.store.entries() if not entry.is_folder)
        aside = [name for name in names if name.startswith(f"{live}.set-aside-")]
        self.store.remove_tree(session_id)
        self.store.remove(live, *aside, *self.temp_files(session_id))

    def set_aside(self, path: str) -> str:
        """Rename a damaged file, given by a finding's path, to a dated name beside it; returns the new path."""
        return self.store.set_aside(path)

    def remove_temp_live_files(self, session_id: str) -> None:
        """Remove a session's live states that killed processes left half-written. Under its lease, before any write."""
        # Object stores have none, and a look at all names takes long there.
        if self.store.is_local:
            self.store.remove(*self.temp_live_files().get(session_id, []))

    def temp_files(self, session_id: str) -> list[str]:
        """What unfinished writes of a session left behind. Remove them under its lease only."""
        checked_session_id(session_id)
        return self.temp_live_files().get(session_id, []) + self.store.temp_files(session_id)

    def temp_live_files(self) -> dict[str, list[str]]:
        """What unfinished writes of live states left behind, by session. This looks at the names of all sessions."""
        found: dict[str, list[str]] = {}
        for name in self.store.temp_files(below=False):
            found.setdefault(name[1:].partition(".json.")[0], []).append(name)
        return found

    # --- Reading and writing ---

    def _stamped(self, state: SessionState) -> SessionState:
        return state.model_copy(update={"last_updated": self._clock()})

    def _read(self, path: str, session_id: str, file: CheckpointFile | None = None) -> SessionState | None:
        """A state document, checked as far as it can be; None when there is none."""
        try:
            document = parse_state(self.store.read(path, MAX_STATE_BYTES))
            info = _versions(document)
            if info and (info.format > FORMAT or info.schema_version > SCHEMA_VERSION):
                raise CheckpointTooNewError(f"{path} was written by a newer version of EDI: upgrade EDI to read it.")
            if file:
                _verify(document, info, file)
            return _of_session(session_id, self._upcast(document, info))
        except FileMissingError:
            return None
        except (InputError, NotAFileError) as error:
            raise CheckpointDamagedError(f"{path} is damaged: {error}") from error

    def _upcast(self, document: Json, info: CheckpointInfo | None) -> Json:
        """The document brought to the present schema version, one step at a time."""
        if info is None or info.schema_version == SCHEMA_VERSION:
            return document
        for version in range(info.schema_version, SCHEMA_VERSION):
            if version not in self._upcasts:
                raise InputError(f"Nothing can read schema version {version}.")
            document = self._upcasts[version](document)
        now = {"schema_version": SCHEMA_VERSION, "sha256": digest(document)}
        return {**document, "checkpoint": {**document["checkpoint"], **now}}

    def _make_room(self, path: str, session_id: str) -> None:
        """Before a live state is replaced: keep what cannot be read, and leave alone what is newer than we are."""
        try:
            self._read(path, session_id)
        except CheckpointDamagedError as error:
            _log.warning("%s It is kept as %s.", error, self.set_aside(path))

    def _is_there(self, file: CheckpointFile) -> bool:
        try:
            return self._read(file.path, file.session_id, file) is not None
        except CheckpointDamagedError as error:
            _log.warning("%s It is kept as %s.", error, self.set_aside(file.path))
            return False

    def _valid(self, files: Iterable[CheckpointFile], *, skip_newer: bool) -> SessionState | None:
        """The valid one of some checkpoints of the same seq."""
        found: list[SessionState] = []
        for file in files:
            try:
                found.append(self.read_checkpoint(file))
            except CheckpointDamagedError as error:
                _log.warning("%s", error)
            except CheckpointTooNewError as error:
                if not skip_newer:
                    raise
                _log.warning("%s", error)
        # More than one: the session was rewound and went another way from there; the later way counts.
        return max(found, key=_age, default=None)

    def _looked_at(self, file: CheckpointFile) -> SessionState | CheckpointFinding:
        try:
            return self.read_checkpoint(file)
        except (CheckpointDamagedError, CheckpointTooNewError) as error:
            reason = str(error).removeprefix(file.path).lstrip()
            return CheckpointFinding(file.path, reason, isinstance(error, CheckpointTooNewError))


def _plain(state: Mapping[str, Any] | SessionState) -> Json:
    if isinstance(state, SessionState):
        return _document(state)
    if not isinstance(state, Mapping):
        raise InputError(f"A session state must be a mapping of its fields, not a {type(state).__name__}.")
    return dict(state)


def _document(state: SessionState) -> Json:
    """The state as a plain dict in the seed's order of keys; `checkpoint` only where there is one."""
    document = state.model_dump(mode="json")
    if document["checkpoint"] is None:
        del document["checkpoint"]
    return document


def _of_session(session_id: str, fields: Mapping[str, Any]) -> SessionState:
    state = SessionState.checked({"session_id": session_id, **fields})
    if state.session_id != session_id:
        raise InputError(f"The state is that of session {state.session_id}, not of {session_id}.")
    return state


def _encode(document: Json) -> bytes:
    data = to_json(document, indent=2) + b"\n"
    if len(data) > MAX_STATE_BYTES:
        raise InputError(f"The state is larger than {MAX_STATE_BYTES:,} bytes.")
    return data


def _versions(document: Json) -> CheckpointInfo | None:
    """The `checkpoint` object; of a newer version's only the numbers that say that it is newer."""
    found = document.get("checkpoint")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise InputError("Its checkpoint field is no object.")
    numbers = {key: found[key] for key in ("format", "schema_version") if type(found.get(key)) is int}
    if numbers.get("format", 0) > FORMAT or numbers.get("schema_version", 0) > SCHEMA_VERSION:
        return CheckpointInfo.model_construct(**{"format": FORMAT, "schema_version": SCHEMA_VERSION, **numbers})
    return CheckpointInfo.checked(found)


def _verify(document: Json, info: CheckpointInfo | None, file: CheckpointFile) -> None:
    """That a checkpoint is what its name says and holds what its digest says."""
    if info is None:
        raise InputError("It has no checkpoint field.")
    if (info.seq, info.stage, info.sha256[:12]) != (file.seq, file.stage, file.sha12):
        raise InputError("Its checkpoint field does not fit its name.")
    if digest(document) != info.sha256:
        raise InputError("Its contents do not have the digest they had when written.")


def _age(state: SessionState) -> datetime:
    return state.last_updated or datetime.min.replace(tzinfo=UTC)


def _checkpoint_folder(session_id: str) -> str:
    return f"{checked_session_id(session_id)}/checkpoints"


def _checkpoint_file(session_id: str, info: CheckpointInfo) -> CheckpointFile:
    sha12 = info.sha256[:12]
    path = f"{_checkpoint_folder(session_id)}/{info.seq:06d}-{info.stage}-{sha12}.json"
    return CheckpointFile(info.seq, path, session_id, info.stage, sha12)


def _is_id(name: str) -> bool:
    try:
        return bool(check_session_id(name))
    except ValueError:
        return False
