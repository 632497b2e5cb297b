"""Every option is checked when the app is initialised, and an error names it."""

from __future__ import annotations

import traceback
import warnings
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.config import Settings


@pytest.fixture(autouse=True)
def _own_defaults(_time_enough: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are the application's own here, as no server is asked."""
    monkeypatch.setattr(Settings.__init__, "__defaults__", _time_enough)


def settings(**options: Any) -> Settings:
    return Settings.from_config(options, "/srv/app/instance")


def test_defaults_are_those_of_the_documentation() -> None:
    found = settings()
    assert found.redis_url == "redis://localhost:6379"
    assert (found.redis_system, found.url_prefix) == ("default", "/bitmapist")
    assert (found.delivery, found.timeout, found.id_map) == ("immediate", 0.25, "auto")
    assert found.spool == Path("/srv/app/instance/bitmapist-spool.sqlite3")
    assert found.max_id == 2**27 - 1
    assert str(found.timezone) == "UTC"
    assert found.track_login is found.track_seen is True
    assert found.track_hourly is found.track_unique is found.disable_blueprint is False
    assert found.ttl == {}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("BITMAPIST_REDIS_URL", "http://localhost"),
        ("BITMAPIST_REDIS_URL", "localhost:6379"),
        ("BITMAPIST_REDIS_URL", "redis://localhost:port"),
        ("BITMAPIST_REDIS_URL", "redis://localhost/one"),
        ("BITMAPIST_REDIS_URL", "embedded://folder"),
        ("BITMAPIST_REDIS_URL", "embedded:///a#b"),
        ("BITMAPIST_REDIS_URL", "redis://localhost/0#1"),
        ("BITMAPIST_REDIS_URL", "redis://localhost?foo=bar"),
        ("BITMAPIST_REDIS_URL", "redis://localhost?socket_timeout=abc"),
        ("BITMAPIST_REDIS_URL", "redis://localhost?retry=3"),
        ("BITMAPIST_REDIS_URL", "redis://localhost?protocol=5"),
        ("BITMAPIST_REDIS_URL", "unix:///socket?db=one"),
        ("BITMAPIST_REDIS_URL", "unix://"),
        ("BITMAPIST_REDIS_URL", ""),
        ("BITMAPIST_REDIS_URL", None),
        ("BITMAPIST_REDIS_SYSTEM", ""),
        ("BITMAPIST_TRACK_HOURLY", "yes"),
        ("BITMAPIST_TRACK_UNIQUE", 1),
        ("BITMAPIST_DISABLE_BLUEPRINT", "no"),
        ("DISABLE_BLUEPRINT", "no"),
        ("BITMAPIST_URL_PREFIX", "bitmapist"),
        ("BITMAPIST_URL_PREFIX", "/bitmapist/"),
        ("BITMAPIST_URL_PREFIX", "/<lang>/stats"),
        ("BITMAPIST_URL_PREFIX", "//stats"),
        ("BITMAPIST_URL_PREFIX", "/a//b"),
        ("BITMAPIST_URL_PREFIX", "/stats?"),
        ("BITMAPIST_URL_PREFIX", "/stats#"),
        ("BITMAPIST_URL_PREFIX", "/%41"),
        ("BITMAPIST_URL_PREFIX", "/a\nb"),
        ("BITMAPIST_TIMEZONE", "Europe/Atlantis"),
        ("BITMAPIST_TIMEZONE", "../../etc/passwd"),
        ("BITMAPIST_TIMEZONE", 2),
        ("BITMAPIST_DELIVERY", "later"),
        ("BITMAPIST_TIMEOUT", 0),
        ("BITMAPIST_TIMEOUT", float("nan")),
        ("BITMAPIST_TIMEOUT", "1"),
        ("BITMAPIST_SPOOL", 3),
        ("BITMAPIST_SPOOL", ""),
        ("BITMAPIST_MAX_ID", 0),
        ("BITMAPIST_MAX_ID", 2**32),
        ("BITMAPIST_MAX_ID", 1e6),
        ("BITMAPIST_DENSE_LIMIT", 0),
        ("BITMAPIST_DENSE_LIMIT", 1e6),
        ("BITMAPIST_ID_MAP", "sometimes"),
        ("BITMAPIST_TTL", 14),
        ("BITMAPIST_TTL", {"hours": timedelta(days=14)}),
        ("BITMAPIST_TTL", {"year": timedelta(days=14)}),
        ("BITMAPIST_TTL", {"hour": 14}),
        ("BITMAPIST_TTL", {"hour": timedelta(0)}),
        ("BITMAPIST_TRACK_LOGIN", None),
        ("BITMAPIST_VISITORS", "yes"),
        ("BITMAPIST_VISITORS", True),  # without BITMAPIST_ID_MAP = "always"
        ("BITMAPIST_VISITOR_AGE", 365),
        ("BITMAPIST_VISITOR_AGE", timedelta(0)),
        ("BITMAPIST_ENABLED", "off"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_option(option: str, value: object) -> None:
    app = Flask(__name__)
    app.config[option] = value
    with pytest.raises(ValueError, match=option):
        FlaskBitmapist(app)
    assert "bitmapist" not in app.extensions


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("BITMAPIST_REDIS_URI", "BITMAPIST_REDIS_URL"),
        ("BITMAPIST_TIME_ZONE", "BITMAPIST_TIMEZONE"),
        ("BITMAPIST_HOURLY", "BITMAPIST_TRACK_HOURLY"),
    ],
)
def test_an_unknown_option_is_a_warning_with_the_nearest_known_name(
    option: str, nearest: str
) -> None:
    with pytest.warns(UserWarning, match=f"{option}.*{nearest}"):
        FlaskBitmapist(Flask(__name__), {option: 1})


