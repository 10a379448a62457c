"""On which databases the tests of the storage run.

Those that ask for `database_url` run on both: a SQLite file, and a database of their own on a PostgreSQL server that is
started for the tests. With EDI_TEST_DATABASE_URL set they run on that server only, and what is marked `sqlite_file` is
skipped. With EDI_TEST_S3 set the files of a store are in a bucket there, and what is marked `local_files` is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from edi_storage import EDIDatabase, Settings, Store, open_store
from edi_storage.checkpoints import SessionStateManager
from edi_storage.connection import sqlite_url
from tests import databases, s3
from tests.postgres import URL, NoServer, server

_ON_SERVER = bool(os.environ.get(URL))
_ON_S3 = bool(os.environ.get(s3.URL))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server: the one that is named, or else a private one."""
    if _ON_SERVER:
        yield os.environ[URL]
        return
    try:
        with server() as running:
            yield running.url
    except NoServer as reason:
        pytest.skip(f"NOT TESTED: PostgreSQL ({reason})")


@pytest.fixture(params=["postgresql"] if _ON_SERVER else ["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database that a test runs on."""
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """A place for a database: a file that is not there yet, or a database without a session."""
    if kind == "sqlite":
        yield sqlite_url(tmp_path / "edi.db")
    else:
        yield request.getfixturevalue("server_database")


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    """An empty database on the PostgreSQL server."""
    url = databases.make(server_url)
    yield url
    databases.drop(url)


@pytest.fixture(scope="session")
def migrated(server_url: str) -> Iterator[str]:
    """A database whose schema is made: to copy it takes a tenth of the time."""
    url = databases.make(server_url)
    EDIDatabase(url).close()
    yield url
    databases.drop(url)


@pytest.fixture
def server_database(migrated: str) -> Iterator[str]:
    """A database on the PostgreSQL server that has the schema and nothing else."""
    url = databases.make(migrated, like=databases.name_of(migrated))
    yield url
    databases.drop(url)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.Server]:
    """One S3 server for all tests of this process: what speaks S3 keeps its connection from one store to the next."""
    if _ON_S3:
        yield s3.Server(os.environ[s3.URL])
        return
    with s3.server() as running:
        yield running


@pytest.fixture
def bucket_url(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new, empty bucket."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()


@pytest.fixture
def settings(tmp_path: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home of its own, with a database of this kind; its files are in its folder or in a bucket."""
    for name in ("EDI_DATABASE_URL", "EDI_STORAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    url = request.getfixturevalue("server_database") if kind == "postgresql" else ""
    if not _ON_S3:
        return Settings(home=tmp_path / "home", database_url=url)
    bucket = request.getfixturevalue("bucket_url")
    return Settings(home=tmp_path / "home", database_url=url, storage_url=bucket, allowed_schemes=["s3"])


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """The store of that home."""
    with open_store(settings) as opened:
        yield opened


NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[EDIDatabase]:
    with EDIDatabase(database_url, clock=clock) as opened:
        yield opened


class Ticking:
    """Every look is a second later."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(params=["folder", "memory"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStateManager]:
    url = str(tmp_path / "sessions") if request.param == "folder" else f"memory://{uuid4()}/sessions"
    yield SessionStateManager(url, clock=Ticking())
    if request.param == "memory":
        import fsspec

        fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> SessionStateManager:
    return SessionStateManager(tmp_path / "sessions", clock=Ticking())
