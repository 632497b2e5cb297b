"""Redis bitmaps as immutable sets: fetched in one round trip, combined with NumPy, never written.

In a Redis bitmap, bit 0 is the most significant bit of byte 0
(https://redis.io/docs/latest/commands/setbit/). The bytes are viewed as uint64 words; the machine's
byte order does not matter to AND, OR, XOR and counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import or_
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from redis.cluster import RedisCluster

WORD_BYTES = 8
#: Bytes of bitmaps that a report holds at a time; with what it computes from them, about thrice.
BUDGET = 256 * 2**20
_SLICE_UNIT = 64 * 2**10
#: Bytes of bitmaps whose memory is better allocated at once.
_MANY_BYTES = 512 * 2**10
_MOST_MEASURED = 10_000
_PART_WORDS = 128 * 2**10 // WORD_BYTES


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bitmap:
    """An immutable set of offsets. Sets of different lengths combine: what is missing is 0.

    :param words: the bits in Redis's order, ``(n_words,) uint64``; the array is made read-only.

    >>> active, premium = Bitmap.from_bytes(b"\\xe0"), Bitmap.from_bytes(b"\\x60\\x80")
    >>> len(active), 8 in premium
    (3, True)
    >>> (active & premium).ids().tolist(), (premium - active).ids().tolist()
    ([1, 2], [8])
    """

    words: NDArray[np.uint64]

    def __post_init__(self) -> None:
        self.words.flags.writeable = False

    @classmethod
    def from_bytes(cls, value: bytes | None) -> Bitmap:
        """The bitmap that GET returned: its bytes, or None for a key that does not exist."""
        value = value or b""
        padded = value.ljust(-(-len(value) // WORD_BYTES) * WORD_BYTES, b"\0")
        return cls(np.frombuffer(padded, np.uint64))

    def __and__(self, other: Bitmap) -> Bitmap:
        shared = min(self.words.size, other.words.size)
        return Bitmap(self.words[:shared] & other.words[:shared])

    def __or__(self, other: Bitmap) -> Bitmap:
        short, long = sorted((self.words, other.words), key=len)
        words = long.copy()
        words[: short.size] |= short
        return Bitmap(words)

    def __xor__(self, other: Bitmap) -> Bitmap:
        short, long = sorted((self.words, other.words), key=len)
        words = long.copy()
        words[: short.size] ^= short
        return Bitmap(words)

    def __sub__(self, other: Bitmap) -> Bitmap:
        shared = min(self.words.size, other.words.size)
        words = self.words.copy()
        words[:shared] &= ~other.words[:shared]
        return Bitmap(words)

    def __len__(self) -> int:
        # A uint32 sum takes two thirds of a uint64 one's time, and holds every count short of a
        # full 512 MiB, the longest string that Redis allows.
        return int(np.bitwise_count(self.words).sum(dtype=np.uint32))

    def __bool__(self) -> bool:
        return bool(self.words.any())

    def __contains__(self, offset: int) -> bool:
        byte, bit = divmod(offset, 8)
        octets = self.words.view(np.uint8)
        return 0 <= byte < octets.size and bool(octets[byte] & (0x80 >> bit))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bitmap):
            return NotImplemented
        return not self ^ other

    # Equal sets may differ in length, and nothing needs them as keys.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Bitmap of {len(self)} in {self.words.nbytes} bytes>"

    def ids(self) -> NDArray[np.intp]:
        """The offsets in ascending order, ``(n,) intp``."""
        # flatnonzero has a path for bool that is four times as fast; unpackbits gives 0s and 1s.
        return np.flatnonzero(np.unpackbits(self.words.view(np.uint8)).view(np.bool_))


EMPTY = Bitmap.from_bytes(None)


def union(bitmaps: Iterable[Bitmap]) -> Bitmap:
    """The offsets that are in any of `bitmaps`; the empty set if there are none."""
    return reduce(or_, bitmaps, EMPTY)


def sliding_unions(sets: Sequence[Bitmap], width: int) -> list[Bitmap]:
    """The union of each of `sets` with the ``width - 1`` that follow it, as far as there are any.

    By doubling: log2(width) unions for each set instead of width.
    """
    unions, size = list(sets), 1
    while size < width:
        step = min(size, width - size)
        unions = [*map(or_, unions, unions[step:]), *unions[-step:]]
        size += step
    return unions


class Bitmaps:
    """The bitmaps of a report by key, over the whole range of offsets or a slice of it.

    :param by_key: what was fetched; every key that the report may ask for.
    :param first_offset: the offset of the slice's first bit.
    """

    def __init__(self, by_key: Mapping[str, Bitmap], first_offset: int = 0) -> None:
        self._by_key = by_key
        self.first_offset = first_offset
        self._unions: dict[tuple[str, ...], Bitmap] = {}

    def __getitem__(self, key: str) -> Bitmap:
        return self._by_key[key]

    def union_of(self, keys: tuple[str, ...]) -> Bitmap:
        """The offsets under any of `keys`, computed once."""
        if len(keys) == 1:
            return self._by_key[keys[0]]
        if keys not in self._unions:
            self._unions[keys] = union(self._by_key[key] for key in keys)
        return self._unions[keys]

    def parts(self) -> Iterator[Bitmaps]:
        """These bitmaps in parts of the offsets' range that a processor's cache holds.

        A report that combines large bitmaps time and again then works in the cache, and on memory
        that it has had before: several times as fast, and its intermediate sets are small.
        """
        longest = max((bitmap.words.size for bitmap in self._by_key.values()), default=0)
        if longest <= _PART_WORDS:
            yield self
            return
        for begin in range(0, longest, _PART_WORDS):
            end = begin + _PART_WORDS
            part = {key: Bitmap(bitmap.words[begin:end]) for key, bitmap in self._by_key.items()}
            yield Bitmaps(part, self.first_offset + begin * WORD_BYTES * 8)


def slices(client: Any, keys: Iterable[str]) -> Iterator[Bitmaps]:
    """The bitmaps under `keys`, each read once, all in two round trips if they fit `BUDGET`.

    The first asks how long they are; it is saved for short ones that were measured before. If they
    do not fit, they come in slices of the offsets' range,
    each in one more round trip, so that any number of users costs a bounded amount of memory.
    Counts of one slice add to those of the others: no user is in two.

    :param client: any redis-py compatible client.
    :param keys: duplicates are welcome; a key that does not exist is the empty set.
    :raises redis.RedisError: the server does not answer, or a key holds no string.
    """
    distinct = list(dict.fromkeys(keys))
    nothing = dict.fromkeys(distinct, EMPTY)
    lengths = _lengths(client, distinct)
    if sum(lengths.values()) <= BUDGET:
        yield Bitmaps(nothing | _whole(client, lengths))
        return
    width = max(_SLICE_UNIT, BUDGET // len(lengths) // _SLICE_UNIT * _SLICE_UNIT)
    for begin in range(0, max(lengths.values()), width):
        rest = {key: length - begin for key, length in lengths.items() if length > begin}
        ranges = [("GETRANGE", key, begin, begin + width - 1) for key in rest]
        arena = _Arena(min(width, length) for length in rest.values())
        bitmaps = dict(zip(rest, _read(client, ranges, arena.store), strict=True))
        yield Bitmaps(nothing | bitmaps, begin * 8)


#: Client -> the bytes of each key, as measured last. Only a hint: where it is wrong, one reading
#: takes more memory.
_MEASURED: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()


def _lengths(client: Any, keys: Sequence[str]) -> dict[str, int]:
    """The bytes of the bitmaps under `keys`; of missing ones only if none needs to be measured."""
    measured = _MEASURED.setdefault(client, {})
    known = {key: measured.get(key, _MANY_BYTES) for key in keys}
    # Even twice as long as they were, they would be few enough for one MGET.
    if 2 * sum(known.values()) < min(_MANY_BYTES, BUDGET):
        return known
    if len(measured) > _MOST_MEASURED:
        measured.clear()
    replies = _read(client, [("STRLEN", key) for key in keys])
    measured |= dict(zip(keys, replies, strict=True))
    return {key: measured[key] for key in keys if measured[key]}


def _whole(client: Any, lengths: Mapping[str, int]) -> dict[str, Bitmap]:
    """The bitmaps under the keys of `lengths`, of as many bytes, in one round trip."""
    if sum(lengths.values()) < _MANY_BYTES and not isinstance(client, RedisCluster):
        # One MGET takes a fifth of the time of many GETs, but in a cluster its keys share a slot.
        values = client.execute_command("MGET", *lengths, NEVER_DECODE=True) if lengths else ()
        return dict(zip(lengths, map(Bitmap.from_bytes, values), strict=True))
    # Valkey sends a long string without copying it, but copies what GETRANGE cuts out.
    arena = _Arena(lengths.values())
    gets = [("GET", key) for key in lengths]
    return dict(zip(lengths, _read(client, gets, arena.store), strict=True))


class _Arena:
    """One array for many bitmaps, filled as they come in.

    Each reply's memory serves the next one, and NumPy asks for huge pages for a large array: the
    page faults of a new string for each reply took two thirds of the time of reading.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        """:param lengths: the bytes of each bitmap."""
        self._free = np.empty(sum(-(-length // WORD_BYTES) for length in lengths), np.uint64)

    def store(self, value: bytes | None) -> Bitmap:
        """The bitmap of a reply, copied; as it is if it has grown since it was measured."""
        size = -(-len(value or b"") // WORD_BYTES)
        if value is None or size > self._free.size:
            return Bitmap.from_bytes(value)
        words, self._free = self._free[:size], self._free[size:]
        words[-1:] = 0
        words.view(np.uint8)[: len(value)] = np.frombuffer(value, np.uint8)
        return Bitmap(words)


def tally(client: Any, keys: Iterable[str], count: Callable[[Bitmaps], Sequence[int]]) -> list[int]:
    """What `count` counts in the bitmaps under `keys`, summed over their `slices` and `parts`.

    :param count: gives the same number of counts for each part.
    """
    totals: list[int] = []
    for part in chain.from_iterable(bitmaps.parts() for bitmaps in slices(client, keys)):
        counted = count(part)
        totals = [a + b for a, b in zip(totals, counted, strict=True)] if totals else list(counted)
    return totals


def around(client: Any, keys: Iterable[str], offset: int) -> Bitmaps:
    """The bitmaps under `keys` as far as the byte that holds `offset`, in one round trip.

    Parameters and errors are those of `fetch`.
    """
    distinct, byte = list(dict.fromkeys(keys)), offset // 8
    values = _read(client, [("GETRANGE", key, byte, byte) for key in distinct])
    return Bitmaps(dict(zip(distinct, map(Bitmap.from_bytes, values), strict=True)), byte * 8)


def fetch(client: Any, keys: Iterable[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys`, each read once, all in one round trip.

    :param client: any redis-py compatible client.
    :param keys: duplicates are welcome; a key that does not exist is the empty set.
    :raises redis.RedisError: the server does not answer, or a key holds no string.
    """
    distinct = list(dict.fromkeys(keys))
    values = _read(client, [("GET", key) for key in distinct])
    return dict(zip(distinct, map(Bitmap.from_bytes, values), strict=True))


def counts(client: Any, keys: Iterable[str]) -> dict[str, int]:
    """How many bits are set under each of `keys`, counted by the server in one round trip.

    A year has no key: `fetch` its months and count their `union`. Parameters and errors are those
    of `fetch`.
    """
    distinct = list(dict.fromkeys(keys))
    return dict(zip(distinct, _read(client, [("BITCOUNT", k) for k in distinct]), strict=True))


def _read(
    client: Any,
    commands: Sequence[tuple[Any, ...]],
    store: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """The replies to `commands`, in one round trip; what `store` makes of each as it comes in."""
    if not commands:
        return []
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipeline.execute_command(*command, NEVER_DECODE=True)
    if store is None:
        return list(pipeline.execute())
    if isinstance(client, RedisCluster):  # its replies come in from several nodes
        return [store(reply) for reply in pipeline.execute()]
    # Not set_response_callback: the pipeline shares the client's callbacks.
    pipeline.response_callbacks = {
        command[0]: lambda reply, **options: store(reply) for command in commands
    }
    return list(pipeline.execute())
