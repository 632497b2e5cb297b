"""What processes do that swap the forms of a bitmap, and are killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

import redis as redis_py
from redis.connection import AbstractConnection

from flask_bitmapist import swapping

#: By name, what swaps the forms of a key.
SWAPS: dict[str, Callable[[Any, str], Any]] = {"pack": swapping.pack, "unpack": swapping.unpack}
#: How many commands, or transactions, each of them sends.
STEPS = 5


def swap_until_killed(url: str, key: str, swap: str, steps: int) -> None:
    """Die as a killed process does, having sent so many commands."""
    sent, send = count(), AbstractConnection.send_packed_command

    def dying(self: Any, command: Any, check_health: bool = True) -> None:
        if next(sent) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    with redis_py.Redis.from_url(url) as client:
        client.ping()
        AbstractConnection.send_packed_command = dying  # type: ignore[method-assign]
        SWAPS[swap](client, key)
        os.kill(os.getpid(), signal.SIGKILL)
