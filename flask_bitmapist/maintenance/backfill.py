"""Marks a model's events, its flags and its dimensions from the rows that it has."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, tzinfo
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..adapters.rows import Asked, Key, Page
from ..dimensions import fitting_choice
from ..many import is_array
from ..tracker import Tracker
from .days import Days, day_of
from .flags import Flags, States
from .moments import Clock, Seconds
from .runs import PATIENCE, Bulk, run
from .tables import Ids, Names, rows_of, usable

#: Rows that are read together: so many fit into a processor's cache.
PAGE = 20_000
#: Rows that are written together: the more there are, the more of them share a day.
BATCH = 1_000_000
#: Likewise, where ids are texts, which take ten times the memory; and with flags or dimensions.
BATCH_OF_TEXTS, BATCH_WITH_FLAGS = 500_000, 50_000


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill has done, or would do."""

    event: str
    #: Rows that were read; those marked and all below add up to them.
    rows: int = 0
    marked: int = 0
    #: The first and the last day that was marked.
    first: date | None = None
    last: date | None = None
    #: Rows of days that were not asked for.
    outside: int = 0
    without_time: int = 0
    without_id: int = 0
    #: Rows whose id, or time, cannot be used.
    unusable: int = 0
    #: Why the first of them cannot.
    reason: str = ""
    #: Flags that were set and cleared, and people who got another value in a dimension.
    flags: int = 0

    def __add__(self, other: Backfilled) -> Backfilled:
        return Backfilled(
            self.event,
            self.rows + other.rows,
            self.marked + other.marked,
            min((day for day in (self.first, other.first) if day is not None), default=None),
            max((day for day in (self.last, other.last) if day is not None), default=None),
            self.outside + other.outside,
            self.without_time + other.without_time,
            self.without_id + other.without_id,
            self.unusable + other.unusable,
            self.reason or other.reason,
            self.flags + other.flags,
        )

    def to_dict(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: value.isoformat() if isinstance(value, date) else value
            for name, value in told.items()
        }


class Read(NamedTuple):
    """A page of rows as it is marked."""

    before: Key | None
    #: An array of offsets, or a list.
    who: Any
    when: Seconds
    told: Backfilled
    states: States


