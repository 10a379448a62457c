"""The tables as SQLAlchemy sees them. Schemas are made by `edi_storage.migrations` only, never from here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class SeedTimestamp(sqlite.DATETIME):
    """The seed's column type and text, `2026-11-22 22:15:00[.123456]`.

    SQLAlchemy's own form always has six digits after the second, so a time that SQLite's CURRENT_TIMESTAMP
    or the seed wrote would not equal itself when it is compared again, as a page of the history does.
    """

    __visit_name__ = "TIMESTAMP"

    def bind_processor(self, dialect: Dialect) -> Any:
        return lambda value: None if value is None else value.isoformat(" ")


def _seed_text(value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is not UTC:
        value = _in_utc(value)
    # In less than half of the time that `isoformat` takes, of: "2026-11-22T22:15:00.123456+00:00", in quotes.
    return orjson.dumps(value)[1:-7].decode().replace("T", " ")


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a datetime without a zone cannot be stored")
    return value.astimezone(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC outside, the seed's zone-less text inside. A naive datetime is refused: its zone is unknown."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        if dialect.name != "sqlite":
            return dialect.type_descriptor(DateTime())
        return dialect.type_descriptor(SeedTimestamp())  # type: ignore[no-untyped-call]

    def bind_processor(self, dialect: Dialect) -> Any:
        # In one step what would be three, for each of the five times of a boundary.
        return _seed_text if dialect.name == "sqlite" else super().bind_processor(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _in_utc(value).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


#: On a server too, text is compared and sorted by its characters' numbers, whatever the language of the database.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")


class Base(DeclarativeBase):
    """All tables share one naming convention, so that every constraint has a name migrations can use."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        str: TEXT,
        float: Float,
        int: Integer,
        dict: JSON,
        list: JSON,
    }


def _score(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IS NULL OR {column} BETWEEN 0 AND 1", name=f"{column}_in_0_1")


def _whole(column: str, least: int, *, optional: bool = False) -> CheckConstraint:
    """A whole number. The CAST refuses 4.5 and 'abc', which SQLite's comparisons let through."""
    rule = f"{column} >= {least} AND CAST({column} AS INTEGER) = {column}"
    return CheckConstraint(f"{column} IS NULL OR ({rule})" if optional else rule, name=column)


def _session() -> Mapped[str]:
    return mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))


NOW = text("CURRENT_TIMESTAMP")


