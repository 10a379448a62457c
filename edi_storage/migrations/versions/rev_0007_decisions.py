"""What learning acts on: choices and their probabilities, verdicts by preset and strength, profiles, consent."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0007"
down_revision = "0006"

_COUNTS = ("accepted", "partial", "rejected")
_REASONS = ("too_strong", "too_weak", "wrong_region", "edges", "colour", "artifact", "tone", "other")


def upgrade() -> None:
    """Make the new tables. Cells and runs are made anew and empty: the next `edi learn` folds all events again."""
    _extend_sessions()
    _extend_feedback_events()
    _create_decisions()
    for table in ("learning_cells", "learning_runs"):
        op.drop_table(table)
    _create_learning_cells()
    _create_learning_term_cells()
    _create_learning_calibration()
    _create_learning_runs()
    _create_learning_profiles()


def _extend_sessions() -> None:
    op.add_column("sessions", sa.Column("profile_version", sa.Integer))
    # Alembic would make the table anew for the sake of the CHECK.
    collation = ' COLLATE "C"' if op.get_context().dialect.name == "postgresql" else ""
    op.execute(
        f"ALTER TABLE sessions ADD COLUMN consent TEXT{collation} DEFAULT 'local' NOT NULL "
        f"CONSTRAINT {op.f('ck_sessions_consent')} CHECK (consent IN ('none', 'local', 'export'))"
    )


def _extend_feedback_events() -> None:
    for column in (
        _integer("attempt", "1"),
        _text("preset", "''"),
        _integer("strength", "0"),
        sa.Column("score", sa.Integer),
        _text("reasons", "''"),
        _text("terms", "'[]'"),
    ):
        op.add_column("feedback_events", column)


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        _text("session_id"),
        _integer("attempt"),
        *(_text(name) for name in ("edit_type", "label", "preset")),
        sa.Column("params", sa.JSON, nullable=False),
        _integer("strength"),
        sa.Column("propensity", sa.Float, nullable=False),
        sa.Column("probabilities", sa.JSON, nullable=False),
        sa.Column("strength_propensity", sa.Float, nullable=False),
        sa.Column("strength_probabilities", sa.JSON, nullable=False),
        _text("seed"),
        _integer("holdout"),
        sa.Column("profile_version", sa.Integer),
        _text("engine"),
        _created_at(),
        sa.PrimaryKeyConstraint("session_id", "attempt", name=op.f("pk_decisions")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_decisions_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_decisions_attempt")),
        sa.CheckConstraint("strength BETWEEN 0 AND 5", name=op.f("ck_decisions_strength")),
        sa.CheckConstraint("propensity BETWEEN 0 AND 1", name=op.f("ck_decisions_propensity_in_0_1")),
        sa.CheckConstraint("holdout IN (0, 1)", name=op.f("ck_decisions_holdout")),
    )


def _create_learning_cells() -> None:
    op.create_table(
        "learning_cells",
        *(_text(name) for name in ("edit_type", "label", "preset")),
        _integer("strength"),
        *(_integer(name) for name in (*_COUNTS, "rating_sum", "rating_count", *_REASONS)),
        sa.PrimaryKeyConstraint("edit_type", "label", "preset", "strength", name=op.f("pk_learning_cells")),
    )


def _create_learning_term_cells() -> None:
    op.create_table(
        "learning_term_cells",
        *(_text(name) for name in ("term", "edit_type", "label", "preset")),
        *(_integer(name) for name in _COUNTS),
        sa.PrimaryKeyConstraint("term", "edit_type", "label", "preset", name=op.f("pk_learning_term_cells")),
    )
    is_empty = sa.text("accepted = 0 AND partial = 0 AND rejected = 0")
    op.create_index(
        "ix_learning_term_cells_empty",
        "learning_term_cells",
        ["term"],
        sqlite_where=is_empty,
        postgresql_where=is_empty,
    )


def _create_learning_calibration() -> None:
    op.create_table(
        "learning_calibration",
        sa.Column("score", sa.Integer, nullable=False, autoincrement=False),
        *(_integer(name) for name in _COUNTS),
        sa.PrimaryKeyConstraint("score", name=op.f("pk_learning_calibration")),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("ck_learning_calibration_score")),
    )


def _create_learning_runs() -> None:
    op.create_table(
        "learning_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        *(_integer(name) for name in ("seq_from", "seq_to", "events")),
        _created_at(),
        _text("config"),
        sa.UniqueConstraint("config", "seq_from", name=op.f("uq_learning_runs_config_seq_from")),
        sa.UniqueConstraint("config", "seq_to", name=op.f("uq_learning_runs_config_seq_to")),
        sqlite_autoincrement=True,
    )


def _create_learning_profiles() -> None:
    op.create_table(
        "learning_profiles",
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("parent", sa.Integer),
        _integer("seq_to"),
        *(_text(name) for name in ("profile", "sha256", "status")),
        _created_at(),
        sa.CheckConstraint("status IN ('candidate', 'active', 'retired')", name=op.f("ck_learning_profiles_status")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_learning_profiles_sha256")),
        sqlite_autoincrement=True,
    )
    is_active = sa.text("status = 'active'")
    op.create_index(
        "uq_learning_profiles_active",
        "learning_profiles",
        ["status"],
        unique=True,
        sqlite_where=is_active,
        postgresql_where=is_active,
    )


def _text(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, TEXT, server_default=sa.text(default) if default else None, nullable=False)


def _integer(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, server_default=sa.text(default) if default else None, nullable=False)


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=False)
