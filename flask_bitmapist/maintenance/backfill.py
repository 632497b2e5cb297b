"""Marks a model's events, and its flags, from the rows that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, tzinfo
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.rows import Asked, Key, Page
from ..tracker import Tracker
from .days import Days, day_of
from .flags import Flags
from .moments import Clock, Seconds
from .runs import PATIENCE, Bulk, run
from .tables import Ids, Names, rows_of, usable

#: Rows that are read, and written, together.
PAGE = 50_000


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
    #: Why the first of these ids cannot.
    reason: str = ""
    #: Flags that were set and cleared.
    flags: int = 0

    def to_dict(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: value.isoformat() if isinstance(value, date) else value
            for name, value in told.items()
        }


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
        self._clock = Clock(tracker.settings.timezone, naive_in)
        self._days = days or Days()

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
        flags = None if bulk is None or not self._asked.flags else Flags(self._tracker, bulk)

        def do(found: tuple[Key | None, Page], done: Backfilled) -> Backfilled:
            before, page = found
            ids = usable(self._tracker, page.ids, self.names.space)
            done = self._mark(page, ids, done, bulk)
            if flags is not None:
                done = replace(done, flags=done.flags + self._keep(flags, before, page))
            return done

        return run(self._pages, do, after, Backfilled(self.names.event), bulk, told)

    def _pages(self, after: Key | None) -> Iterator[tuple[Key, tuple[Key | None, Page]]]:
        while (page := self._rows.page(after, PAGE)) is not None:
            yield page.last, (after, page)
            after = page.last

    def _mark(self, page: Page, ids: Ids, done: Backfilled, bulk: Bulk | None) -> Backfilled:
        clock, is_timed = self._clock.read(page.moments)
        is_inside = is_timed & self._days.contain(clock)
        who, places = ids.chosen(is_inside)
        moments = clock[places]
        if len(moments) and bulk is not None:
            when = moments.astype("datetime64[s]")
            if not self._tracker.settings.track_hourly:
                when = when.astype("datetime64[D]")
            bulk.write(self.names.event, who, True, True, when, None, None, self.names.space)
        return _counted(done, page, ids, is_timed, is_inside, moments)

    def _keep(self, flags: Flags, before: Key | None, page: Page) -> int:
        """Give the flags of a page's rows the values that the rows have; returns how many changed.

        While one is written, its row may change. So the rows are read again afterwards.
        """
        changed, written = 0, dict[tuple[str, object], bool]()
        again: Page | None = page
        while again is not None:
            wanted = self._wanted(again)
            news = {one: on for one, on in wanted.items() if written.get(one) != on}
            if not news:
                break
            changed += flags.write(news, self.names.space)
            written |= news
            again = self._rows.page(before, len(page.ids))
        return changed

    def _wanted(self, page: Page) -> dict[tuple[str, object], bool]:
        ids = usable(self._tracker, page.ids, self.names.space)
        values = ids.values if isinstance(ids.values, list) else ids.values.tolist()
        return {
            (event, id_): bool(page.flags[flag][place])
            for flag, event in self.names.flags.items()
            for id_, place in zip(values, ids.places.tolist(), strict=True)
        }


def _counted(
    done: Backfilled,
    page: Page,
    ids: Ids,
    is_timed: NDArray[np.bool_],
    is_inside: NDArray[np.bool_],
    moments: Seconds,
) -> Backfilled:
    """`done`, with a page of which the rows at `moments` are marked."""
    rows = len(page.ids)
    has_id = np.zeros(rows, np.bool_)
    has_id[ids.places] = True
    nobody = np.array([id_ is None for id_ in page.ids], np.bool_)
    never = np.array([moment is None for moment in page.moments], np.bool_) & ~nobody
    outside = int((has_id & is_timed & ~is_inside).sum())
    first, last = done.first, done.last
    if len(moments):
        days = [day_of(moments.min()), day_of(moments.max())]
        first, last = min([*days, first or days[0]]), max([*days, last or days[1]])
    return replace(
        done,
        rows=done.rows + rows,
        marked=done.marked + len(moments),
        first=first,
        last=last,
        outside=done.outside + outside,
        without_time=done.without_time + int(never.sum()),
        without_id=done.without_id + int(nobody.sum()),
        unusable=done.unusable
        + rows
        - len(moments)
        - outside
        - int(never.sum())
        - int(nobody.sum()),
        reason=done.reason or ids.reason,
    )
