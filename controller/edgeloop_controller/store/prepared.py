"""Statements that are asked at every tick or of every batch: made and compiled once.

SQLAlchemy takes ten to fifty times as long as SQLite does for a statement that finds a handful of
rows: it looks the statement up by its structure, makes a context, a result and its rows. A
`Prepared` is compiled once in the life of the process, and the driver runs its text.

Invariants: it runs in the session's transaction, after what the session itself has still to
write; values pass through the same conversions as SQLAlchemy's own; what the driver raises comes
as SQLAlchemy's exceptions. Where the driver is not SQLite's, SQLAlchemy runs it.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from sqlalchemy import Column, Connection, Dialect, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

Row = tuple[Any, ...]
_Convert = Callable[[Any], Any]
_SQLITE: Final = ("sqlite", "pysqlite")


class Prepared:
    """`statement` is a select of columns, or an insert, update or delete of many rows; a list of
    values is `bindparam(name, expanding=True)`."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: _Compiled | None = None

    def rows(self, session: Session, **values: Any) -> Sequence[Row]:
        connection = _connection(session)
        compiled = self._of(connection.dialect)
        if compiled is None:
            return [tuple(row) for row in session.execute(self._statement, values)]
        text, arguments = compiled.text(values), compiled.arguments(values)
        driver = connection.connection.driver_connection
        assert driver is not None
        try:
            found: list[Row] = driver.execute(text, arguments).fetchall()
        except sqlite3.Error as error:
            raise translated(error, connection, text, arguments) from error
        return compiled.converted(found)

    def scalar(self, session: Session, **values: Any) -> Any:
        """The first column of the first row; None when there is no row."""
        found = self.rows(session, **values)
        return found[0][0] if found else None

    def run(self, session: Session, many: Sequence[Mapping[str, Any]]) -> None:
        """Once with each of `many`, which may hold more than it takes."""
        if not many:
            return
        connection = _connection(session)
        compiled = self._of(connection.dialect)
        if compiled is None:
            names = cast(Any, self._statement).compile(dialect=connection.dialect).params.keys()
            session.execute(
                self._statement, [{n: v for n, v in one.items() if n in names} for one in many]
            )
            return
        arguments = [compiled.arguments(values) for values in many]
        driver = connection.connection.driver_connection
        assert driver is not None
        try:
            driver.executemany(compiled.text({}), arguments).close()
        except sqlite3.Error as error:
            raise translated(error, connection, compiled.text({}), arguments) from error

    def _of(self, dialect: Dialect) -> "_Compiled | None":
        if self._compiled is None and (dialect.name, dialect.driver) == _SQLITE:
            self._compiled = _Compiled.of(self._statement, dialect)
        return self._compiled


def _connection(session: Session) -> Connection:
    session.flush()
    return session.connection()


def translated(
    error: sqlite3.Error, connection: Connection, text: str, arguments: Any = ()
) -> BaseException:
    """What SQLAlchemy raises where SQLite's driver raises `error`."""
    return DBAPIError.instance(text, arguments, error, sqlite3.Error, dialect=connection.dialect)


@dataclass
class _Compiled:
    """A statement as SQLite's driver takes it: its text, and where each value goes."""

    template: str
    """With `__[POSTCOMPILE_name]` where a list of values goes."""
    places: Sequence[str]
    """The names of the values, in the order of the text's question marks."""
    lists: Sequence[str]
    fixed: Mapping[str, Any]
    """Values that nobody gives."""
    converts_in: Mapping[str, _Convert]
    converts_out: Sequence[tuple[int, _Convert]]
    _texts: dict[tuple[int, ...], str] = field(default_factory=dict)

    @classmethod
    def of(cls, statement: Executable, dialect: Dialect) -> "_Compiled":
        compiled = cast(SQLCompiler, cast(Any, statement).compile(dialect=dialect))
        assert compiled.positiontup is not None
        converts_in = {
            name: convert
            for name, bound in compiled.binds.items()
            if (convert := bound.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        # Values that stand in the statement itself, and defaults of columns that it does not name.
        given = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        given |= {column.key: _default(column) for column in compiled.insert_prefetch}
        fixed = {
            name: converts_in[name](value) if name in converts_in else value
            for name, value in given.items()
        }
        columns = getattr(statement, "selected_columns", ())
        found = [
            (place, column.type.dialect_impl(dialect).result_processor(dialect, None))
            for place, column in enumerate(columns)
        ]
        return cls(
            template=compiled.string,
            places=compiled.positiontup,
            lists=[name for name, bound in compiled.binds.items() if bound.expanding],
            fixed=fixed,
            converts_in=converts_in,
            converts_out=[(place, convert) for place, convert in found if convert is not None],
        )

    def text(self, values: Mapping[str, Any]) -> str:
        """A list's length is rounded up to a power of two, so that there are few texts and the
        driver keeps what SQLite made of them."""
        lengths = tuple(_padded(len(values[name])) for name in self.lists)
        text = self._texts.get(lengths)
        if text is None:
            text = self.template
            for name, length in zip(self.lists, lengths, strict=True):
                marks = ", ".join("?" * length)
                text = text.replace(f"(__[POSTCOMPILE_{name}])", f"({marks})")
            self._texts[lengths] = text
        return text

    def arguments(self, values: Mapping[str, Any]) -> Sequence[Any]:
        arguments: list[Any] = []
        for name in self.places:
            convert = self.converts_in.get(name)
            if name in self.lists:
                some = list(values[name])
                if convert is not None:
                    some = [convert(value) for value in some]
                # NULL is equal to nothing: an empty list finds nothing.
                arguments += some + [some[-1] if some else None] * (_padded(len(some)) - len(some))
            elif name not in values:
                arguments.append(self.fixed[name])
            else:
                arguments.append(convert(values[name]) if convert is not None else values[name])
        return arguments

    def converted(self, rows: list[Row]) -> Sequence[Row]:
        if not self.converts_out:
            return rows
        converted = []
        for row in rows:
            columns = list(row)
            for place, convert in self.converts_out:
                columns[place] = convert(columns[place])
            converted.append(tuple(columns))
        return converted


def _default(column: Column[Any]) -> Any:
    default: Any = column.default
    if default is None or not default.is_scalar:
        raise TypeError(f"{column} is made anew for each row: the statement must name it")
    return default.arg


def _padded(length: int) -> int:
    return 1 << (length - 1).bit_length() if length > 1 else 1
