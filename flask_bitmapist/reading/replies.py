"""Reads long bitmaps from the socket straight into one array; also many single bytes and numbers.

redis-py's parser copies a reply three times, twice into new memory. With the page faults, this is
two thirds of the time of reading a large report's bitmaps.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import hiredis
import numpy as np
import redis
from numpy.typing import NDArray

_RECEIVED_BYTES = 64 * 2**10
#: Bytes of the strings behind one that are received with it. A Unix socket holds some 200 KiB, and
#: Linux wakes its sender when three quarters of them have been taken: with less than this, it slept
#: while a string of 125 KB was used, and was waited for afterwards.
_AHEAD_BYTES = 64 * 2**10
_COMBINED_BYTES = 256 * 2**10
_LONGEST_LINE = 64
#: With as many connections, one may be held while others are asked for.
_MANY_CONNECTIONS = 20
_Answer = TypeVar("_Answer")


class UnexpectedReplyError(Exception):
    """A reply that is not a string: redis-py knows how to handle it."""


_UNUSUAL = (redis.RedisError, OSError, AttributeError, TypeError, UnexpectedReplyError)


def read_words(
    client: Any, commands: Sequence[tuple[str, ...]], sizes: Sequence[int]
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
        replies = _Replies(socket, _AHEAD_BYTES)
        free = np.empty(sum(sizes), np.uint64)
        found = []
        for _ in commands:
            words, free = replies.next_words(free)
            found.append(words)
        return found

    return _asked(client, partial(_packed, commands), read)


def read_each(
    client: Any,
    commands: Sequence[tuple[str, ...]],
    use: Callable[[Iterator[NDArray[np.uint64]]], _Answer],
) -> _Answer | None:
    """What `use` makes of the strings that `commands` return, as words, in one round trip.

    It takes each of them as it comes. If it does not keep them, all of them use the same memory,
    which is still in the processor's cache when it is read: that takes half of the time.

    :param commands: GET and GETRANGE.
    :returns: None as in `read_words`.
    :raises redis.TimeoutError: the server is silent.
    """

    def read(socket: Any) -> _Answer:
        replies, room = _Replies(socket, _AHEAD_BYTES), np.empty(0, np.uint64)
        words = (replies.next_words(room)[0] for _ in commands)
        answer = use(words)
        # Nobody else is to get what it has not taken.
        deque(words, maxlen=0)
        return answer

    return _asked(client, partial(_packed, commands), read)


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

    pack, read = partial(_packed, commands), partial(_numbers, len(commands))
    return _asked(client, pack, read) if commands else []


class NumbersAsked:
    """The same as `read_numbers` in two steps: the server works between them.

    Close it in the end, whether it has been read or not.
    """

    def __init__(self, client: Any, commands: Sequence[tuple[str, ...]]) -> None:
        """Ask, unless connections are few: it takes one until it is read."""
        self._client = client
        self._commands = commands
        self._borrower: Any = None
        if isinstance(client, redis.Redis) and commands and _has_many(client.connection_pool):
            with suppress(*_UNUSUAL):
                self._borrower = client.client()
                connection = self._borrower.connection
                connection.send_packed_command(_packed(commands, connection))

    def read(self) -> list[int] | None:
        """What `read_numbers` returns."""
        if self._borrower is None:
            return read_numbers(self._client, self._commands)
        borrower, self._borrower = self._borrower, None
        return _conversed(
            lambda: borrower,
            lambda connection: _numbers(len(self._commands), connection._sock),
        )

    def close(self) -> None:
        if self._borrower is not None:
            # Nobody will read the replies.
            self._borrower.connection.disconnect()
            self._borrower.close()
            self._borrower = None


def _has_many(pool: Any) -> bool:
    """Whether a request may take two of the connections."""
    return int(getattr(pool, "max_connections", 0)) >= _MANY_CONNECTIONS


def _numbers(count: int, socket: Any) -> list[int]:
    received = bytearray()
    while count > 0:
        if not (part := socket.recv(_RECEIVED_BYTES)):
            raise ConnectionError("the server has closed the connection")
        received += part
        count -= part.count(b"\n")
    if not _NUMBERS.fullmatch(received):
        raise UnexpectedReplyError("not a whole number")
    return [*map(int, received.replace(b":", b"").split())]


def _packed(commands: Iterable[Sequence[str]], connection: Any) -> list[bytes]:
    """`commands` as they are sent, packed in a quarter of the time that redis-py takes."""
    arguments = _Arguments(connection.encoder.encoding)
    texts = [
        f"*{len(command)}\r\n{''.join([arguments[one] for one in command])}" for command in commands
    ]
    return ["".join(texts).encode(arguments.encoding)]


class _Arguments(dict[str, str]):
    """Arguments of commands by themselves, each as it is sent."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding

    def __missing__(self, argument: str) -> str:
        length = len(argument) if argument.isascii() else len(argument.encode(self.encoding))
        packed = self[argument] = f"${length}\r\n{argument}\r\n"
        return packed


