"""One real Valkey for the run, a fresh database of it for each test."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import bitmapist
import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings
from nodes import Cluster, cluster
from redis.connection import AbstractConnection
from servers import MortalServer

from flask_bitmapist import FlaskBitmapist, embedded
from flask_bitmapist.config import Settings
from flask_bitmapist.tracker import Tracker

# No test depends on how fast the machine is. `nox -s fuzz` tries many more examples.
settings.register_profile(
    "patient",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("patient")

# redis-py 8 reads its own version from a file for each connection, which takes a millisecond.
importlib.metadata.version = functools.cache(importlib.metadata.version)

DATABASES = 16  # the server's default


def pytest_collection_finish() -> None:
    """All that has been imported stays until the end: the collector need not look through it."""
    gc.freeze()


class Server:
    """The run's server: a Unix socket that `redis.from_url` understands."""

    def __init__(self, folder: Path) -> None:
        self.keeper = embedded.connect(folder)
        self.keeper.ping()
        self.socket = self.keeper.connection_pool.connection_kwargs["path"]
        self._databases = itertools.cycle(range(DATABASES))

    def fresh_database(self) -> str:
        """The URL of an empty database; up to 16 of them can be in use at once."""
        url = f"unix://{self.socket}?db={next(self._databases)}"
        with redis_py.Redis.from_url(url) as client:
            client.flushdb()
        return url


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.keeper.close()


def made_app(redis_url: str, folder: Path, **options: Any) -> Flask:
    app = Flask("testapp", instance_path=str(folder / "instance"))
    app.config.update(
        TESTING=True,
        BITMAPIST_ENABLED=True,
        SECRET_KEY="test",
        BITMAPIST_REDIS_URL=redis_url,
        **options,
    )
    FlaskBitmapist(app)
    return app


@pytest.fixture
def redis_url(server: Server) -> str:
    return server.fresh_database()


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def running(app: Flask) -> Iterator[Flask]:
    """`app`, whose tracker is closed at the end."""
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    try:
        yield app
    finally:
        extension.tracker_of(app).close()


@pytest.fixture
def app(redis_url: str, tmp_path: Path) -> Iterator[Flask]:
    """An app without the dashboard, whose routes are three quarters of its set-up."""
    with running(made_app(redis_url, tmp_path, DISABLE_BLUEPRINT=True)) as app:
        yield app


@pytest.fixture
def app_with_pages(redis_url: str, tmp_path: Path) -> Iterator[Flask]:
    with running(made_app(redis_url, tmp_path)) as app:
        yield app


@pytest.fixture
def bitmapist_extension(app: Flask) -> FlaskBitmapist:
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    return extension


@pytest.fixture
def tracker(app: Flask, bitmapist_extension: FlaskBitmapist) -> Tracker:
    return bitmapist_extension.tracker_of(app)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MortalServer]:
    """A server of the test's own, which it may kill."""
    server = MortalServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def tracker_on(tmp_path: Path) -> Iterator[Callable[..., Tracker]]:
    """Makes trackers that know nothing yet, as those of other processes would.

    ``tracker_on(url=None, client=None, *, instance="instance", **options)``: those of one
    `instance` folder share its spool.
    """
    made: list[Tracker] = []

    def make(
        url: str | None = None, client: Any = None, *, instance: str = "instance", **options: Any
    ) -> Tracker:
        app = Flask("another", instance_path=str(tmp_path / instance))
        if url is not None:
            options["BITMAPIST_REDIS_URL"] = url
        usual = {
            "BITMAPIST_ENABLED": True,
            "BITMAPIST_TIMEOUT": 10,
            "DISABLE_BLUEPRINT": True,
        }
        extension = FlaskBitmapist(app, usual | options, redis_client=client)
        made.append(extension.tracker_of(app))
        return made[-1]

    yield make
    for tracker in made:
        tracker.close()


@pytest.fixture
def process(tracker_on: Callable[..., Tracker]) -> Callable[..., Tracker]:
    return tracker_on


@pytest.fixture
def now(request: pytest.FixtureRequest) -> datetime:
    """The moment at which the tests of a module take place: its `NOW`."""
    moment: datetime = request.module.NOW
    return moment


@pytest.fixture
def at_now(app: Flask, tracker: Tracker, now: datetime) -> Iterator[None]:
    """In the app, whose clock stands still."""
    with app.app_context(), tracker.at(now):
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The commands and pipelines sent to any server so far, those of a new connection included."""
    sent: list[object] = []
    original: Any = AbstractConnection.send_packed_command

    def send(self: AbstractConnection, command: object, check_health: bool = True) -> None:
        sent.append(command)
        original(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", send)
    return sent


class StoppedHere(BaseException):
    """As by Ctrl-C."""


@pytest.fixture
def at_every_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[], object]], Iterator[None]]:
    """Stops what this thread does before its first trip to a server, then before its second, ...

    Yields after each stop, until it comes to its end.
    """
    original: Any = AbstractConnection.send_packed_command

    def stops(do: Callable[[], object]) -> Iterator[None]:
        for trip in itertools.count():
            left, thread = [trip], threading.current_thread()

            def send(
                self: AbstractConnection,
                command: object,
                check_health: bool = True,
                left: list[int] = left,
                thread: threading.Thread = thread,
            ) -> None:
                if threading.current_thread() is thread:
                    left[0] -= 1
                    if left[0] < 0:
                        raise StoppedHere
                original(self, command, check_health)

            with monkeypatch.context() as patched:
                patched.setattr(AbstractConnection, "send_packed_command", send)
                try:
                    do()
                    return
                except StoppedHere:
                    pass
            yield

    return stops


@pytest.fixture(scope="session")
def running_clusters(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[int], Cluster]]:
    with ExitStack() as stack:

        @functools.cache
        def start(size: int) -> Cluster:
            replicas = 0 if size == 1 else size
            return stack.enter_context(cluster(tmp_path_factory.mktemp("c"), size, replicas))

        yield start


@pytest.fixture
def clusters(running_clusters: Callable[[int], Cluster]) -> Callable[[int], Cluster]:
    """Gives an empty cluster of so many masters, with a replica each where they are several."""

    def empty(size: int) -> Cluster:
        found = running_clusters(size)
        found.settle()
        for node in found.nodes:
            node.client.execute_command("ACL", "SETUSER", "default", "+@all")
        for node in found.masters:
            node.client.flushall()
        return found

    return empty


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of localhost, and its key, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


@pytest.fixture(scope="session", autouse=True)
def _time_enough() -> Iterator[tuple[object, ...]]:
    """On a busy machine the default timeout would spool a mark, or lose it, now and then.

    For the session: what tests share is marked too. Gives the defaults as they are.
    """
    defaults: Any = Settings.__init__.__defaults__
    patient = [30.0 if default == Settings().timeout else default for default in defaults]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Settings.__init__, "__defaults__", tuple(patient))
        yield defaults


@pytest.fixture(autouse=True)
def _no_app_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what `init_app` leaves in the process: bitmapist's systems and the latest tracker."""
    monkeypatch.setattr(bitmapist, "SYSTEMS", dict(bitmapist.SYSTEMS))
    monkeypatch.setattr("flask_bitmapist.current._Process.tracker", None)
    monkeypatch.setattr("flask_bitmapist.current._Process.apps", ())
    monkeypatch.setattr("flask_bitmapist.faults.SetupError.logged", set())
