"""What a server's error says of a command: not now, or never."""

from __future__ import annotations

import redis
from redis.exceptions import RedisClusterException

#: What redis-py raises when a server cannot be used. `RedisClusterException`, of a cluster that
#: cannot be reached, is no `RedisError`.
SERVER_ERRORS = (redis.RedisError, RedisClusterException)

_NEWER = "it needs Redis 6.2 or newer, or Valkey, with no command hidden by a proxy or renamed"
_CLUSTER = "the server is a cluster: pass redis_client=RedisCluster(...)"
_SMALLER = "the id is beyond what the server stores: see its proto-max-bulk-len"
#: Part of an error's text, and what would make the server take the command. All other errors say
#: 'not now': the server is busy, full, loading or failing over.
_NEEDS = {
    "unknown command": _NEWER,
    "unsupported command": _NEWER,  # Envoy's Redis proxy
    "unknown subcommand": _NEWER,
    "syntax error": _NEWER,
    "wrong number of arguments": _NEWER,
    "Unsupported option": _NEWER,  # Redis 6, of EXPIREAT NX
    "permissions": "grant the user +@read, +@write, +@scripting and the keys that it marks",
    "CROSSSLOT": _CLUSTER,
    "MOVED": _CLUSTER,
    "WRONGTYPE": "a key of this name holds something else: rename or delete it",
    "bit offset": _SMALLER,
    "string exceeds": _SMALLER,
    "value is not": "a key of this name holds something else: rename or delete it",
    "invalid expire": "BITMAPIST_TTL gives a moment that the server cannot store",
    "id map is damaged": "restore both keys of the map from a backup",
}


class UnfitServerError(redis.ResponseError):
    """A server that cannot hold the data: the message says which it is, and what is needed."""


def need_of(error: Exception) -> str | None:
    """What would make the server take the command that it answered with `error`.

    None if only time would: the same command may work a moment later.
    """
    if isinstance(error, UnfitServerError):
        return str(error)
    if not isinstance(error, redis.ResponseError):
        return None
    text = str(error)
    return next((need for part, need in _NEEDS.items() if part in text), None)
