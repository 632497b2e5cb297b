"""Takes an id out of a map, as when a person is erased; its offset goes to nobody else.

The map enters a state that no process has seen. Whoever has looked the id up before, and is about
to give it an offset, is refused, and has to look it up again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis

from ..trip import node_of
from .index import buckets, entry, nobody, offset_in, stored, without
from .keys import BLOCK, MapKeys
from .known import State


def retire(client: Any, keys: MapKeys, id_: str, offset: int | None) -> bool:
    """Forget that `id_` has `offset`, and the states in which it had: no process relies on them.

    :param offset: None: it has none; the states are forgotten all the same.
    :returns: False if it has another one; nothing is changed then.
    :raises redis.RedisError: if the server does not answer.
    """
    _, digest = entry(stored(id_))
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.index)
                (text,) = pipe.execute_command("HMGET", keys.index, "state", NEVER_DECODE=True)
                if text is None:
                    return offset is None
                size = State.of(text).size
                (bucket,) = buckets([digest], size)
                (records,) = pipe.execute_command("HMGET", keys.index, bucket, NEVER_DECODE=True)
                if offset_in(records or b"", digest) != offset:
                    return False
                changed: dict[int | str, bytes] = {}
                pipe.multi()
                if offset is not None:
                    pipe.lset(keys.block(offset), offset % BLOCK, nobody(offset))
                    changed[bucket] = without(records, digest)
                _enter_new_state(pipe, keys, size, changed)
                pipe.execute()
                return True


def renew(client: Any, keys: MapKeys) -> None:
    """Forget the states in which the map has been, so that whoever knows ids looks them up again.

    :raises redis.RedisError: if the server does not answer.
    """
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.index)
                (text,) = pipe.execute_command("HMGET", keys.index, "state", NEVER_DECODE=True)
                if text is None:
                    return
                pipe.multi()
                _enter_new_state(pipe, keys, State.of(text).size, {})
                pipe.execute()
                return


def _enter_new_state(pipe: Any, keys: MapKeys, size: int, changed: dict[int | str, bytes]) -> None:
    """Queue that the map with `size` ids enters a state that no process has seen.

    :param changed: buckets that change with it.
    """
    state = State.new(size)
    pipe.hdel(keys.index, *State.fields())
    pipe.hset(keys.index, "state", state.text, {**changed, state.field: state.text})
