"""Columns that come as arrays: the same as value by value, or not as arrays at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import BigInteger, Engine, Integer, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from flask_bitmapist.adapters.rows import Asked
from flask_bitmapist.adapters.sqlalchemy._table import Rows
from flask_bitmapist.maintenance.backfill import Backfill
from flask_bitmapist.tracker import Tracker

MOMENTS = [
    datetime.min,
    datetime(1969, 12, 31, 23, 59, 59, 999_999),
    datetime(1999, 12, 31, 12),
    datetime(2026, 3, 14, 9, 26, 53, 589_793),
    datetime.max,
]


class Base(DeclarativeBase):
    pass


class Doubled(TypeDecorator[int]):
    impl = Integer
    cache_ok = True

    def process_result_value(self, value: int | None, dialect: Any) -> int | None:
        return value and 2 * value


class Visit(Base):
    __tablename__ = "visit_in_arrays"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime | None]
    page: Mapped[int | None] = mapped_column(BigInteger)
    doubled: Mapped[int | None] = mapped_column(Doubled)


@pytest.fixture(params=["sqlite://", "TEST_POSTGRESQL_URL"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    url = os.environ.get(request.param, request.param)
    if "://" not in url:
        pytest.skip(f"{url} is not set")
    engine = create_engine(url)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def filled(engine: Engine, *moments: datetime | None, first: int = 1) -> None:
    rows = [
        {"id": n, "at": at, "page": -n, "doubled": n % 100}
        for n, at in enumerate(moments, start=first)
    ]
    with engine.begin() as connection:
        connection.execute(insert(Visit), rows)


def page(engine: Engine, id_: str | None = None, after: int | None = None) -> Any:
    key = None if after is None else (after,)
    return Rows(Visit, Asked("at", id_), engine).page(key, 20)


def test_whole_numbers_and_moments_come_as_arrays(engine: Engine) -> None:
    filled(engine, *MOMENTS, first=2**40)
    found = page(engine, "page")
    assert isinstance(found.ids, np.ndarray)
    assert found.moments.tolist() == MOMENTS
    assert found.ids.tolist() == [-n for n in range(2**40, 2**40 + 5)]
    assert found.last == (2**40 + 4,)
    assert type(found.last[0]) is int


def test_a_page_begins_after_a_key(engine: Engine) -> None:
    filled(engine, *MOMENTS)
    assert page(engine, after=3).ids.tolist() == [4, 5]
    assert page(engine, after=5) is None


def page_value_by_value(engine: Engine) -> Any:
    """A page that cannot come as arrays, as it has something of which the application decides."""
    return Rows(Visit, Asked("at", "doubled"), engine).page(None, 20)


def check_odd(engine: Engine, odd: str, told: object) -> None:
    """A page with `odd`, as SQL says it, among its moments has the same as value by value."""
    filled(engine, *MOMENTS)
    usual = [*page_value_by_value(engine).moments]
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {Visit.__tablename__} SET at = {odd} WHERE id = 2")
    found = page(engine)
    assert not isinstance(found.ids, np.ndarray)
    assert [*found.moments] == [usual[0], told, *usual[2:]]


@pytest.mark.parametrize("engine", ["TEST_POSTGRESQL_URL"], indirect=True)
@pytest.mark.parametrize(
    ("odd", "told"),
    # The driver knows no infinity.
    [("NULL", None), ("'infinity'", datetime.max), ("'-infinity'", datetime.min)],
)
def test_what_an_array_of_postgresql_cannot_hold(engine: Engine, odd: str, told: object) -> None:
    check_odd(engine, odd, told)


@pytest.mark.parametrize("engine", ["sqlite://"], indirect=True)
@pytest.mark.parametrize(
    "odd",
    [
        "2026-03-14 09:26:53",  # the others have microseconds
        "0000-03-14 09:26:53.000000",
        "2026-02-30 09:26:53.000000",
        "2026-03-14 09:26:53.0000000",
        "2026-03-14 09:26:53,000000",
        "2026-03-14 09:26:53.00000é",
        '2026-03-14 09:26:53.000000","',
        "",
        None,
        7,
        -7.5,
        b"2",
    ],
)
def test_what_is_no_moment_of_sqlites_usual_form(engine: Engine, odd: Any) -> None:
    told = f"x'{odd.hex()}'" if isinstance(odd, bytes) else "NULL" if odd is None else repr(odd)
    check_odd(engine, told, odd)


def test_moments_without_fractions(engine: Engine) -> None:
    filled(engine, *(moment.replace(microsecond=0) for moment in MOMENTS))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(f"UPDATE {Visit.__tablename__} SET at = substr(at, 1, 19)")
    found = page(engine)
    assert isinstance(found.moments, np.ndarray)
    assert found.moments.tolist() == [moment.replace(microsecond=0) for moment in MOMENTS]


@pytest.mark.parametrize("id_", ["'7'", "'x'", "7.5", "x'37'", "NULL"])
def test_sqlite_may_have_anything_in_any_column(id_: str, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'any.sqlite3'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {Visit.__tablename__} (id INTEGER PRIMARY KEY, at, page, doubled)"
        )
        connection.exec_driver_sql(
            f"INSERT INTO {Visit.__tablename__} VALUES (1, '2026-03-14 09:26:53', {id_}, NULL)"
        )
        said = [*connection.execute(select(Visit.page)).scalars()]
    assert [*page(engine, "page").ids] == said
    engine.dispose()


def test_types_of_the_applications_own_are_asked(engine: Engine) -> None:
    filled(engine, *MOMENTS)
    assert [*page(engine, "doubled").ids] == [2, 4, 6, 8, 10]


def test_a_column_is_what_the_database_says(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("it does not change the type of a column")
    filled(engine, *MOMENTS[1:4])
    with engine.begin() as connection:
        connection.execute(
            text(f"ALTER TABLE {Visit.__tablename__} ALTER at TYPE date, ALTER page TYPE text")
        )
        said = [*connection.execute(select(Visit.page).order_by(Visit.id)).scalars()]
    assert [*page(engine, "page").ids] == said


def test_a_backfill_marks_what_is_in_the_arrays(engine: Engine, tracker: Tracker) -> None:
    filled(engine, *MOMENTS[2:4], first=7)
    done = Backfill(tracker, Visit, "at", event="seen", source=engine).run()
    assert (done.marked, done.rows) == (2, 2)
    assert tracker.reader.redis.getbit("trackist_seen_1999-12-31", 7)
    assert tracker.reader.redis.getbit("trackist_seen_2026-3-14", 8)


def test_ids_that_cannot_be_marked_are_told(engine: Engine, tracker: Tracker) -> None:
    filled(engine, *MOMENTS[2:4])
    done = Backfill(tracker, Visit, "at", event="seen", who="page", source=engine).run()
    assert (done.marked, done.unusable) == (0, 2)
    assert "negative" in done.reason


def test_dimensions_get_values_as_python_has_them(
    engine: Engine, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Visit, "__bitmapist_dimensions__", ("page",), raising=False)
    filled(engine, *MOMENTS[2:4])
    Backfill(tracker, Visit, "at", source=engine).run()
    assert tracker.reader.redis.getbit("trackist_visit:page=-2_u", 2)
