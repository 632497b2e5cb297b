"""bitmapist's `system` argument: the name of a server, or a client or pipeline itself."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from .current import current_tracker
from .id_map import IdMap
from .ids import behind
from .reading.reader import PlainReader, Reader
from .registry import Registry
from .server import Server

if TYPE_CHECKING:
    from .tracker import Tracker

#: The servers by name, where bitmapist, which has a table of its own, is not installed.
_SERVERS: dict[str, Any] = {}

_HINT = 'for a server that bitmapist sets up: pip install "flask-bitmapist[bitmapist]"'


def servers() -> MutableMapping[str, Any]:
    """The clients by name: ``bitmapist.SYSTEMS``, or a table of our own where it is not installed.

    ``servers()["stats"] = redis.Redis(...)`` adds one.
    """
    try:
        import bitmapist
    except ImportError:
        return _SERVERS
    return bitmapist.SYSTEMS


def names_own_system(tracker: Tracker, system: Any) -> bool:
    """Whether `system` means the server of `tracker`."""
    return system is None or (
        isinstance(system, str) and system in ("default", tracker.settings.redis_system)
    )


def client_of(system: Any) -> Any:
    """The client that `system` names, or is.

    :raises ValueError: for a name that nobody has registered.
    :raises TypeError: for something that is neither a name nor a client.
    """
    if isinstance(system, str):
        return behind(_registered(system))
    if not hasattr(system, "setbit"):
        raise TypeError(f"system= takes a name, a client or a pipeline, not {system!r}")
    return system


def _registered(name: str) -> Any:
    table = servers()
    if name in table:
        return table[name]
    known = ", ".join(map(repr, table))
    if table is _SERVERS:
        raise ValueError(f"unknown system {name!r}: FlaskBitmapist.SYSTEMS has {known}; {_HINT}")
    raise ValueError(f"unknown system {name!r}: bitmapist.SYSTEMS has {known}")


def reader_of(system: Any) -> Reader:
    """The reader of the server that `system` means: the current app's, or another one."""
    tracker = current_tracker()
    if names_own_system(tracker, system):
        return tracker.reader
    client = client_of(system)
    if client is tracker.redis:
        return tracker.reader
    # What this process knows about its own server does not hold for another.
    settings = tracker.settings
    server = Server.of(settings, given=client)
    return PlainReader(server, Registry(str(settings.timezone)), IdMap(), tracker.now)