class Part(NamedTuple):
    """One of the strings that make a union.

    :ivar command: returns it.
    :ivar place: that of its first byte in the union.
    :ivar least: how many bytes it has at least.
    """

    command: tuple[str, ...]
    place: int
    least: int


class Union(NamedTuple):
    """Strings that are combined by OR.

    :ivar size: the words of the union. What is beyond them is left out.
    """

    size: int
    parts: Sequence[Part]


def read_unions(
    client: Any, batches: Iterable[Sequence[Union]], measure: Callable[[NDArray[np.uint64]], int]
) -> list[int] | None:
    """What `measure` tells of each union of the strings that GET and GETRANGE return.

    A string is combined while it comes, in the processor's cache, and not kept. The server works on
    the next batch meanwhile.

    :param measure: is given a union's words, padded with zeros.
    :returns: None as in `read_words`, and if a string is shorter than it is to be.
    :raises redis.TimeoutError: the server is silent.
    """

    def converse(connection: Any) -> list[int]:
        combined = _Combined(connection._sock, _COMBINED_BYTES)
        sizes: list[int] = []
        asked: Sequence[Union] = ()
        for batch in chain(batches, [()]):
            commands = [part.command for union in batch for part in union.parts]
            # Its check of health would take a reply that is outstanding for its own.
            connection.send_packed_command(_packed(commands, connection), check_health=not asked)
            sizes += [measure(combined.next_union(union)) for union in asked]
            asked = batch
        return sizes

    return _connected(client, converse)


def read_replies(client: Any, commands: Sequence[tuple[str, ...]]) -> list[Any] | None:
    """What `commands` return, as strings of bytes and numbers, in one round trip.

    redis-py takes ten times as long for many short replies.

    :returns: None as in `read_words`.
    :raises redis.TimeoutError: the server is silent.
    """

    def read(socket: Any) -> list[Any]:
        found, more = list[Any](), object()
        parser = hiredis.Reader(notEnoughData=more)
        while len(found) < len(commands):
            if not (part := socket.recv(_RECEIVED_BYTES)):
                raise ConnectionError("the server has closed the connection")
            parser.feed(part)
            found += iter(parser.gets, more)
        if any(isinstance(reply, Exception) for reply in found):
            raise UnexpectedReplyError("an error")
        return found

    return _asked(client, partial(_packed, commands), read) if commands else []


#: Whole numbers, as a server sends them.
_NUMBERS = re.compile(rb"(?::-?\d+\r\n)*")
#: A string of at most one byte, as a server sends it.
_OCTET = re.compile(rb"\$(?:0\r\n|1\r\n(.))\r\n", re.DOTALL)
_SHORTEST_OCTET = len(b"$0\r\n\r\n")


def _asked(
    client: Any, pack: Callable[[Any], list[bytes]], read: Callable[[Any], _Answer]
) -> _Answer | None:
    """What `read` returns for the replies to the commands that `pack` packs.

    Errors and what is returned are those of `_connected`.
    """

    def converse(connection: Any) -> _Answer:
        connection.send_packed_command(pack(connection))
        return read(connection._sock)

    return _connected(client, converse)


