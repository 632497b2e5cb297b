"""Real servers besides the run's own: one that dies, clusters, a Sentinel."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis as redis_py

from flask_bitmapist.embedded import find_binary

DAY = "trackist_e_2026-3-14"


class MortalServer:
    """A real server that a test can kill and start again, with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/server.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        options = {
            "port": "0",
            "unixsocket": f"{self.folder}/server.sock",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [find_binary(), *arguments, *more], stdout=subprocess.DEVNULL
        )
        with redis_py.Redis.from_url(self.url) as client:
            eventually(lambda: answers(client))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ids(self, key: str = DAY) -> list[int]:
        with redis_py.Redis.from_url(self.url) as client:
            return [offset for offset in range(5_000) if client.getbit(key, offset)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def cluster(folder: Path, size: int) -> Iterator[str]:
    """The URL of one of a cluster's `size` nodes. A node takes two seconds to become writable."""
    ports = [free_port() for _ in range(size)]
    nodes = []
    for port in ports:
        home = folder / str(port)
        home.mkdir()
        options = {
            "port": str(port),
            "cluster-port": str(free_port()),
            "cluster-enabled": "yes",
            "dir": str(home),
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        command = [find_binary(), *arguments]
        nodes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    clients = [redis_py.Redis(port=port) for port in ports]
    try:
        eventually(lambda: all(answers(client) for client in clients))
        bounds = [16384 * index // size for index in range(size + 1)]
        for client, first, last in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            bus = _bus_of(clients[0])
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus)
        eventually(lambda: all(_knows_all(client, size) for client in clients))
        yield f"redis://127.0.0.1:{ports[-1]}"
    finally:
        for client in clients:
            client.close()
        for node in nodes:
            node.kill()
            node.wait()


def _bus_of(client: Any) -> int:
    return int(client.config_get("cluster-port")["cluster-port"])


def _knows_all(client: Any, size: int) -> bool:
    info = client.cluster("info")
    state, known = info["cluster_state"], int(info["cluster_known_nodes"])
    return state == "ok" and known == size


@contextmanager
def sentinel(folder: Path, name: str, master_port: int) -> Iterator[int]:
    """The port of a Sentinel that watches a master under `name`."""
    port = free_port()
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nsentinel monitor {name} 127.0.0.1 {master_port} 1\ndir {folder}\n"
    )
    command = [find_binary(), str(configuration), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis_py.Redis(port=port) as client:
            eventually(lambda: answers(client))
        yield port
    finally:
        process.kill()
        process.wait()


def answers(client: redis_py.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis_py.RedisError:
        return False


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds, as long as a slow machine may need."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
