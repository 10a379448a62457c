"""The pool of connections to SQLite, with one at hand for the next stage boundary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from edi_storage.database_file import identity

#: Where a connection's `info` has who opened it: the process, the file, and what identified it then.
OPENED: Final = "edi_opened"


class KeepingPool(QueuePool):
    """A pool that keeps the connection of the last prepared transaction checked out, at hand for the next.

    To check one out and in takes longer than SQLite takes for the statements of a stage boundary. Only one is kept:
    those of other threads go back to the pool, which has no more than it has.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kept: list[PoolProxiedConnection] = []
        #: How often a connection was kept.
        self.times = 0

    def take(self) -> PoolProxiedConnection:
        """A connection that nobody else has. Give it to `keep`, or close it, which rolls back."""
        try:
            pooled = self._kept.pop()  # a single step: no other thread gets the same
        except IndexError:
            return self.connect()
        if still_ours(pooled.info):
            return pooled
        pooled.close()  # whoever checks it out throws it away
        return self.connect()

    def keep(self, pooled: PoolProxiedConnection) -> None:
        """Have a connection at hand that `take` gave, and that is in no transaction."""
        self._kept.append(pooled)
        self.times += 1
        self._give_back(1)

    def dispose(self) -> None:
        """Close all connections that nobody uses."""
        self._give_back(0)
        super().dispose()

    def _give_back(self, but: int) -> None:
        with suppress(IndexError):  # another thread has taken it
            while len(self._kept) > but:
                self._kept.pop(0).close()


def still_ours(info: Mapping[Any, Any]) -> bool:
    """Whether this process opened the connection with this `info`, and its file is still the one at that path."""
    process, path, file = info[OPENED]
    return bool(process == os.getpid() and file == identity(path))
