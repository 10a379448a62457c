"""The SQL behind EDIDatabase: functions that run inside a transaction their caller has begun."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)

from edi_storage.errors import (
    DatabaseDamagedError,
    EdiError,
    LeaseHeldError,
    LeaseLostError,
    NotFoundError,
    SessionGoneError,
    StaleBoundaryError,
)
from edi_storage.learning_queries import add_event, take_back_events
from edi_storage.learning_tables import FeedbackEventRow
from edi_storage.models import (
    SCHEMA_VERSION,
    BoundaryStage,
    Lease,
    SessionData,
    StageCommit,
    UserFeedback,
    WaitingFor,
)
from edi_storage.record import now_utc
from edi_storage.rows import TABLES, commit_values, read, read_session, records, row_writes, session_values, upsert
from edi_storage.state import Json, Rows, compact, digest, failed_delta, fold, merge_patch
from edi_storage.statements import Handle, Write, prepared
from edi_storage.tables import FeedbackRow, LeaseRow, SessionRow, StageCommitRow

#: A lease renewed this far in the future was written before the clock was set back.
_CLOCK_TOLERANCE = timedelta(seconds=5)

# --- Statements that are run all the time, made once: to make one takes longer than to run it --------------

_LEASES, _COMMITS, _SESSIONS = (cast(Table, row.__table__) for row in (LeaseRow, StageCommitRow, SessionRow))

_MINE = and_(
    _LEASES.c.session_id == bindparam("of"),
    _LEASES.c.owner == bindparam("by"),
    _LEASES.c.fence == bindparam("with_fence"),
)
_RENEW = update(_LEASES).where(_MINE).values(expires_at=bindparam("expires_at"), renewed_at=bindparam("renewed_at"))
_FREE = update(_LEASES).where(_MINE).values(owner=null())
_FENCE = select(_LEASES.c.fence).where(_LEASES.c.session_id == bindparam("of"))
_LAST_SEQ = select(func.max(_COMMITS.c.seq).label("last")).where(_COMMITS.c.session_id == bindparam("of"))
_INSERT_COMMIT = insert(_COMMITS)
_INSERT_SESSION = insert(_SESSIONS)
_WAITS = (
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("of"))
    .values(waiting_for=bindparam("waits"), updated_at=bindparam("now"))
)
_EXPORTED = (
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("of"), _SESSIONS.c.exported_seq < bindparam("seq"))
    .values(exported_seq=bindparam("seq"))
)
_SESSION = select(_SESSIONS).where(_SESSIONS.c.id == bindparam("of"))
_BOUNDARY = select(_COMMITS).where(_COMMITS.c.session_id == bindparam("of"), _COMMITS.c.seq == bindparam("at"))
_BOUNDARIES = select(_COMMITS).where(_COMMITS.c.session_id == bindparam("of")).order_by(_COMMITS.c.seq)


# --- Reading -----------------------------------------------------------------------------------------


def find_session(connection: Handle, session_id: str) -> SessionData | None:
    found = prepared(_SESSION, ("of",), connection.dialect).rows(connection, {"of": session_id})
    return read_session(found[0]) if found else None


def require_session(connection: Handle, session_id: str) -> SessionData:
    session = find_session(connection, session_id)
    if session is None:
        raise NotFoundError(f"There is no session {session_id!r}: `edi sessions` lists them.")
    return session


def add_session(connection: Handle, session: SessionData) -> None:
    values = session_values(session)
    prepared(_INSERT_SESSION, tuple(values), connection.dialect).run(connection, values)


def wait(connection: Handle, session_id: str, waiting_for: WaitingFor, now: datetime) -> None:
    """Have the session wait for a person."""
    values = {"of": session_id, "waits": waiting_for, "now": now}
    prepared(_WAITS, tuple(values), connection.dialect).run(connection, values)


def mark_exported(connection: Handle, session_id: str, seq: int) -> None:
    """Note that the checkpoint of `seq` is written, unless a later one is."""
    values = {"of": session_id, "seq": seq}
    prepared(_EXPORTED, tuple(values), connection.dialect).run(connection, values)


def commits(connection: Connection, session_id: str) -> list[StageCommit]:
    """The boundaries of a session, in order."""
    found = prepared(_BOUNDARIES, ("of",), connection.dialect).rows(connection, {"of": session_id})
    return [_read_commit(row) for row in found]


def commit_at(connection: Handle, session_id: str, seq: int) -> StageCommit | None:
    """One boundary of a session, if it is there."""
    asked = {"of": session_id, "at": seq}
    found = prepared(_BOUNDARY, tuple(asked), connection.dialect).rows(connection, asked)
    return _read_commit(found[0]) if found else None


def last_seq(connection: Connection, session_id: str) -> int:
    """The number of the last boundary; 0 before the first, and for an unknown session."""
    [found] = prepared(_LAST_SEQ, ("of",), connection.dialect).rows(connection, {"of": session_id})
    return found["last"] or 0


def _read_commit(row: dict[str, Any]) -> StageCommit:
    try:
        row["state_delta"] = json.loads(row["state_delta"])
    except ValueError:
        raise DatabaseDamagedError(_damaged(row["session_id"], row["seq"])) from None
    return StageCommit.model_validate(row)


def folded(stage_commits: list[StageCommit]) -> Json:
    """The state after these boundaries, checked against the digest of the last one."""
    state = fold(commit.state_delta for commit in stage_commits)
    last = stage_commits[-1]
    if digest(state) != last.sha256:
        raise DatabaseDamagedError(_damaged(last.session_id, last.seq))
    return state


def _damaged(session_id: str, seq: int) -> str:
    return (
        f"The stored state of session {session_id} at boundary {seq} does not match its digest: "
        "run `edi doctor --repair`."
    )


# --- Leases ------------------------------------------------------------------------------------------


def held(now: datetime) -> ColumnElement[bool]:
    """Whether a lease is held: it has an owner, runs on, and was not written by a clock that has since gone back."""
    return _held(now, now + _CLOCK_TOLERANCE)


def _held(now: Any, latest: Any) -> ColumnElement[bool]:
    return and_(_LEASES.c.owner.is_not(None), _LEASES.c.expires_at > now, _LEASES.c.renewed_at <= latest)


_HOLDER = select(_LEASES.c.owner, _LEASES.c.expires_at).where(
    _LEASES.c.session_id == bindparam("of"), _held(bindparam("now"), bindparam("latest"))
)


def holder(connection: Handle, session_id: str, now: datetime) -> tuple[str, datetime] | None:
    """Who works on the session now, and until when the lease runs."""
    asked = {"of": session_id, "now": now, "latest": now + _CLOCK_TOLERANCE}
    found = prepared(_HOLDER, tuple(asked), connection.dialect).rows(connection, asked)
    return (found[0]["owner"], found[0]["expires_at"]) if found else None


_OWNED = select(_LEASES.c.session_id, _LEASES.c.owner, _LEASES.c.fence).where(_LEASES.c.owner.is_not(None))
_OWNED_UNFINISHED = _OWNED.join(_SESSIONS, _SESSIONS.c.id == _LEASES.c.session_id).where(
    _SESSIONS.c.status == "in_progress"
)
_OWNED_BY_ID = _OWNED.where(_LEASES.c.session_id == bindparam("of"))


def owned_leases(connection: Connection, session_id: str | None) -> Sequence[Mapping[Any, Any]]:
    """The leases with an owner, run out or not, of all unfinished sessions or of this one."""
    if session_id is None:
        return connection.execute(_OWNED_UNFINISHED).mappings().all()
    return prepared(_OWNED_BY_ID, ("of",), connection.dialect).rows(connection, {"of": session_id})


def refuse_held(connection: Handle, session_id: str, now: datetime) -> None:
    """Raise LeaseHeldError, naming the owner, while somebody works on the session."""
    if held_by := holder(connection, session_id, now):
        owner, until = held_by
        raise LeaseHeldError(
            f"Session {session_id} is being worked on by {owner} "
            f"(lease until {until:%H:%M:%S} UTC): wait for it to finish, or stop it."
        )


def acquire(
    connection: Handle, session_id: str, owner: str, seconds: float, now: datetime, *, force: bool = False
) -> Lease:
    """Take the lease with a fence higher than every one before."""
    if not force:
        refuse_held(connection, session_id, now)
    found = prepared(_FENCE, ("of",), connection.dialect).rows(connection, {"of": session_id})
    fence = found[0]["fence"] + 1 if found else 1
    lease = Lease(session_id=session_id, owner=owner, fence=fence, expires_at=now + timedelta(seconds=seconds))
    upsert(connection.dialect, LeaseRow, [{**lease.model_dump(), "renewed_at": now}], ("session_id",)).run(connection)
    return lease


def renew(connection: Handle, lease: Lease, seconds: float, now: datetime) -> datetime:
    """Prolong the lease until the time returned; the UPDATE must hit the row that still carries its owner and fence."""
    until = now + timedelta(seconds=seconds)
    values = _mine(lease) | {"expires_at": until, "renewed_at": now}
    if not prepared(_RENEW, tuple(values), connection.dialect).run(connection, values):
        raise _lost(connection, lease)
    return until


def take_turn(connection: Handle, lease: Lease, seq: int, moved: Json, seconds: float, now: datetime) -> bool:
    """Move the session on (see `moved`), if boundary `seq` is the one after the last; False, and nothing, otherwise.

    The one UPDATE also sees that the lease carries its owner and fence still, and has half of `seconds` left. Where it
    hits no row, the lease is prolonged first, which raises LeaseLostError for one that is somebody else's.
    """
    if _move_on(connection, lease, seq, moved, seconds, now):
        return True
    renew(connection, lease, seconds, now)
    return _move_on(connection, lease, seq, moved, seconds, now)


def _move_on(connection: Handle, lease: Lease, seq: int, moved: Json, seconds: float, now: datetime) -> bool:
    wanted = {"before": seq - 1, "half": now + timedelta(seconds=seconds / 2), "latest": now + _CLOCK_TOLERANCE}
    values = moved | _mine(lease) | wanted
    return bool(prepared(_moving_on(tuple(moved)), tuple(values), connection.dialect).run(connection, values))


@cache
def _moving_on(names: tuple[str, ...]) -> Update:
    last = select(func.max(_COMMITS.c.seq)).where(_COMMITS.c.session_id == bindparam("of")).scalar_subquery()
    held = exists().where(_MINE, _LEASES.c.expires_at >= bindparam("half"), _LEASES.c.renewed_at <= bindparam("latest"))
    return _move(names).where(func.coalesce(last, literal_column("0")) == bindparam("before"), held)


def _mine(lease: Lease) -> dict[str, Any]:
    return {"of": lease.session_id, "by": lease.owner, "with_fence": lease.fence}


def _lost(connection: Handle, lease: Lease) -> EdiError:
    if find_session(connection, lease.session_id) is None:
        return SessionGoneError(f"Session {lease.session_id} was deleted while it was being worked on.")
    return LeaseLostError(
        f"Session {lease.session_id} was taken over by another process; this one stopped and changed nothing more."
    )


def release(connection: Handle, lease: Lease) -> bool:
    """Give the lease back; False when it was no longer ours."""
    return free(connection, lease.session_id, lease.owner, lease.fence)


def free(connection: Handle, session_id: str, owner: str, fence: int) -> bool:
    """Free the lease if it is still this owner's."""
    whose = {"of": session_id, "by": owner, "with_fence": fence}
    return bool(prepared(_FREE, tuple(whose), connection.dialect).run(connection, whose))


