"""What alembic runs for every command; the caller holds the connection, its transaction and its lock."""

from __future__ import annotations

from alembic import context

from edi_storage import learning_tables  # noqa: F401 - its tables belong to Base too
from edi_storage.tables import Base

# The transaction is the caller's, so all pending revisions are one step: the old schema or the new one.
context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
