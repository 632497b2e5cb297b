"""How new names are entered in the registry: by one script, where the server runs scripts.

A command for each takes the server twice as long. For the first ones it takes ten times as long:
as long as a hash has few fields, it is searched from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple

import redis

from .scripts import Script
from .trip import Command, Questions, Trip

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


#: A kind, and a first day -> the names that have both.
_Alike = dict[tuple[str, date | None], list[str]]


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
    alike: _Alike = {}
    for name, kind in kinds.items():
        alike.setdefault((kind, days.get(name)), []).append(name)
    try:
        calls = [(*head, *names) for head, names in _calls(keys, zone, alike)]
        told = _ENTER.replies(client, calls)
    except redis.ResponseError:
        return set()
    return kinds.keys() - _left(told)


class NewNames:
    """Names that the trip enters which writes their first bits, before these."""

    def __init__(self, keys: Keys, zone: str, alike: _Alike) -> None:
        """
        :param zone: as for `enter_new`.
        :param alike: a kind, and a first day -> the names that have both.
        """
        self.kinds: dict[str, str] = {}
        self.days: dict[str, date] = {}
        for (kind, day), names in alike.items():
            self.kinds |= dict.fromkeys(names, kind)
            if day is not None:
                self.days |= dict.fromkeys(names, day)
        self._calls = _calls(keys, zone, alike)

    def enter(self, pipe: Trip) -> None:
        """Queue what enters those of which the server knows nothing; `entered` takes the replies.

        Whether all have their kinds now is for the trip to ask.
        """
        for head, names in self._calls:
            pipe.queue_many(Questions([(*_ENTER.command(is_known=False), *head)], names))

    def entered(self, replies: Iterator[Any]) -> set[str]:
        """The names that were entered.

        :raises redis.ResponseError: if the server runs no scripts.
        """
        told = [next(replies) for _ in self._calls]
        for reply in told:
            if isinstance(reply, Exception):
                raise reply
        return self.kinds.keys() - _left(told)


def _calls(keys: Keys, zone: str, alike: _Alike) -> list[tuple[Command, list[str]]]:
    """The arguments of the script: what comes before names that are alike, and these."""
    return [
        ((len(keys), *keys, zone, kind, "" if day is None else day.toordinal()), names)
        for (kind, day), names in alike.items()
    ]


def _left(told: Iterable[Any]) -> set[str]:
    """The names that were there already, as the script has told."""
    return {name.decode() for left in told for name in left}
