"""Settings: one frozen value made from ``app.config``; an error names the option that is wrong."""

from __future__ import annotations

import difflib
import math
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal, NoReturn, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .periods import Grain, Period

PREFIX = "BITMAPIST_"
#: SETBIT's own limit; one bit that far out costs half a gigabyte per key.
LARGEST_OFFSET = 2**32 - 1
#: Values of a dimension: whoever gets one is looked up in the bitmaps of all.
MOST_VALUES = 1_000
#: The file in the instance folder where marks wait, if no other is named.
SPOOL_NAME = "bitmapist-spool.sqlite3"
STORED_GRAINS: tuple[Grain, ...] = ("hour", "day", "week", "month")

DeliveryMode = Literal["immediate", "background"]
IdMapMode = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What one application configured; the documentation's table says what each option means."""

    redis_url: str = field(default="redis://localhost:6379", repr=False)  # may hold a password
    redis_system: str = "default"
    track_hourly: bool = False
    track_unique: bool = False
    disable_blueprint: bool = False
    url_prefix: str = "/bitmapist"
    timezone: tzinfo = field(default_factory=lambda: ZoneInfo("UTC"))
    delivery: DeliveryMode = "immediate"
    timeout: float = 0.25  # seconds
    spool: Path | None = None  # None: marks that Redis does not take are lost
    spool_size: int = 256 * 2**20  # bytes
    max_id: int = 2**27 - 1
    dense_limit: int = 2**24 - 1
    id_map: IdMapMode = "auto"
    dimension_values: int = 100
    ttl: Mapping[Grain, timedelta] = field(default_factory=dict)
    pack_after: timedelta | None = None
    track_login: bool = True
    track_seen: bool = True
    visitors: bool = False
    visitor_age: timedelta = timedelta(days=365)
    promote_visitors: bool = False

    def period(self, grain: Grain, moment: datetime) -> Period:
        """The period of the application's calendar that contains the naive local `moment`."""
        return Period.containing(grain, moment, self.timezone, tuple(self.ttl.items()))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], instance_path: str) -> Settings:
        """Read and check the ``BITMAPIST_*`` options of `config`.

        :param config: ``app.config``, or anything like it.
        :param instance_path: absolute path of the application's instance folder, for the spool.
        :raises ValueError: if an option is wrong: the message names it, its value and what is
            allowed.
        """
        known = {PREFIX + name.upper(): name for name in _READERS}
        for option, nearest in unknown_options(config).items():
            _warn(f"unknown option {option}: did you mean {nearest}?")
        given = {
            name: _READERS[name](config[option], option)
            for option, name in known.items()
            if option in config
        }
        if "DISABLE_BLUEPRINT" in config and "disable_blueprint" not in given:
            given["disable_blueprint"] = _flag(config["DISABLE_BLUEPRINT"], "DISABLE_BLUEPRINT")
        given["spool"] = _spool_path(given.get("spool", True), instance_path)
        given.pop("enabled", None)  # checked here, but read when a mark is made: see `Switch`
        settings = cls(**given)
        if settings.visitors and settings.id_map != "always":
            raise ValueError(
                "BITMAPIST_VISITORS needs BITMAPIST_ID_MAP = 'always', not "
                f"{settings.id_map!r}: an event with users and visitors has one kind of ids"
            )
        if settings.promote_visitors and not settings.visitors:
            raise ValueError("BITMAPIST_PROMOTE_VISITORS needs BITMAPIST_VISITORS = True")
        return settings


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether an application makes marks, and whether they may leave the process.

    The configuration is read for each mark: test suites set ``TESTING`` after `init_app`, as
    Flask's documentation does, and ``BITMAPIST_ENABLED`` likewise.
    """

    #: ``app.config``.
    config: Mapping[str, Any]
    #: Options that override it.
    overrides: Mapping[str, Any]
    #: Where ``BITMAPIST_ENABLED`` and ``TESTING`` are looked up: a ChainMap would take several
    #: times as long.
    _enabled: Mapping[str, Any] = field(init=False, repr=False)
    _testing: Mapping[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, option in (("_enabled", "BITMAPIST_ENABLED"), ("_testing", "TESTING")):
            overridden = option in self.overrides
            object.__setattr__(self, name, self.overrides if overridden else self.config)

    @property
    def enabled(self) -> bool:
        """Whether marks are made: ``BITMAPIST_ENABLED``."""
        return self._enabled.get("BITMAPIST_ENABLED") is not False

    @property
    def tested(self) -> bool:
        """Whether marks stay in the process: ``TESTING``, and nobody set ``BITMAPIST_ENABLED``."""
        return bool(self._testing.get("TESTING")) and self._enabled.get("BITMAPIST_ENABLED") is None

    @property
    def lookups(self) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
        """What `sends` looks up with: ``BITMAPIST_ENABLED``, and ``TESTING``."""
        return self._enabled.get, self._testing.get

    def sends(self) -> bool:
        """Whether marks are made and leave the process."""
        told = self._enabled.get("BITMAPIST_ENABLED")
        return told is not False and (told is not None or not self._testing.get("TESTING"))


def unknown_options(config: Mapping[str, Any]) -> dict[str, str]:
    """The ``BITMAPIST_*`` options of `config` that there are not, each with the nearest name."""
    known = [PREFIX + name.upper() for name in _READERS]
    return {
        option: difflib.get_close_matches(option, known, n=1, cutoff=0.0)[0]
        for option in config
        if option.startswith(PREFIX) and option not in known
    }


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)


def _refuse(option: str, value: object, allowed: str) -> NoReturn:
    raise ValueError(f"{option} must be {allowed}, not {value!r}")


def _flag(value: object, option: str) -> bool:
    if not isinstance(value, bool):
        _refuse(option, value, "True or False")
    return value


def _one_of(*allowed: str) -> Callable[[object, str], str]:
    def read(value: object, option: str) -> str:
        if value not in allowed:
            _refuse(option, value, " or ".join(map(repr, allowed)))
        return str(value)

    return read


_ESCAPES = "in a user or password, '/', '?', '@' and '#' are written %2F, %3F, %40 and %23"


def _redis_url(value: object, option: str) -> str:
    """Check the form of a server's URL. Messages never repeat it, as it may hold a password."""
    forms = "a URL such as redis://, rediss://, unix:///socket, embedded:// or embedded:///folder"
    if not isinstance(value, str) or not value:
        _refuse(option, type(value).__name__ if value else value, forms)
    if "#" in value:
        raise ValueError(f"{option}: a '#' would end the address: write %23 in a user or password")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        # urllib's message may quote part of a password that was not escaped.
        raise ValueError(f"{option} must be {forms}; {_ESCAPES}") from None
    if parts.scheme not in ("redis", "rediss", "unix", "embedded"):
        _refuse(option, f"{parts.scheme}://...", forms)
    if parts.scheme == "embedded" and (parts.netloc or parts.query):
        raise ValueError(f"{option}: an embedded server's folder is absolute: embedded:///folder")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError(f"{option}: unix:// needs the path of a socket: unix:///run/valkey.sock")
    if parts.scheme in ("redis", "rediss"):
        database = parts.path.strip("/")
        if database and not database.isdecimal():
            raise ValueError(f"{option}: the database must be a number; {_ESCAPES}")
        if "@" in parts.query and "@" not in parts.netloc:
            raise ValueError(f"{option}: the host is missing; {_ESCAPES}")
    return value


