"""The events that the application has marked: their kind of ids, their first day, their names.

Kept in Redis beside the bitmaps, so that every process agrees. A process that marks remembers what
it has learnt. The trip that uses this also checks that it still holds: the server may have come
back with older data. A process that reads asks each time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import date, datetime
from functools import lru_cache
from itertools import chain, compress
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

import redis

from .dimensions import (
    DIMENSIONS,
    NONE,
    OTHER,
    Slots,
    dated_field,
    flag_of,
    month_text,
    values_in,
)
from .entering import Keys, NewNames, enter_new
from .id_map.faults import DamagedMapError
from .id_map.keys import map_keys
from .ids import MAPPED, PLAIN
from .packed_periods import PACKED_BEFORE, note, packed_keys
from .periods import KEY_PREFIX, OPERATION, Period, unique_key
from .resp import packed_alike
from .trip import Entries, Questions, Trip, node_of, replies
from .wire import straight

logger = logging.getLogger("flask_bitmapist")

KINDS = "flask_bitmapist:events"
#: A copy of the kinds. A server that evicts keys may lose one of the two, and the other restores
#: it: bitmaps with mapped ids must not pass for plain ones.
KINDS_COPY = "flask_bitmapist:events:copy"
FIRST_DAYS = "flask_bitmapist:first_days"
#: A field of `KINDS` that no event has: the moment of the last erasure (`flask_bitmapist.erased`).
BELL = ""
CALENDAR = "flask_bitmapist:timezone"

_KEYS = Keys(KINDS, KINDS_COPY, FIRST_DAYS, CALENDAR)

#: bitmapist's first release: none of its bitmaps is older.
_EARLIEST = Period("month", datetime(2012, 1, 1))
#: A SCAN of so many keys takes no longer than to ask for the possible keys of one name.
_SCANNED_PER_NAME = 60
#: Names whose possible keys are asked for in one piece: some 100 kB.
_NAMES_TOGETHER = 20
#: Keys asked for in one step of a SCAN, which takes the server about a millisecond.
_SCAN_STEP = 10_000
#: What comes before the period in a key.
_BAR = ord("_")
#: How long the names found by a SCAN are trusted: in seconds, and as a multiple of its duration.
_SCAN_AGE, _SCAN_SHARE = 10.0, 100
_NO_MONTHS: Mapping[str, date] = MappingProxyType({})


class LostKindError(redis.ResponseError, ValueError):
    """The server no longer knows which kind of ids an event has."""

    def __init__(self, event: str) -> None:
        super().__init__(
            f"the server has lost which kind of ids the event {event!r} has, as {KINDS} was "
            "deleted or evicted. Restore that key from a backup, or say it with redis-cli: "
            f"HSET {KINDS} '{event}' {MAPPED} (or {PLAIN}, if the ids are whole numbers)"
        )


class Wanted(NamedTuple):
    """What a batch of marks needs from one event."""

    #: The kind of its ids.
    kind: str
    #: Whether any of the marks sets a bit: unmarks need no registered event.
    marked: bool
    #: The earliest day on which a bit is set; None: on no day, but undated.
    first_day: date | None


class Admitted(NamedTuple):
    """What a batch of marks may take for granted."""

    #: The kind of each event; None: it is only unmarked, and nobody has marked it.
    kinds: dict[str, str | None]
    #: Others, which the batch's trip is to enter.
    new: NewNames | None


class _Learnt:
    """What a process has learnt from the server while marking."""

    def __init__(self) -> None:
        #: The kind of each event; None: it was not registered.
        self.kinds: dict[str, str | None] = {}
        #: The first days of events, or later ones.
        self.first_days: dict[str, date] = {}
        #: Events that `KINDS_COPY` holds too.
        self.copied: set[str] = set()
        #: What `BELL` told; '': it was not asked for.
        self.bell: str | None = ""
        #: The values of dimensions; None: they were not asked for.
        self.slots: Slots | None = None

    def rung(self, bell: str | None) -> _Learnt:
        """The same, but for the `bell`."""
        learnt = copy(self)
        learnt.bell = bell
        return learnt

    def outgrown(self) -> _Learnt:
        """The same without what others change who give new values of dimensions."""
        learnt = copy(self)
        learnt.slots = None
        learnt.kinds = {event: kind for event, kind in self.kinds.items() if kind is not None}
        return learnt


class Catalogue(NamedTuple):
    """What has been marked, sorted; a name may be in both lists."""

    #: Names with dated bitmaps.
    events: list[str]
    #: Names with an undated one (bitmapist's ``UniqueEvents``).
    flags: list[str]


class Since(NamedTuple):
    """An event: the kind of its ids, and a day before which nobody did it."""

    kind: str
    first_day: date


class Known(NamedTuple):
    """What has been marked, by name; a name may be in both."""

    #: Those of a `Catalogue`.
    events: dict[str, Since]
    #: Likewise, each with the kind of its ids.
    flags: dict[str, str]
    #: The values of each dimension, in the order in which they came, ``other`` last. Those who have
    #: a value are a flag: ``{"user:plan": ("free", "pro")}`` has ``user:plan=pro``.
    dimensions: dict[str, tuple[str, ...]]
    #: The dimensions whose values are kept for each month too, each with the first day of the first
    #: month.
    dated: dict[str, date]
    #: What is registered, names that are not listed above included; None: the kind is lost.
    registered: dict[str, str | None]

    @property
    def catalogue(self) -> Catalogue:
        """The names."""
        return Catalogue(sorted(self.events), sorted(self.flags))

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of the ids of every event and flag."""
        return self.flags | {name: event.kind for name, event in self.events.items()}

    def shared_kind(self, names: Iterable[str]) -> str:
        """The kind of ids that all of `names` share; those that nobody has registered fit any.

        :raises ValueError: if their ids are of different kinds, so that their sets cannot combine,
            or the server has lost the kind of any.
        """
        held = {name: self.registered[name] for name in sorted(names) if name in self.registered}
        _check_not_lost({name for name, kind in held.items() if kind is None})
        return _shared({name: kind for name, kind in held.items() if kind is not None})

    def with_others(self, marked: Mapping[str, date | None]) -> Known:
        """The same with what only others have `marked`.

        :param marked: each name with a day before which nobody did it; None: it is a flag.
        """
        events = {name: Since(PLAIN, day) for name, day in marked.items() if day is not None}
        flags = {name: PLAIN for name, day in marked.items() if day is None}
        return self._replace(events=events | self.events, flags=flags | self.flags)


