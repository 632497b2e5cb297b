"""Transactions that end, or begin, as a database server likes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_bitmapist import Bitmapistable
from flask_bitmapist.adapters.sqlalchemy import record

from .marks import Marks


class Base(DeclarativeBase):
    pass


class Account(Base, Bitmapistable):
    __tablename__ = "account_of_servers"
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("vip",)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    visits: Mapped[int] = mapped_column(default=0)
    vip: Mapped[bool] = mapped_column(default=False)


def rows(engine: Engine) -> list[int]:
    with Session(engine) as session:
        return list(session.scalars(select(Account.id).order_by(Account.id)))


def server(variable: str) -> Iterator[Engine]:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    engine = create_engine(os.environ[variable])
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


class TestSQLite:
    def test_a_statement_that_rolls_the_transaction_back(
        self, engine: Engine, marks: Marks
    ) -> None:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE INSERT ON account_of_servers WHEN NEW.id = 404 "
                    "BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
                )
            )
            session.commit()
            session.add(Account(id=1, vip=True))
            record(session, ("account:greeted", 1))
            with session.begin_nested():
                session.add(Account(id=2))
            with pytest.raises(IntegrityError):
                session.execute(text("INSERT INTO account_of_servers VALUES (404, 0, 0)"))
            session.commit()
        assert rows(engine) == []
        assert (marks(), marks.flags()) == ({}, {})

    def test_a_statement_that_rolls_back_an_open_savepoint_too(
        self, engine: Engine, marks: Marks
    ) -> None:
        Base.metadata.create_all(engine)
        with engine.connect() as connection:
            outer = connection.begin()
            connection.begin_nested()
            with Session(connection, join_transaction_mode="rollback_only") as session:
                session.add(Account(id=1, vip=True))
                session.commit()
            insert = "INSERT OR ROLLBACK INTO account_of_servers VALUES (1, 0, 0)"
            with pytest.raises(IntegrityError):
                connection.execute(text(insert))
            outer.commit()
        assert rows(engine) == []
        assert (marks(), marks.flags()) == ({}, {})


class TestPostgreSQL:
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        yield from server("TEST_POSTGRESQL_URL")

    def fail(self, session: Session) -> None:
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT nothing"))

    def test_a_commit_after_a_failed_statement_is_a_rollback(
        self, engine: Engine, marks: Marks
    ) -> None:
        with Session(engine) as session:
            session.add(Account(id=1))
            session.flush()
            record(session, ("account:greeted", 1))
            self.fail(session)
            session.commit()  # raises nothing
            assert (rows(engine), marks()) == ([], {})
            session.add(Account(id=2))
            session.commit()
        assert marks() == {"account:created": [2]}

    def test_a_savepoint_limits_the_damage(self, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            session.add(Account(id=1))
            session.flush()
            savepoint = session.begin_nested()
            session.add(Account(id=2))
            session.flush()
            self.fail(session)
            savepoint.rollback()
            session.commit()
        assert rows(engine) == [1]
        assert marks() == {"account:created": [1]}

    def test_an_open_savepoint_in_which_a_statement_failed(
        self, engine: Engine, marks: Marks
    ) -> None:
        with engine.connect() as connection, Session(connection) as session:
            outer = connection.begin()
            session.add(Account(id=1))
            session.commit()
            connection.begin_nested()
            self.fail(session)
            outer.commit()
        assert (rows(engine), marks()) == ([], {})

    def test_a_fault_that_the_server_has_not_seen(self, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            session.add(Account(id=1))
            session.flush()
            with pytest.raises(DBAPIError, match="can't adapt"):
                session.execute(text("SELECT :nothing"), {"nothing": object()})
            session.commit()
        assert rows(engine) == [1]
        assert marks() == {"account:created": [1]}

    def test_a_select_of_ours_that_fails_leaves_the_transaction_usable(
        self, engine: Engine, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Session(engine) as session:
            session.execute(text("ALTER TABLE account_of_servers DROP COLUMN vip"))
            session.execute(text("INSERT INTO account_of_servers VALUES (1, 0), (2, 0)"))
            session.commit()
            session.execute(update(Account).where(Account.id == 1).values(visits=3))
            session.execute(delete(Account).where(Account.id == 2))
            session.commit()
        assert "could not note changed rows of Account" in caplog.text
        with engine.connect() as connection:
            visits = connection.scalars(text("SELECT visits FROM account_of_servers")).all()
        assert visits == [3]
        assert marks() == {"account:deleted": [2]}


class TestMySQL:
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        yield from server("TEST_MYSQL_URL")

    def test_a_deadlock_rolls_the_transaction_back(self, engine: Engine, marks: Marks) -> None:
        with Session(engine) as session:
            session.add_all([Account(id=1), Account(id=2)])
            session.commit()
        marks.forget()
        meet = threading.Barrier(2, timeout=60)
        lost: list[int] = []

        def work(own: int, others: int) -> None:
            with Session(engine) as session:
                session.add(Account(id=own * 10))
                session.flush()
                lock = text("SELECT id FROM account_of_servers WHERE id = :id FOR UPDATE")
                session.execute(lock, {"id": own})
                meet.wait()
                try:
                    session.execute(lock, {"id": others})
                except OperationalError:
                    lost.append(own)
                session.commit()

        threads = [threading.Thread(target=work, args=pair) for pair in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(lost) == 1
        assert marks() == {"account:created": rows(engine)[2:]}

    def test_a_refused_statement_leaves_the_transaction_as_it_is(
        self, engine: Engine, marks: Marks
    ) -> None:
        with Session(engine) as session:
            session.add(Account(id=1))
            session.flush()
            with pytest.raises(IntegrityError):
                session.execute(text("INSERT INTO account_of_servers VALUES (1, 0, 0)"))
            session.commit()
        assert rows(engine) == [1]
        assert marks() == {"account:created": [1]}

    @pytest.mark.parametrize("deletes", [True, False])
    def test_rows_that_came_after_the_snapshot_are_changed_and_marked(
        self, engine: Engine, marks: Marks, deletes: bool
    ) -> None:
        with Session(engine) as session, Session(engine) as other:
            assert session.scalar(select(func.count()).select_from(Account)) == 0
            other.add(Account(id=5))
            other.commit()
            marks.forget()
            session.execute(delete(Account) if deletes else update(Account).values(vip=True))
            session.commit()
        assert marks() == {f"account:{'deleted' if deletes else 'updated'}": [5]}

    def test_a_limit_leaves_open_which_rows_change(
        self, engine: Engine, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Session(engine) as session:
            session.add_all([Account(id=1), Account(id=2)])
            session.commit()
            marks.forget()
            statement = update(Account).values(vip=True).with_dialect_options(mysql_limit=1)
            session.execute(statement, execution_options={"synchronize_session": False})
            session.commit()
        assert marks() == {}
        assert "a LIMIT leaves open which rows it changes" in caplog.text
