"""Real servers that work together: a master and its replica under a Sentinel, and clusters."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import redis as redis_py
from redis.sentinel import Sentinel
from servers import answers, eventually

from flask_bitmapist.embedded import find_binary
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)
#: Milliseconds. A busy machine may keep a node waiting for long.
NODE_TIMEOUT = 2000


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


class Node:
    """A server on a port of its own, without persistence unless its options say so."""

    def __init__(self, folder: Path, port: int, options: Mapping[str, object]) -> None:
        self.port = port
        self.folder = folder / str(port)
        self.folder.mkdir()
        self._options = {"port": port, "bind": "127.0.0.1", "dir": self.folder, "save": ""}
        self._options |= options
        self._process: subprocess.Popen[bytes] | None = None
        #: For the test's own commands.
        self.client: Any = redis_py.Redis(port=port)

    def start(self, *more: str) -> None:
        words = [
            word for name, value in self._options.items() for word in (f"--{name}", str(value))
        ]
        self._process = subprocess.Popen(
            [find_binary(), *words, *more], stdout=subprocess.DEVNULL, cwd=self.folder
        )
        eventually(lambda: answers(self.client))

    def freeze(self) -> None:
        """It keeps its connections, and says nothing."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def replication(self, field: str) -> Any:
        return self.client.info("replication").get(field)


class Marking:
    """A thread that marks one id after the other."""

    def __init__(self, tracker: Tracker, event: str = "e") -> None:
        self.made = 0
        self._tracker = tracker
        self._event = event
        self._stops = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Marking:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stops = True
        self._thread.join()

    def makes(self, count: int) -> None:
        """Wait until it has made so many more."""
        before = self.made
        eventually(lambda: self.made >= before + count)

    def _run(self) -> None:
        while not self._stops:
            self._tracker.record([(self._event, self.made, True, True, NOON)])
            self.made += 1
            time.sleep(0.0005)


