"""The contract of adapters, with the marks read from the bitmaps of a real server.

Subclass `ServerContract` as `flask_bitmapist.testing.AdapterContract` says.
"""

from __future__ import annotations

import re
import sys
import time
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
from flask_bitmapist.testing.contract import _needs
from flask_bitmapist.tracker import Tracker


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

    def test_whoever_is_deleted_is_erased(
        self, orm: ContractOrm, marked: Marked, tracker: Tracker
    ) -> None:
        """`__bitmapist_erase_deleted__`: outside of the transaction, and of the request"""
        account = orm.model(
            "Account", __bitmapist_erase_deleted__=True, __bitmapist_flags__=("premium",)
        )
        with orm.transaction():
            one, two = (orm.create(account, premium=True) for _ in range(2))
        ids = {normal_form(orm.key(row)) for row in (one, two)}
        gone = normal_form(orm.key(one))
        with orm.transaction():
            orm.delete(one)
        assert tracker.flush()
        left = ids - {gone}
        is_plain = isinstance(gone, int)
        assert marked.events() == {
            "account:created": left,
            # Nobody can be shown whose id is in no map any more.
            **({"account:deleted": {gone}} if is_plain else {}),
        }
        assert marked.flags() == {"account:premium": left}

    @_needs("textual keys")
    def test_whoever_comes_with_the_id_of_one_who_was_deleted_keeps_their_marks(
        self,
        orm: ContractOrm,
        marked: Marked,
        tracker: Tracker,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """... a new row with the same key is somebody else"""
        account = orm.model("Account", key=str, __bitmapist_erase_deleted__=True)
        monkeypatch.setattr(tracker._eraser, "submit", lambda: None)
        with orm.transaction():
            row = orm.create(account, id="ann")
        tracker.record([("song:played", "ann")])
        with orm.transaction():
            orm.delete(row)
        time.sleep(0.02)  # the moments of marks are compared with that of the deletion
        with orm.transaction():
            orm.create(account, id="ann")
        tracker.record([("song:liked", "ann")])
        assert tracker.erase_due().people == 1
        assert tracker.flush()
        assert marked.events() == {"account:created": {"ann"}, "song:liked": {"ann"}}
