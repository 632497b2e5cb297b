"""Copies, exports and erasures of a cluster whose slots move meanwhile: no bitmap is missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from history.bits import bits_of
from nodes import Cluster
from redis.crc import key_slot

from flask_bitmapist.maintenance import sides
from flask_bitmapist.maintenance.copying import Copy
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.maintenance.stored import stored_periods
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)
#: All of the bitmaps of an event with braces lie in this slot.
EVENT, SLOT = "{e}", key_slot(b"{e}")
DAY = "trackist_{e}_2026-3-14"


@pytest.fixture
def nodes(clusters: Callable[[int], Cluster]) -> Cluster:
    return clusters(2)


def marked(tracker: Tracker, ids: range) -> None:
    tracker.record(
        [(EVENT, id_, True, True, NOON - timedelta(days=id_ % 40)) for id_ in ids]
        + [("other", id_, True, True, NOON) for id_ in ids]
    )


def slot(event: str) -> int:
    return int(key_slot(event.encode()))


def copied(source: Tracker, target: Tracker) -> Any:
    return Copy(source.server.patient, target.server.patient, target.settings).run()


@pytest.fixture
def moving(nodes: Cluster) -> Callable[[], None]:
    """The slot has begun to move; moves it."""
    giver = nodes.owner(SLOT)
    taker = next(node for node in nodes.masters if node is not giver)
    nodes.begin_move(SLOT, giver, taker)
    return lambda: nodes.end_move(SLOT, giver, taker)


def test_into_a_cluster_whose_slot_is_waited_for(
    moving: Callable[[], None], nodes: Cluster, tracker_on: Any, redis_url: str
) -> None:
    source, target = tracker_on(redis_url), tracker_on(nodes.url)
    marked(source, range(200))
    target.record([(EVENT, 40, True, True, NOON), (EVENT, 900, True, True, NOON)])
    end = threading.Timer(0.5, moving)
    end.start()
    done = copied(source, target)
    end.join()
    assert not done.is_wanting
    held = bits_of(tracker_on(nodes.url))
    assert 900 in held[DAY]
    assert {key: ids - {900} for key, ids in held.items()} == bits_of(source)


def test_a_slot_that_is_still_moving_is_told(
    moving: Callable[[], None],
    nodes: Cluster,
    tracker_on: Any,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sides, "PATIENCE", 0.1)
    source, target = tracker_on(redis_url), tracker_on(nodes.url)
    marked(source, range(200))
    with pytest.raises(StoppedError, match="is being moved to another node"):
        copied(source, target)
    moving()
    assert not copied(source, target).is_wanting
    assert bits_of(tracker_on(nodes.url)) == bits_of(source)


@pytest.fixture
def listed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something between the listing of the keys of one node and those of the next."""

    def do(client: Any, *happens: Callable[[], None]) -> None:
        left, listed = [*happens], 0
        execute = client._execute_command

        def executed(node: Any, *command: Any, **options: Any) -> Any:
            nonlocal listed
            if "trackist_*" in command:
                listed += 1
                if left and listed % 2 == 0:
                    left.pop(0)()
            return execute(node, *command, **options)

        monkeypatch.setattr(client, "_execute_command", executed)

    return do


Move = Callable[[], None]


def between_listed(nodes: Cluster, tracker: Tracker) -> tuple[str, Move, Move]:
    """An event whose slot is on the node that `tracker` lists second; to the first it moves."""
    taker, giver = (nodes.at(one.port) for one in tracker.server.patient.get_primaries())
    names = map("{{{}}}".format, range(99))
    event = next(name for name in names if nodes.owner(slot(name)) is giver)
    of = slot(event), giver, taker
    return event, partial(nodes.begin_move, *of), partial(nodes.end_move, *of)


@pytest.mark.parametrize("is_slow", [False, True])
def test_out_of_a_cluster_whose_keys_go_to_a_node_that_has_been_listed(
    is_slow: bool,
    nodes: Cluster,
    tracker_on: Any,
    redis_url: str,
    listed_meanwhile: Callable[..., None],
) -> None:
    source, target = tracker_on(nodes.url), tracker_on(redis_url)
    event, begin, end = between_listed(nodes, source)
    source.record([(event, 7, True, True, NOON)])
    copied(source, target)
    source.record([(event, 8, True, True, NOON)])

    def at_once() -> None:
        begin()
        end()

    listed_meanwhile(source.server.patient, *([begin, end] if is_slow else [at_once]))
    assert not copied(source, target).is_wanting
    assert bits_of(target) == bits_of(source) != {}


def test_what_a_cluster_may_hide_while_its_slots_move_is_told(
    moving: Callable[[], None], nodes: Cluster, tracker_on: Any, redis_url: str, app: Flask
) -> None:
    source, target = tracker_on(nodes.url), tracker_on(redis_url)
    marked(source, range(200))
    copy = ["bitmapist", "copy", nodes.url, "--yes"]
    done = app.test_cli_runner().invoke(args=copy)
    assert (done.exit_code, "run it again once they have moved" in done.stderr) == (3, True)
    moving()
    done = app.test_cli_runner().invoke(args=copy)
    assert (done.exit_code, done.stderr) == (0, "")
    assert bits_of(target) == bits_of(tracker_on(nodes.url))


@pytest.fixture
def no_questions(nodes: Cluster) -> Iterator[None]:
    """Nobody may ask the cluster where its slots are."""

    def permit(sign: str) -> None:
        for node in nodes.nodes:
            node.client.execute_command("ACL", "SETUSER", "default", f"{sign}cluster|nodes")

    permit("-")
    yield
    permit("+")


@pytest.mark.usefixtures("no_questions")
def test_a_user_who_may_not_ask_where_slots_are_copies(
    nodes: Cluster, tracker_on: Any, redis_url: str
) -> None:
    source, target = tracker_on(nodes.url), tracker_on(redis_url)
    marked(source, range(5))
    assert not copied(source, target).is_wanting
    assert bits_of(target) == bits_of(source)


def test_who_is_erased_has_no_bit_in_a_slot_that_moves(
    nodes: Cluster, tracker_on: Any, listed_meanwhile: Callable[..., None]
) -> None:
    tracker = tracker_on(nodes.url)
    event, begin, end = between_listed(nodes, tracker)
    tracker.record([(event, id_, True, True, NOON) for id_ in (7, 8)])
    listed_meanwhile(tracker.server.patient, begin, end)
    tracker.erase(7)
    assert all(ids == {8} for ids in bits_of(tracker).values())


def test_what_is_stored_is_listed_from_slots_that_move(
    nodes: Cluster, tracker_on: Any, listed_meanwhile: Callable[..., None]
) -> None:
    tracker = tracker_on(nodes.url)
    client = tracker.server.patient
    event, begin, end = between_listed(nodes, tracker)
    tracker.record([(event, 7, True, True, NOON)])
    listed_meanwhile(client, begin, end)
    found = stored_periods(client, [event])
    assert {period.grain for period in found[event]} == {"day", "week", "month"}


def test_slots_that_move_on_and_on_are_told(
    moving: Callable[[], None], nodes: Cluster, tracker_on: Any
) -> None:
    client = tracker_on(nodes.url).server.patient
    with pytest.raises(redis_py.ConnectionError, match="run it again once they have moved"):
        stored_periods(client, [EVENT])
    moving()
    assert stored_periods(client, [EVENT]) == {EVENT: set()}
