"""Two-phase commits, on PostgreSQL: SQLite has none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_bitmapist import Bitmapistable

from .marks import Marks


class Base(DeclarativeBase):
    pass


class Parcel(Bitmapistable, Base):
    __tablename__ = "two_phase_parcel"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine() -> Iterator[Engine]:
    if "TEST_POSTGRESQL_URL" not in os.environ:
        pytest.skip("TEST_POSTGRESQL_URL is not set")
    engine = create_engine(os.environ["TEST_POSTGRESQL_URL"])
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def test_a_prepared_transaction_is_marked_when_it_commits(engine: Engine, marks: Marks) -> None:
    with Session(engine, twophase=True) as session:
        session.add(Parcel(id=7))
        session.prepare()
        assert marks() == {}
        session.commit()
    assert marks() == {"parcel:created": [7]}


def test_a_prepared_transaction_that_is_rolled_back_marks_nothing(
    engine: Engine, marks: Marks
) -> None:
    with Session(engine, twophase=True) as session:
        session.add(Parcel(id=7))
        session.prepare()
        session.rollback()
        assert session.get(Parcel, 7) is None
    assert marks() == {}


def test_savepoints_inside_a_two_phase_transaction_count(engine: Engine, marks: Marks) -> None:
    with Session(engine, twophase=True) as session:
        with session.begin_nested():
            session.add(Parcel(id=1))
        undone = session.begin_nested()
        session.add(Parcel(id=2))
        session.flush()
        undone.rollback()
        session.commit()
    assert marks() == {"parcel:created": [1]}
