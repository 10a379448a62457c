"""The tests of learning run on both databases, as those of the storage do."""

from tests.storage.conftest import (  # noqa: F401 - fixtures
    database_url,
    kind,
    migrated,
    server_database,
    server_url,
)
