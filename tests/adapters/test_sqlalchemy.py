"""What a transaction of SQLAlchemy's unit of work marks, and when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from bitmapist import DayEvents
from flask import Flask
from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Engine,
    ForeignKey,
    Integer,
    String,
    TypeDecorator,
    case,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    SessionTransaction,
    column_property,
    deferred,
    make_transient,
    mapped_column,
    relationship,
)
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.types import UserDefinedType

from flask_bitmapist import Bitmapistable, FlaskBitmapist
from flask_bitmapist.adapters.sqlalchemy import record

from .engines import Tables
from .marks import Marks


class Base(DeclarativeBase):
    pass


class User(Bitmapistable, Base):
    __tablename__ = "user"
    __bitmapist_flags__ = ("premium",)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    premium: Mapped[bool] = mapped_column(default=False)
    visits: Mapped[int] = mapped_column(CheckConstraint("visits >= 0"), default=0)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    tags: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    seen: Mapped[int] = mapped_column(default=0, onupdate=lambda: 1)
    posts: Mapped[list[Post]] = relationship(back_populates="author", cascade="all, delete-orphan")
    badge: Mapped[Badge | None] = relationship(back_populates="owner")


class Post(Bitmapistable, Base):
    __tablename__ = "post"
    __bitmapist_ids__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(default="")
    author_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    author: Mapped[User | None] = relationship(back_populates="posts")


class Badge(Bitmapistable, Base):
    __tablename__ = "badge"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("user.id"))
    owner: Mapped[User | None] = relationship(back_populates="badge")


class Letter(Bitmapistable, Base):
    __tablename__ = "letter"
    __bitmapist_id__ = "sender"
    __bitmapist_flags__ = ("read",)

    id: Mapped[int] = mapped_column(primary_key=True)
    sender: Mapped[int] = mapped_column(deferred=True)
    read: Mapped[bool] = mapped_column(default=False)


class Receipt(Bitmapistable, Base):
    """Its foreign key is checked by COMMIT."""

    __tablename__ = "receipt"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user.id", deferrable=True, initially="DEFERRED")
    )


class Versioned(Bitmapistable, Base):
    __tablename__ = "versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version = mapped_column(Integer, nullable=False)

    __mapper_args__ = {"version_id_col": version}


TABLES = Tables(Base.metadata)


@pytest.fixture
def engine(engine: Engine) -> Engine:
    return TABLES.put_into(engine)


@pytest.fixture
def session(engine: Engine, marks: Marks) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def ann(session: Session, marks: Marks) -> User:
    """A user who was there before: loaded, and her marks forgotten."""
    ann = User(id=7, name="Ann", settings={"a": 1}, tags={"a": 1})
    session.add(ann)
    session.commit()
    session.refresh(ann)
    marks.forget()
    return ann


def add(session: Session, **attributes: Any) -> User:
    user = User(name=uuid4().hex, **attributes)
    session.add(user)
    session.flush()
    return user


class TestTransactions:
    def test_closing_without_commit_marks_nothing(self, session: Session, marks: Marks) -> None:
        add(session)
        session.close()
        session.commit()
        assert marks() == {}

    def test_reset_and_invalidate_mark_nothing(self, engine: Engine, marks: Marks) -> None:
        session = Session(engine)
        add(session)
        session.reset()
        add(session)
        session.invalidate()
        session.commit()
        assert marks() == {}

    def test_a_session_that_is_forgotten_marks_nothing(
        self, session: Session, marks: Marks
    ) -> None:
        forgotten = Session(session.bind)
        add(forgotten)
        del forgotten
        session.commit()
        assert marks() == {}

    def test_a_failing_commit_marks_nothing(self, session: Session, marks: Marks) -> None:
        session.add_all([User(name="Ann"), Receipt(user_id=404)])
        session.flush()
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.commit()
        assert marks() == {}

    def test_a_failing_commit_can_be_repaired(self, session: Session, marks: Marks) -> None:
        session.add(Receipt(id=1, user_id=404))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add_all([User(id=404, name="Ann"), Receipt(id=1, user_id=404)])
        session.commit()
        assert marks() == {"receipt:created": [1], "user:created": [404]}

    def test_a_stale_row_marks_nothing(self, file_engine: Engine, marks: Marks) -> None:
        Base.metadata.create_all(file_engine)
        with Session(file_engine, expire_on_commit=False) as session:
            row = Versioned(id=1, name="a")
            session.add(row)
            session.commit()
            with Session(file_engine) as other:
                other.get_one(Versioned, 1).name = "b"
                other.commit()
            marks.forget()
            session.add(User(name="in the same flush"))
            row.name = "c"
            with pytest.raises(StaleDataError):
                session.commit()
            session.rollback()
        assert marks() == {}

    def test_the_session_can_be_used_once_the_marks_are_published(
        self, session: Session, marks: Marks
    ) -> None:
        user = add(session, id=5)
        session.commit()
        assert user.name
        user.visits = 1
        session.commit()
        assert marks() == {"user:created": [5], "user:updated": [5]}


class TestSavepoints:
    def test_an_inner_rollback_leaves_the_outer_savepoint(
        self, session: Session, marks: Marks
    ) -> None:
        outer = session.begin_nested()
        add(session, id=2)
        inner = session.begin_nested()
        add(session, id=3)
        inner.rollback()
        outer.commit()
        session.commit()
        assert marks() == {"user:created": [2]}

    def test_the_roots_commit_releases_open_savepoints(
        self, session: Session, marks: Marks
    ) -> None:
        session.begin_nested()
        add(session, id=2)
        session.begin_nested()
        add(session, id=3)
        session.commit()
        while session.in_transaction():
            session.commit()
        assert marks() == {"user:created": [2, 3]}

    def test_a_savepoint_of_a_listener_inside_the_flush_counts(
        self, session: Session, marks: Marks
    ) -> None:
        @event.listens_for(session, "before_flush", once=True)
        def add_another(session: Session, *_: object) -> None:
            with session.begin_nested():
                session.execute(text("INSERT INTO post (id, title) VALUES (1, '')"))
                record(session, ("post:imported", 1))

        add(session, id=1)
        session.commit()
        assert marks() == {"post:imported": [1], "user:created": [1]}


class TestNetChange:
    def test_deleted_and_created_again_in_two_flushes_is_updated(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.delete(ann)
        session.flush()
        add(session, id=7)
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_a_row_switch_in_one_flush_is_updated(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.delete(ann)
        session.add(User(id=7, name="Ann again", premium=True))
        session.commit()
        assert marks() == {"user:updated": [7]}
        assert marks.flags() == {"user:premium": [7]}

    def test_a_key_that_the_database_gives_again_is_another_ones_row(
        self, session: Session, marks: Marks
    ) -> None:
        session.add(Letter(id=1, sender=70, read=True))
        session.commit()
        marks.forget()
        session.delete(session.get_one(Letter, 1))
        session.flush()
        with session.begin_nested():
            session.add(Letter(id=1, sender=80, read=True))
        session.commit()
        assert marks() == {"letter:created": [80], "letter:deleted": [70]}
        assert marks.flags() == {"letter:read": [80]}


class TestUpdates:
    def test_a_value_that_the_database_computes_is_not_an_update(
        self, engine: Engine, marks: Marks
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class Thing(Own, Bitmapistable):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)
            shout = column_property(func.upper("x"))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            thing = Thing(id=1)
            session.add(thing)
            session.commit()
            marks.forget()
            thing.shout = "Y"
            session.commit()
        assert marks() == {}

    def test_set_and_reverted_is_not_an_update(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.name = "Bea"
        ann.name = "Ann"
        session.commit()
        assert marks() == {}

    def test_an_expired_attribute_is_updated_as_sqlalchemy_updates_it(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        # Its old value is unknown: the UPDATE is sent.
        session.expire(ann)
        ann.name = "Ann"
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_an_sql_expression_is_an_update(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.visits = User.visits + 1
        session.commit()
        assert marks() == {"user:updated": [7]}
        assert ann.visits == 1

    def test_flag_modified_json_is_an_update(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.settings["a"] = 2
        flag_modified(ann, "settings")
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_mutable_json_is_an_update(self, session: Session, ann: User, marks: Marks) -> None:
        ann.tags["a"] = 2
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_plain_json_changed_in_place_is_none_as_no_update_is_sent(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.settings["a"] = 2
        session.commit()
        assert marks() == {}

    def test_an_edit_by_the_applications_own_listener_is_an_update(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        def edit(_: object, __: object, user: User) -> None:
            user.visits = 100

        event.listen(User, "before_update", edit)
        try:
            session.add(ann)
            ann.posts.append(Post(id=1))  # makes her dirty, and changes no column of hers
            session.commit()
        finally:
            event.remove(User, "before_update", edit)
        assert marks() == {"post:created": [1], "user:updated": [7]}

    def test_appending_to_a_collection_does_not_update_the_parent(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.posts.append(Post(id=1))
        session.commit()
        assert marks() == {"post:created": [1]}

    def test_a_moved_child_is_updated_and_its_parents_are_not(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        post = Post(id=1)
        ann.posts.append(post)
        bea = add(session, id=8)
        session.commit()
        marks.forget()
        post.author = bea
        session.commit()
        assert marks() == {"post:updated": [1]}

    def test_a_one_to_one_set_from_the_parent_updates_the_child(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.add(Badge(id=1))
        session.commit()
        marks.forget()
        ann.badge = session.get_one(Badge, 1)
        session.commit()
        assert marks() == {"badge:updated": [1]}

    def test_onupdate_alone_is_not_an_update(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.posts.append(Post(id=1))
        session.commit()
        assert "user:updated" not in marks()

    def test_a_merged_change_is_an_update(self, session: Session, ann: User, marks: Marks) -> None:
        session.merge(User(id=7, name="Bea"))
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_a_merge_of_the_same_values_marks_nothing(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.merge(User(id=7, name="Ann"))
        session.commit()
        assert marks() == {}

    def test_a_merge_of_a_new_row_is_created(self, session: Session, marks: Marks) -> None:
        session.merge(User(id=70, name="Bea"))
        session.commit()
        assert marks() == {"user:created": [70]}

    def test_a_detached_row_that_is_added_again_is_updated(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.expunge(ann)
        ann.visits = 5
        session.add(ann)
        session.commit()
        assert marks() == {"user:updated": [7]}

    def test_a_detached_row_that_was_not_loaded_again_still_has_its_id(
        self, session: Session, ann: User
    ) -> None:
        session.expire(ann)
        session.expunge(ann)
        assert ann.__bitmapist_identity__() == 7

    def test_a_row_made_transient_is_created_again(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        make_transient(ann)
        ann.id, ann.name = 70, "copy"
        session.add(ann)
        session.commit()
        assert marks() == {"user:created": [70]}


class TestPrimaryKeyChanges:
    def test_a_changed_primary_key_is_updated_under_the_new_one(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.id = 70
        session.commit()
        assert marks() == {"user:updated": [70]}

    def test_flags_move_to_the_new_key(self, session: Session, ann: User, marks: Marks) -> None:
        ann.premium = True
        session.commit()
        ann.id = 70
        session.commit()
        assert marks.flags() == {"user:premium": [70]}

    def test_created_under_one_key_and_moved_is_created_under_the_last(
        self, session: Session, marks: Marks
    ) -> None:
        user = add(session, id=1, premium=True)
        with session.begin_nested():
            user.id = 2
        user.id = 3
        session.commit()
        assert marks() == {"user:created": [3]}
        assert marks.flags() == {"user:premium": [3]}

    def test_moved_and_deleted_is_deleted_under_the_first(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.id = 70
        session.flush()
        session.delete(ann)
        session.commit()
        assert marks() == {"user:deleted": [7]}

    def test_a_move_in_a_rolled_back_savepoint_is_none(
        self, session: Session, marks: Marks
    ) -> None:
        user = add(session, id=1)
        savepoint = session.begin_nested()
        user.id = 2
        session.flush()
        savepoint.rollback()
        session.commit()
        assert marks() == {"user:created": [1]}

    def test_two_rows_that_swap_their_keys_keep_their_flags(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.premium = True
        bea = add(session, id=8)
        session.commit()
        marks.forget()
        with session.begin_nested():
            ann.id = 100
            session.flush()
            bea.id = 7
            session.flush()
            ann.id = 8
        session.commit()
        assert marks() == {"user:updated": [7, 8]}
        assert marks.flags() == {"user:premium": [8]}


class TestDeletes:
    def test_an_expired_row_is_marked_under_its_own_id(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.expire(ann)
        session.delete(ann)
        session.commit()
        assert marks() == {"user:deleted": [7]}

    def test_a_chosen_id_that_was_not_loaded_is_read_before_the_row_is_gone(
        self, session: Session, marks: Marks
    ) -> None:
        session.add(Letter(id=1, sender=70))
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Letter, 1))
        session.commit()
        assert marks()["letter:deleted"] == [70]

    def test_a_cascade_marks_every_row(self, session: Session, ann: User, marks: Marks) -> None:
        ann.posts = [Post(id=number) for number in range(3)]
        session.commit()
        marks.forget()
        session.delete(ann)
        session.commit()
        assert marks() == {"post:deleted": [0, 1, 2], "user:deleted": [7]}

    def test_an_orphan_is_deleted_not_updated(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.posts = [Post(id=number) for number in range(2)]
        session.commit()
        marks.forget()
        ann.posts.pop()
        session.commit()
        assert marks() == {"post:deleted": [1]}

    def test_a_row_that_others_deleted_breaks_nothing(
        self, session: Session, ann: User, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        session.execute(text("DELETE FROM user"))
        session.delete(ann)
        with pytest.warns(match="expected to delete 1 row"):
            session.commit()
        assert caplog.records == []


class TestFlags:
    def test_a_flag_of_a_released_savepoint_wins_over_the_one_before(
        self, session: Session, marks: Marks
    ) -> None:
        user = add(session, id=1, premium=True)
        with session.begin_nested():
            user.premium = False
        session.commit()
        assert marks.flags() == {}

    def test_an_sql_expression_sets_the_flag_it_evaluates_to(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.premium = case((User.visits == 0, True), else_=False)
        session.commit()
        assert marks.flags() == {"user:premium": [7]}

    def test_another_columns_change_leaves_the_flag(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        ann.premium = True
        session.commit()
        marks.forget()
        ann.visits = 5
        session.commit()
        assert marks.flags() == {}  # not set again

    def test_a_flag_comes_from_the_servers_default(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Member(Own, Bitmapistable):
            __tablename__ = "member"
            __bitmapist_flags__ = ("trial",)
            __mapper_args__ = {"eager_defaults": False}
            id: Mapped[int] = mapped_column(primary_key=True)
            trial: Mapped[bool] = mapped_column(Boolean, server_default=text("1"))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Member(), Member(trial=False)])
            session.commit()
        assert marks.flags() == {"member:trial": [1]}

    def test_computed_and_python_flags_are_read_at_every_update(
        self, engine: Engine, marks: Marks
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class Member(Own, Bitmapistable):
            __tablename__ = "member"
            __bitmapist_flags__ = ("adult", "senior", "retired")
            id: Mapped[int] = mapped_column(primary_key=True)
            age: Mapped[int]
            adult: Mapped[bool] = mapped_column(Computed("age >= 18"))

            @hybrid_property
            def senior(self) -> bool:
                return self.age >= 60

            @property
            def retired(self) -> bool:
                return self.age >= 67

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            member = Member(age=10)
            session.add(member)
            session.commit()
            assert marks.flags() == {}
            member.age = 62
            session.commit()
            assert marks.flags() == {"member:adult": [1], "member:senior": [1]}
            member.age = 68
            session.commit()
            assert len(marks.flags()) == 3
            member.age = 5
            session.commit()
            assert marks.flags() == {}

    def test_a_deferred_flag_is_loaded(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Member(Own, Bitmapistable):
            __tablename__ = "member"
            __bitmapist_flags__ = ("trial",)
            id: Mapped[int] = mapped_column(primary_key=True)
            trial: Mapped[bool] = deferred(mapped_column(Boolean, server_default=text("1")))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Member())
            session.commit()
        assert marks.flags() == {"member:trial": [1]}


class TestOptions:
    """Each class has a registry of its own: a wrong one fails all mappers of its registry."""

    @pytest.fixture
    def model(self, engine: Engine) -> Callable[..., Any]:
        def declare(**options: Any) -> Any:
            class Own(DeclarativeBase):
                pass

            class Article(Own, Bitmapistable):
                __tablename__ = "article"
                locals().update({f"__bitmapist_{key}__": value for key, value in options.items()})
                id: Mapped[int] = mapped_column(primary_key=True)
                author_id: Mapped[int | None]
                hot: Mapped[bool] = mapped_column(default=False)
                shout = column_property(func.upper("x"))

                def own_id(self) -> object:
                    return (self.author_id, "de")

            Own.metadata.create_all(engine)
            return Article

        return declare

    def live(self, engine: Engine, model: Any, **attributes: Any) -> None:
        """A row is created, updated and deleted, in three transactions."""
        with Session(engine) as session:
            row = model(id=1, **attributes)
            session.add(row)
            session.commit()
            row.hot = True
            session.commit()
            session.delete(row)
            session.commit()

    def test_no_events_leaves_the_flags(
        self, engine: Engine, model: Callable[..., Any], marks: Marks
    ) -> None:
        article = model(events=(), flags=("hot",))
        with Session(engine) as session:
            session.add(article(hot=True))
            session.commit()
        assert (marks(), marks.flags()) == ({}, {"article:hot": [1]})

    def test_an_author_who_gains_an_id_is_marked_from_then_on(
        self, engine: Engine, model: Callable[..., Any], marks: Marks
    ) -> None:
        article = model(id="author_id")
        with Session(engine) as session:
            row = article()
            session.add(row)
            session.commit()
            row.author_id = 5
            session.commit()
        assert marks() == {"article:updated": [5]}

    def test_an_id_that_cannot_be_used_is_logged_and_the_rest_marked(
        self,
        engine: Engine,
        model: Callable[..., Any],
        marks: Marks,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        article = model(id="author_id")
        with Session(engine) as session:
            session.add_all([article(author_id=-5), article(author_id=3)])
            session.commit()
        assert marks() == {"article:created": [3]}
        assert "negative" in caplog.text

    def test_an_id_method_that_raises_is_logged_and_the_row_is_there(
        self,
        engine: Engine,
        model: Callable[..., Any],
        marks: Marks,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        article = model(id=lambda self: 1 / 0)
        with Session(engine) as session:
            session.add(article(id=1))
            session.commit()
            assert session.get(article, 1)
        assert marks() == {}
        assert "could not note a row of Article as created" in caplog.text

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"id": "writer_id"}, "Article has no attribute 'writer_id'"),
            ({"flags": ["cold"]}, "Article has no attribute 'cold'"),
            (
                {"bulk": True, "id": lambda self: self.own_id()},
                "Article.__bitmapist_id__ must name a column, as __bitmapist_bulk__ is True",
            ),
            ({"bulk": True, "id": "own_id"}, "Article.own_id must be a column"),
            ({"bulk": True, "flags": ["own_id"]}, "Article.own_id must be a column"),
        ],
    )
    def test_an_option_that_names_nothing_is_an_error_when_mappers_are_configured(
        self, model: Callable[..., Any], options: dict[str, Any], message: str
    ) -> None:
        article = model(**options)
        with pytest.raises(TypeError, match=message):
            article.registry.configure()
        article.registry.dispose()


class TestKeys:
    @pytest.fixture
    def create(self, engine: Engine) -> Callable[..., None]:
        """Create a row of a model whose key columns are `columns`."""

        def create(columns: dict[str, Any], *keys: dict[str, Any], **options: Any) -> None:
            class Own(DeclarativeBase):
                pass

            model = type(
                "Thing",
                (Own, Bitmapistable),
                {
                    "__tablename__": "thing",
                    **{name: Column(type_, primary_key=True) for name, type_ in columns.items()},
                    **{f"__bitmapist_{name}__": value for name, value in options.items()},
                },
            )
            Own.metadata.create_all(engine)
            with Session(engine) as session:
                session.add_all(model(**key) for key in keys)
                session.commit()

        return create

    def test_a_textual_type_of_ones_own_is_mapped(
        self, create: Callable[..., None], marks: Marks
    ) -> None:
        class Code(TypeDecorator[str]):
            impl = String
            cache_ok = True

        create({"id": Code}, {"id": "900"})
        assert marks() == {"thing:created": [marks.offset("900")]}

    def test_text_of_a_type_that_tells_no_python_type_is_mapped(
        self, create: Callable[..., None], marks: Marks
    ) -> None:
        class Code(UserDefinedType[str]):
            cache_ok = True

            def get_col_spec(self, **_: object) -> str:
                return "TEXT"

        create({"id": Code}, {"id": "900"})
        assert marks() == {"thing:created": [marks.offset("900")]}

    def test_digits_from_a_numeric_column_are_that_number(
        self, create: Callable[..., None], marks: Marks
    ) -> None:
        class Digits(TypeDecorator[str]):
            impl = Integer
            cache_ok = True

            def process_result_value(self, value: int | None, _: object) -> str | None:
                return None if value is None else str(value)

        create({"id": Digits}, {"id": "900"})
        assert marks() == {"thing:created": [900]}

    def test_a_textual_column_that_is_the_chosen_id_is_mapped(
        self, create: Callable[..., None], marks: Marks
    ) -> None:
        create({"id": Integer, "owner": String}, {"id": 1, "owner": "77"}, id="owner")
        assert marks() == {"thing:created": [marks.offset("77")]} == {"thing:created": [0]}


class TestRelationships:
    def test_post_update_of_a_many_to_one_is_an_update(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Widget(Own, Bitmapistable):
            __tablename__ = "widget"
            id: Mapped[int] = mapped_column(primary_key=True)
            favourite_id: Mapped[int | None] = mapped_column(
                ForeignKey("entry.id", name="favourite", use_alter=True)
            )
            favourite: Mapped[Any] = relationship(
                "Entry", foreign_keys=[favourite_id], post_update=True
            )

        class Entry(Own, Bitmapistable):
            __tablename__ = "entry"
            id: Mapped[int] = mapped_column(primary_key=True)
            widget_id: Mapped[int] = mapped_column(ForeignKey("widget.id"))
            widget: Mapped[Widget] = relationship(foreign_keys=[widget_id])

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            widget = Widget(id=1)
            session.add_all([widget, Entry(id=2, widget=widget)])
            session.commit()
            marks.forget()
            widget.favourite = session.get_one(Entry, 2)
            session.commit()
            assert marks() == {"widget:updated": [1]}
            assert widget.favourite_id == 2

    @pytest.mark.parametrize("passive_deletes", [True, "all"])
    def test_rows_that_the_database_deletes_are_not_seen(
        self, engine: Engine, marks: Marks, passive_deletes: Any
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class Box(Own, Bitmapistable):
            __tablename__ = "box"
            id: Mapped[int] = mapped_column(primary_key=True)
            items: Mapped[list[Any]] = relationship("Item", passive_deletes=passive_deletes)

        class Item(Own, Bitmapistable):
            __tablename__ = "item"
            id: Mapped[int] = mapped_column(primary_key=True)
            box_id: Mapped[int] = mapped_column(ForeignKey("box.id", ondelete="CASCADE"))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            box = Box(id=1, items=[Item(id=5)])
            session.add(box)
            session.commit()
            marks.forget()
            session.delete(box)
            session.commit()
            assert session.scalar(select(func.count()).select_from(Item)) == 0
        assert marks() == {"box:deleted": [1]}


class TestInheritance:
    @pytest.fixture(params=["joined", "single"])
    def employees(self, request: pytest.FixtureRequest, engine: Engine) -> Any:
        class Own(DeclarativeBase):
            pass

        class Employee(Own, Bitmapistable):
            __tablename__ = "employee"
            __mapper_args__ = {
                "polymorphic_on": "kind",
                "polymorphic_identity": "employee",
            }
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str]
            name: Mapped[str] = mapped_column(default="")

        class Manager(Employee):
            __mapper_args__ = {"polymorphic_identity": "manager"}
            __bitmapist_flags__ = ("board",)
            if request.param == "joined":
                __tablename__ = "manager"
                id: Mapped[int] = mapped_column(ForeignKey("employee.id"), primary_key=True)
            board: Mapped[bool | None] = mapped_column(default=False)

        Own.metadata.create_all(engine)
        return Employee, Manager

    def test_a_row_is_marked_once_by_its_most_specific_class(
        self, employees: Any, engine: Engine, marks: Marks
    ) -> None:
        employee, manager = employees
        with Session(engine) as session:
            session.add_all([employee(id=1), manager(id=2, board=True)])
            session.commit()
            assert marks() == {"employee:created": [1], "manager:created": [2]}
            assert marks.flags() == {"manager:board": [2]}
            session.get_one(employee, 2).name = "x"
            session.commit()
            assert marks()["manager:updated"] == [2]
            session.get_one(manager, 2).board = False
            session.commit()
            assert marks.flags() == {}
            session.delete(session.get_one(employee, 2))
            session.commit()
        assert marks()["manager:deleted"] == [2]
        assert "employee:deleted" not in marks()

    def test_rows_of_concrete_tables_are_apart(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Employee(Own, Bitmapistable):
            __tablename__ = "employee"
            __bitmapist_bulk__ = True
            id: Mapped[int] = mapped_column(primary_key=True)

        class Engineer(Employee):
            __tablename__ = "engineer"
            __mapper_args__ = {"concrete": True}
            id: Mapped[int] = mapped_column(primary_key=True)

        class Manager(Employee):
            __tablename__ = "manager"
            __mapper_args__ = {"concrete": True}
            id: Mapped[int] = mapped_column(primary_key=True)

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Engineer(id=1), Manager(id=1), Engineer(id=2)])
            session.commit()
            assert marks() == {"engineer:created": [1, 2], "manager:created": [1]}
            marks.forget()
            session.delete(session.get_one(Engineer, 2))
            session.flush()
            session.add(Employee(id=2))
            session.execute(delete(Manager))
            session.execute(insert(Engineer), [{"id": 3}])
            session.commit()
        assert marks() == {
            "employee:created": [2],
            "engineer:created": [3],
            "engineer:deleted": [2],
            "manager:deleted": [1],
        }

    def test_a_mixin_in_both_a_class_and_its_base_marks_once(
        self, engine: Engine, marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class Left(Bitmapistable):
            pass

        class Right(Bitmapistable):
            pass

        class Thing(Own, Left, Right):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)

        Own.metadata.create_all(engine)
        before = bit_commands()
        with Session(engine) as session:
            session.add(Thing(id=3))
            session.commit()
        assert marks() == {"thing:created": [3]}
        assert bit_commands() - before == 3

    def test_an_abstract_base_hands_its_options_down(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Tracked(Own, Bitmapistable):
            __abstract__ = True
            __bitmapist_events__ = ("created",)

        class Thing(Tracked):
            __tablename__ = "thing"
            id: Mapped[int] = mapped_column(primary_key=True)

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            thing = Thing(id=3)
            session.add(thing)
            session.commit()
            session.delete(thing)
            session.commit()
        assert marks() == {"thing:created": [3]}


class TestRecord:
    def test_in_an_after_commit_listener_belongs_to_that_commit(
        self, session: Session, marks: Marks
    ) -> None:
        @event.listens_for(session, "after_commit")
        def note(session: Session) -> None:
            record(session, ("transaction:committed", 1))

        session.begin()
        session.commit()
        assert marks() == {"transaction:committed": [1]}

    def test_joins_the_marks_of_rows_in_one_batch(
        self, session: Session, marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        record(session, ("user:created", 50))
        before = bit_commands()
        add(session, id=1)
        record(session, ("user:created", 51))
        session.commit()
        assert marks() == {"user:created": [1, 50, 51]}
        assert bit_commands() - before == 3  # a flag that nobody has is not cleared


class TestSurroundings:
    def test_without_any_app_rows_are_written_and_the_reason_is_logged(
        self, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Session(engine) as session:
            add(session)
            session.commit()
            assert session.scalar(select(func.count()).select_from(User)) == 1
        assert "Flask-Bitmapist is not initialised" in caplog.text

    def test_a_disabled_app_marks_nothing(self, engine: Engine, redis_url: str, redis: Any) -> None:
        app = Flask("disabled")
        app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_ENABLED=False)
        FlaskBitmapist(app)
        with app.app_context(), Session(engine) as session:
            add(session)
            session.commit()
        assert redis.keys() == []

    def test_two_apps_never_see_each_others_marks(
        self, app: Flask, server: Any, engine: Engine, file_engine: Engine
    ) -> None:
        other = Flask("other")
        other.config["BITMAPIST_REDIS_URL"] = server.fresh_database()
        FlaskBitmapist(other)
        for each, database, id_ in ((app, engine, 1), (other, file_engine, 2)):
            Base.metadata.create_all(database)
            with each.app_context(), Session(database) as session:
                add(session, id=id_)
                session.commit()
        for each, id_ in ((app, 1), (other, 2)):
            with each.app_context():
                assert list(DayEvents.from_date("user:created")) == [id_]

    def test_interleaved_sessions_keep_apart(self, file_engine: Engine, marks: Marks) -> None:
        Base.metadata.create_all(file_engine)
        with Session(file_engine) as one, Session(file_engine) as two:
            add(one, id=1)
            one.rollback()
            add(two, id=2)
            two.commit()
            assert marks() == {"user:created": [2]}
            one.commit()
        assert marks() == {"user:created": [2]}

    def test_a_listener_of_the_application_that_raises_loses_no_mark(
        self, session: Session, marks: Marks
    ) -> None:
        @event.listens_for(session, "after_commit", once=True)
        def fail(_: object) -> None:
            raise ZeroDivisionError

        add(session, id=1)
        with pytest.raises(ZeroDivisionError):
            session.commit()
        session.close()
        assert marks() == {"user:created": [1]}
        assert session.get(User, 1)
        add(session, id=2)
        session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_our_listener_runs_before_those_registered_earlier(self) -> None:
        program = """