# --- Stage boundaries --------------------------------------------------------------------------------


def commit_write(commit: StageCommit, delta: str, dialect: Dialect) -> Write:
    """What inserts a boundary, `delta` being the JSON of what it changes, whatever stands before it."""
    values = commit_values(commit, delta)
    statement = prepared(_INSERT_COMMIT, tuple(values), dialect)
    return Write(statement, [statement.bind(values)])


def stored_boundary(connection: Handle, commit: StageCommit) -> StageCommit:
    """The boundary that is there already; StaleBoundaryError when it is another one, or this one out of turn."""
    stored = commit_at(connection, commit.session_id, commit.seq)
    if stored and stored.key == commit.key:
        return stored
    raise StaleBoundaryError(
        f"Boundary {commit.seq} ({commit.stage}) of session {commit.session_id} comes out of turn: "
        "the session has moved on; `edi resume` continues from where it stands."
    )


def insert_commit(connection: Connection, commit: StageCommit) -> None:
    """Insert a boundary, whatever stands before it."""
    commit_write(commit, compact(commit.state_delta).text, connection.dialect).run(connection)


def save_rows(connection: Connection, session_id: str, rows: Rows) -> None:
    """Upsert the business rows of a session on their natural keys."""
    for write in row_writes(session_id, rows, connection.dialect):
        write.run(connection)