def test_the_password_of_a_url_is_not_in_the_settings() -> None:
    url = "redis://user:secret@localhost:6379/1"
    assert "secret" not in repr(settings(BITMAPIST_REDIS_URL=url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:secret@localhost:port",
        "http://user:secret@localhost",
        "redis://:secret#1@localhost",
        "redis://:secret/1@localhost",
        "redis://:1/secret@localhost",
        "redis://:1?secret@localhost",
        "redis://:secret\u2100@localhost",
        "redis://:secret@localhost?foo=bar",
        "redis://:secret@localhost?socket_timeout=abc",
        "rediss://:secret@localhost?ssl_cert_reqs=abc",
    ],
)
def test_an_error_of_a_url_never_tells_its_password(url: str, tmp_path: Path) -> None:
    app = Flask(__name__, instance_path=str(tmp_path))
    with pytest.raises(ValueError, match="BITMAPIST_REDIS_URL") as caught:
        FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": url})
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("option", ["DISABLE_BLUEPRINT", "BITMAPIST_DISABLE_BLUEPRINT"])
def test_both_names_disable_the_blueprint(option: str) -> None:
    assert settings(**{option: True}).disable_blueprint is True


def test_the_prefixed_name_of_disable_blueprint_wins() -> None:
    found = settings(DISABLE_BLUEPRINT=True, BITMAPIST_DISABLE_BLUEPRINT=False)
    assert found.disable_blueprint is False


@pytest.mark.parametrize("zone", ["Europe/Berlin", ZoneInfo("Europe/Berlin")])
def test_a_timezone_is_a_name_or_a_tzinfo(zone: str | tzinfo) -> None:
    assert settings(BITMAPIST_TIMEZONE=zone).timezone == ZoneInfo("Europe/Berlin")


class LocalMeanTime(tzinfo):
    """As pytz's zones are: until it is localised, a datetime has the offset of the 19th century."""

    def __init__(self, zone: str | None) -> None:
        self.zone = zone

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(minutes=53)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "LMT"

    def fromutc(self, moment: datetime) -> datetime:
        return (moment + timedelta(hours=1)).replace(tzinfo=self)


class Abstract(tzinfo):
    """What implements nothing."""

    utcoffset = tzinfo.utcoffset
    tzname = tzinfo.tzname
    dst = tzinfo.dst


class Unhashable(LocalMeanTime):
    """As dateutil's zones are."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)


def test_the_zones_of_pytz_are_taken_by_their_name() -> None:
    assert settings(BITMAPIST_TIMEZONE=LocalMeanTime("Europe/Berlin")).timezone == ZoneInfo(
        "Europe/Berlin"
    )


@pytest.mark.parametrize(
    "zone",
    [LocalMeanTime("Atlantis"), LocalMeanTime(None), Unhashable(None), Abstract()],
    ids=["unknown name", "no name", "unhashable", "abstract"],
)
def test_a_zone_that_the_calendar_cannot_step_through_is_an_error(zone: tzinfo) -> None:
    with pytest.raises(ValueError, match="BITMAPIST_TIMEZONE must be .*ZoneInfo.*, not <"):
        settings(BITMAPIST_TIMEZONE=zone)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-3, minutes=-30))])
def test_a_fixed_offset_is_a_calendar(zone: timezone) -> None:
    assert settings(BITMAPIST_TIMEZONE=zone).timezone is zone


def test_the_spool_can_be_moved_or_switched_off() -> None:
    assert settings(BITMAPIST_SPOOL="/var/spool/marks").spool == Path("/var/spool/marks")
    assert settings(BITMAPIST_SPOOL=False).spool is None


def test_the_size_of_the_spool_is_a_number_of_bytes() -> None:
    assert settings().spool_size == 256 * 2**20
    assert settings(BITMAPIST_SPOOL_SIZE=2**20).spool_size == 2**20
    for wrong in (0, -1, 1000, True, 5e6, "1MB"):
        with pytest.raises(ValueError, match="BITMAPIST_SPOOL_SIZE must be a whole number of byte"):
            settings(BITMAPIST_SPOOL_SIZE=wrong)


def test_options_of_other_extensions_are_ignored() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settings(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite://") == settings()


def test_config_of_the_extension_overrides_that_of_the_app(redis_url: str) -> None:
    app = Flask(__name__)
    app.config.update(BITMAPIST_TRACK_HOURLY=False, BITMAPIST_REDIS_URL="redis://nowhere")
    options = {"BITMAPIST_TRACK_HOURLY": True, "BITMAPIST_REDIS_URL": redis_url}
    extension = FlaskBitmapist(app, options)
    assert extension.TRACK_HOURLY is True
    assert extension.redis_url == redis_url


def test_config_that_is_not_a_mapping_is_an_error() -> None:
    with pytest.raises(ValueError, match="config must be a mapping"):
        FlaskBitmapist(Flask(__name__), ["BITMAPIST_TRACK_HOURLY"])  # type: ignore[arg-type]
