"""Trips over connections that are kept at hand, with replies that are read past redis-py."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis as redis_py

from flask_bitmapist.clients import from_url
from flask_bitmapist.deadline import within
from flask_bitmapist.punctual import Punctual
from flask_bitmapist.trip import Trip, drop_idle, replies


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def client(request: pytest.FixtureRequest, redis_url: str, redis: Any) -> Iterator[redis_py.Redis]:
    client = from_url(f"{redis_url}&protocol={request.param}", wait=5, timeout=5)
    yield client
    client.connection_pool.disconnect()


def told(client: Any, *commands: tuple[object, ...]) -> list[Any]:
    trip = Trip(client)
    for command in commands:
        trip.execute_command(*command)
    return trip.execute()


def connection(client: Any) -> int:
    """The server's number of the connection on which trips go."""
    (number,) = told(client, ("CLIENT", "ID"))
    assert isinstance(number, int)
    return number


def test_trips_share_a_connection_with_each_other_and_with_the_client(client: Any) -> None:
    assert connection(client) == connection(client) == client.client_id() == connection(client)


def test_replies_are_those_that_redis_py_reads(client: Any) -> None:
    client.zadd("z", {"a": 1.5, "b": 738_000})
    commands: list[tuple[object, ...]] = [
        ("SET", "k", b"\xff\r\n:1\r\n"),
        ("GET", "k"),
        ("GET", "none"),
        ("INCR", "n"),
        ("MGET", "k", "none"),
        ("ZMSCORE", "z", "a", "b", "none"),
        ("HGETALL", "none"),
    ]
    found = told(client, *commands)
    client.delete("n")
    with client.client() as apart:  # on one connection, by the parser
        apart.connection.send_packed_command(apart.connection.pack_commands(commands))
        read = [apart.connection.read_response(disable_decoding=True) for _ in commands]
    assert found == read


def test_a_trip_without_commands_waits_for_nothing(client: Any) -> None:
    for _ in range(2):
        assert told(client) == []
        assert told(client, ("ECHO", "x")) == [b"x"]


@pytest.mark.parametrize("length", [0, 10_000, 16_384, 65_530, 1_000_000])
def test_long_replies_are_read_to_the_end(client: Any, length: int) -> None:
    client.set("k", b"x" * length)
    for _ in range(2):
        assert told(client, ("GET", "k"), ("ECHO", "after")) == [b"x" * length, b"after"]


def test_errors_are_replies_also_within_others(client: Any) -> None:
    client.set("k", "text")
    number = connection(client)
    first, second, third = told(client, ("LPUSH", "k", 1), ("ECHO", "x"), ("NOSUCH",))
    assert isinstance(first, redis_py.ResponseError)
    assert second == b"x"
    assert isinstance(third, redis_py.ResponseError)
    *_, (within, after) = told(client, ("MULTI",), ("LPUSH", "k", 1), ("ECHO", "x"), ("EXEC",))
    assert isinstance(within, redis_py.ResponseError)
    assert after == b"x"
    assert connection(client) == number


