"""What ORM-enabled bulk statements mark, for a model that opted in, and what they give back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    String,
    bindparam,
    case,
    delete,
    event,
    func,
    insert,
    lambda_stmt,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    WriteOnlyMapped,
    aliased,
    mapped_column,
    relationship,
    with_loader_criteria,
)
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

from flask_bitmapist import Bitmapistable

from .engines import Tables, sqlite_engine
from .marks import Marks


class Base(DeclarativeBase):
    pass


class User(Base, Bitmapistable):
    __tablename__ = "user"
    __bitmapist_bulk__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column("user_name", unique=True)
    visits: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class Member(Base, Bitmapistable):
    __tablename__ = "member"
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("premium", "trial")

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)
    premium: Mapped[bool] = mapped_column("is_premium", default=False)
    trial: Mapped[bool] = mapped_column(server_default=text("1"))


class Post(Base, Bitmapistable):
    __tablename__ = "post"
    __bitmapist_bulk__ = True
    __bitmapist_id__ = "author_id"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None]
    title: Mapped[str] = mapped_column(default="")


class Membership(Base, Bitmapistable):
    __tablename__ = "membership"
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("admin",)

    team: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String, primary_key=True)
    admin: Mapped[bool] = mapped_column(default=False)


class Country(Base, Bitmapistable):
    __tablename__ = "country"
    __bitmapist_bulk__ = True

    code: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Employee(Base, Bitmapistable):
    __tablename__ = "employee"
    __bitmapist_bulk__ = True
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(default="")


class Manager(Employee):
    __tablename__ = "manager"
    __mapper_args__ = {"polymorphic_identity": "manager"}
    __bitmapist_flags__ = ("board",)

    id: Mapped[int] = mapped_column(ForeignKey("employee.id"), primary_key=True)
    board: Mapped[bool] = mapped_column(default=False)


class Worker(Employee):
    __mapper_args__ = {"polymorphic_identity": "worker"}


class Trainee(Employee):
    __mapper_args__ = {"polymorphic_identity": "trainee"}
    __bitmapist_bulk__ = False


class Plain(Base):
    __tablename__ = "plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


class Untracked(Base, Bitmapistable):
    __tablename__ = "untracked"

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


TABLES = Tables(Base.metadata)


def without_returning(engine: Engine) -> Engine:
    """As on SQLite before 3.35, or MySQL."""
    with engine.connect():
        pass  # the dialect looks at the server's version now
    for feature in ("insert", "update", "delete", "insert_executemany"):
        setattr(engine.dialect, f"{feature}_returning", False)
    return engine


@pytest.fixture
def engine(engine: Engine) -> Engine:
    return TABLES.put_into(engine)


@pytest.fixture
def session(engine: Engine, marks: Marks) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def plain_session(marks: Marks) -> Iterator[Session]:
    """Of a database without RETURNING."""
    engine = without_returning(TABLES.put_into(sqlite_engine("sqlite://", poolclass=StaticPool)))
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture(params=["RETURNING", "no RETURNING"])
def any_session(request: pytest.FixtureRequest) -> Session:
    name = "session" if request.param == "RETURNING" else "plain_session"
    session: Session = request.getfixturevalue(name)
    return session


@pytest.fixture
def fill(marks: Marks) -> Callable[..., None]:
    """Rows that were there before."""

    def fill(session: Session, *rows: Any) -> None:
        session.add_all(rows)
        session.commit()
        marks.forget()

    return fill


Fill = Callable[..., None]


def users(*ids: int) -> list[User]:
    return [User(id=id_, name=f"user {id_}") for id_ in ids]


class TestInserts:
    def test_keys_in_a_list_of_parameters(self, any_session: Session, marks: Marks) -> None:
        any_session.execute(insert(User), [{"id": 5, "name": "a"}, {"id": 6, "name": "b"}])
        assert marks() == {}
        any_session.commit()
        assert marks() == {"user:created": [5, 6]}

    def test_keys_that_the_database_gives(self, session: Session, marks: Marks) -> None:
        result = session.execute(insert(User), [{"name": "a"}, {"name": "b"}])
        assert result.all() == []
        session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_some_keys_in_the_parameters(self, session: Session, marks: Marks) -> None:
        session.execute(insert(User), [{"id": None, "name": "a"}, {"id": 9, "name": "b"}])
        session.commit()
        assert marks() == {"user:created": [1, 9]}

    def test_one_row_of_parameters(self, session: Session, marks: Marks) -> None:
        session.execute(insert(User), {"name": "a"})
        session.commit()
        assert marks() == {"user:created": [1]}

    def test_one_row_of_values_keeps_its_result(self, any_session: Session, marks: Marks) -> None:
        result: Any = any_session.execute(insert(User).values(name="a"))
        assert result.inserted_primary_key == (1,)
        assert result.rowcount == 1
        any_session.commit()
        assert marks() == {"user:created": [1]}

    def test_many_rows_of_values_keep_their_row_count(self, session: Session, marks: Marks) -> None:
        result: Any = session.execute(insert(User).values([{"name": "a"}, {"name": "b"}]))
        assert result.rowcount == 2
        session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_an_insert_from_a_select_keeps_its_row_count(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1, 2, 3))
        source = select(User.name + "'s twin").where(User.id > 1)
        result: Any = session.execute(insert(User).from_select(["user_name"], source))
        assert result.rowcount == 2
        session.commit()
        assert marks() == {"user:created": [4, 5]}

    def test_the_callers_returning_of_an_entity(self, session: Session, marks: Marks) -> None:
        statement = insert(User).returning(User)
        created = session.scalars(statement, [{"name": "a"}, {"name": "b"}]).all()
        assert [(user.id, user.name) for user in created] == [(1, "a"), (2, "b")]
        created[0].visits = 1
        session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_the_callers_returning_of_columns(self, session: Session, marks: Marks) -> None:
        rows = session.execute(
            insert(User).returning(User.name, User.visits.label("seen")), [{"name": "a"}]
        )
        assert [dict(row) for row in rows.mappings()] == [{"name": "a", "seen": 0}]
        session.commit()
        assert marks() == {"user:created": [1]}

    def test_the_callers_returning_of_the_key(self, session: Session, marks: Marks) -> None:
        row = session.execute(insert(User).values(name="a").returning(User.id)).one()
        assert (row, row.id) == ((1,), 1)
        assert session.scalar(insert(User).values(name="b").returning(User.id)) == 2
        session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_an_upsert_that_does_nothing_marks_only_what_it_inserted(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1, 2))
        statement = upsert(User).on_conflict_do_nothing()
        session.execute(statement, [{"id": 1, "name": "x"}, {"id": 3, "name": "y"}])
        result: Any = session.execute(statement.values(id=2, name="z"))
        assert result.rowcount == 0
        session.execute(statement.values(id=4, name="z"))
        session.commit()
        assert marks() == {"user:created": [3, 4]}

    def test_an_insert_or_ignore_marks_only_what_it_inserted(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1))
        statement = insert(User).prefix_with("OR IGNORE")
        session.execute(statement, [{"id": 1, "name": "x"}, {"id": 3, "name": "y"}])
        session.commit()
        assert marks() == {"user:created": [3]}

    def test_an_upsert_that_updates_counts_as_created(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        # Nobody tells which of its rows were there.
        fill(session, *users(1))
        statement = upsert(User).on_conflict_do_update(index_elements=["id"], set_={"visits": 5})
        created = session.scalars(
            statement.returning(User), [{"id": 1, "name": "x"}, {"id": 3, "name": "y"}]
        ).all()
        assert [user.id for user in created] == [1, 3]
        session.commit()
        assert marks() == {"user:created": [1, 3]}

    def test_flags_come_from_the_rows(self, any_session: Session, marks: Marks) -> None:
        any_session.execute(
            insert(Member), [{"id": 1, "premium": True}, {"id": 2, "premium": False}]
        )
        any_session.execute(insert(Member).values(id=3, premium=True, trial=False))
        any_session.commit()
        assert marks.flags() == {"member:premium": [1, 3], "member:trial": [1, 2]}

    def test_the_chosen_id_comes_from_the_rows(self, session: Session, marks: Marks) -> None:
        session.execute(insert(Post), [{"author_id": 70}, {"author_id": None}, {"author_id": 80}])
        session.commit()
        assert marks() == {"post:created": [70, 80]}

    def test_more_rows_than_one_select_reads(
        self, session: Session, marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        session.execute(insert(Member).values(id=0))
        session.commit()
        before = bit_commands()
        lengths = []

        @event.listens_for(session.get_bind(), "before_cursor_execute")
        def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
            if statement.startswith("SELECT"):
                lengths.append(len(parameters))

        session.execute(insert(Member), [{"id": id_, "premium": id_ % 2} for id_ in range(1, 2501)])
        session.commit()
        assert lengths == [1000, 1000, 500]
        assert marks()["member:created"] == list(range(2501))
        assert marks.flags()["member:premium"] == list(range(1, 2501, 2))
        assert bit_commands() - before == 5 * 3  # a thousand bits a command

    def test_a_failing_insert_marks_nothing(self, session: Session, marks: Marks) -> None:
        session.execute(insert(User), [{"id": 1, "name": "a"}])
        savepoint = session.begin_nested()
        with pytest.raises(IntegrityError), savepoint:
            session.execute(insert(User), [{"id": 2, "name": "b"}, {"id": 1, "name": "c"}])
        session.commit()
        assert marks() == {"user:created": [1]}

    def test_joined_inheritance(self, session: Session, marks: Marks) -> None:
        session.execute(insert(Manager), [{"name": "a", "board": True}, {"name": "b"}])
        session.execute(insert(Employee), [{"name": "c", "kind": "employee"}])
        session.execute(insert(Employee), [{"name": "d", "kind": "worker"}])
        session.commit()
        assert marks() == {
            "employee:created": [3],
            "manager:created": [1, 2],
            "worker:created": [4],
        }
        assert marks.flags() == {"manager:board": [1]}

    def test_textual_and_composite_keys_are_mapped(
        self, any_session: Session, marks: Marks
    ) -> None:
        any_session.execute(insert(Country), [{"code": "007"}, {"code": "7"}])
        any_session.execute(insert(Membership), [{"team": 1, "login": "ann", "admin": True}])
        any_session.commit()
        assert set(marks()["country:created"]) == {marks.offset("007"), marks.offset("7")}
        assert marks.flags() == {"membership:admin": [marks.offset("1:ann")]}


class TestUpdates:
    def test_exactly_the_rows_that_match(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2, 3))
        result: Any = any_session.execute(update(User).where(User.id > 1).values(visits=9))
        assert result.rowcount == 2
        any_session.commit()
        assert marks() == {"user:updated": [2, 3]}

    def test_all_rows(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2))
        any_session.execute(update(User).values(visits=User.visits + 1))
        any_session.commit()
        assert marks() == {"user:updated": [1, 2]}

    def test_no_row(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1))
        any_session.execute(update(User).where(User.id == 404).values(visits=9))
        any_session.commit()
        assert marks() == {}

    @pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
    def test_every_way_to_synchronize_the_session(
        self, any_session: Session, marks: Marks, fill: Fill, synchronize: Any
    ) -> None:
        fill(any_session, *users(1, 2))
        user = any_session.get_one(User, 1)
        statement = update(User).where(User.id == 1)
        any_session.execute(
            statement.values(visits=8), execution_options={"synchronize_session": synchronize}
        )
        any_session.execute(
            statement.values(visits=9).execution_options(synchronize_session=synchronize)
        )
        any_session.expire_all()
        assert user.visits == 9
        any_session.commit()
        assert marks() == {"user:updated": [1]}

    def test_the_callers_returning(self, session: Session, marks: Marks, fill: Fill) -> None:
        fill(session, *users(1, 2))
        statement = update(User).where(User.id == 2).values(visits=9)
        assert session.execute(statement.returning(User.visits)).all() == [(9,)]
        assert session.scalars(statement.returning(User)).one() is session.get(User, 2)
        session.commit()
        assert marks() == {"user:updated": [2]}

    def test_the_callers_returning_of_text(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1, 2))
        statement = update(User).where(User.id == 2).values(visits=9)
        assert session.scalar(statement.returning(text("upper(user_name)"))) == "USER 2"
        session.commit()
        assert marks() == {"user:updated": [2]}

    def test_the_legacy_query(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2))
        assert any_session.query(User).filter_by(id=2).update({"visits": 4}) == 1
        any_session.commit()
        assert marks() == {"user:updated": [2]}

    def test_a_list_of_rows_by_primary_key(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2, 3))
        any_session.execute(update(User), [{"id": 1, "visits": 4}, {"id": 3, "visits": 5}])
        any_session.commit()
        assert marks() == {"user:updated": [1, 3]}

    def test_a_list_that_names_a_missing_row_marks_nothing(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1))
        with pytest.raises(StaleDataError):
            session.execute(update(User), [{"id": 1, "visits": 4}, {"id": 404, "visits": 5}])
        session.rollback()
        session.commit()
        assert marks() == {}

    def test_a_list_on_a_driver_that_does_not_count_marks_the_rows_that_exist(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1))
        session.get_bind().dialect.supports_sane_multi_rowcount = False
        session.execute(update(User), [{"id": 1, "visits": 4}, {"id": 404, "visits": 5}])
        session.commit()
        assert marks() == {"user:updated": [1]}

    def test_parameters_of_the_criteria(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2))
        statement = update(User).where(User.id == bindparam("which")).values(visits=3)
        any_session.execute(statement, {"which": 2})
        any_session.commit()
        assert marks() == {"user:updated": [2]}

    def test_an_update_from_another_table(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2), Post(author_id=2), Post(author_id=2))
        any_session.execute(update(User).where(User.id == Post.author_id).values(visits=3))
        any_session.commit()
        assert marks() == {"user:updated": [2]}

    def test_a_lambda_statement(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2, 3))

        def visit(wanted: int) -> Any:
            statement = lambda_stmt(lambda: update(User).where(User.id == wanted))
            return statement + (lambda it: it.values(visits=9))

        def leave(wanted: int) -> Any:
            return lambda_stmt(lambda: delete(User).where(User.id == wanted))

        any_session.execute(visit(1))
        any_session.execute(visit(2))
        any_session.commit()
        assert marks() == {"user:updated": [1, 2]}
        any_session.execute(leave(2))
        any_session.execute(lambda_stmt(lambda: insert(User)), [{"id": 8}])
        any_session.commit()
        assert (marks()["user:deleted"], marks()["user:created"]) == ([2], [8])

    def test_an_alias(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2))
        alias = aliased(User)
        any_session.execute(
            update(alias).where(alias.id == 2).values(visits=9),
            execution_options={"synchronize_session": False},
        )
        any_session.commit()
        assert marks() == {"user:updated": [2]}

    def test_a_collection_that_only_writes(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Author(Own):
            __tablename__ = "author"
            id: Mapped[int] = mapped_column(primary_key=True)
            books: WriteOnlyMapped[Any] = relationship("Book")

        class Book(Own, Bitmapistable):
            __tablename__ = "book"
            __bitmapist_bulk__ = True
            id: Mapped[int] = mapped_column(primary_key=True)
            sold: Mapped[int] = mapped_column(default=0)
            author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all([Author(id=1), Book(id=4)])
            session.commit()
            marks.forget()
            books = session.get_one(Author, 1).books
            session.execute(books.insert(), [{"id": 5}, {"id": 6}])
            session.execute(books.update().values(sold=1).where(Book.id == 5))
            session.execute(books.delete().where(Book.id == 6))
            session.commit()
        assert marks() == {"book:created": [5]}

    def test_criteria_of_options(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2))
        only_second = with_loader_criteria(User, User.id == 2)
        any_session.execute(update(User).values(visits=3).options(only_second))
        any_session.commit()
        assert marks() == {"user:updated": [2]}

    def test_flags_follow(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *(Member(id=id_, visits=id_, trial=False) for id_ in (1, 2, 3)))
        any_session.execute(update(Member).where(Member.id < 3).values(premium=True))
        any_session.commit()
        assert marks.flags() == {"member:premium": [1, 2]}
        any_session.execute(
            update(Member).values(premium=case((Member.visits > 1, True), else_=False))
        )
        any_session.commit()
        assert marks.flags() == {"member:premium": [2, 3]}
        any_session.execute(update(Member), [{"id": 2, "premium": False}])
        any_session.commit()
        assert marks.flags() == {"member:premium": [3]}

    def test_flags_of_one_transaction_mix_with_those_of_objects(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, Member(id=1, trial=False))
        session.get_one(Member, 1).premium = True
        session.execute(update(Member).values(premium=False))
        session.commit()
        assert marks.flags() == {}
        session.execute(update(Member).values(premium=False))
        session.get_one(Member, 1).premium = True
        session.commit()
        assert marks.flags() == {"member:premium": [1]}

    def test_the_chosen_id(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, Post(author_id=70), Post(author_id=80))
        any_session.execute(update(Post).where(Post.id == 2).values(title="x"))
        any_session.commit()
        assert marks() == {"post:updated": [80]}

    def test_rows_that_the_applications_listener_hides_are_marked(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        # Soft deletion: the row is not to be seen once it was updated.
        fill(session, Member(id=1, trial=False))

        @event.listens_for(session, "do_orm_execute")
        def hide(state: ORMExecuteState) -> None:
            if state.is_select:
                state.statement = state.statement.options(
                    with_loader_criteria(Member, Member.visits == 0)
                )

        session.execute(update(Member).values(visits=1, premium=True))
        session.commit()
        assert marks.flags() == {"member:premium": [1]}

    def test_each_row_under_its_own_class(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, Employee(id=1), Manager(id=2, board=True), Worker(id=3))
        any_session.execute(update(Employee).values(name="x"))
        any_session.commit()
        assert marks() == {
            "employee:updated": [1],
            "manager:updated": [2],
            "worker:updated": [3],
        }
        assert marks.flags() == {"manager:board": [2]}

    def test_a_subclass(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, Employee(id=1), Manager(id=2, board=True), Worker(id=3))
        any_session.execute(update(Manager).values(board=False))
        any_session.execute(update(Worker).values(name="y"))
        any_session.commit()
        assert marks() == {"manager:updated": [2], "worker:updated": [3]}
        assert marks.flags() == {}

    def test_textual_and_composite_keys(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, Country(code="7"), Membership(team=1, login="ann"))
        any_session.execute(update(Country).values(name="x"))
        any_session.execute(update(Membership).values(admin=True))
        any_session.commit()
        assert marks()["country:updated"] == [marks.offset("7")]
        assert marks.flags() == {"membership:admin": [marks.offset("1:ann")]}


class TestDeletes:
    def test_exactly_the_rows_that_match(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2, 3))
        result: Any = any_session.execute(delete(User).where(User.id > 1))
        assert result.rowcount == 2
        any_session.commit()
        assert marks() == {"user:deleted": [2, 3]}

    def test_the_legacy_query(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session, *users(1, 2))
        assert any_session.query(User).delete() == 2
        any_session.commit()
        assert marks() == {"user:deleted": [1, 2]}

    def test_the_callers_returning(self, session: Session, marks: Marks, fill: Fill) -> None:
        fill(session, *users(1, 2))
        statement = delete(User).where(User.id == 2).returning(User.name)
        assert session.scalars(statement).all() == ["user 2"]
        session.commit()
        assert marks() == {"user:deleted": [2]}

    def test_flags_are_cleared(self, any_session: Session, marks: Marks, fill: Fill) -> None:
        fill(any_session)
        any_session.add_all([Member(id=1, premium=True), Member(id=2, premium=True)])
        any_session.commit()
        any_session.execute(delete(Member).where(Member.id == 1))
        any_session.commit()
        assert marks.flags() == {"member:premium": [2], "member:trial": [2]}

    def test_the_chosen_id_is_read_before(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, Post(author_id=70), Post(author_id=80))
        any_session.add(Post(id=3, author_id=90))  # not flushed yet
        any_session.execute(delete(Post).where(Post.id > 1))
        any_session.commit()
        assert marks() == {"post:deleted": [80]}

    def test_without_autoflush_pending_rows_stay(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, Post(author_id=70))
        session.add(Post(id=3, author_id=90))
        session.execute(delete(Post), execution_options={"autoflush": False})
        session.commit()
        assert marks() == {"post:created": [90], "post:deleted": [70]}

    def test_a_delete_using_another_tables_rows(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, *users(1, 2), Post(author_id=2))
        any_session.execute(delete(User).where(User.id.in_(select(Post.author_id))))
        any_session.commit()
        assert marks() == {"user:deleted": [2]}

    def test_each_row_under_its_own_class(
        self, any_session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(any_session, Employee(id=1), Worker(id=3))
        any_session.execute(delete(Employee))
        any_session.commit()
        assert marks() == {"employee:deleted": [1], "worker:deleted": [3]}


class TestTransactions:
    def test_a_rollback_marks_nothing(self, session: Session, marks: Marks, fill: Fill) -> None:
        fill(session, *users(1))
        session.execute(update(User).values(visits=2))
        session.execute(insert(User).values(id=2))
        session.rollback()
        session.commit()
        assert marks() == {}

    def test_savepoints(self, session: Session, marks: Marks, fill: Fill) -> None:
        fill(session, *users(1, 2, 3))
        with session.begin_nested():
            session.execute(update(User).where(User.id == 1).values(visits=2))
        savepoint = session.begin_nested()
        session.execute(delete(User).where(User.id == 2))
        savepoint.rollback()
        session.commit()
        assert marks() == {"user:updated": [1]}

    def test_the_net_change_of_statements_and_objects(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1))
        session.add(User(id=2))
        session.execute(update(User).values(visits=2))
        session.execute(insert(User).values(id=3))
        session.execute(delete(User).where(User.id == 3))
        session.commit()
        assert marks() == {"user:created": [2], "user:updated": [1]}

    def test_an_employee_created_as_an_object_keeps_its_class(
        self, session: Session, marks: Marks
    ) -> None:
        session.add(Manager(id=1))
        session.execute(update(Employee).values(name="x"))
        session.commit()
        assert marks() == {"manager:created": [1]}

    def test_statements_and_objects_are_one_batch(
        self, session: Session, marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        session.execute(insert(User).values(id=0))
        session.commit()
        before = bit_commands()
        session.add(User())
        session.execute(insert(User), [{"name": "b"}, {"name": "c"}])
        session.execute(insert(User).values(name="d"))
        session.commit()
        assert len(marks()["user:created"]) == 5
        assert bit_commands() - before == 3


class TestTables:
    def test_a_table_without_implicit_returning(self, engine: Engine, marks: Marks) -> None:
        class Own(DeclarativeBase):
            pass

        class Thing(Own, Bitmapistable):
            __tablename__ = "thing"
            __table_args__ = {"implicit_returning": False}
            __bitmapist_bulk__ = True
            id: Mapped[int] = mapped_column(primary_key=True)
            visits: Mapped[int] = mapped_column(default=0)

        Own.metadata.create_all(engine)
        with Session(engine) as session:
            session.execute(insert(Thing).values(visits=1))
            session.execute(update(Thing).values(visits=2))
            session.commit()
            assert marks() == {"thing:created": [1]}
            session.execute(delete(Thing))
            session.commit()
        assert marks() == {"thing:created": [1], "thing:deleted": [1]}

    @pytest.mark.parametrize("returning", [False, True])
    def test_rows_that_a_trigger_keeps_are_not_deleted(
        self, session: Session, marks: Marks, fill: Fill, returning: bool
    ) -> None:
        fill(session, Post(id=1, author_id=7), Post(id=2, author_id=8))
        session.execute(
            text(
                "CREATE TRIGGER keep BEFORE DELETE ON post WHEN OLD.author_id = 7 "
                "BEGIN SELECT RAISE(IGNORE); END"
            )
        )
        session.execute(delete(Post).returning(Post.id) if returning else delete(Post))
        session.commit()
        assert marks() == {"post:deleted": [8]}


class TestFaults:
    def test_rows_that_cannot_be_read_are_written_all_the_same(
        self, session: Session, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        session.execute(text("ALTER TABLE post DROP COLUMN author_id"))
        session.execute(insert(Post), [{"id": 1, "title": "a"}])
        session.execute(update(Post).values(title="b"))
        assert session.scalars(select(Post.title)).all() == ["b"]
        session.execute(delete(Post))
        assert session.scalars(select(Post.title)).all() == []
        session.commit()
        assert marks() == {}
        faults = [record.getMessage() for record in caplog.records]
        for fault in ("inserted rows", "changed rows", "rows of Post that will be deleted"):
            assert any(fault in told for told in faults)

    def test_rows_that_cannot_be_looked_for_are_written_all_the_same(
        self, plain_session: Session, marks: Marks, fill: Fill, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(plain_session, *users(1, 2))
        connection = plain_session.connection()

        @event.listens_for(connection, "before_cursor_execute")
        def refuse_to_read(_connection: object, _cursor: object, sql: str, *_: object) -> None:
            if sql.startswith("SELECT"):
                raise RuntimeError("this connection only writes")

        statement = update(User).values(visits=5)
        plain_session.execute(statement, execution_options={"synchronize_session": False})
        event.remove(connection, "before_cursor_execute", refuse_to_read)
        plain_session.commit()
        assert plain_session.scalars(select(User.visits)).all() == [5, 5]
        assert marks() == {}
        assert "could not find the rows of User to be changed" in caplog.text


class TestOptIn:
    def test_other_models_are_left_alone(self, session: Session, marks: Marks) -> None:
        session.execute(insert(Untracked), [{"visits": 1}])
        session.execute(update(Untracked).values(visits=2))
        session.execute(delete(Untracked))
        session.commit()
        assert marks() == {}

    def test_statements_of_other_models_are_sent_as_they_are(self, session: Session) -> None:
        sent = []
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *call: sent.append(call[2]))
        session.execute(update(Untracked).values(visits=2))
        assert sent == ["UPDATE untracked SET visits=?"]

    def test_models_without_the_mixin_are_left_alone(self, session: Session, marks: Marks) -> None:
        session.execute(insert(Plain), [{"visits": 1}])
        session.execute(update(Plain).values(visits=2))
        session.execute(delete(Plain))
        session.commit()
        assert marks() == {}

    def test_a_subclass_may_opt_out(self, session: Session, marks: Marks, fill: Fill) -> None:
        fill(session, Trainee(id=1), Worker(id=2))
        session.execute(update(Employee).values(name="x"))
        session.commit()
        assert marks() == {"worker:updated": [2]}

    def test_selects_are_left_alone(self, session: Session, marks: Marks) -> None:
        assert session.scalar(select(func.count()).select_from(User)) == 0
        session.execute(text("SELECT 1"))
        session.commit()
        assert marks() == {}

    def test_the_listener_is_registered_only_for_a_model_that_opts_in(self) -> None:
        program = """
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from flask_bitmapist import Bitmapistable

