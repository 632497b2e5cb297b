"""Erases one person: every bit, and what tells whose the bits were.

1. The server remembers the erasure (`flask_bitmapist.erased`). From here on, no process writes a
   mark that was made before.
2. The entry in the id map goes. No late mark enters the person again: the trip that looks an id up
   asks whether anybody else has been erased. Nobody gets the offset again; if the person comes
   back, they get another one. Visitors who have become the person go likewise.
3. The bits are cleared under every key, packed ones too, until a pass finds no more.

If a run is cut short, the erasure that the server remembers says which offsets are not done: the
next run goes on with them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import redis

from ..delivery.merging import STAGED
from ..dimensions import DIMENSIONS, Slots
from ..erased import ERASED, LAST, SALT, Erasure, digest, server_time
from ..id_map import IdMap
from ..ids import MAPPED, PLAIN, normal_form
from ..packed_periods import days_of, keys_of, packed_key, packed_keys
from ..periods import KEY_PREFIX
from ..registry import BELL, KINDS, Registry, slots_of, text
from ..trip import Trip, node_of, replies
from .parts import in_parts
from .stored import event_of, is_operation

#: Keys looked at in one round trip; packed bitmaps are read whole.
_KEYS, _PACKED_KEYS = 5_000, 100
#: How often the keys are gone through, at most, until no bit is found.
_PASSES = 6
#: An erasure is dated so many microseconds after it began. So all that was marked before counts as
#: earlier, even by a process whose idea of the server's clock is a little wrong.
_MARGIN = 50_000
#: Seconds after which no command that was on its way to a node of a cluster arrives any more.
_UNDER_WAY = 0.5
#: The last bit of a Redis string.
_BITS = 2**32


class ErasedEvent(NamedTuple):
    """What was erased of one event."""

    event: str
    #: The first and the last day of the periods that had a bit; None: only the undated one had.
    first: date | None
    last: date | None
    #: How many hours, days, weeks and months had a bit; and the undated bitmap.
    bits: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased of one person. It does not say whom.

    :ivar moment: the erasure's, by the server's clock. Marks made before it do not come back. None:
        nothing was done.
    :ivar events: what had a bit, by name.
    :ivar kept: events that were left as they were.
    :ivar entries: how many entries of id maps are gone.
    """

    moment: datetime | None
    events: list[ErasedEvent] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    entries: int = 0

    @property
    def bits(self) -> int:
        """How many bits were cleared."""
        return sum(event.bits for event in self.events)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "moment": None if self.moment is None else self.moment.isoformat(),
            "bits": self.bits,
            "entries": self.entries,
            "kept": self.kept,
            "events": [
                {
                    **event._asdict(),
                    "first": event.first and event.first.isoformat(),
                    "last": event.last and event.last.isoformat(),
                }
                for event in self.events
            ],
        }


class NotErasedError(redis.RedisError):
    """Bits kept coming."""

    def __init__(self) -> None:
        super().__init__(
            "the person is being marked while the marks are erased: run it again, once that is over"
        )


def erase(
    client: Any,
    registry: Registry,
    id_map: IdMap,
    user: object,
    *,
    keep: Collection[str] = (),
    dry_run: bool = False,
    watch: Callable[[int], None] = lambda keys: None,
) -> Receipt:
    """Erase `user`, as `Tracker.erase`.

    :param client: a client that writes, and waits.
    :param watch: called now and then with the number of keys looked at since.
    """
    id_ = normal_form(user)
    if isinstance(id_, str):
        id_ = id_map.user_of(client, MAPPED, id_)
    eraser = _Eraser(client, registry, id_map, id_, frozenset(keep), watch)
    if dry_run:
        eraser.look_up()
        return eraser.receipt(None, eraser.found())
    return eraser.erase()


class _Place(NamedTuple):
    """A bit of the person, in a raw or packed bitmap."""

    key: str
    offset: int
    is_packed: bool


