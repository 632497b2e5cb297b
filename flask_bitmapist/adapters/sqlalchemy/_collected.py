"""Columns that PostgreSQL and SQLite send as one value each."""

from __future__ import annotations

from collections.abc import Sequence
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
    literal_column,
    select,
)
from sqlalchemy.types import BIGINT, INTEGER, SMALLINT, TIMESTAMP

from ..arrays import are_in_order, integers_of_binary, moments_of_binary, of_json

#: Types whose values a driver gives as they are. Types derived from them may do something else.
_TYPES = {BigInteger, DateTime, Integer, SmallInteger, BIGINT, INTEGER, SMALLINT, TIMESTAMP}


def may_be_collected(dialect: str, types: Sequence[Any]) -> bool:
    """Whether columns of these types may be sent so."""
    if not all(type(one) in _TYPES for one in types):
        return False
    has_zones = any(isinstance(one, DateTime) and one.timezone for one in types)
    return dialect == "sqlite" or (dialect == "postgresql" and not has_zones)


def fetched(connection: Connection, statement: Select[Any]) -> list[NDArray[Any]] | None:
    """The columns of what `statement` finds, whose first one is its order: int64, or datetime64.

    None if there is nothing, or something that no such array can hold, as a NULL.

    :raises sqlalchemy.exc.DBAPIError: also if a column has another type than the model says.
    """
    is_binary = connection.dialect.name == "postgresql"
    columns = [*statement.subquery().c]
    collect = _as_binary if is_binary else _as_json
    found = []
    sent = connection.execute(select(*map(collect, columns))).one()
    for blob, column in zip(sent, columns, strict=True):
        decode = of_json
        if is_binary:
            decode = moments_of_binary if isinstance(column.type, DateTime) else integers_of_binary
        if blob is None or (array := decode(blob)) is None:
            return None
        found.append(array)
    if len({*map(len, found)}) > 1:  # PostgreSQL leaves out NULLs
        return None
    return found if are_in_order(found[0]) else None


def _as_binary(column: Any) -> ColumnElement[bytes]:
    send = func.timestamp_send if isinstance(column.type, DateTime) else func.int8send
    return func.string_agg(send(column), literal_column("''::bytea"), type_=LargeBinary)


def _as_json(column: Any) -> ColumnElement[bytes]:
    return cast(func.json_group_array(column), LargeBinary)
