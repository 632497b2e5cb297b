"""Takes ids out of a map, as when people are erased; their offsets go to nobody else.

The map enters a state that no process has seen. Whoever has looked one of the ids up before, and is
about to give it an offset, is refused, and has to look it up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis

from ..trip import node_of
from .index import entry, nobody, offset_in, stored, without
from .keys import BLOCK, MapKeys
from .known import State
from .promoting import records_of


def retire(client: Any, keys: MapKeys, entries: Mapping[str, int | None]) -> set[str]:
    """Forget that ids have offsets, and the states in which they had: no process relies on them.

    :param entries: id -> its offset; None: it has none; the states are forgotten all the same.
    :returns: those that have other ones, and keep them.
    :raises redis.RedisError: if the server does not answer.
    """
    digests = [entry(stored(id_))[1] for id_ in entries]
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.index)
                (text,) = pipe.execute_command("HMGET", keys.index, "state", NEVER_DECODE=True)
                if text is None:
                    return {id_ for id_, offset in entries.items() if offset is not None}
                size = State.of(text).size
                records, places = records_of(pipe, keys, size, digests)
                kept: set[str] = set()
                changed: dict[int | str, bytes] = {}
                pipe.multi()
                for (id_, offset), place, digest in zip(
                    entries.items(), places, digests, strict=True
                ):
                    if offset_in(records[place], digest) != offset:
                        kept.add(id_)
                    elif offset is not None:
                        pipe.lset(keys.block(offset), offset % BLOCK, nobody(offset))
                        changed[place] = records[place] = without(records[place], digest)
                if len(kept) < len(entries):
                    _enter_new_state(pipe, keys, size, changed)
                pipe.execute()
                return kept


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
