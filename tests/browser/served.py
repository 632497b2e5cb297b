"""Applications with a dashboard, served as in life; the same log and the same moment every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from threading import Thread
from typing import Any

import numpy as np
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_bitmapist import FlaskBitmapist, chart, mark_dimension, mark_event, mark_unique
from flask_bitmapist.current import current_tracker
from flask_bitmapist.reading.segments import Event

#: A Wednesday: the day, the week and the month are all still running.
NOW = datetime(2026, 11, 25, 14, 32)
DAYS, PEOPLE = 120, 948
#: More events than a page of the overview lists, among them names that want to be more than text.
FEATURES = [f"feature:{number:02}" for number in range(60)]
AWKWARD_STEP = Event("import:" + "averylongnamewithoutaspace" * 6)
AWKWARD = ["<b>\"bold\" & 'sly'</b>", AWKWARD_STEP.name, "größe: 東京 ✓"]


def application(redis_url: str, root: str | None = None, **config: Any) -> Flask:
    """An app in the folder `root` whose clock stands still at `NOW`."""
    app = Flask("served", root_path=root)
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        BITMAPIST_REDIS_URL=redis_url,
        BITMAPIST_SPOOL=False,
        SECRET_KEY="served",
        **config,
    )
    bitmapist = FlaskBitmapist(app)
    tracker, answer = bitmapist.tracker_of(app), app.wsgi_app

    @bitmapist.user_link
    def link(user: int | str) -> tuple[str, str] | str:
        return (f"Person No. {user}", f"/people/{user}") if int(user) % 2 else f"Reader {user}"

    bitmapist.may_save(lambda: True)
    bitmapist.annotation(date(2026, 10, 26), "v2.0")
    bitmapist.annotation(date(2026, 11, 2), "a longer text than a chart has room for")
    bitmapist.board(
        "Weekly",
        [
            chart("Who logs in", "active_users", event="user:logged_in", rows=60),
            chart("Where from", "lifecycle", event="user:logged_in", by="week"),
            chart("Who stays", "retention", cohort="user:created", returned="user:logged_in"),
            chart("3 steps", "funnel", steps=["user:created", "post:read", AWKWARD_STEP]),
            chart("Who writes", "adoption", feature="post:created", active="post:read"),
            chart("What goes together", "overlap", events=["sold", "post:read", "post:created"]),
            chart("Cannot be asked", "overlap", events=["mapped", "post:read"]),
            chart("Nothing yet", "churned", event="never:marked", silent=4),
        ],
    )

    @app.get("/favicon.ico")
    def icon() -> tuple[str, int]:  # a browser asks for it beside a page that names none
        return "", 204

    def at_now(environ: Any, start_response: Any) -> Any:
        with tracker.at(NOW):
            return answer(environ, start_response)

    app.wsgi_app = at_now  # type: ignore[method-assign]
    return app


def record(app: Flask) -> None:
    """Four months of people who come often at first, and less and less."""
    chance = np.random.default_rng(2016)
    people = np.arange(1, PEOPLE + 1)
    born = np.sort(chance.integers(0, DAYS, PEOPLE))
    habit, stamina = chance.beta(0.9, 1.6, PEOPLE), chance.lognormal(3.2, 1.2, PEOPLE)
    with app.app_context():
        for day in range(DAYS):
            moment = NOW - timedelta(days=DAYS - 1 - day)
            age = day - born
            came = habit * np.exp(-np.maximum(age, 0) / stamina) + 0.01 > chance.random(PEOPLE)
            here = (age == 0) | ((age > 0) & came)
            mark_event("user:created", people[age == 0], now=moment)
            with current_tracker().at(moment):
                mark_dimension("user:plan", people[age == 0], "free", dated=True)
                mark_dimension("user:plan", people[here & (age % 40 == 39)], "premium", dated=True)
            mark_event("user:logged_in", people[here], now=moment)
            for event, share in (("post:read", 0.8), ("post:created", 0.07), ("sold", 0.02)):
                mark_event(event, people[here & (chance.random(PEOPLE) < share)], now=moment)
        for event in (*FEATURES, *AWKWARD):
            mark_event(event, chance.choice(people, 20), now=NOW - timedelta(days=2))
            mark_event(event, chance.choice(people, 9), now=NOW)
        mark_event("mapped", "somebody", now=NOW)
        mark_unique("user:premium", people[habit > 0.5])


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Not a line for every file of every page."""


@contextmanager
def serve(app: Flask, under: str = "") -> Iterator[str]:
    """The address of `app` on a port of its own, below the path `under`."""
    mounted = DispatcherMiddleware(Flask("outside"), {under: app}) if under else app
    server = make_server("127.0.0.1", 0, mounted, threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}{under}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