class SessionRow(Base):
    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("status IN ('in_progress', 'completed', 'failed')", name="status"),
        CheckConstraint("id <> ''", name="id_not_empty"),
        CheckConstraint("consent IN ('none', 'local', 'export')", name="consent"),
        _score("final_alignment_score"),
        Index("ix_sessions_created_at_id", "created_at", "id"),
        Index("ix_sessions_status_created_at_id", "status", "created_at", "id"),
        # Few sessions are forks.
        Index(
            "ix_sessions_parent_session_id",
            "parent_session_id",
            sqlite_where=text("parent_session_id IS NOT NULL"),
            postgresql_where=text("parent_session_id IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    image_path: Mapped[str]
    naive_prompt: Mapped[str]
    status: Mapped[str]
    final_alignment_score: Mapped[float | None]
    # Beyond the seed.
    updated_at: Mapped[datetime | None]
    options: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'"))
    decision: Mapped[str | None]
    waiting_for: Mapped[str | None]
    failure_reason: Mapped[str | None]
    flow_run_id: Mapped[str | None]
    recovery_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    #: Highest seq whose checkpoint is known to be written.
    exported_seq: Mapped[int] = mapped_column(server_default=text("0"))
    #: Of a fork. No foreign key: a fork outlives its parent, and still says whose fork it is.
    parent_session_id: Mapped[str | None]
    forked_from_stage: Mapped[str | None]
    #: The learned profile that the session was refined with.
    profile_version: Mapped[int | None]
    #: What may be done with what the person says of it: none (nothing), local (learn here), export (share it too).
    consent: Mapped[str] = mapped_column(server_default=text("'local'"))


class PromptRow(Base):
    __tablename__ = "prompts"
    __table_args__ = (
        UniqueConstraint("session_id", "attempt_number", "iteration"),
        _whole("attempt_number", 1),
        _whole("iteration", 0),
        _score("quality_score"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = _session()
    iteration: Mapped[int]
    positive_prompt: Mapped[str | None]
    negative_prompt: Mapped[str | None]
    quality_score: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    attempt_number: Mapped[int] = mapped_column(server_default=text("1"))


class EntityRow(Base):
    __tablename__ = "entities"
    __table_args__ = (
        UniqueConstraint("session_id", "entity_id"),
        _score("confidence"),
        CheckConstraint("area_percent IS NULL OR area_percent BETWEEN 0 AND 100", name="area_percent"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = _session()
    entity_id: Mapped[str]  # e.g., "sky_0"
    label: Mapped[str | None]
    confidence: Mapped[float | None]
    bbox_json: Mapped[str | None]  # Serialized bounding box
    mask_path: Mapped[str | None]  # Path to saved mask file, relative to the storage root
    color_hex: Mapped[str | None]
    area_percent: Mapped[float | None]


class ValidationRow(Base):
    __tablename__ = "validations"
    __table_args__ = (
        UniqueConstraint("session_id", "attempt_number"),
        _score("alignment_score"),
        _whole("attempt_number", 0),
        _whole("preserved_count", 0, optional=True),
        _whole("modified_count", 0, optional=True),
        _whole("unintended_count", 0, optional=True),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = _session()
    attempt_number: Mapped[int]
    alignment_score: Mapped[float | None]
    preserved_count: Mapped[int | None]
    modified_count: Mapped[int | None]
    unintended_count: Mapped[int | None]
    user_feedback: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class FeedbackRow(Base):
    __tablename__ = "user_feedback"
    __table_args__ = (
        UniqueConstraint("session_id", "feedback_key"),
        CheckConstraint("feedback_type IN ('accept', 'reject', 'partial')", name="feedback_type"),
        # The CAST refuses 4.5, which SQLite's BETWEEN lets through.
        CheckConstraint(
            "rating IS NULL OR (rating BETWEEN 1 AND 5 AND CAST(rating AS INTEGER) = rating)", name="rating"
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[str] = _session()
    feedback_type: Mapped[str]
    comments: Mapped[str | None]
    rating: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    reasons: Mapped[list[str]] = mapped_column(JSON, server_default=text("'[]'"))
    #: One standing verdict per key; rows of a seed database have "seed-<id>".
    feedback_key: Mapped[str] = mapped_column(server_default=text("'verdict'"))


class IntentRow(Base):
    __tablename__ = "intents"
    __table_args__ = (
        CheckConstraint("edit_type IN ('color', 'style', 'add', 'remove', 'transform')", name="edit_type"),
        _score("confidence"),
        _score("strength"),
    )

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    edit_type: Mapped[str]
    target_entities: Mapped[list[str]] = mapped_column(JSON)
    preserve_entities: Mapped[list[str]] = mapped_column(JSON)
    confidence: Mapped[float]
    action: Mapped[str]
    strength: Mapped[float]
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    question: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    answer: Mapped[int | None]


class ArtifactRow(Base):
    __tablename__ = "artifacts"
    __table_args__ = (CheckConstraint("kind IN ('original', 'mask', 'edited', 'delta')", name="kind"),)

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str]


class StageCommitRow(Base):
    __tablename__ = "stage_commits"
    __table_args__ = (
        # A stage is done once; feedback, failing and being taken up again may come several times.
        Index(
            "uq_stage_commits_boundary",
            "session_id",
            "stage",
            "attempt",
            "iteration",
            unique=True,
            sqlite_where=text("stage NOT IN ('feedback', 'failed', 'reopened')"),
            postgresql_where=text("stage NOT IN ('feedback', 'failed', 'reopened')"),
        ),
        CheckConstraint("seq >= 1", name="seq"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
    )

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    stage: Mapped[str]
    attempt: Mapped[int]
    iteration: Mapped[int]
    #: Canonical JSON text, so that its digest can be checked without parsing it first.
    state_delta: Mapped[str]
    sha256: Mapped[str]
    schema_version: Mapped[int]
    engine: Mapped[str]
    engine_version: Mapped[str]
    fence: Mapped[int]
    flow_run_id: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]


class LeaseRow(Base):
    __tablename__ = "leases"
    __table_args__ = (CheckConstraint("fence >= 1", name="fence"),)

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    #: NULL once released; the row stays, because its fence must never fall.
    owner: Mapped[str | None]
    fence: Mapped[int]
    expires_at: Mapped[datetime]
    #: In the future only when the clock was set back: such a lease is taken as expired.
    renewed_at: Mapped[datetime]


class QuarantineRow(Base):
    __tablename__ = "quarantine"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    table_name: Mapped[str]
    row_json: Mapped[str]
    reason: Mapped[str]
    revision: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
