"""A database with one number in it, and second processes to fight over it."""

import sqlite3
import subprocess
import sys
from contextlib import contextmanager

from sqlalchemy import bindparam, column, table, text, update

from edi_storage.connection import create_database, make_engine, reading, sqlite_driver, sqlite_url, writing
from edi_storage.statements import prepared

#: Each SQLite there is: the carried one (WAL) and the standard library's (often too old for WAL).
DRIVERS = {driver.__name__: driver for driver in (sqlite_driver(), sqlite3)}


@contextmanager
def opened(path, **options):
    engine = make_engine(sqlite_url(path), **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def counter(path, **options):
    """An engine on a database with a table `counter` that holds one row, 0."""
    with opened(path, **options) as engine:
        create_database(engine)
        with writing(engine) as connection:
            connection.execute(text("CREATE TABLE counter (n INTEGER NOT NULL UNIQUE)"))
            connection.execute(text("INSERT INTO counter VALUES (0)"))
        yield engine


def value(engine):
    with reading(engine) as connection:
        return connection.execute(text("SELECT n FROM counter")).scalar_one()


def add(engine, amount=1):
    with writing(engine) as connection:
        n = connection.execute(text("SELECT n FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET n = :n"), {"n": n + amount})


_SET = update(table("counter", column("n"))).values(n=bindparam("to"))


def put(connection, n):
    """Make the number `n`, by a prepared statement."""
    assert prepared(_SET, ("to",), connection.dialect).run(connection, {"to": n}) == 1


def python(code, *arguments):
    """A second process, which says `ready` and waits for a line before it does its work."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()
