"""`edi doctor`: compares database, checkpoints and files, and puts right what can be.

Damaged data is set aside under a dated name, never deleted; a session that somebody works on is left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from edi_storage.backup import leftovers
from edi_storage.connection import set_database_aside, sqlite_file
from edi_storage.errors import CheckpointError, CheckpointTooNewError, DatabaseDamagedError, EdiError
from edi_storage.forking import remove_unmade, unmade_forks
from edi_storage.models import Artifact, SessionData, SessionHistory, StageCommit
from edi_storage.owner import is_gone
from edi_storage.record import Record
from edi_storage.recovery import (
    DELETING,
    collect_garbage,
    delete_session,
    export_again,
    import_checkpoints,
    own_among,
    restore_or_rewind,
    restore_unreadable,
    rewind,
    stray_files,
    write_state_file,
)
from edi_storage.settings import Settings
from edi_storage.state import Json, canonical, fold, rows_of
from edi_storage.steps import steps_done
from edi_storage.store import Store, open_store

#: Makes a lost picture of a session again and stores it; raises EdiError when that cannot be done.
Remake = Callable[[Store, str, Artifact], object]


class Finding(Record):
    """One thing that is not as it should be; `fix` says what `--repair` does about it."""

    kind: str
    session_id: str | None = None
    message: str
    fix: str
    repaired: bool = False


@dataclass(frozen=True)
class Problem:
    """A finding with the repair that goes with it; None where a person has to act."""

    finding: Finding
    repair: Callable[[], object] | None


def doctor(
    settings: Settings,
    *,
    repair: bool = False,
    remake: Remake | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> list[Finding]:
    """Check everything, and put right what can be when `repair` is set. Damaged data is set aside, never deleted.

    `remake` makes a lost picture again; `progress` is called with the id of each session before it is checked.
    """
    found = _check_database(settings, repair)
    if found is not None and not found.repaired:
        return [found]
    findings = [found] if found else []
    findings += _check_leftovers(settings, repair)
    with open_store(settings) as store:
        findings += _check_orphan_rows(store, repair)
        findings += _check_unmade_forks(store, repair)
        # Looked for once: it means a look at every name in the folder.
        temps = store.checkpoints.temp_live_files()
        for session_id in _each_session_id(store):
            progress(session_id)
            findings += _examine(store, session_id, remake, repair, temps.get(session_id, ()))
    return findings


def _examine(store: Store, session_id: str, remake: Remake | None, repair: bool, temps: Sequence[str]) -> list[Finding]:
    """The findings of one session. Each repair is followed by another look: it may cause, or mend, what comes next."""
    repaired: list[Finding] = []
    while True:
        problems = _problems(store, session_id, remake, temps)
        tried = {finding.message for finding in repaired}
        following = next((p for p in problems if p.repair and p.finding.message not in tried), None)
        if not repair or following is None:
            left = [problem.finding for problem in problems]
            unrepaired = {finding.message: finding for finding in left}
            return [f for f in repaired if f.repaired or f.message in unrepaired] + [
                finding for finding in left if finding.message not in tried
            ]
        repaired.append(_handled(following))


def _problems(store: Store, session_id: str, remake: Remake | None, temps: Sequence[str]) -> list[Problem]:
    """What is wrong with a session; that it cannot be read is a problem too, not the end of the examination."""
    try:
        return list(verify_session(store, session_id, remake, temps))
    except DatabaseDamagedError as error:
        what = f"has rows that cannot be read: {str(error).split(': run ')[0]}"
        fix = "keep them in the table quarantine, and write them again from its boundaries and checkpoints, if any"
        return [_problem("unreadable", session_id, what, fix, lambda: restore_unreadable(store, session_id))]
    except (EdiError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"cannot be read: {error or type(error).__name__}"
        return [_problem("unreadable", session_id, what, "nothing; look at it, or delete it", None)]


def _handled(problem: Problem) -> Finding:
    assert problem.repair is not None
    try:
        problem.repair()
    except EdiError as error:
        return problem.finding.model_copy(update={"fix": f"could not be repaired: {error}"})
    return problem.finding.model_copy(update={"repaired": True})


def _check_database(settings: Settings, repair: bool) -> Finding | None:
    """A damaged database is set aside; the sessions then come back from their checkpoints like any unknown one."""
    try:
        with open_store(settings) as store:
            store.database.check()
            return None
    except DatabaseDamagedError as error:
        path = sqlite_file(settings.database_url)
        fix = "set it aside and rebuild it from the checkpoints" if path else "nothing; it is its administrator's"
        finding = Finding(kind="database", message=str(error).split(": run ")[0], fix=fix)
    if not repair or path is None:
        return finding
    aside = set_database_aside(path)
    return finding.model_copy(update={"repaired": True, "fix": f"set aside as {aside.name}, rebuilt from checkpoints"})


def _check_leftovers(settings: Settings, repair: bool) -> list[Finding]:
    """Copies of the database that a killed process did not finish."""
    path = sqlite_file(settings.database_url)
    folders = [path.parent, path.parent / "backups"] if path else []
    left = [unfinished for folder in folders if folder.is_dir() for unfinished in leftovers(folder)]
    if repair:
        for unfinished in left:
            unfinished.unlink(missing_ok=True)
    what = "was not finished by a process that is gone"
    return [
        Finding(kind="orphan", message=f"{unfinished} {what}", fix="remove it", repaired=repair) for unfinished in left
    ]


def _check_orphan_rows(store: Store, repair: bool) -> list[Finding]:
    """Rows of no session: EDI cannot make them, but a tool that does not check foreign keys can."""
    counts = store.database.orphans()
    if repair and counts:
        store.database.set_orphans_aside()
    fix = "keep them in the table quarantine"
    return [
        Finding(
            kind="rows", message=f"rows of {name} that belong to no session: {counts[name]}", fix=fix, repaired=repair
        )
        for name in counts
    ]


def _check_unmade_forks(store: Store, repair: bool) -> list[Finding]:
    """Files of forks that were killed before their transaction; their parents have the same bytes."""
    left = unmade_forks(store)
    if repair:
        for session_id in left:
            remove_unmade(store, session_id)
    what = "holds files for a fork that was never made"
    return [
        Finding(kind="orphan", message=f"{store.files.full_path(name)} {what}", fix="remove them", repaired=repair)
        for name in left
    ]


def _each_session_id(store: Store) -> Iterator[str]:
    """The sessions of the database, then those of which there are only files; never all of them in memory."""
    page = store.database.session_ids()
    while page:
        yield from page
        page = store.database.session_ids(after=page[-1])
    lost: list[str] = []
    names = store.checkpoints.each_session_id()
    while some := list(islice(names, 500)):
        lost += set(some) - store.database.known_among(some)
    yield from sorted(lost)


# --- One session -------------------------------------------------------------------------------------


def verify_session(
    store: Store, session_id: str, remake: Remake | None = None, temps: Sequence[str] = ()
) -> Iterator[Problem]:
    """What is wrong with one session, the causes before what follows from them. `temps`: left-overs of its live state.

    A session that somebody works on is passed over: it is in order again when they are done.
    """
    if _is_worked_on(store, session_id):
        return
    session = store.database.get_session(session_id)
    if session is not None and session.failure_reason == DELETING:
        fix = "finish the deletion"
        yield _problem("deletion", session_id, "was being deleted", fix, lambda: delete_session(store, session_id))
        return
    last = store.database.last_seq(session_id)
    state_problem = _verify_state(store, session_id, last)
    if state_problem is not None:
        yield state_problem
        return
    yield from _verify_checkpoints(store, session_id, session, last)
    if session is None:
        return
    history = store.database.load_session(session_id)
    if not history.commits:
        return
    state = fold(commit.state_delta for commit in history.commits)
    yield from _verify_rows(store, history, state)
    yield from _verify_files(store, history, state, remake, temps)
    yield from _verify_state_file(store, session_id, history.commits[-1])


def _is_worked_on(store: Store, session_id: str) -> bool:
    """Whether somebody alive holds the session's lease; that of a process which is gone is freed."""
    store.database.free_leases(is_gone, session_id)
    return store.database.lease_of(session_id) is not None