def _system_name(value: object, option: str) -> str:
    if not isinstance(value, str) or not value:
        _refuse(option, value, "a name")
    return value


def _url_prefix(value: object, option: str) -> str:
    # Each part is as it appears in an address, and none is variable.
    if not isinstance(value, str) or not re.fullmatch(r"(/[\w.~!$&'()*+,;=:@-]+)+", value):
        _refuse(
            option,
            value,
            "a path such as '/stats', which begins with '/' and does not end with one",
        )
    return value


def _timezone(value: object, option: str) -> tzinfo:
    # pytz's zones cannot be attached to a datetime like others, but they know their name.
    name = value if isinstance(value, str) else _zone_name(value)
    with suppress(ValueError, OSError, ZoneInfoNotFoundError):
        if name is not None:
            return ZoneInfo(name)
    if isinstance(value, tzinfo) and _keeps_wall_clocks(value):
        return value
    _refuse(option, value, "a name such as 'Europe/Berlin', a ZoneInfo or a datetime.timezone")


def _zone_name(zone: object) -> str | None:
    """The name of a zone of zoneinfo (`key`) or of pytz (`zone`), if it has one."""
    if not isinstance(zone, tzinfo):
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    return name if isinstance(name, str) else None


def _keeps_wall_clocks(zone: tzinfo) -> bool:
    """Whether times of `zone` survive a round trip to UTC, and `zone` can be a cache key.

    dateutil's zones cannot be cache keys. Times in pytz's zones come back changed, so that a report
    would step from hour to hour for ever.
    """
    noon = datetime(2026, 1, 15, 12)
    try:
        hash(zone)
        there = noon.replace(tzinfo=zone).astimezone(UTC)
        return there.astimezone(zone).replace(tzinfo=None) == noon
    except (NotImplementedError, TypeError, ValueError):
        return False


