"""The part of EDIDatabase that is about learning: verdicts, what they add up to, and profiles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, and_, func, select, update

from edi_storage import learning_queries, queries
from edi_storage.connection import again_if_undone, reading, writing
from edi_storage.errors import InputError, NotFoundError
from edi_storage.failpoints import reach
from edi_storage.learning_models import FirstVerdict, LoggedDecision, PresetCell, ScoreBin, StoredProfile, TermCell
from edi_storage.learning_tables import (
    FeedbackEventRow,
    LearningCalibrationRow,
    LearningCellRow,
    LearningProfileRow,
    LearningTermCellRow,
)
from edi_storage.models import LearningCell, LearningRun, UserFeedback
from edi_storage.rows import read, records
from edi_storage.state import Rows, canonical, feedback_delta
from edi_storage.tables import SessionRow


class LearningDatabase:
    """The methods of EDIDatabase about learning; made by EDIDatabase only."""

    engine: Engine
    clock: Callable[[], datetime]

    # --- Verdicts -------------------------------------------------------------------------------------

    @again_if_undone
    def save_feedback(self, session_id: str, feedback: UserFeedback | Mapping[str, Any]) -> UserFeedback:
        """Save a verdict by its `feedback_key`, as a row, as a learning event and as a boundary of its own.

        The same verdict again changes nothing. Raises NotFoundError, and LeaseHeldError while the edit is running.
        """
        verdict = UserFeedback.checked(feedback)
        with writing(self.engine, session_id) as connection:
            session = queries.require_session(connection, session_id)
            queries.refuse_held(connection, session_id, self.clock())
            if queries.same_verdict(connection, session_id, verdict):
                return verdict
            same = and_(
                FeedbackEventRow.session_id == session_id, FeedbackEventRow.feedback_key == verdict.feedback_key
            )
            learning_queries.take_back_events(connection, same)
            queries.save_rows(connection, session_id, Rows(feedback=[verdict]))
            learning_queries.add_event(connection, session, verdict)
            queries.append_boundary(connection, session_id, "feedback", feedback_delta(verdict))
            if session.waiting_for == "review":
                connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(waiting_for=None))
        return verdict

    # --- Counting -------------------------------------------------------------------------------------

    def fold_feedback(self) -> LearningRun:
        """Fold the feedback events after the watermark into the cells: one transaction, each event once."""
        # Alone in the database: the number of an event that is not committed yet must not be passed by.
        with writing(self.engine) as connection:
            reach("learn.after_begin")
            run = learning_queries.fold_new(connection)
            reach("learn.before_commit")
        return run

    def recount_feedback(self) -> LearningRun:
        """Empty the cells and fold all events there are: what `fold_feedback` has come to, from the beginning."""
        with writing(self.engine) as connection:
            return learning_queries.count_again(connection)

    def last_learned(self) -> datetime | None:
        """When feedback was last folded in; None when none ever was."""
        with reading(self.engine) as connection:
            return learning_queries.last_learned(connection)

    def learning_cells(self) -> list[LearningCell]:
        """What was learned so far by edit type and label, most feedback first."""
        row = LearningCellRow
        keys = [row.edit_type, row.label]
        counts = (row.accepted, row.partial, row.rejected, row.rating_sum, row.rating_count)
        count = func.sum(row.accepted + row.partial + row.rejected)
        sums = [func.sum(column).label(column.key) for column in counts]
        query = select(*keys, *sums).group_by(*keys).having(count > 0).order_by(count.desc(), row.edit_type, row.label)
        with reading(self.engine) as connection:
            return [read(LearningCell, found) for found in connection.execute(query).mappings()]

    def preset_cells(self) -> list[PresetCell]:
        """The same by preset and strength too, with the reasons that were given."""
        with reading(self.engine) as connection:
            return learning_queries.preset_cells(connection)

    def term_cells(self) -> list[TermCell]:
        """Verdicts by the stems of the prompts."""
        row = LearningTermCellRow
        query = select(row.__table__).order_by(row.term, row.edit_type, row.label, row.preset)
        with reading(self.engine) as connection:
            return [TermCell.model_validate(dict(found)) for found in connection.execute(query).mappings()]

    def score_bins(self) -> list[ScoreBin]:
        """Verdicts by the alignment score that the attempt had, lowest first."""
        table = LearningCalibrationRow.__table__
        with reading(self.engine) as connection:
            found = connection.execute(select(table).order_by(table.c.score)).mappings()
            return [ScoreBin.model_validate(dict(row)) for row in found]

    # --- Decisions ------------------------------------------------------------------------------------

    def get_decisions(self, session_id: str) -> list[LoggedDecision]:
        """What was chosen for the attempts of a session, in their order."""
        with reading(self.engine) as connection:
            return records(connection, session_id, LoggedDecision)

    def first_verdicts(self) -> list[FirstVerdict]:
        """The verdicts that stand on first attempts in which a profile had a choice, oldest first."""
        with reading(self.engine) as connection:
            return learning_queries.first_verdicts(connection)

    def shared_session_ids(self, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of the sessions that may be exported, in their order, from the first one after `after`."""
        shared = and_(SessionRow.consent == "export", SessionRow.id > after)
        with reading(self.engine) as connection:
            return list(connection.scalars(select(SessionRow.id).where(shared).order_by(SessionRow.id).limit(limit)))

    def sessions_with_reason(self, reason: str, limit: int = 3) -> list[str]:
        """Ids of the sessions where this reason was given, of which some are left to show, newest first."""
        with reading(self.engine) as connection:
            return learning_queries.sessions_with_reason(connection, reason, limit)

    # --- Profiles -------------------------------------------------------------------------------------

    def save_profile(self, profile: Mapping[str, Any], seq_to: int) -> StoredProfile:
        """Keep what was learned up to the event `seq_to` as a new version, which is used from now on.

        The same as the newest one is not kept again. A new one stays a candidate while a person has another version
        than the newest in use: they went back for a reason.
        """
        text = canonical(profile)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with writing(self.engine) as connection:
            newest = learning_queries.stored_profile(connection, LearningProfileRow.version > 0)
            active = learning_queries.stored_profile(connection, LearningProfileRow.status == "active")
            if newest is not None and (newest.sha256 == digest or newest.seq_to > seq_to):
                return newest
            new = StoredProfile(
                version=1,
                parent=active.version if active else None,
                seq_to=seq_to,
                profile=dict(profile),
                sha256=digest,
                status="candidate",
                created_at=self.clock(),
            )
            version = learning_queries.insert_profile(connection, new)
            follows = newest is None or (active is not None and active.version == newest.version)
            if follows:
                learning_queries.make_active(connection, version)
            learning_queries.forget_old_profiles(connection)
        return new.model_copy(update={"version": version, "status": "active" if follows else "candidate"})

    def active_profile(self) -> StoredProfile | None:
        """The profile that is used; None before the first one."""
        with reading(self.engine) as connection:
            return learning_queries.stored_profile(connection, LearningProfileRow.status == "active")

    def get_profile(self, version: int) -> StoredProfile | None:
        """One version, or None."""
        with reading(self.engine) as connection:
            return learning_queries.stored_profile(connection, LearningProfileRow.version == version)

    def profiles(self, limit: int = 100) -> list[StoredProfile]:
        """The versions, newest first."""
        query = select(LearningProfileRow.__table__).order_by(LearningProfileRow.version.desc()).limit(limit)
        with reading(self.engine) as connection:
            return [learning_queries.read_profile(dict(row)) for row in connection.execute(query).mappings()]

    def activate_profile(self, version: int) -> StoredProfile:
        """Use this version from now on. Raises NotFoundError."""
        with writing(self.engine) as connection:
            found = learning_queries.stored_profile(connection, LearningProfileRow.version == version)
            if found is None:
                raise NotFoundError(f"There is no profile {version}: `edi learn profiles` lists them.")
            learning_queries.make_active(connection, version)
        return found.model_copy(update={"status": "active"})

    def roll_back_profile(self) -> StoredProfile:
        """Use the version that the present one came after. Raises InputError when there is none."""
        with writing(self.engine) as connection:
            active = learning_queries.stored_profile(connection, LearningProfileRow.status == "active")
            older = (
                None
                if active is None
                else learning_queries.stored_profile(connection, LearningProfileRow.version == (active.parent or 0))
            )
            if active is None or older is None:
                raise InputError("There is no earlier profile to go back to: `edi learn profiles` lists them.")
            learning_queries.make_active(connection, older.version)
        return older.model_copy(update={"status": "active"})
