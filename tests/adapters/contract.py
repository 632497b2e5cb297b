"""The contract of adapters, with the marks read from the bitmaps of a real server.

Subclass `ServerContract` as `flask_bitmapist.testing.AdapterContract` says.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from typing import Any

import pytest
import redis as redis_py
from bitmapist import DayEvents, UniqueEvents
from flask import Flask

# Before its first import, or pytest would not explain its failing assertions.
if "flask_bitmapist.testing" not in sys.modules:
    pytest.register_assert_rewrite("flask_bitmapist.testing")

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.id_map import IdMap
from flask_bitmapist.ids import PLAIN, normal_form
from flask_bitmapist.registry import KINDS
from flask_bitmapist.testing import AdapterContract, ContractOrm, Marked


class ServerMarks:
    """What a server's bitmaps say, read with bitmapist's own classes."""

    def __init__(self, redis: redis_py.Redis) -> None:
        self._redis = redis

    def events(self, on: date | None = None) -> dict[str, set[int | str]]:
        """The ids of each event on the day `on`, or on any day."""
        found: dict[str, set[int | str]] = {}
        for event, *numbers in self._keys(r"_(\d+)-(\d+)-(\d+)"):
            day = date(*map(int, numbers))
            if on in (None, day):
                offsets = DayEvents(event, day.year, day.month, day.day, self._redis)
                found.setdefault(event, set()).update(self._ids(event, offsets))
        return {event: ids for event, ids in found.items() if ids}

    def flags(self) -> dict[str, set[int | str]]:
        """The ids that each flag is set for."""
        names = [event for (event,) in self._keys("_u")]
        found = {event: self._ids(event, UniqueEvents(event, self._redis)) for event in names}
        return {event: ids for event, ids in found.items() if ids}

    def _keys(self, ending: str) -> list[tuple[str, ...]]:
        keys = [key.decode() for key in self._redis.scan_iter("trackist_*")]
        matches = [re.fullmatch(f"trackist_(.+?){ending}", key) for key in keys]
        return [match.groups() for match in matches if match]

    def _ids(self, event: str, offsets: Any) -> set[int | str]:
        stored: Any = self._redis.hget(KINDS, event)
        kind: str = stored.decode()
        if kind == PLAIN:
            return set(offsets)
        _, _, space = kind.partition(":")
        known = IdMap().ids(self._redis, space, list(offsets))
        return {id_ for id_ in known if id_ is not None}


class ServerContract(AdapterContract):
    """`AdapterContract` on the run's server."""

    @pytest.fixture
    def redis_url(self, server: Any) -> str:
        url: str = server.fresh_database()
        return url

    @pytest.fixture
    def marked(self, redis: redis_py.Redis) -> Marked:
        return ServerMarks(redis)

    def test_marks_of_an_outage_arrive_once_redis_is_back(
        self, orm: ContractOrm, marked: Marked, app: Flask, redis_url: str
    ) -> None:
        """Redis comes back after the commit: the marks arrive"""
        client = redis_py.Redis.from_url(redis_url)
        extension = FlaskBitmapist(app, redis_client=client)
        alive = client.connection_pool
        client.connection_pool = redis_py.ConnectionPool.from_url("unix:///nonexistent/redis.sock")
        account = orm.model("Account")
        with orm.transaction():
            id_ = normal_form(orm.key(orm.create(account)))
        assert marked.events() == {}
        client.connection_pool = alive
        assert extension.tracker.flush()
        assert marked.events() == {"account:created": {id_}}
        client.close()