def _problem(kind: str, session_id: str, what: str, fix: str, repair: Callable[[], object] | None) -> Problem:
    return Problem(Finding(kind=kind, session_id=session_id, message=f"session {session_id} {what}", fix=fix), repair)


def _verify_state(store: Store, session_id: str, last: int) -> Problem | None:
    """Every boundary, up to the `last`, must have the digest it was committed with."""
    whole = store.database.whole_commits(session_id)
    whole_seq = whole[-1].seq if whole else 0
    if last == whole_seq:
        return None
    what = f"has a damaged state after boundary {whole_seq} of {last}"
    fix = "go back to the last whole boundary, or to what the checkpoints have"
    return _problem("state", session_id, what, fix, lambda: restore_or_rewind(store, session_id))


def _verify_checkpoints(store: Store, session_id: str, session: SessionData | None, known: int) -> Iterator[Problem]:
    """Checkpoints that cannot be read, boundaries only a checkpoint knows, and checkpoints that were never written.

    `session` is the database's, and `known` its last boundary.
    """
    valid, findings = store.checkpoints.survey(session_id)
    for finding in findings:
        what, fix = (
            f"has a file {finding.path} that {finding.reason}",
            "set it aside and write it again from the database",
        )
        rewrite = partial(_rewrite, store, session_id, finding.path)
        yield _problem("checkpoint", session_id, what, fix, None if finding.too_new else rewrite)
    own = own_among(valid, session)
    newest = own[-1]["checkpoint"]["seq"] if own else 0
    if foreign := _foreign_checkpoints(store, session_id, valid, own):
        what = f"has checkpoints of an earlier session of the same id: {', '.join(foreign)}"
        yield _problem("foreign", session_id, what, "set them aside", lambda: _set_aside(store, foreign))
    if newest > known:
        what = f"has checkpoints up to boundary {newest}, but the database knows only {known}"
        fix = "bring it back from the checkpoints"
        yield _problem("missing", session_id, what, fix, lambda: _bring_back(store, session_id))
    elif newest < known:
        what = f"stands at boundary {known}, but its newest checkpoint is {newest or 'missing'}"
        fix = "write it from the database"
        yield _problem("checkpoint", session_id, what, fix, lambda: export_again(store, session_id))


