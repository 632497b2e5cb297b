"""How ids get the next free offsets of their map, even when many processes assign at once.

Each batch is one script where the server runs scripts, else a transaction that starts over when
another process was faster. No offset is given out twice: who is erased leaves a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, groupby
from secrets import token_hex
from typing import Any, NamedTuple, cast

import redis

from ..scripts import Script
from ..trip import node_of
from .faults import DamagedMapError, HistoryChangedError
from .index import DIGEST, LOAD, RECORD, Entry, GrowingIndex
from .keys import BLOCK, MapKeys
from .known import STATES, State

#: The field of the index that counts its ids while it lacks any.
BUILT = "built"


class Assigned(NamedTuple):
    """The offsets that ids have got, in order, and the state of the map then."""

    offsets: list[int]
    state: State


# As `GrowingIndex` does it. In slices of 4000: Lua's unpack() stops near 8000 values.
_ASSIGN = Script(
    f"""
local BLOCK, LOAD, DIGEST, RECORD, STATES = {BLOCK}, {LOAD}, {DIGEST}, {RECORD}, {STATES}
"""
    + """
local index, order = KEYS[1], KEYS[2]
local since, since_field, token = ARGV[1], ARGV[2], ARGV[3]
local built, to_order = tonumber(ARGV[4]), ARGV[5] == '1'
local state, size = '', nil
if built then
  local states = redis.call('HMGET', index, 'built', 'state')
  size = tonumber(states[1] or '')
  if size ~= built or states[2] then return {} end
else
  local states = redis.call('HMGET', index, 'state', since_field)
  if states[2] ~= since then return {} end
  state = states[1]
  size = tonumber(string.match(state, '%d+'))
end
local last_block = math.floor(size / BLOCK)
if to_order and (redis.call('LLEN', order .. ':' .. last_block) ~= size % BLOCK
    or last_block > 0 and redis.call('LLEN', order .. ':' .. (last_block - 1)) ~= BLOCK) then
  return false
end

local held, changed, count, half, span = {}, {}, 0, 1, 1
local function count_buckets()
  count = math.floor(size / LOAD) + 1
  while span < count do half, span = span, span * 2 end
end
local function bucket_of(digest)
  local a, b, c, d = string.byte(digest, 1, 4)
  local bucket = (((a * 256 + b) * 256 + c) * 256 + d) % span
  if bucket >= count then return bucket - half end
  return bucket
