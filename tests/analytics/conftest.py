"""What tests of reading share: a process that knows nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.tracker import Tracker


@pytest.fixture
def stranger(redis_url: str, tmp_path: Path) -> Iterator[Tracker]:
    """A tracker of a process that has marked nothing yet."""
    app = Flask("stranger", instance_path=str(tmp_path / "stranger"))
    app.config.update(BITMAPIST_REDIS_URL=redis_url, BITMAPIST_TIMEOUT=10, DISABLE_BLUEPRINT=True)
    tracker = FlaskBitmapist(app).tracker_of(app)
    yield tracker
    tracker.redis.close()
