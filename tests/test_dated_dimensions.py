"""Dated dimensions: who had which value in which month, in whatever order processes give them."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from months import held_months
from nodes import Cluster
from racing import RACERS, racing_values
from servers import MortalServer, marked
from test_ids import url_without_scripting
from warm import WARM

from flask_bitmapist import analytics
from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

Processes = Callable[..., Tracker]
#: Who gets which value, and when.
Given = tuple[object, object, datetime]

SEPTEMBER, OCTOBER, NOVEMBER = (datetime(2026, month, 14, 15) for month in (9, 10, 11))


def choose(tracker: Tracker, *given: Given, dated: bool = True) -> None:
    """Give each person the value, at the moment."""
    tracker.record(
        Mark("user:plan", who, dated=dated, when=when, choice=value or "")
        for who, value, when in given
    )


def held(client: Any) -> dict[str, set[int]]:
    """Who has which value now."""
    keys = [key.decode() for key in client.keys("trackist_user:plan=*_u")]
    found = {key.partition("=")[2].removesuffix("_u"): marked(client, key) for key in keys}
    return {value: people for value, people in found.items() if people}


def replayed(given: Iterable[Given]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What `held` and `held_months` are to be after all this, one after the other."""
    now: dict[object, object] = {}
    months: dict[str, dict[object, object]] = {}
    for who, value, when in given:
        now[who] = value
        months.setdefault(f"{when.year}-{when.month}", {})[who] = value or ""
    return (
        by_value({who: value for who, value in now.items() if value}),
        {month: by_value(values) for month, values in months.items()},
    )


def by_value(values: dict[object, object]) -> dict[object, set[object]]:
    found: dict[object, set[object]] = {}
    for who, value in values.items():
        found.setdefault(value, set()).add(who)
    return found