def _foreign_checkpoints(store: Store, session_id: str, valid: Sequence[Json], own: Sequence[Json]) -> list[str]:
    """Valid checkpoints of another edit; states that were kept through the library are none of ours to judge."""
    mine = {document["checkpoint"]["sha256"] for document in own}
    others = [document for document in valid if document["checkpoint"]["sha256"] not in mine]
    strange = {document["checkpoint"]["sha256"][:12] for document in others if steps_done(document)}
    if not strange:
        return []
    return [file.path for file in store.checkpoints.list_checkpoints(session_id) if file.sha12 in strange]


def _set_aside(store: Store, paths: Sequence[str]) -> None:
    for path in paths:
        store.checkpoints.set_aside(path)


def _rewrite(store: Store, session_id: str, path: str) -> None:
    store.checkpoints.set_aside(path)
    export_again(store, session_id)


def _bring_back(store: Store, session_id: str) -> None:
    import_checkpoints(store, session_id)
    export_again(store, session_id)


def _verify_rows(store: Store, history: SessionHistory, state: Json) -> Iterator[Problem]:
    """The rows must be those that the state stands for."""
    expected = rows_of(state)
    pairs: list[tuple[str, Sequence[Record], Sequence[Record]]] = [
        ("entities", expected.entities, history.entities),
        ("intents", [expected.intent] if expected.intent else [], [history.intent] if history.intent else []),
        ("prompts", expected.prompts, history.prompts),
        ("validations", expected.validations, history.validations),
        ("user_feedback", expected.feedback, history.feedback),
        ("artifacts", expected.files, history.artifacts),
        ("decisions", expected.decisions, store.database.get_decisions(history.session.session_id)),
    ]
    session_id = history.session.session_id
    wrong = [table for table, should, are in pairs if not _same(should, are)]
    wrong += ["sessions"] * any(history.session[name] != value for name, value in expected.session.items())
    if wrong:
        what, fix = f"has rows that differ from its state: {', '.join(wrong)}", "write them again from the state"
        yield _problem("rows", session_id, what, fix, lambda: store.database.rewrite_rows(session_id, expected))


