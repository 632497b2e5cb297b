"""Many marks at once, given as arrays: checked and grouped without a step for each.

NumPy is loaded here and where the bitmaps of such marks are made, and only for arrays: whoever has
one has loaded it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from .ids import UnusableIdError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Unit = Literal["D", "h"]

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
    if is_array(moments):
        import numpy as np

        array = np.asarray(moments)
        if array.dtype.kind == "M":
            yield from _periods(_local_hours(array, local_hour), "D" if whole_days else "h")
            return
    places: dict[datetime, list[int]] = {}
    for place, moment in enumerate(moments):
        hour = local_hour(moment)
        places.setdefault(hour.replace(hour=0) if whole_days else hour, []).append(place)
    yield from places.items()


def _local_hours(
    moments: NDArray[Any], local_hour: Callable[[datetime], datetime]
) -> NDArray[np.datetime64]:
    """The hours of the calendar in which `moments` lie, each of which is looked up once."""
    import numpy as np

    if np.isnat(moments).any():
        raise ValueError("NaT is no moment")
    numbers = moments.astype("datetime64[h]").astype(np.int64)
    first = int(numbers.min())
    if int(numbers.max()) - first > _WIDEST:
        raise ValueError("moments of one call lie within a thousand years")
    numbers -= first
    table = np.zeros(int(numbers.max()) + 1, "datetime64[h]")
    for number in np.flatnonzero(np.bincount(numbers)).tolist():
        table[number] = local_hour(_moment(first + number, "h"))
    return table[numbers]


def _periods(hours: NDArray[Any], unit: _Unit) -> Iterator[tuple[datetime, NDArray[Any]]]:
    import numpy as np

    numbers = hours.astype(f"datetime64[{unit}]").astype(np.int64)
    first = int(numbers.min())
    numbers -= first
    counts = np.bincount(numbers)
    # Of a small type: NumPy sorts it by radix, in a tenth of the time.
    order = np.argsort(
        numbers.astype(np.uint16) if len(counts) <= 2**16 else numbers, kind="stable"
    )
    ends = np.cumsum(counts)
    for number in np.flatnonzero(counts).tolist():
        end = int(ends[number])
        yield _moment(first + number, unit), order[end - int(counts[number]) : end]


def _moment(number: int, unit: _Unit) -> datetime:
    import numpy as np

    moment = np.datetime64(number, unit).astype("datetime64[us]").item()
    if not isinstance(moment, datetime):
        raise ValueError(f"{np.datetime64(number, unit)} is outside the calendar")
    return moment
