"""Annotations: declared in code, or kept by the command."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from redis import Redis

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.annotations import ANNOTATIONS, MOST, annotation_of, keep, kept, remove
from flask_bitmapist.tracker import Tracker

RELEASE = annotation_of(date(2026, 11, 1), "v2.0")
PRICES = annotation_of(date(2026, 3, 9), "new prices, for all")


def test_they_are_kept_in_the_order_of_their_days(redis: Redis) -> None:
    assert [keep(redis, one) for one in (RELEASE, PRICES, RELEASE)] == [True, True, False]
    assert kept(redis) == [PRICES, RELEASE]


def test_several_may_have_one_day(redis: Redis) -> None:
    other = annotation_of(RELEASE.date, "and a talk")
    keep(redis, RELEASE)
    keep(redis, other)
    assert kept(redis) == [other, RELEASE]
    assert remove(redis, RELEASE)
    assert not remove(redis, RELEASE)
    assert kept(redis) == [other]


@pytest.mark.parametrize(
    "day", [datetime(2026, 11, 1), "2026-11-01", None, 20261101, date(9, 1, 1)]
)
def test_a_day_is_a_date_in_the_calendar_of_reports(day: Any) -> None:
    with pytest.raises(ValueError, match="day of an annotation"):
        annotation_of(day, "v2.0")


@pytest.mark.parametrize("text", ["", " v2.0", "a\nb", "x" * 81, "\x1b[2J", None])
def test_a_text_is_short_and_printable(text: Any) -> None:
    with pytest.raises(ValueError, match="1 to 80 printable characters"):
        annotation_of(date(2026, 11, 1), text)


def test_what_others_have_written_there_is_left_out(redis: Redis) -> None:
    keep(redis, RELEASE)
    members = (b"\xff", b"", b"2026-02-30 x", b"2026-11-01", b"2026-11-01 \x1b[2J", b"20261101 x")
    redis.zadd(ANNOTATIONS, dict.fromkeys(members, 1.5))
    redis.zadd(ANNOTATIONS, {"2026-11-01 " + "x" * 5_000: float("inf")})
    assert kept(redis) == [RELEASE]


def test_there_is_room_for_many_not_for_any_number(redis: Redis) -> None:
    redis.zadd(ANNOTATIONS, {str(number): number for number in range(MOST)})
    with pytest.raises(ValueError, match="1000 annotations already"):
        keep(redis, RELEASE)
    assert redis.zcard(ANNOTATIONS) == MOST


def test_a_client_that_decodes_reads_them_too(redis: Redis, redis_url: str) -> None:
    redis.zadd(ANNOTATIONS, {b"\xff": 1})
    with Redis.from_url(redis_url, decode_responses=True) as decoding:
        keep(decoding, RELEASE)
        assert kept(decoding) == [RELEASE]


def test_code_declares_them_before_and_after_init_app(app: Flask) -> None:
    bitmapist: FlaskBitmapist = app.extensions["bitmapist"]
    assert bitmapist.annotation(RELEASE.date, RELEASE.text) == RELEASE
    FlaskBitmapist(app).annotation(PRICES.date, PRICES.text)
    assert FlaskBitmapist.annotations_of(app) == [PRICES, RELEASE]
    with pytest.raises(ValueError, match="must be a date without a time"):
        bitmapist.annotation(datetime(2026, 11, 1), "v2.0")


@pytest.fixture
def runner(app: Flask, tracker: Tracker) -> FlaskCliRunner:
    return app.test_cli_runner()


def told(runner: FlaskCliRunner, *arguments: str) -> Any:
    done = runner.invoke(args=["bitmapist", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_the_commands_add_list_and_remove(app: Flask, runner: FlaskCliRunner, redis: Redis) -> None:
    app.extensions["bitmapist"].annotation(PRICES.date, PRICES.text)
    added = {"date": "2026-11-01", "text": "v2.0", "state": "added"}
    assert told(runner, "annotate", "2026-11-01", "v2.0") == added
    assert told(runner, "annotate", "2026-11-01", "v2.0")["state"] == "kept"
    assert kept(redis) == [RELEASE]
    assert told(runner, "annotations")["annotations"] == [
        {"date": "2026-03-09", "text": "new prices, for all", "declared": "code"},
        {"date": "2026-11-01", "text": "v2.0", "declared": "server"},
    ]
    listed = runner.invoke(args=["bitmapist", "annotations", "--csv"]).output
    assert listed.splitlines()[1] == '2026-03-09,"new prices, for all",code'
    assert told(runner, "annotate", "--remove", "2026-11-01", "v2.0")["state"] == "removed"
    assert told(runner, "annotate", "--remove", "2026-11-01", "v2.0")["state"] == "missing"
    assert not redis.exists(ANNOTATIONS)


@pytest.mark.parametrize("arguments", [("2026-11-31", "x"), ("2026-11-01", ""), ("2026-11-01",)])
def test_a_wrong_annotation_is_a_usage_error(
    runner: FlaskCliRunner, redis: Redis, arguments: tuple[str, ...]
) -> None:
    done = runner.invoke(args=["bitmapist", "annotate", *arguments])
    assert done.exit_code == 2
    assert not redis.exists(ANNOTATIONS)
