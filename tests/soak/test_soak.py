"""A site that marks beside one that does not, through the same load and the same faults."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis as redis_py
from servers import eventually
from workers.running import BIN, Site, answers

from .comparing import Comparison, percentile
from .load import Visitors, Workers

logger = logging.getLogger(__name__)

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
GUNICORN = (str(BIN / "gunicorn"), "--bind=unix:web.sock", "--workers=4", "soak.page:app")
#: By how much a worker may grow once it is warm.
GROWTH = 1.05
#: When a worker is warm, and how long it is looked at then and at the end: in shares of the time.
WARM, LOOK = 0.3, 0.1
#: Seconds between two faults, at least and at most; and how long the server is away.
PAUSE, AWAY = (1.0, 5.0), (0.0, 4.0)


class Soak:
    """The two sites, and what became of them."""

    def __init__(self, marking: Site, plain: Site) -> None:
        self.marking = marking
        self.sites = {marking: {"SOAK_MARKS": "1"}, plain: {}}
        self.visitors = Visitors([site.folder / "web.sock" for site in self.sites])
        self.workers: list[Workers] = []
        self.missing: set[int] = set()
        self.faults: Counter[str] = Counter()
        self._began = 0.0

    def run(self) -> None:
        with ExitStack() as running:
            for site, environment in self.sites.items():
                master = running.enter_context(site.running(*GUNICORN, **environment))
                self.workers.append(Workers(master.pid))
                path = str(site.folder / "web.sock")
                eventually(lambda path=path: answers(path))  # type: ignore[misc]
            self._began = time.monotonic()
            watching = threading.Thread(target=self._watch)
            watching.start()
            self.visitors.begin()
            self._suffer()
            self.visitors.end()
            watching.join()
        self.marking.deliver_the_rest()
        self.missing = self.marking.missing(*self._days())

    def growth(self) -> list[float]:
        """By how much each of the workers that were there all the time has grown."""
        moments = (self._began + share * SECONDS for share in (WARM, WARM + LOOK, 1 - LOOK))
        return self.workers[0].growth(*moments)

    def told(self) -> str:
        marks, compared = len(self.marking.acknowledged()), Comparison.of(self.visitors.pairs)
        marked, plain = zip(*self.visitors.pairs, strict=True)
        shares = ", ".join(
            f"{share:.1%} {percentile(marked, share) / percentile(plain, share):.2f}"
            for share in (0.5, 0.9, 0.99, 0.999)
        )
        grown = ", ".join(f"{grown:.3f}" for grown in self.growth())
        return (
            f"{dict(self.faults)}, requests that failed: {self.visitors.failed}; "
            f"{marks} marks acknowledged, {len(self.missing)} lost; workers grew to {grown}; "
            f"percentiles of requests against those of the site without the extension: {shares}; "
            f"{compared}, by chance {compared.chance:.4f}"
        )

    def _is_over(self) -> bool:
        return time.monotonic() > self._began + SECONDS

    def _suffer(self) -> None:
        """Go through each fault, so that who grows old has seen them all, and then at random."""
        due = random.sample(FAULTS, len(FAULTS))
        while not self._is_over():
            fault = due.pop() if due else random.choice(FAULTS)
            self.faults[fault.__name__] += 1
            fault(self)
            time.sleep(random.uniform(*PAUSE))

    def _watch(self) -> None:
        while not self._is_over():
            for workers in self.workers:
                workers.look()
            time.sleep(1)

    def _days(self) -> list[str]:
        with redis_py.Redis.from_url(self.marking.server.url, decode_responses=True) as client:
            days: list[str] = client.keys("trackist_e_????-*-*")
        return days


def server_is_killed(soak: Soak) -> None:
    soak.marking.server.kill()
    time.sleep(random.uniform(*AWAY))
    soak.marking.server.start()


def server_stands_still(soak: Soak) -> None:
    process = soak.marking.server.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(random.uniform(*AWAY))
    process.send_signal(signal.SIGCONT)


def connections_are_cut(soak: Soak) -> None:
    with redis_py.Redis.from_url(soak.marking.server.url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def worker_is_ended(soak: Soak) -> None:
    for workers in soak.workers:
        workers.end_one(signal.SIGTERM)


def worker_is_killed(soak: Soak) -> None:
    for workers in soak.workers:
        workers.end_one(signal.SIGKILL)


FAULTS: list[Callable[[Soak], None]] = [
    server_is_killed, server_stands_still, connections_are_cut, worker_is_ended, worker_is_killed,
]  # fmt: skip


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    sites = [Site(tmp_path_factory.mktemp(name), "background") for name in ("marking", "plain")]
    try:
        soak = Soak(*sites)
        soak.run()
        logger.info(soak.told())
        yield soak
    finally:
        for site in sites:
            site.server.kill()


def test_no_acknowledged_mark_is_lost(soak: Soak) -> None:
    assert soak.marking.acknowledged()
    assert not soak.missing, soak.marking.output()


def test_no_request_fails_but_those_of_workers_that_are_killed(soak: Soak) -> None:
    failed, _ = soak.visitors.failed
    assert {*failed} <= {0}, soak.marking.output()
    assert failed[0] <= soak.faults["worker_is_killed"], soak.marking.output()


def test_the_workers_do_not_grow(soak: Soak) -> None:
    growth = soak.growth()
    assert growth
    assert max(growth) <= GROWTH


def test_a_request_takes_no_longer_than_without_the_extension(soak: Soak) -> None:
    assert not Comparison.of(soak.visitors.pairs).tells_apart, soak.told()
