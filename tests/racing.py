"""What each of several processes does at once. It imports little: each of them has to."""

from __future__ import annotations

import random

from redis import Redis
from servers import eventually

from flask_bitmapist.id_map import IdMap
from flask_bitmapist.ids import MAPPED

RACERS, RACING = 8, 500


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
