"""Many bits of one bitmap: sent as a bitmap, which the server merges into its own.

That costs the server and this process about a microsecond a kilobyte, and BITFIELD one a bit. But a
merge does not tell what it changed, so it cannot be undone. Hence there are two trips. The first
stores the bitmap under a name of its own, and then asks whether what the batch relies on holds. The
second merges it from there. A server that has the bitmap has the history in which all held: any
other one, whether it was restored or took over, has nothing to merge. Nor has one on which somebody
has been erased since: that removes what is stored so.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..resp import packed_with
from ..trip import Trip
from .bits import MOST_TOGETHER, slices
from .unmarking import Key

#: How the names of stored bitmaps begin.
STAGED = "flask_bitmapist:merge:"
#: Fewer bits are not worth a second trip.
_FEWEST = 100
#: As many bytes are merged in the time that BITFIELD takes for one bit.
_BYTES_PER_BIT = 1_000
#: BITOP goes byte by byte, a nanosecond each, where one of its bitmaps has ended. Of fewer bytes it
#: is not worth a command to make the other one as long.
_FEWEST_LONG = 10_000
#: Seconds that a bitmap waits to be merged, should this process die.
_AGE = 60
#: Bytes that are merged in one trip, unless one bitmap has more: others are served in between.
_BYTES_PER_TRIP = 4_000_000
#: Bytes of a bitmap that are made at once from an array: eight times as many are in use then.
_WINDOW = 1_000_000
#: If there is one bit in as many bytes, or fewer, each is set by itself.
_SPARSE = 20


#: Offsets of bits that one deed sets: at least one, in a list, or in an array of any type of
#: integers.
Chunk = Any


def highest(chunk: Chunk) -> int:
    return max(chunk) if isinstance(chunk, list) else int(chunk.max())


def _lowest(chunk: Chunk) -> int:
    return min(chunk) if isinstance(chunk, list) else int(chunk.min())


def up_to(limit: int, chunk: Chunk) -> Chunk:
    """Those offsets that are not above `limit`; perhaps none."""
    if isinstance(chunk, list):
        return [offset for offset in chunk if offset <= limit]
    return chunk[chunk <= limit]


def in_commands(chunk: Chunk) -> Iterable[list[int]]:
    """The offsets, as many together as one command sets."""
    if isinstance(chunk, list) and len(chunk) <= MOST_TOGETHER:
        return (chunk,)
    parts: Iterator[Chunk] = slices(chunk)
    return (part if isinstance(part, list) else part.tolist() for part in parts)


def worth_merging(chunks: Mapping[str, Sequence[Chunk]], *, alone: bool) -> dict[str, int]:
    """The events whose bits are better merged than set each, and the bytes of their bitmaps.

    :param chunks: event -> its bits.
    :param alone: one server has all keys. In a cluster a key with braces has a slot in which no
        name with that key in braces lies.
    """
    found = {}
    for event, of_event in chunks.items():
        if len(of_event) == 1 and len(of_event[0]) < _FEWEST:  # most have few
            continue
        count = sum(map(len, of_event))
        if count >= _FEWEST and (alone or {"{", "}"}.isdisjoint(event)):
            length = _bytes(of_event)
            if count * _BYTES_PER_BIT >= length:
                found[event] = length
    return found


def _bytes(chunks: Iterable[Chunk]) -> int:
    """How long the bitmap of `chunks` is, empty bytes at its beginning included."""
    return max(map(highest, chunks)) // 8 + 1


class Merge:
    """A bitmap to be merged into those of `keys`, which lie on one server."""

    def __init__(self, keys: Sequence[Key], chunks: Sequence[Chunk]) -> None:
        self.keys = keys
        self.chunks = chunks
        self._first = min(map(_lowest, chunks)) // 8
        self._length = _bytes(chunks)
        self._lives: list[int] = []
        # In the slot of the keys, if the server is a cluster.
        self._name = f"{STAGED}{secrets.token_hex(8)}:{{{keys[0].name}}}"

    def body(self) -> bytes:
        """The bitmap, without the empty bytes at its beginning."""
        body = bytearray(self._length - self._first)
        begin = self._first * 8
        arrays = []
        for chunk in self.chunks:
            if isinstance(chunk, list):
                for offset in chunk:
                    offset -= begin
                    body[offset >> 3] |= 128 >> (offset & 7)
            else:
                arrays.append(chunk)
        if arrays:
            _add_arrays(body, begin, arrays)
        return bytes(body)

    def stage(self, pipe: Trip) -> None:
        """Queue what stores the bitmap; `staged` takes the replies."""
        for key in self.keys:
            pipe.execute_command("PTTL", key.name)
        # First of all the expiry: the connection may break behind any command.
        pipe.execute_command("SET", self._name, "", "EX", _AGE)
        command = ("SETRANGE", self._name, self._first)
        if pipe.packs:
            pipe.queue_packed(command, *packed_with(*command, body=self.body()))
        else:
            pipe.execute_command(*command, self.body())

    def staged(self, replies: Iterator[Any]) -> None:
        self._lives = [next(replies) for _ in self.keys]
        for _ in ("SET", "SETRANGE"):
            next(replies)

    def discard(self, pipe: Trip) -> None:
        """Queue what removes the stored bitmap."""
        pipe.execute_command("UNLINK", self._name)

    def finish(self, pipe: Trip) -> slice:
        """Queue the merge; returns which of the replies `was_merged` takes."""
        first = len(pipe)
        for key, life in zip(self.keys, self._lives, strict=True):
            if self._length >= _FEWEST_LONG:  # adding 0 changes no bit
                last = self._length * 8 - 1
                pipe.execute_command("BITFIELD", key.name, "INCRBY", "u1", last, 0)
            merge = ("BITOP", "OR", key.name, key.name, self._name)
            # It drops the expiry, in milliseconds.
            restored = [("MULTI",), merge, ("PEXPIRE", key.name, life), ("EXEC",)]
            for command in restored if life > 0 else [merge]:
                pipe.execute_command(*command)
        # Last: if there is something to remove now, there was something to merge before.
        pipe.execute_command("UNLINK", self._name)
        return slice(first, len(pipe))


def bunches(
    merges: Iterable[tuple[Sequence[Key], Sequence[Chunk], int]], *, alone: bool
) -> Iterator[list[Merge]]:
    """`merges`, as many as are sent in one trip.

    :param merges: the bitmaps, the bits that all of them get, and their length as a bitmap.
    :param alone: one server has all keys: those that get the same bits need them once. Long bitmaps
        go one by one all the same, so that other clients are served between two of them.
    """
    bunch: list[Merge] = []
    room = _BYTES_PER_TRIP
    for keys, chunks, length in merges:
        for some in [keys] if alone and length <= _BYTES_PER_TRIP // 4 else zip(keys):
            room -= length
            if bunch and room < 0:
                yield bunch
                bunch, room = [], _BYTES_PER_TRIP - length
            bunch.append(Merge(some, chunks))
    if bunch:
        yield bunch


def was_merged(replies: Sequence[Any]) -> bool:
    """Whether there was a bitmap to merge.

    :raises redis.RedisError: if a key is no bitmap.
    """
    for transaction in replies:
        for reply in transaction if isinstance(transaction, list) else ():
            if isinstance(reply, Exception):
                raise reply
    return bool(replies[-1])


def _add_arrays(body: bytearray, begin: int, arrays: Sequence[Any]) -> None:
    """Set the bits at the offsets in `arrays` in `body`, whose first bit is that at `begin`."""
    import numpy as np

    merged = np.frombuffer(body, np.uint8)
    if sum(map(len, arrays)) * _SPARSE <= len(body):
        for offsets in arrays:
            places = offsets - begin
            np.bitwise_or.at(merged, places >> 3, (128 >> (places & 7)).astype(np.uint8))
        return
    for start in range(0, len(body), _WINDOW):
        size = min(_WINDOW, len(body) - start)
        first = begin + start * 8
        flags = np.zeros(size * 8, bool)
        for offsets in arrays:
            if size < len(body):
                offsets = offsets[(offsets >= first) & (offsets < first + size * 8)]
            flags[offsets - first] = True
        merged[start : start + size] |= np.packbits(flags)