_NOTHING = Known({}, {}, {}, {}, {})


def mismatch(event: str, given: str, registered: str) -> str:
    """Why an event of kind `registered` cannot take a mark with ids of kind `given`."""
    return (
        f"the event {event!r} has {registered} ids, and this one is {given}: two ids would share "
        "a bit. Give the events separate names, or set BITMAPIST_ID_MAP='always' before the first "
        "mark if ints and texts are to be mixed. If all its marks have been deleted, run: flask "
        "bitmapist reindex"
    )


def text(value: Any) -> str:
    """A reply as text, whether the client decodes replies or not."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Registry:
    """One application's view of the events on its server."""

    def __init__(self, calendar: str) -> None:
        """:param calendar: name of the time zone in which this application's days begin."""
        #: Names found in the registry once: its copy is asked only if they are gone from it.
        self._found: set[str] = set()
        self._calendar = calendar
        #: What this process knows about the server; replaced when that is forgotten.
        self.history = _Learnt()
        self._scanned = Catalogue([], [])
        self._scan_expires = 0.0
        #: Whether the data's time zone has been compared with this application's.
        self.has_compared_calendar = False
        self._warned = False
        #: Whether the server has run the last script that entered names, as far as is known.
        self.runs_scripts = True

    def kind_of(self, client: Any, event: str) -> str | None:
        """The kind of `event` if it is registered. One round trip."""
        kind = client.hget(KINDS, event)
        return None if kind is None else text(kind)

    def known_kind(self, event: str) -> str | None:
        """The kind of `event`, as far as this process knows. No I/O."""
        return self.history.kinds.get(event)

    def admit(
        self, client: Any, wanted: Mapping[str, Wanted], clock: Callable[[], datetime]
    ) -> dict[str, str | None]:
        """The kind of every event in `wanted`, registering those never seen.

        The first registration settles an event's kind for every process. If the name already has
        bitmaps that we did not write, the kind is plain, the only one that bitmapist has.

        :returns: None for an event that is only unmarked and that nobody has marked. What is
            returned holds only if the server says the same where it is used (`delivery.reliance`).
        :raises LostKindError: if any was registered and the server has lost its kind.
        """
        admitted = self.foresee(client, wanted, clock)
        if admitted.new is None:
            return admitted.kinds
        entered = self._enter(client, admitted.new.kinds, admitted.new.days)
        self.remember(entered.copied, admitted.new.days, entered.kinds)
        return admitted.kinds | entered.kinds

    def foresee(
        self, client: Any, wanted: Mapping[str, Wanted], clock: Callable[[], datetime]
    ) -> Admitted:
        """As `admit`, but new names may be left to the trip that writes their bits.

        They are of one server that runs scripts, and no bitmap has them yet. Their ids are plain:
        mapped ones get their offsets before that trip, and an event comes before those.
        """
        learnt = self.history  # another thread may drop it meanwhile
        strangers = {
            event: want
            for event, want in wanted.items()
            if (learnt.kinds.get(event) is None and (want.marked or event not in learnt.kinds))
            or (want.first_day is not None and event not in learnt.first_days)
        }
        new = self._learn(client, strangers, clock, learnt) if strangers else None
        left = () if new is None else new.kinds
        return Admitted({event: learnt.kinds[event] for event in wanted if event not in left}, new)

    def _learn(
        self,
        client: Any,
        wanted: Mapping[str, Wanted],
        clock: Callable[[], datetime],
        learnt: _Learnt,
    ) -> NewNames | None:
        """Add to `learnt` what the server knows of `wanted`. Errors are those of `admit`.

        :returns: those that are left to be entered.
        """
        registered = self._registered(client, wanted)
        if learnt.bell == "":
            learnt.bell = registered.bell
        learnt.copied |= registered.copied
        learnt.first_days |= registered.first_days
        _check_not_lost(registered.lost)
        kinds = registered.kinds
        new = {event: want for event, want in wanted.items() if event not in kinds}
        undated = {
            event
            for event in kinds
            if wanted[event].first_day is not None and event not in registered.first_days
        }
        if new or undated:
            today = clock()
            found = _with_bitmaps(client, [*new, *undated], today)
            older = self._first_months(client, found, today)
            if older.keys() & new.keys() and self._has_lost_all(client, wanted):
                _check_not_lost(older.keys() & new.keys())
            if not older and self._can_wait(client, new.values()):
                learnt.kinds |= {event: kinds.get(event) for event in wanted if event not in new}
                return NewNames(_KEYS, self._calendar, _alike(new))
            entered = {
                event: PLAIN if event in older else want.kind
                for event, want in new.items()
                if want.marked or event in older
            }
            months = {event: month for event, month in older.items() if month is not None}
            if any(wanted[event].first_day is None for event in months):
                months = _of_events(client, months)
            first_days = _first_days(new, entered) | months
            registered_now = self._enter(client, entered, first_days)
            kinds |= registered_now.kinds
            learnt.copied |= registered_now.copied
            learnt.first_days |= first_days
        learnt.kinds |= {event: kinds.get(event) for event in wanted}
        return None

    def _can_wait(self, client: Any, new: Collection[Wanted]) -> bool:
        """Whether new names may be entered by the trip that marks them: see `foresee`."""
        wants = {id(want): want for want in new}.values()  # most want the same
        return (
            bool(wants)
            and all(want.marked and want.kind == PLAIN for want in wants)
            and self.runs_scripts
            and isinstance(client, redis.Redis)
        )

    def admit_values(
        self,
        client: Any,
        wanted: Mapping[str, Collection[str]],
        most: int,
        dated: Mapping[str, date] = _NO_MONTHS,
    ) -> Slots:
        """The values of dimensions, once those of `wanted` have a slot for which there is room.

        :param wanted: dimension -> values.
        :param most: how many values a dimension may have, besides `OTHER`.
        :param dated: dimension -> a day of a month that is to be kept, as are all later ones.
        """
        learnt = self.history  # another thread may drop it meanwhile, or learn something else
        slots = learnt.slots
        if slots is None or not _have_all(slots, wanted, most):
            slots = learnt.slots = self._with_values(client, wanted, most)
        if new := {of: month for of, month in dated.items() if not slots.keeps(of, month)}:
            _keep_months(client, new)
            slots = learnt.slots = slots_of(client.hgetall(DIMENSIONS))
        return slots

    @staticmethod
    def _with_values(client: Any, wanted: Mapping[str, Collection[str]], most: int) -> Slots:
        slots = slots_of(client.hgetall(DIMENSIONS))
        for dimension, values in wanted.items():
            if not slots.values(dimension):
                for value in _values_with_flags(client, dimension):
                    slots = _with_value(client, slots, dimension, value)
            for value in values:
                slots = _with_value(client, slots, dimension, value, most)
        return slots

    def forget_values(self) -> None:
        """Others have entered values of dimensions, or the first mark of one: ask for them."""
        self.history = self.history.outgrown()

    @staticmethod
    def _registered(client: Any, events: Collection[str]) -> _Registered:
        """What is registered about `events`, with kinds restored that only the copy had."""
        told = replies(client, _questions((BELL, *events)))
        bell = told[0][0]
        registered = _answered(events, [of_all[1:] for of_all in told])
        registered = registered._replace(bell=bell and text(bell))
        if restored := registered.kinds.keys() & registered.lacking:
            pipe = client.pipeline(transaction=False)
            for event in restored:
                pipe.hsetnx(KINDS, event, registered.kinds[event])
            pipe.hmget(KINDS, list(restored))
            kinds = map(text, pipe.execute()[-1])
            registered.kinds.update(zip(restored, kinds, strict=True))
        return registered

    @staticmethod
    def _has_lost_all(client: Any, wanted: Mapping[str, Wanted]) -> bool:
        """Whether mapped ids exist, but nothing says which events have them."""
        mapped = {MAPPED, *(want.kind for want in wanted.values())} - {PLAIN}
        pipe = client.pipeline(transaction=False)
        pipe.hlen(KINDS)
        pipe.hexists(KINDS, BELL)
        for key in (KINDS_COPY, *(key for kind in mapped for key in map_keys(kind).vital())):
            pipe.exists(key)
        kinds, bell, copy, *maps = pipe.execute()
        return kinds <= bell and not copy and any(maps)

    def check_map_begins(self, client: Any, kind: str, clock: Callable[[], datetime]) -> None:
        """See that no id of `kind` has been mapped, whose map is empty.

        :raises redis.ResponseError: if there are marks of ids that were: the server has lost the
            map, and new ids would get the bits of others.
        """
        kinds = client.hgetall(KINDS_COPY) | client.hgetall(KINDS)
        events = [text(name) for name, of_event in kinds.items() if text(of_event) == kind]
        today = clock()
        found = _with_bitmaps(client, events, today)
        if marked := self._first_months(client, found, today):
            keys = map_keys(kind)
            if not any(map(client.exists, keys.vital())):  # another process may have begun it
                raise DamagedMapError(
                    f"{keys.index} and {keys.block(0)} are gone, and new ids would get the bits of "
                    f"others, such as those of the event {min(marked)!r}"
                )

    def _enter(
        self, client: Any, wanted: Mapping[str, str], first_days: Mapping[str, date]
    ) -> _Entered:
        """Enter events with their kinds and first days."""
        done = enter_new(client, _KEYS, self._calendar, wanted, first_days)
        self.runs_scripts = self.runs_scripts or bool(done)
        kinds = {name: kind for name, kind in wanted.items() if name not in done}
        days = {name: day for name, day in first_days.items() if name not in done}
        held = self._enter_each(client, kinds, days) if kinds or days else {}
        return _Entered({**wanted, **held}, done)

    def _enter_each(
        self, client: Any, wanted: Mapping[str, str], first_days: Mapping[str, date]
    ) -> dict[str, str]:
        """As `_enter`, by a command for each; returns the kinds now registered."""
        pipe = Trip(client)
        pipe.queue_many(Entries(KINDS, wanted))
        # Afterwards: a first day without a kind would look as if the kind had been lost.
        if days := [part for name, day in first_days.items() for part in (day.toordinal(), name)]:
            pipe.execute_command("ZADD", FIRST_DAYS, "LT", *days)
        if wanted:
            pipe.execute_command("SET", CALENDAR, self._calendar, "NX")
            pipe.execute_command("HMGET", KINDS, *wanted)
        *_, kinds = pipe.execute()
        pipe.check()
        return dict(zip(wanted, map(text, kinds), strict=True)) if wanted else {}

    @staticmethod
    def _first_months(
        client: Any, events: Iterable[str], today: datetime
    ) -> dict[str, date | None]:
        """The events that already have marks, with the first day of their first month."""
        names = list(events)
        if not names:
            return {}
        months = _months(today)
        pipe = client.pipeline(transaction=False)
        _ask_months(pipe, names, months)
        return _first_held(names, months, pipe.execute(raise_on_error=False))

    def ring(self, bell: str | None) -> None:
        """Note what `BELL` tells now. What was learnt of events and days still holds."""
        self.history = self.history.rung(bell)

    def days_to_enter(self, days: Mapping[str, date]) -> dict[str, date]:
        """Those of `days` that are the first of their event, as far as this process knows."""
        known = self.history.first_days
        return {
            event: day for event, day in days.items() if event not in known or day < known[event]
        }

    def kinds_to_copy(self, kinds: Mapping[str, str | None]) -> dict[str, str]:
        """Those of `kinds` that `KINDS_COPY` lacks, as far as this process knows."""
        copied = self.history.copied
        return {
            event: kind for event, kind in kinds.items() if kind is not None and event not in copied
        }

    def remember(
        self, copied: Iterable[str], days: Mapping[str, date], kinds: Mapping[str, str]
    ) -> None:
        """Note that the server has taken these copies of kinds, first days and kinds."""
        self.history.copied.update(copied)
        self.history.first_days |= days
        self.history.kinds |= kinds

    def enter_plain(
        self, client: Any, events: Collection[str], clock: Callable[[], datetime]
    ) -> None:
        """Register `events`, whose bitmaps others wrote, as having plain ids."""
        months = self._first_months(client, events, clock()).items()
        held = {event: month for event, month in months if month is not None}
        self._enter(client, dict.fromkeys(events, PLAIN), held)

    def ask_calendar(self, pipe: Any) -> bool:
        """Queue on `pipe` the question for the data's time zone, unless it was asked before.

        :returns: whether it was queued; then `compare_calendar` takes the reply.
        """
        if self.has_compared_calendar:
            return False
        pipe.execute_command("GET", CALENDAR)
        return True

    def compare_calendar(self, recorded: Any) -> None:
        """Warn once if the data's time zone differs from this application's."""
        self.has_compared_calendar = True
        if recorded is not None and text(recorded) != self._calendar and not self._warned:
            self._warned = True
            logger.warning(
                "BITMAPIST_TIMEZONE is %s, but this server's days were recorded in %s: "
                "periods at the seam will disagree",
                self._calendar,
                text(recorded),
            )

    def shared_kind(self, client: Any, names: Iterable[str]) -> str:
        """The kind of ids that all of `names` (events and flags) share. Reads only.

        :raises ValueError: if their ids are of different kinds, so that their sets cannot combine,
            or the server has lost the kind of any.
        """
        asked = [*names]
        return self.known_of(client, asked, (), datetime.now)[0].shared_kind(asked)

    def kind_and_reply(
        self, client: Any, names: Iterable[str], command: tuple[Any, ...]
    ) -> tuple[str, Any]:
        """The `shared_kind` of `names`, and the undecoded reply to a reading `command`, at once.

        :raises ValueError: as `shared_kind`.
        """
        listed = sorted(names)
        if self._found.issuperset(listed):
            kinds, reply = replies(client, [("HMGET", KINDS, *listed), command])
            if None not in kinds:
                return _shared(dict(zip(listed, map(text, kinds), strict=True))), reply
        asked = [*_questions(listed).commands()]
        asks_calendar = not self.has_compared_calendar
        if asks_calendar:
            asked.append(("GET", CALENDAR))
        *told, reply = replies(client, [*asked, command])
        if asks_calendar:
            self.compare_calendar(told.pop())
        registered = _answered(listed, told)
        self._found |= {*listed} - registered.lacking
        return registered.shared_kind(listed), reply

    def known_of(
        self,
        client: Any,
        names: Iterable[str],
        events: Iterable[str],
        clock: Callable[[], datetime],
        *,
        with_dimensions: bool = False,
        keys: Sequence[str] = (),
    ) -> tuple[Known, frozenset[str]]:
        """What is `known` of some names, and which of `keys` exist.

        Reads only: one round trip for all, and one more for events of others.

        :param events: those whose first days are asked for, whoever has marked them. If only others
            have, it is that of their first month.
        :param with_dimensions: also of all dimensions.
        """
        begun = [*events]
        asked = [*dict.fromkeys((*sorted(names), *begun))]
        if not asked:
            return _NOTHING, frozenset()
        pipe = client.pipeline(transaction=False)
        if with_dimensions:
            pipe.hgetall(DIMENSIONS)
        _ask(pipe, asked)
        pipe.get(PACKED_BEFORE)
        asks_calendar = self.ask_calendar(pipe)
        for key in keys:
            pipe.exists(key)
        told = pipe.execute()
        there = frozenset(compress(keys, told[len(told) - len(keys) :]))
        del told[len(told) - len(keys) :]
        slots = slots_of(told.pop(0)) if with_dimensions else Slots({})
        if asks_calendar:
            self.compare_calendar(told.pop())
        note(client, told.pop())
        registered = _answered(asked, told)
        days, kinds = registered.first_days, registered.kinds
        known = Known(
            {name: Since(kinds.get(name, PLAIN), day) for name, day in days.items()},
            {name: kind for name, kind in kinds.items() if name not in days},
            {dimension: tuple(slots.values(dimension)) for dimension in slots.dimensions},
            slots.dated,
            {name: kinds.get(name) for name in kinds.keys() | days.keys()},
        )
        others = [event for event in begun if event not in days]
        return known.with_others(self._first_months(client, others, clock())), there

    def with_others(
        self,
        client: Any,
        known: Known,
        names: Iterable[str],
        clock: Callable[[], datetime],
        *,
        keys: Sequence[str] = (),
    ) -> tuple[Known, frozenset[str]]:
        """`known`, with those of `names` that only others have marked, and which of `keys` exist.

        Reads only: one round trip, if there is anything to be asked.
        """
        strangers, months = [*names], _months(clock())
        if not strangers and not keys:
            return known, frozenset()
        pipe = client.pipeline(transaction=False)
        _ask_months(pipe, strangers, months)
        for key in keys:
            pipe.exists(key)
        told = pipe.execute(raise_on_error=False)
        exist = told[len(told) - len(keys) :]
        _raise_any(exist)
        held = _first_held(strangers, months, told[: len(told) - len(keys)])
        return known.with_others(held), frozenset(compress(keys, exist))

    def names(self, client: Any) -> list[str]:
        """Every event's and flag's name, sorted: the registered ones and those a SCAN finds."""
        return sorted(self.known(client, scanned=True).kinds)

    def known(self, client: Any, *, scanned: bool) -> Known:
        """What has been marked: registered names, in one round trip, and those a SCAN finds.

        :param scanned: False: only registered names.
        """
        others = self._scan(client) if scanned else Catalogue([], [])
        pipe = client.pipeline(transaction=False)
        pipe.hgetall(KINDS)
        pipe.hgetall(KINDS_COPY)
        pipe.zrange(FIRST_DAYS, 0, -1, withscores=True)
        pipe.hgetall(DIMENSIONS)
        pipe.get(PACKED_BEFORE)
        asks_calendar = self.ask_calendar(pipe)
        kinds, copies, days, slots, packed, *calendar = pipe.execute()
        note(client, packed)
        if asks_calendar:
            self.compare_calendar(*calendar)
        kinds = {text(name): text(kind) for name, kind in (copies | kinds).items()}
        kinds.pop(BELL, None)
        registered: dict[str, str | None] = {**kinds}
        held = slots_of(slots)
        for dimension in held.dated:
            kinds.pop(flag_of(dimension, NONE), None)
        events_of_others = {*others.events} - held.month_names()
        first_days = dict.fromkeys(events_of_others, _EARLIEST.start.date())
        first_days |= {text(name): date.fromordinal(int(ordinal)) for name, ordinal in days}
        registered |= {text(name): None for name, _ in days if text(name) not in kinds}
        # A mark without a date registers its name, but no first day.
        flags = {name: kinds.get(name, PLAIN) for name in others.flags}
        flags |= {name: kind for name, kind in kinds.items() if name not in first_days}
        events = {name: Since(kinds.get(name, PLAIN), day) for name, day in first_days.items()}
        return Known(events, flags, values_in(held, flags), held.dated, registered)

    def certain_kinds(self, client: Any) -> dict[str, str]:
        """The kind of every registered event and flag.

        :raises LostKindError: if the server has lost any.
        """
        pipe = client.pipeline(transaction=False)
        pipe.zrange(FIRST_DAYS, 0, -1)
        pipe.hgetall(KINDS_COPY)
        pipe.hgetall(KINDS)
        dated, *held = pipe.execute()
        kinds = {text(name): text(kind) for part in held for name, kind in part.items()}
        kinds.pop(BELL, None)
        _check_not_lost({*map(text, dated)} - kinds.keys())
        if not kinds and any(map(client.exists, map_keys(MAPPED).vital())):
            _check_not_lost({*chain(*scanned(client))})
        return kinds

    def reindex(self, client: Any, now: datetime) -> list[str]:
        """Register what others have marked, with the first months of their events.

        :returns: the names that were not registered before, sorted.
        """
        found = sorted(self._held(client))
        if not found:
            return []
        registered = self._registered(client, found)
        for name in sorted(registered.lost):
            logger.error("%s", LostKindError(name))
        # If a name's ids are mapped, plain ones that others marked under it must not be read.
        plain = [
            name
            for name in found
            if registered.kinds.get(name, PLAIN) == PLAIN and name not in registered.lost
        ]
        months = self._first_months(client, plain, now)
        earlier = {
            name: month
            for name, month in months.items()
            if month and month < registered.first_days.get(name, date.max).replace(day=1)
        }
        self._enter(client, dict.fromkeys(plain, PLAIN), _of_events(client, earlier))
        self.forget_known()
        return [name for name in plain if name not in registered.kinds]

    def forget_emptied(self, client: Any) -> list[str]:
        """Forget the events and flags that no longer have a bitmap, and their kinds.

        :returns: their names, sorted.
        """
        known = self.known(client, scanned=False)
        without_value = {flag_of(dimension, NONE) for dimension in known.dated}
        registered = known.kinds.keys() | without_value
        emptied = sorted(registered - self._held(client))
        if not emptied:
            return []
        pipe = client.pipeline(transaction=False)
        _ask(pipe, emptied)
        for key in (KINDS, KINDS_COPY):
            pipe.hdel(key, *emptied)
        pipe.zrem(FIRST_DAYS, *emptied)
        held = slots_of(client.hgetall(DIMENSIONS))
        slots = held.of_flags(emptied)
        # Those of which nothing is left begin anew.
        over = {
            one: month
            for one, month in held.dated.items()
            if {flag_of(one, NONE), *held.flags(one)} & registered <= {*emptied}
        }
        if fields := [*slots, *map(dated_field, over)]:
            pipe.hdel(DIMENSIONS, *fields)
        told = pipe.execute()
        before = _answered(emptied, told[:3])
        # Another process may have marked one in between. From now on it finds the name forgotten.
        revived = self._held(client).intersection(emptied)
        self._enter(
            client,
            {name: kind for name, kind in before.kinds.items() if name in revived},
            {name: day for name, day in before.first_days.items() if name in revived},
        )
        for dimension, value in slots.values():
            if flag_of(dimension, value) in revived:
                _with_value(client, slots_of(client.hgetall(DIMENSIONS)), dimension, value)
        names = {one: {flag_of(one, NONE), *held.flags(one)} for one in over}
        _keep_months(client, {one: over[one] for one in over if names[one] & revived})
        self.forget_known()
        return [name for name in emptied if name not in {*revived, *without_value}]

    def _held(self, client: Any) -> set[str]:
        """The names that have bitmaps now."""
        self._scan_expires = 0.0
        packed = (key[len(KEY_PREFIX) :].rpartition("_")[0] for key in packed_keys(client))
        return {*chain(*self._scan(client)), *packed}

    def _scan(self, client: Any) -> Catalogue:
        begun = time.monotonic()
        if begun >= self._scan_expires:
            self._scanned = scanned(client)
            ended = time.monotonic()
            self._scan_expires = ended + max(_SCAN_AGE, _SCAN_SHARE * (ended - begun))
        return self._scanned

    def forget_known(self) -> None:
        """Drop what the process remembers: the server may have come back with other data."""
        self.history = _Learnt().rung(self.history.bell)
        self._scan_expires = 0.0
        self.has_compared_calendar = False


