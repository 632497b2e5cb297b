"""Redis clients made from the connection settings of other clients.

redis-py 7 and 8 retry by themselves, with pauses: a refused port or a silent server costs seconds.
No request can wait that long.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from .cluster import Cluster
from .punctual import PunctualPool, punctual
from .refusals import UnfitServerError

#: redis-py 5 retries in the client of a cluster and in each connection. Once is enough: a cluster
#: whose nodes have changed is looked up again in between.
_CLUSTER_RETRIES = 0 if redis.__version__.startswith("5.") else 1
#: Connections in a pool by default, and at most.
_CONNECTIONS, _MOST_CONNECTIONS = 100, 1_000
#: Options whose value is text, or prefixes of their names. redis-py passes on any other option it
#: does not know as text too, even where a number or an object is needed: redis-py 8 then fails at
#: the first command.
_TEXTS = (
    "client_name",
    "decode_responses",
    "encoding",
    "host",
    "lib_",
    "password",
    "path",
    "protocol",
    "ssl_",
    "username",
)
#: What a pool itself adds to the settings of its connections.
_OF_POOL = ("connection_pool", "himport_registry", "maint_notifications", "orig_")
#: The settings that all nodes of a cluster can share, apart from TLS.
_OF_CLUSTER = (
    "client_name",
    "credential_provider",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "password",
    "protocol",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "username",
)


def once() -> Retry:
    """A retry policy that does not retry."""
    return Retry(NoBackoff(), 0)


def quick_of(client: Any, timeout: float) -> Any:
    """A client like `client` that waits at most `timeout` seconds and does not retry.

    Returns `client` itself if its class is not redis-py's own: there is no telling what it
    overrides.
    """
    if type(client) is RedisCluster:
        return _quick_cluster(client, timeout)
    if type(client) is not redis.Redis:
        return client
    pool = client.connection_pool
    settings = {
        **_settings(pool),
        **_waits(pool.connection_kwargs, timeout),
        "retry": once(),
        "retry_on_error": [],
        "retry_on_timeout": False,
    }
    if isinstance(pool, SentinelConnectionPool):
        settings["connection_class"] = punctual(pool.connection_class)
        return redis.Redis(connection_pool=_sentinel_pool(pool, timeout, settings))
    return redis.Redis(
        connection_pool=blocking_pool(timeout, pool.max_connections, settings, PunctualPool)
    )


def disconnect(client: Any) -> None:
    """Close the connections of `client`, those to the Sentinels that it asks too."""
    if not isinstance(client, redis.Redis):
        client.close()
        return
    pool: Any = client.connection_pool
    pool.disconnect()  # close() leaves a pool that it was given
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            sentinel.connection_pool.disconnect()


def is_pool_exhausted(error: Exception) -> bool:
    """Whether `error` says that all connections are in use. redis-py 5 has no class for it."""
    return isinstance(error, redis.ConnectionError) and str(error) in (
        "Too many connections",
        "No connection available.",
    )


def uncached(client: Any) -> Any:
    """`client`, or one like it without redis-py's client-side cache.

    The cache rejects commands whose keys it is not told, and would answer in place of a pipeline.
    """
    pool: Any = getattr(client, "connection_pool", None)
    if getattr(pool, "cache", None) is None:
        return client
    return redis.Redis(
        connection_pool=redis.ConnectionPool(
            max_connections=pool.max_connections, **_settings(pool)
        )
    )


def in_resp2(client: Any) -> Any:
    """`client`, or one like it that speaks RESP2, as redis-py did by default before version 8."""
    if type(client) is not redis.Redis:
        return client
    settings = {**_settings(client.connection_pool), "protocol": 2}
    return redis.Redis(connection_pool=redis.ConnectionPool(**settings))


def blocking_pool(
    timeout: float,
    connections: int,
    settings: Mapping[str, Any],
    kind: type[redis.BlockingConnectionPool] = redis.BlockingConnectionPool,
) -> redis.BlockingConnectionPool:
    """A pool whose users wait up to `timeout` seconds for a free connection.

    redis-py's own pool fails at once when no connection is left, as if the server were down.
    """
    # The queue is filled at creation, and redis-py 5 has no limit unless given one.
    return kind(
        **{"timeout": timeout, "max_connections": min(connections, _MOST_CONNECTIONS), **settings}
    )


def from_url(url: str, *, wait: float, timeout: float, is_punctual: bool = True) -> redis.Redis:
    """A client of the server at `url` that does not retry. It does not connect yet.

    :param wait: seconds for a reply.
    :param timeout: seconds to wait for a free connection, or to open one.
    :param is_punctual: keep the deadline of a call.
    :raises ValueError: naming ``BITMAPIST_REDIS_URL``, if an option is wrong.
    """
    try:
        settings = {"socket_timeout": wait, "socket_connect_timeout": timeout, "retry": once()}
        kind = PunctualPool if is_punctual else redis.BlockingConnectionPool
        pool = blocking_pool(timeout, _CONNECTIONS, settings | _options(url), kind)
        # The first mark will make a connection the same way. The pool's make_connection() would
        # count this one as the pool's.
        pool.connection_class(**pool.connection_kwargs)
    except (AttributeError, TypeError, ValueError, redis.RedisError) as error:
        raise ValueError(f"BITMAPIST_REDIS_URL has a wrong option: {error}") from None
    return redis.Redis(connection_pool=pool)


def _options(url: str) -> dict[str, Any]:
    """What `url` says, by redis-py's names."""
    options: dict[str, Any] = dict(parse_url(url))
    for name, value in options.items():
        text = isinstance(value, str)
        if name == "retry_on_error" or (text and not name.startswith(_TEXTS)):
            raise ValueError(f"{name}={value} cannot be said in a URL: pass a redis_client")
    if options.get("max_connections") == 0:
        raise ValueError("max_connections must be 1 or more")
    return options


