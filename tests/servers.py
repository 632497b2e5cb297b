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
            return sorted(marked(client, key))


def marked(client: Any, key: str = DAY) -> set[int]:
    """The offsets of the bits of `key`."""
    bits = client.get(key) or b""
    return {
        index * 8 + bit for index, byte in enumerate(bits) for bit in range(8) if byte & 128 >> bit
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


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
