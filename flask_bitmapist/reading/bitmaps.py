"""Reads the bitmaps of a report: each once, in as few round trips as possible. Never writes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import or_
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from redis.cluster import RedisCluster

from ..packed_periods import is_packable, may_be_packed
from .bitmap import EMPTY, WORD_BITS, WORD_BYTES, Bitmap, union
from .commands import COMMANDS, numbers, read
from .packed_parts import (
    CONTAINER_WORDS,
    Cut,
    Form,
    beginning,
    forms_of,
    octets,
    read_whole,
)
from .portable import CONTAINER_BYTES
from .replies import (
    NumbersAsked,
    Octets,
    Part,
    UnexpectedReplyError,
    Union,
    read_each,
    read_octets,
    read_unions,
    read_words,
)
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
#: Bytes of packed bitmaps that are read together: what is made of them is as large.
_PACKED_TOGETHER = 3 * 2**20
_PART_WORDS = 128 * 2**10 // WORD_BYTES


def sliding_unions(sets: Sequence[Bitmap], width: int, size: int = 1) -> list[Bitmap]:
    """The union of each of `sets` with the ``width - 1`` that follow it, or as many as there are.

    By doubling: log2(width) unions for each set instead of width.

    :param size: what has been done already: each of `sets` is its union with ``size - 1`` others.
    """
    if size >= width or not any(users.end > users.first for users in sets):
        return list(sets)
    if any(users.is_packed for users in sets):
        return _sliding_unions(list(sets), width, size)
    unions, begin = _array_of(sets)
    _widen(unions, width, size)
    return [Bitmap(words, begin) for words in unions]


def sliding_sizes(sets: Sequence[Bitmap], widths: Sequence[int], number: int) -> list[int]:
    """How many offsets are in the unions of neighbours among `sets`, for each of the `widths`.

    :param widths: how many sets a union is of, in ascending order.
    :param number: how many unions there are for each width: those that end with the last sets.
    """
    array = None if any(users.is_packed for users in sets) else _array_of(sets)[0]
    unions, size, sizes = [*sets], 1, list[int]()
    for width in widths:
        if array is None:
            unions = _sliding_unions(unions, width, size)
        else:
            # In place, since nothing else keeps what has been counted.
            _widen(array, width, size)
            unions = [Bitmap(words) for words in array]
        size, first = width, len(sets) - number + 1 - width
        sizes += map(len, unions[first : first + number])
    return sizes


def _array_of(sets: Sequence[Bitmap]) -> tuple[NDArray[np.uint64], int]:
    """The words of all `sets` in one array, and the number of the first of them.

    Making a new array for each union took two thirds of the time.
    """
    begin, end = Extent.hull(Extent(users.first, users.end) for users in sets)
    array = np.zeros((len(sets), end - begin), np.uint64)
    for words, users in zip(array, sets, strict=True):
        words[max(0, users.first - begin) :][: users.words.size] = users.words
    return array, begin


def _widen(unions: NDArray[np.uint64], width: int, size: int) -> None:
    """Make unions of `size` neighbours unions of `width` in place."""
    while size < width:
        step = min(size, width - size)
        small_step(len(unions))
        # In order, so that the one that is taken has not been widened yet.
        for words, following in zip(unions, unions[step:], strict=False):
            words |= following
        size += step


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
    :param width: how many words they cover; None: each of them as many as it has.
    """

    def __init__(
        self, by_key: Mapping[str, Bitmap], first_offset: int = 0, width: int | None = None
    ) -> None:
        self._by_key = by_key
        self.first_offset = first_offset
        self.width = width
        self._made: dict[Hashable, Bitmap] = {}

    def __getitem__(self, key: str) -> Bitmap:
        return self._by_key[key]

    def __bool__(self) -> bool:
        """Whether anybody is in any of them."""
        return any(self._by_key.values())

    def union_of(self, keys: tuple[str, ...]) -> Bitmap:
        """The offsets under any of `keys`, computed once."""
        if len(keys) == 1:
            return self._by_key[keys[0]]
        return self.once(keys, lambda: union(self._by_key[key] for key in keys))

    def once(self, what: Hashable, make: Callable[[], Bitmap]) -> Bitmap:
        """What `make` makes of them, which it is asked for the first time only."""
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    def leave(self, keys: Iterable[str]) -> None:
        """Whoever asked for these has done with them."""

    def parts(self) -> Iterator[Bitmaps]:
        """These bitmaps in parts of the offsets' range that a processor's cache holds.

        A report that combines large bitmaps again and again then works in the cache and reuses
        memory: this is several times as fast, and keeps intermediate sets small. Packed sets stay
        whole among their like; among others they are unpacked.
        """
        held = [bitmap for bitmap in self._by_key.values() if bitmap.end > bitmap.first]
        packed = sum(bitmap.is_packed for bitmap in held)
        if packed == len(held):
            yield self  # a container fits a processor's cache
            return
        begins = min(bitmap.first for bitmap in held)
        ends = max(bitmap.end for bitmap in held)
        if packed:
            ends = self.width or ends
        if ends - begins <= _PART_WORDS and not packed:
            yield self
            return
        for begin in range(begins, ends, _PART_WORDS):
            check_time()
            end = min(begin + _PART_WORDS, ends)
            part = {
                key: bitmap.raw_part(begin, end)
                if bitmap.first < end and bitmap.end > begin
                else EMPTY
                for key, bitmap in self._by_key.items()
            }
            yield Bitmaps(part, self.first_offset + begin * WORD_BITS, end - begin)


