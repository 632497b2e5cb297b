"""Completes a map: begins it, takes over one of an earlier build, or mends its index.

It works in steps of one `BLOCK` each. It can be stopped at any moment, and any number of processes
may do it at once: a step counts only if nobody else has made it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from ..trip import node_of, replies
from .assigning import BUILT, build
from .faults import DamagedMapError, IncompleteMapError
from .index import Entry, entry, nobody, stored
from .keys import BLOCK, MapKeys
from .known import State
from .promoting import restore

#: Blocks that are looked for behind the last one.
_BLOCKS = 1024
#: How earlier builds wrote that an id has been erased.
_ERASED = b"\xff"
#: How many keys of an earlier build are replaced by one of another type.
_KEYS_REPLACED = 2


def complete(client: Any, keys: MapKeys, at_first: Callable[[], None]) -> None:
    """Make the index of a map complete.

    :param at_first: called if the map has no ids. It may raise.
    :raises DamagedMapError: if that cannot be done.
    """
    refused, overtaken = None, 0
    while True:
        state, built = replies(client, [("HMGET", keys.index, "state", BUILT)])[0]
        if state is not None:
            return
        begun = int(built or 0)
        if begun == refused:
            raise DamagedMapError(f"{keys.index} and {keys.order} do not fit together")
        try:
            _refuse_earlier_builds(client, keys)
            entries, to_order = _next_entries(client, keys, begun)
        except redis.ResponseError as error:
            # Another process has replaced a key of the earlier build between two commands.
            overtaken += 1
            if "WRONGTYPE" not in str(error) or overtaken > _KEYS_REPLACED:
                raise
            continue
        if entries:
            if built is None:
                client.hsetnx(keys.index, BUILT, 0)
            refused = None if build(client, keys, entries, begun, to_order=to_order) else begun
        else:
            _finish(client, keys, begun, at_first)


def is_begun(client: Any, keys: MapKeys) -> bool:
    """Whether a map whose index is not complete has any ids."""
    asked = ("EXISTS", keys.index), ("EXISTS", keys.block(0)), ("TYPE", keys.order)
    *held, form = replies(client, asked)
    return any(held) or form == b"list"


def check_complete(client: Any, keys: MapKeys) -> None:
    """Check that a map has all its ids in its index, or none at all.

    :raises IncompleteMapError: otherwise, as while it is taken over from an earlier build.
    """
    (state,) = replies(client, [("HGET", keys.index, "state")])
    if state is None and is_begun(client, keys):
        raise IncompleteMapError(keys.index)


def _refuse_earlier_builds(client: Any, keys: MapKeys) -> None:
    """Make processes of earlier builds fail, so that they give out no more offsets.

    :raises DamagedMapError: if their map is damaged.
    """
    with node_of(client, keys.former).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.former, keys.order)
                form = pipe.execute_command("TYPE", keys.former, NEVER_DECODE=True)
                if form == b"string":
                    return
                if form == b"hash" and pipe.hlen(keys.former) != pipe.llen(keys.order):
                    raise DamagedMapError(f"{keys.former} and {keys.order} differ in length")
                pipe.multi()
                pipe.unlink(keys.former)
                pipe.set(keys.former, _moved(keys))
                pipe.execute()
                return


def _next_entries(client: Any, keys: MapKeys, begun: int) -> tuple[list[Entry], bool]:
    """The ids that are next in the index, and whether they have yet to join the order."""
    asked = ("LRANGE", keys.block(begun), begun % BLOCK, -1), ("TYPE", keys.order)
    ids, form = replies(client, asked)
    if ids or form != b"list":
        return [*map(entry, ids)], False
    (texts,) = replies(client, [("LRANGE", keys.order, begun, begun + BLOCK - 1)])
    return [entry(_taken_over(text, offset)) for offset, text in enumerate(texts, begun)], True


def _taken_over(text: bytes, offset: int) -> bytes:
    """The stored form of what an earlier build had at `offset`."""
    return nobody(offset) if text.startswith(_ERASED) else stored(text.decode())


def _finish(client: Any, keys: MapKeys, size: int, at_first: Callable[[], None]) -> None:
    first = size // BLOCK + 1
    later = (keys.block(number * BLOCK) for number in range(first, first + _BLOCKS))
    are_later, is_finished = replies(client, [("EXISTS", *later), ("HEXISTS", keys.index, "state")])
    if is_finished:
        return
    if are_later:
        raise DamagedMapError(f"{keys.block(size)} is gone or too short")
    if not size:
        at_first()
    restore(client, keys, size)
    state = State.new(size)
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        pipe.unlink(keys.order)
        pipe.set(keys.order, _moved(keys))
        pipe.hsetnx(keys.index, "state", state.text)
        pipe.hsetnx(keys.index, state.field, state.text)
        pipe.hdel(keys.index, BUILT)
        pipe.execute()


def _moved(keys: MapKeys) -> str:
    """What the keys of an earlier build hold now, for whoever looks into its errors."""
    return f"moved to {keys.index}: stop the processes that run an earlier Flask-Bitmapist"
