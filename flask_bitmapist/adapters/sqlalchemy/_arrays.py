"""Columns of PostgreSQL as arrays: in its own binary form, without a step for each value.

A driver takes longer to make Python's objects of them than all else takes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    Select,
    SmallInteger,
    func,
    select,
)
from sqlalchemy.types import BIGINT, INTEGER, SMALLINT, TIMESTAMP

#: Types whose values a driver gives as they are. Types derived from them may do something else.
_TYPES = {BigInteger, DateTime, Integer, SmallInteger, BIGINT, INTEGER, SMALLINT, TIMESTAMP}
#: How many bytes a value has, by PostgreSQL's number of its type: int8, int2, int4, timestamp.
_WIDTHS = {20: 8, 21: 2, 23: 4, 1114: 8}
_TIMESTAMP = 1114
#: Four numbers of an array's head, and one for its lower bound (array_send in arrayfuncs.c).
_HEAD = np.dtype(">i4")
_HEAD_LENGTH = 5
#: Microseconds since 1970: when those of PostgreSQL begin, and the calendar of Python.
_BEGIN, _FIRST, _LAST = (
    np.datetime64(moment, "us").astype(np.int64)
    for moment in (datetime(2000, 1, 1), datetime.min, datetime.max)
)


def are_arrays(dialect: str, types: Sequence[Any]) -> bool:
    """Whether columns of these types may be read as arrays."""
    return dialect == "postgresql" and all(
        type(one) in _TYPES and not getattr(one, "timezone", False) for one in types
    )


def fetched(connection: Connection, statement: Select[Any]) -> list[NDArray[Any]] | None:
    """The columns of what `statement` finds, whose first one is its order: int64, or datetime64.

    None if there is nothing, or something that no such array can hold, as a NULL.
    """
    rows = statement.subquery()
    sent = [func.array_send(func.array_agg(column), type_=LargeBinary) for column in rows.c]
    columns = [_array(blob) for blob in connection.execute(select(*sent)).one()]
    if any(column is None for column in columns):
        return None
    found = [column for column in columns if column is not None]
    # SQL leaves it open in which order values are collected.
    return found if bool((np.diff(found[0]) > 0).all()) else None


def _array(blob: bytes | None) -> NDArray[Any] | None:
    if blob is None:
        return None
    dimensions, has_null, type_, length, _ = np.frombuffer(blob, _HEAD, _HEAD_LENGTH).tolist()
    if dimensions != 1 or has_null or type_ not in _WIDTHS:
        return None
    value = np.dtype([("length", ">i4"), ("value", f">i{_WIDTHS[type_]}")])
    offset = _HEAD_LENGTH * _HEAD.itemsize
    values = np.frombuffer(blob, value, length, offset)["value"].astype(np.int64)
    if type_ != _TIMESTAMP:
        return values
    if values.min() < _FIRST - _BEGIN or values.max() > _LAST - _BEGIN:  # infinity is one of them
        return None
    return (values + _BEGIN).view("datetime64[us]")
