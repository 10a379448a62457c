"""The tables of learning, as SQLAlchemy sees them; see `edi_storage.tables` for the others."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from edi_storage.tables import NOW, Base

_NOTHING = text("''")
_ZERO = text("0")
_IS_ACTIVE = text("status = 'active'")
_IS_EMPTY = text("accepted = 0 AND partial = 0 AND rejected = 0")


class DecisionRow(Base):
    __tablename__ = "decisions"
    __table_args__ = (
        CheckConstraint("attempt >= 1", name="attempt"),
        CheckConstraint("strength BETWEEN 0 AND 5", name="strength"),
        CheckConstraint("propensity BETWEEN 0 AND 1", name="propensity_in_0_1"),
        CheckConstraint("holdout IN (0, 1)", name="holdout"),
    )

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    edit_type: Mapped[str]
    label: Mapped[str]
    preset: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    strength: Mapped[int]
    propensity: Mapped[float]
    probabilities: Mapped[dict[str, Any]] = mapped_column(JSON)
    strength_propensity: Mapped[float]
    strength_probabilities: Mapped[dict[str, Any]] = mapped_column(JSON)
    #: As text: 64 bits are more than a server's integer has.
    seed: Mapped[str]
    holdout: Mapped[int]
    profile_version: Mapped[int | None]
    engine: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class FeedbackEventRow(Base):
    __tablename__ = "feedback_events"
    __table_args__ = (
        CheckConstraint("sign IN (-1, 1)", name="sign"),
        Index("ix_feedback_events_session_id_feedback_key", "session_id", "feedback_key"),
        {"sqlite_autoincrement": True},
    )

    seq: Mapped[int] = mapped_column(primary_key=True)
    #: No foreign key: the event that takes a deleted session's feedback back outlives the session.
    session_id: Mapped[str]
    feedback_key: Mapped[str]
    sign: Mapped[int]
    edit_type: Mapped[str]
    label: Mapped[str]
    feedback_type: Mapped[str]
    rating: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    #: What was judged, copied from the decision of the attempt; "" and 0 where nothing was chosen.
    attempt: Mapped[int] = mapped_column(server_default=text("1"))
    preset: Mapped[str] = mapped_column(server_default=_NOTHING)
    strength: Mapped[int] = mapped_column(server_default=_ZERO)
    #: Of the attempt, in percent.
    score: Mapped[int | None]
    #: With commas around each, so that one LIKE finds one: ",edges,too strong,".
    reasons: Mapped[str] = mapped_column(server_default=_NOTHING)
    #: The prompt's stems, as a JSON list.
    terms: Mapped[str] = mapped_column(server_default=text("'[]'"))


class LearningCellRow(Base):
    __tablename__ = "learning_cells"

    edit_type: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    preset: Mapped[str] = mapped_column(primary_key=True)
    strength: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    accepted: Mapped[int]
    partial: Mapped[int]
    rejected: Mapped[int]
    rating_sum: Mapped[int]
    rating_count: Mapped[int]
    too_strong: Mapped[int]
    too_weak: Mapped[int]
    wrong_region: Mapped[int]
    edges: Mapped[int]
    colour: Mapped[int]
    artifact: Mapped[int]
    tone: Mapped[int]
    other: Mapped[int]


class LearningTermCellRow(Base):
    __tablename__ = "learning_term_cells"
    # So that what nobody has said any more is found without looking at all the rest.
    __table_args__ = (
        Index("ix_learning_term_cells_empty", "term", sqlite_where=_IS_EMPTY, postgresql_where=_IS_EMPTY),
    )

    term: Mapped[str] = mapped_column(primary_key=True)
    edit_type: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    preset: Mapped[str] = mapped_column(primary_key=True)
    accepted: Mapped[int]
    partial: Mapped[int]
    rejected: Mapped[int]


class LearningCalibrationRow(Base):
    __tablename__ = "learning_calibration"
    __table_args__ = (CheckConstraint("score BETWEEN 0 AND 100", name="score"),)

    #: Alignment score in percent.
    score: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    accepted: Mapped[int]
    partial: Mapped[int]
    rejected: Mapped[int]


class LearningRunRow(Base):
    __tablename__ = "learning_runs"
    __table_args__ = (
        UniqueConstraint("config", "seq_from"),
        UniqueConstraint("config", "seq_to"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: The events with seq_from < seq <= seq_to were folded in; the highest seq_to is the watermark.
    seq_from: Mapped[int]
    seq_to: Mapped[int]
    events: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    #: By which rules they were counted: after a change of these all is counted again.
    config: Mapped[str]


class LearningProfileRow(Base):
    __tablename__ = "learning_profiles"
    __table_args__ = (
        CheckConstraint("status IN ('candidate', 'active', 'retired')", name="status"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
        # At most one is active.
        Index(
            "uq_learning_profiles_active",
            "status",
            unique=True,
            sqlite_where=_IS_ACTIVE,
            postgresql_where=_IS_ACTIVE,
        ),
        {"sqlite_autoincrement": True},
    )

    version: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None]
    seq_to: Mapped[int]
    #: Canonical JSON text, so that its digest can be checked.
    profile: Mapped[str]
    sha256: Mapped[str]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
