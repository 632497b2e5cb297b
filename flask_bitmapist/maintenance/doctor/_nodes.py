"""What each node of a server says of itself, as far as its user may ask."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import redis


class Node(NamedTuple):
    """One node: a server has one, a cluster one for each master."""

    address: str
    #: Its ``INFO``; {} if that may not be asked.
    info: Mapping[str, Any]
    #: What ``CONFIG GET`` tells of `_ASKED`.
    config: Mapping[str, str]
    #: Seconds by which its clock is ahead, and by how much that may be wrong; None: not told.
    skew: tuple[float, float] | None

    @property
    def hidden(self) -> list[str]:
        """The commands that its user may not use."""
        seen = {"INFO": self.info, "CONFIG GET": self.config, "TIME": self.skew is not None}
        return [command for command, told in seen.items() if not told]


_ASKED = ("save", "proto-max-bulk-len")


def ask(client: Any) -> list[Node]:
    """The nodes of `client`: two round trips each.

    :raises redis.RedisError: if one does not answer.
    """
    return [_ask(address, one) for address, one in _each(client)]


def _each(client: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(client, redis.RedisCluster):
        for node in client.get_primaries():
            yield f"{node.host}:{node.port}", client.get_redis_connection(node)
    else:
        yield address_of(client), client


def _ask(address: str, client: Any) -> Node:
    pipe = client.pipeline(transaction=False)
    pipe.info()
    for name in _ASKED:
        pipe.config_get(name)
    info, *settings = pipe.execute(raise_on_error=False)
    config: dict[str, str] = {}
    for told in settings:
        if not isinstance(told, Exception):
            config |= told
    before = time.time()
    try:
        seconds, microseconds = client.time()
        skew = skewed(before, seconds + microseconds / 1e6, time.time())
    except redis.ResponseError:
        skew = None
    return Node(address, {} if isinstance(info, Exception) else info, config, skew)


def skewed(before: float, told: float, after: float) -> tuple[float, float]:
    """By how many seconds a clock that `told` the time is ahead, and how inexact that is.

    :param before: our time when it was asked.
    :param after: our time when it had replied.
    """
    inexact = (after - before) / 2
    return told - (before + inexact), inexact


def address_of(client: Any) -> str:
    """Where `client` leads, without user and password."""
    if nodes := getattr(client, "nodes_manager", None):
        known = [*nodes.nodes_cache.values()] or [*nodes.startup_nodes.values()]
        first = min(f"{node.host}:{node.port}" for node in known)
        return f"the cluster of {first}"
    pool: Any = getattr(client, "connection_pool", None)
    if service := getattr(pool, "service_name", None):
        return f"Sentinel's {service!r}"
    options = getattr(pool, "connection_kwargs", {})
    database = options.get("db") or 0
    if path := options.get("path"):
        return f"unix://{path}?db={database}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{database}"
