"""The events that the application has marked: their kind of ids, their first day, their names.

Kept in Redis beside the bitmaps, so that every process agrees; known events are remembered in the
process and cost nothing afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from itertools import chain
from typing import Any, NamedTuple

from .periods import KEY_PREFIX, Period, unique_key
from .reading.commands import replies

logger = logging.getLogger("flask_bitmapist")

KINDS = "flask_bitmapist:events"
FIRST_DAYS = "flask_bitmapist:first_days"
CALENDAR = "flask_bitmapist:timezone"

PLAIN = "plain"
MAPPED = "mapped"
#: bitmapist's first release: no bitmap of it is older.
_EARLIEST = Period("month", datetime(2012, 1, 1))
#: How long the names found by a SCAN are trusted: in seconds, and in times of what it took.
_SCAN_AGE, _SCAN_SHARE = 10.0, 100


class Catalogue(NamedTuple):
    """What has been marked, sorted; a name may be in both."""

    #: Names with dated bitmaps.
    events: list[str]
    #: Names with an undated one (bitmapist's ``UniqueEvents``).
    flags: list[str]


class Since(NamedTuple):
    """An event: the id map of its ids, None for plain ones; a day before which nobody did it."""

    space: str | None
    first_day: date


class Known(NamedTuple):
    """What has been marked, by name; a name may be in both."""

    #: Those of a `Catalogue`.
    events: dict[str, Since]
    #: Likewise, each with the id map of its ids.
    flags: dict[str, str | None]

    @property
    def catalogue(self) -> Catalogue:
        """The names."""
        return Catalogue(sorted(self.events), sorted(self.flags))

    @property
    def spaces(self) -> dict[str, str | None]:
        """The id map of every event and flag by name; None for plain ids."""
        return self.flags | {name: event.space for name, event in self.events.items()}


def mapped_kind(space: str) -> str:
    """The kind of an event whose ids are mapped in `space` ('' is the users' own)."""
    return f"{MAPPED}:{space}" if space else MAPPED


def space_of(kind: str) -> str:
    """The id map of a mapped kind."""
    return kind.partition(":")[2]


def mismatch(event: str, given: str, registered: str) -> str:
    """Why a mark with ids of kind `given` cannot go to an event of kind `registered`."""
    return (
        f"the event {event!r} has {registered} ids, and this one is {given}: two ids would share "
        "a bit. Give the events separate names, or set BITMAPIST_ID_MAP='always' before the first "
        "mark if ints and texts are to be mixed"
    )


def text(value: Any) -> str:
    """A reply as text, whether the client decodes replies or not."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Registry:
    """One application's view of the events on its server."""

    def __init__(self, calendar: str) -> None:
        """:param calendar: name of the time zone in which this application's days begin."""
        self._calendar = calendar
        self._kinds: dict[str, str] = {}
        self._first_days: dict[str, date] = {}
        self._scanned = Catalogue([], [])
        self._scan_expires = 0.0
        self._warned = False

    def known_kind(self, event: str) -> str | None:
        """The kind of `event`, as far as this process knows. No I/O."""
        return self._kinds.get(event)

    def admit(
        self, client: Any, wanted: Mapping[str, str], clock: Callable[[], datetime]
    ) -> dict[str, str]:
        """The kind of every event in `wanted` (event -> kind), registering those never seen.

        The first registration settles an event's kind for every process, unless bitmaps written
        before us stand under its name: then it is plain, as bitmapist knows no other.
        """
        # Another thread may forget all that is known meanwhile.
        kinds = self._kinds
        strangers = [event for event in wanted if event not in kinds]
        if strangers:
            found = dict(zip(strangers, client.hmget(KINDS, strangers), strict=True))
            new = [event for event, kind in found.items() if kind is None]
            if new:
                found |= self._register(client, {event: wanted[event] for event in new}, clock())
            kinds |= {event: text(kind) for event, kind in found.items()}
        return {event: kinds[event] for event in wanted}

    def _register(self, client: Any, wanted: Mapping[str, str], today: datetime) -> dict[str, Any]:
        older = self._first_months(client, wanted, today)
        pipe = client.pipeline(transaction=False)
        for event, kind in wanted.items():
            pipe.hsetnx(KINDS, event, PLAIN if event in older else kind)
            first = older.get(event)
            if first is not None:
                pipe.zadd(FIRST_DAYS, {event: first.toordinal()}, lt=True)
        pipe.set(CALENDAR, self._calendar, nx=True)
        pipe.get(CALENDAR)
        pipe.hmget(KINDS, list(wanted))
        *_, calendar, kinds = pipe.execute()
        if text(calendar) != self._calendar and not self._warned:
            self._warned = True
            logger.warning(
                "BITMAPIST_TIMEZONE is %s, but this server's days were recorded in %s: "
                "periods at the seam will disagree",
                self._calendar,
                text(calendar),
            )
        return dict(zip(wanted, kinds, strict=True))

    @staticmethod
    def _first_months(
        client: Any, events: Iterable[str], today: datetime
    ) -> dict[str, date | None]:
        """The events that have bitmaps already, with the first day of their first month."""
        last = Period.containing("month", today).shift(1)
        months = list(_EARLIEST.until(last))
        names = list(events)
        pipe = client.pipeline(transaction=False)
        for event in names:
            for month in months:
                pipe.exists(month.key(event))
            pipe.exists(unique_key(event))
        replies = iter(pipe.execute())
        older: dict[str, date | None] = {}
        for event in names:
            held = [month.start.date() for month in months if next(replies)]
            flag = next(replies)
            if held or flag:
                older[event] = held[0] if held else None
        return older

    def note_days(self, pipe: Any, days: Mapping[str, date]) -> None:
        """Queue on `pipe` the first days in `days` (event -> day) that are earlier than known."""
        known = self._first_days
        for event, day in days.items():
            if event not in known or day < known[event]:
                pipe.zadd(FIRST_DAYS, {event: day.toordinal()}, lt=True)

    @staticmethod
    def ask_whether_it_is_there(pipe: Any) -> None:
        """Queue on `pipe` the question whether anything is registered."""
        pipe.exists(KINDS)

    def remember_days(self, days: Mapping[str, date]) -> None:
        """The server has taken `days`: do not send them again."""
        for event, day in days.items():
            self._first_days[event] = min(day, self._first_days.get(event, day))

    def space(self, client: Any, names: Iterable[str]) -> str | None:
        """The id map that all of `names` (events and flags) share; None for plain ids. Reads only.

        No round trip if this process knows them all to be of one kind.

        :raises ValueError: if their ids are of different kinds, so that their sets cannot combine.
        """
        listed = sorted(names)
        undecided = self._undecided(listed)
        return self._shared_space(listed, client.hmget(KINDS, undecided) if undecided else ())

    def space_and_reply(
        self, client: Any, names: Iterable[str], command: tuple[Any, ...]
    ) -> tuple[str | None, Any]:
        """The `space` of `names`, and the undecoded reply to a reading `command`: one round trip.

        :raises ValueError: as `space`.
        """
        listed = sorted(names)
        undecided = self._undecided(listed)
        if not undecided:
            return self._shared_space(listed, ()), replies(client, [command])[0]
        kinds, reply = replies(client, [("HMGET", KINDS, *undecided), command])
        return self._shared_space(listed, kinds), reply

    def space_and_first_day(
        self,
        client: Any,
        names: Iterable[str],
        events: Iterable[str],
        clock: Callable[[], datetime],
    ) -> tuple[str | None, date | None]:
        """The `space` of `names`, and the first day on which any of `events` was ever marked.

        Of events that only others mark it is the first day of their first month; None if there is
        none. Reads only: one round trip for both, and one more for events of others.

        :raises ValueError: as `space`.
        """
        listed, dated = sorted(names), list(events)
        undecided = self._undecided(listed)
        pipe = client.pipeline(transaction=False)
        if undecided:
            pipe.hmget(KINDS, undecided)
        for event in dated:
            pipe.zscore(FIRST_DAYS, event)
        replies = pipe.execute()
        space = self._shared_space(listed, replies.pop(0) if undecided else ())
        ordinals = dict(zip(dated, replies, strict=True))
        days = [date.fromordinal(int(ordinal)) for ordinal in ordinals.values() if ordinal]
        strangers = [event for event, ordinal in ordinals.items() if ordinal is None]
        if strangers:
            months = self._first_months(client, strangers, clock()).values()
            days += [month for month in months if month is not None]
        return space, min(days, default=None)

    def _undecided(self, names: list[str]) -> list[str]:
        """`names`, unless this process knows them all to be of one kind."""
        known = {self.known_kind(name) for name in names}
        return names if len(known) > 1 or None in known else []

    def _shared_space(self, names: list[str], held: Sequence[Any]) -> str | None:
        """The id map of `names`, given the kinds that the server holds if they were undecided."""
        asked = zip(names, held, strict=False)
        kinds = {name: text(kind) for name, kind in asked if kind is not None}
        if len(set(kinds.values())) > 1:
            told = ", ".join(f"{name!r} has {kind} ids" for name, kind in kinds.items())
            raise ValueError(f"sets of different kinds of ids do not combine: {told}")
        known = None if held or not names else self.known_kind(names[0])
        return _space_or_plain(known or next(iter(kinds.values()), PLAIN))

    def names(self, client: Any) -> list[str]:
        """Every event's and flag's name, sorted: the registered ones and those a SCAN finds."""
        return sorted(self.known(client, scanned=True).spaces)

    def known(self, client: Any, *, scanned: bool) -> Known:
        """What has been marked: what is registered, in one round trip, and what a SCAN finds.

        :param scanned: False: what is registered alone.
        """
        others = self._scan(client) if scanned else Catalogue([], [])
        pipe = client.pipeline(transaction=False)
        pipe.hgetall(KINDS)
        pipe.zrange(FIRST_DAYS, 0, -1, withscores=True)
        kinds, days = pipe.execute()
        spaces = {text(name): _space_or_plain(text(kind)) for name, kind in kinds.items()}
        first_days = dict.fromkeys(others.events, _EARLIEST.start.date())
        first_days |= {text(name): date.fromordinal(int(ordinal)) for name, ordinal in days}
        # A mark without a date registers its name, but no first day.
        flags = {name: spaces.get(name) for name in others.flags}
        flags |= {name: space for name, space in spaces.items() if name not in first_days}
        events = {name: Since(spaces.get(name), day) for name, day in first_days.items()}
        return Known(events, flags)

    def reindex(self, client: Any, now: datetime) -> list[str]:
        """Register what others have marked, with the first months of their events.

        :returns: the names that were not registered before, sorted.
        """
        self._scan_expires = 0.0
        found = dict.fromkeys(chain(*self._scan(client)))
        known = self.known(client, scanned=False)
        events, spaces = known.events, known.spaces
        # Under a name whose ids are mapped, their plain ones are not to be read.
        names = sorted(name for name in found if spaces.get(name) is None)
        older = self._first_months(client, names, now)
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hsetnx(KINDS, name, PLAIN)
            month = older.get(name)
            if month and (name not in events or month < events[name].first_day.replace(day=1)):
                pipe.zadd(FIRST_DAYS, {name: month.toordinal()}, lt=True)
        pipe.execute()
        self.forget_known()
        return [name for name in names if name not in spaces]

    def _scan(self, client: Any) -> Catalogue:
        begun = time.monotonic()
        if begun >= self._scan_expires:
            self._scanned = scanned(client)
            ended = time.monotonic()
            self._scan_expires = ended + max(_SCAN_AGE, _SCAN_SHARE * (ended - begun))
        return self._scanned

    def forget_known(self) -> None:
        """Drop what the process remembers: the server may have come back with other data."""
        self._kinds = {}
        self._first_days = {}
        self._scan_expires = 0.0


def scanned(client: Any, batch: int = 10_000) -> Catalogue:
    """The events and flags under whose names there are bitmaps, whoever wrote them.

    :param batch: keys asked for in one step of the SCAN.
    """
    # A client made with decode_responses=True would fail at a key that is no UTF-8.
    keys = client.scan_iter(match=f"{KEY_PREFIX}*", count=batch, NEVER_DECODE=True)
    parts = (key[len(KEY_PREFIX) :].rpartition("_") for key in _texts(keys))
    named = {(name, period == "u") for name, _, period in parts if name}
    named = {pair for pair in named if not pair[0].startswith("bitop_")}
    return Catalogue(
        sorted(name for name, is_flag in named if not is_flag),
        sorted(name for name, is_flag in named if is_flag),
    )


def _texts(keys: Iterable[Any]) -> Iterator[str]:
    """Those of `keys` that are text: nothing that anybody can name has another one."""
    for key in keys:
        with suppress(UnicodeDecodeError):
            yield text(key)


def _space_or_plain(kind: str) -> str | None:
    return None if kind == PLAIN else space_of(kind)
