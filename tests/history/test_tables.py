"""Each ORM: a backfill marks what the models themselves mark when rows are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import mongoengine as mongo
import peewee
import pytest
import redis as redis_py
from adapters.peewee_servers import server_database
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from pymongo.database import Database
from sqlalchemy import Engine, ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from flask_bitmapist import Bitmapistable
from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable
from flask_bitmapist.adapters.peewee import PeeweeBitmapistable
from flask_bitmapist.maintenance.backfill import Backfill, Backfilled
from flask_bitmapist.maintenance.runs import StoppedError
from flask_bitmapist.maintenance.tables import key_of, key_text
from flask_bitmapist.tracker import Tracker

from .bits import Bits, bits_of

pytest_plugins = ["adapters.mongodb"]
pytestmark = pytest.mark.usefixtures("small_pages", "in_app")

WHEN = datetime(2024, 2, 29, 13)
COUNT = 40
Compared = Callable[..., None]


@pytest.fixture
def in_app(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


@pytest.fixture
def as_marked(tracker: Tracker, redis: redis_py.Redis) -> Compared:
    """Makes rows, whose models mark them, and compares that with a backfill of all of it."""

    def compare(model: Any, make: Callable[[], object], source: Any = None) -> None:
        with tracker.at(WHEN):
            make()
        live = bits_of(tracker)
        assert any("created" in key for key in live)
        redis.flushdb()
        done = Backfill(tracker, model, "at", source=source).run()
        assert bits_of(tracker) == live
        assert done.rows == done.marked == COUNT
        redis.flushdb()
        assert two_halves(tracker, model, source) == live

    return compare


def two_halves(tracker: Tracker, model: Any, source: Any) -> Bits:
    """The bits of a run that is stopped in the middle, and resumed with what it printed."""
    job = Backfill(tracker, model, "at", source=source)

    def press_a_key(done: Backfilled) -> None:
        if done.rows > COUNT // 2:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="Interrupted") as stopped:
        job.run(told=press_a_key)
    rest = job.run(after=key_of(key_text(stopped.value.after)))
    assert 0 < rest.rows < COUNT // 2
    return bits_of(tracker)


class Base(DeclarativeBase):
    pass


class Plain(Base, Bitmapistable):
    __tablename__ = "plain_of_tables"
    __bitmapist_flags__ = ("vip",)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    vip: Mapped[bool]


class Texts(Base, Bitmapistable):
    __tablename__ = "texts_of_tables"
    __bitmapist_flags__ = ("vip",)
    __bitmapist_ids__ = "texts"
    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    vip: Mapped[bool]


class Uuids(Base, Bitmapistable):
    __tablename__ = "uuids_of_tables"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Composite(Base, Bitmapistable):
    __tablename__ = "composite_of_tables"
    team: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Child(Base, Bitmapistable):
    __tablename__ = "child_of_tables"
    __bitmapist_id__ = "parent"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[str] = mapped_column(ForeignKey("texts_of_tables.id"))
    parent: Mapped[Texts] = relationship()
    at: Mapped[datetime]


class Animal(Base, Bitmapistable):
    __tablename__ = "animal_of_tables"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Dog(Animal):
    __tablename__ = "dog_of_tables"
    id: Mapped[int] = mapped_column(ForeignKey("animal_of_tables.id"), primary_key=True)
    good: Mapped[bool]
    __bitmapist_flags__ = ("good",)
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


def text_of(number: int) -> str:
    return str(number) if number % 2 else f"näme {number}"


SQLALCHEMY: dict[type, Callable[[int], dict[str, Any]]] = {
    Plain: lambda n: {"id": n, "vip": n % 3 == 0},
    Texts: lambda n: {"id": text_of(n), "vip": n % 3 == 0},
    Uuids: lambda n: {"id": UUID(int=n * 7**40, version=4)},
    Composite: lambda n: {"team": f"t:{n % 3}", "number": n},
    Child: lambda n: {"parent_id": text_of(n)},
    Cat: lambda n: {},
    Dog: lambda n: {"good": n % 3 == 0},
}


@pytest.fixture(params=["sqlite", "TEST_POSTGRESQL_URL", "TEST_MYSQL_URL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'tables.sqlite3'}"
    if request.param != "sqlite":
        if request.param not in os.environ:
            pytest.skip(f"{request.param} is not set")
        url = os.environ[request.param]
    engine = create_engine(url)
    for column in (Texts.__table__.c.id, Child.__table__.c.parent_id, Composite.__table__.c.team):
        column.type.length = 100  # type: ignore[attr-defined]  # MariaDB wants one
    Animal.__table__.c.kind.type.length = 20  # type: ignore[attr-defined]
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.mark.parametrize("model", SQLALCHEMY, ids=lambda model: model.__name__)
def test_sqlalchemy(model: Any, database: Engine, as_marked: Compared, redis: Any) -> None:
    with Session(database) as session:
        if model is Child:
            session.add_all(Texts(id=text_of(n), at=WHEN, vip=False) for n in range(1, COUNT + 1))
        if model in (Cat, Dog):  # rows of other classes are not the model's
            session.add(Animal(at=WHEN))
        session.commit()
        redis.flushdb()

        def make() -> None:
            for number in range(1, COUNT + 1):
                session.add(model(at=WHEN, **SQLALCHEMY[model](number)))
            session.commit()

        as_marked(model, make, database)


@pytest.mark.parametrize("how", ["sessionmaker", "session"])
def test_sqlalchemy_takes_whatever_leads_to_the_database(
    how: str, database: Engine, tracker: Tracker
) -> None:
    with Session(database) as session:
        session.add(Plain(id=1, at=WHEN, vip=True))
        session.commit()
    source = Session(database) if how == "session" else lambda: Session(database)
    assert Backfill(tracker, Plain, "at", source=source).run().marked == 1


def test_flask_sqlalchemy_knows_where_each_models_rows_are(app: Flask, as_marked: Compared) -> None:
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_BINDS={"archive": "sqlite://"}
    )
    db = SQLAlchemy(app)

    class Letter(Bitmapistable, db.Model):  # type: ignore[misc, name-defined]
        __bind_key__ = "archive"
        id = db.Column(db.Integer, primary_key=True)
        at = db.Column(db.DateTime)

    db.create_all()

    def make() -> None:
        db.session.add_all(Letter(at=WHEN) for _ in range(COUNT))
        db.session.commit()

    as_marked(Letter, make)


@pytest.fixture(params=["sqlite", "TEST_POSTGRESQL_URL", "TEST_MYSQL_URL"])
def peewee_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[peewee.Database]:
    database: peewee.Database = peewee.SqliteDatabase(str(tmp_path / "peewee.sqlite3"))
    if request.param != "sqlite":
        if request.param not in os.environ:
            pytest.skip(f"{request.param} is not set")
        database = server_database(os.environ[request.param])
    yield database
    database.close()


PEEWEE: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[int], dict[str, Any]]]] = {
    "plain": (
        lambda: {"vip": peewee.BooleanField(), "__bitmapist_flags__": ("vip",)},
        lambda n: {"vip": n % 3 == 0},
    ),
    "texts": (lambda: {"id": peewee.CharField(primary_key=True)}, lambda n: {"id": text_of(n)}),
    "uuids": (
        lambda: {"id": peewee.UUIDField(primary_key=True)},
        lambda n: {"id": UUID(int=n * 7**40, version=4)},
    ),
    "composite": (
        lambda: {"team": peewee.CharField(), "number": peewee.IntegerField()},
        lambda n: {"team": f"t:{n % 3}", "number": n},
    ),
    "method": (
        lambda: {"__bitmapist_id__": lambda self: f"c{self.id}"},
        lambda n: {},
    ),
}


@pytest.mark.parametrize("name", PEEWEE)
def test_peewee(name: str, peewee_database: peewee.Database, as_marked: Compared) -> None:
    fields, values = PEEWEE[name]

    class Meta:
        database = peewee_database
        table_name = f"{name}_of_peewee"

    if name == "composite":
        setattr(Meta, "primary_key", peewee.CompositeKey("team", "number"))  # noqa: B010
    attributes = {"at": peewee.DateTimeField(), **fields(), "Meta": Meta}
    model: Any = type(name.title(), (PeeweeBitmapistable, peewee.Model), attributes)
    peewee_database.drop_tables([model])
    peewee_database.create_tables([model])

    def make() -> None:
        with peewee_database.atomic():
            for number in range(1, COUNT + 1):
                model.create(at=WHEN, **values(number))

    as_marked(model, make)
    peewee_database.drop_tables([model])


def test_peewee_takes_sql_for_which_rows(
    peewee_database: peewee.Database, tracker: Tracker
) -> None:
    class Row(peewee.Model):
        name = peewee.CharField()
        at = peewee.DateTimeField()

        class Meta:
            database = peewee_database
            table_name = "row_of_peewee"

    peewee_database.drop_tables([Row])
    peewee_database.create_tables([Row])
    for name in ("ada", "bob", "abe"):
        Row.create(name=name, at=WHEN)
    job = Backfill(tracker, Row, "at", where="name LIKE 'a%' OR name = 'no'")
    assert (job.count(), job.run().marked) == (2, 2)
    peewee_database.drop_tables([Row])


@pytest.mark.parametrize("where", ["mongomock_database", "server_database"])
@pytest.mark.parametrize("kind", ["object_id", "texts", "uuids", "reference", "method"])
def test_mongoengine(
    kind: str, where: str, request: pytest.FixtureRequest, as_marked: Compared, redis: Any
) -> None:
    if (kind, where) == ("uuids", "mongomock_database"):
        pytest.skip("mongomock cannot sort by UUIDs")
    request.getfixturevalue(where)

    class Owner(mongo.Document):  # type: ignore[misc]
        name = mongo.StringField(primary_key=True)

    class Animal(MongoEngineBitmapistable, mongo.Document):  # type: ignore[misc]
        at = mongo.DateTimeField(db_field="a")
        vip = mongo.BooleanField(db_field="v")
        meta = {"allow_inheritance": True}  # noqa: RUF012

    key = {"texts": mongo.StringField, "uuids": mongo.UUIDField}.get(kind)
    attributes: dict[str, Any] = {"__bitmapist_flags__": ("vip",)}
    if key is not None:
        attributes["code"] = key(primary_key=True)
    if kind == "reference":
        attributes |= {"owner": mongo.ReferenceField(Owner), "__bitmapist_id__": "owner"}
    if kind == "method":
        attributes["__bitmapist_id__"] = lambda self: f"c{self.id}"
    bases = (MongoEngineBitmapistable, mongo.Document) if key else (Animal,)
    if key:
        attributes |= {"at": mongo.DateTimeField(), "vip": mongo.BooleanField()}
    model: Any = type("Cat", bases, attributes)
    if not key:
        Animal(at=WHEN, vip=True).save()  # not the model's
        redis.flushdb()

    def make() -> None:
        for number in range(1, COUNT + 1):
            values: dict[str, Any] = {"at": WHEN, "vip": number % 3 == 0}
            if kind == "reference":
                values["owner"] = Owner(name=f"owner {number}").save()
            if key is not None:
                values["code"] = (
                    text_of(number) if kind == "texts" else UUID(int=number * 7**40, version=4)
                )
            model(**values).save()

    as_marked(model, make)


def test_mongoengine_takes_json_for_which_documents(
    mongomock_database: Database[Any], tracker: Tracker
) -> None:
    class Person(mongo.Document):  # type: ignore[misc]
        name = mongo.StringField()
        at = mongo.DateTimeField()

    for name in ("ada", "bob", "abe"):
        Person(name=name, at=WHEN).save()
    where = '{"name": {"$in": ["ada", "abe"]}, "at": {"$lt": {"$date": "2025-01-01T00:00:00Z"}}}'
    job = Backfill(tracker, Person, "at", where=where)
    assert (job.count(), job.run().marked) == (2, 2)
    with pytest.raises(ValueError, match="extended JSON"):
        Backfill(tracker, Person, "at", where="name = 'ada'")


@pytest.mark.parametrize(
    "key",
    [
        (7,),
        ("7",),
        ("de", 7),
        (UUID(int=5),),
        (datetime(2026, 3, 1, 5), Decimal("1.50")),
        (b"\x01\xff",),
    ],
)
def test_a_key_survives_being_printed(key: tuple[Any, ...]) -> None:
    assert key_of(key_text(key)) == key


def test_what_is_no_key_is_an_error() -> None:
    for text in ("nonsense", "{}", '{"UUID": "x"}', '{"os": "x"}'):
        with pytest.raises(ValueError, match="is no key"):
            key_of(text)
