"""Databases for tests on a PostgreSQL server: made, copied, lost and dropped, each by its URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url


def make(server: str, name: str = "", like: str = "template0") -> str:
    """The URL of a new database on the server, empty or a copy of the database `like`."""
    name = name or f"edi_{uuid4().hex[:16]}"
    made = _with_name(server, name)
    with administration(server) as execute:
        execute("CREATE DATABASE {} TEMPLATE {}", name, like)
    return made


def drop(url: str) -> None:
    """Drop a database, whoever is connected to it."""
    with administration(url) as execute:
        execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name_of(url))


def lose(url: str) -> None:
    """Leave an empty database in its place."""
    drop(url)
    make(url, name_of(url))


def name_of(url: str) -> str:
    name = make_url(url).database
    assert name
    return name


def _with_name(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def conninfo(url: str) -> str:
    """The URL as libpq and its tools take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def administration(url: str) -> Iterator[Any]:
    """A function that executes a statement with names in it, in the server's own database."""
    parsed: URL = make_url(url).set(database="postgres", drivername="postgresql")
    with psycopg.connect(parsed.render_as_string(hide_password=False), autocommit=True) as connection:
        yield lambda statement, *names: connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
