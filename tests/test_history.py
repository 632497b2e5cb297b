"""The server comes back with an older history: what a process knew of the newer one is no more."""

from __future__ import annotations

import contextlib
import copy
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import strategies as st

from flask_bitmapist import analytics
from flask_bitmapist.embedded import find_binary
from flask_bitmapist.id_map.keys import map_keys
from flask_bitmapist.ids import MAPPED
from flask_bitmapist.registry import FIRST_DAYS, KINDS, KINDS_COPY
from flask_bitmapist.tracker import Tracker

NOON = datetime(2026, 3, 14, 12)


class Historic(Protocol):
    """A server whose history a test can take back."""

    url: str

    def remember(self) -> None:
        """This is the state to which `go_back` leads."""

    def go_back(self) -> None: ...


class Restored:
    """A dump is restored under the running process: its connections stay."""

    def __init__(self, url: str, *, without: tuple[bytes, ...] = ()) -> None:
        """:param without: keys that no dump has."""
        self.url = url
        self._without = without
        self._client: Any = redis_py.Redis.from_url(url)
        self._dump: dict[bytes, bytes] = {}

    def remember(self) -> None:
        keys = (key for key in self._client.keys("*") if key not in self._without)
        self._dump = {key: self._client.dump(key) for key in keys}

    def go_back(self) -> None:
        self._client.flushdb()
        for key, value in self._dump.items():
            self._client.restore(key, 0, value)


