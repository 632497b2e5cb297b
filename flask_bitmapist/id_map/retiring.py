"""Takes an id out of a map, as when a person is erased; its offset goes to nobody else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis

from ..trip import node_of
from .index import buckets, entry, nobody, offset_in, stored, without
from .keys import BLOCK, MapKeys
from .known import State


def retire(client: Any, keys: MapKeys, id_: str, offset: int) -> None:
    """Forget that `id_` has `offset`, and the states in which it had: no process relies on them.

    :raises redis.RedisError: if the server does not answer.
    """
    _, digest = entry(stored(id_))
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.index)
                (text,) = pipe.execute_command("HMGET", keys.index, "state", NEVER_DECODE=True)
                if text is None:
                    return
                size = State.of(text).size
                (bucket,) = buckets([digest], size)
                (records,) = pipe.execute_command("HMGET", keys.index, bucket, NEVER_DECODE=True)
                if offset_in(records, digest) != offset:
                    return
                state = State.new(size)
                pipe.multi()
                pipe.lset(keys.block(offset), offset % BLOCK, nobody(offset))
                pipe.hdel(keys.index, *State.fields())
                changed = {bucket: without(records, digest), state.field: state.text}
                pipe.hset(keys.index, "state", state.text, changed)
                pipe.execute()
                return
