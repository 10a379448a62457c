"""How a schema is made: numbered revisions, run by `upgrade`, which is the only way.

Going back is not offered: every upgrade of a database with tables leaves a verified backup of it first.
"""

from __future__ import annotations

from edi_storage.migrations.runner import MigrationReport, current, expected_schema, head, is_current, schema, upgrade

__all__ = ["MigrationReport", "current", "expected_schema", "head", "is_current", "schema", "upgrade"]
