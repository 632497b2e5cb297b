"""A trip: commands that go to a server together, and their replies.

redis-py's pipeline takes three times the CPU of packing, sending and reading. With the server on
the same machine that is more than the trip itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby, islice
from typing import Any, Protocol

import redis
from redis.client import Pipeline

from .cluster import Cluster
from .punctual import PunctualPool
from .refusals import note_command
from .resp import key_bytes, packed, packed_arguments, packed_once, packed_texts
from .wire import straight, while_watching

Command = tuple[Any, ...]

#: Bytes that are sent by themselves: to copy them takes longer than a system call. So many small
#: ones are sent together, and the server is at them while the next are packed.
_LARGE = 32_768
#: How many commands are packed at once.
_BLOCK = 250
#: The types of replies that are no errors.
_PLAIN = frozenset((int, bytes, list, float, type(None)))


class Many(Protocol):
    """Commands that differ in little: they are made while the first of them are under way."""

    def __len__(self) -> int: ...

    def names(self) -> Iterable[Command]:
        """Each command and its key."""

    def commands(self) -> Iterable[Command]:
        """Each with all arguments."""

    def packed(self) -> Iterable[bytes]:
        """The bytes of each."""


class Trip:
    """Commands in the order in which they are queued; replies are never decoded."""

    def __init__(self, client: Any) -> None:
        """:param client: any redis-py compatible client."""
        self._client = client
        self._is_single = isinstance(client, redis.Redis)
        #: Whether commands may be queued as bytes.
        self.packs = self._is_single or isinstance(client, Cluster)
        self._length = 0
        self._queued: list[Command | Callable[[], Iterable[Command]]] = []
        self._packed: list[bytes | Callable[[], Iterable[bytes]]] = []
        self._replies: list[Any] = []

    def __len__(self) -> int:
        """How many commands are queued."""
        return self._length

    @property
    def commands(self) -> list[Command]:
        """What is queued: where the trip packs, perhaps only each command and its key."""
        listed: list[Command] = []
        for queued in self._queued:
            listed += (queued,) if isinstance(queued, tuple) else queued()
        return listed

    def execute_command(self, *command: Any) -> None:
        """Queue `command`."""
        self._length += 1
        self._queued.append(command)
        if self.packs:
            self._packed.append(packed(*command))

    def repeat_command(self, *command: Any) -> None:
        """Queue `command`, which is one of few that are sent again and again."""
        self._length += 1
        self._queued.append(command)
        if self.packs:
            self._packed.append(packed_once(*command))

    def queue_packed(self, name: Command, *packed: bytes) -> None:
        """Queue the bytes of a command, where the trip `packs`.

        :param name: the command and its key, to tell what failed.
        """
        self._length += 1
        self._queued.append(name)
        self._packed += packed if self._is_single else (b"".join(packed),)

    def queue_together(self, names: Sequence[Command], packed: bytes) -> None:
        """As `queue_packed`, for several commands to one server."""
        self._length += len(names)
        self._queued += names
        self._packed.append(packed)

    def queue_many(self, many: Many) -> None:
        """Queue all of `many`."""
        self._length += len(many)
        self._queued.append(many.names if self.packs else many.commands)
        if self._is_single:
            self._packed.append(many.packed)
        elif self.packs:
            self._packed += many.packed()

    def execute(self) -> list[Any]:
        """The replies, in order; an error reply is one of them.

        :raises redis.RedisError: if the server does not answer.
        """
        if self._is_single:
            sent = _joined(self._packed)
            self._replies = straight(self._client.connection_pool, sent, self._length)
        elif self.packs:
            self._replies = self._client.trip(self.commands, self._packed)
        else:
            self._replies = _by_client(self._client, self.commands)
        return self._replies

    def check(self) -> None:
        """:raises redis.RedisError: the first error among the replies."""
        if not _PLAIN.issuperset(map(type, self._replies)):
            _check(self.commands, self._replies)


class Entries:
    """Enters those of `fields` that the hash `key` lacks."""

    def __init__(self, key: str, fields: Mapping[str, str]) -> None:
        self._name = ("HSETNX", key)
        self._fields = fields

    def __len__(self) -> int:
        return len(self._fields)

    def names(self) -> list[Command]:
        return [self._name] * len(self)

    def commands(self) -> Iterator[Command]:
        for field in self._fields.items():
            yield self._name + field

    def packed(self) -> Iterator[bytes]:
        begin = b"*4\r\n" + packed(*self._name).partition(b"\r\n")[2]
        ends = {value: key_bytes(value) for value in {*self._fields.values()}}
        for field, value in self._fields.items():
            name = field.encode()
            yield b"%b$%d\r\n%b\r\n%b" % (begin, len(name), name, ends[value])


class Questions:
    """Commands that ask about the same `names`, or enter them."""

    def __init__(self, heads: Sequence[Command], names: Collection[str]) -> None:
        """:param heads: what comes before the names in each."""
        self._heads = heads
        self._names = names

    def __len__(self) -> int:
        return len(self._heads)

    def names(self) -> Sequence[Command]:
        return self._heads

    def commands(self) -> Iterator[Command]:
        for head in self._heads:
            yield *head, *self._names

    def packed(self) -> Iterator[bytes]:
        names = packed_texts(self._names)
        for head in self._heads:
            count = len(head) + len(self._names)
            yield b"*%d\r\n%b%b" % (count, packed_arguments(head), names)


def replies(client: Any, commands: Sequence[Command] | Questions) -> list[Any]:
    """The replies to `commands`, which only read, so that they may be sent again.

    :param client: any redis-py compatible client, or a pipeline that watches.
    :raises redis.RedisError: if the server does not answer, or refuses one of them.
    """
    if isinstance(client, Pipeline):
        found = while_watching(client, [_packed(commands)], len(commands))
        return _checked(commands, found)
    if isinstance(client, redis.Redis):
        # The pipeline reconnects and retries as the client is configured to.
        with suppress(redis.ConnectionError, AttributeError, TypeError):
            found = straight(client.connection_pool, [_packed(commands)], len(commands))
            return _checked(commands, found)
    return _checked(commands, _by_client(client, _listed(commands)))


def _packed(commands: Sequence[Command] | Questions) -> bytes:
    if isinstance(commands, Questions):
        return b"".join(commands.packed())
    return b"".join([packed(*command) for command in commands])


def _listed(commands: Sequence[Command] | Questions) -> Sequence[Command]:
    return [*commands.commands()] if isinstance(commands, Questions) else commands


def node_of(client: Any, key: str) -> Any:
    """`client`, or for a cluster the client of the node that holds `key`."""
    if isinstance(client, redis.RedisCluster):
        return client.get_redis_connection(client.get_node_from_key(key))
    return client


def _checked(commands: Sequence[Command] | Questions, found: list[Any]) -> list[Any]:
    if not _PLAIN.issuperset(map(type, found)):
        _check(_listed(commands), found)
    return found


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


def _joined(pieces: Iterable[bytes | Callable[[], Iterable[bytes]]]) -> Iterator[bytes]:
    """`pieces` in few, without copying large ones."""
    small: list[bytes] = []
    room = _LARGE
    for block in _blocks(pieces):
        if len(block) >= _LARGE:
            yield b"".join(small)
            yield block
            small, room = [], _LARGE
            continue
        small.append(block)
        room -= len(block)
        if room <= 0:
            yield b"".join(small)
            small, room = [], _LARGE
    if small:
        yield b"".join(small)


def _blocks(pieces: Iterable[bytes | Callable[[], Iterable[bytes]]]) -> Iterator[bytes]:
    for are_packed, run in groupby(pieces, lambda piece: isinstance(piece, bytes)):
        if are_packed:
            yield from run  # type: ignore[misc]
        else:
            made = chain.from_iterable(make() for make in run)  # type: ignore[operator]
            while block := b"".join(islice(made, _BLOCK)):
                yield block


def drop_idle(client: Any) -> None:
    """Another server may have taken over: the next trips of `client` connect anew."""
    pool = client.connection_pool
    if isinstance(pool, PunctualPool):
        pool.drop_idle()
    elif not isinstance(pool, redis.BlockingConnectionPool):  # which cannot spare those in use
        pool.disconnect(inuse_connections=False)
