"""EDIDatabase: every query of the product. Each writing method is one transaction; models in, models out."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import delete, select, tuple_, update

from edi_storage import migrations, queries
from edi_storage.connection import (
    again_if_lost,
    again_if_undone,
    explaining,
    make_engine,
    reading,
    settled,
    sqlite_url,
    writing,
    writing_prepared,
)
from edi_storage.database_learning import LearningDatabase
from edi_storage.database_leases import LeaseDatabase
from edi_storage.database_repair import RepairDatabase
from edi_storage.errors import (
    DatabaseError,
    InputError,
    NotFoundError,
)
from edi_storage.failpoints import reach
from edi_storage.files import FileStore
from edi_storage.learning_queries import take_back_events
from edi_storage.learning_tables import FeedbackEventRow
from edi_storage.models import (
    Artifact,
    EntityData,
    Intent,
    Lease,
    PromptRecord,
    SessionData,
    SessionHistory,
    SessionState,
    StageCommit,
    Status,
    UserFeedback,
    ValidationData,
)
from edi_storage.record import Record, now_utc
from edi_storage.rows import (
    TABLES,
    all_artifacts,
    read_session,
    records,
    row_writes,
    session_values,
    upsert,
    values_of,
)
from edi_storage.state import (
    MAX_STATE_BYTES,
    Rows,
    compact,
    parse_state,
    reopened_delta,
    rows_of,
)
from edi_storage.tables import SessionRow

ModelT = TypeVar("ModelT", bound=Record)
Plain = Mapping[str, Any]

#: How long the files of one session may take to delete; another process may finish the deletion after that.
_DELETING_SECONDS = 600


class EDIDatabase(LeaseDatabase, LearningDatabase, RepairDatabase):
    """The truth about all sessions, in SQLite (or another SQLAlchemy database).

    `db_path` is a file or a SQLAlchemy URL. The schema is made or upgraded on opening (`init_db`), an existing
    one after a verified backup. Methods take a model or a plain mapping of the same fields and raise InputError
    for what does not fit; saving the same record again updates it. Safe to share between threads.
    """

    def __init__(self, db_path: str = "edi_sessions.db", *, clock: Callable[[], datetime] = now_utc) -> None:
        self.db_path = db_path
        self.url = db_path if "://" in db_path else sqlite_url(db_path)
        self.clock = clock
        self.engine = make_engine(self.url)
        try:
            self.init_db()
        except BaseException:
            self.close()
            raise

    def init_db(self) -> None:
        """Make the schema, or upgrade it to this version's. Doing it again changes nothing."""
        if not migrations.is_current(self.engine):
            migrations.upgrade(self.engine)

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- The seed's methods ---------------------------------------------------------------------------

    def save_session(self, session_data: SessionData | Plain) -> str:
        """Insert or update a session; only the fields that are given change. Returns its id."""
        session = SessionData.checked(session_data)
        with writing(self.engine, session.session_id) as connection:
            given = session_values(session, session.model_fields_set) | {"updated_at": self.clock()}
            changed = {name: value for name, value in given.items() if name not in ("id", "created_at")}
            found = connection.execute(
                update(SessionRow).where(SessionRow.id == session.session_id).values(changed)
            ).rowcount
            if not found:
                queries.add_session(connection, session)
        return session.session_id

    @again_if_undone
    def get_session(self, session_id: str) -> SessionData | None:
        """The session, or None."""
        with reading(self.engine) as connection:
            return queries.find_session(connection, session_id)

    def require_session(self, session_id: str) -> SessionData:
        """The session; NotFoundError when there is none."""
        with reading(self.engine) as connection:
            return queries.require_session(connection, session_id)

    def save_prompt_history(self, session_id: str, prompts: Iterable[PromptRecord | Plain]) -> None:
        """Save prompts by (attempt_number, iteration)."""
        self._save(session_id, PromptRecord, prompts)

    def get_prompt_history(self, session_id: str) -> list[PromptRecord]:
        """All prompts, by attempt and iteration."""
        return self._get(session_id, PromptRecord)

    def save_session_state(self, session_state: SessionState | Plain, filepath: str) -> None:
        """Write a state document to a JSON file: the old one or the new one is there, never half of one."""
        state = SessionState.checked(session_state)
        path = Path(filepath).absolute()
        text = json.dumps(state.model_dump(mode="json"), indent=2, ensure_ascii=False)
        FileStore(str(path.parent)).write_whole(path.name, text.encode())

    def load_session_state(self, filepath: str) -> dict[str, Any]:
        """The state document in a JSON file, as a dict; empty when there is no such file."""
        path = Path(filepath).absolute()
        if not path.exists():
            return {}
        try:
            document = parse_state(FileStore(str(path.parent)).read(path.name, MAX_STATE_BYTES))
        except InputError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        return SessionState.checked(document).model_dump(mode="json")

    # --- The records of a session ---------------------------------------------------------------------

    def save_entities(self, session_id: str, entities: Iterable[EntityData | Plain]) -> None:
        """Save entities by `entity_id`."""
        self._save(session_id, EntityData, entities)

    def get_entities(self, session_id: str) -> list[EntityData]:
        return self._get(session_id, EntityData)

    def save_validation(self, session_id: str, validation: ValidationData | Plain) -> None:
        """Save a validation by its `attempt_number`."""
        self._save(session_id, ValidationData, [validation])

    def get_validations(self, session_id: str) -> list[ValidationData]:
        return self._get(session_id, ValidationData)

    def save_intent(self, session_id: str, intent: Intent | Plain) -> None:
        """Save the intent; a session has one."""
        self._save(session_id, Intent, [intent])

    def get_intent(self, session_id: str) -> Intent | None:
        return next(iter(self._get(session_id, Intent)), None)

    def save_artifacts(self, session_id: str, artifacts: Iterable[Artifact | Plain]) -> None:
        """Save which files a session references, by kind and name."""
        self._save(session_id, Artifact, artifacts)

    def get_artifacts(self, session_id: str) -> list[Artifact]:
        """The files that a session references, the masks of its entities among them."""
        with reading(self.engine) as connection:
            return all_artifacts(connection, session_id, records(connection, session_id, EntityData))

    @again_if_undone
    def get_feedback(self, session_id: str) -> list[UserFeedback]:
        return self._get(session_id, UserFeedback)

    def verdicts_on(self, session_ids: Iterable[str]) -> dict[str, UserFeedback]:
        """What a person has said last of each of these sessions, at most some hundreds, by their ids."""
        with reading(self.engine) as connection:
            return queries.verdicts_on(connection, list(session_ids))

    @again_if_undone
    def get_commits(self, session_id: str) -> list[StageCommit]:
        """All stage boundaries, in order."""
        with reading(self.engine) as connection:
            return queries.commits(connection, session_id)

    @again_if_undone
    def get_state(self, session_id: str) -> SessionState | None:
        """The state document as the commits give it, or None before the first one.

        Raises DatabaseDamagedError when it does not have the digest it was committed with.
        """
        commits = self.get_commits(session_id)
        return SessionState.model_validate(queries.folded(commits)) if commits else None

    @again_if_undone
    def load_session(self, session_id: str) -> SessionHistory:
        """Everything of one session, read at one moment. Raises NotFoundError."""
        with reading(self.engine) as connection:
            session = queries.find_session(connection, session_id)
            if session is None:
                raise NotFoundError(f"There is no session {session_id!r}: `edi sessions` lists them.")
            commits = queries.commits(connection, session_id)
            entities = records(connection, session_id, EntityData)
            intents = records(connection, session_id, Intent)
            return SessionHistory(
                session=session,
                entities=entities,
                intent=intents[0] if intents else None,
                prompts=records(connection, session_id, PromptRecord),
                validations=records(connection, session_id, ValidationData),
                feedback=records(connection, session_id, UserFeedback),
                artifacts=all_artifacts(connection, session_id, entities),
                commits=commits,
                state=SessionState.model_validate(queries.folded(commits)) if commits else None,
            )

    def query_history(
        self, *, status: Status | None = None, before: SessionData | None = None, limit: int = 50
    ) -> list[SessionData]:
        """Sessions, newest first. The next page starts `before` the last session of this one."""
        query = select(SessionRow.__table__).order_by(SessionRow.created_at.desc(), SessionRow.id.desc()).limit(limit)
        if status is not None:
            query = query.where(SessionRow.status == status)
        if before is not None:
            place = tuple_(SessionRow.created_at, SessionRow.id)
            query = query.where(place < (before.created_at, before.session_id))
        with reading(self.engine) as connection:
            return [read_session(row) for row in connection.execute(query).mappings()]

    def sessions_starting_with(self, prefix: str, limit: int) -> list[SessionData]:
        """Sessions whose id starts with `prefix`, in the order of their ids."""
        query = select(SessionRow.__table__).where(SessionRow.id >= prefix, SessionRow.id < prefix + "\U0010ffff")
        with reading(self.engine) as connection:
            rows = connection.execute(query.order_by(SessionRow.id).limit(limit)).mappings()
            return [read_session(row) for row in rows]

    def delete_session(self, session_id: str, lease: Lease | None = None) -> None:
        """Delete a session and all its rows; its feedback is taken back from what was learned.

        Raises NotFoundError, and LeaseHeldError while somebody works on it who does not hold this `lease`. Files: see
        `recovery.delete_session`.
        """
        with writing(self.engine, session_id) as connection:
            queries.require_session(connection, session_id)
            if lease:
                queries.renew(connection, lease, 0, self.clock())
            else:
                queries.refuse_held(connection, session_id, self.clock())
            take_back_events(connection, FeedbackEventRow.session_id == session_id)
            connection.execute(delete(SessionRow).where(SessionRow.id == session_id))

    # --- Stage boundaries -----------------------------------------------------------------------------

    @again_if_lost
    def commit_stage(self, lease: Lease, commit: StageCommit, seconds: float) -> StageCommit:
        """Commit one stage boundary and its rows: the only commit point of the product.

        That the lease is held is checked in the same transaction, which renews it for `seconds` when less than half of
        them are left. A boundary that is there already is returned as stored: a repeated call renews the lease, and
        changes nothing else. Raises LeaseLostError, StaleBoundaryError.
        """
        delta = compact(commit.state_delta)
        rows = rows_of(commit.state_delta, nulls=delta.nulls)
        mine = commit if commit.fence == lease.fence else commit.model_copy(update={"fence": lease.fence})
        # Made before the transaction, which keeps all other writers waiting.
        dialect = self.engine.dialect
        boundary = queries.commit_write(mine, delta.text, dialect)
        writes = row_writes(commit.session_id, rows, dialect)
        moved = queries.moved(mine, rows.session)
        try:
            with writing_prepared(self.engine, commit.session_id) as connection:
                reach("commit.after_begin")
                if not queries.take_turn(connection, lease, mine.seq, moved, seconds, self.clock()):
                    return queries.stored_boundary(connection, mine)
                reach("commit.after_lease")
                boundary.run(connection)
                reach("commit.after_insert")
                for write in writes:
                    write.run(connection)
                reach("commit.after_rows")
                reach("commit.before_commit")
            with explaining(self.engine):
                reach("commit.after_commit")
        except DatabaseError:
            # Whether an interrupted COMMIT took place only the database knows: look with a new connection.
            self.engine.dispose()
            stored = self._find_commit(commit)
            if stored is None or stored.fence != lease.fence:
                raise
            return stored
        return mine

    def _find_commit(self, commit: StageCommit) -> StageCommit | None:
        try:
            with settled(self.engine, commit.session_id) as connection:
                found = queries.commit_at(connection, commit.session_id, commit.seq)
        except DatabaseError:
            return None
        return found if found and found.sha256 == commit.sha256 else None

    @again_if_undone
    def fail_session(self, lease: Lease, reason: str) -> None:
        """End a session as failed, with its reason, and give its lease back. Raises LeaseLostError."""
        with writing(self.engine, lease.session_id) as connection:
            queries.renew(connection, lease, 0, self.clock())
            queries.fail(connection, lease.session_id, reason, self.clock())
            queries.release(connection, lease)

    def mark_deleting(self, lease: Lease, reason: str) -> None:
        """Say that a session is being deleted; the lease stays. Raises LeaseLostError."""
        with writing(self.engine, lease.session_id) as connection:
            queries.renew(connection, lease, _DELETING_SECONDS, self.clock())
            values = {"status": "failed", "failure_reason": reason, "waiting_for": None}
            connection.execute(update(SessionRow).where(SessionRow.id == lease.session_id).values(values))

    def reopen_session(self, lease: Lease) -> None:
        """Let a failed session go on: a person asked for it. Raises LeaseLostError."""
        with writing(self.engine, lease.session_id) as connection:
            queries.renew(connection, lease, 0, self.clock())
            queries.append_boundary(connection, lease.session_id, "reopened", reopened_delta())
            values = {"status": "in_progress", "failure_reason": None, "recovery_attempts": 0}
            connection.execute(update(SessionRow).where(SessionRow.id == lease.session_id).values(values))

    # --- Forks ----------------------------------------------------------------------------------------

    def add_fork(
        self,
        session: SessionData,
        stage_commits: Sequence[StageCommit],
        rows: Rows,
        *,
        later: bool,
        check: Callable[[], object],
    ) -> SessionData:
        """Make a session with its first boundaries and rows: one transaction. Returns the session of this id.

        `check` is called under the lock and may raise. One that is there already is returned as it is, and nothing is
        changed. Unless `later`, it counts as interrupted: its lease is there, and free.
        """
        try:
            with writing(self.engine, session.session_id) as connection:
                reach("fork.after_begin")
                if known := queries.find_session(connection, session.session_id):
                    return known
                check()
                queries.add_session(connection, session)
                for commit in stage_commits:
                    queries.insert_commit(connection, commit)
                reach("fork.after_boundaries")
                queries.save_rows(connection, session.session_id, rows)
                if not later:
                    lease = queries.acquire(connection, session.session_id, "fork", 0, self.clock())
                    queries.release(connection, lease)
                reach("fork.before_commit")
            with explaining(self.engine):
                reach("fork.after_commit")
        except DatabaseError:
            # As for a boundary: whether an interrupted COMMIT took place only the database knows.
            self.engine.dispose()
            if (known := self._find_settled(session.session_id)) is None:
                raise
            return known
        return session

    def _find_settled(self, session_id: str) -> SessionData | None:
        try:
            with settled(self.engine, session_id) as connection:
                return queries.find_session(connection, session_id)
        except DatabaseError:
            return None

    def forks_of(self, session_id: str) -> list[SessionData]:
        """The sessions that were forked from this one, oldest first."""
        forks = select(SessionRow.__table__).where(SessionRow.parent_session_id == session_id)
        with reading(self.engine) as connection:
            rows = connection.execute(forks.order_by(SessionRow.created_at, SessionRow.id)).mappings()
            return [read_session(row) for row in rows]

    def unless_known(self, session_id: str, act: Callable[[], object]) -> None:
        """Do something while no session of this id can be made; nothing when there is one."""
        with writing(self.engine, session_id) as connection:
            if queries.find_session(connection, session_id) is None:
                act()

    @again_if_undone
    def last_seq(self, session_id: str) -> int:
        """The number of the last boundary; 0 before the first, and for an unknown session."""
        with reading(self.engine) as connection:
            return queries.last_seq(connection, session_id)

    def session_ids(self, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of sessions in their order, from the first one after `after`."""
        query = select(SessionRow.id).where(SessionRow.id > after).order_by(SessionRow.id).limit(limit)
        with reading(self.engine) as connection:
            return list(connection.execute(query).scalars())

    def known_among(self, session_ids: Collection[str]) -> set[str]:
        """Which of some ids are of sessions here."""
        query = select(SessionRow.id).where(SessionRow.id.in_(session_ids))
        with reading(self.engine) as connection:
            return set(connection.execute(query).scalars())

    def forget_export(self, session_id: str) -> None:
        """Have every checkpoint written again."""
        with writing(self.engine, session_id) as connection:
            connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(exported_seq=0))

    @again_if_undone
    def exported_seq(self, session_id: str) -> int:
        """The highest boundary whose checkpoint is known to be written; 0 before the first."""
        with reading(self.engine) as connection:
            return connection.execute(select(SessionRow.exported_seq).where(SessionRow.id == session_id)).scalar() or 0

    @again_if_lost
    def mark_exported(self, session_id: str, seq: int) -> None:
        """Remember that the checkpoint of `seq` is written."""
        with writing_prepared(self.engine, session_id, boundary=False) as connection:
            queries.mark_exported(connection, session_id, seq)

    # --- Shared by the methods above ------------------------------------------------------------------

    def _save(self, session_id: str, model: type[ModelT], records: Iterable[ModelT | Plain]) -> None:
        table, keys = TABLES[model]
        values = [values_of(session_id, model.checked(record)) for record in records]
        with writing(self.engine, session_id) as connection:
            queries.require_session(connection, session_id)
            if values:
                upsert(connection.dialect, table, values, keys).run(connection)

    def _get(self, session_id: str, model: type[ModelT]) -> list[ModelT]:
        with reading(self.engine) as connection:
            return records(connection, session_id, model)
