"""What each worker does: it marks, and then notes in a file that the mark was acknowledged.

WSGI servers, Celery, RQ and child processes import this; the environment says where the server is.
"""

from __future__ import annotations

import os
from datetime import datetime

from flask import Flask

from flask_bitmapist import FlaskBitmapist, mark_event

NOON = datetime(2026, 3, 14, 12, 30)
FOLDER = os.environ["MARKS_FOLDER"]

app = Flask("workers", instance_path=f"{FOLDER}/instance")
app.config.update(
    BITMAPIST_REDIS_URL=os.environ["MARKS_SERVER"],
    BITMAPIST_DELIVERY=os.environ["MARKS_DELIVERY"],
    BITMAPIST_TIMEOUT=5,
    DISABLE_BLUEPRINT=True,
)
tracker = FlaskBitmapist(app).tracker
if os.environ.get("MARKS_BEFORE_FORK"):
    mark_event("early", 1, now=NOON)


def mark(id_: int) -> None:
    mark_event("e", id_, now=NOON)
    # One write() a line: nothing stays behind in a buffer, nothing is mixed with other lines.
    noted = os.open(f"{FOLDER}/acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(noted, b"%d\n" % id_)
    os.close(noted)


@app.get("/<int:id_>")
def view(id_: int) -> str:
    mark(id_)
    return "marked"
