"""Many marks at once are sent as bitmaps, which the server merges: as exact as bit by bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import strategies as st
from servers import MortalServer
from test_history import Proxy, Restored

from flask_bitmapist.delivery.merging import Merge, worth_merging
from flask_bitmapist.delivery.unmarking import Key
from flask_bitmapist.marks import Settled, deed
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)
DAY, WEEK, MONTH = "trackist_e_2026-3-14", "trackist_e_W2026-11", "trackist_e_2026-3"
MANY = range(1_000)
E = deed("e", True, NOON, False, False, "plain", True)


@pytest.fixture
def tracker(process: Callable[..., Tracker], redis_url: str) -> Tracker:
    return process(redis_url)


def write(tracker: Tracker, *marks: Settled) -> None:
    tracker._deliverer()._sender.writer.write(marks)


def ids(redis: Any, key: str) -> set[int]:
    bitmap = np.frombuffer(redis.get(key) or b"", np.uint8)
    return set(np.flatnonzero(np.unpackbits(bitmap)).tolist())


def calls(redis: Any, command: str) -> int:
    stats = redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def leftovers(redis: Any) -> list[bytes]:
    return [*redis.scan_iter("flask_bitmapist:merge:*")]


offsets = st.lists(st.integers(0, 200_000), max_size=40)
stretches = st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_500), st.integers(1, 9))


@given(
    st.lists(
        st.tuples(st.integers(0, 40), stretches, st.sampled_from(["list", "<i8", "<u4"]), offsets),
        min_size=1,
        max_size=6,
    )
)
def test_merged_or_not_the_bits_are_the_same(
    redis: Any, tracker: Tracker, batches: list[tuple[Any, ...]]
) -> None:
    redis.flushdb()
    truth: dict[str, set[int]] = {}
    marks: list[Settled] = []
    for days, (first, length, step), form, few in batches:
        hour = NOON + timedelta(days=days)
        listed = [*few, *range(first, first + length * step, step)]
        what = deed("e", True, hour, False, days % 2 == 0, "plain", True)
        marks.append((what, listed if form == "list" else np.array(listed, form)))
        week = hour.isocalendar()
        names = [f"{hour.year}-{hour.month}-{hour.day}", f"W{week.year}-{week.week}"]
        for name in (*names, f"{hour.year}-{hour.month}", *(["u"] if days % 2 == 0 else [])):
            truth.setdefault(f"trackist_e_{name}", set()).update(listed)
    for part in (marks[:2], marks[2:]):
        write(tracker, *part)
    held = {key.decode(): ids(redis, key) for key in redis.scan_iter("trackist_*")}
    assert held == {key: bits for key, bits in truth.items() if bits}
    assert not leftovers(redis)


def test_a_bitmap_is_made_in_windows_of_memory() -> None:
    listed = [9_000_000, 8_000_000, 16_000_003, 23_999_999]
    for chunk in (np.array(listed), np.array(listed, np.uint32), listed):
        body = np.frombuffer(Merge([Key(DAY, None)], [chunk]).body(), np.uint8)
        assert [*np.flatnonzero(np.unpackbits(body)) + 8_000_000] == sorted(listed)


def test_what_is_marked_already_stays(redis: Any, tracker: Tracker) -> None:
    tracker.record([("e", 5_000, True, True, NOON), ("e", 3, True, True, NOON)])
    redis.config_resetstat()
    write(tracker, (E, [*MANY]))
    assert ids(redis, DAY) == ids(redis, WEEK) == ids(redis, MONTH) == {*MANY, 5_000}
    assert calls(redis, "bitop") == 3


def test_a_long_bitmap_ends_with_its_highest_bit(redis: Any, tracker: Tracker) -> None:
    """The server merges faster once the bitmap is as long as the one that is merged into it."""
    tracker.record([("e", 3, True, True, NOON), ("e", 400_000, True, True, NOON.replace(day=1))])
    many = [*range(0, 200_000, 100), 200_007]
    write(tracker, (E, many))
    assert ids(redis, DAY) == {3, *many}
    assert ids(redis, MONTH) == {3, *many, 400_000}
    assert [redis.strlen(key) for key in (DAY, WEEK, MONTH)] == [25_001, 25_001, 50_001]


def test_days_are_merged_before_weeks_and_months(redis: Any, tracker: Tracker) -> None:
    """Whoever unmarks meanwhile relies on it."""
    other = deed("e", True, NOON + timedelta(days=1), False, False, "plain", True)
    with redis.monitor() as monitor:
        write(tracker, (E, [*MANY]), (other, [*MANY]))
        redis.echo("done")
        order = []
        for command in monitor.listen():
            if command["command"].startswith("BITOP"):
                order.append(command["command"].split()[2])
            if command["command"] == "ECHO done":
                break
    assert order[:2] == [DAY, "trackist_e_2026-3-15"]
    assert {*order[2:]} == {WEEK, MONTH}


@pytest.mark.parametrize("ttl", [{}, {"week": timedelta(days=9_999)}])
def test_a_key_keeps_its_expiry(
    redis: Any, redis_url: str, process: Callable[..., Tracker], ttl: dict[str, timedelta]
) -> None:
    tracker = process(redis_url, BITMAPIST_TTL=ttl)
    tracker.record([("e", 1, True, True, NOON)])
    redis.expire(DAY, 5_000)
    before = redis.ttl(WEEK)
    for _ in range(2):
        write(tracker, (E, [*MANY]))
        assert 4_900 < redis.ttl(DAY) <= 5_000
        assert abs(redis.ttl(WEEK) - before) < 60
        assert (redis.ttl(WEEK) > 0) == bool(ttl)
        assert redis.ttl(MONTH) == -1


def test_new_bitmaps_expire_too(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    write(process(redis_url, BITMAPIST_TTL={"day": timedelta(days=9_999)}), (E, [*MANY]))
    assert redis.ttl(DAY) > 86_400
    assert redis.ttl(MONTH) == -1


class Meddling(Proxy):
    """Something happens when a client is about to merge what it has sent."""

    def __init__(self, path: Path, server: Path, happens: Callable[[Proxy], None]) -> None:
        self._happens: Callable[[Proxy], None] | None = happens
        super().__init__(path, server)

    def _look_at(self, asked: bytes) -> None:
        if self._happens is not None and b"BITOP" in asked:
            happens, self._happens = self._happens, None
            happens(self)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[MortalServer]]:
    """Two, in folders of their own."""
    both = [MortalServer(tmp_path / name) for name in ("one", "other")]
    for server in both:
        server.folder.mkdir()
        server.start()
    yield both
    for server in both:
        server.kill()


@pytest.fixture
def meddling(
    tmp_path: Path, servers: list[MortalServer]
) -> Iterator[Callable[[Callable[[Proxy], None]], str]]:
    """Starts a proxy before the first server; gives its URL."""
    proxies = []

    def start(happens: Callable[[Proxy], None]) -> str:
        path = servers[0].folder / "server.sock"
        proxies.append(Meddling(tmp_path / "proxy.sock", path, happens))
        return f"unix://{tmp_path}/proxy.sock"

    yield start
    for proxy in proxies:
        proxy.close()


def test_nothing_is_merged_on_a_server_with_another_history(
    servers: list[MortalServer],
    meddling: Callable[..., str],
    process: Callable[..., Tracker],
) -> None:
    other = servers[1]
    process(other.url).record([("e", "text", True, True, NOON)])  # another kind of ids
    url = meddling(lambda proxy: proxy.lead_to(other.folder / "server.sock"))
    tracker = process(url)
    write(tracker, (E, [*MANY]))
    assert tracker.stats().refused == len(MANY)
    with redis_py.Redis.from_url(other.url) as client:
        assert ids(client, DAY) == ids(client, MONTH) == {0}


def test_nothing_is_merged_where_what_a_process_knows_no_longer_holds(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    history = Restored(redis_url)
    history.remember()
    tracker = process(redis_url)
    write(tracker, (E, [*MANY]))
    history.go_back()
    process(redis_url).record([("e", "text", True, True, NOON)])
    write(tracker, (E, [*MANY]))
    assert tracker.stats().refused == len(MANY)
    assert ids(redis, DAY) == ids(redis, MONTH) == {0}
    assert not leftovers(redis)


def test_marks_are_sent_again_to_a_server_that_has_lost_them(
    servers: list[MortalServer],
    meddling: Callable[..., str],
    process: Callable[..., Tracker],
) -> None:
    history = Restored(servers[0].url)
    history.remember()
    write(process(meddling(lambda _: history.go_back())), (E, [*MANY]))
    with redis_py.Redis.from_url(servers[0].url) as client:
        assert ids(client, DAY) == ids(client, MONTH) == {*MANY}
        assert client.hget("flask_bitmapist:events", "e") == b"plain"
        assert client.zscore("flask_bitmapist:first_days", "e") == NOON.toordinal()


def test_what_is_not_merged_is_gone_after_a_minute(
    servers: list[MortalServer],
    meddling: Callable[..., str],
    process: Callable[..., Tracker],
) -> None:
    tracker = process(meddling(lambda _: servers[0].kill()), BITMAPIST_TIMEOUT=1)
    with pytest.raises(redis_py.RedisError):
        write(tracker, (E, [*MANY]))
    servers[0].start()
    with redis_py.Redis.from_url(servers[0].url) as client:
        (left,) = leftovers(client)
        assert 0 < client.ttl(left) <= 60
        assert ids(client, DAY) == set()


@pytest.mark.parametrize("command", ["bitop", "set", "setrange", "multi", "unlink", "pttl"])
def test_without_the_right_to_merge_each_bit_is_set(
    servers: list[MortalServer], process: Callable[..., Tracker], command: str
) -> None:
    with redis_py.Redis.from_url(servers[0].url) as admin:
        process(servers[0].url).record([("e", 5_000, True, True, NOON)])
        admin.expire(WEEK, 5_000)
        admin.execute_command("ACL", "SETUSER", "default", f"-{command}")
        write(process(servers[0].url), (E, [*MANY]))
        assert ids(admin, DAY) == ids(admin, MONTH) == {*MANY, 5_000}


def test_a_key_that_expires_and_holds_something_else_is_an_error(
    redis: Any, tracker: Tracker
) -> None:
    redis.lpush(WEEK, "a list")
    redis.expire(WEEK, 5_000)
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        write(tracker, (E, [*MANY]))


def test_a_key_that_holds_something_else_is_named_and_holds_up_no_other_day(
    redis: Any, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    redis.lpush(WEEK, "a list")
    later = NOON + timedelta(days=7)
    tracker.record([("e", id_, True, True, when) for when in (NOON, later) for id_ in MANY])
    assert f"the key '{WEEK}' holds something else" in caplog.text
    assert ids(redis, "trackist_e_2026-3-21") == {*MANY}


def test_ids_above_the_limit_are_refused_and_the_others_marked(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    tracker = process(redis_url, BITMAPIST_MAX_ID=1_009)
    for ids_ in ([*range(1_020)], np.arange(1_020)):
        redis.flushdb()
        write(tracker, (E, ids_))
        assert ids(redis, DAY) == {*range(1_010)}
    assert tracker.stats().refused == 20
    write(tracker, (E, np.array([5_000, 6_000])))
    assert tracker.stats().refused == 22


def test_a_million_ids_at_the_limit_take_little_memory(tracker: Tracker, redis: Any) -> None:
    limit = 2**27 - 1
    wide = np.unique(np.random.default_rng(1).integers(0, limit, 1_000_000))
    tracker.record([("e", 1, True, True, NOON)])
    tracemalloc.start()
    write(tracker, (E, wide))
    write(tracker, (E, limit - np.arange(1_000_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert redis.bitcount(DAY) == len({*wide.tolist(), *range(limit - 999_999, limit + 1), 1})
    assert peak < 100e6


def test_an_import_may_take_longer_than_a_mark(
    servers: list[MortalServer], process: Callable[..., Tracker]
) -> None:
    tracker = process(servers[0].url, BITMAPIST_TIMEOUT=1)
    tracker.record([("e", 1, True, True, NOON)])
    with redis_py.Redis.from_url(servers[0].url) as admin:
        admin.execute_command("CLIENT", "PAUSE", 2_000, "WRITE")
    tracker.record_many("e", np.arange(2_000), True, True, NOON)
    stats = tracker.stats()
    assert (stats.sent, stats.spooled) == (2_001, 0)


@pytest.mark.parametrize(
    ("offsets", "merged"),
    [
        ([*range(99)], False),
        ([*range(100)], True),
        ([*range(999), 8_000_000], False),
        ([*range(999), 7_999_000], True),
    ],
)
def test_bitmaps_are_sent_where_they_are_shorter_than_their_bits(
    offsets: list[int], merged: bool
) -> None:
    for chunk in (offsets, np.array(offsets)):
        assert ("{e}" in worth_merging({"{e}": [chunk]}, alone=True)) == merged
        assert not worth_merging({"{e}": [chunk]}, alone=False)
