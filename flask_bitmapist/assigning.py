"""How ids get the next free offsets of their map, even when many processes assign at once.

Each batch is one script where the server runs scripts, else a transaction that starts over when
another process was faster. The list is the counter: its length is the next offset. Nothing is ever
popped, so no offset is given out twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import redis
from redis.exceptions import NoScriptError

from .trip import node_of, replies

# Slices of 4000: Lua's unpack() stops near 8000 values. A server that evicts keys may have lost the
# list or the hash: each can be rebuilt from the other.
_ASSIGN = """
local known, order, assigned = KEYS[1], KEYS[2], {}
local length, held_ids = redis.call('LLEN', order), redis.call('HLEN', known)
if length == 0 and held_ids > 0 then
  local all, ids = redis.call('HGETALL', known), {}
  for i = 1, #all, 2 do ids[tonumber(all[i + 1]) + 1] = all[i] end
  for first = 1, #ids, 4000 do
    redis.call('RPUSH', order, unpack(ids, first, math.min(first + 3999, #ids)))
  end
elseif held_ids == 0 then
  for first = 0, length - 1, 2000 do
    local pairs_ = {}
    for i, id in ipairs(redis.call('LRANGE', order, first, first + 1999)) do
      pairs_[#pairs_ + 1] = id
      pairs_[#pairs_ + 1] = first + i - 1
    end
    redis.call('HSET', known, unpack(pairs_))
  end
end
if redis.call('LLEN', order) ~= redis.call('HLEN', known) then return false end
for first = 1, #ARGV, 4000 do
  local last = math.min(first + 3999, #ARGV)
  local found = redis.call('HMGET', known, unpack(ARGV, first, last))
  local fresh, pairs_, seen = {}, {}, {}
  local offset = redis.call('LLEN', order)
  for i = first, last do
    local id = ARGV[i]
    local held = found[i - first + 1] or seen[id]
    if not held then
      held = offset
      offset = offset + 1
      seen[id] = held
      fresh[#fresh + 1] = id
      pairs_[#pairs_ + 1] = id
      pairs_[#pairs_ + 1] = held
    end
    assigned[i] = tonumber(held)
  end
  if #fresh > 0 then
    redis.call('RPUSH', order, unpack(fresh))
    for p = 1, #pairs_, 4000 do
      redis.call('HSET', known, unpack(pairs_, p, math.min(p + 3999, #pairs_)))
    end
  end
end
return assigned
"""

_SHA = sha1(_ASSIGN.encode(), usedforsecurity=False).hexdigest()


def assign(client: Any, known: str, order: str, ids: Sequence[str]) -> list[int]:
    """The offset of each of `ids`, new ones among them.

    :param known: key of the hash that maps id to offset.
    :param order: key of the list of ids in the order of their offsets, in the same cluster slot.
    :param ids: without repetitions.
    :raises redis.RedisError: if the server does not answer, or the map is damaged.
    """
    try:
        offsets = _assign_by_script(client, known, order, ids)
    except redis.ResponseError:
        # Do not go by the error's text: servers without scripts, servers that forbid them, and
        # proxies all word it differently. Any other fault will show up in the transaction too.
        offsets = _assign_in_transaction(client, known, order, ids)
    if offsets is None:
        raise redis.ResponseError(
            f"the id map is damaged: {known} and {order} differ in length, so that new ids would "
            "get the bits of others; restore both"
        )
    return [int(offset) for offset in offsets]


def _assign_by_script(client: Any, known: str, order: str, ids: Sequence[str]) -> Any:
    rest = (2, known, order, *ids)
    try:
        (offsets,) = replies(client, [("EVALSHA", _SHA, *rest)])
    except NoScriptError:
        # Not SCRIPT LOAD: of a cluster whose nodes have changed, another one would get it.
        (offsets,) = replies(client, [("EVAL", _ASSIGN, *rest)])
    return offsets


def _assign_in_transaction(
    client: Any, known: str, order: str, ids: Sequence[str]
) -> list[int] | None:
    """Like the script, but without rebuilding an evicted list or hash from the other."""
    # In redis-py 5 a cluster client has no WATCH.
    with node_of(client, known).pipeline(transaction=True) as pipe:
        while True:
            try:
                pipe.watch(known, order)
                length, held_ids = pipe.llen(order), pipe.hlen(known)
                found = dict(zip(ids, pipe.hmget(known, list(ids)), strict=True))
                fresh = [id_ for id_, offset in found.items() if offset is None]
                offsets = dict(zip(fresh, range(length, length + len(fresh)), strict=True))
                pipe.multi()
                if length != held_ids:
                    pipe.llen(order)  # an error unless both were read in the same state
                elif fresh:
                    pipe.rpush(order, *fresh)
                    pipe.hset(known, mapping=offsets)
                pipe.execute()
            except redis.WatchError:
                continue
            return [*(found | offsets).values()] if length == held_ids else None
