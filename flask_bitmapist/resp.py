"""Commands as the bytes that are sent: https://redis.io/docs/latest/develop/reference/protocol-spec

What of a command is the same each time is packed once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

try:
    from hiredis import PushNotification, Reader
except ImportError:  # it is not there, or older than 3.2
    Reader = None  # type: ignore[assignment,misc]

#: What hiredis returns where a reply is not complete.
_NOT_ALL = object()


def packed(*command: object) -> bytes:
    """`command`, ready to be sent."""
    return b"*%d\r\n%b" % (len(command), packed_arguments(command))


def packed_arguments(arguments: Iterable[object]) -> bytes:
    """`arguments` of a command, which there may be thousands of."""
    encoded = [value if isinstance(value, bytes) else str(value).encode() for value in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in encoded])  # `_counted` takes longer


def packed_texts(texts: Collection[str]) -> bytes:
    """As `packed_arguments`, of texts, in two thirds of the time."""
    joined = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])
    return joined.encode() if joined.isascii() else packed_arguments(texts)


def packed_alike(command: str, beginning: str, endings: tuple[str, ...]) -> bytes:
    """`command` with keys that begin alike: hundreds of them in a few microseconds."""
    begin = beginning.encode()
    parts = [b"*%d\r\n" % (len(endings) + 1), _counted(command.encode())]
    for length, listed in _by_length(endings):
        head = b"$%d\r\n%b" % (len(begin) + length, begin)
        parts += head, (b"\r\n" + head).join(listed), b"\r\n"
    return b"".join(parts)


@lru_cache(maxsize=8)
def _by_length(texts: tuple[str, ...]) -> list[tuple[int, list[bytes]]]:
    found: dict[int, list[bytes]] = {}
    for text in map(str.encode, texts):
        found.setdefault(len(text), []).append(text)
    return [*found.items()]


def packed_with(*command: object, body: bytes) -> tuple[bytes, bytes, bytes]:
    """`command` with one more argument, a long one that is not copied."""
    (_, *arguments) = packed(*command).partition(b"\r\n")
    head = (b"*%d" % (len(command) + 1), *arguments, b"$%d\r\n" % len(body))
    return b"".join(head), body, b"\r\n"


#: `packed`, for commands that are sent again and again.
packed_once = lru_cache(maxsize=4096)(packed)


def key_bytes(key: str) -> bytes:
    """`key`, as an argument of a command."""
    return _counted(key.encode())


def _counted(argument: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


class OddReplyError(Exception):
    """A reply that only redis-py knows what to do with."""


class PlainReplies:
    """Replies, not decoded. redis-py's parser takes as long for six as a trip on a fast way."""

    def __init__(self) -> None:
        """:raises OddReplyError: if there is nothing that reads them."""
        if Reader is None:
            raise OddReplyError
        #: The errors: what is raised among replies makes hiredis fail.
        self._errors: list[str] = []
        self._reader = Reader(
            replyError=self._errors.append,  # type: ignore[arg-type]
            protocolError=OddReplyError,
            notEnoughData=_NOT_ALL,
        )

    def expect(self, count: int) -> None:
        """What comes next are `count` replies."""
        self._reader.feed(b"*%d\r\n" % count)  # so that one call gets all of them

    def after(self, received: bytes) -> list[Any] | None:
        """All of them, if `received` is the rest.

        :raises OddReplyError: if there are more, or among them is an error, or what the server says
            unasked.
        """
        self._reader.feed(received)
        found = self._reader.gets(False)
        if found is _NOT_ALL:
            return None
        if self._errors or self._reader.has_data() or PushNotification in map(type, found):
            raise OddReplyError
        return found  # type: ignore[no-any-return]
