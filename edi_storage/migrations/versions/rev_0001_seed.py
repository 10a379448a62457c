"""The seed's schema, to the letter."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0001"
down_revision = None

# What the seed's script executes, blanks included, so that its databases and ours are the same at this revision.
_SEED = (
    """
            CREATE TABLE IF NOT EXISTS sessions (
                id TEXT PRIMARY KEY,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                image_path TEXT NOT NULL,
                naive_prompt TEXT NOT NULL,
                status TEXT CHECK(status IN ('in_progress', 'completed', 'failed')),
                final_alignment_score REAL
            )
        """,
    """
            CREATE TABLE IF NOT EXISTS prompts (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                iteration INT,
                positive_prompt TEXT,
                negative_prompt TEXT,
                quality_score REAL,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """,
    """
            CREATE TABLE IF NOT EXISTS entities (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                entity_id TEXT,
                label TEXT,
                confidence REAL,
                bbox_json TEXT,
                mask_path TEXT,
                color_hex TEXT,
                area_percent REAL
            )
        """,
    """
            CREATE TABLE IF NOT EXISTS validations (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                attempt_number INT,
                alignment_score REAL,
                preserved_count INT,
                modified_count INT,
                unintended_count INT,
                user_feedback TEXT,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """,
    """
            CREATE TABLE IF NOT EXISTS user_feedback (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT REFERENCES sessions(id),
                feedback_type TEXT CHECK(feedback_type IN ('accept', 'reject', 'partial')),
                comments TEXT,
                rating INT CHECK(rating BETWEEN 1 AND 5),
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            )
        """,
)


def upgrade() -> None:
    """Make the five tables."""
    if op.get_context().dialect.name == "sqlite":
        for statement in _SEED:
            op.execute(statement)
        return
    _sessions()
    _child("prompts", _int("iteration"), _text("positive_prompt"), _text("negative_prompt"), _real("quality_score"))
    _child(
        "entities",
        *(_text("entity_id"), _text("label"), _real("confidence"), _text("bbox_json"), _text("mask_path")),
        *(_text("color_hex"), _real("area_percent")),
        dated=False,
    )
    _child(
        "validations",
        *(_int("attempt_number"), _real("alignment_score"), _int("preserved_count"), _int("modified_count")),
        *(_int("unintended_count"), _text("user_feedback")),
    )
    _child(
        "user_feedback",
        *(_text("feedback_type"), _text("comments"), _int("rating")),
        _check("feedback_type IN ('accept', 'reject', 'partial')", "feedback_type"),
        _check("rating BETWEEN 1 AND 5", "rating"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        _text("id"),
        _created_at(),
        sa.Column("image_path", TEXT, nullable=False),
        sa.Column("naive_prompt", TEXT, nullable=False),
        _text("status"),
        _real("final_alignment_score"),
        sa.PrimaryKeyConstraint("id", name=op.f("seed_pk_sessions")),
        _check("status IN ('in_progress', 'completed', 'failed')", "status"),
    )


def _child(table: str, *columns: sa.schema.SchemaItem, dated: bool = True) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer, autoincrement=True),
        _text("session_id"),
        *columns,
        *([_created_at()] if dated else []),
        # Other names than the later revisions give: they must not meet while rows move from one to the other.
        sa.PrimaryKeyConstraint("id", name=op.f(f"seed_pk_{table}")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f(f"seed_fk_{table}")),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float)


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP"))


def _check(rule: str, name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"seed_ck_{name}"))
