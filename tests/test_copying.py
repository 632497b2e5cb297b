"""What one server has, another gets, while both are in use."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from conftest import Server
from documented import ROOT
from flask import Flask
from history.bits import bits_of
from nodes import Cluster, Marking
from servers import MortalServer

from flask_bitmapist import chart, packed_periods, swapping
from flask_bitmapist.annotations import annotation_of, keep, kept
from flask_bitmapist.boards import Board
from flask_bitmapist.id_map import assigning
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.maintenance import copied_bitmaps, copying, promote, sides
from flask_bitmapist.maintenance.copying import Copied, Copy
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.marks import Mark
from flask_bitmapist.packed_periods import packed_keys
from flask_bitmapist.periods import Period
from flask_bitmapist.saved import BOARDS, add_chart, save, saved
from flask_bitmapist.tracker import Tracker, _Settling

LONG_AGO = datetime(2024, 2, 29, 9)
TRANSCRIPT = re.compile(r"^```\{code-block\} console\n:caption: [^\n]+\n\n(.*?)^```$", re.M | re.S)
ANN, BOB = "ann@example.org", "bob@example.org"


@pytest.fixture
def other_url(server: Server) -> str:
    return server.fresh_database()


@pytest.fixture
def other(other_url: str) -> Iterator[redis_py.Redis]:
    """The server to copy from."""
    with redis_py.Redis.from_url(other_url) as client:
        yield client


@pytest.fixture
def old(process: Callable[..., Tracker], other_url: str) -> Tracker:
    """An application on the server to copy from."""
    return process(other_url, instance="old")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up soon."""
    monkeypatch.setattr(sides, "PATIENCE", 0.3)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to be waited for before something is packed."""
    for module in (packed_periods, swapping):
        monkeypatch.setattr(module, "TRUSTED", 0.0)


def job(source: Any, tracker: Tracker, **options: Any) -> Copy:
    return Copy(source, tracker.server.patient, tracker.settings, **options)


def copied(source: Any, tracker: Tracker, **options: Any) -> Copied:
    done = job(source, tracker, **options).run()
    assert not done.is_wanting
    return done


def test_what_the_target_has_under_a_key_instead_of_a_bitmap_stops_nothing_else(
    old: Tracker, other: Any, redis: Any, tracker: Tracker
) -> None:
    old.record([(event, 7, True, True, LONG_AGO) for event in ("a", "b")])
    redis.lpush("trackist_a_2024-2-29", "a list")
    done = job(other, tracker).run()
    assert done.unequal == ["trackist_a_2024-2-29"]
    assert done.is_wanting
    assert len(values_of(redis)) == 5
    redis.delete("trackist_a_2024-2-29")
    copied(other, tracker)
    assert values(redis) == values(other)


def test_visitors_who_have_become_users_are_users_on_the_target_too(
    other: Any,
    other_url: str,
    redis: Any,
    redis_url: str,
    process: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = process(other_url, instance="old", BITMAPIST_ID_MAP="always")
    new = process(redis_url, BITMAPIST_ID_MAP="always")
    recently = datetime.now() - timedelta(days=2)
    people = ("visitor:1", "visitor:2", "visitor:3", BOB)
    old.record([("a", id_, True, True, recently) for id_ in people])
    old.promote("visitor:1", ANN, recently.date())
    with monkeypatch.context() as patched:
        patched.setattr(promote._Mover, "move", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            old.promote("visitor:2", ANN, recently.date())
    copied(other, new)
    assert users(new, "a", recently) == {ANN, None, "visitor:3", BOB}  # visitor:2 is being moved
    new.record([("late", "visitor:1", True, True, recently)])
    assert users(new, "late", recently) == {ANN}
    old.promote("visitor:3", BOB, recently.date())  # it has been copied before
    copied(other, new)
    monkeypatch.setattr(promote, "_ABANDONED", 0)
    new.promote("visitor:4", BOB, recently.date())
    assert users(new, "a", recently) == {ANN, BOB}
    new.erase(ANN)
    assert not any(b"visitor:1" in redis.dump(key) for key in redis.scan_iter("*"))


def users(tracker: Tracker, event: str, when: datetime) -> set[object]:
    """Those who have a bit; None is nobody."""
    key = Period.containing("month", when).key(event)
    held = "".join(f"{byte:08b}" for byte in tracker.redis.get(key))
    offsets = [offset for offset, bit in enumerate(held) if bit == "1"]
    return {*tracker.reader.ids_at(offsets, MAPPED)}


def values_of(client: Any) -> list[bytes]:
    return [key for key in client.scan_iter("trackist_*") if client.type(key) == b"string"]


def values(client: Any) -> dict[str, bytes]:
    return {key.decode(): client.get(key) for key in client.scan_iter("trackist_*")}


def test_what_bitmapist_has_marked_is_all_there(other: Any, redis: Any, tracker: Tracker) -> None:
    bitmapist.SYSTEMS["old"] = other
    for id_ in (1, 7, 90_000):
        bitmapist.mark_event("a", id_, system="old", now=LONG_AGO, track_hourly=True)
    bitmapist.mark_unique("a_b", 3, system="old")
    found = job(other, tracker).survey()
    assert (found.bitmaps, found.events, found.skipped) == (5, {"a", "a_b"}, 0)
    done = copied(other, tracker)
    assert values(redis) == values(other)
    assert (done.bitmaps, done.written, done.passes) == (5, 5, 2)
    assert done.source_bits == done.target_bits == 13
    assert tracker.reader.known(scanned=False).events["a"].first_day == date(2024, 2, 1)
    assert copied(other, tracker).written == 0


def test_nobody_has_two_values_of_a_dimension_after_a_second_copy(
    old: Tracker, other: Any, tracker: Tracker
) -> None:
    def choose(tracker: Tracker, *choices: tuple[int, str]) -> None:
        tracker.record(Mark("plan", who, dated=False, choice=value) for who, value in choices)

    def held() -> dict[str, set[object]]:
        found = bits_of(tracker)
        return {key[14:-2]: people for key, people in found.items() if "plan=" in key}

    choose(old, (1, "free"), (2, "free"), (3, "pro"), (4, "free"))
    copied(other, tracker)
    assert tracker.reader.known().dimensions == {"plan": ("free", "pro")}
    choose(old, (1, "pro"), (3, "gold"), (4, ""))
    choose(tracker, (9, "silver"), (2, "silver"))
    assert job(other, tracker).run().source_bits == 3
    assert held() == {"free": {2, 4}, "pro": {1}, "gold": {3}, "silver": {9}}
    choose(tracker, (1, "free"), (3, "silver"))
    assert held() == {"free": {1, 2, 4}, "silver": {3, 9}}


def test_bits_of_the_target_stay(other: Any, redis: Any, tracker: Tracker) -> None:
    key = "trackist_a_2024-2"
    other.setbit(key, 7, 1)
    other.setbit(key, 90_000, 1)
    redis.setbit(key, 8, 1)
    redis.setbit(key, 200_000, 1)
    done = copied(other, tracker)
    assert [redis.getbit(key, id_) for id_ in (7, 8, 90_000, 200_000)] == [1, 1, 1, 1]
    assert redis.bitcount(key) == 4
    assert done.source_bits == 2


def test_keys_of_bitmapist4_get_our_names(other: Any, redis: Any, tracker: Tracker) -> None:
    names = ["a_b_2024-2-29", "a_b_W2024-9", "a_b_2024-2", "a_b_u", "bitop_OR_bitmapist_a_b_2024-2"]
    for name in names:
        other.setbit(f"bitmapist_{name}", 7, 1)
    other.setbit("trackist_c_2024-2", 7, 1)
    assert copied(other, tracker, prefix="bitmapist_").bitmaps == 4
    assert values(redis).keys() == {f"trackist_{name}" for name in names[:-1]}


def test_keys_of_another_prefix_may_be_on_the_same_server(redis: Any, tracker: Tracker) -> None:
    redis.setbit("bitmapist_a_2024-2", 7, 1)
    copied(redis, tracker, prefix="bitmapist_")
    assert redis.getbit("trackist_a_2024-2", 7)


def test_expiries_are_carried_over(other: Any, redis: Any, tracker: Tracker) -> None:
    for number in range(1, 5):
        other.setbit(f"trackist_a_2024-{number}", 7, 1)
    for number in (1, 2, 3):
        other.expire(f"trackist_a_2024-{number}", 1000)
    redis.setbit("trackist_a_2024-2", 8, 1)
    redis.setbit("trackist_a_2024-3", 8, 1)
    redis.expire("trackist_a_2024-3", 5000)
    redis.setbit("trackist_a_2024-4", 8, 1)
    redis.expire("trackist_a_2024-4", 5000)
    copied(other, tracker)
    first, *others = (redis.ttl(f"trackist_a_2024-{number}") for number in range(1, 5))
    assert 900 < first <= 1000
    assert others[0] == others[2] == -1  # one of the two kept it for good
    assert 4900 < others[1] <= 5000


def test_what_is_no_bitmap_is_left_and_counted(other: Any, redis: Any, tracker: Tracker) -> None:
    other.lpush("trackist_a_2024-1", "a list")
    other.setbit("trackist_strange", 1, 1)
    other.setbit("trackist_a_2024-13", 1, 1)
    other.setbit("trackist_a_2024-2", 1, 1)
    assert job(other, tracker).survey().skipped == 3
    assert copied(other, tracker).skipped == 3
    assert [*values(redis)] == ["trackist_a_2024-2"]


def test_long_bitmaps_are_copied_in_parts(
    other: Any, redis: Any, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copied_bitmaps, "_BYTES", 1000)
    monkeypatch.setattr(copying, "_KEYS", 3)
    for number in range(1, 10):
        for id_ in (number, 7_999, 8_000, 50_000 + number):
            other.setbit(f"trackist_a_2024-{number}", id_, 1)
    redis.setbit("trackist_a_2024-3", 3, 1)
    copied(other, tracker)
    assert values(redis) == values(other)


@pytest.mark.usefixtures("at_once")
def test_mapped_ids_packed_periods_and_flags_go_along(
    other: Any, redis: Any, old: Tracker, tracker: Tracker
) -> None:
    for day in (1, 2):
        when = datetime(2024, 2, day, 9)
        old.record([("e", id_, True, True, when, True, True) for id_ in (ANN, BOB)])
    old.record([("plain", 90_000, True, True, LONG_AGO)])
    old.record([("plain:flag", 7, True, False)])
    for key in ("trackist_e_2024-2-1", "trackist_plain_2024-2"):
        other.setbit(key, 70_000 if "plain" in key else 0, 1)
        swapping.announce(other, date(2025, 1, 1))
        assert key.endswith("2-1") or swapping.pack(other, key)
    done = copied(other, tracker)
    assert bits_of(tracker) == bits_of(old)
    assert {*packed_keys(redis)} == {"trackist_plain_2024-2"}
    known, before = (one.reader.known(scanned=False) for one in (tracker, old))
    assert known == before
    assert done.written == done.bitmaps
    tracker.record([("e", "new", True, True, LONG_AGO), ("e", ANN, True, True, LONG_AGO)])
    assert bits_of(tracker)["trackist_e_2024-2-29"] == {"new", ANN}
    assert copied(other, tracker).written == 0


@pytest.mark.usefixtures("at_once")
def test_boards_and_annotations_go_along_and_those_of_the_target_stay(
    other: Any, redis: Any, tracker: Tracker
) -> None:
    release = annotation_of(date(2026, 11, 1), "v2.0")
    theirs = save(other, Board("Weekly", (chart("A", "trend", event="a"),)))
    ours = save(redis, Board("Ours", ()))
    other.hset(BOARDS, b"\xff", b"\xff")
    keep(other, release)
    for _ in range(2):
        copied(other, tracker)
        assert [*saved(redis).boards] == [ours, theirs]
        assert redis.hget(BOARDS, b"\xff") == b"\xff"
        assert kept(redis) == [release]
        add_chart(redis, theirs, chart("B", "trend", event="b"))
    assert len(saved(redis).boards[theirs].charts) == 3


def test_two_packed_forms_are_merged(
    other: Any, redis: Any, old: Tracker, tracker: Tracker
) -> None:
    key = "trackist_e_2024-2"
    for client, id_ in ((other, 90_000), (redis, 95_000)):
        client.setbit(key, id_, 1)
        swapping.announce(client, date(2025, 1, 1))
        assert swapping.pack(client, key)
    copied(other, tracker)
    assert bits_of(tracker)[key] == {90_000, 95_000}


def test_other_offsets_are_refused(other: Any, redis: Any, old: Tracker, tracker: Tracker) -> None:
    old.record([("e", id_, True, True, LONG_AGO) for id_ in (ANN, BOB)])
    tracker.record([("e", id_, True, True, LONG_AGO) for id_ in (BOB, ANN)])
    before = values(redis)
    with pytest.raises(ValueError, match="different offsets, from 0 on"):
        job(other, tracker).survey()
    with pytest.raises(ValueError, match="different offsets, from 0 on"):
        job(other, tracker).run()
    assert values(redis) == before


def test_an_event_that_has_the_other_kind_of_ids_is_refused(
    other: Any, redis: Any, old: Tracker, tracker: Tracker
) -> None:
    old.record([("e", ANN, True, True, LONG_AGO), ("f", 7, True, True, LONG_AGO)])
    tracker.record([("e", 7, True, True, LONG_AGO)])
    with pytest.raises(ValueError, match="'e' has plain ids, and this one is mapped"):
        job(other, tracker).survey()


def test_bits_that_bitmapist_left_on_the_target_are_plain(
    other: Any, redis: Any, old: Tracker, tracker: Tracker
) -> None:
    old.record([("e", ANN, True, True, LONG_AGO)])
    redis.setbit("trackist_e_2024-1", 7, 1)
    with pytest.raises(ValueError, match="'e' has plain ids, and this one is mapped"):
        job(other, tracker).run()
    assert [*values(redis)] == ["trackist_e_2024-1"]


def test_who_was_erased_from_the_source_is_from_the_target(
    other: Any, redis: Any, old: Tracker, tracker: Tracker
) -> None:
    marks = [("e", id_, True, True, LONG_AGO) for id_ in (ANN, BOB)]
    old.record(marks)
    old.erase(ANN)
    copied(other, tracker)
    assert bits_of(tracker)["trackist_e_2024-2"] == {BOB}
    assert redis.hgetall("flask_bitmapist:erased") == other.hgetall("flask_bitmapist:erased")
    assert redis.hget("flask_bitmapist:events", "") == other.hget("flask_bitmapist:events", "")
    copied(other, tracker)


def test_whoever_waits_to_be_erased_waits_on_the_target_too(
    other: Any, old: Tracker, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.later.Later.submit", lambda *_: None)
    old.record([("e", id_, True, True, LONG_AGO) for id_ in (7, 8)])
    old.publish([Mark("user", 7, False, kept=())])
    copied(other, tracker)
    assert tracker.erase_due().people == 1
    assert bits_of(tracker)["trackist_e_2024-2"] == {8}


@pytest.mark.parametrize("scripts", [True, False])
def test_whoever_was_erased_from_the_source_gets_no_offset_on_the_target_by_a_late_mark(
    other: Any,
    redis: Any,
    old: Tracker,
    tracker: Tracker,
    process: Callable[..., Tracker],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    scripts: bool,
) -> None:
    """The copy comes between looking the id up and giving it an offset."""
    if not scripts:
        monkeypatch.setattr(assigning, "_add_by_script", assigning._add_in_transaction)
    late = process(redis_url, instance="late")
    old.record([("e", BOB, True, True, LONG_AGO)])
    copied(other, tracker)
    late.record([("e", BOB, True, True, LONG_AGO)])
    made = time.time()
    old.erase(ANN)
    add, done = assigning._added, list[object]()

    def add_later(*arguments: Any, **named: Any) -> Any:
        if not done:
            done.append(job(other, tracker).run())
        return add(*arguments, **named)

    monkeypatch.setattr(assigning, "_added", add_later)
    mark = _Settling(late)(("e", ANN, True, True, LONG_AGO))
    late._deliverer()._courier.deliver([mark], made)
    assert done
    assert redis.lrange(map_keys(MAPPED).block(0), 0, -1) == [BOB.encode()]


def test_who_was_erased_from_the_target_does_not_come_back_unasked(
    other: Any, old: Tracker, tracker: Tracker
) -> None:
    old.record([("e", ANN, True, True, LONG_AGO), ("p", 7, True, True, LONG_AGO)])
    copied(other, tracker)
    tracker.erase(7)
    with pytest.raises(ValueError, match="1 erased persons of the target.*--ignore-erasures"):
        job(other, tracker).run()
    assert "trackist_p_2024-2" not in bits_of(tracker)
    copied(other, tracker, ignores_erasures=True)
    assert "trackist_p_2024-2" in bits_of(tracker)


def test_marks_made_during_the_copy_are_not_lost(
    other: Any, old: Tracker, tracker: Tracker
) -> None:
    for number in range(300):
        other.setbit(f"trackist_x{number}_2024-2", number, 1)
    with Marking(old) as plain, Marking(old, "other") as second:
        plain.makes(5)
        copied(other, tracker)
        second.makes(1)
    copied(other, tracker)
    assert bits_of(tracker) == bits_of(old)


def test_mapped_ids_that_are_new_during_the_copy_keep_their_offsets(
    other: Any, redis: Any, old: Tracker, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.record([("e", f"user{number}", True, True, LONG_AGO) for number in range(5000)])
    made = iter(range(5000, 6000))
    ask = sides.Side.ask

    def marked_between(self: Any, commands: Any) -> Any:
        if self.name == "the source":
            old.record([("e", f"user{next(made)}", True, True, LONG_AGO)])
        return ask(self, commands)

    monkeypatch.setattr(sides.Side, "ask", marked_between)
    copied(other, tracker)
    monkeypatch.undo()
    key = "trackist_e_2024-2"
    assert len(bits_of(tracker)[key]) == redis.bitcount(key)  # each bit is somebody's
    copied(other, tracker)
    assert bits_of(tracker) == bits_of(old)


def test_a_target_with_new_ids_of_its_own_gets_what_the_source_marks_of_the_earlier_ones(
    other: Any, old: Tracker, tracker: Tracker
) -> None:
    old.record([("e", ANN, True, True, LONG_AGO)])
    copied(other, tracker)
    tracker.record([("e", BOB, True, True, LONG_AGO)])
    old.record([("e", ANN, True, True, datetime(2024, 3, 1))])
    copied(other, tracker)
    assert bits_of(tracker)["trackist_e_2024-3"] == {ANN}
    old.record([("e", "carl", True, True, datetime(2024, 3, 1))])
    with pytest.raises(ValueError, match="different offsets, from 1 on"):
        job(other, tracker).run()
    assert bits_of(tracker)["trackist_e_2024-3"] == {ANN}


def test_an_erasure_during_the_copy_is_told(other: Any, old: Tracker, tracker: Tracker) -> None:
    old.record([("e", id_, True, True, LONG_AGO) for id_ in (ANN, BOB)])
    erased: list[object] = []

    def watch(keys: int) -> None:
        if not erased:
            erased.append(old.erase(ANN))

    done = job(other, tracker).run(watch)
    assert done.erased_meanwhile
    assert done.is_wanting
    tracker.erase(ANN)
    copied(other, tracker, ignores_erasures=True)
    assert bits_of(tracker) == bits_of(old)


def test_an_erasure_since_an_earlier_copy_is_told(
    other: Any, other_url: str, old: Tracker, app: Flask
) -> None:
    old.record([("e", id_, True, True, LONG_AGO) for id_ in (7, 8)])
    command = ["bitmapist", "copy", other_url, "--yes"]
    assert app.test_cli_runner().invoke(args=command).exit_code == 0
    old.erase(7)
    told = app.test_cli_runner().invoke(args=command)
    assert told.exit_code == 3
    assert "erase them from the target too" in told.stderr


def test_the_same_server_is_refused(
    redis: Any, redis_url: str, tracker: Tracker, process: Callable[..., Tracker]
) -> None:
    tracker.record([("e", 7, True, True, LONG_AGO)])
    with pytest.raises(ValueError, match="both are the same server"):
        job(process(redis_url).server.patient, tracker).run()
    assert not [*redis.scan_iter("flask_bitmapist:copy*")]


@pytest.mark.usefixtures("soon")
def test_a_source_that_dies_is_told_and_the_next_run_goes_on(
    mortal: MortalServer, redis: Any, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_KEYS", 10)
    with redis_py.Redis.from_url(mortal.url) as source:
        for number in range(100):
            source.setbit(f"trackist_x{number}_2024-2", number, 1)
        seen: list[int] = []

        def watch(keys: int) -> None:
            seen.append(keys)
            if len(seen) == 3:
                mortal.kill()

        with pytest.raises(StoppedError, match="the source does not answer"):
            job(source, tracker).run(watch)
        assert 0 < len(values(redis)) < 100
        mortal.start()
        copied(source, tracker)
        assert values(redis) == values(source)


@pytest.mark.parametrize("dies", ["source", "target"])
def test_a_server_that_starts_again_is_waited_for(
    dies: str,
    mortal: MortalServer,
    redis: Any,
    redis_url: str,
    process: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copying, "_KEYS", 10)
    with redis_py.Redis.from_url(mortal.url) as client:
        source, target = (client, redis) if dies == "source" else (redis, client)
        for number in range(100):
            source.setbit(f"trackist_x{number}_2024-2", number, 1)
        tracker = process(redis_url if dies == "source" else mortal.url)
        seen: list[int] = []

        def watch(keys: int) -> None:
            seen.append(keys)
            if len(seen) == 3:
                mortal.kill()
                mortal.start()

        done = job(source, tracker).run(watch)
        assert not done.is_wanting
        assert values(target) == values(source)


def test_a_key_press_stops_it_and_it_goes_on(other: Any, redis: Any, tracker: Tracker) -> None:
    other.setbit("trackist_a_2024-2", 7, 1)

    def press(keys: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="Interrupted"):
        job(other, tracker).run(press)
    copied(other, tracker)
    assert values(redis) == values(other)


def test_the_transcript_is_what_the_commands_print(other: Any, other_url: str, app: Flask) -> None:
    bitmapist.SYSTEMS["old"] = other
    for event in ("song:played", "user:logged_in"):
        for day in range(1, 12):
            when = datetime(2024, 2, day, 9)
            for id_ in (7, 42, 100_000):
                bitmapist.mark_event(event, id_, system="old", now=when)
    bitmapist.mark_unique("user:premium", 42, system="old")
    page = (ROOT / "docs" / "migrating.md").read_text()
    (transcript,) = TRANSCRIPT.findall(page)
    text = ""
    for command in re.findall(r"^\$ flask (.*)$", transcript, re.M):
        args = command.replace("redis://old.example:6379", other_url).split()
        done = app.test_cli_runner().invoke(args=args)
        text += f"$ flask {command}\n{done.stdout}"
    assert text == transcript


@pytest.mark.parametrize("out", [False, True])
def test_into_and_out_of_a_cluster(
    out: bool,
    clusters: Callable[[int], Cluster],
    redis_url: str,
    process: Callable[..., Tracker],
) -> None:
    urls = [redis_url, clusters(2).url]
    source, target = (process(url) for url in (urls[::-1] if out else urls))
    events = ["e", "f", "{g", "h}", "{}i", "{j}k"]
    source.record([(event, ANN, True, True, LONG_AGO) for event in events])
    source.record([("plain", 7, True, True, LONG_AGO)])
    client = source.server.patient
    client.expire("trackist_plain_2024-2", 1000)
    client.expire("trackist_h}_2024-2", 1000)
    copied(client, target)
    assert bits_of(target) == bits_of(source)
    for key in ("trackist_plain_2024-2", "trackist_h}_2024-2"):
        assert 900 < target.server.patient.ttl(key) <= 1000


def test_a_dry_run_writes_nothing(other: Any, other_url: str, redis: Any, app: Flask) -> None:
    other.setbit("trackist_a_2024-2", 7, 1)
    command = app.test_cli_runner()
    done = command.invoke(args=["bitmapist", "copy", other_url, "--dry-run", "--json"])
    assert json.loads(done.stdout) == {
        "bitmaps": 1,
        "bytes": 1,
        "packed": 0,
        "skipped": 0,
        "events": 1,
    }
    assert not redis.dbsize()


@pytest.mark.parametrize("option", ["--dry-run", "--yes"])
def test_an_empty_server_is_no_fault(other_url: str, app: Flask, option: str) -> None:
    done = app.test_cli_runner().invoke(args=["bitmapist", "copy", other_url, option])
    assert (done.exit_code, done.stdout) == (0, "There is nothing to show.\n")


def test_whatever_is_to_be_known_is_told_in_words(
    other: Any, other_url: str, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.setbit("trackist_a_2024-2", 7, 1)
    monkeypatch.setattr("flask_bitmapist.maintenance.copying.have_moved", lambda *_: True)
    done = app.test_cli_runner().invoke(args=["bitmapist", "copy", other_url, "--yes"])
    assert done.exit_code == 3
    assert re.search("slots moved  +yes", done.stdout)
    assert "run it again once they have moved" in done.stderr


def test_the_command_asks_and_tells(other: Any, other_url: str, redis: Any, app: Flask) -> None:
    other.setbit("trackist_a_2024-2", 7, 1)
    command = app.test_cli_runner()
    refused = command.invoke(args=["bitmapist", "copy", other_url], input="n\n")
    assert refused.exit_code == 1
    assert "Copy 1 bitmap of 1 byte here?" in refused.stderr
    assert not values(redis)
    done = command.invoke(args=["bitmapist", "copy", other_url, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["target_bits"] == 1
    assert values(redis) == values(other)


def test_the_command_copies_out(other: Any, other_url: str, redis: Any, app: Flask) -> None:
    redis.setbit("trackist_a_2024-2", 7, 1)
    args = ["bitmapist", "copy", "--out", other_url, "--yes"]
    assert app.test_cli_runner().invoke(args=args).exit_code == 0
    assert values(other) == values(redis)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["localhost:6379"], "the URL must begin with redis://"),
        (["http://localhost"], "the URL must begin with redis://"),
        (["redis://localhost/?socket_timeout=soon"], "the URL has a wrong option"),
        (["redis://localhost", "--out", "--prefix", "b_"], "leave it out with --out"),
    ],
)
def test_a_wrong_url_is_an_error_before_any_io(
    app: Flask, arguments: list[str], told: str, round_trips: list[object]
) -> None:
    app.test_cli_runner().invoke(args=["bitmapist", "events"])  # what any command asks first
    round_trips.clear()
    done = app.test_cli_runner().invoke(args=["bitmapist", "copy", *arguments])
    assert done.exit_code == 2
    assert told in done.stderr
    assert not round_trips


@pytest.mark.usefixtures("soon")
def test_a_server_that_is_not_there_is_told(app: Flask, tmp_path: Path) -> None:
    args = ["bitmapist", "copy", f"unix://{tmp_path}/nobody.sock", "--yes"]
    done = app.test_cli_runner().invoke(args=args)
    assert done.exit_code == 1
    assert "the source does not answer" in done.stderr
