"""What marks and reports cost on one server, and on clusters of 3 and 6 masters.

    python benchmarks/cluster.py [NODES ...]      default: 0 3 6; 0 is a server without a cluster

One process marks and reads. So the table shows where the limit lies: the nodes' CPU time a mark is
shared between them, that of the process is not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from socket import socket
from typing import Any

import numpy as np
import redis
from flask import Flask

from flask_bitmapist import FlaskBitmapist, analytics
from flask_bitmapist.embedded import find_binary
from flask_bitmapist.tracker import Tracker

TODAY = datetime(2026, 3, 14, 12)
USERS = 1_000_000
EVENTS = [f"event{number}" for number in range(30)]


def main(sizes: Sequence[int]) -> None:
    print(f"{'':34}{'waited':>12}{'client CPU':>12}{'nodes CPU':>12}{'busiest':>12}")
    for size in sizes:
        with nodes(size) as clients, tempfile.TemporaryDirectory() as folder:
            port = clients[0].connection_pool.connection_kwargs["port"]
            options = {"BITMAPIST_REDIS_URL": f"redis://127.0.0.1:{port}", "BITMAPIST_TIMEOUT": 10}
            app = Flask("benchmark", instance_path=folder)
            tracker = FlaskBitmapist(app, options).tracker
            print("one server" if not size else f"cluster of {size}")
            measure(tracker, clients)
            assert tracker.stats().spooled == 0


def measure(tracker: Tracker, clients: Sequence[Any]) -> None:
    ids = iter(np.random.default_rng(1).integers(0, USERS, 10_000_000).tolist())

    def mark(count: int) -> Callable[[], None]:
        def make() -> None:
            marks = [
                (EVENTS[number % len(EVENTS)], next(ids), True, True, TODAY)
                for number in range(count)
            ]
            tracker.record(marks)

        return make

    for count, times in ((1, 2_000), (100, 200), (1_000, 100)):
        told = f"  a mark, {count:,} at once"
        show(told, 1e6 / count, "us", clients, mark(count), times)
    moments = np.datetime64(TODAY, "D") - np.arange(USERS) % 365
    everybody = np.random.default_rng(1).permutation(USERS)

    def bring() -> None:
        tracker.record_many("imported", everybody, True, True, moments)

    show("  a mark, a million at once", 1e6 / USERS, "us", clients, bring, 3)
    start, end = TODAY - timedelta(days=42), TODAY - timedelta(days=12)

    def report() -> None:
        analytics.retention("imported", "imported", "day", 13, start, end, tracker=tracker)

    show("  a table of retention, 31 x 13", 1e3, "ms", clients, report, 20)


def show(
    name: str, scale: float, unit: str, clients: Sequence[Any], act: Callable[[], None], times: int
) -> None:
    act()
    before, began, own = (
        [cpu(client) for client in clients],
        time.perf_counter(),
        time.process_time(),
    )
    for _ in range(times):
        act()
    waited, own = time.perf_counter() - began, time.process_time() - own
    used = [cpu(client) - start for client, start in zip(clients, before, strict=True)]
    figures = (scale * seconds / times for seconds in (waited, own, sum(used), max(used)))
    print(f"{name:34}" + "".join(f"{figure:9.2f} {unit}" for figure in figures), flush=True)


def cpu(client: Any) -> float:
    """Seconds that a node has worked."""
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


@contextmanager
def nodes(size: int) -> Iterator[list[Any]]:
    """Clients of the masters of a cluster; of one server if `size` is 0."""
    with ExitStack() as stack:
        ports = [stack.enter_context(socket()) for _ in range(2 * max(size, 1))]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        numbers = [port.getsockname()[1] for port in ports]
    with ExitStack() as stack:
        clients = []
        for port, bus in zip(numbers[::2], numbers[1::2], strict=True):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            options = {"port": port, "dir": folder, "save": ""}
            if size:
                options |= {"cluster-enabled": "yes", "cluster-port": bus}
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            server = subprocess.Popen([find_binary(), *words], stdout=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
            clients.append(stack.enter_context(redis.Redis(port=port)))
        for client in clients:
            until(client.ping)
        if size:
            join(clients, numbers)
        yield clients


def join(clients: Sequence[Any], numbers: Sequence[int]) -> None:
    bounds = [16384 * index // len(clients) for index in range(len(clients) + 1)]
    for client, first, last in zip(clients, bounds, bounds[1:], strict=False):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", numbers[0], numbers[1])
    for client in clients:
        until(lambda client=client: client.cluster("info")["cluster_state"] == "ok")  # type: ignore[misc]
        until(
            lambda client=client: int(client.cluster("info")["cluster_known_nodes"]) == len(clients)  # type: ignore[misc]
        )
    time.sleep(1)  # until each has told the others of its slots


def until(condition: Callable[[], object]) -> None:
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [0, 3, 6])
