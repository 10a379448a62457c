"""A kind of picture more among the artifacts: what an attempt changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from edi_storage.migrations.columns import TEXT

revision = "0006"
down_revision = "0005"

_RULE = "kind IN ('original', 'mask', 'edited', 'delta')"
_COLUMNS = ("session_id", "kind", "name", "path", "sha256")


def upgrade() -> None:
    """Let artifacts be of the kind "delta". SQLite cannot change a CHECK: there the table is made anew."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_artifacts_kind"), "artifacts", type_="check")
        op.create_check_constraint(op.f("ck_artifacts_kind"), "artifacts", _RULE)
        return
    op.rename_table("artifacts", "old_artifacts")
    _create_artifacts()
    names = ", ".join(_COLUMNS)
    op.execute(f"INSERT INTO artifacts ({names}) SELECT {names} FROM old_artifacts")  # noqa: S608 - constants above
    op.drop_table("old_artifacts")


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        *(sa.Column(name, TEXT, nullable=False) for name in _COLUMNS),
        sa.PrimaryKeyConstraint("session_id", "kind", "name", name=op.f("pk_artifacts")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_artifacts_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.CheckConstraint(_RULE, name=op.f("ck_artifacts_kind")),
    )