class Base(DeclarativeBase):
    pass

class Plain(Base, Bitmapistable):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)

assert not Session().dispatch.do_orm_execute

class Bulky(Base, Bitmapistable):
    __tablename__ = "bulky"
    __bitmapist_bulk__ = True
    id: Mapped[int] = mapped_column(primary_key=True)

class Bulkier(Bulky):
    pass

assert len(list(Session().dispatch.do_orm_execute)) == 1
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


class TestNotSeen:
    """What the documentation says to record by hand."""

    def rows_there(self, session: Session) -> Sequence[int]:
        return session.scalars(select(User.id)).all()

    def test_an_upsert_without_returning(self, plain_session: Session, marks: Marks) -> None:
        plain_session.execute(upsert(User).values(id=1).on_conflict_do_nothing())
        plain_session.execute(upsert(User).on_conflict_do_nothing(), [{"id": 2}])
        plain_session.commit()
        assert (marks(), len(self.rows_there(plain_session))) == ({}, 2)

    def test_rows_without_keys_where_there_is_no_returning(
        self, plain_session: Session, marks: Marks
    ) -> None:
        plain_session.execute(insert(User), [{"name": "a"}, {"name": "b"}])
        plain_session.execute(insert(User).values([{"name": "c"}, {"name": "d"}]))
        plain_session.execute(insert(User).from_select(["user_name"], select(func.upper("e"))))
        plain_session.commit()
        assert (marks(), len(self.rows_there(plain_session))) == ({}, 5)

    def test_an_update_of_many_parameters_with_criteria(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1, 2))
        session.execute(
            update(User).where(User.visits == bindparam("old")),
            [{"id": 1, "visits": 5, "old": 0}, {"id": 2, "visits": 5, "old": 404}],
            execution_options={"synchronize_session": None},
        )
        session.commit()
        assert marks() == {}

    def test_statements_inside_from_statement(self, session: Session, marks: Marks) -> None:
        statement = select(User).from_statement(insert(User).values(id=1).returning(User))
        assert session.scalars(statement).one().id == 1
        session.commit()
        assert marks() == {}

    def test_an_insert_that_returns_text(self, session: Session, marks: Marks) -> None:
        statement = insert(User).values(name="a").returning(text("upper(user_name)"))
        assert session.scalar(statement) == "A"
        session.commit()
        assert marks() == {}

    def test_a_primary_key_set_by_a_statement(
        self, session: Session, marks: Marks, fill: Fill
    ) -> None:
        fill(session, *users(1))
        session.execute(update(User).values(id=2))
        session.commit()
        assert (marks(), self.rows_there(session)) == ({}, [2])