def test_without_a_fast_parser_replies_are_the_same(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_bitmapist.resp.Reader", None)
    for _ in range(2):
        assert told(client, ("ECHO", "x"), ("ECHO", "y")) == [b"x", b"y"]


@pytest.mark.parametrize("place", range(4))
def test_an_error_is_found_wherever_it_stands(client: Any, place: int) -> None:
    commands: list[tuple[object, ...]] = [("ECHO", "x"), ("MGET", "a", "b"), ("INCR", "n")]
    commands.insert(place, ("NOSUCH",))
    found = told(client, *commands)
    assert isinstance(found.pop(place), redis_py.ResponseError)
    assert found == [b"x", [None, None], 1]


@pytest.mark.skipif(
    redis_py.__version__.startswith("5."), reason="its own parser takes that for a reply"
)
@pytest.mark.parametrize("client", [3], indirect=True, ids=["RESP3"])
def test_what_the_server_says_unasked_is_no_reply(client: Any, redis: Any) -> None:
    told(client, ("CLIENT", "TRACKING", "ON"), ("GET", "k"))
    redis.set("k", "changed")  # the connection is told so
    assert told(client, ("GET", "k"), ("ECHO", "x")) == [b"changed", b"x"]
    # It comes together with replies.
    assert told(client, ("SET", "k", "again"), ("GET", "k"))[1] == b"again"
    assert told(client, ("ECHO", "y")) == [b"y"]


def test_a_connection_that_the_server_has_closed_is_not_used(client: Any, redis: Any) -> None:
    for _ in range(3):
        redis.client_kill_filter(_id=connection(client))
        assert told(client, ("ECHO", "x")) == [b"x"]


def test_a_connection_that_the_client_has_closed_is_opened_again(client: Any) -> None:
    number = connection(client)
    client.connection_pool.disconnect()
    assert connection(client) > number
    number = connection(client)
    drop_idle(client)
    assert connection(client) > number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_has_a_connection_of_its_own(client: Any) -> None:
    number = connection(client)
    child = os.fork()
    if not child:  # pragma: no cover
        os._exit(connection(client) == number)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert connection(client) == number


def test_a_trip_that_is_cut_off_leaves_nothing_to_the_next(client: Any) -> None:
    number = connection(client)
    with within(0.1), pytest.raises(redis_py.TimeoutError):
        told(client, ("ECHO", "early"), ("BLPOP", "none", 5))
    assert told(client, ("ECHO", "x")) == [b"x"]
    assert connection(client) > number


def test_whoever_waits_for_a_connection_gets_the_one_that_a_trip_gives_back(
    redis_url: str,
) -> None:
    client: Any = from_url(f"{redis_url}&max_connections=2", wait=5, timeout=5)
    begin = threading.Barrier(8)

    def use(number: int) -> int:
        begin.wait()
        for _ in range(200):
            if number % 2:
                assert client.ping()
            else:
                assert told(client, ("ECHO", "x")) == [b"x"]
        return number

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(use, range(8))] == [*range(8)]
    client.connection_pool.disconnect()


def test_dropping_idle_connections_costs_none_if_it_is_interrupted(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a timeout of gevent, or Ctrl-C."""
    client: Any = from_url(f"{redis_url}&max_connections=2", wait=0.1, timeout=5)
    assert told(client, ("ECHO", "x")) == [b"x"]
    pool = client.connection_pool

    def interrupted(self: Any, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Punctual, "disconnect", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            drop_idle(client)
    taken = [pool.get_connection() for _ in range(2)]
    for connection in taken:
        pool.release(connection)
    pool.disconnect()


def test_a_look_that_is_interrupted_costs_no_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C, or a timeout of gevent, which looks at sockets in its hub."""

    def interrupted(connection: object) -> bool:
        raise KeyboardInterrupt

    client: Any = from_url(f"{redis_url}&max_connections=1", wait=5, timeout=0)
    number = connection(client)
    with monkeypatch.context() as patch:
        patch.setattr("flask_bitmapist.punctual.Punctual.is_ready", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection(client)
    assert connection(client) == number
    client.connection_pool.disconnect()


def test_replies_while_watching_are_read_to_the_end_or_not_at_all(redis: Any) -> None:
    with redis.pipeline() as pipe:
        pipe.watch("watched")
        assert replies(pipe, [("ECHO", "x"), ("ECHO", "y")]) == [b"x", b"y"]
        redis.set("watched", 1)
        pipe.multi()
        pipe.set("written", 1)
        with pytest.raises(redis_py.WatchError):
            pipe.execute()
    with redis.pipeline() as pipe:
        pipe.watch("watched")
        with pytest.raises(redis_py.ResponseError):
            replies(pipe, [("NOSUCH",), ("ECHO", "x")])
    assert redis.echo("y") == b"y"