def _same(should: Sequence[Record], are: Sequence[Record]) -> bool:
    # As canonical JSON: the order of keys says nothing.
    return sorted(map(_text, should)) == sorted(map(_text, are))


def _text(record: Record) -> str:
    return canonical(record.model_dump(mode="json"))


def _verify_files(
    store: Store, history: SessionHistory, state: Json, remake: Remake | None, temps: Sequence[str]
) -> Iterator[Problem]:
    """Every file that the session references is whole, and there are no others."""
    session_id = history.session.session_id
    for artifact in rows_of(state).files:
        if fault := _file_fault(store, artifact):
            what = f"misses a picture: {artifact.kind} {artifact.name} ({artifact.path}) {fault}"
            if artifact.kind == "original":
                yield _problem("file", session_id, what, "put the file back from a copy of yours", None)
            else:
                mend = partial(_mend, store, history, artifact, remake)
                yield _problem("file", session_id, what, "make it again, or the stages from the one that made it", mend)
    if strays := stray_files(store, session_id) + [path for path in temps if store.files.exists(path)]:
        what, fix = f"has left-over files that nothing refers to: {', '.join(strays)}", "remove them"
        yield _problem("orphan", session_id, what, fix, partial(collect_garbage, store, session_id))


def _file_fault(store: Store, artifact: Artifact) -> str | None:
    try:
        data = store.files.read(artifact.path)
    except EdiError:
        return "is missing"
    return None if hashlib.sha256(data).hexdigest() == artifact.sha256 else "is damaged"


def _mend(store: Store, history: SessionHistory, artifact: Artifact, remake: Remake | None) -> None:
    """Make a lost picture again, or let an unfinished session do its stages again from there.

    A finished session is never sent back: what a person said of its result would be lost with it.
    """
    if store.files.exists(artifact.path):
        store.files.set_aside(artifact.path)
    session_id = history.session.session_id
    if remake is not None:
        with suppress(EdiError):
            remake(store, session_id, artifact)
    if _file_fault(store, artifact) is None:
        return
    if history.session.status != "in_progress" or history.feedback:
        raise CheckpointError("it could not be made again exactly as it was")
    made = [c.seq for c in history.commits if any(a.path == artifact.path for a in rows_of(c.state_delta).files)]
    rewind(store, session_id, [commit for commit in history.commits if commit.seq < min(made)])


def _verify_state_file(store: Store, session_id: str, last: StageCommit) -> Iterator[Problem]:
    """The live state file stands at the last boundary."""
    try:
        live = store.checkpoints.load_session_state(session_id) or {}
        fault = None if live.get("checkpoint", {}).get("sha256") == last.sha256 else "is behind the database"
    except CheckpointTooNewError as error:
        yield _problem("state_file", session_id, f"has a state file that cannot be read: {error}", "upgrade EDI", None)
        return
    except CheckpointError:
        fault = "is damaged"
    if fault:
        fix = "write it from the database; a damaged one is set aside"
        repair = partial(write_state_file, store, session_id)
        yield _problem("state_file", session_id, f"has a state file that {fault}", fix, repair)
