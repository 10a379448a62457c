"""The part of EDIDatabase that is about who works on a session: leases, interruptions, waiting for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, select, update

from edi_storage import queries
from edi_storage.connection import again_if_lost, again_if_undone, reading, writing, writing_prepared
from edi_storage.errors import InputError
from edi_storage.failpoints import reach
from edi_storage.models import GAVE_UP, Lease, SessionData, WaitingFor
from edi_storage.rows import read_session
from edi_storage.state import Json
from edi_storage.steps import answer_step
from edi_storage.tables import LeaseRow, SessionRow, StageCommitRow

Plain = Mapping[str, Any]


class LeaseDatabase:
    """The methods of EDIDatabase about leases; made by EDIDatabase only."""

    engine: Engine
    clock: Callable[[], datetime]

    # --- Taking, keeping and giving back -------------------------------------------------------------

    @again_if_undone
    def begin_session(self, session: SessionData | Plain, owner: str, seconds: float) -> Lease:
        """Make the session unless it is there, and take its lease: one transaction.

        Raises InputError when a session of this id is about another picture or prompt, LeaseHeldError when
        somebody else works on it.
        """
        new = SessionData.checked(session)
        with writing_prepared(self.engine, new.session_id, boundary=False) as connection:
            old = queries.find_session(connection, new.session_id)
            if old is None:
                queries.add_session(connection, new)
            elif (old.image_path, old.naive_prompt) != (new.image_path, new.naive_prompt):
                raise InputError(
                    f"Session {new.session_id} is already about {old.image_path} and {old.naive_prompt!r}: "
                    f"choose another id, or run `edi resume {new.session_id}`."
                )
            return queries.acquire(connection, new.session_id, owner, seconds, self.clock())

    @again_if_undone
    def acquire(self, session_id: str, owner: str, seconds: float) -> Lease:
        """Take the lease of a session that nobody holds. Raises NotFoundError, LeaseHeldError."""
        with writing_prepared(self.engine, session_id, boundary=False) as connection:
            queries.require_session(connection, session_id)
            return queries.acquire(connection, session_id, owner, seconds, self.clock())

    @again_if_undone
    def take_over(self, session_id: str, owner: str, seconds: float) -> Lease:
        """Take the lease even from a living owner: its next write finds the fence raised and stops."""
        with writing(self.engine, session_id) as connection:
            queries.require_session(connection, session_id)
            return queries.acquire(connection, session_id, owner, seconds, self.clock(), force=True)

    @again_if_lost
    def renew(self, lease: Lease, seconds: float) -> Lease:
        """Prolong a lease. Raises LeaseLostError when another process has taken the session over."""
        with writing_prepared(self.engine, lease.session_id, boundary=False) as connection:
            reach("lease.before_renew")
            until = queries.renew(connection, lease, seconds, self.clock())
        return lease.model_copy(update={"expires_at": until})

    @again_if_lost
    def release(self, lease: Lease, waiting_for: WaitingFor | None = None) -> None:
        """Give the session back, perhaps to wait for a person. A lease lost meanwhile is no error.

        Without `waiting_for`, what the session waits for stays as it is: only a commit or an answer ends the waiting.
        """
        with writing_prepared(self.engine, lease.session_id, boundary=False) as connection:
            reach("lease.before_release")
            if queries.release(connection, lease) and waiting_for:
                queries.wait(connection, lease.session_id, waiting_for, self.clock())

    @again_if_undone
    def release_flow_run(self, session_id: str, flow_run_id: str) -> bool:
        """Free the lease that a flow run still holds although its process is gone; True when there was one."""
        with writing(self.engine, session_id) as connection:
            mine = and_(LeaseRow.session_id == session_id, LeaseRow.owner.endswith(f":{flow_run_id}", autoescape=True))
            return bool(connection.execute(update(LeaseRow).where(mine).values(owner=None)).rowcount)

    def free_leases(self, is_gone: Callable[[str], bool], session_id: str | None = None) -> int:
        """Free the leases whose owner `is_gone`, of all unfinished sessions or of this one; returns how many."""
        with reading(self.engine) as connection:
            owned = queries.owned_leases(connection, session_id)
        dead = [row for row in owned if is_gone(row["owner"])]
        if not dead:
            return 0
        with writing(self.engine) as connection:
            return sum(queries.free(connection, row["session_id"], row["owner"], row["fence"]) for row in dead)

    @again_if_undone
    def lease_of(self, session_id: str) -> tuple[str, datetime] | None:
        """Who works on the session now, and until when the lease runs; None when nobody does."""
        with reading(self.engine) as connection:
            return queries.holder(connection, session_id, self.clock())

    # --- What was interrupted ------------------------------------------------------------------------

    @again_if_undone
    def count_recovery(self, session_id: str, max_attempts: int) -> bool:
        """Count one resume of an interrupted session; False, and the session is failed, when there were too many.

        The count starts again at every committed stage, so only a session that never gets further is given up.
        Raises NotFoundError, LeaseHeldError.
        """
        with writing(self.engine, session_id) as connection:
            session = queries.require_session(connection, session_id)
            queries.refuse_held(connection, session_id, self.clock())
            allowed = session.recovery_attempts < max_attempts
            if allowed:
                counted = update(SessionRow).values(recovery_attempts=session.recovery_attempts + 1)
                connection.execute(counted.where(SessionRow.id == session_id))
            else:
                reason = f"{GAVE_UP} {session.recovery_attempts} resumes that got no further"
                queries.fail(connection, session_id, reason, self.clock())
        return allowed

    def forgive_recovery(self, session_id: str) -> None:
        """Take one counted resume back: what stopped it was not the session."""
        with writing(self.engine, session_id) as connection:
            counted = and_(SessionRow.id == session_id, SessionRow.recovery_attempts > 0)
            fewer = update(SessionRow).values(recovery_attempts=SessionRow.recovery_attempts - 1)
            connection.execute(fewer.where(counted))

    def interrupted_sessions(self, limit: int = 100) -> list[SessionData]:
        """Unfinished sessions that were started, that nobody works on and that wait for nobody; oldest first."""
        return self._unfinished(SessionRow.waiting_for.is_(None), limit)

    def waiting_sessions(self, limit: int = 100) -> list[SessionData]:
        """Sessions that wait for a person and that nobody works on, oldest first."""
        return self._unfinished(SessionRow.waiting_for.is_not(None), limit)

    def unfinished_sessions(self, limit: int = 100) -> list[tuple[SessionData, Lease | None]]:
        """Sessions that were started and have not ended, oldest first, each with its lease while that is held."""
        is_held = queries.held(self.clock())
        lease = [LeaseRow.owner, LeaseRow.fence, LeaseRow.expires_at, is_held.label("is_held")]
        query = (
            select(SessionRow.__table__, *lease)
            .join(LeaseRow, LeaseRow.session_id == SessionRow.id)
            .where(SessionRow.status == "in_progress")
            .order_by(SessionRow.created_at, SessionRow.id)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            rows = connection.execute(query).mappings().all()
        sessions = [read_session(row) for row in rows]
        leases = [
            Lease(session_id=row["id"], owner=row["owner"], fence=row["fence"], expires_at=row["expires_at"])
            if row["is_held"]
            else None
            for row in rows
        ]
        return list(zip(sessions, leases, strict=True))

    def _unfinished(self, which: ColumnElement[bool], limit: int) -> list[SessionData]:
        query = (
            select(SessionRow.__table__)
            .join(LeaseRow, LeaseRow.session_id == SessionRow.id)
            .where(SessionRow.status == "in_progress", which, ~queries.held(self.clock()))
            .order_by(SessionRow.created_at, SessionRow.id)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return [read_session(row) for row in connection.execute(query).mappings()]

    def last_flow_run(self, session_id: str) -> str | None:
        """The flow run that finished the newest stage of a session; None when none has."""
        newest = (
            select(StageCommitRow.flow_run_id)
            .where(StageCommitRow.session_id == session_id, StageCommitRow.flow_run_id.is_not(None))
            .order_by(StageCommitRow.seq.desc())
            .limit(1)
        )
        with reading(self.engine) as connection:
            found: str | None = connection.scalar(newest)
            return found

    # --- What waits for a person ---------------------------------------------------------------------

    def save_answer(self, session_id: str, *answer: int) -> None:
        """Keep a person's answer, the numbers of choices, for whoever continues the session. Raises NotFoundError."""
        self._save_said(session_id, {"answer": answer[0] if len(answer) == 1 else list(answer)})

    def save_choice(self, session_id: str, choice: str) -> None:
        """Keep which variation a person chose ("2", "1, sky from 3"), as `save_answer` does. Raises NotFoundError."""
        self._save_said(session_id, {"choice": choice})

    def _save_said(self, session_id: str, options: Json) -> None:
        with writing(self.engine, session_id) as connection:
            queries.end_waiting(connection, queries.require_session(connection, session_id), options)

    def give_up_waiting(self, seen: SessionData) -> bool:
        """Nobody answered: whoever continues the session takes the likeliest choice, or ends it unreviewed.

        False, and nothing is done, when it is not as `seen` any more. Raises NotFoundError, LeaseHeldError.
        """
        with writing(self.engine, seen.session_id) as connection:
            queries.refuse_held(connection, seen.session_id, self.clock())
            session = queries.require_session(connection, seen.session_id)
            if (session.waiting_for, session.updated_at) != (seen.waiting_for, seen.updated_at):
                return False
            instead: Json = {"unreviewed": True}
            if seen.waiting_for == "question":
                state = queries.folded(queries.commits(connection, seen.session_id))
                # The first choice is the likeliest; of variations, the one that measures best.
                instead = {"unchosen": True} if answer_step(state).stage == "edit" else {"answer": 1}
            queries.end_waiting(connection, session, instead)
        return True
