"""What an application knows of its server, and the clients it makes."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis as redis_py
from flask import Flask
from nodes import Cluster, cluster
from redis.cache import CacheConfig
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel
from servers import MortalServer, eventually, free_port, sentinel

from flask_bitmapist import FlaskBitmapist, analytics, mark_event
from flask_bitmapist.delivery import Stats, server_of
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.server import Facts

NOON = datetime(2026, 3, 14, 12, 30)


class TestFacts:
    @pytest.mark.parametrize(
        ("info", "name"),
        [
            ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
            ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "Valkey 9.1.2"),
            ({"redis_version": "7.4.3", "garnet_version": "1.0.84"}, "Garnet 1.0.84"),
            ({"keys": "12"}, "the server"),
        ],
    )
    def test_a_server_goes_by_its_own_name_and_version(
        self, info: dict[str, Any], name: str
    ) -> None:
        assert str(Facts.of(info)) == name

    def test_a_server_tells_what_it_evicts(self, redis_url: str, tracker_on: Any) -> None:
        facts = tracker_on(redis_url).server.facts
        assert facts.name == "Valkey"
        assert facts.version >= (9,)
        assert (facts.is_cluster, facts.eviction) == (False, "noeviction")

    def test_it_is_asked_once(self, redis_url: str, tracker_on: Any, redis: Any) -> None:
        tracker = tracker_on(redis_url)
        redis.config_resetstat()
        for id_ in range(3):
            mark_event("e", id_, now=NOON)
        assert tracker.redis.ping()
        assert redis.info("commandstats")["cmdstat_info"]["calls"] == 1

    def test_a_server_that_hides_info_is_used_all_the_same(
        self, redis_url: str, tracker_on: Any, redis: Any
    ) -> None:
        redis.acl_setuser("blind", True, nopass=True, keys="*", commands=["+@all", "-info"])
        client = redis_py.Redis.from_url(redis_url, username="blind", password="")
        tracker = tracker_on(client=client)
        mark_event("e", 1, now=NOON)
        assert redis.getbit("trackist_e_2026-3-14", 1)
        assert tracker.server.facts == Facts()
        redis.acl_deluser("blind")


class BitmapistServer(socketserver.StreamRequestHandler):
    """Answers as Doist's bitmapist-server does: `INFO keys`, `SETBIT`, and no HELLO."""

    version = b""

    def handle(self) -> None:
        while line := self.rfile.readline():
            count = int(line[1:])
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(count)]
            self.wfile.write(self.reply(words[0].lower(), words[1:]))

    def reply(self, command: bytes, arguments: list[bytes]) -> bytes:
        if command == b"hello" and self.version:
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        if command == b"info" and self.version:
            text = b"# Server\r\nredis_version:" + self.version
            return b"$%d\r\n%s\r\n" % (len(text), text)
        if command == b"info" and arguments == [b"keys"]:
            return b"$28\r\nkeys_total:12\nkeys_cached:0\n\r\n"
        if command == b"info":
            return b"-ERR wrong number of arguments for 'info' command\r\n"
        if command == b"setbit":
            return b":0\r\n"
        return b"-ERR unknown command '" + command + b"'\r\n"


class Redis60(BitmapistServer):
    version = b"6.0.16"


