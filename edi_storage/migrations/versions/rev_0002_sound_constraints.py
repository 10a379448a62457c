"""The five tables with the constraints the seed meant; rows that break them move to `quarantine`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT
from edi_storage.migrations.seed_rows import move_rows

revision = "0002"
down_revision = "0001"

_TABLES = ("sessions", "prompts", "entities", "validations", "user_feedback")


def upgrade() -> None:
    """Make the tables anew beside the old ones, move the rows, drop the old ones."""
    for table in _TABLES:
        op.rename_table(table, f"seed_{table}")
    if op.get_context().dialect.name == "postgresql":
        for table in _TABLES[1:]:
            op.execute(f"ALTER SEQUENCE {table}_id_seq RENAME TO seed_{table}_id_seq")
    _create_quarantine()
    _create_sessions()
    _create_prompts()
    _create_entities()
    _create_validations()
    _create_user_feedback()
    move_rows(op.get_bind(), revision)
    for table in reversed(_TABLES):
        op.drop_table(f"seed_{table}")


def _create_quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("table_name", TEXT, nullable=False),
        sa.Column("row_json", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("revision", TEXT, nullable=False),
        _created_at(),
        sqlite_autoincrement=True,
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", TEXT, nullable=False),
        _created_at(),
        sa.Column("image_path", TEXT, nullable=False),
        sa.Column("naive_prompt", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("final_alignment_score", sa.Float),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.CheckConstraint("status IN ('in_progress', 'completed', 'failed')", name=op.f("ck_sessions_status")),
        sa.CheckConstraint("id <> ''", name=op.f("ck_sessions_id_not_empty")),
        _score("sessions", "final_alignment_score"),
    )
    op.create_index("ix_sessions_created_at_id", "sessions", ["created_at", "id"])
    op.create_index("ix_sessions_status_created_at_id", "sessions", ["status", "created_at", "id"])


def _create_prompts() -> None:
    _create_child(
        "prompts",
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("positive_prompt", TEXT),
        sa.Column("negative_prompt", TEXT),
        sa.Column("quality_score", sa.Float),
        _created_at(),
        sa.Column("attempt_number", sa.Integer, server_default=sa.text("1"), nullable=False),
        _unique("prompts", "session_id", "attempt_number", "iteration"),
        _whole("prompts", "attempt_number", 1),
        _whole("prompts", "iteration", 0),
        _score("prompts", "quality_score"),
    )


def _create_entities() -> None:
    _create_child(
        "entities",
        sa.Column("entity_id", TEXT, nullable=False),
        sa.Column("label", TEXT),
        sa.Column("confidence", sa.Float),
        sa.Column("bbox_json", TEXT),
        sa.Column("mask_path", TEXT),
        sa.Column("color_hex", TEXT),
        sa.Column("area_percent", sa.Float),
        _unique("entities", "session_id", "entity_id"),
        _score("entities", "confidence"),
        sa.CheckConstraint(
            "area_percent IS NULL OR area_percent BETWEEN 0 AND 100", name=op.f("ck_entities_area_percent")
        ),
    )


def _create_validations() -> None:
    _create_child(
        "validations",
        sa.Column("attempt_number", sa.Integer, nullable=False),
        sa.Column("alignment_score", sa.Float),
        sa.Column("preserved_count", sa.Integer),
        sa.Column("modified_count", sa.Integer),
        sa.Column("unintended_count", sa.Integer),
        sa.Column("user_feedback", TEXT),
        _created_at(),
        _unique("validations", "session_id", "attempt_number"),
        _score("validations", "alignment_score"),
        _whole("validations", "attempt_number", 0),
        *(_optional_whole("validations", f"{kind}_count", 0) for kind in ("preserved", "modified", "unintended")),
    )


def _create_user_feedback() -> None:
    _create_child(
        "user_feedback",
        sa.Column("feedback_type", TEXT, nullable=False),
        sa.Column("comments", TEXT),
        sa.Column("rating", sa.Integer),
        _created_at(),
        sa.Column("reasons", sa.JSON, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("feedback_key", TEXT, server_default=sa.text("'verdict'"), nullable=False),
        _unique("user_feedback", "session_id", "feedback_key"),
        sa.CheckConstraint(
            "feedback_type IN ('accept', 'reject', 'partial')", name=op.f("ck_user_feedback_feedback_type")
        ),
        sa.CheckConstraint(
            "rating IS NULL OR (rating BETWEEN 1 AND 5 AND CAST(rating AS INTEGER) = rating)",
            name=op.f("ck_user_feedback_rating"),
        ),
    )


def _create_child(table: str, *items: sa.schema.SchemaItem) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("session_id", TEXT, nullable=False),
        *items,
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f(f"fk_{table}_session_id_sessions"), ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=False)


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def _score(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IS NULL OR {column} BETWEEN 0 AND 1", name=op.f(f"ck_{table}_{column}_in_0_1"))


def _whole(table: str, column: str, least: int) -> sa.CheckConstraint:
    # The CAST refuses 4.5 and 'abc', which SQLite's comparisons let through.
    rule = f"{column} >= {least} AND CAST({column} AS INTEGER) = {column}"
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{column}"))


def _optional_whole(table: str, column: str, least: int) -> sa.CheckConstraint:
    rule = f"{column} IS NULL OR ({column} >= {least} AND CAST({column} AS INTEGER) = {column})"
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{column}"))
