"""People whose rows are deleted are erased by themselves, where a model asks for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from adapters.engines import sqlite_engine
from conftest import made_app
from flask import Flask
from nodes import Cluster
from redis.exceptions import RedisClusterException
from servers import MortalServer
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_bitmapist import Dimension, FlaskBitmapist, SQLAlchemyBitmapistable, analytics
from flask_bitmapist.adapters.base import BitmapistableModel
from flask_bitmapist.delivery.spool import packed, unpacked
from flask_bitmapist.erased import ERASED
from flask_bitmapist.maintenance.erase import Eraser
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker
from flask_bitmapist.wishes import WISHES, Wish, wishes

ANN, BOB = "ann@example.org", "bob@example.org"
KEPT = ("user:deleted",)


class Base(DeclarativeBase):
    pass


class User(SQLAlchemyBitmapistable, Base):
    __tablename__ = "user"
    __bitmapist_erase_deleted__ = True
    __bitmapist_keep__ = ("page:read",)
    id: Mapped[int] = mapped_column(primary_key=True)


class Post(SQLAlchemyBitmapistable, Base):
    __tablename__ = "post"
    __bitmapist_flags__ = ("public",)
    id: Mapped[int] = mapped_column(primary_key=True)
    public: Mapped[bool] = mapped_column(default=True)


class Dossier(SQLAlchemyBitmapistable, Base):
    __tablename__ = "dossier"
    __bitmapist_id__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True)


class Archived(SQLAlchemyBitmapistable, Base):
    """A model with the name of another, whose ids it shares."""

    __tablename__ = "archived"
    __bitmapist_name__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def session() -> Iterator[Session]:
    engine = sqlite_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def tracker(process: Callable[..., Tracker], redis_url: str) -> Tracker:
    return process(redis_url)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread erases by itself."""
    monkeypatch.setattr("flask_bitmapist.later.Later.submit", lambda *_: None)


def went(id_: object) -> Mark:
    return Mark("user", id_, False, kept=KEPT)


def came(id_: object) -> Mark:
    return Mark("user", id_, kept=())


def deleted(id_: object) -> list[Mark]:
    return [Mark("user:deleted", id_), went(id_)]


def did(tracker: Tracker, user: object) -> set[str]:
    """What is known of `user`, in any period."""
    now = datetime.now(UTC)
    found = analytics.profile(user, now.date() - timedelta(900), now.date(), tracker=tracker)
    return {*found.days, *found.flags}


def pause() -> None:
    """Marks of one moment cannot be told from those of another."""
    time.sleep(0.02)


def test_a_deleted_person_is_erased_and_the_deletion_stays(
    session: Session, tracker: Tracker, redis: Any
) -> None:
    user, post, profile = User(id=7), Post(id=7), Dossier(id=7)
    session.add_all([user, post, profile])
    session.commit()
    last_year = datetime.now() - timedelta(days=400)
    tracker.record(
        [("song:played", 7), ("song:played", 7, True, True, last_year), ("page:read", 7)]
    )
    tracker.record([("song:played", 8)])
    session.delete(user)
    session.commit()
    assert tracker.flush()
    assert did(tracker, 7) == {"user:deleted", "post:created", "post:public", "page:read"}
    assert did(tracker, 8) == {"song:played"}
    assert not redis.exists(WISHES)


def test_a_model_whose_declaration_was_refused_does_not_matter(
    session: Session, tracker: Tracker
) -> None:
    with pytest.raises(TypeError, match="Refused") as raised:
        type("Refused", (BitmapistableModel,), {"__bitmapist_dimensions__": Dimension("plan")})
    assert raised.tb  # which keeps the class alive

    class Members(DeclarativeBase):
        pass

    class Member(SQLAlchemyBitmapistable, Members):
        __tablename__ = "user"
        __bitmapist_erase_deleted__ = True
        id: Mapped[int] = mapped_column(primary_key=True)

    session.add(Member(id=7))
    session.commit()
    session.delete(session.get_one(Member, 7))
    session.commit()
    assert tracker.flush()
    assert did(tracker, 7) == {"member:deleted"}


