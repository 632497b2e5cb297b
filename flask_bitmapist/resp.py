"""Commands as the bytes that are sent: https://redis.io/docs/latest/develop/reference/protocol-spec

What of a command is the same each time is packed once.
"""

from __future__ import annotations

from functools import lru_cache


def packed(*command: object) -> bytes:
    """`command`, ready to be sent."""
    return b"".join((b"*%d\r\n" % len(command), *map(_counted, map(_argument, command))))


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
    head = (b"*%d\r\n" % (len(command) + 1), *map(_counted, map(_argument, command)))
    return b"".join((*head, b"$%d\r\n" % len(body))), body, b"\r\n"


#: `packed`, for commands that are sent again and again.
packed_once = lru_cache(maxsize=4096)(packed)


@lru_cache(maxsize=16384)
def key_bytes(key: str) -> bytes:
    """`key`, as an argument of a command."""
    return _counted(key.encode())


def _counted(argument: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def _argument(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
