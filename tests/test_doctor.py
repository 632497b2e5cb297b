"""The doctor names what is not well, on real servers that are not, and says what to do."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import peewee
import pytest
import redis as redis_py
from click.testing import Result
from conftest import made_app
from flask import Flask
from nodes import Cluster, Pair, pair
from servers import MortalServer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import (
    FlaskBitmapist,
    PeeweeBitmapistable,
    SQLAlchemyBitmapistable,
    swapping,
)
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.maintenance.doctor import Diagnosis, Finding, _models, _server, examine
from flask_bitmapist.maintenance.doctor._nodes import skewed
from flask_bitmapist.marks import Mark
from flask_bitmapist.server import Facts, Replica
from flask_bitmapist.tracker import Tracker

NOON = datetime.now().replace(hour=12, minute=0, second=0, microsecond=0)
TODAY = date.today()
DAY = f"{TODAY.year}-{TODAY.month}-{TODAY.day}"


@pytest.fixture
def admin(mortal: MortalServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(mortal.url) as client:
        yield client


@pytest.fixture
def ill(mortal: MortalServer, tmp_path: Path) -> Flask:
    """An app on a server whose settings a test may change."""
    return made_app(mortal.url, tmp_path, DISABLE_BLUEPRINT=True)


def tracker_of(app: Flask) -> Tracker:
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    return extension.tracker_of(app)


def diagnosis(app: Flask) -> Diagnosis:
    return examine(app, tracker_of(app))


def only(app: Flask, *words: str) -> Finding:
    """The one finding that has all `words` in its sentence."""
    findings = diagnosis(app).findings
    found = [one for one in findings if all(word in one.found for word in words)]
    assert len(found) == 1, findings
    return found[0]


def run(app: Flask, *options: str) -> Result:
    return app.test_cli_runner().invoke(args=["bitmapist", "doctor", *options])


# All is well


def test_where_all_is_well_there_are_no_warnings(ill: Flask) -> None:
    tracker_of(ill).record([Mark("e", 7, when=NOON)])
    found = diagnosis(ill)
    assert [one for one in found.findings if one.level != "ok" and one.part != "models"] == []
    told = [one.found for one in found.findings]
    assert any(one.endswith("ms (" + str(tracker_of(ill).server.facts) + ")") for one in told)
    for expected in (
        "appendonly is yes",
        "maxmemory-policy is noeviction",
        "its clock agrees with ours",
        "days begin in UTC, as they are recorded",
        "1 name, by the kind of ids: 1 plain",
        "no whole month yet from which growth could be told",
        "nothing waits in the spool",
        "marks are made, and sent",
        "the dashboard is not registered",
    ):
        assert expected in told


def test_it_writes_nothing_and_needs_few_round_trips(
    redis: Any, app: Flask, tracker: Tracker, round_trips: list[object]
) -> None:
    tracker.record([Mark(f"e{n}", 7, when=NOON) for n in range(100)])
    before = {key: (redis.dump(key), redis.ttl(key) < 0) for key in redis.scan_iter("*")}
    tracker.server.close()
    round_trips.clear()
    assert len(diagnosis(app).events) == 100
    assert len(round_trips) < 40  # of which the half open connections
    assert {key: (redis.dump(key), redis.ttl(key) < 0) for key in redis.scan_iter("*")} == before


# The server


def test_a_server_that_is_down_is_one_error(ill: Flask, mortal: MortalServer) -> None:
    mortal.kill()
    (error,) = [one for one in diagnosis(ill).findings if one.level == "error"]
    assert error.part == "server"
    assert f"unix://{mortal.folder}/server.sock?db=0 does not answer" in error.found
    done = run(ill)
    assert done.exit_code == 1
    assert "does not answer" in " ".join(done.stdout.split())
    assert "1 error" in done.stdout


def test_a_server_that_says_nothing_is_one_error(mortal: MortalServer, tmp_path: Path) -> None:
    app = made_app(mortal.url, tmp_path, DISABLE_BLUEPRINT=True, BITMAPIST_TIMEOUT=0.1)
    assert mortal.process is not None
    mortal.process.send_signal(signal.SIGSTOP)
    try:
        done = run(app)
    finally:
        mortal.process.send_signal(signal.SIGCONT)
    assert done.exit_code == 1
    assert "does not answer" in " ".join(done.stdout.split())


def test_no_password_is_shown(mortal: MortalServer, tmp_path: Path, admin: Any) -> None:
    admin.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all")
    url = mortal.url.replace("unix://", "unix://ann:secret@")
    for password, level in (("secret", "ok"), ("geheim", "error")):
        app = made_app(url.replace("secret", password), tmp_path, DISABLE_BLUEPRINT=True)
        assert only(app, "server.sock").level == level
        for options in ([], ["--json"], ["--csv"]):
            assert password not in run(app, *options).output
    mortal.kill()
    assert "secret" not in run(app).output


@pytest.mark.parametrize(
    ("settings", "found", "level"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru", "warning"),
        (
            {"maxmemory-policy": "allkeys-lru", "maxmemory": "1gb"},
            "maxmemory-policy is allkeys-lru",
            "error",
        ),
        ({"maxmemory-policy": "volatile-lru"}, "maxmemory-policy is volatile-lru", "ok"),
        ({"appendonly": "no"}, "nothing is written to disk", "warning"),
        ({"appendonly": "no", "save": "60 1"}, "snapshots are made: save 60 1", "warning"),
        ({"proto-max-bulk-len": "1mb"}, "proto-max-bulk-len is 1,048,576", "error"),
    ],
)
def test_a_setting_that_bites_is_named(
    ill: Flask, admin: Any, settings: dict[str, str], found: str, level: str
) -> None:
    for name, value in settings.items():
        admin.config_set(name, value)
    one = only(ill, found)
    assert one.level == level
    assert bool(one.advice) == (level != "ok")
    assert diagnosis(ill).exit_code == (level == "error")


def test_a_ttl_and_a_volatile_policy_do_not_agree(
    mortal: MortalServer, admin: Any, tmp_path: Path
) -> None:
    admin.config_set("maxmemory-policy", "volatile-ttl")
    app = made_app(mortal.url, tmp_path, BITMAPIST_TTL={"hour": timedelta(days=9)})
    assert only(app, "maxmemory-policy is volatile-ttl").level == "warning"


@pytest.mark.parametrize(("share", "level"), [(0.9, "warning"), (0.99, "error"), (0.1, "ok")])
def test_a_server_that_is_almost_full_is_named(
    ill: Flask, admin: Any, share: float, level: str
) -> None:
    admin.setrange("filling", 64 * 2**20, b"x")  # in no buffer, which would be freed meanwhile
    admin.config_set("maxmemory", int(admin.info()["used_memory"] / share))
    assert only(ill, "% of maxmemory").level == level


def test_keys_that_were_evicted_are_an_error(ill: Flask, admin: Any) -> None:
    admin.set("filling", bytes(2**20))
    admin.config_set("maxmemory-policy", "allkeys-random")
    admin.config_set("maxmemory", 1)
    with pytest.raises(redis_py.RedisError):
        admin.set("another", 1)
    admin.config_set("maxmemory", 0)
    assert only(ill, "have been evicted").level == "error"


def test_what_the_user_may_not_see_is_said(ill: Flask, admin: Any) -> None:
    tracker_of(ill).record([Mark("e", 7, when=NOON)])
    admin.execute_command("ACL", "SETUSER", "default", "-info", "-config", "-time", "-memory")
    one = only(ill, "may not use INFO, CONFIG GET, TIME")
    assert one.level == "warning"
    assert "+info" in one.advice
    assert only(ill, "1 event take", "MEMORY USAGE is not allowed").level == "ok"
    assert diagnosis(ill).exit_code == 0
    admin.execute_command("ACL", "SETUSER", "default", "-@all", "+ping")
    assert "grant the user" in only(ill, "cannot be used").found


def test_clocks_that_differ_are_named() -> None:
    assert skewed(100.0, 160.5, 101.0) == (60.0, 0.5)
    assert _server.clock(60.0, 0.5).found == "its clock is 60 s ahead of ours"
    assert _server.clock(-60.0, 0.5).level == "warning"
    assert _server.clock(2.2, 0.5).level == "ok"


def test_a_server_far_away_is_named() -> None:
    (found,) = _server.connection("here", Facts("Valkey", (9, 1)), 0.2, 0.25)
    assert found.level == "warning"
    assert found.found == ("here answers in 200.0 ms (Valkey 9.1), and BITMAPIST_TIMEOUT is 250 ms")


@pytest.fixture
def pairs(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path) as both:
        yield both


def test_behind_sentinel_and_on_a_replica(
    pairs: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Flask("sentinel", instance_path=str(tmp_path / "instance"))
    options = {"BITMAPIST_ENABLED": True, "DISABLE_BLUEPRINT": True}
    FlaskBitmapist(app, options, redis_client=pairs.sentinels.master_for("ours"))
    assert only(app, "Sentinel's 'ours' answers").level == "ok"
    replica = made_app(f"redis://127.0.0.1:{pairs.replica.port}", tmp_path)
    assert only(replica, "this is a replica, which takes no marks").level == "error"
    with redis_py.Redis(port=pairs.replica.port) as client:
        reading = Flask("reading", instance_path=str(tmp_path / "instance"))
        url = {"BITMAPIST_REDIS_URL": f"redis://127.0.0.1:{pairs.master.port}"}
        FlaskBitmapist(reading, options | url, read_client=client)
        assert only(reading, "reports are read from a replica").level == "ok"
    assert _server.reading(Replica(connected=False, silent_seconds=9)).level == "warning"
    pairs.replica.freeze()
    monkeypatch.setattr("flask_bitmapist.maintenance.doctor._server._LAG", -1)
    assert only(app, "the replica 127.0.0.1:", "is behind").level == "warning"
    pairs.replica.thaw()


def test_a_cluster(clusters: Callable[[int], Cluster], tmp_path: Path) -> None:
    nodes = clusters(3)
    given = redis_py.RedisCluster.from_url(nodes.url)
    by_url = made_app(nodes.url, tmp_path, DISABLE_BLUEPRINT=True)
    by_client = Flask("cluster", instance_path=str(tmp_path / "instance"))
    FlaskBitmapist(
        by_client, {"BITMAPIST_ENABLED": True, "DISABLE_BLUEPRINT": True}, redis_client=given
    )
    tracker_of(by_url).record([Mark(event, 7, when=NOON) for event in ("a", "b", "{c")])
    for app in (by_url, by_client):
        found = diagnosis(app)
        assert only(app, "the cluster of 127.0.0.1:", "answers in").level == "ok"
        assert only(app, "each node: its clock agrees with ours").level == "ok"
        assert {event.event: event.bitmaps for event in found.events} == {"a": 3, "b": 3, "{c": 3}
        assert "not allowed" not in only(app, "9 bitmaps of 3 events").found
    nodes.masters[0].client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        one = only(by_url, "maxmemory-policy is allkeys-lru")
    finally:
        nodes.masters[0].client.config_set("maxmemory-policy", "noeviction")
    assert one.found.startswith(f"127.0.0.1:{nodes.masters[0].port}: ")
    given.close()


# The data


def test_memory_is_told_by_event_and_period(redis: Any, app: Flask, tracker: Tracker) -> None:
    tracker.record([Mark("small", id_, True, True, NOON, True, True) for id_ in (1, 3)])
    tracker.record([Mark("large", id_, when=NOON) for id_ in (5, 79_999)])
    redis.setbit(f"trackist_large_{DAY}", 90_000, 1)
    redis.setbit(f"trackist_large_{DAY}", 90_000, 0)
    redis.set("trackist_bitop_something", b"x")
    large, small = diagnosis(app).events
    assert (small.event, small.bitmaps, small.largest_id, small.density) == ("small", 5, 3, 0.5)
    assert small.bytes.keys() == {"hour", "day", "week", "month", "undated"}
    assert (large.event, large.kind, large.bitmaps) == ("large", "plain", 3)
    assert large.total > 30_000
    # What follows the last bit has been made, and takes its room.
    assert large.largest_id == 8 * redis.strlen(f"trackist_large_{DAY}") - 1
    redis.setbit(f"trackist_large_{DAY}", 90_000, 1)
    assert diagnosis(app).events[0].largest_id == 90_000


def test_packed_periods_are_seen_and_large_old_ones_ought_to_be(
    redis: Any, app: Flask, tracker: Tracker
) -> None:
    tracker.record([Mark("e", 2**27 - 2, when=datetime(2024, 2, 29))])
    assert only(app, "are not packed").level == "warning"
    for key in ("2024-2-29", "W2024-9", "2024-2"):
        swapping.pack(redis, f"trackist_e_{key}")
    assert only(app, "packed periods take").level == "ok"
    (event,) = diagnosis(app).events
    assert (event.bitmaps, event.largest_id) == (3, None)
    assert not [one for one in diagnosis(app).findings if "are not packed" in one.found]


@pytest.mark.parametrize(
    ("id_", "others", "words"),
    [
        (2**26, 0, "of which"),
        (120_000_000, 0, "BITMAPIST_MAX_ID is"),
        (20_000_000, 1, "above BITMAPIST_DENSE_LIMIT"),
    ],
)
def test_ids_that_cost_much_are_named(
    redis: Any, app: Flask, tracker: Tracker, id_: int, others: int, words: str
) -> None:
    tracker.record([Mark("e", id_, when=NOON)])
    if others:
        month = f"trackist_e_{TODAY.year}-{TODAY.month}"
        redis.set(month, b"\xff" * (id_ // 8) + b"\x80")
    one = only(app, "'e' has", words)
    assert one.level == "warning"
    assert 'BITMAPIST_ID_MAP="always"' in one.advice


def test_growth_is_told_and_whether_there_is_room(ill: Flask, admin: Any) -> None:
    tracker = tracker_of(ill)
    month = (TODAY.replace(day=1) - timedelta(days=1)).replace(day=15)
    tracker.record([Mark("e", 8_000_000, when=month)])
    growth = diagnosis(ill).growth
    assert growth is not None
    assert growth.monthly is not None
    assert 3_000_000 <= growth.monthly == growth.total
    assert growth.in_a_year == 13 * growth.monthly
    assert only(ill, "bitmaps grow by", "a month").level == "ok"
    admin.config_set("maxmemory", 30_000_000)
    assert only(ill, "bitmaps grow by", "are not enough").level == "warning"


def test_names_and_bitmaps_that_do_not_fit_are_named(
    redis: Any, app: Flask, tracker: Tracker
) -> None:
    tracker.record([Mark(event, 7, when=NOON) for event in ("kept", "emptied")])
    for key in redis.scan_iter("trackist_emptied_*"):
        redis.delete(key)
    redis.setbit(f"trackist_others_{DAY}", 1, 1)
    redis.hset("trackist_kept_2024-1-1", "no", "bitmap")
    assert "flask bitmapist reindex" in only(app, "'emptied' is registered, without").advice
    assert "flask bitmapist reindex" in only(app, "'others' is not registered").advice
    assert only(app, "hold something else: 'trackist_kept_2024-1-1'").level == "warning"


def test_a_kind_that_the_server_has_lost_is_an_error(
    redis: Any, app: Flask, tracker: Tracker
) -> None:
    tracker.record([Mark("e", 7, when=NOON)])
    redis.delete("flask_bitmapist:events", "flask_bitmapist:events:copy")
    one = only(app, "has lost which kind of ids")
    assert one.level == "error"
    assert "HSET" in one.advice


def test_an_id_map_that_cannot_be_read_is_an_error(
    redis: Any, app: Flask, tracker: Tracker
) -> None:
    tracker.record([Mark("e", "ann", when=NOON)])
    keys = map_keys(MAPPED)
    redis.delete(keys.index)
    one = only(app, "the id map is not complete")
    assert (one.level, one.advice) == ("error", "Run: flask bitmapist reindex")
    redis.delete(keys.block(0))
    one = only(app, "the id map is gone")
    assert one.level == "error"
    assert "Restore all keys" in one.advice


def test_many_events_of_a_kind_have_few_lines(redis: Any, app: Flask, tracker: Tracker) -> None:
    tracker.record([Mark(f"e{n}", 2**24 + 9, when=NOON) for n in range(9)])
    found = [one.found for one in diagnosis(app).findings if "with ids like that" in one.found]
    assert found == ["4 more events with ids like that"]


def test_kinds_of_ids_are_counted(redis_url: str, tmp_path: Path, tracker: Tracker) -> None:
    tracker.record([Mark("e", 7, when=NOON)])
    tracker.record([Mark("f", "ann", when=NOON)])
    app = made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True)
    assert only(app, "by the kind of ids: 1 mapped, 1 plain").level == "ok"
    always = made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True, BITMAPIST_ID_MAP="always")
    assert only(always, "BITMAPIST_ID_MAP is 'always', and 'e' is plain").level == "warning"


def test_another_time_zone_is_named(redis_url: str, tmp_path: Path, tracker: Tracker) -> None:
    tracker.record([Mark("e", 7, when=NOON)])
    app = made_app(redis_url, tmp_path, BITMAPIST_TIMEZONE="Europe/Berlin")
    assert "'UTC'" in only(app, "Europe/Berlin", "recorded in UTC").advice


def test_a_ttl_that_is_not_applied_is_named(
    redis_url: str, redis: Any, tmp_path: Path, tracker: Tracker
) -> None:
    tracker.record([Mark("e", 7, when=datetime(2024, 2, 29)), Mark("e", 7, when=NOON)])
    ttl = {"day": timedelta(days=9)}
    app = made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True, BITMAPIST_TTL=ttl)
    assert "flask bitmapist prune" in only(app, "2 bitmaps would live longer").advice
    app.test_cli_runner().invoke(args=["bitmapist", "prune", "--yes"])
    assert not [one for one in diagnosis(app).findings if "BITMAPIST_TTL" in one.found]


# What waits


def test_marks_in_the_spool_are_counted(ill: Flask, mortal: MortalServer, tmp_path: Path) -> None:
    mortal.kill()
    tracker_of(ill).record([Mark("e", id_, when=NOON) for id_ in range(3)])
    one = only(ill, "3 marks in the spool, the oldest for 0.0 hours")
    assert one.level == "warning"
    other = made_app("redis://localhost:1", tmp_path, DISABLE_BLUEPRINT=True)
    assert only(other, "3 marks in the spool for a server at another address").level == "warning"
    tracker_of(ill).server.close()


def test_marks_that_are_refused_are_an_error(ill: Flask, admin: Any) -> None:
    admin.hset(f"trackist_e_{DAY}", "no", "bitmap")
    tracker_of(ill).record([Mark("e", 7, when=NOON)])
    one = only(ill, "1 mark refused", "WRONGTYPE")
    assert one.level == "error"
    tracker_of(ill).server.close()


def test_a_spool_that_is_off_damaged_or_almost_full_is_named(
    redis_url: str, tmp_path: Path
) -> None:
    assert only(made_app(redis_url, tmp_path, BITMAPIST_SPOOL=False), "SPOOL is False").advice
    spool = tmp_path / "spool"
    app = made_app(redis_url, tmp_path, BITMAPIST_SPOOL=str(spool), BITMAPIST_SPOOL_SIZE=2**20)
    spool.with_name("spool.damaged-20260314T092653Z").touch()
    assert only(app, "1 damaged file", "damaged-20260314T092653Z").level == "warning"
    spool.write_bytes(b"SQLite format 3\0" + bytes(2**20))
    assert only(app, "cannot be read").level == "warning"
    assert only(app, "that BITMAPIST_SPOOL_SIZE gives it").level == "warning"
    nowhere = made_app(redis_url, tmp_path, BITMAPIST_SPOOL=f"{spool}/is/a/file")
    assert only(nowhere, "cannot be written by this user").level == "warning"


def test_the_path_of_a_spool_may_be_any(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spool").write_bytes(b"")
    assert (
        "no such table"
        in only(made_app(redis_url, tmp_path, BITMAPIST_SPOOL="spool"), "read").found
    )
    app = made_app(redis_url, tmp_path, BITMAPIST_SPOOL="s" * 999)
    assert only(app, "cannot be looked at").level == "warning"


# The application


def test_an_open_dashboard_is_named(redis_url: str, tmp_path: Path) -> None:
    app = made_app(redis_url, tmp_path, BITMAPIST_URL_PREFIX="/stats")
    assert only(app, "/stats is open to everybody, because of TESTING").level == "warning"
    app.debug = True
    assert only(app, "because of debug mode").level == "warning"
    app.testing = app.debug = False
    assert only(app, "/stats is closed to all").level == "ok"
    app.extensions["bitmapist"].dashboard_access(lambda: True)
    assert only(app, "/stats asks dashboard_access").level == "ok"


def test_a_permission_to_save_that_does_nothing_is_named(redis_url: str, tmp_path: Path) -> None:
    app = made_app(redis_url, tmp_path)
    app.secret_key = None
    assert not [one for one in diagnosis(app).findings if "may_save" in one.found]
    app.extensions["bitmapist"].may_save(lambda: True)
    assert only(app, "nobody may save from the dashboard").level == "warning"
    app.secret_key = "x"
    assert not [one for one in diagnosis(app).findings if "may_save" in one.found]


def test_options_that_do_nothing_are_named(redis_url: str, tmp_path: Path) -> None:
    app = Flask("app", instance_path=str(tmp_path))
    app.config["BITMAPIST_SPOL"] = True
    options = {"BITMAPIST_REDIS_URL": redis_url, "BITMAPIST_TIMEZON": "UTC"}
    with pytest.warns(UserWarning, match="unknown option"):
        FlaskBitmapist(app, options)
    assert "BITMAPIST_SPOOL" in only(app, "there is no option BITMAPIST_SPOL").advice
    assert "BITMAPIST_TIMEZONE" in only(app, "no option BITMAPIST_TIMEZON").advice


def test_marks_that_are_off_are_named(redis_url: str, tmp_path: Path) -> None:
    app = made_app(redis_url, tmp_path)
    app.config["BITMAPIST_ENABLED"] = False
    assert only(app, "no marks are sent").level == "warning"


class Base(DeclarativeBase):
    pass


class Patient(Base, SQLAlchemyBitmapistable):
    __tablename__ = "patient"
    __bitmapist_events__ = ("created", "updated")
    __bitmapist_flags__ = ("insured",)
    __bitmapist_bulk__ = True
    __bitmapist_dimensions__ = ("ward",)

    id: Mapped[int] = mapped_column(primary_key=True)
    insured: Mapped[bool]
    ward: Mapped[str]


class Namesake(PeeweeBitmapistable, peewee.Model):
    __bitmapist_name__ = "patient"
    __bitmapist_id__ = "owner"
    owner = peewee.IntegerField()


def test_a_dimension_without_room_is_told(app: Flask, tracker: Tracker) -> None:
    tracker.settings = replace(tracker.settings, dimension_values=2)
    values = ["a", "b", "other"]
    tracker.record(
        Mark("user:plan", number, dated=False, choice=value) for number, value in enumerate(values)
    )
    assert only(app, "'user:plan' has 2 values, as many as").level == "warning"
    tracker.settings = replace(tracker.settings, dimension_values=3)
    assert not [one for one in diagnosis(app).findings if "user:plan" in one.found]


def test_models_are_described_with_what_is_not_seen(app: Flask) -> None:
    found = diagnosis(app)
    ours = {one.name.rpartition(".")[2]: one for one in found.models if __name__ in one.name}
    assert sorted(ours) == ["Namesake", "Patient"]
    patient, namesake = ours["Patient"], ours["Namesake"]
    assert patient.orm == "SQLAlchemy"
    assert patient.events == ["patient:created", "patient:updated"]
    assert (patient.flags, patient.id, patient.bulk) == (["patient:insured"], "primary key", True)
    assert (namesake.orm, namesake.id, namesake.bulk) == ("peewee", "owner", False)
    told = [one.found for one in _models.check([*ours.values()])]
    assert "Patient marks patient:created, updated; patient:insured; patient:ward" in told
    assert (
        "Namesake marks patient:created, updated, deleted by owner; not by bulk statements" in told
    )
    assert any(one.startswith("SQLAlchemy does not see: session.bulk_*") for one in told)
    listed = [one.found for one in _models.check([patient] * 12)]
    assert listed[9:11] == [listed[0], "and 2 models more: --json has all"]
    assert only(app, f"{__name__}.Namesake and {__name__}.Patient all mark").level == "warning"


# The command


def test_json_has_a_form_that_stays(app: Flask, tracker: Tracker) -> None:
    tracker.record([Mark("e", 7, when=NOON)])
    done = run(app, "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert [*told] == ["errors", "warnings", "findings", "events", "growth", "models"]
    assert [*told["findings"][0]] == ["part", "level", "found", "advice"]
    assert {one["part"] for one in told["findings"]} == {
        "server",
        "data",
        "waiting",
        "setup",
        "models",
    }
    assert [*told["events"][0]] == ["event", "kind", "bitmaps", "bytes", "largest_id", "density"]
    assert [*told["growth"]] == ["total", "monthly", "in_a_year"]
    assert [*told["models"][0]] == [
        "name",
        "orm",
        "events",
        "flags",
        "dimensions",
        "id",
        "bulk",
        "erases",
    ]
    assert run(app, "--csv").stdout.splitlines()[0] == "part,level,found,advice"


def test_warnings_do_not_fail_and_errors_do(redis: Any, app: Flask, tracker: Tracker) -> None:
    redis.setbit(f"trackist_others_{DAY}", 1, 1)
    assert run(app).exit_code == 0
    tracker.record([Mark("e", 7, when=NOON)])
    redis.delete("flask_bitmapist:events", "flask_bitmapist:events:copy")
    assert run(app).exit_code == 1
    assert run(app, "--json").exit_code == 1


def test_a_terminal_shows_the_largest_events_in_eighty_columns(
    app: Flask, tracker: Tracker
) -> None:
    names = [f"an event with quite a long name, number {n:02}" for n in range(12)]
    for n, name in enumerate(names):
        tracker.record([Mark(name, 1000 + n, when=NOON)])
    done = run(app)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("an event with quite a long ~") == 10
    assert "and 2 more" in done.stdout
    for title in ("Server", "Data", "Marks that wait here", "Settings", "Models"):
        assert title in done.stdout.splitlines()
