"""Dimensions: who has which value, in whatever order processes give them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from flask import Flask
from months import write_months
from nodes import Cluster
from racing import RACERS, racing_values
from servers import MortalServer, marked
from test_ids import url_without_scripting
from warm import WARM

from flask_bitmapist import UniqueEvents, mark_dimension
from flask_bitmapist.dimensions import DIMENSIONS, OTHER, choice_of, fitting_choice
from flask_bitmapist.ids import PLAIN
from flask_bitmapist.marks import Mark
from flask_bitmapist.registry import KINDS, KINDS_COPY, Registry, Wanted
from flask_bitmapist.testing import record_marks
from flask_bitmapist.tracker import Tracker

Processes = Callable[..., Tracker]


def choose(tracker: Tracker, *choices: tuple[object, object], dimension: str = "user:plan") -> None:
    """Give each person the value."""
    tracker.record(Mark(dimension, who, dated=False, choice=value) for who, value in choices)


def held(client: Any, dimension: str = "user:plan") -> dict[str, set[int]]:
    """Who has which value, whatever the registry says."""
    begin = f"trackist_{dimension}="
    keys = [key.decode() for key in client.keys(f"{begin}*")]
    found = {key.removeprefix(begin).removesuffix("_u"): marked(client, key) for key in keys}
    return {value: people for value, people in found.items() if people}


class TestWhoHasWhat:
    def test_the_last_value_is_the_only_one(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"), (2, "free"), (1, "pro"))
        assert held(redis) == {"free": {2}, "pro": {1}}
        choose(tracker, (2, "pro"), (1, "gold"), (3, "free"), (2, "free"))
        assert held(redis) == {"free": {2, 3}, "gold": {1}}

    def test_no_value_clears(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"), (2, "free"), (3, ""))
        choose(tracker, (1, ""), (2, ""), (2, "pro"), (9, ""))
        assert held(redis) == {"pro": {2}}

    def test_dimensions_are_apart(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "pro"))
        choose(tracker, (1, "pro"), (2, "x"), dimension="user:plan2")
        choose(tracker, (1, ""), dimension="user:plan2")
        assert held(redis) == {"pro": {1}}
        assert held(redis, "user:plan2") == {"x": {2}}

    def test_mapped_ids_too(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, ("ann", "free"), ("bob", "free"), ("eve", ""))
        choose(tracker, ("ann", "pro"))
        assert held(redis) == {"free": {1}, "pro": {0}}
        known = tracker.reader.known()
        assert known.flags["user:plan=pro"] == "mapped"

    def test_others_marks_of_a_commit_are_made_too(self, tracker: Tracker, redis: Any) -> None:
        tracker.record(
            [
                ("user:created", 1),
                Mark("user:plan", 1, dated=False, choice="pro"),
                ("user:premium", 1, True, False),
                ("user:premium", 2, False, False),
            ]
        )
        assert held(redis) == {"pro": {1}}
        assert marked(redis, "trackist_user:premium_u") == {1}
        assert tracker.reader.known().events.keys() == {"user:created"}

    def test_a_bitmap_is_no_longer_than_its_people_need(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"), (2, "pro"))
        choose(tracker, (1_000_000, "free"))
        assert redis.strlen("trackist_user:plan=pro_u") == 1

    def test_ids_of_another_kind_are_refused(
        self, tracker: Tracker, redis: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        choose(tracker, (5, "free"), (0, "pro"))
        tracker.publish([Mark("user:plan", "ann", dated=False, choice="gold")])
        tracker.publish([Mark("user:plan", "ann", dated=False, choice="free")])
        assert held(redis)["free"] == {5}
        assert held(redis)["pro"] == {0}
        assert "'user:plan=free' has plain ids" in caplog.text

    def test_an_ignored_request_leaves_no_value_that_no_longer_holds(
        self, app: Flask, tracker: Tracker, redis: Any
    ) -> None:
        choose(tracker, (1, "free"), (2, "free"))
        tracker.ignore(lambda: True)
        with app.test_request_context():
            choose(tracker, (1, "pro"), (2, "free"), (3, "pro"))
        assert not held(redis)

    def test_a_thousand_people_take_few_trips(
        self, tracker: Tracker, redis: Any, round_trips: list[object]
    ) -> None:
        choose(tracker, *((person, f"v{person}") for person in range(20)))
        everybody = [(person, f"v{person % 20}") for person in range(1_000)]
        round_trips.clear()
        choose(tracker, *everybody)
        assert len(round_trips) <= 4, round_trips
        assert {len(people) for people in held(redis).values()} == {50}


class TestSeveralProcesses:
    def test_a_value_that_this_process_does_not_know_is_cleared(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one, other = process(redis_url), process(redis_url)
        choose(one, (1, "free"), (2, "free"))
        choose(other, (1, "gold"), (2, "gold"))
        choose(one, (1, "free"))
        assert held(redis) == {"free": {1}, "gold": {2}}
        choose(one, (2, ""))
        assert held(redis) == {"free": {1}}

    @pytest.mark.parametrize("scripting", [True, False])
    def test_at_no_moment_has_anybody_two_values(
        self, redis_url: str, redis: Any, tmp_path: Path, scripting: bool
    ) -> None:
        url = redis_url if scripting else url_without_scripting(redis, redis_url)
        with WARM.Pool(RACERS) as pool:
            rounds = 100 if scripting else 30
            told = [(url, str(tmp_path), RACERS, seed, rounds) for seed in range(RACERS)]
            racing = pool.starmap_async(racing_values, told)
            while scripting and not racing.ready():
                keys = redis.keys("trackist_user:plan=*")
                found = redis.mget(keys) if keys else []
                assert {*Counter(bits_of(found)).values()} <= {1}
            waited = racing.get()
        assert not scripting or not any(waited)
        everybody = Counter(person for people in held(redis).values() for person in people)
        assert everybody == dict.fromkeys(range(20), 1)
        slots = redis.hvals(DIMENSIONS)
        assert len(slots) == len({*slots}) == 24

    def test_in_a_cluster_everybody_ends_up_with_one_value(
        self, clusters: Callable[[int], Cluster], tmp_path: Path
    ) -> None:
        nodes = clusters(3)
        racers = 4
        with WARM.Pool(racers) as pool:
            told = [(nodes.url, str(tmp_path), racers, seed, 20) for seed in range(racers)]
            pool.starmap(racing_values, told)
        with redis_py.RedisCluster.from_url(nodes.url) as client:
            values = [value.decode() for value in client.hvals(DIMENSIONS)]
            found = [marked(client, f"trackist_user:plan={value}_u") for value in values]
        assert sorted(values) == sorted(f"v{number}" for number in range(24))
        everybody = Counter(person for people in found for person in people)
        assert everybody == dict.fromkeys(range(20), 1)

    def test_another_thread_may_hear_of_new_values_meanwhile(self, redis: Any) -> None:
        registry, unmarked = Registry("UTC"), Wanted(PLAIN, False, None)
        registry.admit(redis, {"user:plan=free": unmarked}, datetime.now)

        def meanwhile() -> datetime:
            registry.forget_values()
            return datetime.now()

        wanted = {"user:plan=free": unmarked, "user:plan=pro": Wanted(PLAIN, True, None)}
        assert registry.admit(redis, wanted, meanwhile) == {
            "user:plan=free": None,
            "user:plan=pro": PLAIN,
        }


class TestTooManyValues:
    def test_those_beyond_the_bound_are_others(
        self,
        redis_url: str,
        redis: Any,
        process: Processes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        one = process(redis_url, BITMAPIST_DIMENSION_VALUES=2)
        choose(one, *((number, f"v{number}") for number in range(5)))
        assert held(redis) == {"v0": {0}, "v1": {1}, OTHER: {2, 3, 4}}
        choose(one, (2, "v1"), (0, "v9"), (1, ""))
        assert held(redis) == {"v1": {2}, OTHER: {0, 3, 4}}
        assert caplog.text.count("BITMAPIST_DIMENSION_VALUES") == 1
        assert one.reader.known().dimensions == {"user:plan": ("v0", "v1", OTHER)}

    def test_processes_at_once_do_not_exceed_it(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        several = [process(redis_url, BITMAPIST_DIMENSION_VALUES=3) for _ in range(4)]
        for tracker in several:
            choose(tracker, (0, "first"))  # each knows of one value alone
        for number, tracker in enumerate(several):
            choose(tracker, (number, f"v{number}"))
        assert held(redis) == {"v0": {0}, "v1": {1}, OTHER: {2, 3}}

    def test_nor_where_another_one_takes_the_last_room_between_a_look_and_an_entry(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        other = process(redis_url, BITMAPIST_DIMENSION_VALUES=2)
        choose(other, (1, "a"))

        class Overtaken(redis_py.Redis):
            def execute_command(self, *command: Any, **options: Any) -> Any:
                found: Any = super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
                choose(other, (2, "b"))
                return found

        with Overtaken.from_url(redis_url) as client:
            slots = Registry("UTC").admit_values(client, {"user:plan": ["c"]}, 2)
        assert slots.values("user:plan") == ["a", "b"]
        assert {*redis.hvals(DIMENSIONS)} == {b"a", b"b"}

    def test_more_room_is_made_use_of_and_less_takes_nothing_away(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        choose(process(redis_url, BITMAPIST_DIMENSION_VALUES=1), (0, "a"), (1, "b"))
        choose(process(redis_url, BITMAPIST_DIMENSION_VALUES=2), (1, "b"), (2, "c"))
        choose(process(redis_url, BITMAPIST_DIMENSION_VALUES=1), (3, "b"), (4, "d"))
        assert held(redis) == {"a": {0}, "b": {1, 3}, OTHER: {2, 4}}

    def test_other_may_be_a_value_of_its_own(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"), (2, OTHER))
        choose(tracker, (2, "free"), (1, OTHER))
        assert held(redis) == {"free": {2}, OTHER: {1}}


class TestWhatWaits:
    """In an outage, in a queue, behind what the server refuses: the order stays."""

    def test_the_last_one_of_an_outage_decides(
        self, mortal: MortalServer, process: Processes
    ) -> None:
        tracker = process(mortal.url)
        choose(tracker, (1, "free"), (2, "free"))
        mortal.kill()
        for value in ("gold", "pro", "silver"):
            choose(tracker, (1, value))
        choose(tracker, (2, ""))
        mortal.start()
        assert tracker.flush()
        choose(tracker, (3, "pro"))
        with redis_py.Redis.from_url(mortal.url) as client:
            assert held(client) == {"silver": {1}, "pro": {3}}

    def test_the_last_one_in_the_queue_decides(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        tracker = process(redis_url, BITMAPIST_DELIVERY="background")
        for number in range(30):
            choose(tracker, (1, f"v{number % 7}"), (2, f"v{number % 4}"), dimension="a:b")
        choose(tracker, (1, "v3"), dimension="a:c")
        assert tracker.flush()
        assert held(redis, "a:c") == {"v3": {1}}
        assert held(redis, "a:b") == {"v1": {1, 2}}

    def test_what_the_server_has_lost_is_sent_again_in_order(
        self, tmp_path: Path, process: Processes
    ) -> None:
        server = MortalServer(tmp_path)
        server.start("--appendonly", "no")
        tracker = process(server.url)
        choose(tracker, (1, "free"), (2, "free"), (3, "gold"))
        with redis_py.Redis.from_url(server.url) as client:
            client.save()
        choose(tracker, (1, "pro"), (2, "pro"), (1, "silver"), (3, ""))
        tracker.record([("user:premium", 5, False, False)])
        choose(tracker, (1, "gold"), (2, "silver"))
        choose(tracker, (1, "bronze"), (4, "gold"))
        choose(tracker, (4, "bronze"), (5, "bronze"))
        choose(tracker, (4, "gold"), (5, "gold"), (5, "bronze"), (5, "gold"))
        server.kill()
        server.start("--appendonly", "no")
        choose(tracker, (9, "free"))
        assert tracker.flush()
        with redis_py.Redis.from_url(server.url) as client:
            assert held(client) == {"bronze": {1}, "silver": {2}, "free": {9}, "gold": {4, 5}}
        server.kill()

    def test_what_is_refused_does_not_come_after_what_followed_it(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        tracker = process(redis_url)
        choose(tracker, (1, "free"), (2, "free"))
        redis.hset("trackist_user:plan=pro_u", "not", "a bitmap")
        choose(tracker, (1, "pro"))
        choose(tracker, (2, "1"), dimension="user:level")
        assert held(redis, "user:level") == {"1": {2}}
        redis.delete("trackist_user:plan=pro_u")
        choose(tracker, (1, "gold"))  # now it would be taken
        assert sum(tracker.stats().waiting.values()) == 2
        assert tracker.flush()
        assert held(redis) == {"free": {2}, "gold": {1}}


class TestOlderHistory:
    def test_another_value_in_the_slot_of_one_that_was_lost_is_cleared(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url)
        choose(one, (1, "free"))
        dump = {key: redis.dump(key) for key in redis.keys("*") if b"trips" not in key}
        choose(one, (1, "gold"))
        redis.flushdb()
        for key, value in dump.items():
            redis.restore(key, 0, value)
        choose(process(redis_url), (1, "silver"), (2, "silver"))
        choose(one, (1, "gold"), (2, "free"))
        assert held(redis) == {"gold": {1}, "free": {2}}
        assert redis.hgetall(DIMENSIONS) == {
            b"0:user:plan": b"free",
            b"1:user:plan": b"silver",
            b"2:user:plan": b"gold",
        }

    @pytest.mark.parametrize("lost", [(DIMENSIONS,), (DIMENSIONS, KINDS), (DIMENSIONS, KINDS_COPY)])
    def test_values_whose_slots_are_lost_are_found_again(
        self, redis_url: str, redis: Any, process: Processes, lost: tuple[str, ...]
    ) -> None:
        one = process(redis_url)
        choose(one, (1, "free"), (2, "gold"))
        redis.delete(*lost)
        choose(process(redis_url), (2, "new"))
        choose(one, (1, "new"))
        assert held(redis) == {"new": {1, 2}}

    def test_nobody_gets_the_value_of_somebody_else(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url)
        choose(one, ("ann", "free"))
        dump = {key: redis.dump(key) for key in redis.keys("*") if b"trips" not in key}
        choose(one, ("bob", "free"))
        redis.flushdb()
        for key, value in dump.items():
            redis.restore(key, 0, value)
        choose(process(redis_url), ("eve", "gold"))  # has the offset that bob had
        choose(one, ("bob", "free"))
        assert one.flush()
        assert held(redis) == {"free": {0, 2}, "gold": {1}}


class TestErasing:
    def test_no_value_comes_back(self, mortal: MortalServer, process: Processes) -> None:
        late, eraser = process(mortal.url), process(mortal.url, instance="other")
        choose(late, (1, "free"), (2, "free"), dimension="a:b")
        choose(late, (1, "free"), (2, "free"))
        mortal.kill()
        choose(late, (1, "pro"), (2, "pro"))
        mortal.start()
        eraser.erase(1)
        assert late.flush()
        with redis_py.Redis.from_url(mortal.url) as client:
            assert held(client) == {"pro": {2}}
            assert 1 not in marked(client, "trackist_a:b=free_u")

    def test_a_dimension_whose_ids_are_no_persons_is_kept(
        self, mortal: MortalServer, process: Processes
    ) -> None:
        late, eraser = process(mortal.url), process(mortal.url, instance="other")
        choose(late, (1, "news"), (2, "news"), dimension="post:topic")
        choose(late, (1, "free"))
        mortal.kill()
        choose(late, (1, "sports"), dimension="post:topic")
        choose(late, (1, "pro"))
        mortal.start()
        receipt = eraser.erase(1, keep=["post:topic"])
        assert receipt.kept == ["post:topic", "post:topic=news"]
        with pytest.raises(ValueError, match="nobody has ever marked 'post:tropic'"):
            eraser.erase(1, keep=["post:tropic"])
        assert late.flush()
        with redis_py.Redis.from_url(mortal.url) as client:
            assert held(client, "post:topic") == {"news": {2}, "sports": {1}}
            assert not held(client)


class TestForgetting:
    def test_values_without_a_bitmap_are_forgotten_and_leave_room(
        self, redis_url: str, redis: Any, process: Processes
    ) -> None:
        one = process(redis_url, BITMAPIST_DIMENSION_VALUES=2)
        choose(one, (1, "free"), (2, "pro"))
        choose(one, (1, "pro"))
        redis.delete("trackist_user:plan=free_u")
        assert process(redis_url).forget_emptied() == ["user:plan=free"]
        choose(one, (1, "gold"))
        choose(one, (2, "silver"))
        assert held(redis) == {"gold": {1}, OTHER: {2}}
        choose(one, (1, "free"), (2, "pro"))
        assert held(redis) == {"pro": {2}, OTHER: {1}}
        assert one.reader.known().dimensions == {"user:plan": ("gold", "pro", OTHER)}


class TestMarkDimension:
    def test_it_gives_one_or_many_a_value(self, app: Flask, redis: Any) -> None:
        with app.app_context():
            mark_dimension("user:plan", 1, Plan.FREE)
            mark_dimension("user:plan", [2, 3, 4], "pro")
            mark_dimension("user:plan", 3, None)
            mark_dimension("user:plan", np.arange(4, 6), "free")
            assert {1, 4, 5} == {*UniqueEvents("user:plan=free")}
        assert held(redis) == {"free": {1, 4, 5}, "pro": {2}}

    @pytest.mark.parametrize(
        ("name", "who", "value", "error", "told"),
        [
            ("user=plan", 1, "pro", ValueError, "'user=plan' cannot name a dimension"),
            ("", 1, "pro", ValueError, "'' cannot name an event"),
            ("user:plan", -1, "pro", ValueError, "-1"),
            ("user:plan", None, "pro", TypeError, "None"),
            ("user:plan", 1, 1.5, TypeError, "a dimension's value is a str, int, bool, Enum"),
            ("user:plan", 1, "a\nb", ValueError, "cannot be a value of 'user:plan'"),
            ("user:plan", 1, "a" * 200, ValueError, "cannot be a value of 'user:plan'"),
        ],
    )
    def test_a_wrong_call_is_an_error_before_any_io(
        self,
        app: Flask,
        redis: Any,
        name: str,
        who: object,
        value: object,
        error: type[Exception],
        told: str,
    ) -> None:
        with app.app_context(), pytest.raises(error, match=re.escape(told)):
            mark_dimension(name, who, value)
        assert not redis.keys("*")

    def test_a_test_reads_what_was_recorded(self, app: Flask) -> None:
        with app.app_context(), record_marks() as marks:
            mark_dimension("user:plan", 7, "free")
            mark_dimension("user:plan", [7, 8], Plan.PRO)
            mark_dimension("user:plan", 8, None)
        assert marks == [
            Mark("user:plan", 7, dated=False, choice="free"),
            Mark("user:plan", 7, dated=False, choice="PRO"),
            Mark("user:plan", 8, dated=False, choice="PRO"),
            Mark("user:plan", 8, dated=False, choice=""),
        ]
        assert marks != [("user:plan", 7), *marks[1:]]
        assert marks.flags() == {"user:plan=PRO": {7}}
        assert marks.of("user:plan=free") == set()
        assert eval(repr(marks)) == marks

    def test_a_value_of_a_model_that_fits_no_name_counts_as_other(self) -> None:
        assert fitting_choice("user:country", "x" * 300) == OTHER
        assert fitting_choice("user:country", "a\tb") == OTHER
        assert fitting_choice("user:country", None) == ""


class Plan(Enum):
    FREE = "free"
    PRO = 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (" pro ", "pro"),
        ("", ""),
        (3, "3"),
        (True, "true"),
        (False, "false"),
        (Plan.FREE, "free"),
        (Plan.PRO, "PRO"),
    ],
)
def test_a_value_is_its_text(value: object, text: str) -> None:
    assert choice_of(value) == text


@pytest.mark.parametrize("value", [1.5, ["a"], b"a", object])
def test_what_has_no_text_of_its_own_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="a dimension's value is a str, int, bool, Enum or None"):
        choice_of(value)


def bits_of(bitmaps: list[bytes | None]) -> list[int]:
    """The people in each of `bitmaps`, one after the other."""
    return [
        bit
        for bitmap in bitmaps
        if bitmap
        for bit in range(8 * len(bitmap))
        if bitmap[bit // 8] & 128 >> bit % 8
    ]


class TestWhatIsKnown:
    """Read: the dimensions that there are, and their values."""

    def test_values_are_told_in_the_order_in_which_they_came(
        self, tracker: Tracker, redis: Any
    ) -> None:
        for value in ("free", "pro", "a b", "other"):
            tracker.record([Mark(f"user:plan={value}", 1, dated=False)])
        redis.hset(
            DIMENSIONS,
            mapping={"2:user:plan": "a b", "10:user:plan": "pro", "1:user:plan": "free"},
        )

        known = tracker.reader.known()

        assert known.dimensions == {"user:plan": ("free", "a b", "pro", "other")}
        assert known.flags["user:plan=a b"] == "plain"

    def test_fields_of_others_are_passed_over(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"))
        redis.hset(DIMENSIONS, mapping={"note": "x", "a:b": "y"})
        choose(tracker, (1, "pro"))
        assert tracker.reader.known().dimensions == {"user:plan": ("free", "pro")}
        assert held(redis) == {"pro": {1}}

    def test_a_value_that_nobody_ever_had_is_not_told(self, tracker: Tracker, redis: Any) -> None:
        tracker.record([Mark("user:plan=pro", 1, dated=False)])
        redis.hset(
            DIMENSIONS, mapping={"0:user:plan": "free", "1:user:plan": "pro", "0:user:from": "us"}
        )

        assert tracker.reader.known(scanned=False).dimensions == {"user:plan": ("pro",)}

    def test_since_when_months_are_kept(self, tracker: Tracker, redis: Any) -> None:
        write_months(
            redis,
            "user:plan",
            {"2026-02": {"free": {1, 2}, "": {3}}, "2026-11": {"pro": {1}, "other": {2}}},
            {"pro": {1}, "other": {2}},
        )
        tracker.record([("user:seen", 1)])

        for scanned in (True, False):
            known = tracker.reader.known(scanned=scanned)

            assert known.dated == {"user:plan": date(2026, 2, 1)}
            assert known.dimensions == {"user:plan": ("pro", "free", "other")}
            assert known.events.keys() == {"user:seen"}
            assert {*known.flags} == {f"user:plan={value}" for value in ("free", "pro", "other")}

    def test_a_month_that_is_none_is_no_month(self, tracker: Tracker, redis: Any) -> None:
        choose(tracker, (1, "free"))
        redis.hset(DIMENSIONS, "dated:user:plan", "yesterday")
        assert tracker.reader.known().dated == {}
