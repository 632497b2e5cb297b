"""The app: one factory that puts Flask-SQLAlchemy, Flask-Login and Flask-Bitmapist together."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, abort, render_template, request
from flask_login import LoginManager
from sqlalchemy import event, select
from werkzeug.exceptions import HTTPException, SecurityError

from flask_bitmapist import FlaskBitmapist, chart

from .models import User, db
from .views import pages

INSTANCE = Path("instance", "demo")


def create_app(
    instance_path: str | os.PathLike[str] | None = None, config: Mapping[str, Any] | None = None
) -> Flask:
    """Marginalia, with its data in `instance_path` (default: ``./instance/demo``).

    The year of history is not played here, but by ``python -m flask_bitmapist.demo``.
    """
    folder = Path(instance_path or INSTANCE).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    app = Flask("flask_bitmapist.demo", instance_path=str(folder))
    app.config.from_mapping(
        SECRET_KEY=_secret_key(folder / "secret_key"),
        # Cookies ignore ports: a name of our own leaves the sessions of other local apps alone.
        SESSION_COOKIE_NAME="marginalia",
        SESSION_COOKIE_SAMESITE="Lax",
        # A web page that points its own host name to 127.0.0.1 gets a 400, not the dashboard.
        TRUSTED_HOSTS=["127.0.0.1", "localhost"],
        MAX_CONTENT_LENGTH=64 * 1024,
        SQLALCHEMY_DATABASE_URI="sqlite:///marginalia.sqlite3",
        BITMAPIST_REDIS_URL="embedded://",
    )
    app.config.from_mapping(config or {})

    db.init_app(app)
    with app.app_context():
        event.listen(db.engine, "connect", _prepare_sqlite)
        db.create_all()

    login = LoginManager(app)
    login.login_view = "pages.log_in"
    login.user_loader(lambda user_id: db.session.get(User, int(user_id)))

    bitmapist = FlaskBitmapist(app)

    @bitmapist.dashboard_access
    def visitor_sits_at_this_machine() -> bool:
        # Right for a demo on a developer's own machine, wrong on a server: behind a reverse proxy
        # everybody's remote_addr is the proxy's, often 127.0.0.1. There, ask who is logged in, for
        # example `return current_user.is_authenticated and current_user.is_admin`.
        return request.remote_addr in {"127.0.0.1", "::1"}

    # Of those, everybody may save boards and questions.
    bitmapist.may_save(visitor_sits_at_this_machine)

    @bitmapist.user_link
    def name_of_reader(user_id: int | str) -> str | None:
        user = db.session.get(User, user_id)
        return user and user.name  # None, which shows the id, for those who closed their account

    @bitmapist.find_user
    def readers_called(text: str) -> list[int]:
        found = select(User.id).where(User.name.icontains(text, autoescape=True)).limit(51)
        return [*db.session.scalars(found)]

    # An application would name the day: date(2026, 11, 1).
    bitmapist.annotation(date.today() - timedelta(days=40), "v2.0")
    bitmapist.board(
        "Marginalia this week",
        [
            chart("Readers", "active_users", event="user:seen", rows=60),
            chart("Where they come from", "lifecycle", event="user:seen", by="week"),
            chart(
                "Who stays",
                "retention",
                cohort="user:created",
                returned="user:seen",
                breakdown="user:plan",
                as_of="then",
            ),
            chart(
                "From sign-up to a first post",
                "funnel",
                steps=["user:created", "post:read", "post:created"],
                within=7,
            ),
            chart("Readers who like", "adoption", feature="post:liked", active="post:read"),
            chart("Days of the last 28", "stickiness", event="user:seen"),
            chart("Writers, week by week", "trend", event="post:created", by="week"),
            chart("Gone for four weeks", "churned", event="user:seen", by="week", silent=4),
        ],
    )

    app.before_request(_refuse_cross_origin_posts)
    app.after_request(_send_security_headers)
    app.register_error_handler(HTTPException, _error_page)
    app.register_blueprint(pages)
    return app


def _secret_key(path: Path) -> str:
    """The key that signs the cookies: drawn once, so that a restart logs nobody out."""
    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path.read_text()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Off by default. With it, a deleted account takes its posts along.
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")  # a reader never waits for a writer
    connection.execute("PRAGMA synchronous = NORMAL")


def _refuse_cross_origin_posts() -> None:
    """Protection against CSRF without a token in each form.

    Only POST changes anything, SameSite=Lax keeps our cookie out of other sites' posts, and the
    browser itself says where a request comes from: another port of localhost is the same *site*,
    but not the same *origin*. All current browsers send Sec-Fetch-Site, older ones Origin. A client
    that sends neither is not a browser, and has no visitor's cookie to abuse.
    """
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        same_origin = site in {"same-origin", "none"}
    else:
        origin = request.headers.get("Origin")
        same_origin = origin is None or urlsplit(origin).netloc == request.host
    if not same_origin:
        abort(403, "This form was sent by another web site.")


def _send_security_headers(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    if request.blueprint != "bitmapist":  # the dashboard sends its own
        response.headers.setdefault(
            "Content-Security-Policy",
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        )
    return response


def _error_page(error: HTTPException) -> tuple[str, int] | HTTPException:
    if error.code is None or error.code < 400 or request.blueprint == "bitmapist":
        return error
    if isinstance(error, SecurityError):  # a refused host name: no URLs to fill a page with
        return error
    return render_template("marginalia/error.html", error=error), error.code
