"""The part of EDIDatabase that examines and mends: what recovery, a rebuild and `edi doctor` need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Engine, and_, delete, insert, update

from edi_storage import migrations, queries, salvage
from edi_storage.connection import reading, writing
from edi_storage.errors import DatabaseDamagedError
from edi_storage.learning_queries import take_back_events
from edi_storage.learning_tables import FeedbackEventRow
from edi_storage.models import SessionData, StageCommit
from edi_storage.state import Rows
from edi_storage.tables import LeaseRow, SessionRow, StageCommitRow


class RepairDatabase:
    """The methods of EDIDatabase about damage; made by EDIDatabase only."""

    engine: Engine
    clock: Callable[[], datetime]
    url: str

    # --- Looking ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check every page, index and table definition of a SQLite file. Raises DatabaseDamagedError."""
        if self.engine.dialect.name != "sqlite":
            return
        expected = migrations.expected_schema()
        with reading(self.engine) as connection:
            verdict = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
            found = migrations.schema(connection)
        # One flipped letter there is a column of another name, or a rule that good rows break.
        differing = [name for name, text in expected.items() if found.get(name) != text]
        if verdict == "ok" and differing:
            verdict = f"the definition of {differing[0]} is not the one that EDI makes"
        if verdict != "ok":
            raise DatabaseDamagedError(f"The database {self.url} is damaged ({verdict}): run `edi doctor --repair`.")

    def whole_commits(self, session_id: str) -> list[StageCommit]:
        """The boundaries up to the first damaged one: gapless, and each with the digest it was committed with."""
        with reading(self.engine) as connection:
            return salvage.whole_commits(connection, session_id)

    def orphans(self) -> dict[str, int]:
        """How many rows of each table belong to a session that is not there."""
        with reading(self.engine) as connection:
            return salvage.orphans(connection)

    # --- Mending ---------------------------------------------------------------------------------------

    def set_orphans_aside(self) -> None:
        """Move rows that belong to no session to the table `quarantine`."""
        with writing(self.engine) as connection:
            salvage.set_orphans_aside(connection)

    def rewrite_rows(self, session_id: str, rows: Rows) -> None:
        """Make a session's rows those that its state stands for. Raises NotFoundError, LeaseHeldError."""
        with writing(self.engine, session_id) as connection:
            queries.require_session(connection, session_id)
            queries.refuse_held(connection, session_id, self.clock())
            if rows.session:
                connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(rows.session))
            queries.replace_rows(connection, session_id, rows)

    def rewind(self, session_id: str, seq: int, rows: Rows) -> None:
        """Undo the boundaries after `seq`; `rows` are those that the state at `seq` stands for.

        The session is in progress again and can be resumed, unless it had failed. Raises NotFoundError, LeaseHeldError.
        """
        with writing(self.engine, session_id) as connection:
            session = queries.require_session(connection, session_id)
            lease = queries.acquire(connection, session_id, "rewind", 0, self.clock())
            queries.release(connection, lease)
            later = and_(StageCommitRow.session_id == session_id, StageCommitRow.seq > seq)
            connection.execute(delete(StageCommitRow).where(later))
            # What failed, or was cancelled by a person, must not come back to life.
            status = "failed" if session.status == "failed" else "in_progress"
            values = {"status": status, "final_alignment_score": None, "decision": None, "exported_seq": seq}
            values |= {"waiting_for": None, **rows.session}
            connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(values))
            queries.replace_rows(connection, session_id, rows)

    def import_session(
        self, session: SessionData, stage_commits: Sequence[StageCommit], rows: Rows, *, after: int
    ) -> None:
        """Put boundaries from checkpoints in the place of all after seq `after`; `rows` are those of their last state.

        The session becomes resumable: its lease is there, and free. Raises LeaseHeldError.
        """
        with writing(self.engine, session.session_id) as connection:
            if queries.find_session(connection, session.session_id) is None:
                queries.add_session(connection, session)
            lease = queries.acquire(connection, session.session_id, "rebuild", 0, self.clock())
            queries.release(connection, lease)
            later = and_(StageCommitRow.session_id == session.session_id, StageCommitRow.seq > after)
            connection.execute(delete(StageCommitRow).where(later))
            for commit in stage_commits:
                queries.insert_commit(connection, commit)
            queries.move_to(connection, stage_commits[-1], rows.session)
            queries.replace_rows(connection, session.session_id, rows)

    def rebuild_session(
        self, session_id: str, session: SessionData | None, stage_commits: Sequence[StageCommit], rows: Rows
    ) -> None:
        """Set all rows of a session aside, since they cannot be read, and write these in their place.

        Without a `session` nothing takes their place. Whoever works on it loses it.
        """
        with writing(self.engine, session_id) as connection:
            fence = salvage.next_fence(connection, session_id)
            salvage.set_session_aside(connection, session_id, "could not be read")
            take_back_events(connection, FeedbackEventRow.session_id == session_id)
            if session is None:
                return
            queries.add_session(connection, session)
            lease = {"session_id": session_id, "fence": fence, "expires_at": self.clock(), "renewed_at": self.clock()}
            connection.execute(insert(LeaseRow).values(lease))
            for commit in stage_commits:
                queries.insert_commit(connection, commit)
            connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(rows.session))
            queries.replace_rows(connection, session_id, rows)
