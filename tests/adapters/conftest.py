"""What the tests of every adapter share: the marks, as bitmapist's own classes read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from flask_bitmapist.tracker import Tracker

from .engines import sqlite_engine
from .marks import Marks


@pytest.fixture
def marks(tracker: Tracker) -> Marks:
    return Marks(tracker)


@pytest.fixture
def in_app(app: Flask) -> Iterator[Flask]:
    with app.app_context():
        yield app


@pytest.fixture
def bit_commands(redis: redis_py.Redis) -> Callable[[], int]:
    """How many commands have written bits so far: a batch takes one a key, whatever its size."""

    def count() -> int:
        stats: Any = redis.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("setbit", "bitfield")
        )

    return count


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = sqlite_engine("sqlite://", poolclass=StaticPool)
    yield engine
    engine.dispose()


@pytest.fixture
def file_engine(tmp_path: Path) -> Iterator[Engine]:
    engine = sqlite_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}")
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _no_changes_left_in_sessions() -> Iterator[None]:
    """Once a transaction has ended, its session remembers nothing of it."""
    seen: list[Session] = []

    def note(session: Session, _: object) -> None:
        seen.append(session)

    event.listen(Session, "after_transaction_end", note)
    yield
    event.remove(Session, "after_transaction_end", note)
    for session in seen:
        if not session.in_transaction():
            assert not [slot for slot in session.info if "bitmapist" in str(slot)]