from sqlalchemy import event
from sqlalchemy.orm import Session

event.listen(Session, "after_commit", lambda session: 1 / 0)
import flask_bitmapist.adapters.sqlalchemy

first, _ = Session().dispatch.after_commit
assert first.__module__ == "flask_bitmapist.adapters.sqlalchemy._transactions"
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    def test_a_listener_that_begins_the_next_transaction_loses_no_mark(
        self, session: Session, marks: Marks
    ) -> None:
        def use_the_session(session: Session, transaction: SessionTransaction) -> None:
            if transaction.parent is None and not session.info.setdefault("used", False):
                session.info["used"] = True
                add(session, id=2)

        event.listen(Session, "after_transaction_end", use_the_session, insert=True)
        try:
            add(session, id=1)
            session.commit()
            assert marks() == {"user:created": [1]}
            session.commit()
        finally:
            event.remove(Session, "after_transaction_end", use_the_session)
        assert marks() == {"user:created": [1, 2]}


class TestNotSeen:
    """What the documentation says to record by hand."""

    def test_core_statements_and_raw_sql(self, session: Session, ann: User, marks: Marks) -> None:
        table: Any = User.__table__
        session.execute(insert(table).values(name="core"))
        session.execute(update(table).values(visits=3))
        session.execute(text("DELETE FROM user WHERE name = 'core'"))
        session.commit()
        assert marks() == {}

    def test_orm_bulk_statements_of_a_model_that_did_not_opt_in(
        self, session: Session, ann: User, marks: Marks
    ) -> None:
        session.execute(update(User).values(visits=3))
        session.execute(delete(User))
        session.commit()
        assert marks() == {}

    def test_legacy_bulk_methods(self, session: Session, ann: User, marks: Marks) -> None:
        session.bulk_save_objects([User(name="bulk")])
        session.bulk_insert_mappings(User, [{"name": "mapping"}])
        session.bulk_update_mappings(User, [{"id": 7, "visits": 3}])
        session.commit()
        assert marks() == {}

    def test_a_post_update_from_the_side_without_the_foreign_key(
        self, engine: Engine, marks: Marks
    ) -> None:
        class Own(DeclarativeBase):
            pass

        class Box(Own, Bitmapistable):
            __tablename__ = "box"
            id: Mapped[int] = mapped_column(primary_key=True)
            items: Mapped[list[Any]] = relationship("Item", post_update=True)

        class Item(Own, Bitmapistable):
            __tablename__ = "item"
            id: Mapped[int] = mapped_column(primary_key=True)
            box_id: Mapped[int | None] = mapped_column(ForeignKey("box.id"))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Box(id=1), Item(id=5)])
            session.commit()
            marks.forget()
            box = session.get_one(Box, 1)
            box.items.append(session.get_one(Item, 5))
            session.commit()
            assert session.get_one(Item, 5).box_id == 1
        assert marks() == {}
