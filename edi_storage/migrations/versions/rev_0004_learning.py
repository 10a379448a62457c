"""What learning needs: an event per verdict, their sums, and how far they were summed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the learning tables, and log the verdicts that are there as events."""
    _create_feedback_events()
    _create_learning_cells()
    _create_learning_runs()
    # What the older verdicts were about was not kept, unless the session has an intent.
    op.execute(
        """
        INSERT INTO feedback_events
            (session_id, feedback_key, sign, edit_type, label, feedback_type, rating, created_at)
        SELECT f.session_id, f.feedback_key, 1, coalesce(i.edit_type, 'unknown'), 'unknown',
            f.feedback_type, f.rating, f.created_at
        FROM user_feedback AS f LEFT JOIN intents AS i ON i.session_id = f.session_id
        ORDER BY f.id
        """
    )


def _create_feedback_events() -> None:
    op.create_table(
        "feedback_events",
        sa.Column("seq", sa.Integer, primary_key=True),
        _text("session_id"),
        _text("feedback_key"),
        _integer("sign"),
        _text("edit_type"),
        _text("label"),
        _text("feedback_type"),
        sa.Column("rating", sa.Integer),
        _created_at(),
        sa.CheckConstraint("sign IN (-1, 1)", name=op.f("ck_feedback_events_sign")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_events_session_id_feedback_key", "feedback_events", ["session_id", "feedback_key"])


def _create_learning_cells() -> None:
    op.create_table(
        "learning_cells",
        _text("edit_type"),
        _text("label"),
        *(_integer(name) for name in ("accepted", "partial", "rejected", "rating_sum", "rating_count")),
        sa.PrimaryKeyConstraint("edit_type", "label", name=op.f("pk_learning_cells")),
    )


def _create_learning_runs() -> None:
    op.create_table(
        "learning_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        *(_integer(name) for name in ("seq_from", "seq_to", "events")),
        _created_at(),
        sa.UniqueConstraint("seq_from", name=op.f("uq_learning_runs_seq_from")),
        sa.UniqueConstraint("seq_to", name=op.f("uq_learning_runs_seq_to")),
        sqlite_autoincrement=True,
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=False)
