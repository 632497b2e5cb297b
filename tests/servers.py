"""Real servers for one test each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

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
