"""Packed sets agree with raw bitmaps and Python's sets; their bytes are portable Roaring."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import and_, or_, sub, xor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_bitmapist.reading.bitmap import EMPTY, Bitmap, UnionSoFar, union

pytest.importorskip("pyroaring")

from flask_bitmapist.reading.packed import Packed
from flask_bitmapist.reading.portable import (
    CONTAINER_BITS,
    Head,
    TooShortError,
    octet_in,
    place_of,
)

#: Offsets at which a word or a container begins or ends.
BORDERS = [0, 7, 8, 63, 64, 65535, 65536, 65599, 131071, 131072, 2**20 - 1, 2**20]
LAST = 2**27 - 1  # of plain ids

#: From nobody to everybody: single offsets, runs, and every second or third of a stretch, which is
#: more than a container takes as numbers.
stretches = st.builds(
    lambda first, length, step: range(first, first + length, step),
    st.one_of(st.sampled_from(BORDERS), st.integers(0, 200_000)),
    st.sampled_from([1, 2, 63, 64, 65, 8000, 8192, 8194, 65536, 140_000]),
    st.integers(1, 3),
)
offset_sets = st.builds(
    lambda several, single: frozenset(single).union(*several),
    st.lists(stretches, max_size=2),
    st.sets(st.one_of(st.sampled_from(BORDERS), st.integers(0, 200_000)), max_size=10),
)


def redis_bytes(offsets: frozenset[int]) -> bytes:
    """What SETBIT leaves behind."""
    value = np.zeros(max(offsets, default=-1) // 8 + 1, np.uint8)
    ids = np.fromiter(offsets, np.int64)
    np.bitwise_or.at(value, ids // 8, (128 >> ids % 8).astype(np.uint8))
    return value.tobytes()


def raw(offsets: frozenset[int]) -> Bitmap:
    return Bitmap.from_bytes(redis_bytes(offsets))


def packed(offsets: frozenset[int]) -> Packed:
    return Packed.of(raw(offsets))


FULL = frozenset(range(2**17))


@given(offset_sets, offset_sets)
@example(frozenset(), FULL)
@example(FULL, FULL)
@example(FULL, frozenset({7, LAST}))
def test_packed_sets_combine_as_sets_do_with_each_other_and_with_raw_bitmaps(
    left: frozenset[int], right: frozenset[int]
) -> None:
    forms: list[Callable[[frozenset[int]], Bitmap]] = [packed, raw]
    for one, other in ((packed, packed), *zip(forms, forms[::-1], strict=True)):
        a, b = one(left), other(right)
        for operation in (and_, or_, xor, sub):
            combined, expected = operation(a, b), operation(left, right)
            assert isinstance(combined, Packed)
            assert combined.ids().tolist() == sorted(expected)
            assert len(combined) == len(expected)
            assert bool(combined) == bool(expected)
        assert a.common(b) == len(left & right)
        assert (a == b) == (left == right)


@given(st.lists(st.tuples(st.sampled_from([packed, raw]), offset_sets), max_size=4))
def test_a_union_so_far_takes_sets_of_both_forms(
    sets: list[tuple[Callable[[frozenset[int]], Bitmap], frozenset[int]]],
) -> None:
    so_far = UnionSoFar()
    for form, offsets in sets:
        so_far.add(form(offsets))
    expected = sorted(frozenset().union(*(offsets for _, offsets in sets)))
    assert so_far.bitmap().ids().tolist() == expected


@given(offset_sets, st.integers(-1, 2**27))
@example(frozenset({LAST}), LAST)
def test_a_packed_set_tells_of_one_offset_and_of_its_members(
    offsets: frozenset[int], asked: int
) -> None:
    users = packed(offsets)
    assert (asked in users) == (asked in offsets)
    for offset in [*BORDERS, LAST, *sorted(offsets)[:5], -1, 2**32]:
        assert (offset in users) == (offset in offsets)
    assert users.ids().dtype == np.intp
    assert users.to_bytes() == redis_bytes(offsets)
    assert users == raw(offsets)
    assert users.words.tolist() == raw(offsets).words.tolist()
    assert (users.first, users.end) == (0, raw(offsets).end)


@given(offset_sets, st.integers(0, 3000), st.integers(0, 3000))
def test_a_part_of_a_packed_set_is_the_raw_one(
    offsets: frozenset[int], begin: int, size: int
) -> None:
    users, whole = packed(offsets), raw(offsets)
    assert users.part(begin, begin + size) == whole.part(begin, begin + size)
    assert np.array_equal(users.between(begin, begin + size), whole.between(begin, begin + size))


@given(offset_sets, st.integers(0, 5000))
def test_a_bitmap_whose_words_begin_later_is_packed_at_its_place(
    offsets: frozenset[int], first: int
) -> None:
    later = Bitmap(raw(offsets).words, first)
    assert Packed.of(later).ids().tolist() == sorted(64 * first + offset for offset in offsets)


@given(st.lists(offset_sets, max_size=4))
def test_the_union_of_packed_and_raw_sets_is_that_of_sets(several: list[frozenset[int]]) -> None:
    forms = [(raw, packed)[index % 2](offsets) for index, offsets in enumerate(several)]
    assert union(forms) == union(map(raw, several))
    assert union([EMPTY, *forms]).ids().tolist() == sorted(frozenset().union(*several))


def spelt_out(value: bytes) -> Iterator[int]:
    """The offsets of a portable Roaring bitmap, read as its specification says.

    https://github.com/RoaringBitmap/RoaringFormatSpec
    """
    cookie, place = struct.unpack_from("<I", value)[0], 4
    has_runs, with_places = bytes(0), True
    if cookie & 0xFFFF == 12347:
        count = (cookie >> 16) + 1
        has_runs = value[place : place + (count + 7) // 8]
        place, with_places = place + len(has_runs), count >= 4
    else:
        assert cookie == 12346
        (count,) = struct.unpack_from("<I", value, place)
        place += 4
    heads = [struct.unpack_from("<HH", value, place + 4 * index) for index in range(count)]
    place += 4 * count
    places = struct.unpack_from(f"<{count}I", value, place) if with_places else None
    place += 4 * count if with_places else 0
    for index, (number, size) in enumerate(heads):
        assert places is None or places[index] == place
        numbers: list[int] = []
        if has_runs and has_runs[index // 8] >> index % 8 & 1:
            (runs,) = struct.unpack_from("<H", value, place)
            for run in range(runs):
                first, more = struct.unpack_from("<HH", value, place + 2 + 4 * run)
                numbers += range(first, first + more + 1)
            place += 2 + 4 * runs
        elif size + 1 <= 4096:
            numbers += struct.unpack_from(f"<{size + 1}H", value, place)
            place += 2 * (size + 1)
        else:
            bits = value[place : place + 8192]
            numbers += [bit for bit in range(65536) if bits[bit // 8] >> bit % 8 & 1]
            place += 8192
        assert len(numbers) == size + 1
        yield from (number << 16 | low for low in numbers)
    assert place == len(value)


def put_down(offsets: frozenset[int]) -> bytes:
    """Their portable form without runs, written as its specification says."""
    by_container: dict[int, list[int]] = {}
    for offset in sorted(offsets):
        by_container.setdefault(offset >> 16, []).append(offset & 0xFFFF)
    heads = places = bodies = b""
    for number, low in by_container.items():
        heads += struct.pack("<HH", number, len(low) - 1)
        places += struct.pack("<I", 8 + 8 * len(by_container) + len(bodies))
        if len(low) <= 4096:
            bodies += struct.pack(f"<{len(low)}H", *low)
        else:
            bodies += sum(1 << bit for bit in low).to_bytes(8192, "little")
    return struct.pack("<II", 12346, len(by_container)) + heads + places + bodies


@given(offset_sets)
@example(FULL)
@example(frozenset())
@example(frozenset({64, LAST}))
def test_its_bytes_are_those_of_the_portable_format(offsets: frozenset[int]) -> None:
    value = packed(offsets).to_portable()
    assert [*spelt_out(value)] == sorted(offsets)
    assert Packed.from_portable(value) == raw(offsets)
    assert Packed.from_portable(put_down(offsets)) == raw(offsets)


Found = TypeVar("Found")


def begun(value: bytes, read: Callable[[bytes], Found], length: int = 8) -> Found:
    """What `read` makes of the first bytes of `value`, of as many as it asks for."""
    try:
        return read(value[:length])
    except TooShortError as error:
        needed = error.length
    assert length < needed <= len(value)
    return begun(value, read, needed)


@given(offset_sets, st.integers(0, 4), st.integers(0, 4))
@example(FULL | {LAST}, 0, 2**11)
@example(frozenset(range(0, 600_000, 3)) | FULL, 1, 2)
def test_some_containers_of_the_portable_form_are_read_alone(
    offsets: frozenset[int], first: int, count: int
) -> None:
    if not offsets:
        return
    value = packed(offsets).to_portable()
    head = begun(value, lambda value_begun: Head.of(value_begun, len(value)))
    assert head.sizes.sum() == len(offsets)
    wanted = range(first * CONTAINER_BITS, (first + count) * CONTAINER_BITS)
    expected = sorted(offset - wanted.start for offset in offsets if offset in wanted)
    containers = head.between(first, first + count)
    if not containers:
        assert not expected
        return
    body = value[head.places[containers.start] : head.places[containers.stop]]
    assert Packed.from_portable(head.cut(containers, body, first)).ids().tolist() == expected


@given(offset_sets, st.integers(0, 30_000))
@example(FULL, 2**14 - 1)
@example(FULL, 2**14)
@example(FULL | {LAST}, LAST // 8)
@example(frozenset(range(0, 600_000, 3)) | FULL, 5)
@example(frozenset(range(0, 60_000, 2)), 60_000 // 8)
def test_one_byte_is_found_in_the_portable_form(offsets: frozenset[int], asked: int) -> None:
    value, stored = packed(offsets).to_portable(), redis_bytes(offsets)
    near = [border // 8 for border in BORDERS]
    for byte in (asked, *near, *(offset // 8 for offset in sorted(offsets)[-2:])):
        place = begun(value, partial(place_of, size=len(value), byte=byte))
        found = value[place.begin : place.end]
        assert octet_in(found, place, byte) == stored[byte : byte + 1]


@pytest.mark.parametrize("offsets", [range(0, 200_000, 3), [7, 70_000], range(2**18)])
def test_a_head_that_does_not_fit_its_containers_is_an_error(offsets: Iterable[int]) -> None:
    value = packed(frozenset(offsets)).to_portable()
    assert Head.of(value, len(value))
    for damaged in (value[:-1], value + b"\0" * 70_000, b"\xff" * 9 + value[9:], value[:7], b""):
        with pytest.raises(ValueError, match="bitmap"):
            Head.of(damaged, len(damaged))


@pytest.mark.parametrize("name", ["with_runs", "without_runs"])
def test_what_another_implementation_has_written_is_read_and_what_it_reads_is_written(
    name: str,
) -> None:
    """RoaringBitmap 1.3.0 of Java, in which the format was defined: see ``roaring/Make.java``."""
    value = gzip.decompress((Path(__file__).parent / f"roaring/{name}.bin.gz").read_bytes())
    members = {*range(0, 100_000, 1000), *range(300_000, 600_000, 3), *range(700_000, 800_000)}
    found = Packed.from_portable(value)
    assert found.ids().tolist() == sorted(members)
    if name == "with_runs":
        assert found.to_portable() == packed(frozenset(members)).to_portable() == value
    else:
        assert put_down(frozenset(members)) == value
    head = Head.of(value, len(value))
    assert head.sizes.sum() == len(members)
    assert [*spelt_out(value)] == sorted(members)


def test_a_full_container_takes_a_run() -> None:
    assert len(packed(FULL).to_portable()) < 40


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 1000, -1])
def test_a_shortened_form_is_an_error(size: int) -> None:
    value = packed(frozenset(range(0, 200_000, 3))).to_portable()
    with pytest.raises(ValueError, match="bitmap"):
        Packed.from_portable(value[:size])


def test_what_is_no_such_form_is_an_error() -> None:
    for value in (b"garbage" * 10, redis_bytes(frozenset(range(1, 9000, 2))), b"\xff" * 100):
        with pytest.raises(ValueError, match="bitmap"):
            Packed.from_portable(value)
