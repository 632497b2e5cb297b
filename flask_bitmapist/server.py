"""Which server an application talks to: its clients, and its facts, asked at the first contact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

from .clients import (
    cluster_of,
    disconnect,
    from_url,
    in_resp2,
    quick_cluster_of,
    quick_of,
    uncached,
)
from .config import Settings
from .refusals import SERVER_ERRORS, UnfitServerError, is_about_hello, need_of, refusal

#: Seconds that a report or a bulk write may take.
_PATIENCE = 30.0

#: The first release with ``ZADD LT``.
_OLDEST = (6, 2)
#: Servers by the field of INFO that holds their version. They all also claim to be a Redis of some
#: version, which says little about what they can do.
_VERSIONS = {
    "valkey_version": "Valkey",
    "garnet_version": "Garnet",
    "dragonfly_version": "Dragonfly",
    "kvrocks_version": "Kvrocks",
    "redis_version": "Redis",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself."""

    #: ``Redis``, ``Valkey``, ...; ``the server`` if it does not say.
    name: str = "the server"
    #: Its version; () if it does not say.
    version: tuple[int, ...] = ()
    is_cluster: bool = False
    #: Its ``maxmemory-policy``; '' if it does not say.
    eviction: str = ""

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}".strip()

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Facts:
        """Read the reply of ``INFO``."""
        field = next((field for field in _VERSIONS if field in info), "")
        return cls(
            _VERSIONS.get(field, "the server"),
            _numbers(str(info.get(field, ""))),
            bool(info.get("cluster_enabled")),
            str(info.get("maxmemory_policy", "")),
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


_BITMAPIST_SERVER = Facts("bitmapist-server")


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica from which reports are read: what it has not heard yet is missing in them."""

    #: Whether it is connected to its master.
    connected: bool
    #: Seconds since it heard from it: with little to tell, a master speaks every ten seconds.
    silent_seconds: int

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Replica | None:
        """Read the reply of ``INFO replication``; None if it comes from a master."""
        if info.get("role") != "slave":
            return None
        connected = info.get("master_link_status") == "up"
        field = "master_last_io_seconds_ago" if connected else "master_link_down_since_seconds"
        return cls(connected, max(0, int(info.get(field, 0))))

    def __str__(self) -> str:
        if self.connected:
            return f"read from a replica, which heard from its master {self._ago}"
        told = f"read from a replica that lost its master {self._ago}"
        return f"{told}: what was marked since is missing"

    @property
    def _ago(self) -> str:
        seconds = self.silent_seconds
        return "just now" if not seconds else f"{seconds} second{'s' * (seconds > 1)} ago"


class Server:
    """The server of one application.

    The first use of `quick` or `patient` asks it what it is: one round trip a process.
    """

    def __init__(
        self,
        client: Any,
        quick: Callable[[Any], Any],
        timeout: float,
        *,
        may_be_cluster: bool,
        read_client: Any = None,
        is_given: bool = False,
    ) -> None:
        """
        :param client: redis client for bulk writes and reports.
        :param quick: makes a client for marking from it.
        :param timeout: how long marking waits, in seconds.
        :param may_be_cluster: reports must also find out what the server is first: `client` may be
            unable to read from it.
        :param read_client: redis client for reports alone, of a replica; None: as `client`.
        :param is_given: whether `client` is the application's own, as `read_client` always is.
        """
        #: The client as given or configured. Using it asks the server nothing first.
        self.client = client
        self._make_quick = quick
        #: Seconds that a call may wait for the server.
        self.timeout = timeout
        self._may_be_cluster = may_be_cluster
        self._is_given = is_given
        self._read_client = None if read_client is None else uncached(read_client)
        self._quick: Any = None
        self._pool: Any = None
        self._facts: Facts | None = None
        self._cluster: tuple[Any, Any] | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        instance_path: str = "",
        given: Any = None,
        read_client: Any = None,
    ) -> Server:
        """The server that `settings` name, or that the client `given` leads to.

        :param read_client: leads to a replica of it, for reports.

        :raises ValueError: naming ``BITMAPIST_REDIS_URL``, if one of its options is wrong.
        """
        timeout = settings.timeout
        if given is not None:
            # The caller who made the client knows the server; the client's user may not be allowed
            # INFO.
            make = partial(quick_of, timeout=timeout)
            client = uncached(given)
            return cls(
                client,
                make,
                timeout,
                may_be_cluster=False,
                read_client=read_client,
                is_given=client is given,
            )
        parts = urlsplit(settings.redis_url)
        if parts.scheme == "embedded":
            from .embedded import connect

            folder = Path(parts.path or Path(instance_path) / "bitmapist")
            quick = connect(folder, socket_timeout=timeout, is_punctual=True)
            patient = connect(folder, socket_timeout=_PATIENCE)
            return cls(
                patient, lambda _: quick, timeout, may_be_cluster=False, read_client=read_client
            )
        url = settings.redis_url
        quick = from_url(url, wait=timeout, timeout=timeout)
        wait = max(_PATIENCE, timeout)
        patient = from_url(url, wait=wait, timeout=timeout, is_punctual=False)
        return cls(
            patient,
            lambda _: quick,
            timeout,
            may_be_cluster=parts.scheme != "unix",
            read_client=read_client,
        )

    @property
    def quick(self) -> Any:
        """The redis client for marking.

        :raises redis.RedisError: if the server does not answer.
        :raises UnfitServerError: if it cannot hold the data.
        """
        return self._of_cluster()[0] if self.facts.is_cluster else self._plain_quick()

    @property
    def patient(self) -> Any:
        """The redis client for bulk writes and reports.

        :raises UnfitServerError: as `quick`. If the server does not answer, this is the client as
            given, whose commands will fail.
        """
        if not self._may_be_cluster and self._facts is None:
            return self.client
        try:
            return self._of_cluster()[1] if self.facts.is_cluster else self.client
        except UnfitServerError:
            raise
        except SERVER_ERRORS:
            return self.client

    @property
    def reading(self) -> Any:
        """The redis client for reports. Errors are those of `patient`."""
        return self.patient if self._read_client is None else self._read_client

    def check_reading(self) -> None:
        """See whether reports can be read at all: errors are those of `facts`.

        A replica is not asked: it serves as long as it can, with or without its master.
        """
        if self._read_client is None:
            _ = self.facts

    def replica(self) -> Replica | None:
        """The replica from which reports are read; None: there is none, or it does not say."""
        client = self._read_client
        if client is None or isinstance(client, redis.RedisCluster):
            return None
        try:
            return Replica.of(client.info("replication"))
        except SERVER_ERRORS:
            return None

    def with_replica(self, told: Any) -> Any:
        """`told`, a report as a dict, with what is known of the replica it was read from."""
        replica = self.replica()
        if replica is None or not isinstance(told, dict):
            return told
        return {**told, "replica": asdict(replica)}

    @property
    def facts(self) -> Facts:
        """What the server is. Errors are those of `quick`."""
        facts = self._facts
        if facts is None:
            facts = _asked(self._plain_quick())
            _check(facts)
            # Ask an unfit server each time: another may have replaced it unnoticed.
            self._facts = facts
        return facts

    @property
    def name(self) -> str:
        """The server's name for messages. Asks nothing."""
        return str(self._facts or Facts())

    def explain(self, error: Exception) -> str | None:
        """A sentence on why the server did not take a command; None if it did not answer."""
        if need_of(error) is None:
            return None
        try:
            return refusal(error, self.facts)
        except UnfitServerError as unfit:
            return str(unfit)
        except SERVER_ERRORS:
            return refusal(error, self.name)

    def forget(self) -> None:
        """The connection broke: another server, or a newer one, may answer next."""
        self._facts = None

    def close(self) -> None:
        """Close the connections of all clients but given ones. Whoever uses one opens new ones."""
        for client in (self.client, self._quick, *(self._cluster or ())):
            if client is not None and not (self._is_given and client is self.client):
                disconnect(client)

    def _plain_quick(self) -> Any:
        pool = getattr(self.client, "connection_pool", None)
        if self._quick is None or pool is not self._pool:
            self._quick, self._pool = self._make_quick(self.client), pool
        return self._quick

    def _of_cluster(self) -> tuple[Any, Any]:
        """Clients that follow a cluster's slots, if the given one does not."""
        if not isinstance(self.client, redis.Redis):
            return self._plain_quick(), self.client
        if self._cluster is None:
            quick = quick_cluster_of(self._plain_quick(), self.timeout)
            self._cluster = quick, cluster_of(self.client, self.timeout)
        return self._cluster


def _asked(client: Any) -> Facts:
    """What the server behind `client` says about itself.

    :raises redis.RedisError: if it does not answer, or only for now refuses to.
    """
    try:
        return Facts.of(client.info())
    except redis.ResponseError as error:
        if need_of(error) is None:
            raise
        if _is_bitmapist_server(client):
            return _BITMAPIST_SERVER
        if is_about_hello(error):
            raise
        return Facts()  # INFO is hidden or missing


def _is_bitmapist_server(client: Any) -> bool:
    """Whether it is Doist's server, which has no HELLO, and whose INFO takes one argument."""
    try:
        return "keys_total" in in_resp2(client).info("keys")
    except redis.ResponseError:
        return False


def _check(facts: Facts) -> None:
    """:raises UnfitServerError: if a server of these `facts` cannot hold the data."""
    if facts == _BITMAPIST_SERVER:
        raise UnfitServerError(
            "BITMAPIST_REDIS_URL leads to bitmapist-server, which lacks commands that "
            "Flask-Bitmapist needs (BITFIELD, GETRANGE, HMGET): use Redis 6.2 or newer, or Valkey, "
            "and bring its data over as the documentation's page on migrating says"
        )
    if facts.name == "Redis" and facts.version and facts.version < _OLDEST:
        raise UnfitServerError(
            f"BITMAPIST_REDIS_URL leads to {facts}, which is too old: use Redis 6.2 or newer, or "
            "Valkey"
        )
