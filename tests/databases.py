"""Databases for tests on a PostgreSQL server: made, copied, lost and dropped, each by its URL."""

from __future__ import annotations

import time
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
    with administration(server) as execute:
        # A process that has just ended may still be connected.
        execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{like}'")
        execute("CREATE DATABASE {} TEMPLATE {}", name, like)
    return beside(server, name)


def cut_links(url: str) -> int:
    """End all connections to a database, as a failing network or an administrator would; returns how many."""
    with administration(url) as execute:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
        return len(execute(cut.format(name_of(url))).fetchall())


def backends(url: str) -> list[int]:
    """The processes of the server that serve a database."""
    with administration(url) as execute:
        found = execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name_of(url)}'").fetchall()
    return [pid for (pid,) in found]


def in_transaction(url: str) -> int:
    """How many connections to a database stand still in a transaction."""
    state = "state = 'idle in transaction'"
    with administration(url) as execute:
        found = execute(f"SELECT FROM pg_stat_activity WHERE datname = '{name_of(url)}' AND {state}")
        return len(found.fetchall())


def wait(url: str) -> None:
    """Until the server takes connections (again)."""
    with administration(url):
        pass


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


def beside(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def conninfo(url: str) -> str:
    """The URL as libpq and its tools take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def administration(url: str) -> Iterator[Any]:
    """A function that executes a statement with names in it, in the server's own database.

    A server that was killed is waited for until it takes connections again, at most a minute.
    """
    parsed: URL = make_url(url).set(database="postgres", drivername="postgresql")
    with _connect(parsed.render_as_string(hide_password=False)) as connection:
        yield lambda statement, *names: connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _connect(url: str) -> psycopg.Connection[Any]:
    until = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
