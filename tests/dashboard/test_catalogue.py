"""What the dashboard offers: the names of events and of flags, ours and bitmapist's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event, mark_unique
from flask_bitmapist.tracker import Tracker


@pytest.fixture
def stranger(redis_url: str, tmp_path: Path) -> Iterator[Tracker]:
    """A tracker of a process that has marked nothing."""
    app = Flask("stranger", instance_path=str(tmp_path / "stranger"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TIMEOUT=10, DISABLE_BLUEPRINT=True)
    tracker = FlaskBitmapist(app).tracker_of(app)
    yield tracker
    tracker.redis.close()


def test_events_and_flags_are_told_apart_and_sorted(at_now: None, tracker: Tracker) -> None:
    mark_event("b", 1)
    mark_event("a", 1)
    mark_unique("d", 1)
    mark_unique("c", 1)
    assert tracker.reader.catalogue() == (["a", "b"], ["c", "d"])


def test_nothing_marked_is_nothing_listed(at_now: None, tracker: Tracker) -> None:
    assert tracker.reader.catalogue() == ([], [])


def test_a_name_with_and_without_dates_is_both(at_now: None, tracker: Tracker) -> None:
    mark_event("a", 1, track_unique=True)
    assert tracker.reader.catalogue() == (["a"], ["a"])


def test_a_flag_that_becomes_an_event_is_both(at_now: None, tracker: Tracker) -> None:
    mark_unique("a", 1)
    mark_event("a", 1)
    assert tracker.reader.catalogue() == (["a"], ["a"])


def test_what_another_process_marks_is_listed_at_once(
    at_now: None, tracker: Tracker, stranger: Tracker
) -> None:
    assert stranger.reader.catalogue() == ([], [])
    mark_event("a", 1)
    mark_unique("b", 1)
    assert stranger.reader.catalogue() == (["a"], ["b"])


def test_what_bitmapist_wrote_is_listed_with_ours(
    at_now: None, tracker: Tracker, redis: Any
) -> None:
    mark_event("ours", 1)
    bitmapist.mark_event("its:own_name", 1, system=redis, track_hourly=True)
    bitmapist.mark_unique("its:flag", 1, system=redis)
    assert tracker.reader.catalogue() == (["its:own_name", "ours"], ["its:flag"])


def test_what_bitmapist_combined_is_not_listed(at_now: None, tracker: Tracker, redis: Any) -> None:
    bitmapist.mark_event("a", 1, system=redis)
    month = bitmapist.MonthEvents.from_date("a")
    assert len(bitmapist.BitOpAnd(month, month)) == 1
    assert any(b"bitop_" in key for key in redis.keys("trackist_*"))
    assert tracker.reader.catalogue() == (["a"], [])


def test_names_that_no_report_takes_are_left_out(
    at_now: None, tracker: Tracker, redis: Any
) -> None:
    for name in (b"two\nlines", b"x" * 201, b" indented", b"caf\xe9", b"fine"):
        redis.setbit(b"trackist_" + name + b"_2026-11-23", 1, 1)
        redis.setbit(b"trackist_" + name + b"_u", 1, 1)
    assert tracker.reader.catalogue() == (["fine"], ["fine"])


def test_a_catalogue_is_read_with_reading_commands_alone(
    at_now: None, stranger: Tracker, redis: Any
) -> None:
    mark_event("a", 1)
    redis.config_resetstat()
    stranger.reader.catalogue()
    stats = {name.removeprefix("cmdstat_") for name in redis.info("commandstats")}
    connecting = {"hello", "select", "client|setinfo", "config|resetstat"}
    assert stats - connecting == {"scan", "hgetall", "zrange", "get"}


def test_a_client_that_decodes_replies_reads_the_same(
    at_now: None, redis_url: str, tracker: Tracker
) -> None:
    mark_event("ünï", 1)
    mark_unique("flag", 1)
    tracker.redis.set(b"trackist_\xff\xfe_2026-11", b"\x80")  # nobody's name
    with redis_py.Redis.from_url(redis_url, decode_responses=True) as client:
        app = Flask("decoding")
        other = FlaskBitmapist(app, {"BITMAPIST_SPOOL": False}, redis_client=client)
        assert other.tracker_of(app).reader.catalogue() == (["ünï"], ["flag"])
