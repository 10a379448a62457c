"""The homes of tests, each with its data: in its folder, or on servers, as on many machines.

With EDI_TEST_DATABASE_URL set a home has a database of its own on that PostgreSQL server, with EDI_TEST_S3 set a bucket
of its own on that S3 server: `python -m tests.postgres --s3 -- pytest` sets both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edi_storage import EDIDatabase, Settings
from edi_storage.files import FileStore
from tests import postgres, s3

#: The server of the databases, and that of the files; "" where they are in the folders of the homes.
DATABASES = os.environ.get(postgres.URL, "")
FILES = os.environ.get(s3.URL, "")


@cache
def environment(home: Path) -> Mapping[str, str]:
    """What a process is told of a home; its database and its bucket are made when it is first asked for."""
    told = {"EDI_HOME": str(home)}
    if DATABASES:
        told["EDI_DATABASE_URL"] = _databases().make(DATABASES, like=_template())
    if FILES:
        told |= {"EDI_STORAGE_URL": s3.Server(FILES).bucket(), "EDI_ALLOWED_SCHEMES": "s3"}
    _made.append(told)
    return told


#: What `environment` has told, for `end`.
_made: list[Mapping[str, str]] = []


@cache
def _template() -> str:
    """The name of a database whose schema is made: to copy it takes a tenth of the time."""
    url = _databases().make(DATABASES)
    EDIDatabase(url).close()
    _made.append({"EDI_DATABASE_URL": url})
    name: str = _databases().name_of(url)
    return name


def settings_of(home: Path, **more: Any) -> Settings:
    """The settings of a home."""
    told = {name.removeprefix("EDI_").lower(): value for name, value in environment(home).items()}
    return Settings(**told, **more)


def enter(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Let this process work in a home."""
    for name, value in environment(home).items():
        patch.setenv(name, value)


def database(home: Path) -> EDIDatabase:
    """The database of a home."""
    return EDIDatabase(settings_of(home).database_url)


def lose_database(home: Path) -> None:
    """The database of a home is gone, and nothing else."""
    if url := environment(home).get("EDI_DATABASE_URL"):
        _databases().lose(url)
    for file in home.glob("edi_sessions.db*"):
        file.unlink()


def read(path: str) -> bytes:
    """The bytes of a stored file, by the path or the URL that people are told."""
    folder, name = path.rsplit("/", 1)
    return FileStore(folder, allowed_schemes=["s3"]).read(name)


def remove(path: str) -> None:
    """Remove a stored file, by the path or the URL that people are told."""
    folder, name = path.rsplit("/", 1)
    FileStore(folder, allowed_schemes=["s3"]).remove(name)


def end() -> None:
    """Drop the databases that were made. Nothing works in their homes any more."""
    while _made:
        if url := _made.pop().get("EDI_DATABASE_URL"):
            _databases().drop(url)


def _databases():  # type: ignore[no-untyped-def]
    # Only where there is a server: it needs its driver.
    from tests import databases

    return databases