def _of_events(client: Any, months: Mapping[str, date]) -> dict[str, date]:
    """Those of `months` that are not of dated dimensions."""
    names = slots_of(client.hgetall(DIMENSIONS)).month_names() if months else set[str]()
    return {name: month for name, month in months.items() if name not in names}


def slots_of(held: Mapping[Any, Any]) -> Slots:
    """The slots of dimensions, of which a client gave the fields."""
    return Slots({text(field): text(value) for field, value in held.items()})


def _have_all(slots: Slots, wanted: Mapping[str, Collection[str]], most: int) -> bool:
    """Whether each of `wanted` has its slot, or there is no room."""
    for dimension, values in wanted.items():
        held = slots.values(dimension)
        if len(held) < most and not {*values} <= {*held, OTHER}:
            return False
    return True


def _with_value(client: Any, slots: Slots, dimension: str, value: str, most: float = inf) -> Slots:
    """The slots, once `value` has one, whichever process has given it, or there are `most`."""
    while value not in (OTHER, *(held := slots.values(dimension))) and len(held) < most:
        pipe = client.pipeline(transaction=False)
        pipe.hsetnx(DIMENSIONS, slots.free(dimension), value)
        pipe.hgetall(DIMENSIONS)
        slots = slots_of(pipe.execute()[-1])
    return slots


