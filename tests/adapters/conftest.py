"""What the tests of every adapter share: the marks, as bitmapist's own classes read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from bitmapist import DayEvents, MonthEvents, UniqueEvents, WeekEvents
from flask import Flask
from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.tracker import Tracker

Ids = list[int]


class Marks:
    """Today's marks and the flags of one app."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __call__(self) -> dict[str, Ids]:
        """Event -> the offsets marked today; day, week and month agree."""
        found = {}
        for name in self._tracker.reader.event_names():
            day = list(DayEvents.from_date(name))
            assert day == list(WeekEvents.from_date(name)) == list(MonthEvents.from_date(name))
            if day:
                found[name] = day
        return found

    def flags(self) -> dict[str, Ids]:
        """Flag -> the offsets that have it."""
        names = self._tracker.reader.event_names()
        return {name: list(UniqueEvents(name)) for name in names if len(UniqueEvents(name))}

    def offset(self, id_: str, space: str = "") -> int:
        """The offset that stands for a mapped id."""
        return self._tracker._id_map.lookup(self._tracker.redis, id_, [space])[space]

    def forget_days(self) -> None:
        """Start afresh but for the flags."""
        undated = [UniqueEvents(name).redis_key for name in self._tracker.reader.event_names()]
        bitmaps = {key.decode() for key in self._tracker.redis.keys("trackist_*")}
        if dated := bitmaps - set(undated):
            self._tracker.redis.delete(*dated)

    def forget(self) -> None:
        """Start afresh: as if nothing had been marked."""
        self._tracker.redis.flushdb()
        self._tracker._registry.forget_known()
        self._tracker._id_map.forget_known()


@pytest.fixture
def marks(tracker: Tracker) -> Marks:
    return Marks(tracker)


@pytest.fixture
def app(redis_url: str, tmp_path: Path) -> Flask:
    """Without a dashboard: its routes take most of the time that an app needs to be set up."""
    app = Flask("testapp", instance_path=str(tmp_path / "instance"))
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_DISABLE_BLUEPRINT=True,
    )
    FlaskBitmapist(app)
    return app


@pytest.fixture
def in_app(app: Flask) -> Iterator[Flask]:
    with app.app_context():
        yield app


@pytest.fixture
def bit_commands(redis: redis_py.Redis) -> Callable[[], int]:
    """How many commands have written bits so far: a batch takes one a key, whatever its size."""

    def count() -> int:
        stats = redis.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("setbit", "bitfield")
        )

    return count


def sqlite_engine(url: str, **options: object) -> Engine:
    """An engine whose transactions and savepoints are SQLite's own, and whose foreign keys count.

    The recipe of SQLAlchemy's documentation: the sqlite3 module begins too late for savepoints.
    """
    return with_real_savepoints(create_engine(url, **options))


def with_real_savepoints(engine: Engine) -> Engine:
    """`engine`, whose transactions and savepoints are SQLite's own."""

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


class Tables:
    """The empty tables of a module: they are copied into a database quicker than created."""

    def __init__(self, metadata: MetaData) -> None:
        self._metadata = metadata
        self._image: bytes | None = None

    def put_into(self, engine: Engine) -> Engine:
        """Into `engine`, whose connections share one database in memory."""
        with engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            if self._image is None:
                with connection.begin():
                    self._metadata.create_all(connection)
                self._image = database.serialize()
            else:
                database.deserialize(self._image)
        return engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = sqlite_engine("sqlite://", poolclass=StaticPool)
    yield engine
    engine.dispose()


@pytest.fixture
def file_engine(tmp_path: Path) -> Iterator[Engine]:
    engine = sqlite_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}")
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _no_changes_left_in_sessions() -> Iterator[None]:
    """Once a transaction has ended, its session remembers nothing of it."""
    seen: list[Session] = []

    def note(session: Session, _: object) -> None:
        seen.append(session)

    event.listen(Session, "after_transaction_end", note)
    yield
    event.remove(Session, "after_transaction_end", note)
    for session in seen:
        if not session.in_transaction():
            assert not [slot for slot in session.info if "bitmapist" in str(slot)]