@pytest.mark.parametrize("delivery", ["immediate", "background"])
def test_a_number_that_the_database_gives_again_is_somebody_else(
    session: Session, process: Callable[..., Tracker], redis_url: str, waits: None, delivery: str
) -> None:
    tracker = process(redis_url, BITMAPIST_DELIVERY=delivery)
    ann = User()
    session.add(ann)
    session.commit()
    number = ann.id
    days = [datetime.now() - timedelta(days=ago) for ago in (0, 1, 40)]
    tracker.record([("song:played", number, True, True, day) for day in days])
    tracker.record([("premium", number, True, False)])
    tracker.flush()
    session.delete(ann)
    session.commit()
    tracker.flush()
    pause()
    bob = User()
    session.add(bob)
    session.commit()
    assert bob.id == number
    tracker.record([("song:liked", number), ("trial", number, True, False)])
    tracker.flush()
    assert tracker.erase_due().people == 1
    assert did(tracker, number) == {"user:deleted", "user:created", "song:liked", "trial"}
    assert tracker.erase_due().people == 0


@pytest.mark.parametrize("id_", [7, ANN])
def test_whoever_comes_while_the_other_is_erased_keeps_their_marks(
    process: Callable[..., Tracker], redis_url: str, waits: None, id_: Any
) -> None:
    tracker, other = process(redis_url), process(redis_url)
    old = datetime.now() - timedelta(days=400)
    for event in ("a", "b", "c"):
        tracker.record([(event, id_), (event, id_, True, True, old)])
    tracker.publish(deleted(id_))
    pause()
    marks = [came(id_), Mark("b", id_), Mark("user:created", id_)]

    def come(keys: int) -> None:
        if marks:
            other.publish(marks.copy())
            marks.clear()

    tracker.erase_due(watch=come)
    while tracker.erase_due().people:
        pass
    assert did(tracker, id_) - {"user:deleted"} == {"b", "user:created"}


@pytest.mark.parametrize("id_", [7, ANN])
def test_a_wish_that_arrives_twice_does_not_take_whoever_came_since(
    tracker: Tracker, waits: None, id_: Any
) -> None:
    from flask_bitmapist.tracker import _Settling

    marks = [*map(_Settling(tracker), deleted(id_))]
    made = time.time()
    deliver = tracker._deliverer()._courier.deliver
    deliver(marks, made)
    assert tracker.erase_due().people == 1
    pause()
    tracker.publish([came(id_), Mark("user:created", id_)])
    deliver(marks, made)
    assert tracker.erase_due().people == 0
    assert did(tracker, id_) >= {"user:created"}
    assert wishes(tracker.redis) == []


def test_a_wish_that_arrives_again_before_it_is_done_does_not_either(
    tracker: Tracker, waits: None
) -> None:
    from flask_bitmapist.tracker import _Settling

    marks = [*map(_Settling(tracker), deleted(7))]
    made = time.time()
    deliver = tracker._deliverer()._courier.deliver
    deliver(marks, made)
    pause()
    tracker.publish([came(7), Mark("user:created", 7)])
    deliver(marks, made)
    assert tracker.erase_due().people == 1
    assert did(tracker, 7) == {"user:deleted", "user:created"}