class Pair:
    """A master and a replica, which a Sentinel knows as `ours`."""

    def __init__(self, first: Node, second: Node, sentinel_port: int) -> None:
        self.nodes = [first, second]
        self.sentinel: Any = redis_py.Redis(port=sentinel_port, decode_responses=True)
        self.sentinels = Sentinel([("127.0.0.1", sentinel_port)], socket_timeout=5)

    def hurry(self) -> None:
        """Let the Sentinel look at the servers ten times as often as it usually does."""
        periods = {"info-period": 1000, "ping-period": 100, "min-link-reconnect-period": 1000}
        words = [word for name, value in periods.items() for word in (name, value)]
        self.sentinel.execute_command("SENTINEL DEBUG", *words)

    @property
    def master(self) -> Node:
        # Unlike redis-py's discover_master, this needs no master that is well.
        _, port = self.sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "ours")
        return next(node for node in self.nodes if node.port == int(port))

    @property
    def replica(self) -> Node:
        return next(node for node in self.nodes if node is not self.master)

    def settle(self) -> None:
        """Wait until the Sentinel has a replica, which is up to date, for the next failover."""
        eventually(lambda: self.sentinels.discover_slaves("ours"))
        eventually(lambda: self.replica.replication("master_link_status") == "up")

    def fail_over(self) -> None:
        """The planned kind, which both survive; returns when the Sentinel names the new master."""
        before = self.master
        eventually(lambda: self._starts_failover())
        eventually(lambda: self.master is not before)

    def _starts_failover(self) -> bool:
        try:
            return bool(self.sentinel.execute_command("SENTINEL", "FAILOVER", "ours"))
        except redis_py.ResponseError:  # NOGOODSLAVE, or one is under way
            return False


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    master_port, replica_port, port = free_ports(3)
    configuration = folder / "sentinel.conf"
    told = f"""
        port {port}
        dir {folder}
        sentinel monitor ours 127.0.0.1 {master_port} 1
        sentinel down-after-milliseconds ours 500
        sentinel failover-timeout ours 2000
    """
    configuration.write_text("\n".join(line.strip() for line in told.splitlines()))
    master = Node(folder, master_port, {})
    replica = Node(folder, replica_port, {"replicaof": f"127.0.0.1 {master_port}"})
    sentinel = None
    try:
        master.start()
        replica.start()
        sentinel = subprocess.Popen(
            [find_binary(), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL
        )
        both = Pair(master, replica, port)
        eventually(lambda: answers(both.sentinel))
        both.hurry()
        both.settle()
        yield both
        both.sentinel.close()
        for one in both.sentinels.sentinels:
            one.close()
    finally:
        if sentinel is not None:
            sentinel.kill()
            sentinel.wait()
        for node in (master, replica):
            node.thaw()
            node.kill()


class Cluster:
    """Nodes of a cluster: first those that were made masters, then their replicas in turn."""

    def __init__(self, nodes: Sequence[Node], masters: int) -> None:
        self.nodes = nodes
        self._masters = masters
        self.url = f"redis://127.0.0.1:{nodes[0].port}"

    def create(self) -> None:
        clients = [node.client for node in self.nodes]
        bounds = [16384 * index // self._masters for index in range(self._masters + 1)]
        for client, first, last in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        bus = clients[0].config_get("cluster-port")["cluster-port"]
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, bus)
        eventually(lambda: all(self._knows_all(client) for client in clients))
        for number, client in enumerate(clients[self._masters :]):
            master = clients[number % self._masters].execute_command("CLUSTER", "MYID").decode()
            client.execute_command("CLUSTER", "REPLICATE", master)
        self.settle()

    def settle(self) -> None:
        """Wait until all is well: all slots are served, and each replica is up to date."""
        try:
            eventually(lambda: all(self._is_well(node) for node in self.nodes))
        except AssertionError as error:
            for node in self.nodes:
                error.add_note(f"{node.port}: {node.client.execute_command('CLUSTER NODES')}")
            raise

    def miss_after(self, milliseconds: int) -> None:
        """How long a node may be silent before its replica takes over."""
        for node in self.nodes:
            with suppress(redis_py.ConnectionError):  # a dead one begins anew
                node.client.config_set("cluster-node-timeout", milliseconds)

    def wait_for_replicas(self) -> None:
        """Wait until each replica has what its master has."""
        for master in self.masters:
            told = master.replication("master_repl_offset")
            heard = partial(self.replica_of(master).replication, "slave_repl_offset")
            eventually(lambda told=told, heard=heard: heard() >= told)  # type: ignore[misc]

    def owner(self, slot: int) -> Node:
        """The master that serves `slot`."""
        for first, last, (_, port, *_), *_ in self._slots():
            if first <= slot <= last:
                return self.at(port)
        raise LookupError(slot)

    def replica_of(self, master: Node) -> Node:
        # Those that CLUSTER SLOTS leaves out, too: see `_all_have_replicas`.
        for node in self.nodes:
            if (
                node.replication("role") == "slave"
                and node.replication("master_port") == master.port
            ):
                return node
        raise LookupError(master.port)

    @property
    def masters(self) -> list[Node]:
        return [self.at(master[1]) for _, _, master, *_ in self._slots()]

    def begin_move(self, slot: int, giver: Node, taker: Node) -> None:
        """Both know of the move; a key is where it was until it has been moved."""
        ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in (giver, taker)]
        taker.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        giver.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        self._move_keys(slot, giver, taker)

    def end_move(self, slot: int, giver: Node, taker: Node) -> None:
        self._move_keys(slot, giver, taker)
        id_ = taker.client.execute_command("CLUSTER", "MYID").decode()
        for node in (taker, giver, *self.masters):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", id_)

    @staticmethod
    def _move_keys(slot: int, giver: Node, taker: Node) -> None:
        for key in giver.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
            giver.client.execute_command("MIGRATE", "127.0.0.1", taker.port, key, 0, 5_000)

    def fail_over(self, master: Node) -> None:
        """The planned kind, in which `master` hands over to its replica."""
        replica = self.replica_of(master)
        replica.client.execute_command("CLUSTER FAILOVER")
        eventually(lambda: replica.replication("role") == "master")
        eventually(lambda: master.replication("role") == "slave")

    def _slots(self) -> Any:
        for node in self.nodes:
            with suppress(redis_py.RedisError):
                return node.client.execute_command("CLUSTER SLOTS", NEVER_DECODE=True)
        raise LookupError("no node answers")

    def at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def _knows_all(self, client: Any) -> bool:
        info = client.cluster("info")
        known = int(info["cluster_known_nodes"])
        return info["cluster_state"] == "ok" and known == len(self.nodes)

    def _is_well(self, node: Node) -> bool:
        if node.replication("role") == "slave" and node.replication("master_link_status") != "up":
            return False
        return self._knows_all(node.client) and self._all_have_replicas(node)

    def _all_have_replicas(self, node: Node) -> bool:
        wanted = len(self.nodes) - self._masters
        lines = node.client.execute_command("CLUSTER NODES")
        # CLUSTER SLOTS leaves out a replica that has just become one.
        slots = node.client.execute_command("CLUSTER SLOTS", NEVER_DECODE=True)
        listed = {replica[1] for _, _, _, *replicas in slots for replica in replicas}
        return sum("slave" in str(line) for line in lines.values()) == len(listed) == wanted


@contextmanager
def cluster(folder: Path, masters: int = 3, replicas: int = 0) -> Iterator[Cluster]:
    """A cluster of `masters`, with `replicas` in all."""
    ports = free_ports(2 * (masters + replicas))
    options = {"cluster-enabled": "yes", "cluster-node-timeout": NODE_TIMEOUT}
    nodes = [
        Node(folder, port, {**options, "cluster-port": bus})
        for port, bus in zip(ports[::2], ports[1::2], strict=True)
    ]
    try:
        for node in nodes:
            node.start()
        made = Cluster(nodes, masters)
        made.create()
        yield made
    finally:
        for node in nodes:
            node.thaw()
            node.kill()