def _keep_months(client: Any, dated: Mapping[str, date]) -> None:
    """Keep the months of these dimensions, each from that of a day on, or from an earlier one."""
    for dimension, day in dated.items():
        field, month = dated_field(dimension), month_text(day)
        while not client.hsetnx(DIMENSIONS, field, month):
            with suppress(redis.WatchError), node_of(client, DIMENSIONS).pipeline() as pipe:
                pipe.watch(DIMENSIONS)
                if text(replies(pipe, [("HGET", DIMENSIONS, field)])[0]) > month:
                    pipe.multi()
                    pipe.hset(DIMENSIONS, field, month)
                    pipe.execute()
                break


def _values_with_flags(client: Any, dimension: str) -> list[str]:
    """The values of `dimension` whose flags are registered, though it has no slots: they are lost.

    Whoever has one of them is not to have another one besides.
    """
    pipe = client.pipeline(transaction=False)
    pipe.hkeys(KINDS)
    pipe.hkeys(KINDS_COPY)
    begin = flag_of(dimension, "")
    names = {*map(text, chain(*pipe.execute()))} - {begin}
    return sorted(name.removeprefix(begin) for name in names if name.startswith(begin))


def _check_not_lost(events: Collection[str]) -> None:
    """:raises LostKindError: for the first of `events`, whose kinds the server has lost."""
    if events:
        raise LostKindError(min(events))


