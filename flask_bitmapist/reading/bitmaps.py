"""Reads the bitmaps of a report: each once, in as few round trips as possible. Never writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import or_
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from redis.cluster import RedisCluster

from ..packed_periods import is_packable, may_be_packed, packed_key
from .bitmap import EMPTY, WORD_BITS, WORD_BYTES, Bitmap, union
from .both import both_forms, joined
from .replies import Octets, Part, Union, read_numbers, read_octets, read_unions, read_words
from .time_limit import check_time, small_step

#: Bytes of bitmaps that a report holds at a time. With what it computes from them it needs about
#: three times as much.
BUDGET = 256 * 2**20
_SLICE_UNIT = 64 * 2**10
#: Bytes of bitmaps that are better read one by one, and only where they are needed.
_MANY_BYTES = 512 * 2**10
_MOST_MEASURED = 10_000
#: Bytes of bitmaps that are read together, if what is computed from them is small.
_TOGETHER = 6 * 2**20
#: Commands of one round trip, which a server answers in some milliseconds.
_COMMANDS = 2_000
_PART_WORDS = 128 * 2**10 // WORD_BYTES
_Command = TypeVar("_Command", bound=tuple[Any, ...])


def sliding_unions(sets: Sequence[Bitmap], width: int, size: int = 1) -> list[Bitmap]:
    """The union of each of `sets` with the ``width - 1`` that follow it, or as many as there are.

    By doubling: log2(width) unions for each set instead of width.

    :param size: what has been done already: each of `sets` is its union with ``size - 1`` others.
    """
    held = [users for users in sets if users.end > users.first]
    if size >= width or not held:
        return list(sets)
    if any(users.is_packed for users in held):
        return _sliding_unions(list(sets), width, size)
    begin, end = min(users.first for users in held), max(users.end for users in held)
    # In one array: making a new one for each union took two thirds of the time.
    unions = np.zeros((len(sets), end - begin), np.uint64)
    for words, users in zip(unions, sets, strict=True):
        words[users.first - begin :][: users.words.size] = users.words
    while size < width:
        step = min(size, width - size)
        small_step(len(sets))
        # In order, so that the one that is taken has not been widened yet.
        for words, following in zip(unions, unions[step:], strict=False):
            words |= following
        size += step
    return [Bitmap(words, begin) for words in unions]


def _sliding_unions(unions: list[Bitmap], width: int, size: int) -> list[Bitmap]:
    """The same of packed sets, which take no room in an array."""
    while size < width:
        step = min(size, width - size)
        small_step(len(unions))
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

    def __bool__(self) -> bool:
        """Whether anybody is in any of them."""
        return any(self._by_key.values())

    def union_of(self, keys: tuple[str, ...]) -> Bitmap:
        """The offsets under any of `keys`, computed once."""
        if len(keys) == 1:
            return self._by_key[keys[0]]
        if keys not in self._unions:
            self._unions[keys] = union(self._by_key[key] for key in keys)
        return self._unions[keys]

    def parts(self) -> Iterator[Bitmaps]:
        """These bitmaps in parts of the offsets' range that a processor's cache holds.

        A report that combines large bitmaps again and again then works in the cache and reuses
        memory: this is several times as fast, and keeps intermediate sets small. Packed sets stay
        whole.
        """
        held = [bitmap for bitmap in self._by_key.values() if bitmap.end > bitmap.first]
        if any(bitmap.is_packed for bitmap in held):
            yield self  # a container fits a processor's cache
            return
        begins = min((bitmap.first for bitmap in held), default=0)
        ends = max((bitmap.end for bitmap in held), default=0)
        if ends - begins <= _PART_WORDS:
            yield self
            return
        for begin in range(begins, ends, _PART_WORDS):
            check_time()
            end = begin + _PART_WORDS
            part = {
                key: bitmap.part(begin, end) if bitmap.first < end and bitmap.end > begin else EMPTY
                for key, bitmap in self._by_key.items()
            }
            yield Bitmaps(part, self.first_offset + begin * WORD_BITS)


class Extent(NamedTuple):
    """The words, ``begin`` to before ``end``, outside which a set is known to have no offset.

    Extents combine as the sets do: that of ``a & b`` is at most the extent of either.
    """

    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin

    @property
    def bits(self) -> int:
        """How many offsets there are in it."""
        return self.size * WORD_BITS

    def __and__(self, other: Extent) -> Extent:
        begin = max(self.begin, other.begin)
        return Extent(begin, max(begin, min(self.end, other.end)))

    def __or__(self, other: Extent) -> Extent:
        return self.hull((self, other))

    @classmethod
    def hull(cls, extents: Iterable[Extent]) -> Extent:
        """From the first beginning to the last end of any of `extents`."""
        held = [extent for extent in extents if extent.begin < extent.end]
        if not held:
            return NOWHERE
        return cls(min(begin for begin, _ in held), max(end for _, end in held))

    def __sub__(self, other: Extent) -> Extent:
        return self


NOWHERE = Extent(0, 0)


class Extents:
    """The extents of a report's bitmaps by key; expressions evaluate over them as over bitmaps."""

    def __init__(self, by_key: Mapping[str, Extent]) -> None:
        self._by_key = by_key

    def __getitem__(self, key: str) -> Extent:
        return self._by_key.get(key, NOWHERE)

    def union_of(self, keys: tuple[str, ...]) -> Extent:
        return Extent.hull(self[key] for key in keys)