def _connected(client: Any, converse: Callable[[Any], _Answer]) -> _Answer | None:
    """What `converse` returns, which asks on one connection and reads all replies from its socket.

    :returns: None if anything is unusual.
    :raises redis.TimeoutError: the server is silent.
    """
    return _conversed(client.client, converse) if isinstance(client, redis.Redis) else None


def _conversed(
    borrow: Callable[[], redis.Redis], converse: Callable[[Any], _Answer]
) -> _Answer | None:
    """The same of the connection that is borrowed, and given back in the end."""
    try:
        with borrow() as borrower:
            connection: Any = borrower.connection
            try:
                # Its parser's buffer is empty: a connection in the pool has no reply outstanding.
                return converse(connection)
            except BaseException:
                connection.disconnect()  # nobody will read the rest of the replies
                raise
    except TimeoutError as error:  # asking again would wait as long again
        raise redis.TimeoutError("the server was silent for too long") from error
    except _UNUSUAL:
        return None


def _length(head: bytes) -> int:
    """The length of the string that begins with this line."""
    if head[:1] != b"$" or not head[1:].isdigit():
        raise UnexpectedReplyError(head)
    return int(head[1:])


class _Received:
    """What a server sends (RESP, https://redis.io/docs/latest/develop/reference/), read ahead."""

    def __init__(self, socket: Any, most: int) -> None:
        """:param most: how many bytes are held at most."""
        self._socket = socket
        self._buffer = bytearray(most)
        self._view = memoryview(self._buffer)
        #: Where in the buffer what is not used yet begins and ends.
        self._begin = self._end = 0

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n", self._begin, self._end)) < 0:
            if self._end - self._begin > _LONGEST_LINE:
                raise UnexpectedReplyError("a line without an end")
            self._receive()
        line = bytes(self._buffer[self._begin : end])
        self._begin = end + 2
        return line

    def _next(self, most: int) -> memoryview:
        """The octets that come next, as many as are there, up to `most`."""
        if self._begin == self._end:
            self._receive()
        begin = self._begin
        self._begin = min(begin + most, self._end)
        return self._view[begin : self._begin]

    def _receive(self) -> None:
        """Receive more, behind what is held."""
        held = self._buffer[self._begin : self._end]
        self._buffer[: len(held)] = held
        received = self._into(self._view[len(held) :])
        self._begin, self._end = 0, len(held) + received

    def _into(self, view: memoryview) -> int:
        received: int = self._socket.recv_into(view)
        if not received:
            raise ConnectionError("the server has closed the connection")
        return received


class _Combined(_Received):
    """Strings as a server sends them, combined by OR while they come."""

    def next_union(self, union: Union) -> NDArray[np.uint64]:
        """The words of the next strings, combined."""
        words = np.zeros(union.size, np.uint64)
        octets = words.view(np.uint8)
        for _, place, least in union.parts:
            head = self._line()
            if (length := _length(head)) < least:
                raise UnexpectedReplyError(head)
            self._combine(octets[place:], length)
            self._line()
        return words

    def _combine(self, octets: NDArray[np.uint8], length: int) -> None:
        """Combine `octets` with the `length` bytes that come next, as far as they go."""
        done = 0
        while done < length:
            found = np.frombuffer(self._next(length - done), np.uint8)
            into = octets[done : done + found.size]
            into |= found[: into.size]
            done += found.size


class _Replies(_Received):
    """Strings as a server sends them, each in an array of its own."""

    def next_words(self, free: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The next string's words, and what is left of `free`.

        They are in `free` unless it is too small.
        """
        head = self._line()
        if head in (b"$-1", b"_"):  # there is no such key
            return free[:0], free
        length = _length(head)
        size = -(-length // 8)
        if size > free.size:
            words = np.empty(size, np.uint64)
        else:
            words, free = free[:size], free[size:]
        words[-1:] = 0
        self._fill(words.view(np.uint8).data[:length])
        self._line()
        return words, free

    def _fill(self, octets: memoryview) -> None:
        """Fill `octets` with what comes next."""
        done = 0
        while done < len(octets):
            if self._begin == self._end:
                done += self._into(octets[done:])
            else:
                found = self._next(len(octets) - done)
                octets[done : done + len(found)] = found
                done += len(found)
