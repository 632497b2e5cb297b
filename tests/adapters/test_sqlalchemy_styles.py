"""Every way to declare a model and to hold a session that Flask applications use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import flask_sqlalchemy_lite
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.model import DefaultMeta, Model
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    text,
    update,
)
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncAttrs,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    DeclarativeBaseNoMeta,
    Mapped,
    MappedAsDataclass,
    Session,
    declarative_base,
    declared_attr,
    mapped_column,
    registry,
    scoped_session,
    sessionmaker,
)
from sqlmodel import Field, SQLModel
from sqlmodel import Session as SQLModelSession

from flask_bitmapist import Bitmapistable
from flask_bitmapist.adapters.sqlalchemy import record

from .marks import Marks


def declarative(mixin_first: bool) -> Any:
    class Base(DeclarativeBase):
        pass

    bases = (Bitmapistable, Base) if mixin_first else (Base, Bitmapistable)

    class User(*bases):  # type: ignore[misc]
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

    return User


def declarative_without_metaclass() -> Any:
    class Base(DeclarativeBaseNoMeta):
        pass

    class User(Base, Bitmapistable):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

    return User


def declarative_function() -> Any:
    base: Any = declarative_base()

    class User(base, Bitmapistable):
        __tablename__ = "user"
        id = Column(Integer, primary_key=True)
        name = Column(String, default="")

    return User


def mixin_in_the_base() -> Any:
    class Base(DeclarativeBase, Bitmapistable):
        pass

    class User(Base):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

    return User


def mapped_as_dataclass() -> Any:
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class User(Base, Bitmapistable):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

    return User


def decorated_dataclass() -> Any:
    mappers = registry()

    @mappers.mapped_as_dataclass
    class User(Bitmapistable):
        __tablename__ = "user"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

    return User


def imperative() -> Any:
    mappers = registry()
    columns = Column("id", Integer, primary_key=True), Column("name", String, default="")
    table = Table("user", mappers.metadata, *columns)

    class User(Bitmapistable):
        def __init__(self, id: int) -> None:  # noqa: A002
            self.id = id

    mappers.map_imperatively(User, table)
    return User


def imperative_dataclass() -> Any:
    mappers = registry()
    columns = Column("id", Integer, primary_key=True), Column("name", String, default="")
    table = Table("user", mappers.metadata, *columns)

    @mappers.mapped
    @dataclass
    class User(Bitmapistable):
        __table__ = table
        id: int = field(default=0)
        name: str = field(default="")

    return User


def mixin_with_columns_of_its_own() -> Any:
    class Base(DeclarativeBase):
        pass

    class Tracked(Bitmapistable):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(default="")

        @declared_attr.directive
        def __tablename__(cls: Any) -> str:  # noqa: N805
            return str(cls.__name__).lower()

    class User(Base, Tracked):
        pass

    return User


def sqlmodel() -> Any:
    class Own(SQLModel, registry=registry(metadata=MetaData())):
        pass

    class User(Own, Bitmapistable, table=True):
        __tablename__ = "user"
        id: int | None = Field(default=None, primary_key=True)
        name: str = ""

    return User


@pytest.mark.parametrize(
    "declare",
    [
        pytest.param(lambda: declarative(mixin_first=True), id="declarative, mixin first"),
        pytest.param(lambda: declarative(mixin_first=False), id="declarative, mixin last"),
        declarative_without_metaclass,
        declarative_function,
        mixin_in_the_base,
        mapped_as_dataclass,
        decorated_dataclass,
        imperative,
        imperative_dataclass,
        mixin_with_columns_of_its_own,
        sqlmodel,
    ],
)
def test_every_style_of_mapping_marks(
    declare: Callable[[], Any], engine: Engine, marks: Marks
) -> None:
    model = declare()
    model.__table__.create(engine)
    with Session(engine) as session:
        row = model(id=4)
        session.add(row)
        session.commit()
        row.name = "x"
        session.commit()
        session.delete(row)
        session.commit()
    assert marks() == {"user:created": [4], "user:updated": [4], "user:deleted": [4]}


def test_a_sqlmodel_session_marks(engine: Engine, marks: Marks) -> None:
    model = sqlmodel()
    model.__table__.create(engine)
    with SQLModelSession(engine) as session:
        session.add(model())
        session.commit()
    assert marks() == {"user:created": [1]}


class TestFlaskSQLAlchemy:
    @pytest.fixture(params=["default", "declarative", "no metaclass", "dataclass", "function"])
    def db(self, request: pytest.FixtureRequest, app: Flask, tmp_path: Path) -> SQLAlchemy:
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'flask.sqlite3'}"
        bases: dict[str, tuple[type, ...]] = {
            "declarative": (DeclarativeBase,),
            "no metaclass": (DeclarativeBaseNoMeta,),
            "dataclass": (DeclarativeBase, MappedAsDataclass),
        }
        if request.param == "default":
            return SQLAlchemy(app)
        if request.param == "function":
            return SQLAlchemy(app, model_class=declarative_base(cls=Model, metaclass=DefaultMeta))
        try:
            return SQLAlchemy(app, model_class=type("Base", bases[request.param], {}))
        except InvalidRequestError as error:
            pytest.skip(f"Flask-SQLAlchemy cannot: {error}")

    @pytest.fixture
    def user(self, db: SQLAlchemy, app: Flask) -> Any:
        class User(Bitmapistable, db.Model):  # type: ignore[name-defined]
            __bitmapist_flags__ = ("premium",)
            __bitmapist_bulk__ = True
            id: Mapped[int] = mapped_column(primary_key=True)
            premium: Mapped[bool] = mapped_column(default=False)

        with app.app_context():
            db.create_all()
        return User

    def test_a_row_lives(self, db: SQLAlchemy, user: Any, in_app: Flask, marks: Marks) -> None:
        row = user(id=1, premium=True)
        db.session.add(row)
        db.session.commit()
        assert marks.flags() == {"user:premium": [1]}
        row.premium = False
        db.session.commit()
        db.session.delete(row)
        db.session.commit()
        assert marks() == {"user:created": [1], "user:updated": [1], "user:deleted": [1]}
        assert marks.flags() == {}

    def test_bulk_statements(self, db: SQLAlchemy, user: Any, in_app: Flask, marks: Marks) -> None:
        db.session.execute(insert(user), [{"id": 1}, {"id": 2}])
        db.session.execute(update(user).values(premium=True))
        db.session.execute(delete(user).where(user.id == 2))
        db.session.commit()
        assert (marks(), marks.flags()) == ({"user:created": [1]}, {"user:premium": [1]})

    def test_the_end_of_a_request_drops_what_was_not_committed(
        self, db: SQLAlchemy, user: Any, marks: Marks, app: Flask
    ) -> None:
        @app.post("/users/<int:id_>")
        def create(id_: int) -> str:
            db.session.add(user(id=id_))
            record(db.session, ("user:asked", id_))
            db.session.flush()
            if id_ == 2:
                db.session.commit()
            return ""

        for id_ in (1, 2, 3):
            app.test_client().post(f"/users/{id_}")
        assert marks() == {"user:asked": [2], "user:created": [2]}

    def test_an_exception_in_a_view_marks_nothing(
        self, db: SQLAlchemy, user: Any, marks: Marks, app: Flask
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False

        @app.post("/fail")
        def fail() -> str:
            db.session.add(user(id=1))
            db.session.flush()
            raise ZeroDivisionError

        assert app.test_client().post("/fail").status_code == 500
        assert marks() == {}


def test_flask_sqlalchemy_with_several_databases_marks_once_a_commit(
    app: Flask, in_app: Flask, marks: Marks
) -> None:
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_BINDS={"archive": "sqlite://"}
    )
    db = SQLAlchemy(app)

    class User(Bitmapistable, db.Model):  # type: ignore[name-defined]
        id = db.Column(db.Integer, primary_key=True)

    class Letter(Bitmapistable, db.Model):  # type: ignore[name-defined]
        __bind_key__ = "archive"
        __bitmapist_bulk__ = True
        __bitmapist_flags__ = ("read",)
        id = db.Column(db.Integer, primary_key=True)
        read = db.Column(db.Boolean, default=False)

    db.create_all()
    db.session.add_all([User(id=1), Letter(id=2)])
    db.session.execute(update(Letter).values(read=True))
    db.session.commit()
    assert marks() == {"user:created": [1], "letter:created": [2]}
    assert marks.flags() == {"letter:read": [2]}


class TestFlaskSQLAlchemyLite:
    @pytest.fixture
    def user(self) -> Any:
        return declarative(mixin_first=True)

    @pytest.fixture
    def db(self, app: Flask, tmp_path: Path) -> flask_sqlalchemy_lite.SQLAlchemy:
        url = tmp_path / "lite.sqlite3"
        app.config["SQLALCHEMY_ENGINES"] = {"default": f"sqlite:///{url}"}
        app.config["SQLALCHEMY_ASYNC_ENGINES"] = {"default": f"sqlite+aiosqlite:///{url}"}
        return flask_sqlalchemy_lite.SQLAlchemy(app)

    def test_marks(
        self, db: flask_sqlalchemy_lite.SQLAlchemy, user: Any, in_app: Flask, marks: Marks
    ) -> None:
        user.metadata.create_all(db.engine)
        db.session.add(user(id=1))
        record(db.session, ("user:seen", 5))
        db.session.commit()
        db.session.add(user(id=2))
        db.session.rollback()
        assert marks() == {"user:created": [1], "user:seen": [5]}

    def test_marks_in_an_async_view(
        self, db: flask_sqlalchemy_lite.SQLAlchemy, user: Any, app: Flask, marks: Marks
    ) -> None:
        @app.post("/")
        async def create() -> str:
            async with db.async_session as session:
                session.add(user(id=1))
                await session.commit()
            await db.async_engine.dispose()
            return ""

        with app.app_context():
            user.metadata.create_all(db.engine)
        assert app.test_client().post("/").status_code == 200
        assert marks() == {"user:created": [1]}


class TestScopedSession:
    @pytest.fixture
    def user(self, engine: Engine) -> Any:
        model = declarative(mixin_first=True)
        model.metadata.create_all(engine)
        return model

    def test_marks_and_records(self, engine: Engine, user: Any, marks: Marks) -> None:
        session = scoped_session(sessionmaker(engine))
        session.add(user(id=1))
        record(session, ("user:seen", 1))
        session.commit()
        session.add(user(id=2))
        record(session, ("user:seen", 2))
        session.remove()
        assert marks() == {"user:created": [1], "user:seen": [1]}


class TestAsyncSession:
    @asynccontextmanager
    async def sessions(
        self, tmp_path: Path, model: Any
    ) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.sqlite3'}")
        async with engine.begin() as connection:
            await connection.run_sync(model.metadata.create_all)
        try:
            yield async_sessionmaker(engine)
        finally:
            await engine.dispose()

    @pytest.fixture
    def user(self) -> Any:
        class Base(AsyncAttrs, DeclarativeBase):
            pass

        class User(Base, Bitmapistable):
            __tablename__ = "user"
            __bitmapist_bulk__ = True
            __bitmapist_flags__ = ("premium",)
            id: Mapped[int] = mapped_column(primary_key=True)
            premium: Mapped[bool] = mapped_column(server_default=text("0"))

        return User

    def test_a_row_lives(self, tmp_path: Path, user: Any, marks: Marks) -> None:
        async def work() -> None:
            async with self.sessions(tmp_path, user) as new, new() as session:
                row = user(id=1)
                session.add(row)
                await session.commit()
                await session.refresh(row)
                row.premium = True
                await session.commit()
                assert marks.flags() == {"user:premium": [1]}
                await session.delete(row)
                await session.commit()

        asyncio.run(work())
        assert marks() == {"user:created": [1], "user:updated": [1], "user:deleted": [1]}
        assert marks.flags() == {}

    def test_savepoints_and_rollbacks(self, tmp_path: Path, user: Any, marks: Marks) -> None:
        async def work() -> None:
            async with self.sessions(tmp_path, user) as new:
                async with new() as session, session.begin():
                    session.add(user(id=1))
                    async with session.begin_nested():
                        session.add(user(id=2))
                    savepoint = await session.begin_nested()
                    session.add(user(id=3))
                    await session.flush()
                    await savepoint.rollback()
                async with new() as session:
                    session.add(user(id=4))
                    await session.flush()
                    await session.rollback()

        asyncio.run(work())
        assert marks() == {"user:created": [1, 2]}

    def test_bulk_statements(self, tmp_path: Path, user: Any, marks: Marks) -> None:
        async def work() -> None:
            async with self.sessions(tmp_path, user) as new, new() as session:
                await session.execute(insert(user), [{"id": 1}, {"id": 2}, {"id": 3}])
                await session.commit()
                await session.execute(update(user).where(user.id < 3).values(premium=True))
                result: Any = await session.execute(delete(user).where(user.id == 1))
                assert result.rowcount == 1
                await session.commit()

        asyncio.run(work())
        assert marks() == {"user:created": [1, 2, 3], "user:updated": [2], "user:deleted": [1]}
        assert marks.flags() == {"user:premium": [2]}

    def test_record(self, tmp_path: Path, user: Any, marks: Marks) -> None:
        async def work() -> None:
            async with self.sessions(tmp_path, user) as new:
                async with new() as session:
                    record(session, ("user:seen", 1))  # at once
                    await session.execute(text("SELECT 1"))
                    record(session, ("user:seen", 2))
                    await session.commit()
                    await session.execute(text("SELECT 1"))
                    record(session, ("user:seen", 3))
                    await session.rollback()
                scoped = async_scoped_session(new, scopefunc=asyncio.current_task)
                await scoped.execute(text("SELECT 1"))
                record(scoped, ("user:seen", 4))
                await scoped.commit()
                await scoped.remove()

        asyncio.run(work())
        assert marks() == {"user:seen": [1, 2, 4]}

    def test_many_tasks_mark_each_their_own(self, tmp_path: Path, user: Any, marks: Marks) -> None:
        async def work() -> None:
            async with self.sessions(tmp_path, user) as new:

                async def one(id_: int) -> None:
                    async with new() as session:
                        session.add(user(id=id_))
                        await session.flush()
                        await (session.commit() if id_ % 2 else session.rollback())

                await asyncio.gather(*(one(id_) for id_ in range(8)))

        asyncio.run(work())
        assert marks() == {"user:created": [1, 3, 5, 7]}


def test_a_uuid_keyed_model_and_its_login_meet_on_one_bit(
    engine: Engine, in_app: Flask, marks: Marks
) -> None:
    class Base(DeclarativeBase):
        pass

    class User(Base, Bitmapistable):
        __tablename__ = "user"
        id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([User(), User()])
        session.commit()
        user = session.scalars(User.__table__.select()).first()
        record(session, ("user:logged_in", str(user)))
        session.commit()
    assert marks()["user:logged_in"] == [marks.offset(str(user))]
    assert marks()["user:created"] == [0, 1]
