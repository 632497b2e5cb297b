"""Trips to a cluster: to all nodes at once, each with the commands whose keys it holds.

redis-py's own pipeline takes three times the CPU, and sleeps for a quarter of a second when a slot
is not served, whatever the time that the call has left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    MovedError,
    NoPermissionError,
    RedisClusterException,
    TryAgainError,
)

from .deadline import time_left
from .resp import packed_once
from .wire import Wire

#: Where the first key of a command stands, if it is not the second word.
_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "BITOP": 2, "MEMORY": 2}
#: How often commands follow slots that have moved.
_REDIRECTIONS = 16
#: Seconds between two attempts at keys that are just moving.
_PAUSE = 0.01
_ASKING = packed_once("ASKING")


#: By node of a cluster: its slots, and those that are being moved from or to it.
Slots = Mapping[str, tuple[object, Sequence[object]]]


def slots_of(client: Any) -> Slots:
    """Where the slots are; {} if `client` is none of a cluster, or may not ask.

    A SCAN of all nodes misses a key that goes to a node which has been scanned, so whoever has to
    find each asks before and after: see `have_moved`.

    :raises redis.RedisError: if a node does not answer.
    """
    if not isinstance(client, RedisCluster):
        return {}
    try:
        told = client.execute_command("CLUSTER NODES", target_nodes=RedisCluster.PRIMARIES)
    except NoPermissionError:
        return {}
    return {name: _own_slots(nodes) for name, nodes in told.items()}


def _own_slots(nodes: Mapping[str, Mapping[str, Any]]) -> tuple[object, Sequence[object]]:
    own = next(node for node in nodes.values() if "myself" in node["flags"])
    return own["slots"], own["migrations"]


def have_moved(before: Slots, after: Slots) -> bool:
    """Whether any slots have moved since `before`, or are moving."""
    return before != after or any(moving for _, moving in after.values())


#: A node by its name, and whether the slot is about to become its own.
_Target = tuple[str, bool]


class Cluster(RedisCluster):
    """redis-py's client of a cluster, and trips."""

    #: Whether nodes may serve other slots than this client knows.
    _is_outdated = False

    def trip(self, commands: Sequence[tuple[Any, ...]], packed: Sequence[bytes]) -> list[Any]:
        """The replies to `commands`, in order; an error reply is one of them.

        :param commands: at least the command and its keys.
        :param packed: the bytes of each.
        :raises redis.RedisError: if a node does not answer, or nobody serves a slot.
        """
        if self._is_outdated:
            self._look_up()
        found: list[Any] = [None] * len(commands)
        asked = self._by_node(commands)
        for _ in range(_REDIRECTIONS):
            self._go(packed, asked, found)
            asked = self._redirected(asked, found)
            if not asked:
                break
        return found

    def _by_node(self, commands: Sequence[tuple[Any, ...]]) -> dict[_Target, list[int]]:
        """The places of `commands`, by the node that is to get them."""
        asked: dict[_Target, list[int]] = {}
        nodes = self.nodes_manager
        for place, command in enumerate(commands):
            key = command[_KEY_AT.get(command[0], 1)]
            slot = key_slot(key.encode())
            try:
                node = nodes.get_node_from_slot(slot)
            except RedisClusterException as error:  # not a RedisError
                self._is_outdated = True
                raise redis.ConnectionError(f"no node serves the slot of {key}") from error
            asked.setdefault((node.name, False), []).append(place)
        return asked

    def _go(
        self,
        packed: Sequence[bytes],
        asked: Mapping[_Target, Sequence[int]],
        found: list[Any],
    ) -> None:
        """Send the commands at the places `asked`, and put their replies into `found`."""
        name = ""
        try:
            with ExitStack() as wires:
                sent = []
                for (name, asking), places in asked.items():
                    wire = wires.enter_context(Wire(self._pool(name)))
                    begin = _ASKING if asking else b""
                    wire.send([b"".join(begin + packed[place] for place in places)])
                    sent.append((name, wire, 1 + asking, places))
                for name, wire, step, places in sent:  # noqa: B007 - for the fault's sake
                    replies = wire.replies(step * len(places))[step - 1 :: step]
                    for place, reply in zip(places, replies, strict=True):
                        found[place] = reply
        except (redis.ConnectionError, redis.TimeoutError):
            self._suspect(name)
            raise

    def _redirected(
        self, asked: Mapping[_Target, Sequence[int]], found: Sequence[Any]
    ) -> dict[_Target, list[int]]:
        """Which of the commands at the places `asked` are to be sent again, and where."""
        again: dict[_Target, list[int]] = {}
        waits = False
        for target, places in asked.items():
            for place in places:
                reply = found[place]
                if isinstance(reply, MovedError):
                    self._is_outdated = True
                    to = (self._name(reply), False)
                elif isinstance(reply, AskError):
                    to = (self._name(reply), True)
                elif isinstance(reply, TryAgainError):
                    to, waits = target, True
                else:
                    continue
                again.setdefault(to, []).append(place)
        if waits:
            time.sleep(time_left(_PAUSE) or 0)
        return again

    def _name(self, redirection: AskError) -> str:
        """The name of the node to which a reply points."""
        host, port = redirection.host, redirection.port
        if (remap := self.nodes_manager.address_remap) is not None:
            host, port = remap((host, port))
        node = self.nodes_manager.get_node(host=host, port=port)
        if node is None:  # it has just joined
            self._look_up()
            node = self.nodes_manager.get_node(host=host, port=port)
        if node is None:
            raise redis.ConnectionError(f"{host}:{port}, to which a slot has moved, is not known")
        return str(node.name)

    def _pool(self, name: str) -> Any:
        node = self.nodes_manager.get_node(node_name=name)
        if node is None:
            raise redis.ConnectionError(f"{name} has left the cluster")
        return self.get_redis_connection(node).connection_pool

    def _suspect(self, name: str) -> None:
        """A node failed: another one is to say, next time, who serves what."""
        self._is_outdated = True
        startup = self.nodes_manager.startup_nodes
        if len(startup) > 1:
            startup.pop(name, None)

    def _look_up(self) -> None:
        """Ask the cluster which nodes serve which slots."""
        try:
            self.nodes_manager.initialize()
        except RedisClusterException as error:  # not a RedisError
            raise redis.ConnectionError(str(error)) from error
        self._is_outdated = False
