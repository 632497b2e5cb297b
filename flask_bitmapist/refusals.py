"""What a server's error means for a command: not now, or never."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import RedisClusterException

#: What redis-py raises when a server cannot be used. `RedisClusterException`, for a cluster that
#: cannot be reached, is not a `RedisError`.
SERVER_ERRORS = (redis.RedisError, RedisClusterException)

_NEWER = "it needs Redis 6.2 or newer, or Valkey, with no command hidden by a proxy or renamed"
_CLUSTER = "the server is a cluster: pass redis_client=RedisCluster(...)"
_PASSWORD = "set the right user and password in BITMAPIST_REDIS_URL, or in the client"
_OTHER = "a key that it uses holds something else: rename or delete it"
_SMALLER = "the id is beyond what the server stores: see its proto-max-bulk-len"
#: Part of an error's text, and what would make the server take the command. All other errors
#: mean 'not now': the server is busy, full, loading or failing over.
_NEEDS = {
    "unknown command": _NEWER,
    "unsupported command": _NEWER,  # Envoy's Redis proxy
    "unknown subcommand": _NEWER,
    "syntax error": _NEWER,
    "wrong number of arguments": _NEWER,
    "Unsupported option": _NEWER,  # Redis 6, of EXPIREAT NX
    "permissions": "grant the user +@read +@write +@scripting +@transaction on trackist_* and "
    "flask_bitmapist:*",
    "CROSSSLOT": _CLUSTER,
    "MOVED": _CLUSTER,
    "WRONGTYPE": _OTHER,
    "bit offset": _SMALLER,
    "string exceeds": _SMALLER,
    "value is not": _OTHER,
    "invalid expire": "BITMAPIST_TTL gives a moment that the server cannot store",
    "has lost which kind of ids": "see that maxmemory-policy is noeviction",
    "id map is damaged": "restore all keys of the map from a backup",
    "id map is not complete": "run: flask bitmapist reindex",
}

_NOTE = "in reply to "
#: What redis-py makes of the errors of a pipeline.
_IN_PIPELINE = re.compile(
    r"Command # \d+ \((?P<command>\S+)(?: (?P<key>\S+))?.*?\) of pipeline"
    r" caused error: (?P<text>.*)",
    re.S,
)
_NAMED = re.compile(r"(?:command ['`]|the ')(?P<command>[\w|]+)['`]")
_ARGUMENTS = re.compile(r", with args beginning with: .*", re.S)


class UnfitServerError(redis.ResponseError):
    """A server that cannot hold the data: the message says which one, and what is needed."""


def need_of(error: Exception) -> str | None:
    """What would make the server take the command that it rejected with `error`.

    None if only waiting helps: the same command may work a moment later.
    """
    if isinstance(error, UnfitServerError):
        return str(error)
    if isinstance(error, redis.AuthenticationError):  # which is a ConnectionError
        return _PASSWORD
    if not isinstance(error, redis.ResponseError):
        return None
    if is_about_hello(error):
        return "it speaks RESP2 alone: add ?protocol=2 to BITMAPIST_REDIS_URL, or to the client"
    text = str(error)
    return next((need for part, need in _NEEDS.items() if part in text), None)


def is_about_hello(error: Exception) -> bool:
    """Whether a connection failed because the server lacks HELLO, which redis-py 8 sends first."""
    text = str(error).lower()
    return "unknown command" in text and "hello" in text.partition(", with args")[0]


def note_command(error: Exception, command: Sequence[Any]) -> None:
    """Let `refusal` know that `error` answers `command`."""
    error.add_note(f"{_NOTE}{' '.join(map(str, command[:2]))}")


def refusal(error: Exception, server: object) -> str | None:
    """A sentence on why `server` refuses a command; None if only time is needed."""
    need = need_of(error)
    if need is None or isinstance(error, UnfitServerError):
        return need
    text, command, key = _parts(error)
    if need == _OTHER and key:
        need = f"the key {key!r} holds something else: rename or delete it"
    named = _NAMED.search(text)
    command = (named["command"] if named else command).upper()
    told = _ARGUMENTS.sub("", text).rstrip(".")  # they are others each time, and may name a user
    return f"{server} does not take {command} ({told}): {need}" if command else f"{told}: {need}"


def _parts(error: Exception) -> tuple[str, str, str]:
    """What the server said; the command that it answered, and that one's key, or ''."""
    in_pipeline = _IN_PIPELINE.match(str(error))
    if in_pipeline:
        return in_pipeline["text"], in_pipeline["command"], in_pipeline["key"] or ""
    notes = (note.removeprefix(_NOTE) for note in getattr(error, "__notes__", ()))
    command, _, key = next(notes, "").partition(" ")
    return str(error), command, key
