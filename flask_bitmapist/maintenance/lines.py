"""The form in which events leave one server and enter another: a line for each bit that counts.

A line without ``only`` is a mark, as `mark_event` makes it: an hour with its day, a day with its
week and its month. ``week only`` and its kin are the rest, such as weeks whose days have expired:
they set one bitmap alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..periods import Grain

#: The names of the columns.
COLUMNS = ("event", "granularity", "start", "id", "kind")
FORMATS = ("csv", "jsonl")

#: The undated bitmap.
UNIQUE = "unique"
#: Likewise, of a value of a dimension.
VALUE = "value"
#: Those who had it last in a month, of a dated dimension; of those who lost theirs, the event ends
#: with ``=``.
VALUE_OF_MONTH = "value of month"


class Granularity(NamedTuple):
    """Which bitmaps a line sets."""

    #: The one period; None: those of a mark, or the undated one.
    only: Grain | None
    is_dated: bool = True
    is_hourly: bool = False
    is_value: bool = False


#: What may stand in the column `granularity`.
GRANULARITIES = {
    "hour": Granularity(None, is_hourly=True),
    "day": Granularity(None),
    "hour only": Granularity("hour", is_hourly=True),
    "day only": Granularity("day"),
    "week only": Granularity("week"),
    "month only": Granularity("month"),
    UNIQUE: Granularity(None, is_dated=False),
    VALUE: Granularity(None, is_dated=False, is_value=True),
    VALUE_OF_MONTH: Granularity("month", is_value=True),
}