class _ArrivingBitmaps(Bitmaps):
    """The bitmaps of a report as they come: each is held until all who use it have left it.

    :param nobody: keys without anybody.
    :param arriving: the other keys, with their bitmaps.
    :param uses: how often each key will be left; others are held.
    """

    def __init__(
        self,
        nobody: Iterable[str],
        arriving: Iterator[tuple[str, Bitmap]],
        uses: Mapping[str, int],
    ) -> None:
        self._held = _Arriving(arriving)
        self._held |= dict.fromkeys(nobody, EMPTY)
        super().__init__(self._held)
        self._uses = dict(uses)

    def leave(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._uses:
                self._uses[key] -= 1
                if not self._uses[key]:
                    self._held.pop(key, None)


class _Arriving(dict[str, Bitmap]):
    """Bitmaps by key; one that has not come yet is waited for."""

    def __init__(self, arriving: Iterator[tuple[str, Bitmap]]) -> None:
        super().__init__()
        self._arriving = arriving

    def __missing__(self, wanted: str) -> Bitmap:
        for key, bitmap in self._arriving:
            self[key] = bitmap
            if key == wanted:
                return bitmap
        raise KeyError(wanted)


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
        self._made: dict[Hashable, Extent] = {}

    def __getitem__(self, key: str) -> Extent:
        return self._by_key.get(key, NOWHERE)

    def union_of(self, keys: tuple[str, ...]) -> Extent:
        return Extent.hull(self[key] for key in keys)

    def once(self, what: Hashable, make: Callable[[], Extent]) -> Extent:
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]


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
        yield from _with_packed(client, distinct, older, narrowing)
        return
    if _are_short(client, distinct):
        yield Bitmaps(_short(client, distinct))
        return
    located = _extents(client, distinct, located=narrowing is not None)
    needed = located if narrowing is None else narrowing(Extents(located))
    yield from _sliced(client, dict.fromkeys(distinct, NOWHERE) | dict(needed), located)


def _with_packed(
    client: Any, keys: Sequence[str], older: Collection[str], narrowing: Narrowing | None
) -> Iterator[Bitmaps]:
    """The `slices` of bitmaps of which those of the keys `older` may be packed."""
    located, forms, held = _extents_of_both(client, keys, older, located=narrowing is not None)
    needed = {key: _hull(key, located, forms) for key in keys}
    if narrowing is not None:
        known = needed | {key: _extent(bitmap) for key, bitmap in held.items()}
        needed = dict.fromkeys(keys, NOWHERE) | dict(narrowing(Extents(known)))
    yield from _sliced(client, needed, located, forms, held)


