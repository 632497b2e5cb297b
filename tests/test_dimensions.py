"""Dimensions: who has which value, in whatever order processes give them."""

from __future__ import annotations

import redis as redis_py

from flask_bitmapist.dimensions import DIMENSIONS
from flask_bitmapist.marks import Mark
from flask_bitmapist.tracker import Tracker


class TestWhatIsKnown:
    """Read: the dimensions that there are, and their values."""

    def test_values_are_told_in_the_order_in_which_they_came(
        self, tracker: Tracker, redis: redis_py.Redis
    ) -> None:
        for value in ("free", "pro", "a b", "other"):
            tracker.record([Mark(f"user:plan={value}", 1, dated=False)])
        redis.hset(
            DIMENSIONS,
            mapping={"2:user:plan": "a b", "10:user:plan": "pro", "1:user:plan": "free"},
        )

        known = tracker.reader.known()

        assert known.dimensions == {"user:plan": ("free", "a b", "pro", "other")}
        assert known.flags["user:plan=a b"] == "plain"

    def test_a_value_that_nobody_ever_had_is_not_told(
        self, tracker: Tracker, redis: redis_py.Redis
    ) -> None:
        tracker.record([Mark("user:plan=pro", 1, dated=False)])
        redis.hset(
            DIMENSIONS, mapping={"0:user:plan": "free", "1:user:plan": "pro", "0:user:from": "us"}
        )

        assert tracker.reader.known(scanned=False).dimensions == {"user:plan": ("pro",)}