class Backfill:
    """The rows of one model, to be marked."""

    def __init__(
        self,
        tracker: Tracker,
        model: Any,
        at: str,
        *,
        event: str | None = None,
        who: str | None = None,
        where: str | None = None,
        days: Days | None = None,
        naive_in: tzinfo | None = None,
        source: Any = None,
    ) -> None:
        """
        :param model: of SQLAlchemy, peewee or MongoEngine; its class options are the defaults.
        :param at: the attribute that says when.
        :param event: default: ``<model>:created``.
        :param who: the attribute that says who.
        :param where: which rows: SQL, or for MongoEngine a query as JSON. It is trusted.
        :param naive_in: the zone of moments that have none; default: ``BITMAPIST_TIMEZONE``.
        :param source: for SQLAlchemy: an engine or a session, unless Flask-SQLAlchemy has it.
        :raises ValueError: if the model lacks an attribute, or the event's name is not allowed.
        """
        self.names = Names.of(model, event)
        self._asked = Asked.of(model, at, who, where)
        self._rows = rows_of(model, self._asked, source)
        self._tracker = tracker
        settings = tracker.settings
        whole_days = not settings.track_hourly
        self._clock = Clock(settings.timezone, naive_in, whole_days=whole_days)
        self.days = days or Days()

    def count(self) -> int:
        """How many rows there are to read."""
        return self._rows.count()

    def run(
        self,
        *,
        after: Key | None = None,
        dry: bool = False,
        patience: float = PATIENCE,
        told: Callable[[Backfilled], object] = lambda done: None,
    ) -> Backfilled:
        """Mark them all, as often as you like: what is marked stays marked.

        :param after: the key after which to begin.
        :param dry: only tell what would be marked.
        :param patience: seconds to wait for a server that fails.
        :param told: called after each page with what has been done so far.
        :raises StoppedError: if it could not come to its end; it says where to resume.
        :raises ValueError: if marks do not reach the server, or have another kind of ids.
        """
        bulk = None if dry else Bulk(self._tracker, patience)
        flags = None if bulk is None or not self._asked.kept else Flags(self._tracker, bulk)

        def do(batch: Sequence[Read], done: Backfilled) -> Backfilled:
            if bulk is not None:
                self._write(batch, bulk)
            for read in batch:
                done += read.told
                if flags is not None:
                    done = replace(done, flags=done.flags + self._keep(flags, read))
            return done

        return run(self.batches, do, after, Backfilled(self.names.event), bulk, told)

    def batches(self, after: Key | None) -> Iterator[tuple[Key, list[Read]]]:
        """Batches of the rows after the key `after`, each with the key of its last row."""
        batch: list[Read] = []
        last = after
        while True:
            with _collector_at_rest():
                page = self._rows.page(last, PAGE)
                if page is None:
                    break
                batch.append(self._read(page, last))
            last = page.last
            if sum(read.told.rows for read in batch) >= self._enough(batch):
                yield last, batch
                batch = []
        if batch and last is not None:
            yield last, batch

    def _enough(self, batch: Sequence[Read]) -> int:
        if self._asked.kept:
            return BATCH_WITH_FLAGS
        return BATCH if all(is_array(read.who) for read in batch) else BATCH_OF_TEXTS

    def _read(self, page: Page, before: Key | None) -> Read:
        ids = usable(self._tracker, page.ids, self.names.space)
        clock, is_timed = self._clock.read(page.moments)
        is_inside = is_timed & self.days.contain(clock)
        who, places = ids.chosen(is_inside)
        told = self._told(page, ids, is_timed, is_inside, clock[places])
        return Read(before, who, clock[places], told, self._states(page, ids))

    def _told(
        self,
        page: Page,
        ids: Ids,
        is_timed: NDArray[np.bool_],
        is_inside: NDArray[np.bool_],
        when: Seconds,
    ) -> Backfilled:
        rows = len(page.ids)
        nobody = _nones(page.ids)
        never = _nones(page.moments) & ~nobody
        without_id, without_time = int(nobody.sum()), int(never.sum())
        outside = int((is_timed & ~is_inside)[ids.places].sum())
        unusable = rows - len(when) - outside - without_time - without_id
        reason = ids.reason
        if unusable and not reason:
            has_id = np.isin(np.arange(rows), ids.places)
            first = int(np.flatnonzero(has_id & ~is_timed & ~never)[0])
            reason = f"{self._asked.at} is no time: {page.moments[first]!r}"
        return Backfilled(
            self.names.event,
            rows,
            len(when),
            day_of(when.min()) if len(when) else None,
            day_of(when.max()) if len(when) else None,
            outside,
            without_time,
            without_id,
            unusable,
            reason,
        )

    def _write(self, batch: Sequence[Read], bulk: Bulk) -> None:
        parts = [read.who for read in batch if len(read.who)]
        if not parts:
            return
        are_arrays = all(map(is_array, parts))
        who: Any = np.concatenate(parts) if are_arrays else [*chain.from_iterable(parts)]
        when = np.concatenate([read.when for read in batch]).astype("datetime64[s]")
        if not self._tracker.settings.track_hourly:
            when = when.astype("datetime64[D]")
        bulk.write(self.names.event, who, True, True, when, None, None, self.names.space)

    def _keep(self, flags: Flags, read: Read) -> int:
        """Set flags and dimensions as the rows of a page say; returns how many changed.

        A row may change while its state is written. So the rows are read again afterwards.
        """
        changed, written = 0, States()
        wanted = read.states
        while news := {one: state for one, state in wanted.items() if written.get(one) != state}:
            changed += flags.write(news, self.names.space)
            written |= news
            again = self._rows.page(read.before, read.told.rows)
            if again is None:
                break
            wanted = self._states(again, usable(self._tracker, again.ids, self.names.space))
        return changed

    def _states(self, page: Page, ids: Ids) -> States:
        if not page.values:
            return {}
        who = ids.values if isinstance(ids.values, list) else ids.values.tolist()
        places = [*zip(who, ids.places.tolist(), strict=True)]
        states: States = {
            (event, id_): bool(page.values[flag][place])
            for flag, event in self.names.flags.items()
            for id_, place in places
        }
        for attribute, dimension in self.names.dimensions.items():
            choices = [fitting_choice(dimension, value) for value in page.values[attribute]]
            states |= {(dimension, id_): choices[place] for id_, place in places}
        return states


def _nones(values: Sequence[object]) -> NDArray[np.bool_]:
    """Which of `values` are None."""
    if is_array(values) or None not in values:
        return np.zeros(len(values), np.bool_)
    return np.array([value is None for value in values], np.bool_)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Turn the garbage collector off: it would go through the rows of a page again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
