"""Names that are new to the registry are entered at once, and nothing that is there changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from threading import Thread
from typing import Any

import pytest
import redis as redis_py
from test_ids import url_without_scripting

from flask_bitmapist import registry
from flask_bitmapist.entering import Keys, enter_new
from flask_bitmapist.registry import CALENDAR, FIRST_DAYS, KINDS, KINDS_COPY
from flask_bitmapist.tracker import Tracker

KEYS = Keys(KINDS, KINDS_COPY, FIRST_DAYS, CALENDAR)
DAY, LATER = date(2026, 3, 14), date(2026, 3, 20)


def enter(client: Any, kinds: dict[str, str], days: dict[str, date]) -> set[str]:
    return enter_new(client, KEYS, "UTC", kinds, days)


def registered(client: Any) -> tuple[dict[str, str], dict[str, str], dict[str, int]]:
    kinds, copies = (
        {name.decode(): kind.decode() for name, kind in client.hgetall(key).items()}
        for key in (KINDS, KINDS_COPY)
    )
    days = client.zrange(FIRST_DAYS, 0, -1, withscores=True)
    return kinds, copies, {name.decode(): int(day) for name, day in days}


def test_new_names_get_their_kind_its_copy_and_their_first_day(redis: Any) -> None:
    kinds = {"a": "plain", "b": "mapped", "flag": "plain", "é": "plain"}
    days = {"a": DAY, "b": LATER, "é": DAY}
    assert enter(redis, kinds, days) == kinds.keys()
    ordinals = {name: day.toordinal() for name, day in days.items()}
    assert registered(redis) == (kinds, kinds, ordinals)
    assert redis.get(CALENDAR) == b"UTC"


def test_thousands_of_names_are_entered(redis: Any) -> None:
    kinds = {f"e{number}": "plain" for number in range(3_001)}
    assert enter(redis, kinds, dict.fromkeys(kinds, DAY)) == kinds.keys()
    held, copies, days = registered(redis)
    assert held == copies == kinds
    assert days == dict.fromkeys(kinds, DAY.toordinal())


@pytest.mark.parametrize("key", [KINDS, KINDS_COPY])
def test_what_another_process_has_entered_meanwhile_stays(redis: Any, key: str) -> None:
    redis.hset(key, "theirs", "mapped")
    redis.set(CALENDAR, "Europe/Berlin")
    before = registered(redis)
    assert enter(redis, {"theirs": "plain"}, {"theirs": DAY}) == set()
    assert registered(redis) == before
    assert enter(redis, {"theirs": "plain", "ours": "plain"}, {}) == {"ours"}
    assert redis.hget(key, "theirs") == b"mapped"
    assert redis.get(CALENDAR) == b"Europe/Berlin"


def test_the_server_is_given_the_script_again(redis: Any) -> None:
    assert enter(redis, {"a": "plain"}, {}) == {"a"}
    redis.script_flush()
    assert enter(redis, {"b": "plain", "c": "mapped"}, {}) == {"b", "c"}


def test_a_server_that_runs_no_scripts_gets_a_command_for_each(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    url = url_without_scripting(redis, redis_url)
    with redis_py.Redis.from_url(url) as client:
        assert enter(client, {"a": "plain"}, {"a": DAY}) == set()
    assert registered(redis) == ({}, {}, {})
    process(url).record([("e", 1, True, True, DAY), ("texts", "x", True, True, LATER)])
    kinds = {"e": "plain", "texts": "mapped"}
    days = {"e": DAY.toordinal(), "texts": LATER.toordinal()}
    assert registered(redis) == (kinds, kinds, days)
    assert redis.get(CALENDAR) == b"UTC"


def test_plain_ids_are_marked_where_no_scripts_run(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    tracker = process(url_without_scripting(redis, redis_url))
    for names in (["a", "b"], ["c"]):
        tracker.record([(name, 7, True, True, DAY) for name in names])
    kinds = dict.fromkeys("abc", "plain")
    assert registered(redis) == (kinds, kinds, dict.fromkeys("abc", DAY.toordinal()))
    assert all(redis.getbit(f"trackist_{name}_2026-3", 7) for name in "abc")
    stats = tracker.stats()
    assert (stats.sent, stats.refused, stats.backlog) == (3, 0, 0)


def test_new_names_are_entered_by_the_trip_that_marks_them(
    process: Callable[..., Tracker], redis_url: str, round_trips: list[object]
) -> None:
    tracker = process(redis_url)
    tracker.record([("e", 1)])
    round_trips.clear()
    tracker.record([(f"e{number}", 1) for number in range(10)])
    assert len(round_trips) == 4  # what is known, how many keys there are, their names, the marks
    round_trips.clear()
    tracker.record([(f"e{number}", 2) for number in range(10)])
    assert len(round_trips) == 1


def test_many_trips_enter_their_names_once(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    redis.config_resetstat()
    names = [f"e{number}" for number in range(6_000)]
    process(redis_url).record([(name, 1, True, True, DAY) for name in names])
    kinds = dict.fromkeys(names, "plain")
    assert registered(redis) == (kinds, kinds, dict.fromkeys(names, DAY.toordinal()))
    stats = redis.info("commandstats")
    assert stats["cmdstat_setbit"]["calls"] == 18_000
    assert stats["cmdstat_eval"]["calls"] == 1


def test_a_name_that_another_process_enters_meanwhile_keeps_its_kind(
    redis: Any, redis_url: str, process: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = process(redis_url), process(redis_url)
    look = registry._with_bitmaps

    def after_theirs(*arguments: Any) -> list[str]:
        found = look(*arguments)
        monkeypatch.undo()
        theirs.record([("e", "x", True, True, LATER)])
        return found

    monkeypatch.setattr(registry, "_with_bitmaps", after_theirs)
    ours.record([("e", 7, True, True, DAY), ("new", 7, True, True, DAY)])
    kinds = {"e": "mapped", "new": "plain"}
    days = {"e": LATER.toordinal(), "new": DAY.toordinal()}
    assert registered(redis) == (kinds, kinds, days)
    assert ours.stats().refused == 1
    assert redis.bitcount("trackist_e_2026-3-14") == 0
    assert [redis.getbit(f"trackist_{name}_2026-3", 7) for name in ("e", "new")] == [0, 1]


@pytest.mark.parametrize("scripting", [True, False])
def test_a_name_that_two_processes_enter_has_one_kind(
    redis: Any, redis_url: str, process: Callable[..., Tracker], scripting: bool
) -> None:
    url = redis_url if scripting else url_without_scripting(redis, redis_url)
    ours, theirs = process(url), process(url)
    names = [f"e{number}" for number in range(300)]
    racers = [
        Thread(target=tracker.record, args=([(name, id_) for name in listed],))
        for tracker, id_, listed in ((ours, 1, names), (theirs, "x", names[::-1]))
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    kinds, copies, days = registered(redis)
    assert kinds == copies
    assert kinds.keys() == days.keys() == {*names}
    assert ours.stats().refused + theirs.stats().refused == len(names)


def test_a_thousand_new_names_take_few_commands_besides_their_bits(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    tracker = process(redis_url)
    tracker.record([("e", 1)])
    redis.config_resetstat()
    tracker.record([(f"e{number}", 1) for number in range(1_000)])
    calls = {name: stat["calls"] for name, stat in redis.info("commandstats").items()}
    assert calls.pop("cmdstat_setbit") == 3_000
    assert sum(calls.values()) < 20
