"""A shop on SQLite, whose rows nobody has marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, create_engine

from flask_bitmapist.maintenance import backfill
from flask_bitmapist.maintenance.backfill import Backfill, Backfilled
from flask_bitmapist.tracker import Tracker

from .shops import Customer, fill


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.sqlite3'}")
    yield engine
    engine.dispose()


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """Two hundred customers."""
    fill(engine, 200)
    return engine


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "PAGE", 17)


@pytest.fixture
def filled(app: Flask, tracker: Tracker) -> Callable[..., Backfilled]:
    """Backfills a model, and returns what was done."""

    def fill(model: Any = Customer, at: str = "joined", run: Any = None, **options: Any) -> Any:
        with app.app_context():
            return Backfill(tracker, model, at, **options).run(**(run or {}))

    return fill
