"""A swap that is cut short leaves a bitmap in its old forms or in the new one, with every bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry
from servers import MortalServer
from swaps import STEPS, SWAPS, swap_until_killed
from warm import WARM

pytest.importorskip("pyroaring")

from flask_bitmapist import swapping
from flask_bitmapist.packed_periods import packed_key
from flask_bitmapist.reading.both import both_forms, joined

KEY = "trackist_seen_2026-1-3"
MEMBERS = [*range(0, 40_000, 33)]
LATE = 39_999


def mark(client: Any, offsets: list[int]) -> None:
    with client.pipeline() as pipe:
        for offset in offsets:
            pipe.setbit(KEY, offset, 1)
        pipe.execute()


def raw(client: Any) -> None:
    mark(client, MEMBERS)


def packed(client: Any) -> None:
    mark(client, MEMBERS)
    assert swapping.pack(client, KEY)


def packed_with_a_late_mark(client: Any) -> None:
    packed(client)
    mark(client, [LATE])


#: How the bitmap is before, and what is done to it.
CASES: list[tuple[Callable[[Any], None], str]] = [
    (raw, "pack"),
    (packed_with_a_late_mark, "pack"),
    (packed, "unpack"),
    (packed_with_a_late_mark, "unpack"),
]


def forms(client: Any) -> list[bytes | None]:
    return [*client.execute_command(*both_forms(KEY))]


def ids(client: Any) -> list[int]:
    offsets: list[int] = joined(KEY, forms(client)).ids().tolist()
    return offsets


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[Callable[[Any], None], str]:
    found: tuple[Callable[[Any], None], str] = request.param
    return found


def test_who_is_killed_at_any_step_of_a_swap_has_swapped_or_not(
    redis: Any, redis_url: str, case: tuple[Callable[[Any], None], str]
) -> None:
    prepare, swap = case
    for steps in range(STEPS + 1):
        redis.delete(KEY, packed_key(KEY))
        prepare(redis)
        before, members = forms(redis), ids(redis)
        process = WARM.Process(target=swap_until_killed, args=(redis_url, KEY, swap, steps))
        process.start()
        process.join()
        assert (forms(redis) == before) == (steps < STEPS)
        assert ids(redis) == members
        SWAPS[swap](redis, KEY)  # whoever comes next goes on
        assert redis.exists(KEY, packed_key(KEY)) == 1
        assert ids(redis) == members


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[str, int], None]]:
    """What is called before and after each command is sent, with its number."""
    called: list[Callable[[str, int], None]] = []
    numbers, send = count(), AbstractConnection.send_packed_command

    def told(self: Any, command: Any, check_health: bool = True) -> None:
        number = next(numbers) if called else -1
        for call in called:
            call("before", number)
        send(self, command, check_health)  # type: ignore[no-untyped-call]
        for call in called:
            call("after", number)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", told)
    return called


# Each step takes a server of its own, that is killed and started again.
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_is_killed_in_mid_swap_comes_back_with_every_bit(
    mortal: MortalServer,
    sends: list[Callable[[str, int], None]],
    case: tuple[Callable[[Any], None], str],
    when: str,
) -> None:
    prepare, swap = case
    steps = range(STEPS) if when == "before" else [STEPS - 1]
    for step in steps:
        with redis_py.Redis.from_url(mortal.url, retry=Retry(NoBackoff(), 0)) as client:
            client.delete(KEY, packed_key(KEY))
            prepare(client)
            before, members = forms(client), ids(client)
            first = count()

            def kill(moment: str, number: int) -> None:
                if moment == when and next(first) == step:  # noqa: B023
                    mortal.kill()

            sends.append(kill)
            # A connection that fails while keys are watched is a WatchError to redis-py. A server
            # that has just been sent a command may still answer it.
            errors = redis_py.ConnectionError, redis_py.WatchError
            with pytest.raises(errors) if when == "before" else suppress(*errors):
                SWAPS[swap](client, KEY)
            sends.clear()
            mortal.start()
            # Whether the server has read what was sent last, nobody knows.
            assert when == "after" or forms(client) == before
            assert ids(client) == members
            assert SWAPS[swap](client, KEY) or when == "after"
            assert client.exists(KEY, packed_key(KEY)) == 1
            assert ids(client) == members
