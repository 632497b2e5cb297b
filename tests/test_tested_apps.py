"""An application with ``TESTING`` marks on its server only if ``BITMAPIST_ENABLED`` says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask_login import LoginManager, UserMixin, login_user
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_bitmapist import Bitmapistable, DayEvents, FlaskBitmapist, mark, mark_event, mark_unique
from flask_bitmapist.testing import record_marks


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Member(UserMixin, Bitmapistable, db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)


@mark("site:visited", 1)
def visit() -> None: ...


@pytest.fixture
def create_app(redis_url: str, tmp_path: Path) -> Callable[..., Flask]:
    """The factory of an ordinary application, configured for its real server."""

    def create_app(**config: Any) -> Flask:
        app = Flask("shop", instance_path=str(tmp_path / "instance"))
        app.config.update(
            SECRET_KEY="secret",
            SQLALCHEMY_DATABASE_URI="sqlite://",
            BITMAPIST_REDIS_URL=redis_url,
            **config,
        )
        db.init_app(app)
        LoginManager(app).user_loader(lambda id_: db.session.get(Member, int(id_)))
        FlaskBitmapist(app)
        return app

    return create_app


def configured(create_app: Callable[..., Flask]) -> Flask:
    return create_app(TESTING=True)


def told_after_create_app(create_app: Callable[..., Flask]) -> Flask:
    app = create_app()
    app.config.update({"TESTING": True})
    return app


def made_testing_after_create_app(create_app: Callable[..., Flask]) -> Flask:
    app = create_app()
    app.testing = True
    return app


RECIPES = [configured, told_after_create_app, made_testing_after_create_app]


def mark_in_every_way(app: Flask, server: redis_py.Redis) -> None:
    with app.test_request_context():
        db.create_all()
        member = Member()
        db.session.add(member)
        db.session.commit()
        login_user(member)
        visit()
        mark_event("song:played", 1)
        mark_event("song:played", 1, system=server)
        mark_unique("premium", 1, system=server)
    with app.app_context():
        db.drop_all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tested_app_sends_no_mark_and_says_so_once(
    recipe: Callable[..., Flask],
    create_app: Callable[..., Flask],
    redis: redis_py.Redis,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flask_bitmapist")
    app = recipe(create_app)
    mark_in_every_way(app, redis)
    assert redis.dbsize() == 0
    assert not (tmp_path / "instance").exists()
    (line,) = caplog.records
    assert line.levelname == "INFO"
    assert "TESTING" in line.message
    assert "BITMAPIST_ENABLED = True" in line.message


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_marks_of_a_tested_app_are_recorded(
    recipe: Callable[..., Flask], create_app: Callable[..., Flask], redis: redis_py.Redis
) -> None:
    with record_marks() as marks:
        mark_in_every_way(recipe(create_app), redis)
    assert marks.events() == {
        "member:created": {1},
        "user:logged_in": {1},
        "user:seen": {1},
        "site:visited": {1},
        "song:played": {1},
    }
    assert redis.dbsize() == 0


def in_the_config(create_app: Callable[..., Flask]) -> Flask:
    return create_app(TESTING=True, BITMAPIST_ENABLED=True)


def beside_testing_after_create_app(create_app: Callable[..., Flask]) -> Flask:
    app = create_app()
    app.config.update(TESTING=True, BITMAPIST_ENABLED=True)
    return app


def as_an_option_of_the_extension(create_app: Callable[..., Flask]) -> Flask:
    app = create_app(TESTING=True)
    app.extensions["bitmapist"].init_app(app, {"BITMAPIST_ENABLED": True})
    return app


@pytest.mark.parametrize(
    "enabled", [in_the_config, beside_testing_after_create_app, as_an_option_of_the_extension]
)
def test_a_tested_app_that_is_enabled_marks_on_its_server(
    enabled: Callable[..., Flask], create_app: Callable[..., Flask], redis: redis_py.Redis
) -> None:
    app = enabled(create_app)
    mark_in_every_way(app, redis)
    with app.app_context():
        for event in ("member:created", "user:logged_in", "site:visited", "song:played"):
            assert 1 in DayEvents.from_date(event)
    assert redis.getbit("trackist_premium_u", 1)


def test_an_app_is_disabled_after_create_app_too(
    create_app: Callable[..., Flask], redis: redis_py.Redis
) -> None:
    app = create_app()
    app.config["BITMAPIST_ENABLED"] = False
    with record_marks() as marks:
        mark_in_every_way(app, redis)
    mark_in_every_way(app, redis)
    assert not marks
    assert redis.dbsize() == 0


def test_a_wrong_mark_of_a_tested_app_is_an_error(create_app: Callable[..., Flask]) -> None:
    with create_app(TESTING=True).app_context(), pytest.raises(ValueError, match="negative"):
        mark_event("song:played", -1)


def test_a_tested_app_leaves_alone_what_waits_in_the_spool(
    create_app: Callable[..., Flask], redis: redis_py.Redis, redis_url: str, tmp_path: Path
) -> None:
    app = create_app()
    bitmapist = app.extensions["bitmapist"]
    bitmapist.init_app(app, {"BITMAPIST_REDIS_URL": f"unix://{tmp_path}/stopped.sock"})
    with app.app_context():
        mark_event("song:played", 1)
        app.testing = True
        assert bitmapist.tracker.flush()
        app.testing = False
        assert not bitmapist.tracker.flush()


def test_the_reports_of_a_tested_app_read_its_server(create_app: Callable[..., Flask]) -> None:
    app = create_app()
    with app.app_context():
        mark_event("song:played", 1)
        app.testing = True
        mark_event("song:played", 2)
        assert list(DayEvents.from_date("song:played")) == [1]
    assert b"song:played" in app.test_client().get("/bitmapist/").data