def _seconds(value: object, option: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(cast(float, value)) or cast(float, value) <= 0:
        _refuse(option, value, "a number of seconds above 0")
    return float(cast(float, value))


def _offset(value: object, option: str) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 < cast(int, value) <= LARGEST_OFFSET:
        _refuse(option, value, f"a whole number from 1 to {LARGEST_OFFSET}")
    return cast(int, value)


def _values(value: object, option: str) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 < cast(int, value) <= MOST_VALUES:
        _refuse(option, value, f"a whole number from 1 to {MOST_VALUES}")
    return cast(int, value)


def _bytes(value: object, option: str) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or cast(int, value) < 2**20:
        _refuse(option, value, f"a whole number of bytes, {2**20} (1 MiB) or more")
    return cast(int, value)


def _age(value: object, option: str) -> timedelta | None:
    if value is not None and (not isinstance(value, timedelta) or value <= timedelta(0)):
        _refuse(option, value, "a timedelta above 0, or None")
    return value


def _lifetime(value: object, option: str) -> timedelta:
    if not isinstance(value, timedelta) or value < timedelta(seconds=1):
        _refuse(option, value, "a timedelta of a second or more")
    return value


def _ttl(value: object, option: str) -> dict[Grain, timedelta]:
    if not isinstance(value, Mapping):
        _refuse(option, value, "a mapping such as {'hour': timedelta(days=14)}")
    for grain, age in value.items():
        if grain not in STORED_GRAINS:
            _refuse(f"{option}: a period", grain, f"one of {', '.join(STORED_GRAINS)}")
        if not isinstance(age, timedelta) or age <= timedelta(0):
            _refuse(f"{option}[{grain!r}]", age, "a timedelta above 0")
    return dict(value)


def _spool(value: object, option: str) -> bool | Path:
    if not isinstance(value, bool | str | Path) or value == "":
        _refuse(option, value, "True, False or the path of a file")
    return value if isinstance(value, bool) else Path(value)


def _spool_path(spool: bool | Path, instance_path: str) -> Path | None:
    if isinstance(spool, Path):
        return spool
    return Path(instance_path) / SPOOL_NAME if spool else None


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "redis_url": _redis_url,
    "redis_system": _system_name,
    "track_hourly": _flag,
    "track_unique": _flag,
    "disable_blueprint": _flag,
    "url_prefix": _url_prefix,
    "timezone": _timezone,
    "delivery": _one_of("immediate", "background"),
    "timeout": _seconds,
    "spool": _spool,
    "spool_size": _bytes,
    "max_id": _offset,
    "dense_limit": _offset,
    "id_map": _one_of("auto", "always", "never"),
    "dimension_values": _values,
    "ttl": _ttl,
    "pack_after": _age,
    "track_login": _flag,
    "track_seen": _flag,
    "visitors": _flag,
    "visitor_age": _lifetime,
    "promote_visitors": _flag,
    "enabled": _flag,
}
