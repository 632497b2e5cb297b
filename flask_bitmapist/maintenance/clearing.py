"""Finds the bits of people under all keys, packed ones too, and clears them.

Those of several people are looked for together: to go through the keys takes the time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import compress
from typing import Any, NamedTuple, Protocol

import redis

from ..cluster import have_moved, slots_of
from ..packed_periods import keys_of, packed_key, packed_keys
from ..periods import KEY_PREFIX
from ..registry import Registry
from ..resp import packed
from ..trip import Command, Trip, node_of, replies
from ..wishes import WISHES
from .parts import in_parts, in_sized_parts
from .stored import event_of, is_operation

#: Keys and bits looked at in one round trip; packed bitmaps are read whole.
_KEYS, _BITS, _PACKED_KEYS = 5_000, 50_000, 100
#: How often the keys are gone through, at most, until no bit is found.
_PASSES = 6
#: Seconds after which no command that was on its way to a node of a cluster arrives any more.
UNDER_WAY = 0.5


class Place(NamedTuple):
    """A bit of a person, in a raw or packed bitmap."""

    key: str
    offset: int
    is_packed: bool


#: A key, and the offsets of bits that may be set under it.
_Places = tuple[str, tuple[int, ...]]


class NotErasedError(redis.RedisError):
    """Bits kept coming, or keys kept moving."""

    def __init__(self) -> None:
        super().__init__(
            "while marks are erased, the person is being marked, or slots of the cluster are being "
            "moved: run it again, once that is over"
        )


class Whose(Protocol):
    """Whose bits are looked for."""

    def offsets(self, event: str, kind: str | None, key: str) -> tuple[int, ...]:
        """Their bits in the bitmap under `key`.

        :param kind: that of the ids of `event`; None: it is not registered, so they are plain.
        """

    def all_offsets(self) -> tuple[int, ...]:
        """All of their bits, whatever the kind of ids."""

    @property
    def may_lose_some(self) -> bool:
        """Whether some of them may become those of somebody else."""

    def news(self, client: Any) -> bool:
        """Whether some have become those of somebody else. Asks the server."""


class Clearing:
    """The bits of some people."""

    def __init__(
        self, client: Any, registry: Registry, kinds: Mapping[str, str], whose: Whose
    ) -> None:
        """:param kinds: the kind of ids of each registered event; all others have plain ids."""
        self._client = client
        #: Whether a transaction may have keys of any slot.
        self._is_single = isinstance(client, redis.Redis)
        self._registry = registry
        self._kinds = kinds
        self._whose = whose
        #: By their offsets, how the bits of a bitmap are asked for; likewise as they are sent.
        self._reads: dict[tuple[int, ...], list[str | int]] = {}
        self._ends: dict[tuple[int, ...], bytes] = {}

    def clear_all(self, watch: Callable[[int], None]) -> Counter[str]:
        """Clear bits until none is left; returns how many were cleared under each key.

        :param watch: called now and then with the number of keys looked at since.
        :raises NotErasedError: if there are always more, or keys that may have been missed.
        """
        cleared = Counter[str]()
        for _ in range(_PASSES):
            before = slots_of(self._client)
            found = self.found(watch, clears=True)
            if not found and not have_moved(before, slots_of(self._client)):
                return cleared
            cleared += found
            if not self._is_single:
                time.sleep(UNDER_WAY)
        raise NotErasedError

    def found(self, watch: Callable[[int], None], *, clears: bool = False) -> Counter[str]:
        """How many bits there are under each key that has any; they are cleared, if `clears`."""
        found = Counter[str]()
        for keys in in_parts(keys_of(self._client, KEY_PREFIX), _KEYS):
            places = self.raw(keys, clears=clears)
            _count(found, places, adds=clears)
            watch(len(keys))
        for keys in in_parts(packed_keys(self._client), _PACKED_KEYS):
            places = self._packed(keys)
            if clears:
                self._clear_packed(places)
            _count(found, places, adds=clears)
            watch(len(keys))
        return found

    def raw(self, keys: Iterable[str], *, clears: bool) -> list[Place]:
        """The bits in the raw bitmaps under `keys`; they are cleared, if `clears`."""
        found: list[Place] = []
        asked = self._places(self._known(keys))
        for part in in_sized_parts(asked, lambda one: max(len(one[1]), _BITS // _KEYS), _BITS):
            places = self._held(part)
            if clears and places:
                places = self._clear(places)
            found += places
        return found

    def _known(self, keys: Iterable[str]) -> list[str]:
        """`keys`, once it is known which kind of ids their events have."""
        listed = [*keys]
        if any(event is not None and event not in self._kinds for event in map(event_of, listed)):
            self._kinds = self._registry.certain_kinds(self._client)
        return listed

    def _places(self, keys: Iterable[str]) -> Iterator[_Places]:
        """Where bits may be."""
        for key in keys:
            event = event_of(key)
            offsets: tuple[int, ...] = ()
            if is_operation(key):
                offsets = self._whose.all_offsets()
            elif event is not None:
                offsets = self._whose.offsets(event, self._kinds.get(event), key)
            if offsets:
                yield key, offsets

    def _held(self, asked: Collection[_Places]) -> list[Place]:
        pipe = Trip(self._client)
        for key, offsets in asked:
            self._ask(pipe, key, offsets)
        told = pipe.execute() if asked else []
        if any(isinstance(bits, Exception) and not _says_there_is_none(bits) for bits in told):
            pipe.check()
        found: list[Place] = []
        for (key, offsets), bits in zip(asked, told, strict=True):
            if bits == 1:
                found.append(Place(key, offsets[0], is_packed=False))
            elif isinstance(bits, list) and any(bits):
                held = compress(offsets, bits)
                found += [Place(key, offset, is_packed=False) for offset in held]
        return found

    def _ask(self, pipe: Trip, key: str, offsets: tuple[int, ...]) -> None:
        if len(offsets) == 1:
            pipe.execute_command("GETBIT", key, offsets[0])
            return
        reads = self._reads.get(offsets)
        if reads is None:
            reads = self._reads[offsets] = [
                part for offset in offsets for part in ("GET", "u1", offset)
            ]
        if not pipe.packs:
            pipe.execute_command("BITFIELD", key, *reads)
            return
        # All keys have the same end, and it is long where many people are erased.
        end = self._ends.get(offsets)
        if end is None:
            end = self._ends[offsets] = packed(*reads).partition(b"\r\n")[2]
        begin = packed("BITFIELD", key).partition(b"\r\n")[2]
        pipe.queue_packed(("BITFIELD", key), b"*%d\r\n%b%b" % (len(reads) + 2, begin, end))

    def _clear(self, places: list[Place]) -> list[Place]:
        """Returns those that were cleared: all but those of somebody new."""
        if not self._is_single or not self._whose.may_lose_some:
            places = self._still(places, self._client)
            return self._cleared(places, self._sent(_clearing(places)))
        while True:
            with suppress(redis.WatchError), self._client.pipeline() as pipe:
                # Somebody new may come and have the id of one who goes.
                pipe.watch(WISHES)
                places = self._still(places, pipe)
                commands = _clearing(places)
                pipe.multi()
                for command in commands:
                    pipe.execute_command(*command)
                return self._cleared(places, pipe.execute())

    def _still(self, places: list[Place], client: Any) -> list[Place]:
        """Those of `places` that are still to be cleared."""
        if not self._whose.news(client):
            return places
        still = {
            (key, offset)
            for key, offsets in self._places({place.key for place in places})
            for offset in offsets
        }
        return [place for place in places if (place.key, place.offset) in still]

    def _sent(self, commands: Sequence[Command]) -> list[Any]:
        pipe = Trip(self._client)
        for command in commands:
            pipe.execute_command(*command)
        told = pipe.execute() if commands else []
        pipe.check()
        return told

    def _cleared(self, places: list[Place], told: Sequence[Any]) -> list[Place]:
        """:param told: the replies to `_clearing`."""
        bits = [place.key for place in places if not is_operation(place.key)]
        first_bits = told[len(told) - len(bits) :]
        emptied = dict.fromkeys(compress(bits, (first == -1 for first in first_bits)))
        self._delete_empty(emptied)
        return places

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

    def _packed(self, keys: Iterable[str]) -> list[Place]:
        from ..reading.both import joined

        places = [*self._places(self._known(keys))]
        values = replies(self._client, [("GET", packed_key(key)) for key, _ in places])
        found: list[Place] = []
        for (key, offsets), value in zip(places, values, strict=True):
            if value is not None:
                bits = joined(key, (None, value))
                found += [Place(key, each, is_packed=True) for each in offsets if each in bits]
        return found

    def _clear_packed(self, places: Iterable[Place]) -> None:
        from ..swapping import clear

        bits: dict[str, set[int]] = {}
        for key, offset, _ in places:
            bits.setdefault(key, set()).add(offset)
        for keys in in_parts(bits, _PACKED_KEYS if self._is_single else 1):
            clear(self._client, {key: bits[key] for key in keys})


def _count(found: Counter[str], places: Iterable[Place], *, adds: bool) -> None:
    """Add to `found` how many of `places` each key has.

    :param adds: False: they are still there, and a SCAN may tell of a key twice.
    """
    counts = Counter(place.key for place in places if not is_operation(place.key))
    for key, bits in counts.items():
        found[key] = found[key] + bits if adds else max(found[key], bits)


def _clearing(places: Iterable[Place]) -> list[Command]:
    """The commands that clear the bits at `places`; the last ones tell what is left of each."""
    operations = {place.key: None for place in places if is_operation(place.key)}
    bits = [place for place in places if not is_operation(place.key)]
    return [
        *(("UNLINK", key) for key in operations),
        *(("SETBIT", key, offset, 0) for key, offset, _ in bits),
        *(("BITPOS", key, 1) for key, _, _ in bits),
    ]


def _says_there_is_none(error: Exception) -> bool:
    """Whether `error` says that a key is no bitmap, or that no bitmap can have such a bit."""
    return "WRONGTYPE" in str(error) or "out of range" in str(error)
