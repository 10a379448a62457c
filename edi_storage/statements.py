"""The statements of every boundary, and those that read a session: compiled once, on SQLite given to the driver itself.

SQLAlchemy's way to the driver takes several times as long as SQLite takes for one of these. They run in the transaction
of its connection all the same, and their values pass through the same column types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase

Values = Mapping[str, Any]
_Processor = Callable[[Any], Any] | None


@dataclass(slots=True)
class Direct:
    """What prepared statements need of a connection to SQLite, and nothing else; its transaction has been begun."""

    dialect: Dialect
    #: Of the driver: one for all statements, where each `execute` of a connection would make one.
    cursor: Any


#: What prepared statements run on.
Handle = Connection | Direct


class Prepared:
    """A statement with named parameters. One without SQLite's driver is run by SQLAlchemy as usual."""

    def __init__(self, statement: UpdateBase | Select[Any], names: Sequence[str], dialect: Dialect) -> None:
        # What SQLAlchemy takes in the place of a statement, though its types say otherwise.
        self._compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
        self._direct = dialect.name == "sqlite"
        if self._direct:
            self._text = self._compiled.string
            names = self._compiled.positiontup or ()
            self._take = _taking(names)
            processors = ((place, _to_driver(self._compiled, name, dialect)) for place, name in enumerate(names))
            self._processors = [(place, bind) for place, bind in processors if bind is not None]
            columns = statement.selected_columns if isinstance(statement, Select) else ()
            self._columns = [
                (str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None))
                for column in columns
            ]

    def bind(self, values: Values) -> Any:
        """The values of one row as `execute` takes them; made beforehand, nothing is left to do in the transaction."""
        if not self._direct:
            return dict(values)
        taken = self._take(values)
        if not self._processors:
            return taken
        arguments = [*taken]
        for place, bind in self._processors:
            arguments[place] = bind(arguments[place])
        return arguments

    def execute(self, connection: Handle, bound: Sequence[Any]) -> int:
        """Run it for each of these rows, as `bind` gives them; the number of rows that it hit, when it is run once."""
        once = len(bound) == 1
        if self._direct:
            driver = _driver(connection)
            done = driver.execute(self._text, bound[0]) if once else driver.executemany(self._text, bound)
            return int(done.rowcount)
        return int(_sqlalchemy(connection).execute(self._compiled, bound[0] if once else list(bound)).rowcount)

    def run(self, connection: Handle, values: Values) -> int:
        """Run it once; the number of rows that it hit."""
        return self.execute(connection, [self.bind(values)])

    def rows(self, connection: Handle, values: Values) -> list[dict[str, Any]]:
        """The rows of a SELECT, by column."""
        if not self._direct:
            return [dict(row) for row in _sqlalchemy(connection).execute(self._compiled, dict(values)).mappings()]
        found = _driver(connection).execute(self._text, self.bind(values))
        return [
            {
                name: value if read is None else read(value)
                for (name, read), value in zip(self._columns, row, strict=True)
            }
            for row in found
        ]


@dataclass(slots=True)
class Write:
    """A statement and the rows that it writes, bound."""

    statement: Prepared
    bound: Sequence[Any]

    def run(self, connection: Handle) -> int:
        """See `Prepared.execute`."""
        return self.statement.execute(connection, self.bound)


#: What all engines on SQLite speak: each has a dialect of its own, and is often gone after one session.
_SQLITE = pysqlite.dialect()


def lasting(dialect: Dialect) -> Dialect:
    """The dialect for which to compile what shall serve other engines too."""
    return _SQLITE if dialect.name == "sqlite" else dialect


def prepared(statement: UpdateBase | Select[Any], names: tuple[str, ...], dialect: Dialect) -> Prepared:
    """The statement with parameters of these names, compiled the first time only."""
    return _prepared(statement, names, lasting(dialect))


@lru_cache(maxsize=64)
def _prepared(statement: UpdateBase | Select[Any], names: tuple[str, ...], dialect: Dialect) -> Prepared:
    return Prepared(statement, names, dialect)


def _sqlalchemy(connection: Handle) -> Connection:
    assert isinstance(connection, Connection)
    return connection


def _driver(connection: Handle) -> Any:
    if isinstance(connection, Direct):
        return connection.cursor
    raw = connection.connection.dbapi_connection
    assert raw is not None
    return raw


def _taking(names: Sequence[str]) -> Callable[[Values], Sequence[Any]]:
    """What takes the values of these names, in a third of the time that a loop takes for an entity."""
    # Of a single name, `itemgetter` would give the value itself.
    return itemgetter(*names) if len(names) > 1 else lambda values: [values[name] for name in names]


def _to_driver(compiled: SQLCompiler, name: str, dialect: Dialect) -> _Processor:
    return compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
