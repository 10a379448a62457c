"""What a fork says of itself: whose fork it is, and the first stage of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two columns to sessions. No foreign key: a fork outlives its parent."""
    for name in ("parent_session_id", "forked_from_stage"):
        op.add_column("sessions", sa.Column(name, TEXT))
    is_fork = sa.text("parent_session_id IS NOT NULL")
    op.create_index(
        "ix_sessions_parent_session_id",
        "sessions",
        ["parent_session_id"],
        sqlite_where=is_fork,
        postgresql_where=is_fork,
    )
