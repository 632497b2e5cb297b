"""Makes a visitor the user that they became: what they did before counts for the user.

1. The id map is told that the visitor's id is another name of the user
   (`flask_bitmapist.id_map.promoting`). From here on, marks of the visitor are the user's.
2. The bits that the visitor has are moved, until a pass finds no more.

A user who has been erased since it was asked for does not come back by it, and the visitor goes.

If a run is cut short, the map still says which bits are to be moved: any later run goes on with
them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import compress
from secrets import token_hex
from typing import Any

import redis

from ..delivery.erasures import ahead
from ..dimensions import DIMENSIONS, NONE, OTHER, flag_of, month_key
from ..id_map import IdMap, Proviso
from ..id_map.faults import OvertakenError
from ..id_map.keys import map_keys
from ..id_map.promoting import Move
from ..ids import MAPPED
from ..packed_periods import may_be_packed, packed_key
from ..periods import KEY_PREFIX, Grain, Period, unique_key
from ..reading.bitmaps import octets_of
from ..reading.replies import Octets
from ..registry import BELL, KINDS, Registry, slots_of
from ..swapping import clear, exchange
from ..trip import Command, Trip, replies
from .clearing import UNDER_WAY
from .erase import erase, erasures_of
from .parts import in_parts

#: Keys looked at in one round trip, and bits moved in one.
_KEYS, _BITS = 10_000, 2_000
#: How often the keys are gone through, at most, until no bit is found.
_PASSES = 6
#: Seconds after which a move that is not done is taken for abandoned.
_ABANDONED = 60
_DAY = timedelta(days=1)


class NotMovedError(redis.RedisError):
    """Bits kept coming."""

    def __init__(self) -> None:
        super().__init__("the bits of a visitor keep changing while they are moved: try again")


def promote(
    client: Any,
    registry: Registry,
    id_map: IdMap,
    visitor: str,
    user: str,
    since: date,
    today: datetime,
    asked: float,
) -> bool:
    """Promote `visitor`, as `Tracker.promote`.

    :param client: a client that writes, and waits.
    :param today: the naive local time of the calendar.
    :param asked: when somebody asked for it, in seconds since the epoch.
    """
    id_map.complete(client, MAPPED)
    began = int(time.time())
    while True:
        (bell,) = replies(client, [("HGET", KINDS, BELL)])
        if _was_erased(client, user, asked):
            _let_go(client, registry, id_map, visitor, since, today)
            return False
        with suppress(OvertakenError):  # somebody has been erased meanwhile
            id_map.offsets(
                client,
                MAPPED,
                [user],
                at_first=lambda kind: registry.check_map_begins(client, kind, lambda: today),
                proviso=Proviso(("HGET", KINDS, BELL), bell),
            )
            told = id_map.promote(client, MAPPED, visitor, user, since.toordinal(), began)
            if told is not None:
                break
            id_map.forget_known()  # the user has been erased since this process knew the offset
    for one, move in id_map.moves(client, MAPPED).items():
        if one == visitor or move.began <= began - _ABANDONED:
            _Mover(client, registry, one, move, today.date()).move()
            id_map.moved(client, MAPPED, one)
    return told == user


def _was_erased(client: Any, user: str, asked: float) -> bool:
    """Whether `user` has been erased since the moment `asked`."""
    ((_, erasure),) = erasures_of(client, [user])
    return erasure is not None and asked + ahead(client) <= erasure.until / 1e6


def _let_go(
    client: Any, registry: Registry, id_map: IdMap, visitor: str, since: date, today: datetime
) -> None:
    """Erase the visitor of a user who has been erased, unless they are somebody else by now."""
    nobody = f"erased:{token_hex(8)}"
    if promote(client, registry, id_map, visitor, nobody, since, today, time.time()):
        erase(client, registry, id_map, nobody)


class _Mover:
    """Moves the bits of one visitor, all of whose new marks are the user's."""

    def __init__(
        self, client: Any, registry: Registry, visitor: str, move: Move, today: date
    ) -> None:
        self._client = client
        #: What tells whose the visitor is. It changes only if that user is erased.
        self._asks = ("HGET", map_keys(MAPPED).promoted, visitor)
        self._is_single = isinstance(client, redis.Redis)
        self._registry = registry
        self._source, self._target = move.source, move.target
        first = datetime.fromordinal(move.since)
        last = datetime(today.year, today.month, today.day) + _DAY
        self._days, *self._longer = (
            _ends(grain, first, last) for grain in ("day", "week", "month")
        )
        months = Period.containing("month", first).until(Period.containing("month", last))
        self._months = [month.start.date() for month in months]

    def move(self) -> None:
        """Move all bits.

        :raises NotMovedError: if there are always more.
        """
        for keys in self._values():
            self._move_value(keys)
        found = self._found()
        for _ in range(_PASSES):
            if not found or not all(map(self._moved, in_parts(found, _BITS))):
                return
            if self._is_single:  # what was on its way has arrived; some may have been packed
                found = [*self._having(found)]
            else:
                time.sleep(UNDER_WAY)
                found = self._found()
        raise NotMovedError

    def _values(self) -> Iterator[list[str]]:
        """The keys of the values of each dimension whose people may be visitors.

        Those of now, and those of each month in which the visitor may have been there.
        """
        kinds = self._registry.certain_kinds(self._client)
        slots = slots_of(self._client.hgetall(DIMENSIONS))
        for dimension in slots.dimensions:
            values = [
                value
                for value in (*slots.values(dimension), OTHER, NONE)
                if kinds.get(flag_of(dimension, value)) == MAPPED
            ]
            months = [month for month in self._months if slots.keeps(dimension, month)]
            if values:
                yield [unique_key(flag_of(dimension, value)) for value in values if value != NONE]
                for month in months:
                    yield [month_key(dimension, value, month) for value in values]

    def _move_value(self, keys: Sequence[str]) -> None:
        """Give the user the value that the visitor has of a dimension, if they have none.

        :param keys: of the bitmaps of its values.
        """
        if self._is_single:
            while not self._has_moved_value(keys):
                pass
        else:
            pipe = Trip(self._client)
            for command in self._moving_value(keys, self._client):
                pipe.execute_command(*command)
            if len(pipe):
                pipe.execute()
                pipe.check()
        if replies(self._client, [self._asks]) == [None]:
            self._take_back(keys, ())

    def _has_moved_value(self, keys: Sequence[str]) -> bool:
        """False: somebody has given one of them a value meanwhile."""
        with suppress(redis.WatchError), self._client.pipeline() as pipe:
            pipe.watch(*keys)
            commands = self._moving_value(keys, pipe)
            pipe.multi()
            for command in commands:
                pipe.execute_command(*command)
            pipe.execute()
            return True
        return False

    def _moving_value(self, keys: Sequence[str], client: Any) -> list[Command]:
        offsets = (self._source, self._target)
        told = replies(client, [("GETBIT", key, offset) for offset in offsets for key in keys])
        of_visitor = [*compress(keys, told)]
        kept = [] if any(told[len(keys) :]) else of_visitor
        return [
            *(("SETBIT", key, self._target, 1) for key in kept),
            *(("SETBIT", key, self._source, 0) for key in of_visitor),
        ]

    def _found(self) -> list[str]:
        """The keys of the bitmaps that have the visitor's bit, in the order in which to move it.

        That is the order in which marks are made: days before the weeks and months they lie in.
        """
        kinds = self._registry.certain_kinds(self._client)
        begins = [f"{KEY_PREFIX}{name}" for name, kind in kinds.items() if kind == MAPPED]
        days = [*self._having(begin + end for begin in begins for end in self._days)]
        hours = self._having(f"{day}-{hour}" for day in days for hour in range(24))
        ends = [
            *(end for ends in self._longer for end in ends),
            unique_key("").removeprefix(KEY_PREFIX),
        ]
        rest = self._having(begin + end for begin in begins for end in ends)
        return [*hours, *days, *rest]

    def _having(self, keys: Iterable[str]) -> Iterator[str]:
        """Those of `keys` whose bitmaps have the visitor's bit."""
        byte, bit = divmod(self._source, 8)
        for part in in_parts(keys, _KEYS):
            octets = octets_of(self._client, [Octets("", (*part,), byte)])
            yield from compress(part, (octet and octet[0] & 0x80 >> bit for octet in octets))

    def _moved(self, keys: list[str]) -> bool:
        """Move the bits under `keys`; False: the user has been erased, and nothing was done."""
        packed = self._packed(keys)
        pipe = Trip(self._client)
        raw = [key for key in keys if key not in packed]
        for value, offset in ((1, self._target), (0, self._source)):
            for key in raw:
                pipe.execute_command("SETBIT", key, offset, value)
        if raw:
            pipe.execute()
            pipe.check()
        for key in packed:
            exchange(self._client, key, self._source, self._target)
        if replies(self._client, [self._asks]) != [None]:
            return True
        self._take_back(raw, packed)
        return False

    def _packed(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` whose bitmaps are packed."""
        older = [*may_be_packed(self._client, keys)]
        told = (
            replies(self._client, [("EXISTS", packed_key(key)) for key in older]) if older else []
        )
        return [*compress(older, told)]

    def _take_back(self, raw: Collection[str], packed: Iterable[str]) -> None:
        """Nobody has the user's offset any more, which whoever erased the user has cleared."""
        pipe = Trip(self._client)
        for key in raw:
            pipe.execute_command("SETBIT", key, self._target, 0)
        if raw:
            pipe.execute()
            pipe.check()
        for key in packed:
            clear(self._client, {key: {self._target}})


def _ends(grain: Grain, first: datetime, last: datetime) -> list[str]:
    """What follows an event's name in the keys of the periods from `first` to `last`."""
    periods = Period.containing(grain, first).until(Period.containing(grain, last))
    return [period.key("").removeprefix(KEY_PREFIX) for period in periods]