#: Narrows the known extents of all bitmaps to what is needed of each, by key.
Narrowing = Callable[[Extents], Mapping[str, Extent]]


def slices(
    client: Any, keys: Iterable[str], narrowing: Narrowing | None = None
) -> Iterator[Bitmaps]:
    """The bitmaps under `keys`, each read once, all in two round trips if they fit `BUDGET`.

    The first asks for their lengths; it is skipped for short bitmaps of known length. If they do
    not fit, they come in slices of the offsets' range, one more round trip for each, so memory is
    bounded for any number of users. No user is in two slices, so the counts of slices add up.

    :param client: any redis-py compatible client.
    :param keys: duplicates are welcome; a key that does not exist is the empty set.
    :param narrowing: read only what it returns of long bitmaps. (Without it, the first word of
        every bitmap is number 0.)
    :raises redis.RedisError: the server does not answer, or a key holds no string.
    """
    distinct = list(dict.fromkeys(keys))
    if older := may_be_packed(client, distinct):
        yield from _with_packed(client, distinct, older)
        return
    measured = _MEASURED.setdefault(client, {})
    expected = sum(measured.get(key, _MANY_BYTES) for key in distinct)
    # Even if they have doubled since, they are short enough for one MGET.
    if 2 * expected < min(_MANY_BYTES, BUDGET) and not isinstance(client, RedisCluster):
        found = _short(client, distinct)
        # They may have grown, and not fit next time.
        measured |= {key: bitmap.words.nbytes for key, bitmap in found.items()}
        yield Bitmaps(found)
        return
    stored, located = _extents(client, distinct, located=narrowing is not None)
    if len(measured) > _MOST_MEASURED:
        measured.clear()
    measured |= stored
    needed = located if narrowing is None else narrowing(Extents(located))
    yield from _sliced(client, dict.fromkeys(distinct, NOWHERE) | dict(needed), located)


def _with_packed(client: Any, keys: Sequence[str], older: Collection[str]) -> Iterator[Bitmaps]:
    """The `slices` of bitmaps of which those of the keys `older` may be packed.

    The trip that asks for the lengths of raw ones brings the packed ones.
    """
    commands: list[tuple[Any, ...]] = []
    for key in keys:
        commands.append(("STRLEN", key))
        if key in older:
            # Asked again, so that whichever way it is swapped meanwhile, one of the three sees it.
            commands += [("GET", packed_key(key)), ("STRLEN", key)]
    told = _read(client, commands)[::-1]  # taken from the end, so that none is kept in both forms
    located: dict[str, Extent] = {}
    held: dict[str, Bitmap] = {}
    for key in keys:
        length = told.pop()
        if key in older:
            if (value := told.pop()) is not None:
                held[key] = joined(key, (None, value))
            length = max(length, told.pop())
        located[key] = Extent(0, _words(length))
    yield from _sliced(client, located, located, held)