@contextmanager
def answering(handler: type[BitmapistServer]) -> Iterator[str]:
    with _TcpServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        for connection in server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _TcpServer(socketserver.ThreadingTCPServer):
    """Like a process that is killed, it takes its connections with it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[Any] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)


@pytest.mark.parametrize(
    ("handler", "told"), [(BitmapistServer, "bitmapist-server"), (Redis60, "Redis 6.0.16")]
)
class TestUnfitServer:
    """bitmapist-server, and Redis before 6.2."""

    def test_marks_wait_with_a_reason_that_names_it(
        self,
        handler: type[BitmapistServer],
        told: str,
        tracker_on: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with answering(handler) as url:
            tracker = tracker_on(url)
            mark_event("e", range(1_001), now=NOON)
            mark_event("e", 1, now=NOON)
            stats = tracker.stats()
            assert (stats.sent, stats.breaker) == (0, "closed")
            ((reason, waiting),) = stats.waiting.items()
            assert waiting == 1_001
            assert told in reason
            assert "Redis 6.2 or newer, or Valkey" in reason
            assert caplog.text.count(told) == 1

    def test_pages_and_commands_say_what_it_is(
        self, handler: type[BitmapistServer], told: str, tracker_on: Any
    ) -> None:
        with answering(handler) as url:
            tracker_on(url)
            app = Flask(__name__)
            app.debug = True
            FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": url})
            page = app.test_client().get("/bitmapist/?event=e")
            assert page.status_code == 503
            assert told in page.text
            assert "did not answer" not in page.text
            result = app.test_cli_runner().invoke(args=["bitmapist", "events"])
            assert result.exit_code == 1
            assert told in result.output
            assert "does not answer" not in result.output


def test_marks_that_an_unfit_server_was_given_arrive_on_the_one_that_replaces_it(
    tracker_on: Any, tmp_path: Path
) -> None:
    with answering(Redis60) as url:
        tracker = tracker_on(url)
        mark_event("e", range(20), now=NOON)
    port = int(url.rpartition(":")[2])
    server = MortalServer(tmp_path)
    server.start("--port", str(port))
    try:
        assert tracker.flush()
        assert server.ids() == [*range(20)]
    finally:
        server.kill()


@pytest.mark.parametrize("size", [1, 3])
def test_a_cluster_behind_a_plain_address_is_followed(
    clusters: Callable[[int], Cluster], tracker_on: Any, size: int
) -> None:
    url = clusters(size).url
    for client in (None, redis_py.Redis.from_url(url)):
        tracker = tracker_on(None if client else url, client)
        mark_event("e", range(20), now=NOON)
        mark_event("f", range(10, 30), now=NOON)
        mark_event("mapped", ["a", "b"], now=NOON)
        assert tracker.stats() == Stats(sent=42)
        assert isinstance(tracker.redis, RedisCluster)
        assert users_of_last_days("e & f") == [0, 0, 10]
        tracker.redis.close()
    tracker_on(url)  # of a process that only reads
    assert [users_of_last_days("e") for _ in range(2)] == [[0, 0, 20]] * 2


def test_the_spool_knows_a_cluster_by_each_of_its_nodes(clusters: Callable[[int], Cluster]) -> None:
    with RedisCluster.from_url(clusters(3).url) as client:
        nodes = {json.dumps(["cluster", node.name]) for node in client.get_nodes()}
        assert len(nodes) >= 3
        assert {*server_of(client).names} >= nodes


def users_of_last_days(segment: str) -> list[int]:
    trend = analytics.trend(segment, "day", NOON - timedelta(days=2), NOON)
    return [point.users for point in trend.points]


def test_a_cluster_client_lends_its_settings_too(tmp_path: Path, tracker_on: Any) -> None:
    with cluster(tmp_path, 1) as one:
        given = RedisCluster.from_url(one.url, socket_timeout=5, decode_responses=True)
        tracker = tracker_on(client=given, BITMAPIST_TIMEOUT=2)
        mark_event("e", range(20), now=NOON)
        assert tracker.stats() == Stats(sent=20)
        assert tracker.redis is given
        quick = tracker.server.quick
        (node,) = quick.get_nodes()
        settings = node.redis_connection.connection_pool.connection_kwargs
        assert (settings["socket_timeout"], settings["decode_responses"]) == (2, True)
        quick.close()
        given.close()
    tracker.server.forget()
    mark_event("e", 20, now=NOON)
    assert tracker.stats() == Stats(sent=20, spooled=1, breaker="open")


def test_a_master_that_sentinels_know_is_marked_on_with_our_timeout(
    tmp_path: Path, tracker_on: Any
) -> None:
    master, master_port = MortalServer(tmp_path), free_port()
    master.start("--port", str(master_port))
    with sentinel(tmp_path, "ours", master_port) as port:
        manager = Sentinel([("127.0.0.1", port)], socket_timeout=5)
        given = manager.master_for("ours", socket_timeout=5, db=1)
        tracker = tracker_on(client=given, BITMAPIST_TIMEOUT=2)
        mark_event("e", range(20), now=NOON)
        assert tracker.stats() == Stats(sent=20)
        assert given.bitcount("trackist_e_2026-3-14") == 20
        pool = tracker.server.quick.connection_pool
        assert (pool.service_name, pool.connection_kwargs["socket_timeout"]) == ("ours", 2)
    master.kill()


@pytest.mark.parametrize("scripting", [True, False])
def test_a_cluster_keeps_mapped_ids_apart_whatever_it_forgets(
    clusters: Callable[[int], Cluster], tracker_on: Any, scripting: bool
) -> None:
    tracker = tracker_on(clusters(3).url)
    keys = map_keys(MAPPED)
    tracker.record([("e", id_, True, True, NOON) for id_ in ("a", "b", "c")])
    former = {key: tracker.redis.dump(key) for key in keys.vital()}
    tracker.record([("e", "d", True, True, NOON)])
    if not scripting:
        command = ("ACL", "SETUSER", "default", "-@scripting")
        tracker.redis.execute_command(*command, target_nodes=RedisCluster.ALL_NODES)
    for key, dump in former.items():
        tracker.redis.restore(key, 0, dump, replace=True)
    tracker.record([("new", "z", True, True, NOON)])
    tracker.record([("new", "d", True, True, NOON), ("e", "b", False, True, NOON)])
    assert list(analytics.users("new", at=NOON, tracker=tracker)) == ["z", "d"]
    assert "b" not in list(analytics.users("e", at=NOON, tracker=tracker))
    assert tracker.reader.offset_of("d", MAPPED) == 4
    tracker.redis.close()


class Attempts:
    """What a client tried: connections, and pauses between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections = 0
        self.pauses: list[float] = []
        connect: Any = redis_py.Connection._connect

        def counted(connection: redis_py.Connection) -> Any:
            self.connections += 1
            return connect(connection)

        monkeypatch.setattr(redis_py.Connection, "_connect", counted)
        monkeypatch.setattr("redis.retry.sleep", self.pauses.append)