def _alike(wanted: Mapping[str, Wanted]) -> dict[tuple[str, date | None], list[str]]:
    """The names that have a kind and a first day in common."""
    alike: dict[tuple[str, date | None], list[str]] = {}
    last, names = None, list[str]()
    for name, want in wanted.items():
        if want is not last:  # most want the same
            last, names = want, alike.setdefault((want.kind, want.first_day), [])
        names.append(name)
    return alike


def _first_days(wanted: Mapping[str, Wanted], entered: Mapping[str, str]) -> dict[str, date]:
    """The first days of those `wanted` that were `entered` as requested."""
    return {
        event: want.first_day
        for event, want in wanted.items()
        if want.first_day is not None and entered.get(event) == want.kind
    }


class _Entered(NamedTuple):
    """What the server has registered about names that were to be entered."""

    kinds: dict[str, str]
    #: The names that `KINDS_COPY` has.
    copied: set[str]


class _Registered(NamedTuple):
    """What the server has registered about some names."""

    kinds: dict[str, str]
    first_days: dict[str, date]
    #: The names that `KINDS` lacks, and those that `KINDS_COPY` has.
    lacking: set[str]
    copied: set[str]
    bell: str | None = None

    @property
    def lost(self) -> set[str]:
        """The names whose kind the server has lost."""
        return self.first_days.keys() - self.kinds.keys()

    def shared_kind(self, names: Iterable[str]) -> str:
        """The kind of `names`; names that nobody has marked fit any kind.

        :raises ValueError: as `Registry.shared_kind`.
        """
        listed = list(names)
        _check_not_lost(self.lost.intersection(listed))
        return _shared({name: self.kinds[name] for name in listed if name in self.kinds})


