"""The type of text in every revision."""

from __future__ import annotations

import sqlalchemy as sa

#: Compared and sorted by its characters' numbers on every database, as SQLite does: ids are looked up by how they
#: start, and a server's own language would put them in another order.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
