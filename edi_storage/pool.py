"""The pool of connections to SQLite, with some at hand for the next stage boundaries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.pool import QueuePool

from edi_storage.database_file import identity

#: Where a connection's `info` has who opened it: the process, the file, and what identified it then.
OPENED: Final = "edi_opened"

#: How many stay at hand; more are needed only while more threads than this store boundaries at once.
_MOST: Final = 5


@dataclass(slots=True)
class Writer:
    """A connection of the driver that belongs to nobody else, outside of what SQLAlchemy counts."""

    raw: Any
    #: Its only one: to make one for each statement takes longer than to run some of them.
    cursor: Any
    info: dict[Any, Any]
    #: The pool's `KeepingPool.trusted` when it was taken from it.
    trusted: int


class KeepingPool(QueuePool):
    """A pool that keeps the connections of prepared transactions at hand, as the driver's own.

    To check one out and in takes longer than SQLite takes for the statements of a stage boundary. They are detached:
    one that stayed checked out would be missing where the pool has no more, and SQLAlchemy would hold it for ever.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kept: list[Writer] = []
        #: Raised when no connection that was opened before is to be used any more.
        self.trusted = 0
        #: How many stage boundaries were stored.
        self.boundaries = 0

    def take(self) -> Writer:
        """A connection that nobody else has. Give it to `keep`, or roll back and close its `raw`."""
        try:
            kept = self._kept.pop()  # a single step: no other thread gets the same
        except IndexError:
            return self._open()
        return kept if still_ours(kept.info) else self._open()

    def _open(self) -> Writer:
        trusted = self.trusted
        pooled = self.connect()
        raw: Any = pooled.dbapi_connection
        writer = Writer(raw, raw.cursor(), dict(pooled.info), trusted)
        pooled.detach()
        return writer

    def keep(self, writer: Writer) -> None:
        """Have a connection at hand that `take` gave, and that is in no transaction."""
        if writer.trusted == self.trusted and len(self._kept) < _MOST:
            self._kept.append(writer)
        else:
            writer.raw.close()

    def distrust(self) -> None:
        """Close those at hand, and those in use when they are given back."""
        self.trusted += 1
        kept, self._kept = self._kept, []
        for writer in kept:
            writer.raw.close()

    def dispose(self) -> None:
        """Close all connections that nobody uses."""
        self.distrust()
        super().dispose()


def still_ours(info: Mapping[Any, Any]) -> bool:
    """Whether this process opened the connection with this `info`, and its file is still the one at that path."""
    process, path, file = info[OPENED]
    return bool(process == os.getpid() and file == identity(path))