def _questions(names: Collection[str]) -> Questions:
    """The commands that ask what is registered about `names`; `_answered` takes the replies."""
    return Questions([("HMGET", KINDS), ("HMGET", KINDS_COPY), ("ZMSCORE", FIRST_DAYS)], names)


def _ask(pipe: Any, names: Collection[str]) -> None:
    """Queue on `pipe` the `_questions` of `names`."""
    for question in _questions(names).commands():
        pipe.execute_command(*question)


def _ask_months(pipe: Any, names: Collection[str], months: Sequence[Period]) -> None:
    """Queue on `pipe` what tells in which of `months` anybody is marked under each of `names`."""
    for event in names:
        for month in months:
            pipe.bitpos(month.key(event), 1)
        pipe.bitpos(unique_key(event), 1)


def _first_held(
    names: Collection[str], months: Sequence[Period], told: Sequence[Any]
) -> dict[str, date | None]:
    """Those of `names` that have marks, each with the first day of its first month."""
    held_bits = map(_holds_a_bit, told)
    older: dict[str, date | None] = {}
    for event in names:
        held = [month.start.date() for month in months if next(held_bits)]
        flag = next(held_bits)
        if held or flag:
            older[event] = held[0] if held else None
    return older


def _raise_any(told: Sequence[Any]) -> None:
    """:raises redis.RedisError: the first of those that were told."""
    for reply in told:
        if isinstance(reply, Exception):
            raise reply