def replace_rows(connection: Connection, session_id: str, rows: Rows) -> None:
    """Make the business rows of a session exactly these, and what was learned from it likewise.

    The row of the session must be right before: what is learned of a verdict begins with the prompt.
    """
    for table, _ in TABLES.values():
        connection.execute(delete(table).where(table.__table__.c.session_id == session_id))
    save_rows(connection, session_id, rows)
    take_back_events(connection, FeedbackEventRow.session_id == session_id)
    given = [verdict for verdict in rows.feedback if verdict.feedback_key not in rows.shared]
    if given:
        session = require_session(connection, session_id)
        for verdict in given:
            add_event(connection, session, verdict)


def moved(commit: StageCommit, columns: Json) -> Json:
    """What every boundary says of its session: it moved on, so it is neither waiting nor stuck."""
    return {
        "updated_at": commit.finished_at,
        "flow_run_id": commit.flow_run_id,
        "recovery_attempts": 0,
        "waiting_for": None,
        **columns,
    }


def move_to(connection: Connection, commit: StageCommit, columns: Json) -> None:
    """Have the session stand at this boundary, whatever stood there before."""
    values = moved(commit, columns)
    statement = _move(tuple(values))
    values["of"] = commit.session_id
    prepared(statement, tuple(values), connection.dialect).run(connection, values)