end
local function fetch(buckets)
  for first = 1, #buckets, 4000 do
    local last = math.min(first + 3999, #buckets)
    local found = redis.call('HMGET', index, unpack(buckets, first, last))
    for i = first, last do held[buckets[i]] = found[i - first + 1] or '' end
  end
end
local function offset_in(records, digest)
  local at = string.find(records, digest, 1, true)
  while at and (at - 1) % RECORD ~= 0 do at = string.find(records, digest, at + 1, true) end
  if not at then return nil end
  local a, b, c, d = string.byte(records, at + DIGEST, at + RECORD - 1)
  return ((a * 256 + b) * 256 + c) * 256 + d
end
local function split()
  local source, stays, goes = count - 1 - half, {}, {}
  if not held[source] then fetch({source}) end
  local records = held[source]
  for first = 1, #records, RECORD do
    local record = string.sub(records, first, first + RECORD - 1)
    local part = bucket_of(record) == source and stays or goes
    part[#part + 1] = record
  end
  held[source], held[count - 1] = table.concat(stays), table.concat(goes)
  changed[source], changed[count - 1] = true, true
end

count_buckets()
local buckets, seen = {}, {}
for i = 7, #ARGV, 2 do
  local bucket = bucket_of(ARGV[i])
  if not seen[bucket] then
    seen[bucket] = true
    buckets[#buckets + 1] = bucket
  end
end
fetch(buckets)
local offsets, fresh, begun = {}, {}, size
for i = 7, #ARGV, 2 do
  local digest = ARGV[i]
  local bucket = bucket_of(digest)
  local offset = offset_in(held[bucket], digest)
  if not offset then
    offset = size
    local a, b = math.floor(offset / 16777216), math.floor(offset / 65536) % 256
    local number = string.char(a, b, math.floor(offset / 256) % 256, offset % 256)
    held[bucket] = held[bucket] .. digest .. number
    changed[bucket] = true
    fresh[#fresh + 1] = ARGV[i - 1]
    size = size + 1
    if size % LOAD == 0 then
      count_buckets()
      split()
    end
  end
  offsets[#offsets + 1] = offset
end
if built and #fresh < #offsets then return {} end
local first = 1
while to_order and first <= #fresh do
  local offset = begun + first - 1
  local last = math.min(#fresh, first + math.min(BLOCK - offset % BLOCK, 4000) - 1)
  redis.call('RPUSH', order .. ':' .. math.floor(offset / BLOCK), unpack(fresh, first, last))
  first = last + 1
end
if #fresh > 0 then
  local fields = {'built', size}
  if not built then
    state = size .. ':' .. token
    fields = {'state', state, 'state' .. size % STATES, state}
  end
  for bucket in pairs(changed) do
    fields[#fields + 1] = bucket
    fields[#fields + 1] = held[bucket]
  end
  for p = 1, #fields, 4000 do
    redis.call('HSET', index, unpack(fields, p, math.min(p + 3999, #fields)))
  end
end
table.insert(offsets, 1, state)
return offsets
"""
)


def assign(client: Any, keys: MapKeys, entries: Sequence[Entry], since: State) -> Assigned:
    """Give each of `entries` the offset that it has, or else the next one.

    :param entries: without repetitions.
    :param since: a state that the map has been in.
    :raises HistoryChangedError: if it has not.
    :raises DamagedMapError: if new ids might get the bits of others.
    :raises redis.RedisError: if the server does not answer.
    """
    told = _added(client, keys, entries, _How(since))
    if told is None:
        raise DamagedMapError(
            f"{keys.index} and {keys.order}:... differ in length, so that new ids would get the "
            "bits of others"
        )
    if not told:
        raise HistoryChangedError
    state, *offsets = told
    return Assigned([*map(int, offsets)], State.of(state))


def build(
    client: Any, keys: MapKeys, entries: Sequence[Entry], size: int, *, to_order: bool
) -> bool:
    """Give `entries`, all of which are new, the next offsets of a map that is not complete.

    :param size: how many ids it has so far.
    :param to_order: False: they stand in the order already, and join the index alone.
    :returns: False if it has another size, or any of `entries`; nothing is changed then.
    :raises redis.RedisError: if the server does not answer.
    """
    return bool(_added(client, keys, entries, _How(None, size, to_order)))


class _How(NamedTuple):
    since: State | None
    built: int = 0
    to_order: bool = True


#: A state and offsets; empty if the map is not as expected; None if it is damaged.
_Told = list[Any] | None


def _added(client: Any, keys: MapKeys, entries: Sequence[Entry], how: _How) -> _Told:
    try:
        return _add_by_script(client, keys, entries, how)
    except redis.ResponseError:
        # Any other fault than that of a server without scripts will show in the transaction too.
        return _add_in_transaction(client, keys, entries, how)


def _add_by_script(client: Any, keys: MapKeys, entries: Sequence[Entry], how: _How) -> _Told:
    since = ("", "") if how.since is None else (how.since.text, how.since.field)
    built = how.built if how.since is None else ""
    options = (*since, token_hex(6), built, int(how.to_order))
    rest = (2, keys.index, keys.order, *options, *chain.from_iterable(entries))
    (told,) = _ASSIGN.replies(client, [rest])
    return cast(_Told, told)


def _add_in_transaction(client: Any, keys: MapKeys, entries: Sequence[Entry], how: _How) -> _Told:
    # In redis-py 5 a cluster client has no WATCH.
    with node_of(client, keys.index).pipeline(transaction=True) as pipe:
        while True:
            with suppress(redis.WatchError):
                pipe.watch(keys.index)
                told, writes = _planned(pipe, keys, entries, how)
                pipe.multi()
                # An error unless all was read in the same state.
                for write in writes or [("EXISTS", keys.index)]:
                    pipe.execute_command(*write)
                pipe.execute()
                return told


def _planned(
    pipe: Any, keys: MapKeys, entries: Sequence[Entry], how: _How
) -> tuple[_Told, list[tuple[Any, ...]]]:
    """What the script would return, and the commands that do what it would do."""
    if how.since is None:
        told, state = pipe.hmget(keys.index, BUILT, "state")
        size = -1 if told is None else int(told)
        if size != how.built or state is not None:
            return [], []
        state = b""
    else:
        state, since = _bytes(pipe, "HMGET", keys.index, "state", how.since.field)
        if since != how.since.text:
            return [], []
        size = State.of(state).size
    if how.to_order and not _is_in_step(pipe, keys, size):
        return None, []
    index = _growing(pipe, keys, size, entries)
    offsets, fresh = index.take(entries)
    if how.since is None and len(fresh) < len(entries):
        return [], []
    if not fresh:
        return [state, *offsets], []
    writes: list[tuple[Any, ...]] = []
    if how.to_order:
        for number, part in groupby(enumerate(fresh, size), lambda place: place[0] // BLOCK):
            writes.append(("RPUSH", keys.block(number * BLOCK), *(id_ for _, id_ in part)))
    fields: dict[str | int, object] = {BUILT: index.size}
    if how.since is not None:
        now = State.new(index.size)
        state = now.text
        fields = {"state": state, now.field: state}
    pairs = ((field, value) for field, value in (fields | index.changed).items())
    writes.append(("HSET", keys.index, *chain.from_iterable(pairs)))
    return [state, *offsets], writes


def _growing(pipe: Any, keys: MapKeys, size: int, entries: Sequence[Entry]) -> GrowingIndex:
    affected = sorted(GrowingIndex.affected((digest for _, digest in entries), size))
    held = _bytes(pipe, "HMGET", keys.index, *affected)
    parts = zip(affected, held, strict=True)
    return GrowingIndex(size, {number: part for number, part in parts if part})


def _is_in_step(pipe: Any, keys: MapKeys, size: int) -> bool:
    """Whether the order has `size` ids."""
    before = size - BLOCK
    return bool(
        pipe.llen(keys.block(size)) == size % BLOCK
        and (before < 0 or pipe.llen(keys.block(before)) == BLOCK)
    )


def _bytes(pipe: Any, *command: object) -> Any:
    return pipe.execute_command(*command, NEVER_DECODE=True)
