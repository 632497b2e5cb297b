"""Many marks at once, given as arrays: checked and grouped without a step for each.

NumPy is loaded here and where the bitmaps of such marks are made, and only for arrays: whoever has
one has loaded it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .ids import UnusableIdError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1)
#: Hours between the first and the last moment for which a table is kept: a thousand years.
_WIDEST = 10_000_000


def is_array(value: object) -> bool:
    """Whether `value` is an array, or what NumPy makes one of, such as a column of pandas."""
    return hasattr(value, "__array__") and getattr(value, "ndim", 0) > 0


def listed_ids(ids: Any) -> NDArray[Any] | list[Any]:
    """The offsets in the array `ids`, in an array of their own; a list, if they are no integers.

    :raises UnusableIdError: for a negative one.
    :raises ValueError: for an array with several dimensions.
    """
    import numpy as np

    array = np.array(ids)  # the caller may change its own meanwhile
    if array.ndim != 1:
        raise ValueError(f"ids are expected in one dimension, not in {array.ndim}")
    if array.dtype.kind not in "iu":
        listed: list[Any] = array.tolist()
        return listed
    if len(array) and (lowest := int(array.min())) < 0:
        raise UnusableIdError(f"the id {lowest} is negative; ids are 0 or more")
    return array


def hours_of(
    moments: Iterable[Any], local_hour: Callable[[Any], datetime], *, whole_days: bool
) -> Iterator[tuple[datetime, Sequence[int] | NDArray[Any]]]:
    """Each hour in which any of `moments` lie, with their places.

    :param moments: a list of moments, or an array of type datetime64.
    :param local_hour: gives the hour of a moment, which it checks.
    :param whole_days: tell the first hours of days instead.
    :raises ValueError: for NaT, and what the calendar does not have.
    """
    begin = _midnight if whole_days else _same
    if is_array(moments):
        import numpy as np

        array = np.asarray(moments)
        if array.dtype.kind == "M":
            yield from _hours_of(array, lambda hour: begin(local_hour(hour)))
            return
    places: dict[datetime, list[int]] = {}
    for place, moment in enumerate(moments):
        places.setdefault(begin(local_hour(moment)), []).append(place)
    yield from places.items()


def _hours_of(
    moments: NDArray[Any], named: Callable[[datetime], datetime]
) -> Iterator[tuple[datetime, NDArray[Any]]]:
    """As `hours_of`; `named` is asked once for each hour, and not for each moment."""
    import numpy as np

    if np.isnat(moments).any():
        raise ValueError("NaT is no moment")
    hours = moments.astype("datetime64[h]").view(np.int64)
    first, last = int(hours.min()), int(hours.max())
    if last - first > _WIDEST:
        raise ValueError("the moments of one call must lie within a thousand years")
    hours = hours - first
    names: dict[datetime, int] = {}
    numbers = np.zeros(last - first + 1, np.intp)
    for hour in np.flatnonzero(np.bincount(hours)).tolist():
        try:
            moment = _EPOCH + timedelta(hours=first + hour)
        except OverflowError:
            raise ValueError(
                "a moment is outside the calendar, which has the years 1 to 9999"
            ) from None
        numbers[hour] = names.setdefault(named(moment), len(names))
    # Of a small type: NumPy sorts it by radix, in a tenth of the time.
    of_moments = numbers.astype(np.uint16 if len(names) <= 2**16 else np.intp)[hours]
    order = np.argsort(of_moments, kind="stable")
    ends = np.cumsum(np.bincount(of_moments)).tolist()
    for name, begin, end in zip(names, [0, *ends], ends, strict=False):
        yield name, order[begin:end]


def _midnight(hour: datetime) -> datetime:
    return hour.replace(hour=0)


def _same(hour: datetime) -> datetime:
    return hour
