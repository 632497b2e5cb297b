"""Sessions in a transaction that they do not own: its COMMIT marks, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ForeignKey, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_bitmapist import Bitmapistable
from flask_bitmapist.adapters.sqlalchemy import record

from .engines import Tables, with_real_savepoints
from .marks import Marks


class Base(DeclarativeBase):
    pass


class User(Base, Bitmapistable):
    __tablename__ = "user"
    __bitmapist_bulk__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int] = mapped_column(default=0)


class Receipt(Base):
    """Its foreign key is checked by COMMIT."""

    __tablename__ = "receipt"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(
        ForeignKey("user.id", deferrable=True, initially="DEFERRED")
    )


TABLES = Tables(Base.metadata)
MODES = ["conditional_savepoint", "rollback_only", "create_savepoint", "control_fully"]


@pytest.fixture
def engine(engine: Engine) -> Engine:
    return TABLES.put_into(engine)


@pytest.fixture
def connection(engine: Engine, marks: Marks) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture(params=MODES)
def joined(request: pytest.FixtureRequest, connection: Connection) -> Callable[[], Session]:
    return lambda: Session(connection, join_transaction_mode=request.param)


def add(session: Session, *ids: int) -> None:
    session.add_all(User(id=id_) for id_ in ids)
    session.flush()


def rows(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT id FROM user ORDER BY id")))


class TestEveryMode:
    """Whatever a session does to the transaction that it joins, marks are the rows."""

    def test_the_outer_commit_marks(
        self, connection: Connection, joined: Callable[[], Session], marks: Marks
    ) -> None:
        outer = connection.begin()
        with joined() as session:
            add(session, 1)
            record(session, ("user:greeted", 1))
            session.commit()
            own = not outer.is_active  # control_fully: it was the session's commit
            assert bool(marks()) is own
        if not own:
            outer.commit()
        assert marks() == {"user:created": [1], "user:greeted": [1]}

    def test_the_outer_rollback_marks_nothing(
        self, connection: Connection, joined: Callable[[], Session], marks: Marks
    ) -> None:
        outer = connection.begin()
        with joined() as session:
            add(session, 1)
            record(session, ("user:greeted", 1))
            session.commit()
        if outer.is_active:
            outer.rollback()
        assert bool(marks()) is bool(rows(connection))

    @pytest.mark.parametrize("is_committed", [True, False], ids=["then rolled back", "flushed"])
    def test_what_is_not_committed_ends_as_its_rows_do(
        self,
        connection: Connection,
        joined: Callable[[], Session],
        marks: Marks,
        is_committed: bool,
    ) -> None:
        outer = connection.begin()
        with joined() as session:
            add(session, 1)
            if is_committed:
                session.commit()
                if outer.is_active:
                    add(session, 2)
                    session.rollback()
        if outer.is_active:
            outer.commit()
        assert marks().get("user:created", []) == rows(connection)

    def test_a_savepoint_of_the_session(
        self, connection: Connection, joined: Callable[[], Session], marks: Marks
    ) -> None:
        outer = connection.begin()
        with joined() as session:
            with session.begin_nested():
                add(session, 1)
            savepoint = session.begin_nested()
            add(session, 2)
            savepoint.rollback()
            session.commit()
        if outer.is_active:
            outer.commit()
        assert marks() == {"user:created": [1]}

    def test_inside_a_savepoint_of_the_connection(
        self, connection: Connection, joined: Callable[[], Session], marks: Marks
    ) -> None:
        outer = connection.begin()
        for id_, kept in ((1, True), (2, False)):
            savepoint = connection.begin_nested()
            with joined() as session:
                add(session, id_)
                session.commit()
            if savepoint.is_active:
                savepoint.commit() if kept else savepoint.rollback()
            assert marks() == {}
        outer.commit()
        assert marks() == {"user:created": rows(connection)}
        assert 1 in rows(connection)


class TestOuterTransactions:
    def test_several_sessions_of_one_connection_are_one_batch(
        self, connection: Connection, marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        outer = connection.begin()
        with Session(connection) as one, Session(connection) as two:
            add(one, 1, 2)
            one.commit()
            two.delete(two.get_one(User, 2))
            add(two, 3)
            two.commit()
            assert marks() == {}
            before = bit_commands()
            outer.commit()
        assert marks() == {"user:created": [1, 3]}
        assert bit_commands() - before == 3

    def test_the_block_of_an_engine(self, engine: Engine, marks: Marks) -> None:
        with engine.begin() as connection:
            session = Session(connection)
            add(session, 1)  # and never commits
            assert marks() == {}
        assert marks() == {"user:created": [1]}

    def test_the_commit_of_the_connection_marks_while_the_session_is_open(
        self, connection: Connection, marks: Marks
    ) -> None:
        connection.begin()
        session = Session(connection)
        add(session, 1)
        connection.commit()
        assert marks() == {"user:created": [1]}
        session.close()

    @pytest.mark.parametrize("ended", ["commit", "savepoint"])
    def test_so_does_it_after_what_the_session_has_ended(
        self, connection: Connection, marks: Marks, ended: str
    ) -> None:
        outer = connection.begin()
        with Session(connection) as session:
            add(session, 1)
            if ended == "commit":
                session.commit()
                add(session, 2)
            else:
                with session.begin_nested():
                    add(session, 2)
            outer.commit()
            assert marks() == {"user:created": [1, 2]}

    def test_bulk_statements(self, connection: Connection, marks: Marks) -> None:
        outer = connection.begin()
        with Session(connection) as session:
            add(session, 1)
            session.commit()
            session.execute(update(User).values(visits=1))
            session.commit()
        outer.rollback()
        assert marks() == {}

    def test_a_failing_commit_marks_nothing(self, connection: Connection, marks: Marks) -> None:
        outer = connection.begin()
        with Session(connection) as session:
            add(session, 1)
            session.add(Receipt(user_id=404))
            session.commit()
        with pytest.raises(IntegrityError):
            outer.commit()
        outer.rollback()
        assert marks() == {}

    def test_an_open_savepoint_is_committed_with_its_transaction(
        self, connection: Connection, marks: Marks
    ) -> None:
        outer = connection.begin()
        connection.begin_nested()
        with Session(connection) as session:
            add(session, 1)
            session.commit()
        outer.commit()
        assert marks() == {"user:created": [1]}

    def test_the_next_transaction_of_the_connection_marks_only_its_own_rows(
        self, connection: Connection, marks: Marks
    ) -> None:
        with Session(connection) as session:
            for id_, kept in ((1, False), (2, True), (3, False)):
                outer = connection.begin()
                add(session, id_)
                session.commit()
                outer.commit() if kept else outer.rollback()
        assert marks() == {"user:created": [2]}

    def test_a_connection_without_a_transaction_is_the_sessions_own(
        self, connection: Connection, marks: Marks
    ) -> None:
        with Session(connection) as session:
            add(session, 1)
            session.commit()
            assert marks() == {"user:created": [1]}

    def test_record_before_the_connection_is_used(
        self, connection: Connection, marks: Marks
    ) -> None:
        outer = connection.begin()
        with Session(connection) as session, session.begin():
            record(session, ("user:greeted", 1))
            session.execute(text("SELECT 1"))
        assert marks() == {}
        outer.commit()
        assert marks() == {"user:greeted": [1]}

    def test_the_recipe_for_test_suites_marks_nothing(
        self, connection: Connection, marks: Marks
    ) -> None:
        outer = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        add(session, 1)
        session.commit()
        session.get_one(User, 1).visits = 2
        session.rollback()
        add(session, 2)
        session.commit()
        session.close()
        outer.rollback()
        assert (marks(), rows(connection)) == ({}, [])


def test_what_a_session_commits_to_two_databases_is_one_batch(
    engine: Engine, file_engine: Engine, marks: Marks, round_trips: list[object]
) -> None:
    class Own(DeclarativeBase):
        pass

    class Note(Own, Bitmapistable):
        __tablename__ = "note"
        id: Mapped[int] = mapped_column(primary_key=True)

    Own.metadata.create_all(file_engine)
    with Session(binds={User: engine, Note: file_engine}) as session:
        session.add_all([User(id=1), Note(id=1)])
        session.commit()  # the events are known from now on
        before = len(round_trips)
        session.add_all([User(id=2), Note(id=2)])
        session.commit()
        assert len(round_trips) - before == 1
    assert marks() == {"note:created": [1, 2], "user:created": [1, 2]}


class TestSavepointsBehindTheSession:
    def test_a_rollback(self, connection: Connection, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            add(session, 1)
            savepoint = session.connection().begin_nested()
            add(session, 2)
            savepoint.rollback()
            session.commit()
        assert marks() == {"user:created": [1]}

    def test_a_release(self, connection: Connection, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            with session.connection().begin_nested():
                add(session, 1)
                with session.begin_nested():
                    add(session, 2)
            assert marks() == {}
            session.commit()
        assert marks() == {"user:created": [1, 2]}

    def test_one_that_the_commit_ends(self, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            session.connection().begin_nested()
            add(session, 1)
            session.commit()
        assert marks() == {"user:created": [1]}


class TestAsync:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("kept", [True, False])
    def test_the_outer_transaction_decides(
        self, tmp_path: Path, marks: Marks, mode: Any, kept: bool
    ) -> None:
        async def work() -> bool:
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.sqlite3'}")
            with_real_savepoints(engine.sync_engine)
            try:
                async with engine.connect() as connection:
                    await connection.run_sync(Base.metadata.create_all)
                    await connection.commit()
                    outer = await connection.begin()
                    async with AsyncSession(connection, join_transaction_mode=mode) as session:
                        session.add(User(id=1))
                        await session.commit()
                        assert bool(marks()) is not outer.is_active
                    if outer.is_active:
                        await (outer.commit() if kept else outer.rollback())
                    return bool(await connection.scalar(text("SELECT id FROM user")))
            finally:
                await engine.dispose()

        there = asyncio.run(work())
        assert bool(marks()) is there


class TestFaults:
    """Nothing of ours is raised after the COMMIT: the application would take it for failed."""

    def test_of_the_transaction_of_a_connection(
        self,
        connection: Connection,
        marks: Marks,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with connection.begin():
            with Session(connection, join_transaction_mode="rollback_only") as session:
                add(session, 1)
                session.commit()
            monkeypatch.setattr(User, "__bitmapist_events__", None)
        assert rows(connection) == [1]
        assert marks() == {}
        assert "could not work out what a transaction has changed" in caplog.text

    def test_of_the_transaction_of_a_session(
        self,
        engine: Engine,
        marks: Marks,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with Session(engine) as session:
            add(session, 1)
            monkeypatch.setattr(User, "__bitmapist_events__", None)
            session.commit()
            assert session.get(User, 1) is not None
        assert marks() == {}
        assert "could not work out what a transaction has changed" in caplog.text

    def test_of_our_own_record_of_transactions(
        self,
        engine: Engine,
        marks: Marks,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with Session(engine) as session:
            add(session, 1)
            session.flush()
            monkeypatch.setattr(
                "flask_bitmapist.adapters.sqlalchemy._transactions._committing_scope", None
            )
            session.commit()
            assert session.get(User, 1) is not None
        assert "could not pass on what a transaction has changed" in caplog.text