def _settings(pool: Any) -> dict[str, Any]:
    """The settings with which `pool` makes a connection."""
    given = pool.connection_kwargs.items()
    own = {name: value for name, value in given if not name.startswith(_OF_POOL)}
    return {"connection_class": pool.connection_class, **own}


def _waits(settings: Mapping[str, Any], timeout: float) -> dict[str, float]:
    """The timeouts in `settings`, capped at `timeout` seconds."""
    names = ("socket_timeout", "socket_connect_timeout")
    return {name: min(settings.get(name) or timeout, timeout) for name in names}


def _sentinel_pool(pool: Any, timeout: float, settings: Mapping[str, Any]) -> Any:
    sentinels = copy.copy(pool.sentinel_manager)
    sentinels.sentinels = [quick_of(one, timeout) for one in sentinels.sentinels]
    return SentinelConnectionPool(
        pool.service_name,
        sentinels,
        is_master=pool.is_master,
        check_connection=pool.check_connection,
        **settings,
    )


def cluster_of(client: redis.Redis, timeout: float) -> Cluster:
    """A client that follows the slots of the cluster that `client` reached through one node.

    :param timeout: seconds to wait for a connection, if `client` does not say.
    :raises redis.RedisError: if the cluster does not answer, or cannot be reached this way.
    """
    return _cluster(*_nodes_and_settings(client, timeout))


def _nodes_and_settings(
    client: redis.Redis, timeout: float
) -> tuple[list[ClusterNode], dict[str, Any]]:
    pool = client.connection_pool
    settings = pool.connection_kwargs
    if not settings.get("host"):
        raise UnfitServerError(
            "the server is a cluster, which is reached by host and port alone: set "
            "BITMAPIST_REDIS_URL to redis://, or pass redis_client=RedisCluster(...)"
        )
    secure = issubclass(pool.connection_class, redis.SSLConnection)
    shared = {"socket_connect_timeout": timeout, **_shared(settings), "ssl": secure}
    return [ClusterNode(settings["host"], settings.get("port", 6379))], shared


def _quick_cluster(client: RedisCluster, timeout: float) -> Cluster:
    nodes = client.nodes_manager
    settings = nodes.connection_kwargs
    shared = {
        **_shared(settings),
        **_waits(settings, timeout),
        "ssl": settings.get("ssl", False) or _is_secure(settings),
        "address_remap": nodes.address_remap,
        "redis_connect_func": client.user_on_connect_func,
    }
    startup = [ClusterNode(node.host, node.port) for node in nodes.startup_nodes.values()]
    return _punctual_cluster(startup, shared, timeout)


def quick_cluster_of(client: redis.Redis, timeout: float) -> Cluster:
    """As `cluster_of`, but it also keeps the deadline of a call."""
    return _punctual_cluster(*_nodes_and_settings(client, timeout), timeout)


def _is_secure(settings: Mapping[str, Any]) -> bool:
    """Whether the pools of a cluster's nodes use TLS, as those that a URL describes."""
    return issubclass(settings.get("connection_class", redis.Connection), redis.SSLConnection)


def _punctual_cluster(
    nodes: list[ClusterNode], settings: Mapping[str, Any], timeout: float
) -> Cluster:
    first = nodes[0]
    host = f"[{first.host}]" if ":" in first.host else first.host
    scheme = "rediss" if settings["ssl"] else "redis"
    # With a URL alone, redis-py makes the nodes' pools as it is told.
    pools = {
        "url": f"{scheme}://{host}:{first.port}",
        "connection_pool_class": partial(PunctualPool, timeout=timeout),
        "max_connections": _CONNECTIONS,
    }
    others = {name: value for name, value in settings.items() if name != "ssl"}
    return _cluster(nodes, {**others, **pools})


def _cluster(nodes: list[ClusterNode], settings: Mapping[str, Any]) -> Cluster:
    try:
        cluster = Cluster(
            startup_nodes=nodes, retry=Retry(NoBackoff(), _CLUSTER_RETRIES), **settings
        )
    except RedisClusterException as error:  # not a RedisError
        raise redis.ConnectionError(str(error)) from error
    vars(cluster)["cluster_error_retry_attempts"] = 1  # redis-py 5; later versions use `retry`
    return cluster


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = (name for name in settings if name in _OF_CLUSTER or name.startswith("ssl_"))
    return {name: settings[name] for name in names}
