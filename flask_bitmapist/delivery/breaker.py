"""The breaker: callers do not wait for a server that just failed."""

from __future__ import annotations

import random
import time

from ..locks import Lock

#: Seconds without an attempt after a fault; each further fault doubles them, up to the longest.
_SHORTEST_BREAK, _LONGEST_BREAK = 1.0, 30.0
#: By how much of it a break is made longer or shorter at random: the processes of an application,
#: which see a fault at once, are not to come back at once.
_JITTER = 0.25
#: Not the generator that the application may have seeded, nor one that forked workers share.
chance = random.SystemRandom()


class Breaker:
    """Keeps callers from waiting for a server that just failed; lets one through to probe it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._break = 0.0  # seconds; 0 while all is well
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the server failed, and has not worked since."""
        return self._break > 0

    def lets_pass(self) -> bool:
        """Whether the server may be tried now: always while it works, once a break if not."""
        if not self._break:
            return True
        now = time.monotonic()
        if now < self._until or not self._lock.acquire(blocking=False):
            return False
        try:
            passes = now >= self._until
            self._until = now + self._break
            return passes
        finally:
            self._lock.release()

    def trip(self) -> bool:
        """Note a fault; True if it is the first of an outage."""
        with self._lock:
            first = not self._break
            self._break = min(max(_SHORTEST_BREAK, self._break * 2), _LONGEST_BREAK)
            self._until = time.monotonic() + self._break * chance.uniform(1 - _JITTER, 1 + _JITTER)
            return first

    def reset(self) -> bool:
        """Note a success; True if it ends an outage."""
        ended, self._break = self._break > 0, 0.0
        return ended
