"""What a visitor did before they signed up counts for the user that they became."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, login_user, logout_user
from nodes import Cluster
from redis.connection import AbstractConnection
from servers import MortalServer
from test_erase import _settled, bits, map_has

from flask_bitmapist import (
    DayEvents,
    FlaskBitmapist,
    MonthEvents,
    WeekEvents,
    analytics,
    mark,
    mark_event,
    mark_visitor,
    swapping,
)
from flask_bitmapist.id_map import IdMap
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.maintenance import erase as erasing
from flask_bitmapist.maintenance import promote as promoting
from flask_bitmapist.marks import Mark
from flask_bitmapist.packed_periods import PACKED_BEFORE, packed_keys
from flask_bitmapist.periods import Grain
from flask_bitmapist.tracker import Tracker
from flask_bitmapist.visitors import promote_visitor

NOON = datetime(2026, 3, 14, 12)
SINCE = date(2026, 1, 1)
ANN, BOB = "ann@example.org", "bob@example.org"
V, W = "visitor:v", "visitor:w"


@pytest.fixture
def made(process: Callable[..., Tracker], redis_url: str) -> Callable[..., Tracker]:
    """Makes trackers, as of other processes, whose ids are all mapped."""

    def make(url: str = redis_url, **options: Any) -> Tracker:
        return process(url, **{"BITMAPIST_ID_MAP": "always"} | options)

    return make


@pytest.fixture
def tracker(made: Callable[..., Tracker]) -> Tracker:
    return made()


def at(id_: object, *days: int, event: str = "e", hourly: bool | None = None) -> list[Mark]:
    """Marks of `id_`, so many days after `NOON`."""
    return [Mark(event, id_, when=NOON + timedelta(days=day), hourly=hourly) for day in days]


def promote(tracker: Tracker, visitor: str = V, user: object = ANN) -> bool:
    return tracker.promote(visitor, user, SINCE)


def known(tracker: Tracker, id_: object) -> set[tuple[str, date]]:
    found = analytics.profile(id_, date(2026, 1, 1), date(2026, 12, 31), tracker=tracker)
    days = {(event, day) for event, done in found.days.items() for day in done}
    return days | {(flag, date.max) for flag in found.flags}


def users(tracker: Tracker, period: Grain = "day", event: str = "e") -> list[object]:
    return [*analytics.users(event, by=period, at=NOON, tracker=tracker)]


def test_what_the_visitor_did_counts_for_the_user(redis: Any, tracker: Tracker) -> None:
    tracker.record([*at(V, 0, 1, 40, hourly=True), *at(V, 2, event="song: played_2")])
    tracker.record([*at(ANN, 1, 3), *at(BOB, 0), Mark("premium", V, dated=False)])
    before = {key: len(held) for key, held in bits(redis).items()}
    assert promote(tracker)
    assert known(tracker, ANN) == {
        ("e", NOON.date() + timedelta(days=day)) for day in (0, 1, 3, 40)
    } | {("song: played_2", date(2026, 3, 16)), ("premium", date.max)}
    periods: tuple[Grain, ...] = ("day", "week", "month")
    for period in periods:
        assert users(tracker, period) == [ANN, BOB]
    # The visitor was the first to be given an offset.
    assert not any(0 in held for held in bits(redis).values())
    after = {key: len(held) for key, held in bits(redis).items()}
    both = {"trackist_e_2026-3-15", "trackist_e_2026-3", "trackist_e_W2026-11"}
    assert after == {key: count - (key in both) for key, count in before.items()}


def choose(tracker: Tracker, *choices: tuple[str, str]) -> None:
    tracker.record(Mark("plan", who, dated=False, choice=value) for who, value in choices)


@pytest.mark.parametrize("own", ["pro", "free", ""])
def test_the_user_keeps_their_value_of_a_dimension_and_else_gets_the_visitors(
    redis: Any, tracker: Tracker, own: str
) -> None:
    tracker.record([*at(V, 0), *at(ANN, 0)])
    choose(tracker, (V, "free"), (BOB, "pro"), (ANN, own))
    assert promote(tracker)
    found = analytics.profile(ANN, tracker=tracker)
    assert (found.dimensions, found.flags) == ({"plan": own or "free"}, [])
    assert sum(redis.bitcount(key) for key in redis.keys("trackist_plan=*")) == 2
    choose(tracker, (V, "gold"))  # is the user's
    assert analytics.profile(ANN, tracker=tracker).dimensions == {"plan": "gold"}
    assert sum(redis.bitcount(key) for key in redis.keys("trackist_plan=*")) == 2


def test_whoever_has_no_offset_yet_gets_one(tracker: Tracker) -> None:
    tracker.record(at(V, 0))
    assert promote(tracker, user=7)
    assert users(tracker) == [7]


def test_a_visitor_is_promoted_before_their_marks_arrive(tracker: Tracker) -> None:
    assert promote(tracker)
    tracker.record(at(V, 0))
    assert users(tracker) == [ANN]


def test_several_visitors_become_one_user(tracker: Tracker) -> None:
    tracker.record([*at(V, 0), *at(W, 1)])
    assert promote(tracker, V)
    assert promote(tracker, W)
    assert known(tracker, ANN) == {("e", NOON.date()), ("e", date(2026, 3, 15))}


def test_the_visitor_is_no_longer_listed_but_still_found(redis: Any, tracker: Tracker) -> None:
    tracker.record([*at(V, 0), *at(ANN, 1)])
    promote(tracker)
    assert tracker.reader.ids_at([0, 1], MAPPED) == [None, ANN]
    assert known(tracker, V) == known(tracker, ANN)
    assert not redis.exists(map_keys(MAPPED).moving)


def test_who_belongs_to_one_user_is_not_given_to_another(tracker: Tracker) -> None:
    tracker.record(at(V, 0))
    assert promote(tracker, user=ANN)
    assert not promote(tracker, user=BOB)
    assert promote(tracker, user=ANN)
    assert users(tracker) == [ANN]
    assert known(tracker, BOB) == set()


def test_only_a_visitor_becomes_a_user(tracker: Tracker) -> None:
    for visitor, user in ((ANN, BOB), (V, W), ("visitor", BOB)):
        with pytest.raises(ValueError, match="is no visitor|is a visitor"):
            tracker.promote(visitor, user, SINCE)


def test_it_needs_mapped_ids(process: Callable[..., Tracker], redis_url: str) -> None:
    with pytest.raises(ValueError, match="needs BITMAPIST_ID_MAP = 'always', not 'auto'"):
        process(redis_url).promote(V, 7, SINCE)


def test_packed_periods_stay_packed_and_keep_their_expiry(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", f"u{number}", True, True, NOON) for number in range(3_000)])
    tracker.record([*at(V, 0, 1), *at(ANN, 1)])
    redis.set(PACKED_BEFORE, "2026-06-01")
    redis.expire("trackist_e_2026-3", 10_000)
    for key in [key.decode() for key in redis.scan_iter("trackist_*")]:
        swapping.pack(redis, key)
    packed = {*packed_keys(redis)}
    assert len(packed) >= 3
    assert promote(tracker)
    assert {*packed_keys(redis)} == packed
    assert not any(redis.exists(key) for key in packed)
    assert 0 < redis.ttl("flask_bitmapist:packed:{trackist_e_2026-3}") <= 10_000
    assert known(tracker, ANN) == {("e", NOON.date()), ("e", date(2026, 3, 15))}
    assert not any(3_000 in held for held in bits(redis).values())


def test_expiries_are_kept(redis: Any, tracker: Tracker) -> None:
    tracker.record(at(V, 0))
    redis.expire("trackist_e_2026-3-14", 10_000)
    promote(tracker)
    assert 0 < redis.ttl("trackist_e_2026-3-14") <= 10_000


def test_the_index_may_be_lost(redis: Any, made: Callable[..., Tracker]) -> None:
    tracker = made()
    tracker.record([*at(V, 0), *at(ANN, 1)])
    promote(tracker)
    redis.delete(map_keys(MAPPED).index)
    other = made()
    other.record(at(V, 2))
    assert known(other, ANN) == {("e", date(2026, 3, day)) for day in (14, 15, 16)}


@pytest.mark.parametrize("scripts", [True, False])
def test_the_map_grows_on(
    mortal: MortalServer, made: Callable[..., Tracker], scripts: bool
) -> None:
    tracker = made(mortal.url)
    tracker.record([Mark("e", f"visitor:{number}", when=NOON) for number in range(90)])
    tracker.record(at(ANN, 0))
    for number in range(60):
        promote(tracker, f"visitor:{number}")
    if not scripts:
        with redis_py.Redis.from_url(mortal.url) as admin:
            admin.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    other = made(mortal.url)
    other.record([Mark("e", f"u{number}", when=NOON) for number in range(200)])
    other.record([Mark("late", f"visitor:{number}", when=NOON) for number in range(90)])
    rest = [f"visitor:{number}" for number in range(60, 90)]
    assert users(other) == [*rest, ANN, *(f"u{number}" for number in range(200))]
    assert users(other, event="late") == [*rest, ANN]


def test_on_a_cluster(clusters: Callable[[int], Cluster], process: Callable[..., Tracker]) -> None:
    with redis_py.RedisCluster.from_url(clusters(3).url) as client:
        tracker = process(client=client, BITMAPIST_ID_MAP="always")
        tracker.record([*at(V, 0, 40), *at(ANN, 1), *at(V, 0, event="other")])
        assert promote(tracker)
        assert users(tracker, "month") == [ANN]
        assert len(known(tracker, ANN)) == 4


@pytest.fixture
def quick_erasures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "_MARGIN", 2_000)


class TestLateMarks:
    """Marks of a visitor that come after the promotion."""

    def test_those_that_waited_in_a_spool_count_for_the_user(
        self, mortal: MortalServer, made: Callable[..., Tracker], tmp_path: Path
    ) -> None:
        other = made(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "other"))
        one = made(mortal.url, BITMAPIST_SPOOL=str(tmp_path / "one"))
        one.record(at(V, 0))
        mortal.kill()
        one.record([*at(V, 1), *(Mark("late", f"visitor:{n}", when=NOON) for n in range(300))])
        one.record(at(V, 0, event="late"))
        mortal.start()
        promote(other)
        assert one.flush()
        assert len(known(other, ANN)) == 3
        assert len(users(other, event="late")) == 301
        assert users(other) == [ANN]

    def test_those_in_a_queue_count_for_the_user(self, made: Callable[..., Tracker]) -> None:
        one = made(BITMAPIST_DELIVERY="background")
        one.record(at(V, 0))
        assert one.flush()
        with one._deliverer()._flusher.alone(None):  # it delivers nothing meanwhile
            one.record(at(V, 1))
            promote(made())
        assert one.flush()
        assert len(known(one, ANN)) == 2
        assert users(one, "month") == [ANN]

    @pytest.mark.parametrize("others", [0, 1, 300])
    def test_a_trip_that_is_under_way_takes_its_bits_back(
        self,
        redis: Any,
        made: Callable[..., Tracker],
        monkeypatch: pytest.MonkeyPatch,
        others: int,
    ) -> None:
        """It has looked up the visitor's own offset."""
        one, other = made(), made()
        rest = [Mark("e", f"visitor:{n}", when=NOON) for n in range(others)]
        one.record([*at(V, 0), *rest])
        other.record(at(ANN, 0, event="other"))
        looked_up = IdMap.offsets
        promoted: list[bool] = []

        def offsets(self: IdMap, *args: Any, **kwargs: Any) -> Any:
            found = looked_up(self, *args, **kwargs)
            if V in args[2] and not promoted:
                promoted.append(promote(other))
            return found

        monkeypatch.setattr(IdMap, "offsets", offsets)
        one.record([*at(V, 1), *rest])
        assert promoted == [True]
        assert not any(0 in held for held in bits(redis).values())
        assert ("e", date(2026, 3, 15)) in known(one, ANN)
        assert len(users(one, "month")) == others + 1


