"""The transcript of the page on the doctor is what the command prints, but for its numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import warm
from documented import ROOT
from servers import MortalServer, free_port

TRANSCRIPT = re.compile(r"^```\{code-block\} console\n:caption: [^\n]+\n\n(.*?)^```$", re.M | re.S)

SHOP = """
from datetime import datetime, timedelta
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_bitmapist import Bitmapistable, FlaskBitmapist, mark_event

app = Flask("shop", instance_path={folder!r})
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
FlaskBitmapist(app, {{"BITMAPIST_REDIS_URL": {url!r}, "BITMAPIST_TIMEOUT": 10}})
db = SQLAlchemy(app)

class User(db.Model, Bitmapistable):
    __bitmapist_flags__ = ("premium",)
    id = db.Column(db.Integer, primary_key=True)
    premium = db.Column(db.Boolean)
"""

MARKS = """
from datetime import datetime, timedelta
from shop import app
from flask_bitmapist import mark_event

with app.app_context():
    now = datetime.now()
    for when in ((now.replace(day=1) - timedelta(days=32)).replace(day=15), now):
        mark_event("user:created", range(9_000), now=when)
        mark_event("song:played", range(0, 90_000, 3), now=when)
        mark_event("order:paid", [70_000_000, 70_000_060], now=when)
"""


def test_the_transcript_is_what_the_command_prints(tmp_path: Path, mortal: MortalServer) -> None:
    mortal.kill()
    port = free_port()
    policy = ("--maxmemory-policy", "allkeys-lru", "--maxmemory", "2gb")
    mortal.start("--port", str(port), *policy)
    url = f"redis://localhost:{port}"
    (tmp_path / "shop.py").write_text(SHOP.format(folder=str(tmp_path), url=url))
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths, "FLASK_APP": "shop"}

    def run(*words: str) -> str:
        return subprocess.run(
            [warm.python(), *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=60,
        ).stdout

    run("-c", MARKS)
    (transcript,) = TRANSCRIPT.findall((ROOT / "docs" / "doctor.md").read_text())
    printed = "$ flask bitmapist doctor\n" + run("-m", "flask", "bitmapist", "doctor")
    assert without_numbers(printed) == without_numbers(transcript), printed


def without_numbers(text: str) -> str:
    """`text` with each number, and the space before it, as one sign."""
    return re.sub(r" *\d[\d.,]*", " #", text)