class Killed:
    """The server is killed and starts again from its last snapshot."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/server.sock"
        self._folder = folder
        self._process = launch(folder, folder / "server.sock")

    def remember(self) -> None:
        with redis_py.Redis.from_url(self.url) as client:
            client.save()

    def go_back(self) -> None:
        self.close()
        self._process = launch(self._folder, self._folder / "server.sock")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class FailedOver:
    """A proxy leads to the primary, and then to a copy that lagged behind.

    The clients' connections stay: they cannot see that another server answers.
    """

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/proxy.sock"
        self._folder = folder
        self._primary = launch(folder, folder / "primary.sock")
        self._copy: subprocess.Popen[bytes] | None = None
        self._proxy = Proxy(folder / "proxy.sock", folder / "primary.sock")

    def remember(self) -> None:
        with redis_py.Redis(unix_socket_path=f"{self._folder}/primary.sock") as client:
            client.save()
        folder = self._folder / "copy"
        folder.mkdir()
        shutil.copy(self._folder / "dump.rdb", folder)
        self._copy = launch(folder, folder / "copy.sock")

    def go_back(self) -> None:
        self._proxy.lead_to(self._folder / "copy" / "copy.sock")
        self._primary.kill()

    def close(self) -> None:
        self._proxy.close()
        for process in filter(None, (self._primary, self._copy)):
            process.kill()
            process.wait()


class Proxy:
    """Passes bytes between clients and one server; which one it is may change between requests."""

    def __init__(self, path: Path, server: Path) -> None:
        self._server = server
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(16)
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def lead_to(self, server: Path) -> None:
        self._server = server

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        clients: dict[socket.socket, tuple[Path, socket.socket]] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._ends:
                for event, _ in selector.select(0.05):
                    if event.fileobj is self._listening:
                        client, _ = self._listening.accept()
                        selector.register(client, selectors.EVENT_READ)
                    elif event.data is None:
                        self._forward(event.fileobj, clients, selector)
                    else:
                        self._answer(event.fileobj, event.data)
            for client, (_, server) in clients.items():
                client.close()
                server.close()

    def _forward(self, client: Any, clients: dict[Any, Any], selector: Any) -> None:
        asked = client.recv(2**16)
        self._look_at(asked)
        path, server = clients.get(client, (None, None))
        if path != self._server:
            if server is not None:
                selector.unregister(server)
                server.close()
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            selector.register(server, selectors.EVENT_READ, client)
            clients[client] = self._server, server
        try:
            if asked:
                server.sendall(asked)
                return
        except BrokenPipeError:  # the server is gone
            client.shutdown(socket.SHUT_RDWR)
        selector.unregister(client)

    def _look_at(self, asked: bytes) -> None:
        """Called with what a client asks, before it is forwarded."""

    @staticmethod
    def _answer(server: Any, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.sendall(server.recv(2**16))


def launch(folder: Path, path: Path) -> subprocess.Popen[bytes]:
    options = {"port": "0", "unixsocket": str(path), "dir": str(folder), "save": ""}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen([find_binary(), *arguments], stdout=subprocess.DEVNULL)
    with redis_py.Redis(unix_socket_path=str(path)) as client:
        for _ in range(500):
            with contextlib.suppress(redis_py.RedisError):
                client.ping()
                return process
            time.sleep(0.02)
    raise AssertionError("the server does not answer")


@pytest.fixture(params=["restored", "killed", "failed over"])
def server_of_the_past(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path
) -> Iterator[Historic]:
    if request.param == "restored":
        yield Restored(redis_url)
        return
    server = Killed(tmp_path) if request.param == "killed" else FailedOver(tmp_path)
    yield server
    server.close()


def mark(tracker: Tracker, event: str, *ids: object, when: datetime = NOON) -> None:
    tracker.record([(event, id_, True, True, when) for id_ in ids])
    tracker.flush()  # what the server has lost is sent again behind it


def who(tracker: Tracker, event: str) -> list[Any]:
    return list(analytics.users(event, at=NOON, by="month", tracker=tracker))


def test_nobody_gets_the_bit_of_somebody_else(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "e", "u-1")
    server_of_the_past.remember()
    mark(one, "e", "u-2", "u-4")
    server_of_the_past.go_back()
    mark(process(server_of_the_past.url), "e", "u-3")
    mark(one, "e", "u-4")
    mark(one, "paid", "u-2")
    other = process(server_of_the_past.url)
    assert who(other, "e") == ["u-1", "u-3", "u-4", "u-2"]
    assert who(other, "paid") == ["u-2"]


def test_an_event_that_was_new_is_registered_again(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "e", "u-1")
    server_of_the_past.remember()
    mark(one, "late", "u-1")
    server_of_the_past.go_back()
    mark(one, "late", "u-1")
    other = process(server_of_the_past.url)
    mark(other, "late", "u-2")
    assert who(other, "late") == ["u-1", "u-2"]


def test_an_event_may_have_become_one_of_another_kind(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "old", "u-1")
    server_of_the_past.remember()
    mark(one, "late", "u-2")
    server_of_the_past.go_back()
    mark(process(server_of_the_past.url), "late", 7)
    mark(one, "late", 8)  # what it knows would make that an error
    assert who(one, "late") == [7, 8]


def test_a_first_day_is_registered_again(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "e", 1)
    server_of_the_past.remember()
    mark(one, "e", 2, when=datetime(2026, 2, 3))
    server_of_the_past.go_back()
    mark(one, "e", 2, when=datetime(2026, 2, 20))
    # The mark of the third was lost, and was sent again.
    assert one.reader.kind_and_first_days(["e"], ["e"]) == ("plain", {"e": date(2026, 2, 3)})


def test_an_earlier_day_of_an_event_that_the_server_has_lost(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "old", 1)
    server_of_the_past.remember()
    mark(one, "late", 1)
    server_of_the_past.go_back()
    mark(one, "late", 2, when=datetime(2026, 2, 20))
    assert one.stats().refused == 0
    assert one.reader.kind_and_first_days(["late"], ["late"]) == (
        "plain",
        {"late": date(2026, 2, 20)},
    )


def test_a_flag_that_became_an_event_is_one_again(
    redis_url: str, process: Callable[..., Tracker]
) -> None:
    server = Restored(redis_url)
    one = process(redis_url)
    one.record([("premium", 1, True, False)])
    server.remember()
    today = one.now()
    mark(one, "premium", 1, when=today)
    server.go_back()
    mark(one, "premium", 1, when=today)
    assert one.reader.kind_and_first_days(["premium"], ["premium"]) == (
        "plain",
        {"premium": today.date()},
    )
    assert one.reader.catalogue().events == ["premium"]


def test_reports_read_what_the_server_holds_now(
    server_of_the_past: Historic, process: Callable[..., Tracker]
) -> None:
    one = process(server_of_the_past.url)
    mark(one, "old", "u-1")
    server_of_the_past.remember()
    mark(one, "a", "u-2")
    mark(one, "b", "u-2")
    server_of_the_past.go_back()
    other = process(server_of_the_past.url)
    mark(other, "a", 7)
    mark(other, "b", 7)
    assert list(analytics.users("a & b", at=NOON, tracker=one)) == [7]


def test_a_wrong_bit_is_taken_back_as_it_was(
    redis_url: str, redis: Any, process: Callable[..., Tracker]
) -> None:
    server = Restored(redis_url)
    one = process(redis_url)
    mark(one, "e", "u-1")
    server.remember()
    mark(one, "e", "u-2")
    server.go_back()
    mark(process(redis_url), "e", "u-3")
    one.record([("e", "u-2", False, True, NOON), ("e", "u-4", True, True, NOON)])
    assert one.flush()  # what the server has lost is sent again by a thread
    assert who(one, "e") == ["u-1", "u-3", "u-4"]


def test_a_server_that_was_emptied_starts_over(
    redis: Any, redis_url: str, process: Callable[..., Tracker]
) -> None:
    one = process(redis_url)
    mark(one, "e", "u-1", "u-2")
    redis.flushall()
    mark(process(redis_url), "e", "u-3")
    mark(one, "e", "u-2")
    assert who(one, "e") == ["u-3", "u-2"]
    redis.flushall()
    mark(one, "e", 5)
    assert who(one, "e") == [5]


IDS = ("u-1", "u-2", "u-3", 1, 2, 3)
EVENTS = ("a", "b")
steps = st.one_of(
    st.tuples(st.just("mark"), st.integers(0, 1), st.sampled_from(EVENTS), st.sampled_from(IDS)),
    st.tuples(st.just("unmark"), st.integers(0, 1), st.sampled_from(EVENTS), st.sampled_from(IDS)),
    st.tuples(st.just("remember")),
    st.tuples(st.just("go back")),
)


@given(st.lists(steps, max_size=25))
def test_reports_agree_with_the_history_that_the_server_has(
    redis: Any,
    redis_url: str,
    process: Callable[..., Tracker],
    history: list[tuple[Any, ...]],
) -> None:
    redis.flushdb()
    # Other data, to which nothing is sent again: that has a test of its own.
    server = Restored(redis_url, without=(b"flask_bitmapist:origin",))
    processes = [process(redis_url), process(redis_url)]
    truth: dict[str, dict[Any, bool]] = {}  # of each event that has a kind, the ids ever marked
    remembered = copy.deepcopy(truth)
    for step, *details in history:
        if step == "remember":
            server.remember()
            remembered = copy.deepcopy(truth)
        elif step == "go back":
            server.go_back()
            truth = copy.deepcopy(remembered)
        else:
            number, event, id_ = details
            with contextlib.suppress(ValueError):  # ids of two kinds
                processes[number].record([(event, id_, step == "mark", True, NOON)])
            ids = truth.get(event, {id_: False} if step == "mark" else {})
            if type(id_) in map(type, ids):
                truth.setdefault(event, ids)[id_] = step == "mark"
    for tracker in (*processes, process(redis_url)):
        for event in EVENTS:
            marked = {id_ for id_, is_marked in truth.get(event, {}).items() if is_marked}
            assert set(who(tracker, event)) == marked


@pytest.mark.parametrize("kind", [KINDS, KINDS_COPY])
def test_the_registry_survives_the_loss_of_one_key(
    redis_url: str, redis: Any, process: Callable[..., Tracker], kind: str
) -> None:
    one = process(redis_url)
    mark(one, "mapped", "u-1", "u-2")
    one.record([("flag", "u-1", True, False)])
    mark(one, "plain", 3)
    redis.delete(kind)
    other = process(redis_url)
    assert who(other, "mapped") == ["u-1", "u-2"]
    mark(other, "mapped", "u-3")
    other.record([("flag", "u-2", True, False)])
    mark(other, "plain", 4)
    mark(one, "mapped", "u-4")
    redis.delete({KINDS: KINDS_COPY, KINDS_COPY: KINDS}[kind])
    for tracker in (one, other, process(redis_url)):
        assert who(tracker, "mapped") == ["u-1", "u-2", "u-3", "u-4"]
        assert who(tracker, "flag:flag") == ["u-1", "u-2"]
        assert who(tracker, "plain") == [3, 4]


@pytest.mark.parametrize("also_lost", [(), (FIRST_DAYS,)])
def test_a_lost_registry_is_refused_and_says_what_to_do(
    redis_url: str,
    redis: Any,
    process: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
    also_lost: tuple[str, ...],
) -> None:
    one = process(redis_url)
    mark(one, "mapped", "u-1")
    redis.delete(KINDS, KINDS_COPY, *also_lost)
    for tracker in (one, process(redis_url)):
        mark(tracker, "mapped", 7)
    assert "HSET flask_bitmapist:events 'mapped' mapped (or plain" in caplog.text
    assert redis.bitcount("trackist_mapped_2026-3-14") == 1
    if not also_lost:
        with pytest.raises(ValueError, match="has lost which kind of ids the event 'mapped' has"):
            who(one, "mapped")
        assert one.reindex() == []
    redis.hset(KINDS, "mapped", "mapped")
    mark(one, "mapped", "u-2")
    assert who(one, "mapped") == ["u-1", "u-2"]


@pytest.mark.parametrize("knows_it", [True, False])
def test_a_lost_id_map_gives_nobody_the_bits_of_others(
    redis_url: str,
    redis: Any,
    process: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
    knows_it: bool,
) -> None:
    one = process(redis_url)
    mark(one, "e", "u-1", "u-2")
    backup = {key: redis.dump(key) for key in map_keys(MAPPED).vital()}
    redis.delete(*backup)
    late = one if knows_it else process(redis_url)
    mark(late, "e", "u-9")
    mark(late, "new", "u-2")
    assert "the id map is damaged" in caplog.text
    assert "restore all keys of the map from a backup" in caplog.text
    assert redis.bitcount("trackist_e_2026-3") == 2
    for key, dump in backup.items():
        redis.restore(key, 0, dump)
    assert late.flush()
    assert who(late, "e") == ["u-1", "u-2", "u-9"]
    assert who(late, "new") == ["u-2"]


def test_an_id_map_begins_anew_where_nobody_has_marks_of_it(
    redis_url: str, redis: Any, process: Callable[..., Tracker]
) -> None:
    one = process(redis_url)
    mark(one, "e", "u-1")
    redis.delete(*redis.keys("trackist_*"), *map_keys(MAPPED).vital())
    mark(one, "e", "u-2")
    assert who(one, "e") == ["u-2"]


def test_lost_first_days_are_found_again(
    redis_url: str, redis: Any, process: Callable[..., Tracker]
) -> None:
    one = process(redis_url)
    mark(one, "e", 1, when=datetime(2025, 11, 20))
    redis.delete(FIRST_DAYS)
    mark(one, "e", 1)
    assert one.reader.kind_and_first_days(["e"], ["e"])[1]["e"] == date(2025, 11, 1)


@pytest.mark.parametrize(("policy", "warns"), [("allkeys-lru", 1), ("volatile-lru", 0)])
def test_a_server_that_evicts_is_a_warning_once(
    tmp_path: Path,
    process: Callable[..., Tracker],
    caplog: pytest.LogCaptureFixture,
    policy: str,
    warns: int,
) -> None:
    server = Killed(tmp_path)
    with redis_py.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", policy)
    one = process(server.url)
    mark(one, "e", 1)
    mark(one, "e", 2)
    server.close()
    assert caplog.text.count(f"is {policy}: when its memory is full") == warns


def test_a_log_tells_no_text_id(
    redis_url: str, process: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
) -> None:
    never = process(redis_url, BITMAPIST_ID_MAP="never")
    one = process(redis_url)
    mark(one, "plain", 1)
    for tracker, event, id_ in (
        (one, "e", "ann@example.org" * 40),
        (one, "e", ["ann@example.org"]),
        (one, "e", "ann@example.org\ud800"),
        (one, "plain", "ann@example.org"),
        (never, "e", "ann@example.org"),
    ):
        tracker.publish([(event, id_)])
    assert "could not mark 'e'" in caplog.text
    assert len(caplog.records) == 5
    assert "ann@" not in caplog.text
    with caplog.at_level("DEBUG"):
        never.publish([("e", "ann@example.org")])
    assert "the id 'ann@example.org' is no number" in caplog.text
