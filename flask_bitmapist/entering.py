"""How new names are entered in the registry: by one script, where the server runs scripts.

A command for each takes the server twice as long. For the first ones it takes ten times as long:
as long as a hash has few fields, it is searched from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

import redis

from .scripts import Script

# In slices of 1000: Lua's unpack() stops near 8000 values.
_ENTER = Script("""
local kinds, copies, first_days, calendar = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local zone, kind, day, left = ARGV[1], ARGV[2], ARGV[3], {}
for first = 4, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  local held = redis.call('HMGET', kinds, unpack(ARGV, first, last))
  local copied = redis.call('HMGET', copies, unpack(ARGV, first, last))
  local fields, scores = {}, {}
  for i = first, last do
    local name, n = ARGV[i], #fields
    if held[i - first + 1] or copied[i - first + 1] then
      left[#left + 1] = name
    else
      fields[n + 1], fields[n + 2] = name, kind
      scores[n + 1], scores[n + 2] = day, name
    end
  end
  if #fields > 0 then
    redis.call('HSET', kinds, unpack(fields))
    redis.call('HSET', copies, unpack(fields))
    if day ~= '' then redis.call('ZADD', first_days, 'LT', unpack(scores)) end
  end
end
redis.call('SET', calendar, zone, 'NX')
return left
""")


class Keys(NamedTuple):
    """Those of the registry."""

    kinds: str
    copies: str
    first_days: str
    calendar: str


def enter_new(
    client: Any, keys: Keys, zone: str, kinds: Mapping[str, str], days: Mapping[str, date]
) -> set[str]:
    """Enter those of `kinds` of which the server knows nothing, with their first days.

    :param zone: the time zone in which days begin.
    :returns: their names. Of a cluster, whose nodes have one key each, and of a server that runs no
        scripts: none.
    :raises redis.RedisError: if the server does not answer.
    """
    if not kinds or not isinstance(client, redis.Redis):
        return set()
    alike: dict[tuple[str, date | None], list[str]] = {}
    for name, kind in kinds.items():
        alike.setdefault((kind, days.get(name)), []).append(name)
    rest = [
        (len(keys), *keys, zone, kind, "" if day is None else day.toordinal(), *names)
        for (kind, day), names in alike.items()
    ]
    try:
        told = _ENTER.replies(client, rest)
    except redis.ResponseError:
        return set()
    return kinds.keys() - {name.decode() for left in told for name in left}
