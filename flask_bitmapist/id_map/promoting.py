"""Makes the id of a visitor another name of a user.

The index then gives the user's offset for both, so marks of the visitor that come later are the
user's. What they did before is moved afterwards (`flask_bitmapist.maintenance.promote`). A visitor
becomes one user, for good.

No process remembers the offset of a visitor. Between its looking it up and writing the bit somebody
may promote the visitor: that changes `PROMOTIONS`, which the trip that writes compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

import redis

from ..ids import VISITOR
from ..trip import node_of, replies
from .index import buckets, entry, nobody, offset_in, stored, with_record, without
from .keys import BLOCK, MapKeys
from .known import State

_T = TypeVar("_T")

#: The field of the index that changes with each promotion.
PROMOTIONS = "promotions"
#: Visitors that are read in one step.
_STEP = 1_000


class Move(NamedTuple):
    """The bits of a visitor that are to become the user's."""

    source: int
    target: int
    #: The number of the first day of which there may be some.
    since: int
    #: When it began, in seconds since the epoch.
    began: int

    @classmethod
    def loads(cls, held: bytes) -> Move:
        """What ``json.dumps`` made of it."""
        return cls(*json.loads(held))


def is_visitor(id_: str) -> bool:
    """Whether `id_` is that of a visitor, who may become a user."""
    return id_.startswith(VISITOR)


def promote(
    client: Any, keys: MapKeys, visitor: str, user: str, since: int, began: int
) -> str | None:
    """Make `visitor` another name of `user`, whose offset the map has, unless they are one already.

    :param since: as `Move.since`; likewise `began`.
    :returns: whose name it is now; None: the map has no offset for `user`.
    :raises redis.RedisError: if the server does not answer.
    """
    digests = [entry(stored(id_))[1] for id_ in (visitor, user)]

    def plan(pipe: Any) -> str | None:
        held, (text,) = replies(
            pipe, [("HGET", keys.promoted, visitor), ("HMGET", keys.index, "state")]
        )
        if held is not None:
            return str(held, "utf-8")
        if text is None:
            return None
        records, places = records_of(pipe, keys, State.of(text).size, digests)
        source, target = (
            offset_in(records[place], digest) for place, digest in zip(places, digests, strict=True)
        )
        if target is None:
            return None
        pipe.multi()
        if source is not None:
            pipe.lset(keys.block(source), source % BLOCK, nobody(source))
            pipe.hset(keys.moving, visitor, json.dumps(Move(source, target, since, began)))
        changed = with_record(without(records[places[0]], digests[0]), digests[0], target)
        pipe.hset(keys.index, mapping={places[0]: changed, PROMOTIONS: token_hex(6)})
        pipe.hset(keys.promoted, visitor, user)
        return user

    return _watching(client, keys, plan)


def restore(client: Any, keys: MapKeys, size: int) -> None:
    """Enter what is `promoted` in an index that has been made anew, and has `size` ids."""
    for part in _parts(_scanned(client, keys.promoted), _STEP):
        pairs = [
            [entry(stored(str(name, "utf-8")))[1] for name in (visitor, user)]
            for visitor, user in part
        ]

        def plan(pipe: Any, pairs: list[list[bytes]] = pairs) -> None:
            ((state,),) = replies(pipe, [("HMGET", keys.index, "state")])
            if state is not None:  # another process was faster
                return
            digests = [digest for pair in pairs for digest in pair]
            records, places = records_of(pipe, keys, size, digests)
            changed: dict[int, bytes] = {}
            for number, (visitor, user) in enumerate(pairs):
                place, of_user = places[2 * number], places[2 * number + 1]
                target = offset_in(records[of_user], user)
                if target is not None:
                    without_it = without(records[place], visitor)
                    changed[place] = records[place] = with_record(without_it, visitor, target)
            pipe.multi()
            if changed:
                pipe.hset(keys.index, mapping=changed)

        _watching(client, keys, plan)


def user_of(client: Any, keys: MapKeys, id_: str) -> str:
    """The user that `id_` has become, or `id_` itself."""
    if not is_visitor(id_):
        return id_
    (held,) = replies(client, [("HGET", keys.promoted, id_)])
    return id_ if held is None else str(held, "utf-8")


def moves(client: Any, keys: MapKeys) -> dict[str, Move]:
    """What is still to be moved, by visitor."""
    return {str(key, "utf-8"): Move.loads(held) for key, held in _scanned(client, keys.moving)}


def take_over(
    client: Any, keys: MapKeys, users: Mapping[str, str], left: Mapping[str, Move], since: int
) -> None:
    """Promote visitors as another map with the same offsets has. What is left can be moved later.

    :param users: what each of them has become there.
    :param left: what is still to be moved there.
    :param since: as `Move.since`.
    """
    for visitor, user in users.items():
        promote(client, keys, visitor, user, since, 0)
    for visitor, move in left.items():
        client.hsetnx(keys.moving, visitor, json.dumps(move))


def users_of(client: Any, keys: MapKeys) -> dict[str, str]:
    """What each visitor has become."""
    return {str(name, "utf-8"): str(of, "utf-8") for name, of in _scanned(client, keys.promoted)}


def forget(client: Any, keys: MapKeys, visitors: Iterable[str]) -> None:
    """Forget that `visitors` have become somebody."""
    for part in _parts(visitors, _STEP):
        client.hdel(keys.moving, *part)
        client.hdel(keys.promoted, *part)


def _watching(client: Any, keys: MapKeys, plan: Callable[[Any], _T]) -> _T:
    """What `plan` returns, once what it has queued was done; it begins anew if the map changes."""
    while True:
        with suppress(redis.WatchError), node_of(client, keys.index).pipeline() as pipe:
            pipe.watch(keys.index, keys.promoted)
            planned = plan(pipe)
            pipe.execute()
            return planned


def records_of(
    pipe: Any, keys: MapKeys, size: int, digests: list[bytes]
) -> tuple[dict[int, bytes], list[int]]:
    """The buckets in which `digests` belong, by number, and the number of each."""
    places = [*buckets(digests, size)]
    distinct = [*dict.fromkeys(places)]
    (held,) = replies(pipe, [("HMGET", keys.index, *distinct)])
    return {place: part or b"" for place, part in zip(distinct, held, strict=True)}, places


def _scanned(client: Any, key: str) -> Iterator[tuple[bytes, bytes]]:
    """The fields and values of a hash, some of them twice (HSCAN)."""
    cursor: Any = 0
    while True:
        ((cursor, found),) = replies(client, [("HSCAN", key, cursor, "COUNT", _STEP)])
        # redis-py's own pipelines have made a dict of it.
        pairs = (
            found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        )
        yield from pairs
        if not int(cursor):
            return


def _parts(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    listed = [*items]
    return (listed[first : first + size] for first in range(0, len(listed), size))