class _Eraser:
    def __init__(
        self,
        client: Any,
        registry: Registry,
        id_map: IdMap,
        id_: int | str,
        kept: frozenset[str],
        watch: Callable[[int], None],
    ) -> None:
        """:raises ValueError: if nobody has marked an event that is to be kept."""
        self._client = client
        #: Whether a transaction may have keys of any slot.
        self._is_single = isinstance(client, redis.Redis)
        self._registry = registry
        self._id_map = id_map
        #: The kind of ids of each registered event; all others have plain ids.
        self._kinds = registry.certain_kinds(client)
        slots = slots_of(client.hgetall(DIMENSIONS)) if kept else Slots({})
        if unknown := sorted(kept - self._kinds.keys() - {*slots.dimensions}):
            raise ValueError(f"nobody has ever marked {unknown[0]!r}, which is to be kept")
        self._id = id_
        # Late marks name the dimension; its bitmaps are those of the values.
        flags = {flag for one in kept for flag in slots.flags(one)}
        self._kept = kept | (flags & self._kinds.keys())
        self._watch = watch
        #: Kind -> the offset in the map.
        self._entries: dict[str, int] = {}
        #: How many of the entries are gone.
        self._gone = 0
        #: Kind -> all offsets whose bits are to be cleared.
        self._offsets: dict[str, set[int]] = {}
        #: What the server calls the person.
        self._name = ""
        #: The visitors who have become the person.
        self._visitors: set[str] = set()

    @property
    def _mapped(self) -> set[str]:
        return {MAPPED, *self._kinds.values()} - {PLAIN}

    def look_up(self) -> Erasure | None:
        """Find out where the person's bits are; returns the earlier erasure, if there was one."""
        self._entries = self._id_map.lookup(self._client, str(self._id), self._mapped)
        earlier = self._earlier()
        for kind, offsets in (earlier.unfinished if earlier else {}).items():
            self._offsets.setdefault(kind, set()).update(offsets)
        for kind, offset in self._entries.items():
            self._offsets.setdefault(kind, set()).add(offset)
        if isinstance(self._id, int) and self._id < _BITS:
            self._offsets[PLAIN] = {self._id}
        self._look_for_visitors()
        return earlier

    def _look_for_visitors(self) -> bool:
        """Whether there are visitors who have become the person, and of whom nothing was known."""
        found = {*self._id_map.visitors_of(self._client, MAPPED, str(self._id))} - self._visitors
        if found:
            self._visitors |= found
            moves = self._id_map.moves(self._client, MAPPED)
            offsets = self._offsets.setdefault(MAPPED, set())
            offsets.update(move.source for name, move in moves.items() if name in found)
        return bool(found)

    def _earlier(self) -> Erasure | None:
        (salt,) = replies(self._client, [("HGET", ERASED, SALT)])
        if salt is None:
            return None
        self._name = digest(text(salt), self._id)
        (held,) = replies(self._client, [("HGET", ERASED, self._name)])
        return None if held is None else Erasure.loads(held)

    def erase(self) -> Receipt:
        client = self._client
        for kind in self._mapped:
            self._id_map.complete(client, kind)
        client.hsetnx(ERASED, SALT, secrets.token_hex(16))
        earlier = self.look_up()
        # What was marked before the earlier erasure must still not come back.
        kept = self._kept if earlier is None else self._kept & {*earlier.kept}
        moment = self._remember(kept)
        while not self._left_maps():
            self.look_up()
            moment = self._remember(kept)
        # From here on no visitor becomes the person.
        if self._look_for_visitors():
            moment = self._remember(kept)
        for visitor in self._visitors:
            for offset in self._offsets.get(MAPPED, ()):
                self._id_map.retire(client, MAPPED, visitor, offset)
        # From here on nobody moves the bits of one.
        self._id_map.forget_visitors(client, MAPPED, self._visitors)
        for key in keys_of(client, STAGED):  # what was staged before relies on an earlier state
            client.unlink(key)
        found = self._clear_all()
        client.hset(ERASED, self._name, Erasure(moment, kept).dumps())
        # A person who comes back at once must be marked later than the erasure.
        time.sleep(max(0, moment + _MARGIN - server_time(client)) / 1e6)
        return self.receipt(moment, found)

    def _left_maps(self) -> bool:
        """Take the person out of all maps, in which no late mark enters them again.

        :returns: False if they have got an entry of which nothing was known.
        """
        if not self._is_single:
            # Of a trip that asked for `BELL` before the erasure the part to the map may be late.
            time.sleep(_UNDER_WAY)
        for kind in sorted(self._mapped):
            offset = self._entries.get(kind)
            if not self._id_map.retire(self._client, kind, str(self._id), offset):
                return False
            self._gone += self._entries.pop(kind, None) is not None
        return True

    def _remember(self, kept: Collection[str]) -> int:
        """Have the server remember this erasure; returns its moment.

        :param kept: events whose late marks are still accepted.
        """
        client = self._client
        unfinished = {
            kind: sorted(offsets) for kind, offsets in self._offsets.items() if kind != PLAIN
        }
        while True:
            now = server_time(client)
            with suppress(redis.WatchError), node_of(client, ERASED).pipeline() as pipe:
                # Whoever hears of a moment must find all erasures up to it.
                pipe.watch(ERASED)
                last, salt = replies(pipe, [("HMGET", ERASED, LAST, SALT)])[0]
                moment = max(now + _MARGIN, int(last or 0) + 1)
                late = Erasure(moment, kept).dumps()
                erased = {digest(text(salt), visitor): late for visitor in self._visitors}
                erased[self._name] = Erasure(moment, kept, unfinished).dumps()
                pipe.multi()
                pipe.hset(ERASED, mapping={**erased, LAST: moment})
                pipe.execute()
                client.hset(KINDS, BELL, moment)
                if server_time(client) < moment:
                    return moment

    def _clear_all(self) -> set[_Place]:
        """Clear bits until none is left; returns what was cleared."""
        cleared: set[_Place] = set()
        for _ in range(_PASSES):
            found = self.found(clears=True)
            if not found:
                return cleared
            cleared |= found
            if not self._is_single:
                time.sleep(_UNDER_WAY)
        raise NotErasedError

    def found(self, *, clears: bool = False) -> set[_Place]:
        """The person's bits; they are cleared, if `clears`."""
        found: set[_Place] = set()
        for keys in in_parts(keys_of(self._client, KEY_PREFIX), _KEYS):
            places = self._raw(keys)
            if clears:
                self._clear(places)
            found |= {place for place in places if not is_operation(place.key)}
            self._watch(len(keys))
        for keys in in_parts(packed_keys(self._client), _PACKED_KEYS):
            places = self._packed(keys)
            if clears:
                self._clear_packed(places)
            found.update(places)
            self._watch(len(keys))
        return found

    def _places(self, keys: Iterable[str], *, is_packed: bool) -> list[_Place]:
        """Where the person's bits may be."""
        named = [(key, event_of(key)) for key in keys]
        if any(event is not None and event not in self._kinds for _, event in named):
            self._kinds = self._registry.certain_kinds(self._client)
        places = []
        for key, event in named:
            if is_operation(key):
                offsets: Collection[int] = set[int]().union(*self._offsets.values())
            elif event is None or event in self._kept:
                continue
            else:
                offsets = self._offsets.get(self._kinds.get(event, PLAIN), ())
            places += [_Place(key, offset, is_packed) for offset in offsets]
        return places

    def _raw(self, keys: Iterable[str]) -> list[_Place]:
        places = self._places(keys, is_packed=False)
        pipe = Trip(self._client)
        for key, offset, _ in places:
            pipe.execute_command("GETBIT", key, offset)
        told = pipe.execute() if places else []
        if any(isinstance(bit, Exception) and not _says_there_is_none(bit) for bit in told):
            pipe.check()
        return [place for place, bit in zip(places, told, strict=True) if bit == 1]

    def _clear(self, places: Collection[_Place]) -> None:
        pipe = Trip(self._client)
        operations = [place.key for place in places if is_operation(place.key)]
        for key in {*operations}:
            pipe.execute_command("UNLINK", key)
        bits = [place for place in places if not is_operation(place.key)]
        for key, offset, _ in bits:
            pipe.execute_command("SETBIT", key, offset, 0)
        for key, _, _ in bits:
            pipe.execute_command("BITPOS", key, 1)
        if not places:
            return
        told = pipe.execute()
        pipe.check()
        first_bits = told[len(told) - len(bits) :]
        emptied = [place.key for place, first in zip(bits, first_bits, strict=True) if first == -1]
        self._delete_empty(emptied)

    def _delete_empty(self, keys: Iterable[str]) -> None:
        """Delete bitmaps that have no bit left: their length would tell the highest id."""
        client = self._client
        for part in in_parts(keys, _KEYS if self._is_single else 1):
            with node_of(client, part[0]).pipeline() as pipe:
                pipe.watch(*part)
                firsts = replies(pipe, [("BITPOS", key, 1) for key in part])
                empty = [key for key, first in zip(part, firsts, strict=True) if first == -1]
                pipe.multi()
                if empty:
                    pipe.delete(*empty)
                with suppress(redis.WatchError):  # somebody has marked it
                    pipe.execute()

    def _packed(self, keys: Iterable[str]) -> list[_Place]:
        from ..reading.both import joined

        places = self._places(keys, is_packed=True)
        values = replies(self._client, [("GET", packed_key(place.key)) for place in places])
        return [
            place
            for place, value in zip(places, values, strict=True)
            if value is not None and place.offset in joined(place.key, (None, value))
        ]

    def _clear_packed(self, places: Iterable[_Place]) -> None:
        from ..swapping import clear

        bits: dict[str, set[int]] = {}
        for key, offset, _ in places:
            bits.setdefault(key, set()).add(offset)
        for keys in in_parts(bits, _PACKED_KEYS if self._is_single else 1):
            clear(self._client, {key: bits[key] for key in keys})

    def receipt(self, moment: int | None, found: Iterable[_Place]) -> Receipt:
        periods: dict[str, set[str]] = {}
        for key, _, _ in found:
            periods.setdefault(str(event_of(key)), set()).add(key)
        return Receipt(
            None if moment is None else datetime.fromtimestamp(moment / 1e6, UTC),
            [_erased(event, keys) for event, keys in sorted(periods.items())],
            sorted(self._kept),
            self._gone + len(self._entries),
        )


def _says_there_is_none(error: Exception) -> bool:
    """Whether `error` says that a key is no bitmap, or that no bitmap can have such a bit."""
    return "WRONGTYPE" in str(error) or "out of range" in str(error)


def _erased(event: str, keys: Collection[str]) -> ErasedEvent:
    spans = [(first, end - timedelta(days=1)) for first, end in filter(None, map(days_of, keys))]
    days = {first for first, last in spans if first == last}
    # A week or month counts only if none of its days is left.
    told = [span for span in spans if not any(span[0] <= day <= span[1] for day in days)]
    return ErasedEvent(
        event,
        min([*days, *(first for first, _ in told)], default=None),
        max([*days, *(last for _, last in told)], default=None),
        len(keys),
    )
