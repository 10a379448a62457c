"""What a process works with: the database, the checkpoints and the files of one EDI_HOME."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edi_storage.checkpoints import SessionStateManager
from edi_storage.database import EDIDatabase
from edi_storage.files import FileStore
from edi_storage.settings import Settings


@dataclass(frozen=True)
class Store:
    """Where the truth is (`database`), its portable copy (`checkpoints`), and the pictures (`files`)."""

    database: EDIDatabase
    checkpoints: SessionStateManager
    files: FileStore


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the store that the settings name; made on first use, closed at the end of the block."""
    files = FileStore(settings.storage_url, allowed_schemes=settings.allowed_schemes)
    with EDIDatabase(settings.database_url) as database:
        yield Store(database, SessionStateManager(store=files), files)
