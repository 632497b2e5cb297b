"""Compares what a model's rows tell with what is marked: marks without a row, rows without a mark.

Bits are read before the rows, and those that seem to be missing are read again afterwards: so a row
that is added meanwhile makes no difference. The ids are held in memory: 8 bytes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..delivery.expiry import Expiries
from ..dimensions import NONE, flag_of
from ..ids import PLAIN, mapped_kind
from ..many import is_array
from ..periods import Grain, Period, unique_key
from ..reading.bitmaps import slices
from ..tracker import Tracker
from .backfill import Backfill, Read
from .flags import HeldDimension, offsets_of
from .lines import UNIQUE
from .runs import Bulk
from .stored import stored_periods

Offsets = NDArray[np.uint32]
Found = Literal["missing", "extra"]

_NOBODY: Offsets = np.empty(0, np.uint32)
_EPOCH = datetime(1970, 1, 1)


class Difference(NamedTuple):
    """A bit that is not as the rows tell."""

    #: A row has no mark, or a mark has no row.
    found: Found
    event: str
    #: Of the shortest period that differs.
    granularity: str
    #: ISO 8601; '' of an undated bitmap.
    start: str
    id: int | str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What differs, and what was done about it."""

    event: str
    rows: int
    missing: int
    extra: int
    #: Whether rows were marked again, and how many marks without a row were taken back.
    repaired: bool
    cleared: int
    differences: Sequence[Difference]

    @property
    def left(self) -> int:
        """How many differences are left."""
        return (0 if self.repaired else self.missing) + self.extra - self.cleared


class _Told(NamedTuple):
    """What the rows tell."""

    rows: int
    #: Hours since 1970, and who was marked in them; midnights, unless hours are marked.
    hours: NDArray[np.int32]
    offsets: Offsets
    #: Those who have each flag, those of dimensions included.
    flags: Mapping[str, Offsets]
    #: Ids that have no bit yet, each with its hour.
    strangers: Sequence[tuple[str, int]]