def _extents_of_both(
    client: Any, keys: Sequence[str], older: Collection[str], *, located: bool
) -> tuple[dict[str, Extent], dict[str, Form], dict[str, Bitmap]]:
    """Where the raw bitmaps are, the packed ones of the keys `older`, and those read whole.

    :param located: also ask for the first offset of raw ones.
    """
    commands: list[tuple[str, ...]] = []
    for key in keys:
        commands.append(("STRLEN", key))
        if key in older:
            # Asked again, so that whichever way it is swapped meanwhile, one of the three sees it.
            commands += [*beginning(key), ("STRLEN", key)]
        if located:
            commands.append(("BITPOS", key, "1"))
    told = iter(read(client, commands))
    extents: dict[str, Extent] = {}
    begun: dict[str, tuple[int, bytes]] = {}
    for key in keys:
        length = next(told)
        if key in older:
            begun[key] = next(told), next(told)
            length = max(length, next(told))
        # BITPOS returns -1 also of what has been packed since its length was told.
        first = max(0, next(told)) if located else 0
        extents[key] = Extent(first // WORD_BITS, _words(length)) if length else NOWHERE
    forms, held = forms_of(client, begun)
    return extents | dict.fromkeys(held, NOWHERE), forms, held


def _hull(key: str, located: Mapping[str, Extent], forms: Mapping[str, Form]) -> Extent:
    """The extent of a bitmap in both forms."""
    return located[key] | Extent(*forms[key].words) if key in forms else located[key]


def _sliced(
    client: Any,
    needed: Mapping[str, Extent],
    located: Mapping[str, Extent],
    forms: Mapping[str, Form] = MappingProxyType({}),
    held: Mapping[str, Bitmap] = MappingProxyType({}),
) -> Iterator[Bitmaps]:
    """What is `needed` of each bitmap, in one round trip or as many slices as `BUDGET` asks for.

    :param located: where each of them ends, as far as it is raw.
    :param forms: those that are packed, some with a raw one beside them.
    :param held: bitmaps that have been read already.
    """
    wholes = needed.items()
    extents = {key: part for key, whole in wholes if (part := whole & located[key]).size}
    packed = {
        key: Cut(forms[key], containers, 0)
        for key, whole in wholes
        if key in forms and (containers := _containers(forms[key], whole))
    }
    ends = [extent.end for extent in extents.values()] + [one.end for one in held.values()]
    end = max([1, *ends])
    nothing = dict.fromkeys(needed, EMPTY)
    for window in _windows(extents, packed, end):
        check_time()
        wanted = {key: part for key, extent in extents.items() if (part := extent & window).size}
        found = nothing | _read_parts(client, wanted, located, window, _cuts(packed, window))
        found |= {key: bitmap.part(*window) for key, bitmap in held.items()}
        yield Bitmaps(_in_one_form(found), window.begin * WORD_BITS, window.size)
        del found  # before the next ones are read


def _windows(
    extents: Mapping[str, Extent], packed: Mapping[str, Cut], end: int
) -> Iterator[Extent]:
    """The slices, each of which fits the memory.

    :param end: where the last raw bitmap ends.
    """
    if packed:
        yield from _windows_of_both(extents, packed, end)
        return
    width = end
    if sum(extent.size for extent in extents.values()) * WORD_BYTES > BUDGET:
        width = max(_SLICE_UNIT, BUDGET // len(extents) // _SLICE_UNIT * _SLICE_UNIT) // WORD_BYTES
    for begin in range(0, end, width):
        yield Extent(begin, begin + width)


def _windows_of_both(
    extents: Mapping[str, Extent], packed: Mapping[str, Cut], end: int
) -> Iterator[Extent]:
    """The slices, which begin where containers do."""
    ends = [-(-end // CONTAINER_WORDS)]
    ends += [int(cut.numbers[-1]) + 1 for cut in packed.values()]
    # Of what fits the memory, the share that is taken by each container of all bitmaps.
    shares = np.zeros(max(ends))
    for extent in extents.values():
        first, last = extent.begin // CONTAINER_WORDS, -(-extent.end // CONTAINER_WORDS)
        shares[first:last] += CONTAINER_BYTES / BUDGET
    for cut in packed.values():
        shares[cut.numbers] += cut.lengths / _PACKED_TOGETHER
    until = shares.cumsum()
    begin = 0
    while begin < until.size:
        before = until[begin - 1] if begin else 0.0
        stop = max(begin + 1, int(np.searchsorted(until, before + 1.0, side="right")))
        yield Extent(begin * CONTAINER_WORDS, stop * CONTAINER_WORDS)
        begin = stop


def _containers(form: Form, extent: Extent) -> range:
    """The indices of the containers in which the words of `extent` are."""
    first, last = extent.begin // CONTAINER_WORDS, -(-extent.end // CONTAINER_WORDS)
    return form.head.between(first, last)


def _cuts(packed: Mapping[str, Cut], window: Extent) -> dict[str, Cut]:
    """What of the `packed` bitmaps is in `window`."""
    found = {}
    for key, cut in packed.items():
        here = _containers(cut.form, window)
        inside = range(max(here.start, cut.containers.start), min(here.stop, cut.containers.stop))
        if inside:
            found[key] = Cut(cut.form, inside, window.begin // CONTAINER_WORDS)
    return found


def _in_one_form(found: dict[str, Bitmap]) -> dict[str, Bitmap]:
    """All packed if some are and the others are small: what is combined often is packed once.

    Otherwise they stay as they are, and `Bitmaps.parts` unpacks them part by part.
    """
    users = sum(len(bitmap) for bitmap in found.values() if bitmap.is_packed)
    raw = sum(bitmap.words.nbytes for bitmap in found.values() if not bitmap.is_packed)
    # To pack a byte takes twice as long as to unpack a user.
    if not users or 2 * raw > users:
        return found
    from .packed import Packed

    return {key: Packed.of(bitmap) for key, bitmap in found.items()}


#: Client -> the bytes of each key, as measured last by any thread. Only a hint: where it is wrong,
#: one reading takes more memory.
_MEASURED: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()


def _are_short(client: Any, keys: Sequence[str]) -> bool:
    """Whether the bitmaps under `keys` are known to be short enough for one MGET.

    Even if they have doubled since. In a cluster the keys of an MGET must share a slot.
    """
    measured = _MEASURED.get(client, {})
    expected = sum(measured.get(key, _MANY_BYTES) for key in keys)
    return 2 * expected < min(_MANY_BYTES, BUDGET) and not isinstance(client, RedisCluster)


def _short(client: Any, keys: Sequence[str]) -> dict[str, Bitmap]:
    """The bitmaps under `keys` in one round trip.

    One MGET takes a fifth of the time of many GETs.
    """
    values = client.execute_command("MGET", *keys, NEVER_DECODE=True) if keys else ()
    found = dict(zip(keys, map(Bitmap.from_bytes, values), strict=True))
    # They may have grown, and not fit next time.
    _MEASURED.setdefault(client, {}).update(
        {key: bitmap.words.nbytes for key, bitmap in found.items()}
    )
    return found


def _extents(client: Any, keys: Sequence[str], *, located: bool) -> dict[str, Extent]:
    """The extents of the bitmaps under `keys`, whose lengths are then known.

    :param located: also ask for the first offset of each.
    """
    commands: list[tuple[str, ...]] = [("STRLEN", key) for key in keys]
    if located:
        commands += [("BITPOS", key, "1") for key in keys]
    told = numbers(client, commands)
    lengths, offsets = told[: len(keys)], told[len(keys) :] or [0] * len(keys)
    measured = _MEASURED.setdefault(client, {})
    if len(measured) > _MOST_MEASURED:
        measured.clear()
    measured |= dict(zip(keys, lengths, strict=True))
    return {
        # BITPOS returns -1 if no bit is set.
        key: Extent(offset // WORD_BITS, _words(length)) if offset >= 0 else NOWHERE
        for key, length, offset in zip(keys, lengths, offsets, strict=True)
    }


def _read_parts(
    client: Any,
    extents: Mapping[str, Extent],
    located: Mapping[str, Extent],
    window: Extent,
    cuts: Mapping[str, Cut],
) -> dict[str, Bitmap]:
    """The words of each key of `extents`, in one round trip, numbered from `window` on.

    :param cuts: what is packed of them, or of other keys.
    """
    commands = [_reading(key, extent, located) for key, extent in extents.items()]
    sizes = [extent.size for extent in extents.values()]
    packed = [command for cut in cuts.values() for command in cut.commands()]
    # Many bytes are worth a trip of their own, which reads them straight into one array.
    together = packed and sum(sizes) * WORD_BYTES < _MANY_BYTES
    words = None if together else read_words(client, commands, sizes)
    told = read(client, packed if words is not None else [*commands, *packed])[::-1]
    if words is None:
        words = [Bitmap.from_bytes(told.pop()).words for _ in commands]
    parts_read = {
        key: Bitmap(found, extent.begin - window.begin)
        for (key, extent), found in zip(extents.items(), words, strict=True)
    }
    # A key that is gone since its length was asked for may have been packed.
    changed = [key for key in extents if not parts_read[key].words.size and is_packable(key)]
    for key, cut in cuts.items():
        made = cut.made([told.pop() for _ in cut.commands()])
        if made is None:
            changed.append(key)
        else:
            parts_read[key] = made | parts_read[key] if key in extents else made
    for key, bitmap in read_whole(client, changed).items() if changed else ():
        parts_read[key] = bitmap.part(*window)
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
    return _inhabited(slices(client, keys, narrowing))


def _inhabited(found: Iterable[Bitmaps]) -> Iterator[Bitmaps]:
    """The parts of the slices that are `found`, without those with nobody in them but one."""
    nobody = None
    somebody = False
    for part in chain.from_iterable(one.parts() for one in found):
        if part:
            somebody = True
            yield part
        else:
            nobody = part
        del part  # before the next one is read
    if nobody is not None and not somebody:
        yield nobody


def tally(
    client: Any,
    keys: Iterable[str],
    count: Callable[[Bitmaps], Sequence[int]],
    narrowing: Narrowing | None = None,
    uses: Mapping[str, int] | None = None,
) -> list[int]:
    """What `count` counts in the bitmaps under `keys`, summed over their `parts`.

    :param count: returns the same number of counts for each part.
    :param uses: how often `count` leaves each key (`Bitmaps.leave`), after which it does not ask
        for it: those that it has left all times need not be held. `keys` are in the order in which
        it asks for them. None: it needs all of them at a time.
    """
    distinct = [*dict.fromkeys(keys)]
    if uses is None or may_be_packed(client, distinct) or _are_short(client, distinct):
        return _summed(parts(client, distinct, narrowing), count)
    located = _extents(client, distinct, located=False)
    if sum(extent.size for extent in located.values()) * WORD_BYTES <= BUDGET:
        counted = _counted_on_arrival(client, located, count, uses)
        if counted is not None:
            return counted
    return _summed(_inhabited(_sliced(client, located, located)), count)


def _summed(every: Iterable[Bitmaps], count: Callable[[Bitmaps], Sequence[int]]) -> list[int]:
    """What `count` counts in each of them, summed."""
    totals: list[int] = []
    for part in every:
        counted = count(part)
        totals = [a + b for a, b in zip(totals, counted, strict=True)] if totals else list(counted)
        del part  # before the next one is read
    return totals


def _counted_on_arrival(
    client: Any,
    located: Mapping[str, Extent],
    count: Callable[[Bitmaps], Sequence[int]],
    uses: Mapping[str, int],
) -> list[int] | None:
    """What `count` counts in the bitmaps as they come; None if anything about them is unusual."""
    somebody = [key for key, extent in located.items() if extent.size]
    nobody = located.keys() - somebody

    def arriving(every: Iterable[NDArray[np.uint64]]) -> Iterator[tuple[str, Bitmap]]:
        for key, words in zip(somebody, every, strict=True):
            check_time()
            if not words.size and is_packable(key):
                raise UnexpectedReplyError("it may have been packed since its length was told")
            yield key, Bitmap(words)

    return read_each(
        client,
        [("GET", key) for key in somebody],
        lambda words: list(count(_ArrivingBitmaps(nobody, arriving(words), uses))),
    )


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
    if may_be_packed(client, (key for key, _ in _each_of(places))):
        return octets(client, [*_each_of(places)])
    told = read_octets(client, places)
    if told is None:
        # Not GETBIT: a server refuses it for offsets that SETBIT may not set.
        told = read(
            client, [("GETRANGE", key, str(byte), str(byte)) for key, byte in _each_of(places)]
        )
    return told


def _each_of(places: Iterable[Octets]) -> Iterator[tuple[str, int]]:
    """The key and the index of each byte."""
    for prefix, suffixes, byte in places:
        for suffix in suffixes:
            yield prefix + suffix, byte


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
        asked = dict(zip(distinct, commands, strict=True))
        return every | _counts_of_both(client, asked, older)
    return every | dict(zip(distinct, numbers(client, commands), strict=True))


class Counting:
    """What `counts` returns, in two steps: the server counts between them.

    Close it in the end, whether it has been read or not.
    """

    def __init__(self, client: Any, keys: Iterable[str]) -> None:
        self._client = client
        self._keys = [*dict.fromkeys(keys)]
        # Else there is more than one trip.
        together = len(self._keys) <= COMMANDS and not may_be_packed(client, self._keys)
        commands = [("BITCOUNT", key) for key in self._keys if together]
        self._asked = NumbersAsked(client, commands)

    def read(self) -> dict[str, int]:
        """How many bits are set under each of the keys. Errors are those of `slices`."""
        if told := self._asked.read():
            return dict(zip(self._keys, told, strict=True))
        return counts(self._client, self._keys)

    def close(self) -> None:
        self._asked.close()


def _counting(key: str, extent: Extent) -> tuple[str, ...]:
    """The command that counts the bits under `key`, from where its `extent` begins."""
    if not extent.begin:
        return "BITCOUNT", key
    return "BITCOUNT", key, str(extent.begin * WORD_BYTES), str(extent.end * WORD_BYTES - 1)


def _counts_of_both(
    client: Any, asked: Mapping[str, tuple[str, ...]], older: Collection[str]
) -> dict[str, int]:
    """The `counts` of bitmaps of which those of the keys `older` may be packed.

    :param asked: what counts the raw one, by key.
    """
    commands: list[tuple[str, ...]] = []
    for key, command in asked.items():
        size, begun = beginning(key)
        # In between, so that whichever way it is swapped meanwhile, one of the three sees it.
        commands += [size, command, begun] if key in older else [command]
    told = iter(read(client, commands))
    counted: dict[str, int] = {}
    begun_of: dict[str, tuple[int, bytes]] = {}
    for key in asked:
        size_told = next(told) if key in older else 0
        counted[key] = next(told)
        if key in older:
            begun_of[key] = size_told, next(told)
    forms, held = forms_of(client, begun_of)
    both = read_whole(client, [key for key in forms if counted[key]])
    counted |= {key: form.users for key, form in forms.items()}
    return counted | {key: len(bitmap) for key, bitmap in (held | both).items()}


def extents(client: Any, keys: Iterable[str]) -> dict[str, Extent]:
    """Where each of the bitmaps under `keys` begins and ends, in one round trip.

    Parameters and errors are those of `slices`.
    """
    distinct = list(dict.fromkeys(keys))
    older = may_be_packed(client, distinct)
    if not older:
        return _extents(client, distinct, located=True)
    located, forms, held = _extents_of_both(client, distinct, older, located=True)
    placed = {key: _hull(key, located, forms) for key in distinct}
    return placed | {key: _extent(bitmap) for key, bitmap in held.items()}


def _extent(bitmap: Bitmap) -> Extent:
    return Extent(bitmap.first, bitmap.end)


def lengths(client: Any, keys: Iterable[str]) -> dict[str, int]:
    """How many bytes are stored under each of `keys`, in one round trip.

    Parameters and errors are those of `slices`.
    """
    distinct = list(dict.fromkeys(keys))
    older = may_be_packed(client, distinct)
    raw = [key for key in distinct if key not in older]
    stored = dict(zip(raw, numbers(client, [("STRLEN", key) for key in raw]), strict=True))
    whole = read_whole(client, [*older]) if older else {}
    return stored | {key: len(bitmap.to_bytes()) for key, bitmap in whole.items()}
