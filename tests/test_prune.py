"""Periods go as BITMAPIST_TTL says, and what they alone tell of stays in longer ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import made_app
from flask import Flask
from nodes import Cluster
from test_erase import bits

from flask_bitmapist import swapping
from flask_bitmapist.delivery.expiry import Expiries
from flask_bitmapist.maintenance.prune import Pruned, prune
from flask_bitmapist.packed_periods import packed_key, packed_keys
from flask_bitmapist.tracker import Tracker

TODAY = datetime.now().replace(hour=12, minute=0, second=0, microsecond=0)
LONG_AGO = datetime(2024, 2, 29, 9)
TTL = {"hour": timedelta(days=14), "day": timedelta(days=90)}


@pytest.fixture
def tracker(process: Callable[..., Tracker], redis_url: str) -> Tracker:
    tracker = process(redis_url)
    for when in (LONG_AGO, TODAY):
        tracker.record([("e", id_, True, True, when, True, True) for id_ in (7, 8)])
    return tracker


def run(tracker: Tracker, *, dry_run: bool = False, **ttl: timedelta) -> list[Pruned]:
    names = tracker.reader.known(scanned=False).events
    expiries = Expiries(ttl or TTL, tracker.settings.timezone)  # type: ignore[arg-type]
    return prune(tracker.server.patient, names, expiries, dry_run=dry_run)


def day(when: datetime) -> str:
    return f"trackist_e_{when.year}-{when.month}-{when.day}"


def test_what_is_over_goes_and_the_rest_will_expire(redis: Any, tracker: Tracker) -> None:
    before = bits(redis)
    (hours, days) = run(tracker)
    gone = {day(LONG_AGO), f"{day(LONG_AGO)}-9"}
    assert bits(redis) == {key: held for key, held in before.items() if key not in gone}
    assert (hours.gone, hours.gone_bytes, hours.expiring, hours.saved) == (1, 2, 1, 0)
    assert (days.gone, days.gone_bytes, days.expiring, days.saved) == (1, 2, 1, 0)
    end = datetime.combine(TODAY + timedelta(days=1), datetime.min.time())
    zone = tracker.settings.timezone
    expiry = (end.replace(tzinfo=zone) + timedelta(days=90)).timestamp()
    assert abs(time.time() + redis.ttl(day(TODAY)) - expiry) < 5
    kept = [key for key in redis.scan_iter("trackist_*") if redis.ttl(key) == -1]
    assert sorted(kept) == sorted(
        key.encode() for key in before if key.endswith("_u") or "_W" in key or key.count("-") == 1
    )
    assert run(tracker) == [Pruned("hour"), Pruned("day")]


def test_wherever_it_stops_it_goes_on_when_it_is_run_again(
    redis: Any,
    tracker: Tracker,
    process: Callable[..., Tracker],
    redis_url: str,
    at_every_trip: Callable[[Callable[[], object]], Iterator[None]],
) -> None:
    redis.setbit(day(LONG_AGO), 90_000, 1)  # which the week and the month lack
    whole = {key: redis.dump(key) for key in redis.scan_iter("*")}
    gone = {day(LONG_AGO), f"{day(LONG_AGO)}-9"}
    expected = {key: held for key, held in bits(redis).items() if key not in gone}
    for longer in ("trackist_e_W2024-9", "trackist_e_2024-2"):
        expected[longer] = [*expected[longer], 90_000]
    stops = 0
    for _ in at_every_trip(lambda: run(process(redis_url))):
        stops += 1
        run(process(redis_url))
        assert bits(redis) == expected
        redis.flushdb()
        for key, held in whole.items():
            redis.restore(key, 0, held)
    assert stops > 3
    assert bits(redis) == expected


def test_a_dry_run_tells_the_same_and_writes_nothing(redis: Any, tracker: Tracker) -> None:
    redis.setbit(day(LONG_AGO), 20_000, 1)
    before = {key: (redis.dump(key), redis.ttl(key)) for key in redis.scan_iter("*")}
    told = run(tracker, dry_run=True)
    assert {key: (redis.dump(key), redis.ttl(key)) for key in redis.scan_iter("*")} == before
    assert told == run(tracker)
    assert told[1].saved == 2


@pytest.mark.parametrize("packed", [(), ("day",), ("month",), ("day", "month")])
def test_what_a_week_and_a_month_lack_is_set_there_first(
    redis: Any, tracker: Tracker, packed: tuple[str, ...]
) -> None:
    week, month = "trackist_e_W2024-9", "trackist_e_2024-2"
    redis.setbit(day(LONG_AGO), 90_000, 1)
    redis.delete(week)
    redis.setbit("trackist_e_2024-2-28-5", 3, 1)
    for grain in packed:
        key = day(LONG_AGO) if grain == "day" else month
        redis.setbit(key, 80_000, 1)
        assert swapping.pack(redis, key)
    run(tracker)
    more = [80_000] if "day" in packed else []
    of_month = [80_000] if packed else []
    assert bits(redis)[week] == [3, 7, 8, *more, 90_000]
    assert bits(redis)[month] == [3, 7, 8, *of_month, 90_000]
    assert day(LONG_AGO) not in bits(redis)
    assert {*packed_keys(redis)} == ({month} if "month" in packed else set())


def test_a_week_that_is_over_too_is_not_made_anew(redis: Any, tracker: Tracker) -> None:
    week = "trackist_e_W2024-9"
    redis.delete(week)
    run(tracker, day=timedelta(days=90), week=timedelta(days=100))
    assert not redis.exists(week)
    assert bits(redis)["trackist_e_2024-2"] == [7, 8]


def test_a_longer_period_that_is_made_anew_expires_too(redis: Any, tracker: Tracker) -> None:
    redis.delete("trackist_e_W2024-9")
    run(tracker, day=timedelta(days=90), week=timedelta(days=36_500))
    assert redis.ttl("trackist_e_W2024-9") > 0


def test_packed_periods_go_too(redis: Any, tracker: Tracker) -> None:
    for when in (LONG_AGO, TODAY):
        redis.setbit(day(when), 90_000, 1)
        assert swapping.pack(redis, day(when))
    assert [one.gone for one in run(tracker)] == [1, 1]
    assert {*packed_keys(redis)} == {day(TODAY)}
    assert redis.ttl(packed_key(day(TODAY))) > 0


def test_an_expiry_that_was_another_is_made_to_fit(redis: Any, tracker: Tracker) -> None:
    run(tracker)
    (days,) = run(tracker, day=timedelta(days=10))
    assert days.expiring == 1
    assert redis.ttl(day(TODAY)) <= 11 * 86_400


def test_what_is_not_a_period_of_an_event_stays(redis: Any, tracker: Tracker) -> None:
    keys = ["trackist_e_2024-2-30", "trackist_e_2024-13-1-1", "trackist_e_W2024-9-1", "trackist_e_"]
    keys += ["trackist_other_2024-1-1", "else"]
    for key in keys:
        redis.setbit(key, 1, 1)
    redis.lpush("trackist_e_2024-1-2", "a list")
    run(tracker)
    assert redis.exists(*keys, "trackist_e_2024-1-2") == len(keys) + 1


def test_a_cluster(clusters: Callable[[int], Cluster], process: Callable[..., Tracker]) -> None:
    tracker = process(clusters(2).url)
    tracker.record([(event, 7, True, True, LONG_AGO) for event in ("e", "{f", "g")])
    client = tracker.server.patient
    for event in ("e", "{f", "g"):
        client.delete(f"trackist_{event}_W2024-9")
    (days,) = run(tracker, day=timedelta(days=1))
    assert (days.gone, days.saved) == (3, 3)
    left = {key.decode() for key in client.scan_iter("trackist_*")}
    assert left == {
        f"trackist_{e}_{end}" for e in ("e", "{f", "g") for end in ("2024-2", "W2024-9")
    }


def test_the_command_asks_and_tells(
    redis: Any, redis_url: str, app: Flask, tracker: Tracker, tmp_path: Path
) -> None:
    command = app.test_cli_runner()
    none = command.invoke(args=["bitmapist", "prune"])
    assert none.exit_code == 2
    assert "BITMAPIST_TTL is not set" in none.output
    ttl = {"hour": timedelta(hours=36), "day": timedelta(days=90)}
    command = made_app(redis_url, tmp_path, BITMAPIST_TTL=ttl).test_cli_runner()
    before = bits(redis)
    refused = command.invoke(args=["bitmapist", "prune"], input="n\n")
    told = "Delete hours that ended 1 day, 12:00:00 ago, days that ended 90 days ago?"
    assert told in refused.stderr
    assert (refused.exit_code, bits(redis)) == (1, before)
    done = command.invoke(args=["bitmapist", "prune", "--yes"])
    assert "4 bytes freed" in done.stdout


def test_keys_that_bitmapist_never_writes_are_left_alone(redis: Any, tracker: Tracker) -> None:
    others = ("trackist_e_2024-02-29", "trackist_e_2024-2-29-09", "trackist_e_2024-2-30")
    for key in others:
        redis.setbit(key, 7, 1)
    run(tracker)
    assert redis.exists(*others) == len(others)