def _answered(names: Collection[str], told: Sequence[Any]) -> _Registered:
    kinds, copies, days = told
    if not (any(kinds) or any(copies) or any(days)):  # as where all names are new
        return _Registered({}, {}, {*names}, set())
    held = [*zip(names, kinds, copies, days, strict=True)]
    return _Registered(
        kinds={
            name: text(copy if kind is None else kind)
            for name, kind, copy, _ in held
            if kind is not None or copy is not None
        },
        first_days={
            name: date.fromordinal(int(day)) for name, _, _, day in held if day is not None
        },
        lacking={name for name, kind, _, _ in held if kind is None},
        copied={name for name, _, copy, _ in held if copy is not None},
    )


def _shared(kinds: Mapping[str, str]) -> str:
    if len({*kinds.values()}) > 1:
        told = ", ".join(f"{name!r} has {kind} ids" for name, kind in kinds.items())
        raise ValueError(f"sets of different kinds of ids do not combine: {told}")
    return next(iter(kinds.values()), PLAIN)


def _months(today: datetime) -> tuple[Period, ...]:
    """The months in which there may be marks."""
    return _months_until(_next_month(today))


def _next_month(today: datetime) -> Period:
    """It may have begun elsewhere already."""
    return Period.containing("month", today).shift(1)


