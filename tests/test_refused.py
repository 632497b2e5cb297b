"""What a server does not take is kept apart: named, counted, holding up nothing, never lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape
from servers import MortalServer, eventually

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.delivery import Stats
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12, 30)
DAY = "trackist_e_2026-3-14"


@pytest.fixture
def admin(mortal: MortalServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(mortal.url) as client:
        yield client


def acl(admin: redis_py.Redis, *rules: str) -> None:
    admin.execute_command("ACL", "SETUSER", "default", *rules)


def mark(tracker: Tracker, event: str, id_: object, value: bool = True, **options: Any) -> None:
    tracker.record([Mark(event, id_, value, when=options.pop("when", NOON), **options)])


def refuse(tracker: Tracker, admin: redis_py.Redis, marks: int) -> None:
    """Have so many marks refused together, none of which is tried alone."""
    admin.hset(DAY, "not", "a bitmap")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("flask_bitmapist.delivery.sifting._DIVISIONS", 0)
        tracker.record([Mark("e", id_, when=NOON) for id_ in range(marks)])


def test_a_command_that_is_not_permitted_is_named_once_with_what_is_needed(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = tracker_on(mortal.url)
    acl(admin, "-setbit", "-bitfield")
    for id_ in range(3):
        mark(tracker, "e", id_)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "does not take SETBIT" in errors[0].getMessage()
    assert "grant the user" in errors[0].getMessage()


def test_marks_that_can_be_written_are_written_and_the_others_arrive_after_the_grant(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    acl(admin, "-bitfield")  # of which only a batch has need
    tracker.record([Mark("e", id_, when=NOON) for id_ in range(20)])
    assert mortal.ids() == [*range(20)]
    acl(admin, "-setbit")
    mark(tracker, "e", 30)
    mark(tracker, "other", 31)
    assert sum(tracker.stats().waiting.values()) == 2
    assert not tracker.flush()
    acl(admin, "+setbit", "+bitfield")
    assert tracker.flush()
    assert mortal.ids() == [*range(20), 30]
    assert tracker.stats().waiting == {}


def test_a_key_of_another_type_holds_up_no_other_key(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    admin.hset("trackist_e_2026-3-15", "not", "a bitmap")
    days = [NOON + timedelta(days=day) for day in range(3)]
    tracker.record([Mark("e", id_, when=day) for day in days for id_ in range(10)])
    assert [admin.bitcount(f"trackist_e_2026-3-{day}") for day in (14, 16)] == [10, 10]
    (reason,) = tracker.stats().waiting
    assert "WRONGTYPE" in reason
    assert "the key 'trackist_e_2026-3-15' holds something else" in reason
    assert tracker.stats().waiting[reason] == 10
    admin.delete("trackist_e_2026-3-15")
    assert tracker.flush()
    assert admin.bitcount("trackist_e_2026-3-15") == 10


@pytest.mark.parametrize("last", [True, False])
def test_the_later_of_a_mark_and_an_unmark_decides_though_only_one_was_refused(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker], last: bool
) -> None:
    tracker = tracker_on(mortal.url)
    mark(tracker, "e", 7, value=last)
    acl(admin, "-setbit", "-bitfield")
    mark(tracker, "e", 7, value=not last)
    acl(admin, "+setbit", "+bitfield")
    mark(tracker, "e", 7, value=last)  # could be written at once, and would then be overwritten
    mark(tracker, "e", 8)
    assert tracker.flush()
    assert mortal.ids() == ([7, 8] if last else [8])


def test_marks_and_unmarks_of_one_batch_keep_their_order(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    acl(admin, "-setbit", "-bitfield")
    values = [True, False, True, False, True]
    tracker.record([Mark("e", 7, value, when=NOON) for value in values])
    acl(admin, "+setbit", "+bitfield")
    assert tracker.flush()
    assert mortal.ids() == [7]


def test_what_is_kept_apart_outlives_the_process_and_arrives_by_itself(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acl(admin, "-setbit", "-bitfield")
    mark(tracker_on(mortal.url), "e", 7)
    acl(admin, "+setbit", "+bitfield")
    later = tracker_on(mortal.url)
    monkeypatch.setattr("flask_bitmapist.delivery.courier._APART_PAUSE", 0.0)
    mark(later, "e", 8)
    eventually(lambda: mortal.ids() == [7, 8])


def test_of_many_refused_marks_each_that_can_be_written_is_found(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery.sifting._DIVISIONS", 10)
    tracker = tracker_on(mortal.url)
    admin.hset(DAY, "not", "a bitmap")
    good = NOON + timedelta(days=2)
    tracker.record([Mark("e", id_, when=good if id_ % 3 == 0 else NOON) for id_ in range(120)])
    monkeypatch.undo()
    tracker.flush()
    assert admin.bitcount("trackist_e_2026-3-16") == 40
    assert sum(tracker.stats().waiting.values()) == 80


def test_refused_marks_are_not_tried_again_and_again(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    round_trips: list[object],
) -> None:
    tracker = tracker_on(mortal.url)
    refuse(tracker, admin, 300)
    courier = tracker._deliverer()._courier
    courier._apart_due = 0.0
    before = len(round_trips)
    mark(tracker, "other", 1)
    eventually(lambda: courier._apart_due)
    mark(tracker, "other", 2)  # the pause has begun
    with tracker._deliverer()._flusher.alone(None):  # what was begun has ended
        assert len(round_trips) - before < 150


def test_once_the_server_takes_them_all_marks_kept_apart_arrive(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery.courier._APART_PAUSE", 0.0)
    tracker = tracker_on(mortal.url)
    refuse(tracker, admin, 600)
    admin.delete(DAY)
    mark(tracker, "other", 1)
    eventually(lambda: admin.bitcount(DAY) == 600)


def test_where_nothing_is_left_to_be_tried_the_server_is_asked_nothing(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    round_trips: list[object],
) -> None:
    tracker = tracker_on(mortal.url)
    refuse(tracker, admin, 2)
    sender = tracker._deliverer()._sender
    admin.delete(DAY)
    with tracker._deliverer()._flusher.alone(None):
        assert sender.try_apart() == (2, 0)
        round_trips.clear()
        assert sender.try_apart() == (0, 0)
    assert not round_trips


def test_marks_of_other_events_ask_no_file_while_some_wait_apart(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_bitmapist.delivery.spool._TICK", -(10**12))
    tracker = tracker_on(mortal.url)
    admin.hset(DAY, "not", "a bitmap")
    mark(tracker, "e", 1)
    mark(tracker, "other", 1)
    asked: list[str] = []
    spool = tracker._deliverer()._shelter.spool
    assert spool is not None
    spool.file.run(lambda db: db.set_trace_callback(asked.append))
    mark(tracker, "other", 2)
    assert asked == []
    mark(tracker, "e", 2)
    assert asked


def test_a_mark_kept_apart_twice_is_counted_once(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    acl(admin, "-setbit", "-bitfield")
    for _ in range(3):
        mark(tracker, "e", 7)
    assert sum(tracker.stats().waiting.values()) == 1


def test_without_a_spool_refused_marks_are_counted_as_dropped(
    mortal: MortalServer,
    admin: redis_py.Redis,
    tracker_on: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = tracker_on(mortal.url, BITMAPIST_SPOOL=False)
    acl(admin, "-setbit", "-bitfield")
    mark(tracker, "e", 7)
    assert tracker.stats() == Stats(dropped=1)
    assert "are lost (BITMAPIST_SPOOL is False)" in caplog.text


def test_stats_tell_what_became_of_the_marks(
    mortal: MortalServer, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    assert tracker.stats() == Stats()
    tracker.record([Mark("e", id_, when=NOON) for id_ in range(5)])
    assert tracker.stats() == Stats(sent=5)
    mortal.kill()
    mark(tracker, "e", 6)
    assert tracker.stats() == Stats(sent=5, spooled=1, breaker="open")
    mortal.start()
    assert tracker.flush()
    assert tracker.stats() == Stats(sent=5, spooled=1, replayed=1)
    tracker.publish([Mark("e", "a text", when=NOON)])
    assert tracker.stats() == Stats(sent=5, spooled=1, replayed=1)  # refused before it was sent


def test_the_dashboard_says_how_many_marks_wait_and_why(
    mortal: MortalServer, admin: redis_py.Redis, tmp_path: Path
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    options = {"BITMAPIST_REDIS_URL": mortal.url, "BITMAPIST_TIMEOUT": 10}
    extension = FlaskBitmapist(app, options)
    extension.dashboard_access(lambda: True)
    tracker = extension.tracker
    mark(tracker, "e", 1)
    page = app.test_client().get("/bitmapist/lifecycle?event=e")
    assert "marks wait" not in page.text
    acl(admin, "-setbit", "-bitfield", "-bitop")
    tracker.record([Mark("e", id_, when=NOON) for id_ in range(1_204)])
    waiting = tracker.stats().waiting
    assert sum(waiting.values()) == 1_204
    for address in ("lifecycle?event=e", "?event=e&complete=1"):
        page = app.test_client().get(f"/bitmapist/{address}")
        assert page.status_code == 200
        for reason, marks in waiting.items():
            assert f"{marks:,} marks wait: {escape(reason)}" in page.text


def test_a_page_tells_a_refused_command_from_a_server_that_is_away(
    mortal: MortalServer, admin: redis_py.Redis, tmp_path: Path
) -> None:
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    extension = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": mortal.url})
    extension.dashboard_access(lambda: True)
    tracker = extension.tracker
    mark(tracker, "e", 1)
    acl(admin, "-bitcount", "-get", "-mget", "-getrange")
    page = app.test_client().get("/bitmapist/lifecycle?event=e")
    assert page.status_code == 503
    assert "did not answer" not in page.text
    assert "does not take" in page.text
    show = ["bitmapist", "show", "e", "--start", "2026-03-10", "--end", "2026-03-20"]
    command = app.test_cli_runner().invoke(args=show)
    assert command.exit_code == 1
    assert "grant the user" in command.output
    mortal.kill()
    assert "did not answer" in app.test_client().get("/bitmapist/lifecycle?event=e").text
    command = app.test_cli_runner().invoke(args=show)
    assert "does not answer" in command.output


def test_a_key_of_ours_that_holds_something_else_is_named(
    mortal: MortalServer, admin: redis_py.Redis, tracker_on: Callable[..., Tracker]
) -> None:
    tracker = tracker_on(mortal.url)
    admin.set("flask_bitmapist:first_days", "no days")
    mark(tracker, "e", 1)
    (reason,) = tracker.stats().waiting
    assert "the key 'flask_bitmapist:first_days' holds something else" in reason


def test_a_wrong_password_is_not_said_to_be_silence(
    mortal: MortalServer, admin: redis_py.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acl(admin, "resetpass", ">right")
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    app.config["BITMAPIST_TIMEOUT"] = 10
    extension = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": f"{mortal.url}?password=wrong"})
    extension.dashboard_access(lambda: True)
    mark(extension.tracker, "e", 1)
    page = app.test_client().get("/bitmapist/lifecycle?event=e").text
    command = app.test_cli_runner().invoke(args=["bitmapist", "show", "e"])
    for told in (caplog.text, page, command.output):
        assert "set the right user and password in BITMAPIST_REDIS_URL" in told
        assert "not answer" not in told
    acl(admin, ">wrong")
    assert extension.tracker.flush()
    assert admin.getbit(f"trackist_e_{NOON:%Y-%-m-%-d}", 1)


DAYS = (14, 15)
#: What the server takes, as rules of its access control.
RIGHTS = {
    "everything": ("+setbit", "+bitfield", "resetkeys", "allkeys"),
    "no bits": ("-setbit", "-bitfield", "resetkeys", "allkeys"),
    "single bits": ("+setbit", "-bitfield", "resetkeys", "allkeys"),
    "only one day": (
        *("+setbit", "+bitfield", "resetkeys"),
        *("~flask_bitmapist:*", "~trackist_e_2026-3-14", "~trackist_e_W*", "~trackist_e_2026-3"),
    ),
}
MARKS = st.lists(
    st.tuples(st.integers(0, 1), st.booleans(), st.sampled_from(DAYS)), min_size=1, max_size=2
)


@settings(max_examples=15)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([*RIGHTS]), MARKS, st.booleans()), min_size=3, max_size=5
    )
)
def test_whatever_is_refused_meanwhile_the_last_mark_of_each_bit_decides(
    server: Any, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    url = server.fresh_database()
    with redis_py.Redis.from_url(url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "reset", "on", "nopass", "+@all", "allkeys")
        client = redis_py.Redis.from_url(url, username="app", password="any")
        app = Flask(__name__, instance_path=str(tmp_path_factory.mktemp("instance")))
        tracker = FlaskBitmapist(app, {"BITMAPIST_TIMEOUT": 10}, redis_client=client).tracker
        expected: dict[tuple[int, int], bool] = {}
        for rights, marks, flushed in steps:
            admin.execute_command("ACL", "SETUSER", "app", *RIGHTS[rights])
            tracker.record(
                [Mark("e", id_, on, when=NOON.replace(day=day)) for id_, on, day in marks]
            )
            expected |= {(id_, day): on for id_, on, day in marks}
            if flushed:
                tracker.flush()
        admin.execute_command("ACL", "SETUSER", "app", *RIGHTS["everything"])
        assert tracker.flush()
        for (id_, day), on in expected.items():
            assert admin.getbit(f"trackist_e_2026-3-{day}", id_) == on
        for id_ in {id_ for id_, _ in expected}:
            on = any(expected.get((id_, day)) for day in DAYS)
            assert admin.getbit("trackist_e_2026-3", id_) == on
        client.close()
