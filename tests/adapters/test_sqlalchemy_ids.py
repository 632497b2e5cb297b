"""Whose bit a row marks: keys of every type, and ids that a relationship names."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
    delete,
    insert,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, synonym

from flask_bitmapist import Bitmapistable

from .engines import Tables
from .marks import Marks


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str | None] = mapped_column(unique=True)


class Team(Base):
    __tablename__ = "team"

    country: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


class Editor(User):
    __tablename__ = "editor"

    id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)


class Post(Base, Bitmapistable):
    __tablename__ = "post"
    __bitmapist_id__ = "author"
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("hot",)

    id: Mapped[int] = mapped_column(primary_key=True)
    hot: Mapped[bool] = mapped_column(default=False)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    author: Mapped[User | None] = relationship()


class Match(Base, Bitmapistable):
    """Its team's key is of two columns, in another order."""

    __tablename__ = "match"
    __bitmapist_id__ = "team"
    __bitmapist_bulk__ = True
    __table_args__ = (
        ForeignKeyConstraint(["team_number", "team_country"], ["team.number", "team.country"]),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    team_number: Mapped[int | None]
    team_country: Mapped[str | None]
    team: Mapped[Team | None] = relationship()


class Review(Base, Bitmapistable):
    __tablename__ = "review"
    __bitmapist_id__ = "editor"

    id: Mapped[int] = mapped_column(primary_key=True)
    editor_id: Mapped[int] = mapped_column(ForeignKey("editor.id"))
    editor: Mapped[Editor] = relationship()


class Letter(Base, Bitmapistable):
    __tablename__ = "letter"
    __bitmapist_id__ = "writer"
    __bitmapist_bulk__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    author: Mapped[str]
    writer: Mapped[str] = synonym("author")


TABLES = Tables(Base.metadata)


@pytest.fixture
def engine(engine: Engine) -> Engine:
    return TABLES.put_into(engine)


@pytest.fixture
def session(engine: Engine, marks: Marks) -> Iterator[Session]:
    with Session(engine) as session:
        session.add_all([User(id=7), User(id=8), Editor(id=9), Team(country="de", number=3)])
        session.commit()
        yield session


class TestRelationships:
    @pytest.mark.parametrize("by_object", [True, False])
    def test_the_related_rows_key_is_marked(
        self, session: Session, marks: Marks, by_object: bool
    ) -> None:
        given = {"author": session.get_one(User, 7)} if by_object else {"author_id": 7}
        post = Post(id=1, **given)
        session.add(post)
        session.commit()
        post.author_id = 8
        session.commit()
        session.delete(post)
        session.commit()
        assert marks() == {"post:created": [7], "post:deleted": [8], "post:updated": [8]}

    def test_a_row_that_refers_to_nobody_marks_nobody(
        self, session: Session, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        session.add_all([Post(hot=True), Match(team_number=3)])
        session.execute(insert(Post), [{"hot": True}])
        session.execute(insert(Match), [{"team_number": 3}])
        session.commit()
        assert (marks(), marks.flags(), caplog.records) == ({}, {}, [])

    def test_bulk_statements(self, session: Session, marks: Marks) -> None:
        session.execute(insert(Post), [{"author_id": 7}, {"author_id": 8, "hot": True}])
        session.commit()
        session.execute(update(Post).values(author_id=7))
        session.commit()
        session.execute(delete(Post))
        session.commit()
        assert marks() == {"post:created": [7, 8], "post:deleted": [7], "post:updated": [7]}

    def test_a_composite_key(self, session: Session, marks: Marks) -> None:
        session.add(Match(team=session.get_one(Team, ("de", 3))))
        session.commit()
        session.execute(update(Match).values(id=5))
        session.commit()
        assert marks()["match:created"] == [marks.offset("de:3")]

    def test_the_key_of_a_joined_subclass(self, session: Session, marks: Marks) -> None:
        session.add(Review(editor_id=9))
        session.commit()
        assert marks() == {"review:created": [9]}

    def test_a_synonym_is_what_it_names(self, session: Session, marks: Marks) -> None:
        session.add(Letter(author="77"))
        session.execute(insert(Letter), [{"author": "78"}])
        session.commit()
        assert set(marks()["letter:created"]) == {marks.offset("77"), marks.offset("78")}

    @pytest.mark.parametrize(
        ("options", "columns"),
        [
            ({"uselist": True}, {}),
            ({}, {"author_email": mapped_column(ForeignKey("user.email"))}),
        ],
        ids=["to many", "not to the key"],
    )
    def test_one_that_tells_no_key_is_an_error_when_mappers_are_configured(
        self, options: dict[str, Any], columns: dict[str, Any]
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class User(Own):
            __tablename__ = "user"
            key = ForeignKey("post.id") if options else Integer
            id: Mapped[int] = mapped_column(key, primary_key=True)
            email: Mapped[str] = mapped_column(unique=True)

        body = {"__tablename__": "post", "id": mapped_column(Integer, primary_key=True), **columns}
        body |= {"authors": relationship(User, **options), "__bitmapist_id__": "authors"}
        type("Post", (Own, Bitmapistable), body)
        with pytest.raises(TypeError, match="Post.authors gives no id"):
            Own.registry.configure()
        Own.registry.dispose()


class Colour(enum.Enum):
    RED = "red"


class Code(TypeDecorator[str]):
    """Stored as bytes, given as text."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: object) -> str | None:
        return None if value is None else value.decode()


@pytest.fixture
def keyed_by(engine: Engine) -> Callable[..., Any]:
    """A model whose key is made of columns of these types."""

    def declare(*types: Any) -> Any:
        class Own(DeclarativeBase):
            pass

        columns = {f"key_{n}": Column(type_, primary_key=True) for n, type_ in enumerate(types)}
        body: dict[str, Any] = {
            "__tablename__": "thing",
            "hot": Column(Boolean, default=False),
            **columns,
        }
        body |= {"__bitmapist_bulk__": True}
        return type("Thing", (Own, Bitmapistable), body)

    return declare


class TestKeys:
    USABLE: ClassVar = [
        (Integer(), 5, "5"),
        (String(), "a:b", "a\\:b"),
        (Uuid(), UUID(int=5), str(UUID(int=5))),
        (Date(), date(2026, 11, 28), "2026-11-28"),
        (DateTime(), datetime(2026, 11, 28, 9, 30), "2026-11-28T09\\:30\\:00"),
        (Time(), time(9, 30), "09\\:30\\:00"),
        (Numeric(10, 2), Decimal("1.5"), "1.5"),
        (Enum(Colour), Colour.RED, "red"),
        (Enum("red", "blue"), "red", "red"),
        (Code(), "abc", "abc"),
    ]

    @pytest.mark.parametrize(("type_", "value", "text"), USABLE, ids=repr)
    @pytest.mark.filterwarnings("ignore:Dialect sqlite.* does .*not.* support Decimal")
    def test_a_part_of_a_composite_key_is_its_usual_text(
        self,
        keyed_by: Callable[..., Any],
        engine: Engine,
        marks: Marks,
        type_: Any,
        value: object,
        text: str,
    ) -> None:
        thing = keyed_by(Integer(), type_)
        thing.metadata.create_all(engine)
        with Session(engine) as session:
            session.execute(insert(thing), [{"key_0": 7, "key_1": value}])
            session.commit()
            row = session.get_one(thing, (7, value))
            row.hot = True
            session.commit()
            session.execute(delete(thing))
            session.commit()
        offset = [marks.offset(f"7:{text}")]
        assert marks() == dict.fromkeys(["thing:created", "thing:deleted", "thing:updated"], offset)

    @pytest.mark.parametrize(
        "type_",
        [Float(), Boolean(), LargeBinary(), Interval(), Numeric(asdecimal=False)],
        ids=repr,
    )
    def test_a_key_that_cannot_be_an_id_is_an_error_when_mappers_are_configured(
        self, keyed_by: Callable[..., Any], type_: Any
    ) -> None:
        thing = keyed_by(Integer(), type_)
        with pytest.raises(TypeError, match=r"Thing.key_1 holds \w+ values, which cannot be ids"):
            thing.registry.configure()
        thing.registry.dispose()
