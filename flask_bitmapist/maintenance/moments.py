"""Moments of rows and lines -> the application's wall clock, in arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..adapters.arrays import moments_of_json
from ..many import is_array
from ..periods import local

#: Seconds since 1970 on some clock.
Seconds: TypeAlias = NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1)
_DAY_OF_EPOCH = _EPOCH.toordinal()
_FIRST, _LAST = (
    int((moment - _EPOCH).total_seconds()) for moment in (datetime.min, datetime(9999, 12, 31, 23))
)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
#: Stands for an hour in which the clock is changed: its seconds are not all shifted alike.
_UNEVEN = 2**40


class Clock:
    """Converts moments to the wall clock of `zone`; naive ones are taken in `naive_in`."""

    def __init__(
        self, zone: tzinfo, naive_in: tzinfo | None = None, *, whole_days: bool = False
    ) -> None:
        """:param whole_days: nobody asks for more than the day."""
        other = naive_in or zone
        # A naive moment that the clock skips is taken as the time it shows instead.
        self._naive = _Shifts(
            lambda moment: (
                local(local(moment, other).replace(tzinfo=other), zone)
                if other is not zone
                else local(moment, zone)
            )
        )
        self._whole_days = whole_days
        #: A clock that is never changed skips nothing.
        self._is_steady = other is zone and zone.utcoffset(None) is not None
        self._of_utc = _Shifts(lambda moment: local(moment.replace(tzinfo=UTC), zone))

    def read(self, moments: Sequence[object]) -> tuple[Seconds, NDArray[np.bool_]]:
        """The wall clock at `moments`, and which of them are moments at all.

        :param moments: datetimes, dates, numbers of seconds since 1970 in UTC, texts of either
            (ISO 8601), or anything else, which is no moment. Or an array of naive datetime64.
        """
        if is_array(moments):
            return self._of_naive(np.asarray(moments).astype("datetime64[s]").astype(np.int64))
        kinds = {*map(type, moments)}
        if kinds == {str} and (read := _all_parsed(cast("Sequence[str]", moments))) is not None:
            return self._of_naive(read)
        if kinds == {datetime}:
            listed = cast("Sequence[datetime]", moments)
            zones = {moment.tzinfo for moment in listed}
            if zones == {None}:
                if self._whole_days and self._is_steady:
                    days = np.array([*map(datetime.toordinal, listed)], np.int64)
                    return (days - _DAY_OF_EPOCH) * 86_400, np.ones(len(days), np.bool_)
                return self._of_naive(np.array([*map(_wall_clock, listed)], np.int64))
            if None not in zones:
                stamps = np.array([moment.timestamp() for moment in listed])
                return self._of_utc.apply(np.floor(stamps).astype(np.int64))
        clock = np.zeros(len(moments), np.int64)
        is_naive, is_known = np.zeros((2, len(moments)), np.bool_)
        for place, moment in enumerate(moments):
            told = _told(moment)
            if told is not None:
                is_known[place] = True
                is_naive[place], clock[place] = told
        for shifts, of_kind in ((self._naive, is_naive), (self._of_utc, ~is_naive)):
            chosen = np.flatnonzero(of_kind & is_known)
            clock[chosen], is_known[chosen] = shifts.apply(clock[chosen])
        return clock, is_known

    def _of_naive(self, clock: Seconds) -> tuple[Seconds, NDArray[np.bool_]]:
        if self._is_steady:
            return clock, np.ones(len(clock), np.bool_)
        return self._naive.apply(clock)


class _Shifts:
    """How far moments are from one clock to another; found once for each hour."""

    def __init__(self, convert: Callable[[datetime], datetime]) -> None:
        self._convert = convert
        self._of_hours: dict[int, int | None] = {}

    def apply(self, clock: Seconds) -> tuple[Seconds, NDArray[np.bool_]]:
        """`clock` on the other clock, and which moments exist there."""
        hours, places = np.unique(clock // 3600, return_inverse=True)
        shifts = [self._of_hour(hour) for hour in hours.tolist()]
        is_known = np.array([shift is not None for shift in shifts], np.bool_)[places]
        shifted = clock + np.array([shift or 0 for shift in shifts], np.int64)[places]
        if _UNEVEN in shifts:
            for place in np.flatnonzero(shifted - clock == _UNEVEN).tolist():
                shifted[place] = clock[place] + (self._of(int(clock[place])) or 0)
        return shifted, is_known

    def _of_hour(self, hour: int) -> int | None:
        """The shift of all seconds of `hour`; None: the calendar does not have it."""
        if hour not in self._of_hours:
            first, last = self._of(hour * 3600), self._of(hour * 3600 + 3599)
            self._of_hours[hour] = first if first == last else _UNEVEN
        return self._of_hours[hour]

    def _of(self, second: int) -> int | None:
        try:
            moment = _EPOCH + timedelta(seconds=second)
            return round((self._convert(moment) - moment).total_seconds())
        except (OverflowError, ValueError):
            return None


def _wall_clock(moment: datetime) -> int:
    days = moment.toordinal() - _DAY_OF_EPOCH
    return days * 86_400 + moment.hour * 3600 + moment.minute * 60 + moment.second


def _all_parsed(texts: Sequence[str]) -> Seconds | None:
    """Naive moments such as ``2026-03-14 09:26:53.589793``; None if they may be anything else."""
    listed = '["' + '","'.join(texts) + '"]'
    moments = moments_of_json(listed.encode("ascii", "replace"))
    if moments is None or len(moments) != len(texts):
        return None
    return moments.astype("datetime64[s]").astype(np.int64)


def _told(moment: object) -> tuple[bool, int] | None:
    """Whether `moment` is naive, and its seconds; None if it is not a moment."""
    if isinstance(moment, str):
        moment = _parsed(moment)
    if isinstance(moment, datetime):
        if moment != moment:  # pandas.NaT
            return None
        if moment.tzinfo is None:
            return True, _wall_clock(moment)
        return False, math.floor(moment.timestamp())
    if isinstance(moment, date):
        return True, (moment.toordinal() - _DAY_OF_EPOCH) * 86_400
    if isinstance(moment, int | float | Decimal) and not isinstance(moment, bool):
        return (False, math.floor(moment)) if _FIRST <= moment <= _LAST else None
    return None


def _parsed(text: str) -> object:
    text = text.strip()
    if _NUMBER.fullmatch(text) and len(text) != 8:  # YYYYMMDD is a date
        return float(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
