"""Homes of the faulted processes, each with its database: the file in it, or one of its own on a PostgreSQL server.

Which of the two follows from EDI_TEST_DATABASE_URL. A home's database is called after its path, so that every process
knows it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.postgres import URL

SERVER = os.environ.get(URL, "")


def database_url(home: Path) -> str:
    """What EDI_DATABASE_URL is for this home; "" for the file in it."""
    return _databases().beside(SERVER, _name(home)) if SERVER else ""


def place(home: Path, like: Path | None = None) -> None:
    """Make what the home needs before anybody works in it; `like` is a home that nobody uses, to be copied."""
    if like is not None:
        shutil.copytree(like, home, dirs_exist_ok=True)
    if SERVER:
        _databases().make(SERVER, _name(home), _name(like) if like else "template0")


def lose_database(home: Path) -> None:
    """The database is gone, and nothing else."""
    if SERVER:
        _databases().lose(database_url(home))
    for file in home.glob("edi_sessions.db*"):
        file.unlink()


def remove(home: Path) -> None:
    """The home is not needed any more."""
    shutil.rmtree(home, ignore_errors=True)
    if SERVER:
        _databases().drop(database_url(home))


def _name(home: Path) -> str:
    return f"edi_{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"


def _databases():  # type: ignore[no-untyped-def]
    # Only where there is a server: it needs its driver.
    from tests import databases

    return databases