@cache
def _move(names: tuple[str, ...]) -> Update:
    return update(_SESSIONS).where(_SESSIONS.c.id == bindparam("of")).values({name: bindparam(name) for name in names})


# --- What is said between stages ---------------------------------------------------------------------


def verdicts_on(connection: Connection, session_ids: list[str]) -> dict[str, UserFeedback]:
    """The newest verdict on each of these sessions that has one."""
    table = FeedbackRow.__table__
    query = select(table).where(table.c.session_id.in_(session_ids)).order_by(table.c.created_at, table.c.id)
    return {row["session_id"]: read(UserFeedback, row) for row in connection.execute(query).mappings()}


def same_verdict(connection: Connection, session_id: str, verdict: UserFeedback) -> bool:
    """Whether exactly this verdict stands already (when it was given aside)."""
    stored = [
        item for item in records(connection, session_id, UserFeedback) if item.feedback_key == verdict.feedback_key
    ]
    return bool(stored) and stored[0].model_dump(exclude={"created_at"}) == verdict.model_dump(exclude={"created_at"})


def append_boundary(connection: Connection, session_id: str, stage: BoundaryStage, delta: Json) -> None:
    """Append a boundary between stages, so that checkpoints carry it; a session without boundaries has no state yet."""
    before = commits(connection, session_id)
    if not before:
        return
    last, now = before[-1], now_utc()
    commit = StageCommit(
        session_id=session_id,
        seq=last.seq + 1,
        stage=stage,
        attempt=last.attempt,
        state_delta=delta,
        sha256=digest(merge_patch(folded(before), delta)),
        engine="edi",
        engine_version=str(SCHEMA_VERSION),
        fence=last.fence,
        started_at=now,
        finished_at=now,
    )
    insert_commit(connection, commit)
    connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(updated_at=now))


def fail(connection: Connection, session_id: str, reason: str, now: datetime) -> None:
    """End a session as failed, in its row and in its state."""
    # A damaged state must not keep a session from ending; then the row alone says so.
    with suppress(DatabaseDamagedError):
        append_boundary(connection, session_id, "failed", failed_delta(reason))
    values = {"status": "failed", "failure_reason": reason, "waiting_for": None, "updated_at": now}
    connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(values))


def end_waiting(connection: Connection, session: SessionData, options: Json) -> None:
    """The session waits no longer; `options` are kept with it for whoever continues it."""
    answered = update(SessionRow).values(options={**session.options, **options}, waiting_for=None)
    connection.execute(answered.where(SessionRow.id == session.session_id))
