"""A backfill beside bitmapist's `mark_event` over the same rows, in the same run.

    python benchmarks/backfill.py [million rows]

Both read the rows from the same table and mark day, week and month on the same server: bitmapist in
the loop that one writes, over SQLAlchemy's objects. It marks a sample of them before and after each
round, as it would take minutes for all. SQLite, and PostgreSQL if TEST_POSTGRESQL_URL is set. Ids
are in the order of the moments, as in a table that has grown, and then in any order.

Two ratios are told, each the median of the rounds with the least and the greatest: of the time that
passes, and of the CPU time of this process and Redis. On a busy machine the first one says little:
bitmapist sleeps half of the time, until the server replies, and whoever has slept is served first.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bitmapist
import numpy as np
import redis
from flask import Flask
from marking import running_server, server_cpu
from sqlalchemy import DateTime, Engine, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.maintenance.backfill import Backfill

MILLION = 1_000_000
BEGIN = datetime(2021, 3, 14)
YEARS = timedelta(days=5 * 365)
#: Rows that bitmapist marks before and after a round, and how many rounds there are.
SAMPLE, ROUNDS = 2_000, 9


class Base(DeclarativeBase):
    pass


class Grown(Base):
    """Ids and moments rise together."""

    __tablename__ = "grown"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime)
    name: Mapped[str]


class Shuffled(Base):
    """The moments are in any order."""

    __tablename__ = "shuffled"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime)
    name: Mapped[str]


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engines = [create_engine(f"sqlite:///{folder}/rows.sqlite3")]
        if url := os.environ.get("TEST_POSTGRESQL_URL"):
            engines.append(create_engine(url))
        for engine in engines:
            for model in (Grown, Shuffled):
                fill(engine, model, rows)
                with running_server(Path(folder)) as urls:
                    measure(engine, model, rows, urls[1], folder)
            Base.metadata.drop_all(engine)
            engine.dispose()


def fill(engine: Engine, model: Any, rows: int) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    seconds = np.linspace(0, YEARS.total_seconds(), rows)
    if model is Shuffled:
        np.random.default_rng(1).shuffle(seconds)
    for first in range(0, rows, 50_000):
        with engine.begin() as connection:
            page = enumerate(seconds[first : first + 50_000].tolist(), first + 1)
            made = ((number, BEGIN + timedelta(seconds=second)) for number, second in page)
            values = [{"id": n, "at": at, "name": f"somebody {n}"} for n, at in made]
            connection.execute(insert(model), values)


def measure(engine: Engine, model: Any, rows: int, url: str, folder: str) -> None:
    app = Flask("backfill", instance_path=folder)
    tracker = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": url}).tracker_of(app)
    client = redis.Redis.from_url(url)
    ratios, pace = list[tuple[float, float]](), list[float]()
    samples = theirs(engine, model, rows, client)
    next(samples)  # whatever is done once
    before = next(samples)
    for _ in range(ROUNDS):
        client.flushdb()
        began = clocks(client)
        done = Backfill(tracker, model, "at", source=engine).run()
        assert done.marked == rows
        ours = since(began, client, rows)
        after = next(samples)
        passed, cpu = ((b + a) / 2 / our for b, a, our in zip(before, after, ours, strict=True))
        ratios.append((passed, cpu))
        pace.append(60 / ours[0] / MILLION)
        before = after
    passed, cpu = (of_rounds(each) for each in zip(*ratios, strict=True))
    print(
        f"{engine.dialect.name:12}{model.__tablename__:10}{statistics.median(pace):8.1f} million "
        f"rows a minute   {passed} bitmapist, {cpu} in CPU time"
    )


def of_rounds(ratios: Iterable[float]) -> str:
    found = sorted(ratios)
    return f"x{statistics.median(found):.0f} ({found[0]:.0f} to {found[-1]:.0f})"


def clocks(client: Any) -> tuple[float, float]:
    """The time that has passed, and the CPU time of this process and the server; in seconds."""
    return time.perf_counter(), time.process_time() + server_cpu(client)


def since(began: tuple[float, float], client: Any, rows: int) -> tuple[float, float]:
    """Seconds a row."""
    passed, cpu = clocks(client)
    return (passed - began[0]) / rows, (cpu - began[1]) / rows


def theirs(engine: Engine, model: Any, rows: int, client: Any) -> Iterator[tuple[float, float]]:
    """What bitmapist takes for a row, for samples from all over the table."""
    samples = ROUNDS + 2
    for number in range(samples):
        after = number * rows // samples
        began = clocks(client)
        with Session(engine) as session:
            query = select(model).where(model.id > after).order_by(model.id).limit(SAMPLE)
            for row in session.scalars(query.execution_options(yield_per=1_000)):
                bitmapist.mark_event("theirs", row.id, system=client, now=row.at)
        yield since(began, client, SAMPLE)


if __name__ == "__main__":
    main(int(float(sys.argv[1]) * MILLION) if sys.argv[1:] else MILLION)
