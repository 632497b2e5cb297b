"""One connection: taken from a pool, commands out, replies in. Replies are never decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import redis

from .punctual import Punctual, PunctualPool


def straight(pool: Any, sent: Iterable[bytes], count: int) -> list[Any]:
    """The `count` replies to the packed commands `sent`, on a connection of `pool`.

    :raises redis.RedisError: if the server does not answer; error replies are returned.
    """
    with Wire(pool) as wire:
        wire.send(sent)
        return wire.replies(count)


def while_watching(pipe: Any, sent: Sequence[bytes], count: int) -> list[Any]:
    """As `straight`, on the connection on which `pipe` watches: its pool may have no other."""
    connection = pipe.connection
    try:
        connection.send_packed_command(sent)
        return [_reply(connection) for _ in range(count)]
    except BaseException:
        connection.disconnect()  # the rest of the replies is nobody's
        raise


class Wire:
    """A connection of a pool. Replies that nobody has read end it."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        kept = pool.kept() if isinstance(pool, PunctualPool) else None
        self._connection = kept or _taken_from(pool)
        #: A class of the application's own is left as it is, and cannot be kept at hand.
        self._keeps = isinstance(pool, PunctualPool) and isinstance(self._connection, Punctual)
        self._is_clean = True

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._is_clean and self._keeps:
            self._pool.keep(self._connection)
            return
        try:
            if not self._is_clean:
                self._connection.disconnect()  # the rest of the replies is nobody's
        finally:  # also if a timeout of gevent comes in between
            self._pool.release(self._connection)

    def send(self, packed: Iterable[bytes]) -> None:
        self._is_clean = False
        self._connection.send_packed_command(packed)

    def replies(self, count: int) -> list[Any]:
        if self._keeps:
            at_once: list[Any] | None = self._connection.read(count)
            if at_once is not None:
                self._is_clean = True
                return at_once
            self._keeps = False
        found = [_reply(self._connection) for _ in range(count)]
        # A master that has been demoted is no use any more.
        self._is_clean = not (found and isinstance(found[0], redis.ReadOnlyError))
        return found


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error


def _taken_from(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 wants a command
        return pool.get_connection("_")