def _sliced(
    client: Any,
    needed: Mapping[str, Extent],
    located: Mapping[str, Extent],
    held: Mapping[str, Bitmap] = MappingProxyType({}),
) -> Iterator[Bitmaps]:
    """What is `needed` of each bitmap, in one round trip or as many slices as `BUDGET` asks for.

    :param located: where each of them ends.
    :param held: packed bitmaps that have been read, some with a raw one beside them.
    """
    extents = {key: extent for key, extent in needed.items() if extent.size}
    ends = [extent.end for extent in extents.values()] + [one.end for one in held.values()]
    width = end = max([1, *ends])
    if sum(extent.size for extent in extents.values()) * WORD_BYTES > BUDGET:
        width = max(_SLICE_UNIT, BUDGET // len(extents) // _SLICE_UNIT * _SLICE_UNIT) // WORD_BYTES
    nothing = dict.fromkeys(needed, EMPTY)
    for begin in range(0, end, width):
        check_time()
        window = Extent(begin, begin + width)
        wanted = {key: part for key, extent in extents.items() if (part := extent & window).size}
        found = nothing | _read_parts(client, wanted, located, begin)
        for key, bitmap in held.items():
            packed = bitmap if (begin, end) == (0, width) else bitmap.part(*window)
            found[key] = packed | found[key] if key in wanted else packed
        yield Bitmaps(_in_one_form(found), begin * WORD_BITS)


def _in_one_form(found: dict[str, Bitmap]) -> dict[str, Bitmap]:
    """All packed if any is: a bitmap that is combined again and again is packed once."""
    if not any(bitmap.is_packed for bitmap in found.values()):
        return found
    from .packed import Packed

    return {key: Packed.of(bitmap) for key, bitmap in found.items()}


#: Client -> the bytes of each key, as measured last by any thread. Only a hint: where it is wrong,
#: one reading takes more memory.
_MEASURED: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()


def _short(client: Any, keys: Sequence[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys` in one round trip.

    One MGET takes a fifth of the time of many GETs, but in a cluster its keys must share a slot.
    """
    values = client.execute_command("MGET", *keys, NEVER_DECODE=True) if keys else ()
    return dict(zip(keys, map(Bitmap.from_bytes, values), strict=True))


def _extents(
    client: Any, keys: Sequence[str], *, located: bool
) -> tuple[dict[str, int], dict[str, Extent]]:
    """The lengths in bytes of the bitmaps under `keys`, and their extents.

    :param located: also ask for the first offset of each.
    """
    commands: list[tuple[str, ...]] = [("STRLEN", key) for key in keys]
    if located:
        commands += [("BITPOS", key, "1") for key in keys]
    numbers = _numbers(client, commands)
    lengths, offsets = numbers[: len(keys)], numbers[len(keys) :] or [0] * len(keys)
    extents = {
        # BITPOS returns -1 if no bit is set.
        key: Extent(offset // WORD_BITS, _words(length)) if offset >= 0 else NOWHERE
        for key, length, offset in zip(keys, lengths, offsets, strict=True)
    }
    return dict(zip(keys, lengths, strict=True)), extents


def _read_parts(
    client: Any, extents: Mapping[str, Extent], located: Mapping[str, Extent], begin: int
) -> dict[str, Bitmap]:
    """The words of each key of `extents`, in one round trip, numbered from `begin` on."""
    commands = [_reading(key, extent, located) for key, extent in extents.items()]
    words = read_words(client, commands, [extent.size for extent in extents.values()])
    if words is None:
        words = [Bitmap.from_bytes(value).words for value in _read(client, commands)]
    parts_read = {
        key: Bitmap(found, extent.begin - begin)
        for (key, extent), found in zip(extents.items(), words, strict=True)
    }
    # A key that is gone since its length was asked for may have been packed.
    gone = [key for key in extents if not parts_read[key].words.size and is_packable(key)]
    if gone:
        end = max(extent.end for extent in extents.values())
        for key, forms in zip(gone, _read(client, [*map(both_forms, gone)]), strict=True):
            parts_read[key] = joined(key, forms).part(begin, end)
    return parts_read


def _words(length: int) -> int:
    """The number of words in which `length` bytes fit."""
    return -(-length // WORD_BYTES)


def parts(
    client: Any, keys: Iterable[str], narrowing: Narrowing | None = None
) -> Iterator[Bitmaps]:
    """The `slices` of the bitmaps under `keys`, part by part, skipping parts with nobody in them.

    One user whose offset is far above the others' leaves many such parts in between. At least one
    part is given, because a report needs one.
    """
    nobody = None
    somebody = False
    for part in chain.from_iterable(one.parts() for one in slices(client, keys, narrowing)):
        if part:
            somebody = True
            yield part
        else:
            nobody = part
    if nobody is not None and not somebody:
        yield nobody


def tally(
    client: Any,
    keys: Iterable[str],
    count: Callable[[Bitmaps], Sequence[int]],
    narrowing: Narrowing | None = None,
) -> list[int]:
    """What `count` counts in the bitmaps under `keys`, summed over their `parts`.

    :param count: returns the same number of counts for each part.
    """
    totals: list[int] = []
    for part in parts(client, keys, narrowing):
        counted = count(part)
        totals = [a + b for a, b in zip(totals, counted, strict=True)] if totals else list(counted)
    return totals


def union_sizes(
    client: Any, groups: Sequence[tuple[str, ...]], placed: Mapping[str, Extent]
) -> list[int]:
    """How many offsets are under any of the keys of each group.

    :param placed: the `extents` of all keys.
    :raises redis.RedisError: as `slices`.
    """
    every = [*dict.fromkeys(chain.from_iterable(groups))]
    if may_be_packed(client, every):
        return tally(client, every, lambda part: [len(part.union_of(keys)) for keys in groups])
    batches = partial(_of_bounded_size, groups, placed)
    # While one bitmap is combined, no other is held.
    if all(extent.end * WORD_BYTES <= BUDGET for extent in placed.values()):
        unions = ([_union_of(keys, placed) for keys in batch] for batch in batches())
        sizes = read_unions(client, unions, lambda words: len(Bitmap(words)))
        if sizes is not None:
            return sizes
    sizes = []
    for batch in batches():
        needed = {key: placed[key] for keys in batch for key in keys}
        parts_read = chain.from_iterable(one.parts() for one in _sliced(client, needed, placed))
        counted = ([len(part.union_of(keys)) for keys in batch] for part in parts_read)
        sizes += map(sum, zip(*counted, strict=True))
    return sizes


def _of_bounded_size(
    groups: Sequence[tuple[str, ...]], placed: Mapping[str, Extent]
) -> Iterator[Sequence[tuple[str, ...]]]:
    """The `groups`, as many at a time as have at least `_TOGETHER` bytes."""
    first = size = 0
    for end, keys in enumerate(groups, start=1):
        size += sum(placed[key].size for key in keys) * WORD_BYTES
        if size >= _TOGETHER or end == len(groups):
            check_time()
            yield groups[first:end]
            first, size = end, 0


def _union_of(keys: Iterable[str], placed: Mapping[str, Extent]) -> Union:
    """How the union of the bitmaps under `keys` is read."""
    held = {key: extent for key in keys if (extent := placed[key]).size}
    begin, end = Extent.hull(held.values())
    parts = [
        # The last word may have but one byte.
        Part(
            _reading(key, extent, placed),
            (extent.begin - begin) * WORD_BYTES,
            (extent.size - 1) * WORD_BYTES + 1,
        )
        for key, extent in held.items()
    ]
    return Union(end - begin, parts)


def _reading(key: str, extent: Extent, located: Mapping[str, Extent]) -> tuple[str, ...]:
    """The command that reads `extent` of the bitmap under `key`."""
    # Valkey sends a long string without copying it, but copies what GETRANGE cuts out.
    if not extent.begin and extent.end == located[key].end:
        return "GET", key
    return "GETRANGE", key, str(extent.begin * WORD_BYTES), str(extent.end * WORD_BYTES - 1)


def around(client: Any, keys: Iterable[str], offset: int) -> Bitmaps:
    """The bitmaps under `keys`, up to the byte that holds `offset`, in one round trip.

    Parameters and errors are those of `slices`.
    """
    distinct, byte = list(dict.fromkeys(keys)), offset // 8
    values = octets_of(client, [Octets("", tuple(distinct), byte)])
    return Bitmaps(dict(zip(distinct, map(Bitmap.from_bytes, values), strict=True)), byte * 8)


def octets_of(client: Any, places: Sequence[Octets]) -> list[bytes]:
    """The bytes of bitmaps at all of `places`, in one round trip.

    b"" where there is none. Errors are those of `slices`.
    """
    if older := may_be_packed(client, (key for key, _ in _each_of(places))):
        return _octets_of_both(client, [*_each_of(places)], older)
    octets = read_octets(client, places)
    if octets is None:
        # Not GETBIT: a server refuses it for offsets that SETBIT may not set.
        octets = _read(client, [("GETRANGE", key, byte, byte) for key, byte in _each_of(places)])
    return octets


def _each_of(places: Iterable[Octets]) -> Iterator[tuple[str, int]]:
    """The key and the index of each byte."""
    for prefix, suffixes, byte in places:
        for suffix in suffixes:
            yield prefix + suffix, byte


def _octets_of_both(
    client: Any, places: Sequence[tuple[str, int]], older: Collection[str]
) -> list[bytes]:
    """The `octets_of` bitmaps of which those of the keys `older` may be packed."""
    commands: list[tuple[Any, ...]] = [
        both_forms(key) if key in older else ("GETRANGE", key, byte, byte) for key, byte in places
    ]
    octets: list[bytes] = []
    for batch, asked in zip(_batches(commands), _batches(places), strict=True):
        for (key, byte), reply in zip(asked, _pipelined(client, batch), strict=True):
            octets.append(joined(key, reply).octet(byte) if key in older else reply)
    return octets


def counts(
    client: Any, keys: Iterable[str], placed: Mapping[str, Extent] | None = None
) -> dict[str, int]:
    """How many bits are set under each of `keys`, counted by the server in one round trip.

    A year has no key: read its months and count their `union`. Parameters and errors are those of
    `slices`.

    :param placed: the `extents` of the bitmaps, outside which there is nothing to count.
    """
    every = dict.fromkeys(keys, 0)
    distinct = [key for key in every if placed is None or placed[key].size]
    commands = [_counting(key, placed[key] if placed else NOWHERE) for key in distinct]
    if older := may_be_packed(client, distinct):
        return every | _measured(client, dict(zip(distinct, commands, strict=True)), older, len)
    return every | dict(zip(distinct, _numbers(client, commands), strict=True))


def _counting(key: str, extent: Extent) -> tuple[str, ...]:
    """The command that counts the bits under `key`, from where its `extent` begins."""
    if not extent.begin:
        return "BITCOUNT", key
    return "BITCOUNT", key, str(extent.begin * WORD_BYTES), str(extent.end * WORD_BYTES - 1)


def _measured(
    client: Any,
    commands: Mapping[str, tuple[str, ...]],
    older: Collection[str],
    measure: Callable[[Bitmap], int],
) -> dict[str, int]:
    """What `commands` return by key; what `measure` tells of the bitmaps that may be packed."""
    asked = [both_forms(key) if key in older else commands[key] for key in commands]
    replies = zip(commands, _read(client, asked), strict=True)
    return {key: measure(joined(key, told)) if key in older else told for key, told in replies}


def extents(client: Any, keys: Iterable[str]) -> dict[str, Extent]:
    """Where each of the bitmaps under `keys` begins and ends, in one round trip.

    Parameters and errors are those of `slices`.
    """
    distinct = list(dict.fromkeys(keys))
    older = may_be_packed(client, distinct)
    placed = _extents(client, [key for key in distinct if key not in older], located=True)[1]
    if older:
        forms = dict(zip(older, _read(client, [*map(both_forms, older)]), strict=True))
        placed |= {key: _extent(joined(key, told)) for key, told in forms.items()}
    return placed


def _extent(bitmap: Bitmap) -> Extent:
    return Extent(bitmap.first, bitmap.end)


def lengths(client: Any, keys: Iterable[str]) -> dict[str, int]:
    """How many bytes are stored under each of `keys`, in one round trip.

    Parameters and errors are those of `slices`.
    """
    commands = {key: ("STRLEN", key) for key in keys}
    if older := may_be_packed(client, commands):
        return _measured(client, commands, older, lambda bitmap: len(bitmap.to_bytes()))
    return dict(zip(commands, _numbers(client, [*commands.values()]), strict=True))


def _numbers(client: Any, commands: Sequence[tuple[str, ...]]) -> list[int]:
    """The whole numbers that `commands` return, in one round trip for every 2,000 of them."""
    found: list[int] = []
    for batch in _batches(commands):
        numbers = read_numbers(client, batch)
        found += _pipelined(client, batch) if numbers is None else numbers
    return found


def _read(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies to `commands`, in one round trip for every 2,000 of them."""
    return [reply for batch in _batches(commands) for reply in _pipelined(client, batch)]


def _batches(commands: Sequence[_Command]) -> Iterator[Sequence[_Command]]:
    for first in range(0, len(commands), _COMMANDS):
        if first:
            check_time()
        yield commands[first : first + _COMMANDS]


def _pipelined(client: Any, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipeline.execute_command(*command, NEVER_DECODE=True)
    replies: list[Any] = pipeline.execute()
    return replies