class Reconcile:
    """The rows of a backfill, to be compared with what is marked."""

    def __init__(self, tracker: Tracker, job: Backfill) -> None:
        self._tracker = tracker
        self._job = job
        self._client = tracker.reader.redis
        self._event = job.names.event
        self._kind = tracker.reader.registered_kind(self._event) or PLAIN
        settings = tracker.settings
        #: The shortest first.
        hour: tuple[Grain, ...] = ("hour",) if settings.track_hourly else ()
        self._grains: tuple[Grain, ...] = (*hour, "day", "week", "month")
        self._expiries = Expiries(settings.ttl, settings.timezone)
        self._dimensions = {
            name: HeldDimension(tracker, name) for name in job.names.dimensions.values()
        }

    def run(
        self,
        *,
        repair: bool = False,
        clear: bool = False,
        told: Callable[[int], object] = lambda rows: None,
    ) -> Reconciled:
        """Compare, and change the marks to what the rows tell, if asked.

        :param repair: mark the rows again.
        :param clear: take back marks of days on which the rows have none; and flags.
        :param told: called with how many rows have been read.

        Errors are those of `Backfill.run`.
        """
        before = self._marked()
        rows = self._rows(told)
        missing, extra = self._compared(rows, before)
        differences = [
            *self._listed("missing", missing),
            *self._of_strangers(rows.strangers),
            *self._listed("extra", extra),
        ]
        cleared = self._clear(extra, rows.flags) if clear else 0
        count = sum(one.found == "missing" for one in differences)
        repaired = repair and count > 0
        if repaired or cleared:  # a week may have lost a bit that days have which are gone
            self._job.run()
        return Reconciled(
            self._event,
            rows.rows,
            count,
            len(differences) - count,
            repaired,
            cleared,
            differences,
        )

    def _marked(self) -> dict[Period | str, Offsets]:
        """Who is marked in each period, and has each flag."""
        periods = stored_periods(self._client, [self._event])[self._event]
        keys: dict[Period | str, str] = {
            period: period.key(self._event) for period in periods if period.grain in self._grains
        }
        keys |= {flag: unique_key(flag) for flag in self._flags}
        return self._read(keys)

    @property
    def _flags(self) -> list[str]:
        """The names of the flags, and of those of dimensions."""
        return [*self._job.names.flags.values(), *map(str, self._values)]

    @property
    def _values(self) -> dict[Period | str, HeldDimension]:
        """The flags of dimensions."""
        return {
            flag_of(one.name, value): one
            for one in self._dimensions.values()
            for value in one.values
        }

    def _read(self, keys: Mapping[Any, str]) -> dict[Any, Offsets]:
        found: dict[Any, list[Offsets]] = {of: [] for of in keys}
        for part in slices(self._client, keys.values()):
            for of, key in keys.items():
                ids = part[key].ids() + part.first_offset
                found[of].append(ids.astype(np.uint32))
        return {of: np.concatenate(parts) if parts else _NOBODY for of, parts in found.items()}

    def _rows(self, told: Callable[[int], object]) -> _Told:
        hours, offsets, count = list[NDArray[np.int32]](), list[Offsets](), 0
        flags: dict[str, list[int]] = {flag: [] for flag in self._flags}
        strangers: list[tuple[str, int]] = []
        for _, batch in self._job.batches(None):
            for read in batch:
                count += read.told.rows
                when = (read.when // 3600).astype(np.int32)
                if "hour" not in self._grains:
                    when -= when % 24
                who, is_known = self._offsets(read)
                hours.append(when[is_known])
                offsets.append(who)
                unknown = np.flatnonzero(~is_known).tolist()
                strangers += [(str(read.who[place]), int(when[place])) for place in unknown]
                having = [
                    (self._flag(name, state), id_)
                    for (name, id_), state in read.states.items()
                    if state
                ]
                known = offsets_of(self._tracker, {id_ for _, id_ in having}, self._space)
                for flag, id_ in having:
                    # Without an offset it has no bit either: a backfill sets it.
                    flags.setdefault(flag, []).extend([known[id_]] if id_ in known else [])
            told(count)
        return _Told(
            count,
            np.concatenate([np.empty(0, np.int32), *hours]),
            np.concatenate([_NOBODY, *offsets]),
            {flag: np.unique(np.array(ids, np.uint32)) for flag, ids in flags.items()},
            strangers,
        )

    def _flag(self, name: str, state: bool | str) -> str:
        """The flag of those whose flag or dimension `name` has this state."""
        if isinstance(state, bool):
            return name
        return flag_of(name, self._dimensions[name].fitted(state))

    @property
    def _space(self) -> str:
        return self._job.names.space

    def _offsets(self, read: Read) -> tuple[Offsets, NDArray[np.bool_]]:
        """The offsets of the rows, and which of them have any."""
        if is_array(read.who):
            return read.who.astype(np.uint32), np.ones(len(read.who), np.bool_)
        known = offsets_of(self._tracker, {*read.who}, self._space)
        is_known = np.array([id_ in known for id_ in read.who], np.bool_)
        found = [known[id_] for id_ in read.who if id_ in known]
        return np.array(found, np.uint32), is_known

    def _compared(
        self, rows: _Told, before: Mapping[Period | str, Offsets]
    ) -> tuple[dict[Any, Offsets], dict[Any, Offsets]]:
        """Who is missing, and who has no row, in each period and flag."""
        wanted: dict[Any, Offsets] = {}
        for grain in self._grains:
            wanted |= _by_period(grain, rows.hours, rows.offsets)
        wanted |= rows.flags
        missing = {
            of: absent
            for of, who in wanted.items()
            if not (isinstance(of, Period) and self._expiries.has_passed(of))
            and len(absent := _without(who, before.get(of, _NOBODY)))
        }
        now = self._read({of: self._key(of) for of in missing})
        missing = {of: _without(who, now[of]) for of, who in missing.items()}
        extra = {
            of: _without(who, wanted.get(of, _NOBODY))
            for of, who in before.items()
            if isinstance(of, str) or self._is_asked_for(of)
        }
        return missing, extra

    def _key(self, of: Period | str) -> str:
        return unique_key(of) if isinstance(of, str) else of.key(self._event)

    def _is_asked_for(self, period: Period) -> bool:
        """Whether all days of `period` are."""
        last = period.end - timedelta(hours=1)
        days = self._job.days
        return days.include(period.start.date()) and days.include(last.date())

    def _listed(self, found: Found, who: Mapping[Any, Offsets]) -> Iterator[Difference]:
        """The differences, those of longer periods only if shorter ones do not explain them."""
        explained: dict[Period, list[Offsets]] = {}
        for grain in self._grains:
            for period in sorted(of for of in who if isinstance(of, Period) and of.grain == grain):
                offsets = _without(who[period], *explained.get(period, ()))
                told = period.start.isoformat(timespec="minutes")
                start = told if grain == "hour" else told.partition("T")[0]
                for id_ in self._ids(offsets, self._kind):
                    yield Difference(found, self._event, grain, start, id_)
                for longer in self._grains[self._grains.index(grain) + 1 :]:
                    explained.setdefault(Period.containing(longer, period.start), []).append(
                        who[period]
                    )
        for flag in sorted(of for of in who if isinstance(of, str)):
            kind = self._tracker.reader.registered_kind(flag) or PLAIN
            for id_ in self._ids(who.get(flag, _NOBODY), kind):
                yield Difference(found, flag, UNIQUE, "", id_)

    def _of_strangers(self, strangers: Sequence[tuple[str, int]]) -> Iterator[Difference]:
        for id_, hour in strangers:
            told = (_EPOCH + timedelta(hours=hour)).isoformat(timespec="minutes")
            start = told if self._grains[0] == "hour" else told.partition("T")[0]
            yield Difference("missing", self._event, self._grains[0], start, id_)

    def _ids(self, offsets: Offsets, kind: str) -> list[int | str]:
        return self._tracker.reader.identifiers_at(offsets.tolist(), kind)

    def _clear(self, extra: Mapping[Any, Offsets], flags: Mapping[str, Offsets]) -> int:
        """Take back the marks of days, and of their hours, and the flags; returns how many.

        :param flags: those who have each flag, as the rows tell.
        """
        bulk = Bulk(self._tracker)
        cleared = 0
        for of, offsets in extra.items():
            kind = self._kind
            options: tuple[Any, ...] = (None, None, None)
            if of in self._values:
                cleared += len(offsets)
                self._clear_value(of, offsets, flags)
                continue
            if isinstance(of, str):
                kind = self._tracker.reader.registered_kind(of) or PLAIN
            elif of.grain == "day":
                options = (of.start, False, False)
            elif of.grain == "hour":
                # In its other hours somebody may have been here.
                day = extra.get(Period.containing("day", of.start), _NOBODY)
                offsets = np.intersect1d(offsets, day)
                options = (of.start, True, False)
            else:
                continue
            if ids := self._ids(offsets, kind):
                event = of if isinstance(of, str) else self._event
                space = _space_of(kind)
                bulk.write(event, ids, False, not isinstance(of, str), *options, space)
                cleared += len(ids) if isinstance(of, str) or of.grain == self._grains[0] else 0
        return cleared

    def _clear_value(self, flag: str, offsets: Offsets, flags: Mapping[str, Offsets]) -> None:
        """Take the value away from those whose rows have none; the others get that of their row."""
        dimension = self._values[flag]
        for value in dimension.values:
            offsets = _without(offsets, flags.get(flag_of(dimension.name, value), _NOBODY))
        kind = self._tracker.reader.registered_kind(flag) or PLAIN
        if ids := self._ids(offsets, kind):
            rest = (False, False, None, None, None, _space_of(kind), True, NONE)
            Bulk(self._tracker).write(dimension.name, ids, *rest)


def _space_of(kind: str) -> str:
    return "" if kind == PLAIN else kind.removeprefix(mapped_kind("")).lstrip(":")


def _by_period(
    grain: Grain, hours: NDArray[np.int32], offsets: Offsets
) -> Iterator[tuple[Period, Offsets]]:
    """Who was marked in each period of `grain`."""
    days = hours.astype(np.int64) // 24
    match grain:
        case "hour":
            numbers: NDArray[np.int64] = hours.astype(np.int64)
        case "week":
            numbers = (days + 3) // 7  # the first of January 1970 was a Thursday
        case "month":
            numbers = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        case _:
            numbers = days
    # Sorted by period, and by offset in each.
    pairs = np.unique(numbers << 32 | offsets)
    of_pairs = pairs >> 32
    begins = np.flatnonzero(np.diff(of_pairs, prepend=of_pairs[:1] - 1))
    ends = [*begins[1:].tolist(), len(pairs)]
    for begin, end in zip(begins.tolist(), ends, strict=True):
        yield _period(grain, int(of_pairs[begin])), pairs[begin:end].astype(np.uint32)


def _period(grain: Grain, number: int) -> Period:
    match grain:
        case "hour":
            start = _EPOCH + timedelta(hours=number)
        case "week":
            start = _EPOCH + timedelta(days=7 * number - 3)
        case "month":
            start = datetime(1970 + number // 12, 1 + number % 12, 1)
        case _:
            start = _EPOCH + timedelta(days=number)
    return Period(grain, start)


def _without(who: Offsets, *others: Offsets) -> Offsets:
    for other in others:
        who = np.setdiff1d(who, other, assume_unique=True)
    return who