class Killed(BaseException):
    """As when the process ends at once."""


class TestInterruptions:
    @pytest.mark.parametrize("packed", [False, True])
    def test_wherever_it_stops_it_goes_on_when_it_is_run_again(
        self, redis: Any, redis_url: str, made: Callable[..., Tracker], packed: bool
    ) -> None:
        done = 0
        for steps in range(200):
            redis.flushdb()
            tracker = made()
            tracker.record([*at(V, 0, 1), *at(ANN, 1), Mark("premium", V, dated=False)])
            if packed:
                redis.set(PACKED_BEFORE, "2026-06-01")
                redis.setbit("trackist_e_2026-3-14", 90_000, 1)
                assert swapping.pack(redis, "trackist_e_2026-3-14")
            other = made()
            done = not _killed_after(steps, partial(promote, other))
            late = made()
            late.record(at(V, 0, event="late"))
            assert promote(late)
            assert known(late, ANN) == {
                ("e", NOON.date()),
                ("e", date(2026, 3, 15)),
                ("late", NOON.date()),
                ("premium", date.max),
            }
            assert not any(0 in held for held in bits(redis).values())
            assert not redis.exists(map_keys(MAPPED).moving)
            if done:
                return
        raise AssertionError("it never ends")

    def test_what_a_dead_process_left_is_taken_up(
        self, redis: Any, made: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker = made()
        tracker.record([*at(V, 0), *at(W, 1)])
        with monkeypatch.context() as patched:
            patched.setattr(promoting._Mover, "move", _die)
            with pytest.raises(Killed):
                promote(tracker, W, BOB)
        assert redis.hlen(map_keys(MAPPED).moving) == 1
        promote(tracker)
        assert redis.hlen(map_keys(MAPPED).moving) == 1  # it may still be at work
        monkeypatch.setattr(promoting, "_ABANDONED", 0)
        promote(tracker)
        assert {*users(tracker, "month")} == {ANN, BOB}

    def test_many_at_once(self, redis: Any, made: Callable[..., Tracker]) -> None:
        """Several processes promote the same visitors to two users, while others mark them."""
        visitors = [f"visitor:{number}" for number in range(6)]
        trackers = [made() for _ in range(4)]
        trackers[0].record([mark for visitor in visitors for mark in at(visitor, 0, 1)])
        over = threading.Event()

        def mark_on(tracker: Tracker) -> None:
            while not over.is_set():
                for visitor in visitors:
                    tracker.record([*at(visitor, 2), *at(visitor, 3)])

        def promote_all(tracker: Tracker, user: str) -> None:
            for visitor in visitors:
                promote(tracker, visitor, user)

        markers = [threading.Thread(target=mark_on, args=(made(),)) for _ in range(2)]
        promoters = [
            threading.Thread(target=promote_all, args=(one, ANN if number % 2 else BOB))
            for number, one in enumerate(trackers)
        ]
        for thread in (*markers, *promoters):
            thread.start()
        for thread in promoters:
            thread.join()
        over.set()
        for thread in markers:
            thread.join()
        held = bits(redis)
        assert not any({*range(6)} & {*offsets} for offsets in held.values())
        assert {*users(trackers[0], "month")} <= {ANN, BOB}
        assert not redis.exists(map_keys(MAPPED).moving)


def _die(self: object) -> None:
    raise Killed


def _killed_after(steps: int, work: Callable[[], object]) -> bool:
    """Whether `work` was stopped before its end, having sent so many commands."""
    sent, send = [0], AbstractConnection.send_packed_command

    def dying(self: Any, command: Any, check_health: bool = True) -> None:
        if sent[0] == steps:
            sent[0] += 1
            self.disconnect()
            raise Killed
        sent[0] += 1
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", dying)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.usefixtures("quick_erasures")
class TestErasure:
    def test_who_erases_the_user_erases_the_visitor(
        self, redis: Any, made: Callable[..., Tracker]
    ) -> None:
        one, late = made(), made()
        one.record([*at(V, 0), *at(ANN, 1), *at(BOB, 0)])
        promote(one)
        made_at = time.time()
        one.erase(ANN)
        for key in redis.scan_iter("*"):
            assert V.encode() not in redis.dump(key)
        late._deliverer()._courier.deliver([_settled(late, "e", V)], made_at)
        assert users(one, "month") == [BOB]
        assert known(one, V) == set()
        one.record(at(V, 2))  # the browser still has the cookie
        assert known(one, ANN) == set()
        assert users(one, "month") == [BOB, V]

    def test_who_erases_the_visitor_erases_the_user(
        self, redis: Any, made: Callable[..., Tracker]
    ) -> None:
        one = made()
        one.record([*at(V, 0), *at(ANN, 1), *at(BOB, 0)])
        promote(one)
        assert one.erase(V, dry_run=True).bits == one.erase(V).bits == 4
        assert known(one, ANN) == known(one, V) == set()
        assert users(one, "month") == [BOB]

    def test_an_erasure_in_the_middle_of_a_promotion_wins(
        self, redis: Any, made: Callable[..., Tracker]
    ) -> None:
        for steps in range(200):
            redis.flushdb()
            one, other = made(), made()
            other.record([*at(V, 0, 1), *at(ANN, 1), *at(BOB, 0)])
            interrupted = _interrupted_at(steps, partial(promote, one), partial(other.erase, ANN))
            if not interrupted:
                return
            assert users(made(), "month") == [BOB]
            offsets = {offset for held in bits(redis).values() for offset in held}
            assert None not in made().reader.ids_at(offsets, MAPPED)
            for key in redis.scan_iter("*"):
                assert V.encode() not in redis.dump(key)
                assert ANN.encode() not in redis.dump(key)
        raise AssertionError("it never ends")

    def test_a_promotion_that_waits_does_not_bring_back_whoever_is_erased_meanwhile(
        self, redis: Any, made: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A login's promotion is done by a thread; nobody knows yet whose visitor this is."""
        one, other = made(), made()
        one.record([*at(V, 0), *at(ANN, 1), *at(BOB, 0)])
        begin = threading.Event()
        promote_now = one.promote

        def later(*task: Any) -> bool:
            assert begin.wait(60)
            return promote_now(*task)

        monkeypatch.setattr(one._promoter, "_do", later)
        one.promote_later(V, ANN, SINCE)
        other.erase(ANN)
        begin.set()
        assert one.flush()
        assert users(other, "month") == [BOB]
        assert not map_has(redis, ANN)
        assert not map_has(redis, V)
        assert promote(one, W)  # they have come back since, and logged in again
        assert map_has(redis, ANN)

    def test_an_erasure_that_is_cut_short_goes_on(
        self, redis: Any, made: Callable[..., Tracker]
    ) -> None:
        for steps in range(200):
            redis.flushdb()
            one = made()
            one.record([*at(V, 0, 1), *at(ANN, 1), *at(BOB, 0)])
            promote(one)
            other = made()
            done = not _killed_after(steps, partial(other.erase, ANN))
            made().erase(ANN)
            assert users(made(), "month") == [BOB]
            assert {offset for held in bits(redis).values() for offset in held} == {1}
            assert not redis.exists(map_keys(MAPPED).promoted)
            if done:
                return
        raise AssertionError("it never ends")


def _interrupted_at(steps: int, work: Callable[[], object], other: Callable[[], object]) -> bool:
    """Do `work`, and `other` after so many of its commands; whether there were as many."""
    sent, send = [0], AbstractConnection.send_packed_command

    def interrupted(self: Any, command: Any, check_health: bool = True) -> None:
        if sent[0] == steps:
            sent[0] += 1
            other()
        elif sent[0] < steps:
            sent[0] += 1
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", interrupted)
        work()
    return sent[0] > steps


class User(UserMixin):
    def __init__(self, id_: str) -> None:
        self.id = int(id_)


def shop(url: str, folder: Path, **options: Any) -> Flask:
    app = Flask("shop", instance_path=str(folder / "shop"))
    app.config.update(
        BITMAPIST_REDIS_URL=url,
        BITMAPIST_ID_MAP="always",
        BITMAPIST_VISITORS=True,
        BITMAPIST_PROMOTE_VISITORS=True,
        DISABLE_BLUEPRINT=True,
        SECRET_KEY="secret",
    )
    app.config.update(options)
    FlaskBitmapist(app)
    LoginManager(app).user_loader(User)

    @app.route("/")
    @mark("page:visited")
    def home() -> str:
        return ""

    @app.route("/sign-up/<id_>")
    @mark("form:sent")
    def sign_up(id_: str) -> str:
        mark_event("user:created", int(id_))
        mark_visitor("form:sent")
        return str(login_user(User(id_)))

    app.add_url_rule("/logout", "logout", lambda: str(logout_user()))
    return app


@pytest.fixture
def shops(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Makes apps that promote their visitors."""
    made: list[Flask] = []

    def make(url: str = redis_url, **options: Any) -> Flask:
        made.append(shop(url, tmp_path, **options))
        return made[-1]

    yield make
    for app in made:
        app.extensions["bitmapist"].tracker_of(app).close()


@pytest.fixture
def app(shops: Callable[..., Flask]) -> Flask:
    return shops()


def settle(app: Flask) -> None:
    assert app.extensions["bitmapist"].tracker_of(app).flush(30)


def visited(app: Flask, event: str = "page:visited") -> list[str]:
    settle(app)
    with app.app_context():
        days, weeks, months = (
            [str(id_) for id_ in events(event)] for events in (DayEvents, WeekEvents, MonthEvents)
        )
    assert days == weeks == months
    return days


class TestLogins:
    def test_a_funnel_goes_from_the_first_visit_to_the_sign_up(self, app: Flask) -> None:
        browser = app.test_client()
        browser.get("/")
        browser.get("/sign-up/7")
        assert visited(app) == visited(app, "form:sent") == visited(app, "user:created") == ["7"]
        with app.app_context():
            steps = analytics.funnel(["page:visited", "form:sent", "user:created"]).steps
        assert [step.users for step in steps] == [1, 1, 1]

    def test_a_login_in_the_first_request_takes_its_marks_along(self, app: Flask) -> None:
        response = app.test_client().get("/sign-up/7")
        assert visited(app, "form:sent") == ["7"]
        assert "bitmapist_visitor" not in str(response.headers)

    def test_whoever_logs_in_next_on_the_same_browser_is_another_visitor(self, app: Flask) -> None:
        browser = app.test_client()
        for user in "7", "8":
            browser.get("/")
            browser.get(f"/sign-up/{user}")
            browser.get("/logout")
        assert sorted(visited(app)) == ["7", "8"]
        browser.get("/")
        assert len(visited(app)) == 3

    def test_a_browser_that_keeps_the_cookie_stays_the_users(self, app: Flask) -> None:
        browser = app.test_client()
        browser.get("/")
        cookie = browser.get_cookie("bitmapist_visitor")
        assert cookie is not None
        browser.get("/sign-up/7")
        settle(app)
        for path in "/", "/sign-up/8", "/":
            stale = app.test_client()
            stale.set_cookie("bitmapist_visitor", cookie.value)
            stale.get(path)
        assert visited(app) == ["7"]
        assert sorted(visited(app, "form:sent")) == ["7", "8"]  # the mark after the login is 8's

    def test_without_the_option_nobody_is_promoted(self, shops: Callable[..., Flask]) -> None:
        app = shops(BITMAPIST_PROMOTE_VISITORS=False)
        browser = app.test_client()
        browser.get("/")
        response = browser.get("/sign-up/7")
        assert "bitmapist_visitor" not in str(response.headers)
        assert visited(app) != ["7"]

    def test_nobody_is_promoted_in_a_request_that_is_ignored(self, app: Flask) -> None:
        browser = app.test_client()
        browser.get("/")
        app.extensions["bitmapist"].ignore(lambda: True)
        browser.get("/sign-up/7")
        assert visited(app) != ["7"]

    def test_a_login_without_a_visitor_needs_no_thread(self, app: Flask) -> None:
        @app.route("/other/<id_>")
        def other(id_: str) -> str:
            return str(login_user(User(id_)))

        before = threading.active_count()
        app.test_client().get("/other/7")
        assert threading.active_count() == before

    def test_other_logins_call_it_themselves(self, shops: Callable[..., Flask]) -> None:
        app = shops()

        @app.route("/token")
        def token() -> str:
            promote_visitor(7)
            session["user"] = 7
            return ""

        browser = app.test_client()
        browser.get("/")
        assert "bitmapist_visitor=;" in browser.get("/token").headers["Set-Cookie"]
        assert visited(app) == ["7"]

    def test_a_server_that_is_down_does_not_hurt_the_login(
        self,
        mortal: MortalServer,
        shops: Callable[..., Flask],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flask_bitmapist.later.PAUSES", (0.05,))
        app = shops(mortal.url)
        browser = app.test_client()
        browser.get("/")
        mortal.kill()
        assert browser.get("/sign-up/7").status_code == 200
        mortal.start()
        assert visited(app) == visited(app, "form:sent") == ["7"]

    def test_an_unusable_id_does_not_hurt_the_login(self, app: Flask) -> None:
        class Odd(UserMixin):
            id = "None"

        @app.route("/odd")
        def odd() -> str:
            return str(login_user(Odd()))

        browser: FlaskClient = app.test_client()
        browser.get("/")
        assert browser.get("/odd").status_code == 200
        assert len(visited(app)) == 1

    def test_the_option_needs_visitors(self) -> None:
        with pytest.raises(
            ValueError, match="BITMAPIST_PROMOTE_VISITORS needs BITMAPIST_VISITORS = True"
        ):
            FlaskBitmapist(Flask("shop"), {"BITMAPIST_PROMOTE_VISITORS": True})
