"""A trip: commands that go to a server together, and their replies.

redis-py's pipeline takes three times the CPU of packing, sending and reading. With the server on
the same machine that is more than the trip itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.client import Pipeline

from .cluster import Cluster
from .punctual import PunctualPool
from .refusals import note_command
from .resp import packed, packed_once
from .wire import straight, while_watching

Command = tuple[Any, ...]

#: Bytes that are sent by themselves: to copy them takes longer than a system call.
_LARGE = 32_768
#: The types of replies that are no errors.
_PLAIN = frozenset((int, bytes, list, float, type(None)))


class Trip:
    """Commands in the order in which they are queued; replies are never decoded."""

    def __init__(self, client: Any) -> None:
        """:param client: any redis-py compatible client."""
        self._client = client
        self._is_single = isinstance(client, redis.Redis)
        #: Whether commands may be queued as bytes.
        self.packs = self._is_single or isinstance(client, Cluster)
        self.commands: list[Command] = []
        self._packed: list[bytes] = []
        self._replies: list[Any] = []

    def execute_command(self, *command: Any) -> None:
        """Queue `command`."""
        self.commands.append(command)
        if self.packs:
            self._packed.append(packed(*command))

    def repeat_command(self, *command: Any) -> None:
        """Queue `command`, which is one of few that are sent again and again."""
        self.commands.append(command)
        if self.packs:
            self._packed.append(packed_once(*command))

    def queue_packed(self, name: Command, *packed: bytes) -> None:
        """Queue the bytes of a command, where the trip `packs`.

        :param name: the command and its key, to tell what failed.
        """
        self.commands.append(name)
        self._packed += packed if self._is_single else (b"".join(packed),)

    def queue_together(self, names: Sequence[Command], packed: bytes) -> None:
        """As `queue_packed`, for several commands to one server."""
        self.commands += names
        self._packed.append(packed)

    def execute(self) -> list[Any]:
        """The replies, in order; an error reply is one of them.

        :raises redis.RedisError: if the server does not answer.
        """
        if self._is_single:
            sent = _joined(self._packed)
            self._replies = straight(self._client.connection_pool, sent, len(self.commands))
        elif self.packs:
            self._replies = self._client.trip(self.commands, self._packed)
        else:
            self._replies = _by_client(self._client, self.commands)
        return self._replies

    def check(self) -> None:
        """:raises redis.RedisError: the first error among the replies."""
        if not _PLAIN.issuperset(map(type, self._replies)):
            _check(self.commands, self._replies)


def enter_fields(pipe: Trip, key: str, fields: Mapping[str, str]) -> None:
    """Queue what enters those of `fields` that the hash `key` lacks: a command for each."""
    name = ("HSETNX", key)
    if not pipe.packs:
        for field, value in fields.items():
            pipe.execute_command(*name, field, value)
        return
    begin = b"*4\r\n" + packed(*name).partition(b"\r\n")[2]
    for field, value in fields.items():
        given = field.encode()
        end = packed_once(value).partition(b"\r\n")[2]
        pipe.queue_packed(name, b"%b$%d\r\n%b\r\n%b" % (begin, len(given), given, end))


def replies(client: Any, commands: Sequence[Command]) -> list[Any]:
    """The replies to `commands`, which only read, so that they may be sent again.

    :param client: any redis-py compatible client, or a pipeline that watches.
    :raises redis.RedisError: if the server does not answer, or refuses one of them.
    """
    if isinstance(client, Pipeline):
        sent = [b"".join(packed(*command) for command in commands)]
        found = while_watching(client, sent, len(commands))
        _check(commands, found)
        return found
    if isinstance(client, redis.Redis):
        # The pipeline reconnects and retries as the client is configured to.
        with suppress(redis.ConnectionError, AttributeError, TypeError):
            sent = [b"".join(packed(*command) for command in commands)]
            found = straight(client.connection_pool, sent, len(commands))
            _check(commands, found)
            return found
    found = _by_client(client, commands)
    _check(commands, found)
    return found


def node_of(client: Any, key: str) -> Any:
    """`client`, or for a cluster the client of the node that holds `key`."""
    if isinstance(client, redis.RedisCluster):
        return client.get_redis_connection(client.get_node_from_key(key))
    return client


def _check(commands: Iterable[Command], found: Iterable[Any]) -> None:
    for command, reply in zip(commands, found, strict=True):
        if isinstance(reply, Exception):
            note_command(reply, command)
            raise reply


def _by_client(client: Any, commands: Sequence[Command]) -> list[Any]:
    if isinstance(client, Cluster):
        return client.trip(commands, [packed(*command) for command in commands])
    pipe = client.pipeline(transaction=False)
    for command in commands:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipe.execute_command(*command, NEVER_DECODE=True)
    found: list[Any] = pipe.execute(raise_on_error=False)
    return found


def _joined(pieces: Iterable[bytes]) -> list[bytes]:
    """`pieces` in few, without copying large ones."""
    sent: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _LARGE:
            small.append(piece)
        else:
            sent += b"".join(small), piece
            small = []
    return [*sent, b"".join(small)]


def drop_idle(client: Any) -> None:
    """Another server may have taken over: the next trips of `client` connect anew."""
    pool = client.connection_pool
    if isinstance(pool, PunctualPool):
        pool.drop_idle()
    elif not isinstance(pool, redis.BlockingConnectionPool):  # which cannot spare those in use
        pool.disconnect(inuse_connections=False)
