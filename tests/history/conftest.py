"""A shop on SQLite, whose rows nobody has marked."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
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
    for name in ("PAGE", "BATCH", "BATCH_OF_TEXTS", "BATCH_WITH_FLAGS"):
        monkeypatch.setattr(backfill, name, 17)


@pytest.fixture
def filled(app: Flask, tracker: Tracker) -> Callable[..., Backfilled]:
    """Backfills a model, and returns what was done."""

    def fill(model: Any = Customer, at: str = "joined", run: Any = None, **options: Any) -> Any:
        with app.app_context():
            return Backfill(tracker, model, at, **options).run(**(run or {}))

    return fill


SHOP = """
import os, signal
from flask import Flask
from sqlalchemy import create_engine, event
from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.maintenance import backfill
from history.shops import Customer
backfill.PAGE = backfill.BATCH_WITH_FLAGS = 40
app = Flask("shop")
FlaskBitmapist(app, {{"BITMAPIST_REDIS_URL": {url!r}}})
engine = create_engine({database!r})
left = [int(os.environ.get("PAGES", 0))]
# What a shell runs in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
@event.listens_for(engine, "checkin")
def press_a_key(*_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGINT)
"""

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(redis_url: str, shop: Engine, tmp_path: Path) -> Shell:
    """Runs a command of the shop in a process of its own."""
    (tmp_path / "shop.py").write_text(SHOP.format(url=redis_url, database=str(shop.url)))

    def run(
        command: str, stderr: int = subprocess.PIPE, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        return subprocess.run(
            [warm.python(), "-m", *shlex.split(command)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            timeout=60,
        )

    return run