def a_history(seed: int, length: int = 300) -> list[Given]:
    """Some people who get some values, mostly later ones later."""
    chance = random.Random(seed)
    return [
        (
            chance.randrange(25),
            chance.choice(["free", "pro", "gold", "team", None]),
            datetime(2026, min(12, 9 + place * 4 // length + chance.choice([0, 0, 0, 1])), 5),
        )
        for place in range(length)
    ]


def in_batches(history: list[Given], seed: int) -> Iterable[list[Given]]:
    chance, begin = random.Random(seed), 0
    while begin < len(history):
        size = chance.choice([1, 1, 2, 7, 40])
        yield history[begin : begin + size]
        begin += size


class TestWhoHadWhat:
    def test_a_month_has_the_last_value_that_was_given_in_it(
        self, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (1, "free", OCTOBER), (2, "free", OCTOBER), (3, "pro", OCTOBER))
        choose(tracker, (1, "pro", OCTOBER), (2, "pro", NOVEMBER), (3, None, NOVEMBER))
        assert held(redis) == {"pro": {1, 2}}
        assert held_months(redis) == {
            "2026-10": {"free": {2}, "pro": {1, 3}},
            "2026-11": {"pro": {2}, "": {3}},
        }
        choose(tracker, (3, "free", NOVEMBER), (2, None, NOVEMBER))
        assert held_months(redis)["2026-11"] == {"free": {3}, "": {2}}

    @pytest.mark.parametrize("scripting", [True, False])
    @pytest.mark.parametrize("seed", range(3))
    def test_as_a_python_program_has_it(
        self, redis_url: str, redis: Any, process: Processes, seed: int, scripting: bool
    ) -> None:
        tracker = process(redis_url if scripting else url_without_scripting(redis, redis_url))
        history = a_history(seed)
        for batch in in_batches(history, seed):
            choose(tracker, *batch)
        now, months = replayed(history)
        assert tracker.stats().spooled == 0
        assert held(redis) == now
        assert held_months(redis) == months

    def test_reports_say_what_a_python_program_says(
        self, tracker: Tracker, redis_url: str, process: Processes
    ) -> None:
        history = sorted(a_history(4), key=lambda given: given[2])
        tracker.record(
            Mark("user:seen", who, when=datetime(2026, month, 5))
            for who in range(25)
            for month in (9, 10, 11, 12)
        )
        for batch in in_batches(history, 4):
            choose(tracker, *batch)
        report = analytics.trend(
            "user:seen",
            by="month",
            start=date(2026, 9, 1),
            end=date(2026, 12, 31),
            breakdown="user:plan",
            as_of="then",
            now=datetime(2027, 1, 2),
            tracker=tracker,
        )
        parts = report.to_dict()["parts"]
        for value in ("free", "pro", "gold", "team"):
            told = [point["users"] for point in parts[value]["points"]]
            assert told == [
                len(
                    replayed(given for given in history if given[2].month <= month)[0].get(
                        value, ()
                    )
                )
                for month in (9, 10, 11, 12)
            ]

    def test_mapped_ids_too(self, redis_url: str, redis: Any, process: Processes) -> None:
        tracker = process(redis_url, BITMAPIST_ID_MAP="always")
        # Who has never had a value has no offset, and none to lose.
        given: list[Given] = [(f"n{who}", "free", SEPTEMBER) for who in range(25)]
        history = [*given, *((f"n{who}", value, when) for who, value, when in a_history(5))]
        for batch in in_batches(history, 5):
            choose(tracker, *batch)
        named = {
            month: {
                value: {*tracker.reader.ids_at(people, "mapped")} for value, people in sets.items()
            }
            for month, sets in held_months(redis).items()
        }
        assert named == replayed(history)[1]

    def test_a_month_is_one_of_the_application(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        tracker = process(redis_url, BITMAPIST_TIMEZONE="Asia/Tokyo")
        choose(tracker, (1, "pro", datetime.fromisoformat("2026-10-31T23:00:00+00:00")))
        assert held_months(redis) == {"2026-11": {"pro": {1}}}

    def test_without_being_asked_for_no_month_is_kept(self, tracker: Tracker, redis: Any) -> None:
        choose(
            tracker, (1, "free", OCTOBER), (1, None, NOVEMBER), (2, "pro", NOVEMBER), dated=False
        )
        assert held(redis) == {"pro": {2}}
        assert not held_months(redis)
        assert redis.hkeys(DIMENSIONS) == [b"0:user:plan"]

    def test_many_at_once(self, tracker: Tracker, redis: Any, round_trips: list[object]) -> None:
        choose(tracker, *((person, f"v{person}", NOVEMBER) for person in range(5)))
        everybody = [(person, f"v{person % 5}", NOVEMBER) for person in range(1_000)]
        round_trips.clear()
        choose(tracker, *everybody)
        assert len(round_trips) <= 4, round_trips
        assert {len(people) for people in held_months(redis)["2026-11"].values()} == {200}

    def test_they_are_no_events(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free", OCTOBER), (2, "pro", OCTOBER), (2, None, NOVEMBER))
        for scanned in (False, True):
            known = tracker.reader.known(scanned=scanned)
            assert not known.events
            assert {*known.flags} == {"user:plan=free", "user:plan=pro"}
        assert all(redis.ttl(key) == -1 for key in redis.keys("trackist_*"))

    def test_they_never_expire(self, redis_url: str, redis: Any, process: Processes) -> None:
        tracker = process(redis_url, BITMAPIST_TTL={"month": timedelta(days=30)})
        choose(tracker, (1, "pro", datetime(2020, 1, 1)))
        assert held_months(redis) == {"2020-1": {"pro": {1}}}
        assert {redis.ttl(key) for key in redis.keys("trackist_*")} == {-1}

    def test_an_ignored_request_leaves_no_value_that_no_longer_holds(
        self, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (1, "free", OCTOBER))
        tracker.ignore(lambda: True)
        with app.test_request_context():
            choose(tracker, (1, "pro", NOVEMBER))
        assert not held(redis)
        assert held_months(redis) == {"2026-10": {"free": {1}}, "2026-11": {"": {1}}}

    def test_who_cannot_have_a_value_keeps_the_former_one(
        self, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (5, "free", OCTOBER))
        tracker.publish([Mark("user:plan", "ann", when=OCTOBER, choice="gold")])
        tracker.publish([Mark("user:plan", "ann", when=NOVEMBER, choice="free")])
        tracker.publish([Mark("user:plan", "ann", when=NOVEMBER, choice="")])
        assert held_months(redis)["2026-10"] == {"free": {5}, "gold": {0}}
        choose(tracker, (5, None, NOVEMBER))
        # The sets of one value have ids of one kind, so that two people never share a bit.
        assert held_months(redis) == {
            "2026-10": {"free": {5}, "gold": {0}},
            "2026-11": {"": {0}},
        }
        assert not held(redis)


class TestSinceWhen:
    def test_from_the_first_mark_on_that_asks_for_it(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        asking, other = process(redis_url), process(redis_url)
        choose(other, (1, "free", OCTOBER), (2, "free", OCTOBER), dated=False)
        choose(asking, (1, "pro", NOVEMBER))
        assert asking.reader.known().dated == {"user:plan": datetime(2026, 11, 1).date()}
        choose(other, (2, "pro", NOVEMBER), dated=False)  # knows nothing of it
        choose(other, (1, "gold", OCTOBER), dated=False)  # late
        assert held_months(redis) == {"2026-11": {"pro": {1, 2}}}
        assert held(redis) == {"gold": {1}, "pro": {2}}

    def test_an_earlier_mark_that_asks_for_it_begins_earlier(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        choose(one, (1, "pro", NOVEMBER))
        choose(other, (1, "free", SEPTEMBER))
        choose(one, (2, "pro", OCTOBER))
        choose(one, (3, "pro", NOVEMBER))
        assert redis.hget(DIMENSIONS, "dated:user:plan") == b"2026-09"
        choose(one, (3, "free", SEPTEMBER), dated=False)
        assert held_months(redis) == {
            "2026-9": {"free": {1, 3}},
            "2026-10": {"pro": {2}},
            "2026-11": {"pro": {1, 3}},
        }

    def test_another_dimension_is_not_concerned(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "pro", NOVEMBER))
        tracker.record([Mark("user:country", 1, dated=False, when=NOVEMBER, choice="de")])
        assert not redis.keys("trackist_user:country=*_2026*")
        assert [*tracker.reader.known().dated] == ["user:plan"]

    def test_a_field_that_came_as_another_went_is_seen(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url)
        one.record([Mark("user:country", 1, dated=False, choice="de")])
        choose(one, (1, "free", NOVEMBER), dated=False)
        redis.hdel(DIMENSIONS, "0:user:country")
        redis.hset(DIMENSIONS, "dated:user:plan", "2026-11")
        choose(one, (1, "free", NOVEMBER), dated=False)
        assert held_months(redis) == {"2026-11": {"free": {1}}}


class TestSeveralProcesses:
    @pytest.mark.parametrize("scripting", [True, False])
    def test_at_no_moment_has_anybody_two_values_of_a_month(
        self, redis_url: str, redis: Any, tmp_path: Path, scripting: bool
    ) -> None:
        url = redis_url if scripting else url_without_scripting(redis, redis_url)
        with WARM.Pool(RACERS) as pool:
            rounds = 100 if scripting else 30
            told = [
                (url, str(tmp_path), RACERS, seed, rounds, rounds // 4) for seed in range(RACERS)
            ]
            racing = pool.starmap_async(racing_values, told)
            while scripting and not racing.ready():
                for sets in held_months(redis, at_once=True).values():
                    people = Counter(one for of_value in sets.values() for one in of_value)
                    assert {*people.values()} <= {1}
            racing.get()
        (month,) = held_months(redis).values()
        assert sum(map(len, month.values())) == 20
        # Both are written in one step: so the last value of the month is the present one.
        assert month == held(redis)

    def test_in_a_cluster_too(self, clusters: Callable[[int], Cluster], tmp_path: Path) -> None:
        nodes = clusters(3)
        racers = 4
        with WARM.Pool(racers) as pool:
            told = [(nodes.url, str(tmp_path), racers, seed, 20, 4) for seed in range(racers)]
            pool.starmap(racing_values, told)
        with redis_py.RedisCluster.from_url(nodes.url) as client:
            fields = {key.decode(): one.decode() for key, one in client.hgetall(DIMENSIONS).items()}
            year, month = map(int, fields.pop("dated:user:plan").split("-"))
            of_month = {
                value: marked(client, f"trackist_user:plan={value}_{year}-{month}")
                for value in fields.values()
            }
            now = {
                value: marked(client, f"trackist_user:plan={value}_u") for value in fields.values()
            }
        assert sum(map(len, of_month.values())) == 20
        assert of_month == now


class TestWhatWaits:
    def test_a_mark_that_waits_is_one_of_the_month_in_which_it_was_made(
        self, mortal: MortalServer, process: Processes
    ) -> None:
        tracker, other = process(mortal.url), process(mortal.url, instance="other")
        choose(other, (9, "pro", OCTOBER))
        mortal.kill()
        for value, when in (("gold", OCTOBER), ("pro", NOVEMBER), ("team", NOVEMBER)):
            choose(tracker, (1, value, when), dated=False)
        choose(tracker, (2, None, OCTOBER), dated=False)
        mortal.start()
        assert tracker.flush()
        with redis_py.Redis.from_url(mortal.url) as client:
            assert held(client) == {"team": {1}, "pro": {9}}
            assert held_months(client) == {
                "2026-10": {"gold": {1}, "pro": {9}, "": {2}},
                "2026-11": {"team": {1}},
            }

    @pytest.mark.parametrize("seed", range(2))
    def test_a_queue_and_its_journal_keep_the_order(
        self, redis_url: str, redis: Any, process: Processes, seed: int
    ) -> None:
        tracker = process(redis_url, BITMAPIST_DELIVERY="background")
        history = a_history(seed)
        for batch in in_batches(history, seed):
            choose(tracker, *batch)
        assert tracker.flush()
        assert (held(redis), held_months(redis)) == replayed(history)

    @pytest.mark.parametrize("seed", range(3))
    def test_what_the_server_has_lost_is_sent_again(
        self, tmp_path: Path, process: Processes, seed: int
    ) -> None:
        server = MortalServer(tmp_path)
        server.start("--appendonly", "no")
        tracker = process(server.url)
        history = a_history(seed, 120)
        with redis_py.Redis.from_url(server.url) as client:
            for place, batch in enumerate(in_batches(history, seed)):
                choose(tracker, *batch)
                if not place:
                    client.save()
        server.kill()
        server.start("--appendonly", "no")
        choose(tracker, (99, "free", NOVEMBER))
        assert tracker.flush()
        with redis_py.Redis.from_url(server.url) as client:
            assert (held(client), held_months(client)) == replayed(
                [*history, (99, "free", NOVEMBER)]
            )
        server.kill()

    def test_marks_of_an_earlier_version_are_values_of_now(
        self, mortal: MortalServer, process: Processes
    ) -> None:
        tracker = process(mortal.url)
        choose(tracker, (1, "free", OCTOBER))
        mortal.kill()
        choose(tracker, (1, "pro", NOVEMBER), dated=False)
        with sqlite3.connect(str(tracker.settings.spool)) as db:
            ((row,),) = db.execute("SELECT marks FROM spooled").fetchall()
            ((deed, who),) = json.loads(row)
            of_before = [deed[0], deed[1], None, False, False, *deed[5:7], None, deed[8]]
            db.execute("UPDATE spooled SET marks = ?", (json.dumps([[of_before, who]]),))
        mortal.start()
        assert tracker.flush()
        with redis_py.Redis.from_url(mortal.url) as client:
            assert held(client) == {"pro": {1}}
            assert held_months(client) == {"2026-10": {"free": {1}}}


class TestOlderHistory:
    def test_another_value_in_the_slot_of_one_that_was_lost_is_cleared(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url)
        choose(one, (1, "free", NOVEMBER), dated=False)
        dump = {key: redis.dump(key) for key in redis.keys("*") if b"trips" not in key}
        choose(one, (1, "gold", NOVEMBER))
        redis.flushdb()
        for key, value in dump.items():
            redis.restore(key, 0, value)
        choose(process(redis_url), (1, "silver", OCTOBER), (2, "silver", NOVEMBER))
        choose(one, (1, "gold", NOVEMBER), (2, "free", NOVEMBER))
        assert held(redis) == {"gold": {1}, "free": {2}}
        assert held_months(redis) == {
            "2026-10": {"silver": {1}},
            "2026-11": {"gold": {1}, "free": {2}},
        }
        assert redis.hget(DIMENSIONS, "dated:user:plan") == b"2026-10"

    def test_since_when_is_found_again_if_it_is_lost(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url)
        choose(one, (1, "free", OCTOBER), (1, None, NOVEMBER))
        redis.delete(DIMENSIONS)
        choose(one, (1, "new", NOVEMBER))
        assert held(redis) == {"new": {1}}
        assert held_months(redis) == {"2026-10": {"free": {1}}, "2026-11": {"new": {1}}}
        assert not one.reader.known().events
