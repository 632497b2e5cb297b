"""Clusters of three masters and their replicas: marks, and what happens to the nodes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodes import NODE_TIMEOUT, Cluster, Marking, Node, cluster
from redis.cluster import LoadBalancingStrategy, RedisCluster
from redis.crc import key_slot
from servers import DAY, eventually, marked
from test_exercise import exercise
from test_replica import READING

from flask_bitmapist import analytics
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)
SLOT = key_slot(DAY.encode())


@pytest.fixture
def nodes(clusters: Callable[[int], Cluster]) -> Cluster:
    return clusters(3)


def mark(tracker: Tracker, *ids: object) -> None:
    tracker.record([("e", id_, True, True, NOON) for id_ in ids])


def reader(nodes: Cluster) -> RedisCluster:
    return RedisCluster.from_url(nodes.url)


def test_marks_of_many_keys_go_to_all_nodes_in_one_trip(nodes: Cluster, tracker_on: Any) -> None:
    tracker = tracker_on(nodes.url)
    tracker.record([(f"e{number}", number, True, True, NOON) for number in range(50)])
    tracker.record([("mapped", str(number) + "x", True, True, NOON) for number in range(50)])
    assert tracker.stats().sent == 100
    for number in range(50):
        assert analytics.count(f"e{number}", by="day", at=NOON, tracker=tracker) == 1
    assert analytics.count("mapped", by="day", at=NOON, tracker=tracker) == 50


@pytest.mark.parametrize("event", ["e", "e{f}", "e}f{", "é"])
def test_bitmaps_are_merged_where_their_slots_are(
    nodes: Cluster, tracker_on: Any, event: str
) -> None:
    tracker = tracker_on(nodes.url, BITMAPIST_TTL={"week": timedelta(days=9_999)})
    moments = np.datetime64(NOON, "D") + np.arange(3_000) % 90
    tracker.record_many(event, np.arange(3_000), True, True, moments)
    tracker.record_many(event, [*range(5_000, 6_000)], True, True, NOON)
    assert tracker.stats().sent == 4_000
    april = {id_ for id_ in range(3_000) if (NOON + timedelta(days=id_ % 90)).month == 4}
    later = NOON + timedelta(days=30)
    assert {*analytics.users(event, by="month", at=later, tracker=tracker)} == april
    day = {*range(0, 3_000, 90), *range(5_000, 6_000)}
    assert {*analytics.users(event, by="day", at=NOON, tracker=tracker)} == day
    with reader(nodes) as client:
        assert not [*client.scan_iter("flask_bitmapist:merge:*", target_nodes="primaries")]
        assert client.ttl(f"trackist_{event}_W2026-11") > 0


def test_a_slot_that_moves_under_load_loses_no_mark(nodes: Cluster, tracker_on: Any) -> None:
    tracker = tracker_on(nodes.url)
    with Marking(tracker) as marking:
        for _ in range(2):
            marking.makes(100)
            former = nodes.owner(SLOT)
            taker = next(node for node in nodes.masters if node is not former)
            nodes.begin_move(SLOT, former, taker)
            marking.makes(100)  # ASK, and TRYAGAIN for commands of several keys
            nodes.end_move(SLOT, former, taker)
    assert tracker.flush()
    with reader(nodes) as client:
        assert marked(client) == {*range(marking.made)}
    assert tracker.stats().spooled == 0


def test_a_planned_failover_of_a_node_under_load_loses_no_mark(
    nodes: Cluster, tracker_on: Any
) -> None:
    tracker = tracker_on(nodes.url)
    mark(tracker, "text")
    tracker.record([("plain", 0, True, True, NOON)])
    for key in (map_keys(MAPPED).index, "trackist_plain_2026-3-14"):
        with Marking(tracker, "plain") as marking:
            marking.makes(100)
            nodes.fail_over(nodes.owner(key_slot(key.encode())))
            marking.makes(100)
        mark(tracker, f"text of {key}")
    eventually(tracker.flush)
    assert tracker.stats().refused == tracker.stats().dropped == 0
    assert set(analytics.users("e", at=NOON, tracker=tracker)) == {
        "text",
        f"text of {map_keys(MAPPED).index}",
        "text of trackist_plain_2026-3-14",
    }
    with reader(nodes) as client:
        assert marked(client, "trackist_plain_2026-3-14") >= {*range(marking.made)}


def test_the_death_of_a_node_under_load_loses_no_mark(nodes: Cluster, tracker_on: Any) -> None:
    tracker = tracker_on(nodes.url)
    with Marking(tracker) as marking:
        marking.makes(200)
        dead = nodes.owner(SLOT)
        nodes.miss_after(500)
        dead.kill()
        eventually(lambda: nodes.owner(SLOT) is not dead)
        nodes.miss_after(NODE_TIMEOUT)
        marking.makes(200)
    eventually(tracker.flush)
    dead.start()
    nodes.settle()
    with reader(nodes) as client:
        assert marked(client) == {*range(marking.made)}


def test_what_a_replica_that_takes_over_lacks_is_sent_again(
    nodes: Cluster, tracker_on: Any
) -> None:
    tracker = tracker_on(nodes.url)
    mark(tracker, 1)
    nodes.wait_for_replicas()
    owner = nodes.owner(SLOT)
    replica = nodes.replica_of(owner)
    owner.client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
    owner.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
    mark(tracker, 2, 3)
    owner.kill()
    replica.client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    owner.start()
    nodes.settle()
    assert 2 not in marked(replica.client)
    for id_ in (4, 5, 6):  # the first one is told who has taken over, the second one asks
        mark(tracker, id_)
    eventually(tracker.flush)
    assert marked(replica.client) == {*range(1, 7)}


def test_what_is_sent_again_after_a_fault_does_not_come_after_what_others_have_drained(
    nodes: Cluster, tracker_on: Any
) -> None:
    tracker, other = (tracker_on(nodes.url, BITMAPIST_TIMEOUT=2) for _ in range(2))
    mark(tracker, *range(9))
    with tracker._deliverer()._flusher.alone(None):
        for node in nodes.nodes:
            node.freeze()
        tracker.record([("e", 1, False, True, NOON)])
        for node in nodes.nodes:
            node.thaw()
        assert tracker.stats().spooled
        nodes.settle()
        eventually(other.flush)
        with reader(nodes) as client:
            assert 1 not in marked(client)
    mark(tracker, 9)
    eventually(tracker.flush)
    assert tracker.stats().resent
    with reader(nodes) as client:
        assert marked(client) == {0, *range(2, 10)}


def test_everything_works_on_a_cluster_and_reports_come_from_its_replicas(
    nodes: Cluster, tmp_path: Path
) -> None:
    reading = RedisCluster.from_url(
        nodes.url, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN
    )
    for node in nodes.nodes:
        node.client.config_resetstat()
    exercise(nodes.url, tmp_path, read_client=reading, settle=nodes.wait_for_replicas)
    replicas = [node for node in nodes.nodes if node.replication("role") == "slave"]
    asked = {name for node in replicas for name in node.client.info("commandstats")}
    assert {name.removeprefix("cmdstat_") for name in asked} & READING
    reading.close()


TIMEOUT = 0.25
#: As in test_deadline: the promise is TIMEOUT + 50 ms.
LONGEST = TIMEOUT + 0.25


@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("given", [False, True], ids=["URL", "client"])
def test_a_frozen_node_costs_no_more_than_the_timeout(
    nodes: Cluster, tracker_on: Any, known: bool, given: bool
) -> None:
    took = []
    for _ in range(3):
        client = RedisCluster.from_url(nodes.url) if given else None
        tracker = tracker_on(None if given else nodes.url, client, BITMAPIST_TIMEOUT=TIMEOUT)
        if known:
            tracker.server.timeout = 10
            mark(tracker, 0)
            tracker.server.timeout = TIMEOUT
        frozen = nodes.owner(SLOT)
        frozen.freeze()
        start = time.monotonic()
        mark(tracker, 1)
        took.append(time.monotonic() - start)
        frozen.thaw()
        nodes.settle()
        eventually(tracker.flush)
        assert analytics.users("e", at=NOON, tracker=tracker)[-1] == 1
        if took[-1] < LONGEST:
            return
    raise AssertionError(f"it took {took} seconds")


class TestGone:
    """A cluster of its own, as it does not come back."""

    def test_what_the_nodes_that_are_left_do_not_serve_is_spooled_in_time(
        self, tmp_path: Path, tracker_on: Any
    ) -> None:
        with cluster(tmp_path, masters=3) as three:
            tracker = tracker_on(three.url, BITMAPIST_TIMEOUT=TIMEOUT)
            tracker.server.timeout = 10
            mark(tracker, 0)
            assert tracker.stats().sent == 1
            tracker.server.timeout = TIMEOUT
            gone = three.owner(SLOT)
            gone.kill()
            self.assert_spooled_in_time(tracker, 1)
            rest = [node for node in three.nodes if node is not gone]
            for node in rest:
                node.client.config_set("cluster-require-full-coverage", "no")
            eventually(lambda: all(is_ok(node) for node in rest))
            new = tracker_on(three.url, instance="new", BITMAPIST_TIMEOUT=TIMEOUT)
            for known in (tracker, new):
                self.assert_spooled_in_time(known, 2)
            for node in rest:
                node.kill()
            newest = tracker_on(three.url, instance="newest", BITMAPIST_TIMEOUT=TIMEOUT)
            for known in (tracker, newest):
                self.assert_spooled_in_time(known, 3)
            for node in three.nodes:
                node.start()
            three.settle()
            eventually(tracker.flush)

    @staticmethod
    def assert_spooled_in_time(tracker: Tracker, id_: int) -> None:
        before = tracker.stats().spooled
        start = time.monotonic()
        mark(tracker, id_)
        took = time.monotonic() - start
        assert tracker.stats().spooled > before
        # One attempt only, as the next ones do not ask. Without a deadline it takes 2.4 seconds.
        assert took < TIMEOUT + 1


def is_ok(node: Node) -> bool:
    return bool(node.client.cluster("info")["cluster_state"] == "ok")
