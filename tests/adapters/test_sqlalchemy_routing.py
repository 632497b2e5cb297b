"""Sessions that choose among databases, and listeners that rewrite statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Delete, Engine, Insert, Update, delete, event, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    mapped_column,
    with_loader_criteria,
)
from sqlalchemy.pool import StaticPool

from flask_bitmapist import Bitmapistable

from .engines import sqlite_engine
from .marks import Marks


class Base(DeclarativeBase):
    pass


class Visit(Base, Bitmapistable):
    __tablename__ = "visit"
    __bitmapist_bulk__ = True
    __bitmapist_id__ = "visitor"
    __bitmapist_flags__ = ("paid",)

    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[int]
    paid: Mapped[bool] = mapped_column(default=False)


class Page(Base, Bitmapistable):
    __tablename__ = "page"
    __bitmapist_bulk__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    views: Mapped[int] = mapped_column(default=0)


@pytest.fixture
def databases(marks: Marks) -> Iterator[dict[str, Engine]]:
    engines = {name: sqlite_engine("sqlite://", poolclass=StaticPool) for name in ("a", "b")}
    for engine in engines.values():
        Base.metadata.create_all(engine)
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture(params=["RETURNING", "no RETURNING"])
def any_databases(
    request: pytest.FixtureRequest, databases: dict[str, Engine]
) -> dict[str, Engine]:
    if request.param == "no RETURNING":
        for engine in databases.values():
            engine.connect().close()  # the dialect looks at the server's version now
            for feature in ("insert", "update", "delete", "insert_executemany"):
                setattr(engine.dialect, f"{feature}_returning", False)
    return databases


class TestShards:
    """Pages with an odd number of views live in a, the others in b."""

    @pytest.fixture
    def session(self, any_databases: dict[str, Engine]) -> Iterator[Any]:
        def shard_of(mapper: object, instance: Any, clause: object = None) -> str:
            return "a" if instance.views % 2 else "b"

        with ShardedSession(
            shard_chooser=shard_of,
            identity_chooser=lambda *_, **__: ["a", "b"],
            execute_chooser=lambda _: ["a", "b"],
            shards=any_databases,
        ) as session:
            yield session

    @pytest.fixture
    def rows(self, any_databases: dict[str, Engine], marks: Marks) -> None:
        for number, engine in enumerate(any_databases.values()):
            with Session(engine) as session:
                session.add_all([Page(id=1, views=7), Page(id=2 + number, views=7)])
                session.add(Visit(id=1, visitor=70 + number))
                session.commit()
        marks.forget()

    @staticmethod
    def on(shard: str) -> dict[str, Any]:
        return {"bind_arguments": {"shard_id": shard}}

    def test_rows_with_equal_keys_are_two(self, session: Any, rows: None, marks: Marks) -> None:
        session.delete(session.scalars(select(Page).where(Page.id == 1), **self.on("a")).one())
        session.flush()
        session.execute(delete(Page), **self.on("b"))
        session.add(Page(id=3, views=2))
        session.commit()
        assert marks() == {"page:deleted": [1], "page:updated": [3]}

    def test_statements_on_all_shards(self, session: Any, rows: None, marks: Marks) -> None:
        assert session.execute(update(Page).where(Page.id > 1).values(views=8)).rowcount == 2
        session.execute(update(Visit).values(paid=True))
        session.commit()
        assert marks() == {"page:updated": [2, 3], "visit:updated": [70, 71]}
        assert marks.flags() == {"visit:paid": [70, 71]}
        session.execute(delete(Page))
        session.execute(delete(Visit))
        session.commit()
        assert marks()["page:deleted"] == [1, 2, 3]
        assert marks()["visit:deleted"] == [70, 71]
        assert marks.flags() == {}

    def test_statements_on_one_shard(self, session: Any, rows: None, marks: Marks) -> None:
        session.execute(insert(Visit).values(id=5, visitor=80, paid=True), **self.on("b"))
        session.execute(delete(Visit).where(Visit.id == 1), **self.on("b"))
        session.commit()
        assert marks() == {"visit:created": [80], "visit:deleted": [71]}
        assert marks.flags() == {"visit:paid": [80]}

    def test_objects_and_statements_of_one_row(
        self, session: Any, rows: None, marks: Marks
    ) -> None:
        session.add(Page(id=9, views=1))
        session.flush()
        session.execute(update(Page).where(Page.id == 9).values(views=3), **self.on("a"))
        session.commit()
        assert marks() == {"page:created": [9]}


class TestRouting:
    def test_a_get_bind_that_takes_no_further_arguments(
        self, any_databases: dict[str, Engine], marks: Marks
    ) -> None:
        class RoutingSession(Session):
            def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]
                return any_databases["a" if mapper and mapper.class_ is Page else "b"]

        with RoutingSession() as session:
            session.execute(insert(Page), [{"id": 1}, {"id": 2}])
            result: Any = session.execute(update(Page).where(Page.id == 1).values(views=3))
            assert result.rowcount == 1
            session.execute(insert(Visit), [{"id": 1, "visitor": 70, "paid": True}])
            session.commit()
            assert marks() == {"page:created": [1, 2], "visit:created": [70]}
            session.execute(delete(Page).where(Page.id == 2))
            session.execute(delete(Visit))
            session.commit()
        assert marks()["page:deleted"] == [2]
        assert marks()["visit:deleted"] == [70]

    def test_rows_are_read_where_they_are_written(
        self, any_databases: dict[str, Engine], marks: Marks
    ) -> None:
        class ReadingFromACopy(Session):
            def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Any:
                writes = self._flushing or isinstance(clause, Insert | Update | Delete)
                return any_databases["a" if writes else "b"]  # which lags behind

        with ReadingFromACopy() as session:
            session.add_all([Visit(id=1, visitor=70), Visit(id=2, visitor=80)])
            session.commit()
            marks.forget()
            session.execute(
                update(Visit).where(Visit.id == 1).values(paid=True),
                execution_options={"synchronize_session": False},
            )
            session.commit()
            assert (marks(), marks.flags()) == ({"visit:updated": [70]}, {"visit:paid": [70]})
            session.execute(delete(Visit), execution_options={"synchronize_session": False})
            session.commit()
        assert marks()["visit:deleted"] == [70, 80]
        assert marks.flags() == {}


class TestListeners:
    @pytest.fixture
    def session(self, any_databases: dict[str, Engine], marks: Marks) -> Iterator[Session]:
        with Session(any_databases["a"]) as session:
            session.add_all([Page(id=1), Page(id=2, views=5)])
            session.add_all([Visit(id=1, visitor=70), Visit(id=2, visitor=80)])
            session.commit()
            marks.forget()
            yield session

    def test_one_that_narrows_a_statement(self, session: Session, marks: Marks) -> None:
        @event.listens_for(session, "do_orm_execute")
        def narrow(state: ORMExecuteState) -> None:
            state.statement = state.statement.options(with_loader_criteria(Page, Page.views > 0))

        session.execute(update(Page).values(views=6))
        session.commit()
        assert marks() == {"page:updated": [2]}

    def test_one_that_updates_instead_of_deleting(self, session: Session, marks: Marks) -> None:
        @event.listens_for(session, "do_orm_execute")
        def delete_softly(state: ORMExecuteState) -> Any:
            if state.is_delete:
                statement: Any = state.statement
                soft = update(Visit).where(statement.whereclause).values(paid=True)
                return state.session.execute(soft)
            return None

        session.execute(delete(Visit).where(Visit.id == 2))
        session.commit()
        assert (marks(), marks.flags()) == ({"visit:updated": [80]}, {"visit:paid": [80]})

    def test_one_that_sends_nothing(self, session: Session, marks: Marks) -> None:
        nothing = session.execute(select(Page).where(Page.id == 404)).freeze()

        @event.listens_for(session, "do_orm_execute")
        def refuse(state: ORMExecuteState) -> Any:
            return nothing() if state.is_delete else None

        session.execute(delete(Page))
        session.commit()
        assert marks() == {}
        assert session.scalar(select(func.count()).select_from(Page)) == 2


class TestFaults:
    """The application's own come to it as they are without us, and ours never do."""

    def test_the_fault_of_a_flush_that_a_statement_brings_about(
        self, any_databases: dict[str, Engine], marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Session(any_databases["a"]) as session:
            session.add(Visit(id=1, visitor=70))
            session.flush()
            session.expunge_all()
            session.add(Visit(id=1, visitor=80))
            with pytest.raises(
                IntegrityError, match="raised as a result of Query-invoked autoflush"
            ):
                session.execute(delete(Visit))
        assert (marks(), caplog.records) == ({}, [])

    def test_a_result_that_tells_nothing(
        self, any_databases: dict[str, Engine], marks: Marks
    ) -> None:
        """Such as a listener makes that registered before ours."""
        with Session(any_databases["a"]) as session:
            session.add_all([Page(id=1), Page(id=2)])
            session.commit()
            marks.forget()

            @event.listens_for(session, "do_orm_execute")
            def merge(state: ORMExecuteState) -> Any:
                if not state.is_update:
                    return None
                return state.invoke_statement().merge(state.invoke_statement())

            result: Any = session.execute(update(Page).values(views=Page.views + 1))
            assert result.rowcount == 4
            session.commit()
        assert marks() == {"page:updated": [1, 2]}
