"""Columns that the database sends as one value each, as arrays: without a step for each row.

A driver takes longer to make Python's objects of them than all else takes together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Microseconds since 1970: when those of PostgreSQL begin, and the calendar of Python.
_BEGIN, _FIRST, _LAST = (
    np.datetime64(moment, "us").astype(np.int64)
    for moment in (datetime(2000, 1, 1), datetime.min, datetime.max)
)
#: The forms of most moments that are texts, with each digit as 0.
_FORMS = (b"0000-00-00 00:00:00", b"0000-00-00 00:00:00.000000")
_AS_FORM = bytes.maketrans(b"0123456789T", b"0000000000 ")
_LONGEST = max(map(len, _FORMS))


def integers_of_binary(sent: bytes) -> NDArray[np.int64]:
    """PostgreSQL's ``string_agg(int8send(column), '')``, from which NULLs are missing."""
    return np.frombuffer(sent, ">i8").astype(np.int64)


def moments_of_binary(sent: bytes) -> NDArray[np.datetime64] | None:
    """Likewise, of ``timestamp_send``; None if Python's calendar does not have one of them."""
    values = integers_of_binary(sent)
    if values.min() < _FIRST - _BEGIN or values.max() > _LAST - _BEGIN:  # infinity is one of them
        return None
    return (values + _BEGIN).view("datetime64[us]")


def of_json(sent: bytes) -> NDArray[Any] | None:
    """SQLite's ``json_group_array(column)``: int64, or naive datetime64.

    None if it has something that no such array can hold, as a NULL.
    """
    if sent.startswith(b'["'):
        return moments_of_json(sent)
    listed = sent[1:-1]
    if not listed or listed.translate(None, b"0123456789,-"):
        return None
    return np.fromstring(listed, np.int64, sep=",")


def moments_of_json(sent: bytes) -> NDArray[np.datetime64] | None:
    """Naive moments such as ``["2026-03-14 09:26:53.589793"]``.

    None if any may be something else.
    """
    length = sent.find(b'"', 2, _LONGEST + 3) - 2
    form = sent[2 : length + 2].translate(_AS_FORM)
    count, rest = divmod(len(sent) - 1, len(form) + 3)
    usual = b"[" + (b'"' + form + b'",') * count
    if form not in _FORMS or rest or sent.translate(_AS_FORM) != usual[:-1] + b"]":
        return None
    item = {"names": ["text"], "formats": [f"S{length}"], "offsets": [1], "itemsize": length + 3}
    texts = np.frombuffer(sent, np.dtype(item), count, 1)["text"]  # type: ignore[call-overload]
    try:
        moments = texts.astype("datetime64[us]")
    except ValueError:  # the 30th of February
        return None
    # NumPy has a year 0.
    return moments if moments.view(np.int64).min() >= _FIRST else None


def are_in_order(keys: NDArray[Any]) -> bool:
    """Whether each key is above the one before: SQL leaves it open how values are collected."""
    return bool((keys[1:] > keys[:-1]).all())
