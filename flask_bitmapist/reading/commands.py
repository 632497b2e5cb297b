"""One or a few commands in one round trip, at the price of the trip.

With the server on the same machine, redis-py's pipeline takes half as long again as one command:
too much to find out beside each bit what its event's ids are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis


def replies(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The undecoded replies to `commands`, which only read.

    :param client: any redis-py compatible client.
    :raises redis.RedisError: if the server does not answer, or refuses one of them.
    """
    if isinstance(client, redis.Redis):
        # The pipeline reconnects and retries as the client is configured to.
        with suppress(redis.ConnectionError, AttributeError, TypeError):
            return _straight(client.connection_pool, commands)
    pipe = client.pipeline(transaction=False)
    for command in commands:
        # A client made with decode_responses=True would take a bitmap for UTF-8 text, and fail.
        pipe.execute_command(*command, NEVER_DECODE=True)
    found: list[Any] = pipe.execute()
    return found


def _straight(pool: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    connection = _taken_from(pool)
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [connection.read_response(disable_decoding=True) for _ in commands]
    except BaseException:
        connection.disconnect()  # the rest of the replies is nobody's
        raise
    finally:
        pool.release(connection)


def _taken_from(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 wants a command
        return pool.get_connection("_")
