"""What resuming needs: stage commits, leases, intents, artifacts, and what a session is waiting for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns to sessions, and the four tables that hang on a session."""
    _extend_sessions()
    _create_intents()
    _create_artifacts()
    _create_stage_commits()
    _create_leases()


def _extend_sessions() -> None:
    op.add_column("sessions", sa.Column("updated_at", sa.TIMESTAMP))
    op.add_column("sessions", sa.Column("options", sa.JSON, server_default=sa.text("'{}'"), nullable=False))
    for name in ("decision", "waiting_for", "failure_reason", "flow_run_id"):
        op.add_column("sessions", sa.Column(name, TEXT))
    for name in ("recovery_attempts", "exported_seq"):
        op.add_column("sessions", sa.Column(name, sa.Integer, server_default=sa.text("0"), nullable=False))


def _create_intents() -> None:
    op.create_table(
        "intents",
        _text("session_id"),
        _text("edit_type"),
        sa.Column("target_entities", sa.JSON, nullable=False),
        sa.Column("preserve_entities", sa.JSON, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        _text("action"),
        sa.Column("strength", sa.Float, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("question", sa.JSON),
        sa.Column("answer", sa.Integer),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_intents")),
        _session("intents"),
        _check("intents", "edit_type", "edit_type IN ('color', 'style', 'add', 'remove', 'transform')"),
        _check("intents", "confidence_in_0_1", "confidence IS NULL OR confidence BETWEEN 0 AND 1"),
        _check("intents", "strength_in_0_1", "strength IS NULL OR strength BETWEEN 0 AND 1"),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        *(_text(name) for name in ("session_id", "kind", "name", "path", "sha256")),
        sa.PrimaryKeyConstraint("session_id", "kind", "name", name=op.f("pk_artifacts")),
        _session("artifacts"),
        _check("artifacts", "kind", "kind IN ('original', 'mask', 'edited')"),
    )


def _create_stage_commits() -> None:
    op.create_table(
        "stage_commits",
        _text("session_id"),
        _integer("seq"),
        _text("stage"),
        _integer("attempt"),
        _integer("iteration"),
        _text("state_delta"),
        _text("sha256"),
        _integer("schema_version"),
        _text("engine"),
        _text("engine_version"),
        _integer("fence"),
        sa.Column("flow_run_id", TEXT),
        sa.Column("started_at", sa.TIMESTAMP(), nullable=False),
        sa.Column("finished_at", sa.TIMESTAMP(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_stage_commits")),
        _session("stage_commits"),
        _check("stage_commits", "seq", "seq >= 1"),
        _check("stage_commits", "sha256", "length(sha256) = 64"),
    )
    done_once = sa.text("stage NOT IN ('feedback', 'failed', 'reopened')")
    op.create_index(
        "uq_stage_commits_boundary",
        "stage_commits",
        ["session_id", "stage", "attempt", "iteration"],
        unique=True,
        sqlite_where=done_once,
        postgresql_where=done_once,
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        _text("session_id"),
        sa.Column("owner", TEXT),
        _integer("fence"),
        sa.Column("expires_at", sa.TIMESTAMP(), nullable=False),
        sa.Column("renewed_at", sa.TIMESTAMP(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_leases")),
        _session("leases"),
        _check("leases", "fence", "fence >= 1"),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _integer(name: str) -> sa.Column[int]:
    # Part of a key, but never numbered by the database.
    return sa.Column(name, sa.Integer, nullable=False, autoincrement=False)


def _session(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_session_id_sessions")
    return sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=name, ondelete="CASCADE")


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))
