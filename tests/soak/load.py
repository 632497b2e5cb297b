"""What two sites go through together: the same load, and workers that are replaced."""

from __future__ import annotations

import http.client
import random
import signal
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from workers.running import answer

#: Threads that ask, and how often each of them asks both sites.
VISITORS, PAUSE = 4, 0.08


class Visitors:
    """Threads that ask both sites for the same, one after the other, at a steady pace."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(first,)) for first in range(VISITORS)
        ]
        #: The seconds of both requests, where both were answered.
        self.pairs: list[tuple[float, float]] = []
        #: What else each has answered: how often, by its status; 0 is no answer.
        self.failed = Counter[int](), Counter[int]()

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _keep_asking(self, id_: int) -> None:
        chance = random.Random(id_)
        due = time.monotonic()
        while not self._ends.is_set():
            took: dict[int, float] = {}
            for site in chance.sample((0, 1), 2):
                before = time.perf_counter()
                try:
                    status, _ = answer(str(self._paths[site]), id_)
                except (OSError, http.client.HTTPException):  # its worker was killed
                    status = 0
                if status == 200:
                    took[site] = time.perf_counter() - before
                else:
                    self.failed[site][status] += 1
            if len(took) == 2:
                self.pairs.append((took[0], took[1]))
            id_ += VISITORS
            due = max(due + PAUSE, time.monotonic() - PAUSE)
            self._ends.wait(due - time.monotonic())


@dataclass
class Workers:
    """The worker processes of a gunicorn, and how much memory each of them has taken."""

    master: int
    #: By process, once a second: when, and the bytes it had.
    memory: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    def listed(self) -> list[psutil.Process]:
        """The workers, the oldest first."""
        return sorted(psutil.Process(self.master).children(), key=psutil.Process.create_time)

    def look(self) -> None:
        for worker in self.listed():
            with suppress(psutil.NoSuchProcess):
                self.memory[worker.pid].append((time.monotonic(), worker.memory_info().rss))

    def end_one(self, number: signal.Signals) -> None:
        """Send a signal to the youngest: the others are to grow old."""
        with suppress(psutil.NoSuchProcess):
            self.listed()[-1].send_signal(number)

    def growth(self, begin: float, until: float, end: float) -> list[float]:
        """How many times as much each worker took at the end as between `begin` and `until`.

        Of workers that were there all the time. It is the middle of many samples that counts: while
        an outage ends a worker takes more, and gives it back.
        """
        found = []
        for samples in self.memory.values():
            early = [taken for when, taken in samples if begin <= when < until]
            late = [taken for when, taken in samples if when >= end]
            if early and late and samples[0][0] <= begin:
                found.append(statistics.median(late) / statistics.median(early))
        return found
