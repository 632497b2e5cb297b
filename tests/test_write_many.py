"""Marks that are on the server when the call returns, or it raises: for whoever can do it again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from flask import Flask
from servers import MortalServer

from flask_bitmapist.tracker import Tracker

MOMENT = datetime(2026, 3, 14, 7)


def keys(redis: redis_py.Redis) -> dict[str, int]:
    found: Any = redis.keys("trackist_*")
    return {key.decode(): int(redis.bitcount(key)) for key in found}


@pytest.fixture
def in_background(redis_url: str, process: Callable[..., Tracker]) -> Tracker:
    return process(redis_url, BITMAPIST_DELIVERY="background")


def test_marks_are_there_at_once_even_if_others_are_queued(
    in_background: Tracker, redis: redis_py.Redis
) -> None:
    in_background.write_many("e", [1, 2, 3], True, True, MOMENT)
    assert keys(redis) == {
        "trackist_e_2026-3-14": 3,
        "trackist_e_W2026-11": 3,
        "trackist_e_2026-3": 3,
    }


def test_a_server_that_is_down_is_an_error_and_nothing_is_spooled(
    mortal: MortalServer, process: Callable[..., Tracker]
) -> None:
    tracker = process(mortal.url)
    tracker.write_many("e", np.arange(5), True, True, MOMENT)
    mortal.kill()
    with pytest.raises(redis_py.ConnectionError):
        tracker.write_many("e", np.arange(9), True, True, MOMENT)
    assert tracker.stats().backlog == 0
    mortal.start()
    tracker.write_many("e", np.arange(9), True, True, MOMENT)
    assert mortal.ids() == [*range(9)]


def test_a_server_that_has_lost_marks_tells_how_many_trips_it_has_kept(
    mortal: MortalServer, process: Callable[..., Tracker]
) -> None:
    tracker = process(mortal.url)
    first = tracker.write_many("e", [1], True, True, MOMENT)
    (file,) = (mortal.folder / "appendonlydir").glob("*.incr.aof")
    held = file.read_bytes()
    second = tracker.write_many("e", [2], True, True, MOMENT)
    assert first is not None
    assert second is not None
    assert (first.kept, second.kept) == (None, None)
    mortal.kill()
    file.write_bytes(held)
    mortal.start()
    third = tracker.write_many("e", [3], True, True, MOMENT)
    assert third is not None
    assert third.kept == first.trips < second.trips


def test_ids_of_another_kind_are_an_error_even_at_a_processs_first_mark(
    redis_url: str, process: Callable[..., Tracker], redis: redis_py.Redis
) -> None:
    process(redis_url).write_many("e", ["ada"], True, True, MOMENT)
    with pytest.raises(ValueError, match="has mapped ids"):
        process(redis_url).write_many("e", [7], True, True, MOMENT)
    assert keys(redis)["trackist_e_2026-3-14"] == 1


@pytest.mark.parametrize(
    ("only", "key"),
    [
        ("hour", "trackist_e_2026-3-14-7"),
        ("day", "trackist_e_2026-3-14"),
        ("week", "trackist_e_W2026-11"),
        ("month", "trackist_e_2026-3"),
    ],
)
def test_one_period_can_be_set_alone(
    only: Any, key: str, tracker: Tracker, redis: redis_py.Redis
) -> None:
    tracker.write_many("e", [1, 2], True, True, [MOMENT] * 2, True, only=only)
    assert keys(redis) == {key: 2}


def test_a_test_that_records_marks_gets_them(app: Flask, tracker: Tracker) -> None:
    from flask_bitmapist.testing import record_marks

    with record_marks() as recorded:
        assert tracker.write_many("e", [1], True, True, MOMENT) is None
    assert [mark.id for mark in recorded] == [1]
