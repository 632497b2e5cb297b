"""Events on a cluster, and beside others who read and write at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from nodes import Cluster
from redis.cluster import RedisCluster

from flask_bitmapist import (
    BitOpAnd,
    BitOpOr,
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    UniqueEvents,
    YearEvents,
    get_cohort,
    get_event_data,
    get_event_names,
    mark_event,
    mark_unique,
)
from flask_bitmapist.events import Events

NOW = datetime(2026, 11, 23, 14, 32)


@pytest.fixture
def cluster(clusters: Callable[[int], Cluster]) -> Iterator[RedisCluster]:
    """A cluster of one node: it refuses commands whose keys are of different slots, as all do."""
    with RedisCluster.from_url(clusters(1).url) as client:
        yield client


@pytest.mark.parametrize("ids", [[1, 2, 300], ["alice", "bob", "carol"]])
def test_a_cluster_answers_every_question(cluster: RedisCluster, ids: list[Any]) -> None:
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
