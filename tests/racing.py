"""What each of several processes does at once. It imports little: each of them has to."""

from __future__ import annotations

import random
from datetime import date

from flask import Flask
from redis import Redis
from servers import eventually

from flask_bitmapist import FlaskBitmapist
from flask_bitmapist.id_map import IdMap
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.marks import Mark

RACERS, RACING = 8, 500
_DAY = date(2026, 11, 14)


def racing_offsets(url: str, seed: int) -> dict[str, int]:
    """The offsets of `RACING` ids in an order of this process's own, in small batches."""
    ids = [f"user-{number}" for number in range(RACING)]
    random.Random(seed).shuffle(ids)
    id_map, offsets = IdMap(), dict[str, int]()
    with Redis.from_url(url) as client:
        client.incr("ready")
        eventually(lambda: client.get("ready") == b"%d" % RACERS)
        for first in range(0, RACING, 25):
            offsets |= id_map.offsets(client, MAPPED, ids[first : first + 25])
    return offsets


def racing_values(
    url: str, folder: str, racers: int, seed: int, rounds: int, dated_from: int | None = None
) -> int:
    """Give few people many values, most of which this process alone knows at first.

    :param dated_from: the round in which one of them begins to keep months; None: nobody does.

    Returns how many marks had to wait in the spool.
    """
    app = Flask("racer", instance_path=f"{folder}/{seed}")
    options = {
        "BITMAPIST_REDIS_URL": url,
        "BITMAPIST_TIMEOUT": 30,
        "BITMAPIST_DIMENSION_VALUES": 40,
    }
    tracker = FlaskBitmapist(app, {**options, "DISABLE_BLUEPRINT": True}).tracker_of(app)
    chance = random.Random(seed)
    tracker.redis.incr("ready")
    eventually(lambda: int(tracker.redis.get("ready")) == racers)
    for number in range(rounds):
        is_dated = dated_from is not None and seed == 0 and number >= dated_from
        # The others may be done by the first dated round. So its racer reaches everybody.
        is_last = is_dated and number == rounds - 1
        people = chance.sample(range(20), 20 if is_last else chance.choice([1, 1, 5]))
        values = [f"v{chance.randrange(12) + (seed % 4) * 4}" for _ in people]
        tracker.record(
            Mark("user:plan", person, dated=is_dated, when=_DAY, choice=value)
            for person, value in zip(people, values, strict=True)
        )
    assert tracker.flush(60)
    return tracker.stats().spooled