@pytest.mark.parametrize("given", ["URL", "client"])
def test_a_refused_port_is_tried_once_without_a_pause(
    tracker_on: Any, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    port = free_port()
    client = redis_py.Redis(port=port) if given == "client" else None
    tracker = tracker_on(None if client else f"redis://127.0.0.1:{port}", client)
    attempts = Attempts(monkeypatch)
    mark_event("e", 1, now=NOON)
    assert attempts.connections == 1
    assert attempts.pauses == []
    assert tracker.stats().spooled == 1


def test_a_given_client_lends_its_settings_and_the_timeout_is_ours(
    redis_url: str, tracker_on: Any
) -> None:
    client = redis_py.Redis.from_url(
        redis_url, socket_timeout=50, decode_responses=True, client_name="given"
    )
    lent: Any = client.connection_pool.connection_kwargs
    quick: Any = tracker_on(client=client, BITMAPIST_TIMEOUT=20).server.quick
    for name in ("path", "db", "decode_responses", "client_name"):
        assert quick.connection_pool.connection_kwargs[name] == lent[name]
    assert quick.connection_pool.connection_kwargs["socket_timeout"] == 20


def test_a_silent_server_behind_a_given_client_costs_one_timeout(
    tracker_on: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = redis_py.Redis(port=silent.getsockname()[1])
        tracker = tracker_on(client=client, BITMAPIST_TIMEOUT=0.1)
        attempts = Attempts(monkeypatch)
        mark_event("e", 1, now=NOON)
        assert attempts.connections == 1
        assert attempts.pauses == []
        assert tracker.stats().breaker == "open"


def test_a_client_with_a_cache_reads_past_it(redis_url: str, tracker_on: Any, redis: Any) -> None:
    client = redis_py.Redis.from_url(f"{redis_url}&protocol=3", cache_config=CacheConfig())
    tracker_on(client=client)
    for users in (1, 2):
        mark_event("e", users, now=NOON)
        for _ in range(2):
            assert analytics.count("e", by="day", at=NOON) == users
            assert analytics.trend("e", "day", NOON, NOON).points[0].users == users
    client.close()


def test_a_pool_of_one_is_waited_for_not_taken_for_an_outage(
    redis_url: str, tracker_on: Any
) -> None:
    tracker = tracker_on(f"{redis_url}&max_connections=1", BITMAPIST_SPOOL=False)
    threads = [threading.Thread(target=mark_event, args=("e", id_)) for id_ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.stats().sent == 50
    assert tracker.stats().breaker == "closed"


def test_marks_for_which_no_connection_was_free_in_time_are_spooled_without_a_break(
    redis_url: str, tracker_on: Any
) -> None:
    tracker = tracker_on(f"{redis_url}&max_connections=1&timeout=0.01")
    mark_event("e", 0, now=NOON)
    pool = tracker.server.quick.connection_pool
    connection = pool.get_connection()
    mark_event("e", 1, now=NOON)
    assert (tracker.stats().spooled, tracker.stats().breaker) == (1, "closed")
    pool.release(connection)
    mark_event("e", 2, now=NOON)
    eventually(lambda: analytics.count("e", by="day", at=NOON) == 3)


def test_500_greenlets_lose_nothing(redis_url: str) -> None:
    script = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from datetime import datetime, timedelta
from flask import Flask
from flask_bitmapist import FlaskBitmapist, mark_event
tracker = FlaskBitmapist(
    Flask("app"),
    {"BITMAPIST_REDIS_URL": sys.argv[1], "BITMAPIST_SPOOL": False, "BITMAPIST_TIMEOUT": 30},
).tracker
noon = datetime(2026, 3, 14, 12)
gevent.joinall([gevent.spawn(mark_event, "e", id_, now=noon) for id_ in range(500)])
stats = tracker.stats()
assert (stats.sent, stats.dropped, stats.breaker) == (500, 0, "closed"), stats
assert tracker.redis.bitcount("trackist_e_2026-3-14") == 500
"""
    url = f"{redis_url}&max_connections=100"
    subprocess.run([sys.executable, "-c", script, url], check=True, timeout=120)


class TestFakeRedis:
    """An in-process stand-in, which many test suites run on."""

    def test_marks_reports_and_pages_work(self, tmp_path: Path) -> None:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.debug = True
        tracker = FlaskBitmapist(app, redis_client=fakeredis.FakeRedis()).tracker
        mark_event("user:logged_in", range(20))
        mark_event("user:logged_in", "21")
        assert tracker.stats().sent == 21
        assert analytics.count("user:logged_in") == 21
        pages = ["", "cohort?cohort=user:logged_in&returned=user:logged_in", "lifecycle"]
        for page in pages:
            assert app.test_client().get(f"/bitmapist/{page}").status_code == 200
        result = app.test_cli_runner().invoke(args=["bitmapist", "users", "user:logged_in"])
        assert result.output.split()[1:] == [str(id_) for id_ in range(20)] + ["21"]


@pytest.mark.parametrize(
    "option",
    [
        "retry=3",
        "retry_on_error=Exception",
        "credential_provider=x",
        "cache_config=1",
        "max_connections=0",
        "socket_type=1",
    ],
)
def test_an_option_that_no_url_can_say_is_an_error_at_once(option: str) -> None:
    with pytest.raises(ValueError, match="BITMAPIST_REDIS_URL has a wrong option"):
        FlaskBitmapist(Flask(__name__), {"BITMAPIST_REDIS_URL": f"redis://localhost?{option}"})


class OwnConnection(redis_py.UnixDomainSocketConnection):
    """A class of an application's own, as for a password that changes."""


def test_a_client_whose_connections_are_of_a_class_of_its_own_marks_and_reads(
    redis: Any, tmp_path: Path
) -> None:
    settings = redis.connection_pool.connection_kwargs
    pool = redis_py.ConnectionPool(connection_class=OwnConnection, **settings)
    with redis_py.Redis(connection_pool=pool) as client:
        app = Flask("own", instance_path=str(tmp_path))
        app.config.update(BITMAPIST_ENABLED=True, BITMAPIST_SPOOL=False, DISABLE_BLUEPRINT=True)
        tracker = FlaskBitmapist(app, redis_client=client).tracker_of(app)
        with app.app_context():
            for id_ in (7, 8):
                tracker.record([("seen", id_)])
            tracker.record_many("seen", [*range(2_000)])
            assert analytics.count("seen") == 2_000