@lru_cache(maxsize=8)
def _months_until(last: Period) -> tuple[Period, ...]:
    return (*_EARLIEST.until(last),)


@lru_cache(maxsize=8)
def _endings_until(last: Period) -> tuple[str, ...]:
    """What follows a name in the keys of its bitmaps: the undated one, and those of months."""
    keys = (unique_key(""), *(month.key("") for month in _months_until(last)))
    return tuple(key.removeprefix(KEY_PREFIX) for key in keys)


def _with_bitmaps(client: Any, names: list[str], today: datetime) -> list[str]:
    """Those of `names` that may have a month's bitmap, or an undated one.

    Few new names have any, and each has hundreds of keys that might be. So one command asks for
    them all; and a SCAN for all names, where the database is small.
    """
    if not names:
        return []
    try:
        if _size(client) <= len(names) * _SCANNED_PER_NAME:
            return [*_valid(_scanned_among({name.encode() for name in names}, client))]
        if not isinstance(client, redis.Redis):  # in a cluster, a command takes keys of one slot
            return names
        asked = _asked_for(names, _endings_until(_next_month(today)))
        found = straight(client.connection_pool, asked, len(names))
    except redis.ResponseError:
        return names
    # An error: a user may lack the right, or a proxy the command.
    return [name for name, count in zip(names, found, strict=True) if count]


def _size(client: Any) -> int:
    """How many keys the server has."""
    if isinstance(client, redis.Redis):  # whose own way takes three times as long
        return int(replies(client, [("DBSIZE",)])[0])
    return int(client.dbsize())


def _asked_for(names: Sequence[str], endings: tuple[str, ...]) -> Iterator[bytes]:
    """The commands that ask for all keys of `names`, some together.

    A generator: the server answers the first ones while the next are made.
    """
    for first in range(0, len(names), _NAMES_TOGETHER):
        part = names[first : first + _NAMES_TOGETHER]
        yield b"".join([packed_alike("EXISTS", f"{KEY_PREFIX}{name}", endings) for name in part])


def _holds_a_bit(reply: Any) -> bool:
    """Whether BITPOS found a set bit; a key that is not a bitmap counts as marked, too."""
    if isinstance(reply, redis.ResponseError) and "WRONGTYPE" in str(reply):
        return True
    if isinstance(reply, Exception):
        raise reply
    return bool(reply >= 0)


def scanned(client: Any, batch: int = _SCAN_STEP) -> Catalogue:
    """The events and flags under whose names there are bitmaps, whoever wrote them.

    :param batch: keys asked for in one step of the SCAN.
    """
    events, flags = set[bytes](), set[bytes]()
    for of_step in _scanned_names(client, batch):
        events |= of_step[0]
        flags |= of_step[1]
    return Catalogue(sorted(_valid(events)), sorted(_valid(flags)))


def _scanned_names(client: Any, batch: int) -> Iterator[tuple[set[bytes], set[bytes]]]:
    """What may be the names of events, and of flags, step by step of a SCAN."""
    begin = len(KEY_PREFIX)
    for keys in _scanned_keys(client, batch):
        dated = [key for key in keys if not key.endswith(b"_u")]
        yield (
            {key[begin : max(key.rfind(b"_"), begin)] for key in dated},
            {key[begin:-2] for key in keys if key.endswith(b"_u")},
        )


def _scanned_among(names: Collection[bytes], client: Any) -> set[bytes]:
    """Those of `names` that events with a month's bitmap have, or flags."""
    begin = len(KEY_PREFIX)
    return {
        name
        for keys in _scanned_keys(client, _SCAN_STEP)
        for key in keys
        # Most keys are those of days: only ..._2026-11, ..._2026-1 and ..._u are cut in two.
        if (key[-8] == _BAR or key[-7] == _BAR or key[-2] == _BAR)
        and (name := key[begin : key.rfind(b"_")]) in names
    }


def _scanned_keys(client: Any, batch: int) -> Iterator[Collection[bytes]]:
    """The keys of all bitmaps, step by step of a SCAN."""
    pattern = f"{KEY_PREFIX}*"
    if not isinstance(client, redis.Redis):
        yield [*client.scan_iter(match=pattern, count=batch, NEVER_DECODE=True)]
        return
    cursor = 0
    while True:
        # redis-py's own takes three times as long, and fails on a key that is not UTF-8 if the
        # client decodes replies.
        step = replies(client, [("SCAN", cursor, "MATCH", pattern, "COUNT", batch)])
        cursor = int(step[0][0])
        yield step[0][1]
        if not cursor:
            return


def _valid(names: Iterable[bytes]) -> Iterator[str]:
    """Those of `names` that can be the name of an event: others are keys of bitmapist's own."""
    for name in names:
        with suppress(UnicodeDecodeError):  # no valid name has any other kind of key
            valid = name.decode()
            if valid and not valid.startswith(OPERATION):
                yield valid