def test_whoever_comes_when_the_other_is_about_to_leave_the_map_stays_in_it(
    process: Callable[..., Tracker], redis_url: str, waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, other = process(redis_url), process(redis_url)
    tracker.record([("a", ANN)])
    tracker.publish(deleted(ANN))
    pause()
    remember = Eraser._remember

    def remember_later(*arguments: Any) -> None:
        remember(*arguments)
        monkeypatch.undo()
        other.publish([came(ANN), Mark("user:created", ANN)])

    monkeypatch.setattr(Eraser, "_remember", remember_later)
    tracker.erase_due()
    assert did(tracker, ANN) == {"user:created"}


def test_whoever_is_deleted_a_second_time_is_erased_a_second_time(
    tracker: Tracker, waits: None
) -> None:
    for _ in range(2):
        tracker.publish([came(7), Mark("user:created", 7)])
        tracker.publish(deleted(7))
        pause()
    assert tracker.erase_due().people == 1
    assert did(tracker, 7) == {"user:deleted"}


def test_many_are_looked_for_in_one_pass(tracker: Tracker, redis: Any, waits: None) -> None:
    days = [datetime.now() - timedelta(days=ago) for ago in range(20)]
    everybody = [*range(300), *map("u{}".format, range(100))]
    for day in days:
        tracker.record(
            [
                ("plain" if id_ in range(300) else "mapped", id_, True, True, day)
                for id_ in everybody
            ]
        )
    keys = redis.dbsize()
    tracker.publish([went(id_) for id_ in everybody if id_ not in (3, "u3")])
    seen: list[int] = []
    receipt = tracker.erase_due(watch=seen.append)
    assert receipt.people == 398
    assert sum(seen) <= 2 * keys
    assert receipt.bits > 398 * 20
    assert receipt.bits % 398 == 0
    assert [*analytics.users("plain", tracker=tracker)] == [3]
    assert [*analytics.users("mapped", tracker=tracker)] == ["u3"]
    assert redis.hlen(ERASED) == 400


@pytest.mark.parametrize("dry_run", [True, False])
def test_many_take_as_many_trips_as_few(
    tracker: Tracker, waits: None, round_trips: list[object], dry_run: bool
) -> None:
    trips = []
    for people in (2, 40):
        everybody: list[int | str] = [*range(people), *map("u{}".format, range(people))]
        tracker.record([("mapped" if isinstance(id_, str) else "plain", id_) for id_ in everybody])
        for _ in range(2):
            tracker.publish([went(id_) for id_ in everybody])
            pause()
        round_trips.clear()
        assert tracker.erase_due(dry_run=dry_run).people == 2 * people
        trips.append(len(round_trips))
        tracker.erase_due()
    assert trips[1] <= trips[0] + 2, trips


def test_more_than_can_be_looked_for_together_are_erased_in_parts(
    tracker: Tracker, waits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.maintenance.due._TOGETHER", 2)
    tracker.record([(event, id_) for event in ("a", "b") for id_ in range(5)])
    tracker.record([("c", 3, True, False), ("mapped", ANN)])
    tracker.publish([went(id_) for id_ in (*range(5), ANN)])
    told, done = tracker.erase_due(dry_run=True), tracker.erase_due()
    assert (done.people, done.bits, done.entries) == (6, 2 * 15 + 1 + 3, 1)
    assert (told.events, told.people, told.entries) == (done.events, 6, 1)
    assert [event.event for event in done.events] == ["a", "b", "c", "mapped"]
    assert wishes(tracker.redis) == []


@pytest.mark.parametrize("ids", [(7, 8), (ANN, BOB)])
def test_whoever_comes_before_it_is_the_turn_of_the_other_keeps_their_marks(
    process: Callable[..., Tracker],
    redis_url: str,
    waits: None,
    monkeypatch: pytest.MonkeyPatch,
    ids: tuple[Any, Any],
) -> None:
    monkeypatch.setattr("flask_bitmapist.maintenance.due._TOGETHER", 1)
    tracker, other = process(redis_url), process(redis_url)
    tracker.record([("a", id_) for id_ in ids])
    for id_ in ids:
        tracker.publish(deleted(id_))
        pause()
    marks = [came(ids[1]), Mark("user:created", ids[1])]

    def come(keys: int) -> None:
        if marks:
            other.publish(marks.copy())
            marks.clear()

    assert tracker.erase_due(watch=come).people == 2
    assert did(tracker, ids[1]) - {"user:deleted"} == {"user:created"}


def test_an_erasure_that_was_cut_short_is_done_by_the_next_process(
    process: Callable[..., Tracker], redis_url: str, waits: None
) -> None:
    tracker = process(redis_url)
    tracker.record([("song:played", id_) for id_ in (7, 8, ANN)][:2])
    tracker.record([("song:liked", ANN)])
    tracker.publish(deleted(7))
    tracker.publish([Mark("member:deleted", ANN), went(ANN)])

    def stop(keys: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracker.erase_due(watch=stop)
    other = process(redis_url)
    assert len(wishes(other.redis)) == 2
    assert other.erase_due().people == 2
    assert did(other, 7) == {"user:deleted"}
    assert did(other, ANN) == set()
    assert did(other, 8) == {"song:played"}


def test_a_wish_waits_in_the_spool_until_the_server_is_back(
    mortal: MortalServer, process: Callable[..., Tracker], tmp_path: Path
) -> None:
    tracker = process(mortal.url)
    tracker.record([("song:played", id_) for id_ in (7, 8)])
    mortal.kill()
    tracker.publish(deleted(7))
    pause()
    tracker.publish([came(7), Mark("user:created", 7)])
    tracker.record([("song:liked", 7)])
    mortal.start()
    # Another process of the machine delivers it, and erases.
    other = process(mortal.url)
    assert other.flush()
    assert did(other, 7) == {"user:deleted", "user:created", "song:liked"}
    assert did(other, 8) == {"song:played"}


@pytest.mark.parametrize("id_", [7, ANN])
def test_late_marks_of_whoever_went_are_dropped_and_those_of_whoever_came_are_kept(
    process: Callable[..., Tracker], redis_url: str, id_: Any
) -> None:
    from flask_bitmapist.tracker import _Settling

    tracker, late = process(redis_url), process(redis_url)
    tracker.record([("song:played", id_)])
    before = time.time()
    pause()
    tracker.publish(deleted(id_))
    pause()
    after = time.time()
    assert tracker.flush()
    time.sleep(0.2)  # longer than an erasure is dated ahead
    for event, made in (("old", before), ("new", after)):
        late._deliverer()._courier.deliver([_Settling(late)((event, id_))], made)
    assert did(tracker, id_) - {"user:deleted"} == {"new"}


def test_a_request_that_marks_nothing_still_has_the_person_erased(
    process: Callable[..., Tracker], redis_url: str
) -> None:
    tracker = process(redis_url)
    tracker.record([("song:played", 7)])
    tracker.ignore(lambda: True)
    with Flask("any").test_request_context():
        tracker.publish(deleted(7))
    assert tracker.flush()
    assert did(tracker, 7) == set()


@pytest.mark.parametrize("fault", [redis_py.ConnectionError, RedisClusterException])
def test_a_server_that_fails_meanwhile_is_waited_for(
    mortal: MortalServer,
    process: Callable[..., Tracker],
    monkeypatch: pytest.MonkeyPatch,
    fault: type[Exception],
) -> None:
    monkeypatch.setattr("flask_bitmapist.later.PAUSES", (0.05,))
    tracker = process(mortal.url)
    tracker.record([("song:played", 7)])
    erase_due = Tracker.erase_due

    def fail_once(tracker: Tracker, **named: Any) -> Any:
        monkeypatch.undo()
        mortal.kill()
        with suppress(redis_py.RedisError):
            return erase_due(tracker, **named)
        mortal.start()
        raise fault("it was away")

    monkeypatch.setattr(Tracker, "erase_due", fail_once)
    tracker.publish(deleted(7))
    deadline = time.monotonic() + 60
    while did_or_none(tracker, 7) != {"user:deleted"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def did_or_none(tracker: Tracker, user: object) -> set[str] | None:
    with suppress(redis_py.RedisError):
        return did(tracker, user)
    return None


@pytest.mark.parametrize("id_", [7, ANN])
def test_in_a_cluster(
    clusters: Callable[[int], Cluster], process: Callable[..., Tracker], waits: None, id_: Any
) -> None:
    tracker = process(clusters(2).url)
    old = datetime.now() - timedelta(days=400)
    for event in ("a", "b"):
        tracker.record([(event, id_), (event, id_, True, True, old)])
    tracker.publish(deleted(id_))
    pause()
    tracker.publish([came(id_), Mark("user:created", id_)])
    assert tracker.erase_due().people == 1
    assert did(tracker, id_) - {"user:deleted"} == {"user:created"}


def test_what_was_not_over_when_somebody_came_is_cleared_in_hours_too(
    tracker: Tracker, waits: None, redis: Any
) -> None:
    tracker.record([("a", 7, True, True, None, True, True)])
    tracker.publish(deleted(7))
    pause()
    tracker.publish([came(7)])
    assert [*redis.scan_iter("trackist_a_*")] == []


def test_somebody_new_without_the_id_of_one_who_went_changes_nothing(
    tracker: Tracker, redis: Any, waits: None
) -> None:
    tracker.record([("a", 7)])
    tracker.publish(deleted(8))
    before = redis.hgetall(WISHES)
    tracker.publish([came(7), Mark("user:created", 7)])
    assert did(tracker, 7) == {"a", "user:created"}
    assert redis.hgetall(WISHES) == before


def test_an_erasure_by_hand_fulfils_the_wish(tracker: Tracker, waits: None) -> None:
    tracker.publish(deleted(7))
    tracker.erase(7)
    pause()
    tracker.record([("a", 7)])
    assert tracker.erase_due().people == 0
    assert did(tracker, 7) == {"a"}
    assert wishes(tracker.redis) == []


def test_a_dry_run_changes_nothing(tracker: Tracker, redis: Any, waits: None) -> None:
    tracker.record([("a", id_) for id_ in (7, 8)])
    tracker.publish([went(7), went(8)])
    before = {key: redis.dump(key) for key in redis.scan_iter("*")}
    told = tracker.erase_due(dry_run=True)
    assert {key: redis.dump(key) for key in redis.scan_iter("*")} == before
    done = tracker.erase_due()
    assert (told.people, told.events) == (done.people, done.events)
    assert told.moment is None


def test_where_no_marks_are_sent_nobody_is_erased(
    process: Callable[..., Tracker], redis_url: str, waits: None, tracker: Tracker
) -> None:
    tracker.publish(deleted(7))
    assert process(redis_url, BITMAPIST_ENABLED=False).erase_due().people == 0
    assert len(wishes(tracker.redis)) == 1


def test_a_wish_is_what_it_was_after_the_spool_and_the_server(tracker: Tracker) -> None:
    from flask_bitmapist.tracker import _Settling

    for mark in (went(7), came(ANN)):
        settled = _Settling(tracker)(mark)
        assert unpacked(json.loads(json.dumps(packed(settled)))) == settled
    wish = Wish(ANN, 1, 2, ("a",), datetime(2026, 3, 14, 12, 5))
    assert Wish.loads(wish.field.encode(), wish.dumps().encode()) == wish


class TestCommand:
    @pytest.fixture
    def app(self, redis_url: str, tmp_path: Path, waits: None) -> Flask:
        return made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True)

    @pytest.fixture
    def waiting(self, app: Flask) -> Tracker:
        extension: FlaskBitmapist = app.extensions["bitmapist"]
        tracker = extension.tracker_of(app)
        tracker.record([("a", id_) for id_ in (7, 8, 9)])
        tracker.publish([went(7), went(8)])
        return tracker

    @staticmethod
    def run(app: Flask, *arguments: str, **named: Any) -> Any:
        return app.test_cli_runner().invoke(args=["bitmapist", *arguments], **named)

    def test_it_erases_those_who_wait(self, app: Flask, waiting: Tracker) -> None:
        done = self.run(app, "erase", "--due", "--dry-run")
        assert (done.exit_code, len(wishes(waiting.redis))) == (0, 2)
        assert done.stdout.endswith("6 bits of 1 event, of 2 people: would be erased\n")
        assert self.run(app, "erase", "--due", input="n\n").exit_code == 1
        assert len(wishes(waiting.redis)) == 2
        told = json.loads(self.run(app, "erase", "--due", "--yes", "--json").stdout)
        assert (told["people"], told["bits"]) == (2, 6)
        assert did(waiting, 9) == {"a"}
        assert did(waiting, 7) == set()

    def test_nobody_waits(self, app: Flask) -> None:
        done = self.run(app, "erase", "--due", "--yes")
        assert (done.exit_code, done.stdout) == (0, "nobody waits to be erased\n")
        done = self.run(app, "erase", "--due", "--yes", "--json")
        assert (done.exit_code, json.loads(done.stdout)["people"]) == (0, 0)

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ((), "name the USER to erase, or --due"),
            (("7", "--due"), "--due erases those who wait, and takes no USER"),
            (("--due", "--keep", "a"), "--due keeps what the models say"),
        ],
    )
    def test_what_cannot_be_meant_is_an_error(
        self, app: Flask, arguments: tuple[str, ...], told: str
    ) -> None:
        done = self.run(app, "erase", *arguments, "--yes")
        assert done.exit_code == 2
        assert told in done.output

    def test_the_doctor_tells_of_those_who_wait(
        self, app: Flask, waiting: Tracker, redis: Any
    ) -> None:
        found = json.loads(self.run(app, "doctor", "--json").stdout)["findings"]
        assert "2 people are about to be erased" in [one["found"] for one in found]
        old = Wish(9, int((time.time() - 7_200) * 1e6), 0, ())
        redis.hset(WISHES, old.field, old.dumps())
        found = json.loads(self.run(app, "doctor", "--json").stdout)["findings"]
        (one,) = [one for one in found if "wait to be erased" in one["found"]]
        assert one["level"] == "warning"
        assert one["found"] == "3 people wait to be erased, the first for 2.0 hours"
        assert "flask bitmapist erase --due" in one["advice"]
