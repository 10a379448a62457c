"""What a process works with: the database, the checkpoints and the files of one EDI_HOME."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

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


#: The databases that are open in this process, by their URLs, and how many blocks use each.
_open: Final[dict[str, EDIDatabase]] = {}
_users: Final[Counter[str]] = Counter()
_lock: Final = threading.Lock()


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the store that the settings name; made on first use, closed at the end of the block.

    Blocks of one process that overlap, in whatever threads, share the database's connections.
    """
    files = FileStore(settings.storage_url, allowed_schemes=settings.allowed_schemes)
    with _database(settings.database_url) as database:
        yield Store(database, SessionStateManager(store=files), files)


@contextmanager
def _database(url: str) -> Iterator[EDIDatabase]:
    with _lock:
        if (known := _open.get(url)) is not None:
            # It may have been lost or replaced since the others opened it.
            known.init_db()
        database = known or EDIDatabase(url)
        _open[url] = database
        _users[url] += 1
    try:
        yield database
    finally:
        with _lock:
            _users[url] -= 1
            is_last = not _users[url]
            if is_last:
                del _open[url], _users[url]
        if is_last:
            database.close()
