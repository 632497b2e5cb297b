"""Columns that PostgreSQL and SQLite send as one value each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    cast,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import BIGINT, INTEGER, SMALLINT, TIMESTAMP

from ..arrays import are_in_order, of_binary, of_json

#: Types whose values a driver gives as they are. Types derived from them may do something else.
_TYPES = {BigInteger, DateTime, Integer, SmallInteger, BIGINT, INTEGER, SMALLINT, TIMESTAMP}


def _as_array(column: Any) -> ColumnElement[bytes]:
    return func.array_send(func.array_agg(column), type_=LargeBinary)


def _as_json(column: Any) -> ColumnElement[bytes]:
    return cast(func.json_group_array(column), LargeBinary)


#: By dialect: how a column is sent, and how an array is made of that.
_WAYS: Mapping[str, tuple[Callable[[Any], Any], Callable[[bytes], NDArray[Any] | None]]] = {
    "postgresql": (_as_array, of_binary),
    "sqlite": (_as_json, of_json),
}


def may_be_collected(dialect: str, types: Sequence[Any]) -> bool:
    """Whether columns of these types may be sent so."""
    return dialect in _WAYS and all(
        type(one) in _TYPES and not (dialect == "postgresql" and getattr(one, "timezone", False))
        for one in types
    )


def fetched(connection: Connection, statement: Select[Any]) -> list[NDArray[Any]] | None:
    """The columns of what `statement` finds, whose first one is its order: int64, or datetime64.

    None if there is nothing, or something that no such array can hold, as a NULL.
    """
    collect, decode = _WAYS[connection.dialect.name]
    rows = statement.subquery()
    try:
        sent = connection.execute(select(*map(collect, rows.c))).one()
    except DBAPIError:  # SQLite has no JSON of bytes, and older ones have none at all
        return None
    found = []
    for blob in sent:
        if blob is None or (column := decode(blob)) is None:
            return None
        found.append(column)
    return found if are_in_order(found[0]) else None
