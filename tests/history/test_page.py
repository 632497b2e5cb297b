"""The transcripts of the page on history are what the commands print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm

PAGE = Path(__file__).parents[2] / "docs" / "history.md"
TRANSCRIPT = re.compile(r"^```\{code-block\} console\n:caption: [^\n]+\n\n(.*?)^```$", re.M | re.S)

SHOP = """
from datetime import datetime, timedelta
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_bitmapist import Bitmapistable, FlaskBitmapist

app = Flask("shop", instance_path={folder!r})
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///shop.sqlite3"
FlaskBitmapist(app, {{"BITMAPIST_REDIS_URL": {url!r}}})
db = SQLAlchemy(app)

class User(db.Model, Bitmapistable):
    __bitmapist_flags__ = ("premium",)
    id = db.Column(db.Integer, primary_key=True)
    created_at = db.Column(db.DateTime)
    premium = db.Column(db.Boolean)

with app.app_context():
    db.create_all()
    if not db.session.query(User).count():
        begin = datetime(2021, 3, 14, 15)
        db.session.execute(db.insert(User), [
            {{"created_at": at if n > 2 else None, "premium": n % 5 == 0}}
            for n in range(12_000) for at in [begin + timedelta(hours=4 * n)]
        ])
        db.session.commit()
"""

#: One mark too few, and one too many.
GAP = """
from datetime import datetime
from shop import app
from flask_bitmapist import mark_event, unmark_event

with app.app_context():
    unmark_event("user:created", 12, now=datetime(2021, 3, 16))
    mark_event("user:created", 99_999, now=datetime(2025, 5, 1))
"""

LOG = (
    "event,user,time\nsong:played,7,2026-03-14T09:26\nsong:played,8,soon\nsong:played,,2026-03-15\n"
)


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "shop.py").write_text(SHOP.format(folder=str(tmp_path), url=redis_url))
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "flask").write_text(f'#!/bin/sh\nexec {warm.python()} -m flask "$@"\n')
    (tmp_path / "flask").chmod(0o755)
    return tmp_path


def test_the_transcripts_are_what_the_commands_print(folder: Path) -> None:
    transcripts = TRANSCRIPT.findall(PAGE.read_text())
    assert transcripts
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PATH": path, "PYTHONPATH": paths, "FLASK_APP": "shop"}
    for transcript in transcripts:
        if "reconcile" in transcript:
            gap = [warm.python(), "-c", GAP]
            subprocess.run(gap, cwd=folder, env=environment, timeout=60, check=True)
        printed = ""
        for command in re.findall(r"^\$ (.*)$", transcript, re.M):
            done = subprocess.run(
                ["sh", "-c", f"{command} 2>&1"],
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=60,
            )
            printed += f"$ {command}\n{done.stdout}"
        assert printed == transcript
