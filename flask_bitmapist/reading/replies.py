"""Reads long bitmaps from the socket straight into one array; also many single bytes and numbers.

redis-py's parser copies a reply three times, twice into new memory. With the page faults, this is
two thirds of the time of reading a large report's bitmaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import redis
from numpy.typing import NDArray

_BUFFER_BYTES = 4 * 2**10
_RECEIVED_BYTES = 64 * 2**10
_Answer = TypeVar("_Answer")


class UnexpectedReplyError(Exception):
    """A reply that is not a string: redis-py knows how to handle it."""


def read_words(
    client: Any, commands: Sequence[tuple[Any, ...]], sizes: Sequence[int]
) -> list[NDArray[np.uint64]] | None:
    """The strings that `commands` return as words, padded with zeros, in one round trip.

    :param client: any redis-py compatible client.
    :param commands: GET and GETRANGE.
    :param sizes: how many words each is likely to return. Longer replies just cost more memory.
    :returns: None if anything is unusual about the client, a reply or the connection. Then ask
        again through redis-py, which retries, reconnects and raises as configured.
    :raises redis.TimeoutError: the server is silent.
    """

    def read(socket: Any) -> list[NDArray[np.uint64]]:
        replies = _Replies(socket)
        free = np.empty(sum(sizes), np.uint64)
        found = []
        for _ in commands:
            words, free = replies.next_words(free)
            found.append(words)
        return found

    return _asked(client, lambda connection: connection.pack_commands(commands), read)


class Octets(NamedTuple):
    """One byte of each of several strings.

    Packing 730,000 commands one by one took longer than the server needs to answer them: where
    prefixes are as long as each other and have the same suffixes, all but the prefix is packed
    once.

    :ivar prefix: how the keys of all begin.
    :ivar suffixes: how each of them ends.
    :ivar byte: its index.
    """

    prefix: str
    suffixes: tuple[str, ...]
    byte: int


def read_octets(client: Any, places: Sequence[Octets]) -> list[bytes] | None:
    """The bytes at all of `places`, in one round trip.

    :returns: b"" where the string is shorter or missing. None as in `read_words`.
    :raises redis.TimeoutError: the server is silent.
    """
    size = sum(len(place.suffixes) for place in places)

    def pack(connection: Any) -> list[bytes]:
        encoding = connection.encoder.encoding

        @cache
        def between(length: int, suffixes: tuple[str, ...], byte: int) -> list[bytes]:
            """What stands before, between and after the prefixes, of `length` bytes each."""
            tail = b"\r\n" + b"$%d\r\n%d\r\n" % (len(str(byte)), byte) * 2
            ends = [suffix.encode(encoding) for suffix in suffixes]
            heads = [b"*4\r\n$8\r\nGETRANGE\r\n$%d\r\n" % (length + len(end)) for end in ends]
            return [
                before + after
                for before, after in zip(
                    [b"", *(end + tail for end in ends)], [*heads, b""], strict=True
                )
            ]

        prefixes = [place.prefix.encode(encoding) for place in places]
        packed = (
            prefix.join(between(len(prefix), suffixes, byte))
            for prefix, (_, suffixes, byte) in zip(prefixes, places, strict=True)
        )
        return [b"".join(packed)]

    def read(socket: Any) -> list[bytes]:
        received = bytearray()
        while True:
            if not (part := socket.recv(_RECEIVED_BYTES)):
                raise ConnectionError("the server has closed the connection")
            received += part
            if len(received) < _SHORTEST_OCTET * size:
                continue
            found = _OCTET.findall(received)
            rest = len(received) - sum(map(len, found)) - _SHORTEST_OCTET * len(found)
            if len(found) == size and not rest:
                return found
            if rest > _SHORTEST_OCTET:
                raise UnexpectedReplyError("not a string of at most one byte")

    return _asked(client, pack, read) if size else []


def read_numbers(client: Any, commands: Sequence[tuple[str, ...]]) -> list[int] | None:
    """The whole numbers that `commands` return, such as BITCOUNT, in one round trip.

    For thousands of them, redis-py takes as long as the server does.

    :returns: None as in `read_words`.
    :raises redis.TimeoutError: the server is silent.
    """

    def pack(connection: Any) -> list[bytes]:
        encoding = connection.encoder.encoding
        packed = []
        for command in commands:
            packed.append(b"*%d\r\n" % len(command))
            packed += [
                b"$%d\r\n%b\r\n" % (len(p), p) for p in [p.encode(encoding) for p in command]
            ]
        return [b"".join(packed)]

    def read(socket: Any) -> list[int]:
        received, lines = bytearray(), len(commands)
        while lines > 0:
            if not (part := socket.recv(_RECEIVED_BYTES)):
                raise ConnectionError("the server has closed the connection")
            received += part
            lines -= part.count(b"\n")
        if not _NUMBERS.fullmatch(received):
            raise UnexpectedReplyError("not a whole number")
        return [*map(int, received.replace(b":", b"").split())]

    return _asked(client, pack, read) if commands else []


#: Whole numbers, as a server sends them.
_NUMBERS = re.compile(rb"(?::-?\d+\r\n)*")
#: A string of at most one byte, as a server sends it.
_OCTET = re.compile(rb"\$(?:0\r\n|1\r\n(.))\r\n", re.DOTALL)
_SHORTEST_OCTET = len(b"$0\r\n\r\n")


def _asked(
    client: Any, pack: Callable[[Any], list[bytes]], read: Callable[[Any], _Answer]
) -> _Answer | None:
    """What `read` returns for the replies to the commands that `pack` packs, on one connection.

    :returns: None if anything is unusual.
    :raises redis.TimeoutError: the server is silent.
    """
    if not isinstance(client, redis.Redis):
        return None
    try:
        with client.client() as borrower:
            connection: Any = borrower.connection
            try:
                connection.send_packed_command(pack(connection))
                # Its parser's buffer is empty: a connection in the pool has no reply outstanding.
                return read(connection._sock)
            except BaseException:
                connection.disconnect()  # nobody will read the rest of the replies
                raise
    except TimeoutError as error:  # asking again would wait as long again
        raise redis.TimeoutError("the server was silent for too long") from error
    except (redis.RedisError, OSError, AttributeError, TypeError, UnexpectedReplyError):
        return None


class _Replies:
    """Strings as a server sends them (RESP, https://redis.io/docs/latest/develop/reference/).

    A small buffer takes the lines with the strings' lengths, and whatever arrives with them.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._buffer = bytearray(_BUFFER_BYTES)
        self._held = memoryview(b"")

    def next_words(self, free: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The next string's words, and what is left of `free`.

        They are in `free` unless it is too small.
        """
        head = self._line()
        if head in (b"$-1", b"_"):  # there is no such key
            return free[:0], free
        if not head.startswith(b"$"):
            raise UnexpectedReplyError(head)
        length = int(head[1:])
        size = -(-length // 8)
        if size > free.size:
            words = np.empty(size, np.uint64)
        else:
            words, free = free[:size], free[size:]
        words[-1:] = 0
        self._fill(words.view(np.uint8).data[:length])
        self._line()
        return words, free

    def _line(self) -> bytes:
        while (end := bytes(self._held).find(b"\r\n")) < 0:
            rest = len(self._held)
            if rest == len(self._buffer):
                raise UnexpectedReplyError("a line without an end")
            self._buffer[:rest] = bytes(self._held)
            received = self._receive(memoryview(self._buffer)[rest:])
            self._held = memoryview(self._buffer)[: rest + received]
        line, self._held = bytes(self._held[:end]), self._held[end + 2 :]
        return line

    def _fill(self, view: memoryview) -> None:
        """Fill `view` with what comes next."""
        done = min(len(view), len(self._held))
        view[:done] = self._held[:done]
        self._held = self._held[done:]
        while done < len(view):
            done += self._receive(view[done:])

    def _receive(self, view: memoryview) -> int:
        received: int = self._socket.recv_into(view)
        if not received:
            raise ConnectionError("the server has closed the connection")
        return received
