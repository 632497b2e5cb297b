"""Long replies come straight from the socket; whatever is unusual is left to redis-py."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis as redis_py

from flask_bitmapist.reading.bitmaps import counts, lengths, octets_of, slices
from flask_bitmapist.reading.replies import Octets, read_numbers, read_octets, read_words

LENGTHS = [0, 1, 7, 8, 9, 1000, *range(4080, 4100), 8192, 100_000, 2**20 + 5]


def read_bytes(client: redis_py.Redis, keys: list[str], sizes: list[int]) -> list[bytes] | None:
    words = read_words(client, [("GET", key) for key in keys], sizes)
    return None if words is None else [found.tobytes() for found in words]


def padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 8)


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_strings_of_all_lengths_come_as_words_padded_with_zeros(
    redis: Any, redis_url: str, decoding: bool, protocol: int
) -> None:
    random = np.random.default_rng(1)
    values = {f"key {length}": random.bytes(length) for length in LENGTHS}
    values |= {"lines": b"$3\r\n" * 1000}
    redis.mset(values)
    keys = ["missing", *values, "gone"]
    expected = [b"", *map(padded, values.values()), b""]
    with redis_py.Redis.from_url(redis_url, decode_responses=decoding, protocol=protocol) as client:
        for sizes in ([0] * len(keys), [1] * len(keys), [2**20] * 2 + [0] * (len(keys) - 2)):
            assert read_bytes(client, keys, sizes) == expected
        assert read_bytes(client, [], []) == []
        assert client.ping()


def test_a_part_of_a_string_comes_as_words(redis: Any) -> None:
    redis.set("x", bytes(range(100)))
    words = read_words(redis, [("GETRANGE", "x", 16, 31)], [2])
    assert words is not None
    (found,) = words
    assert found.tobytes() == bytes(range(16, 32))


def test_an_error_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x" * 2**19)
    redis.hset("hash", "field", "value")
    assert (
        read_words(redis, [("GET", "string"), ("GET", "hash"), ("GET", "string")], [9] * 3) is None
    )
    assert redis.get("string") == b"x" * 2**19, "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        list(slices(redis, ["string", "hash"]))


@pytest.mark.parametrize("protocol", [2, 3])
def test_single_bytes_come_as_they_are_and_none_beyond_the_end(
    redis: Any, redis_url: str, protocol: int
) -> None:
    redis.set("bytes", bytes(range(256)))
    places = [
        *(Octets("", ("bytes",), index) for index in range(300)),
        Octets("mis", ("sing",), 0),
        Octets("byt", (), 0),
        Octets("byt", ("es",), 2**29 - 1),
    ]
    expected = [bytes([n]) for n in range(256)] + [b""] * 46
    redis.mset({"clé a": b"ab", "clé bcd": b"cd", "key bcd": b"ef"})
    some = [
        Octets(prefix, ("a", "bcd", ""), index) for index in (0, 1) for prefix in ("clé ", "key ")
    ]
    several = [b"a", b"c", b"", b"", b"e", b"", b"b", b"d", b"", b"", b"f", b""]
    with redis_py.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
        assert read_octets(client, some) == several
        assert read_octets(client, places * 300) == expected * 300
        assert read_octets(client, []) == []
        assert client.ping()


def test_an_error_among_single_bytes_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x")
    redis.hset("hash", "field", "value")
    places = [Octets("", ("string", "hash", "string"), 0)]
    assert read_octets(redis, places) is None
    assert redis.get("string") == b"x", "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        octets_of(redis, places)


@pytest.mark.parametrize("protocol", [2, 3])
def test_numbers_come_in_the_order_of_their_commands(
    redis: Any, redis_url: str, protocol: int
) -> None:
    values = {f"clé {number}": b"\xff" * number for number in range(3_000)}
    redis.mset(values)
    keys = ["missing", *values]
    with redis_py.Redis.from_url(redis_url, decode_responses=True, protocol=protocol) as client:
        commands = [("BITCOUNT", key) for key in keys] + [("BITPOS", key, "1") for key in keys]
        bits = [8 * number for number in range(3_000)]
        assert read_numbers(client, commands) == [0, *bits, -1, -1, *[0] * 2_999]
        assert read_numbers(client, []) == []
        assert client.ping()
        assert counts(client, [*keys, *keys]) == dict(zip(keys, [0, *bits], strict=True))
        assert lengths(client, keys) == dict(zip(keys, [0, *range(3_000)], strict=True))


def test_an_error_among_numbers_is_raised_by_redis_py(redis: Any) -> None:
    redis.set("string", "x")
    redis.hset("hash", "field", "value")
    commands = [("BITCOUNT", "string"), ("BITCOUNT", "hash"), ("BITCOUNT", "string")]
    assert read_numbers(redis, commands) is None
    assert redis.bitcount("string") == 4, "no reply of before is taken for this one"
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        counts(redis, ["string", "hash", "string"])


def without_greeting(connection: redis_py.connection.AbstractConnection) -> None:
    """Send nothing when connected: the first command that the server hears is the test's own."""
    connection._parser.on_connect(connection)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: read_words(client, [("GET", "x")], [1]),
        lambda client: read_octets(client, [Octets("x", ("",), 0)]),
        lambda client: read_numbers(client, [("STRLEN", "x")]),
    ],
)
@pytest.mark.parametrize("reply", [b"", b"$100\r\nabc", b"$100", b"nonsense\r\n", b"$" * 9000])
def test_a_server_that_fails_is_left_to_redis_py(
    reply: bytes, ask: Callable[[redis_py.Redis], object]
) -> None:
    class Failing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(reply)

    with socketserver.TCPServer(("127.0.0.1", 0), Failing) as server:
        server.timeout = 10
        # If the test fails before it asks, the run still ends.
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        host, port = str(server.server_address[0]), server.server_address[1]
        options: dict[str, Any] = {"redis_connect_func": without_greeting, "socket_timeout": 10}
        with redis_py.Redis(host, port, **options) as client:
            assert ask(client) is None
        thread.join()


def test_a_silent_server_is_waited_for_once() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        host, port = str(server.server_address[0]), server.server_address[1]
        options: dict[str, Any] = {"redis_connect_func": without_greeting, "socket_timeout": 0.1}
        with (
            redis_py.Redis(host, port, **options) as client,
            pytest.raises(redis_py.TimeoutError, match="silent"),
        ):
            read_words(client, [("GET", "x")], [1])


def test_other_clients_are_left_to_themselves(redis: Any) -> None:
    class OtherClient:
        pipeline = redis.pipeline
        execute_command = redis.execute_command

    redis.setbit("x", 2**23, 1)
    redis.setbit("x", 5, 1)
    client = OtherClient()
    assert read_words(client, [("GET", "x")], [1]) is None
    (found,) = slices(client, ["x"])
    assert found["x"].ids().tolist() == [5, 2**23]
