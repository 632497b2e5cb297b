"""Events on a cluster, and beside others who read and write at the same time."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from redis.cluster import RedisCluster
from servers import answers, eventually

from flask_bitmapist import (
    BitOpAnd,
    BitOpOr,
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    UniqueEvents,
    YearEvents,
    embedded,
    get_cohort,
    get_event_data,
    get_event_names,
    mark_event,
    mark_unique,
)
from flask_bitmapist.events import Events

NOW = datetime(2026, 11, 23, 14, 32)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of one node: it refuses commands whose keys are of different slots, as all do."""
    port, bus = free_port(), free_port()
    options = {"port": port, "cluster-port": bus, "cluster-enabled": "yes", "save": ""}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    node = subprocess.Popen(
        [embedded.find_binary(), *words],
        cwd=tmp_path_factory.mktemp("cluster"),
        stdout=subprocess.DEVNULL,
    )
    try:
        with redis_py.Redis(port=port) as admin:
            eventually(lambda: answers(admin))
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO"))
        client = RedisCluster(host="127.0.0.1", port=port)
        yield client
        client.close()
    finally:
        node.terminate()
        node.wait()


@pytest.mark.parametrize("ids", [[1, 2, 300], ["alice", "bob", "carol"]])
def test_a_cluster_answers_every_question(cluster: RedisCluster, ids: list[Any]) -> None:
    cluster.flushall()
    tracker = FlaskBitmapist(Flask("clustered"), redis_client=cluster).tracker
    with tracker.at(NOW):
        mark_event("active", ids)
        mark_event("active", ids[0], now=datetime(2026, 1, 1))
        mark_unique("premium", ids[1:])
        for events in (DayEvents("active"), YearEvents("active"), get_event_data("active")):
            assert list(events) == ids
            assert len(events) == 3
            assert events.has_events_marked()
            assert ids[2] in events
            assert "nobody" not in events
            premium = UniqueEvents("premium")
            assert list(events & premium) == list(BitOpAnd(events, premium, events)) == ids[1:]
            assert list(events - premium) == ids[:1]
            assert ids[0] in events ^ premium
            assert ids[1] not in events & ~premium
        assert get_event_names(cluster) == ["active", "premium"]
        assert get_cohort("active", "active", num_rows=1, num_cols=1)[0] == [[3]]
        if ids[0] == 1:
            mark_event("elsewhere", [7, 8], system=cluster)
            assert list(DayEvents("elsewhere", system=cluster)) == [7, 8]
        MonthEvents("active").delete()
        assert not MonthEvents("active")


def test_readers_of_the_same_combinations_do_not_disturb_one_another(
    app: Flask, tracker: Any
) -> None:
    """bitmapist's readers share a key: who deletes it empties the other's set."""
    with app.app_context(), tracker.at(NOW):
        mark_event("active", range(100))
        mark_unique("premium", range(50))
    seen: set[int] = set()

    def read() -> None:
        with app.app_context(), tracker.at(NOW):
            for _ in range(30):
                both: Events = DayEvents("active") & UniqueEvents("premium")
                either = BitOpOr(YearEvents("active"), both)
                seen.update((len(both), 49 + (49 in both), len(either) - 50))
                both.delete()
                either.delete()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert seen == {50}
