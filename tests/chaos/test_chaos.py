"""Faults of servers, networks, disks and processes in mid-load: each acknowledged mark arrives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from servers import DAY, MortalServer, eventually
from slow import Proxy, at_once, never, serving

from flask_bitmapist import FlaskBitmapist

MARKS = int(os.environ.get("CHAOS", "100000"))
#: KiB by which the application's memory may grow: the bounded queue, and what is kept to be resent.
ROOM = 64 * 1024
TESTS = Path(__file__).parents[1]


class Scene:
    """A server, a proxy before it, and an application that marks through the proxy."""

    def __init__(self, folder: Path, delivery: str, proxy: Proxy) -> None:
        self.folder = folder
        self.server = MortalServer(folder)
        self.proxy = proxy
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
            "MARKS_FOLDER": str(folder),
            "MARKS_SERVER": f"redis://127.0.0.1:{proxy.port}",
            "MARKS_DELIVERY": delivery,
        }
        self.app: subprocess.Popen[bytes] | None = None

    def start_app(self) -> None:
        first = self.acknowledged()
        command = [sys.executable, "-m", "chaos.load", str(first), str(MARKS)]
        with (self.folder / "output").open("ab") as output:
            self.app = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=output, stderr=output
            )

    def kill_app(self) -> None:
        if self.app is not None:
            self.app.kill()
            self.app.wait()

    def acknowledged(self) -> int:
        """All ids below this one are; the log is one of calls that follow each other."""
        try:
            lines = (self.folder / "acknowledged").read_bytes().splitlines()
        except FileNotFoundError:
            return 0
        return int(lines[-1].split()[1]) + 1 if lines else 0

    def goes_on(self, marks: int) -> None:
        """Wait until so many more are acknowledged."""
        until = self.acknowledged() + marks
        eventually(lambda: self.acknowledged() >= until or self.has_ended())
        assert not self.has_ended(), self.output()

    def has_ended(self) -> bool:
        return self.app is not None and self.app.poll() is not None

    def end(self) -> dict[str, Any]:
        (self.folder / "over").touch()
        assert self.app is not None
        assert self.app.wait(timeout=120) == 0, self.output()
        told: dict[str, Any] = json.loads((self.folder / "told").read_text())
        return told

    def missing(self) -> list[int]:
        """The acknowledged marks that are not there when the next process has been at work."""
        app = Flask("chaos", instance_path=f"{self.folder}/instance")
        options = {"BITMAPIST_REDIS_URL": self.environment["MARKS_SERVER"], "BITMAPIST_TIMEOUT": 5}
        assert FlaskBitmapist(app, options).tracker.flush()
        with self.client() as client:
            bits = client.get(DAY)
        return [
            id_
            for id_ in range(self.acknowledged())
            if id_ // 8 >= len(bits) or not bits[id_ // 8] >> 7 - id_ % 8 & 1
        ]

    def client(self, **options: Any) -> Any:
        return redis_py.Redis.from_url(self.server.url, **options)

    def output(self) -> str:
        return (self.folder / "output").read_text()


@contextmanager
def killed(scene: Scene) -> Iterator[None]:
    scene.server.kill()
    scene.server.start()
    yield


@contextmanager
def refusing(scene: Scene) -> Iterator[None]:
    scene.server.kill()
    yield
    scene.server.start()


@contextmanager
def loading(scene: Scene) -> Iterator[None]:
    with scene.client() as client, client.pipeline(transaction=False) as pipe:
        for number in range(4_000):  # it takes two seconds to load them
            pipe.set("slow to load", number)
        pipe.execute()
    scene.server.kill()
    scene.server.start("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    yield


@contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    assert scene.server.process is not None
    scene.server.process.send_signal(signal.SIGSTOP)
    yield
    time.sleep(2)
    scene.server.process.send_signal(signal.SIGCONT)


def cut(client: socket.socket, reply: bytes) -> None:
    """The connection goes in the middle of a reply."""
    client.sendall(reply[: len(reply) // 2])
    raise ConnectionResetError


@contextmanager
def silent(scene: Scene) -> Iterator[None]:
    scene.proxy.pace = never
    yield
    scene.proxy.pace = at_once


@contextmanager
def cutting(scene: Scene) -> Iterator[None]:
    scene.proxy.pace = cut
    yield
    scene.proxy.pace = at_once


@contextmanager
def full(scene: Scene) -> Iterator[None]:
    with scene.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    with scene.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def locked(scene: Scene) -> Iterator[None]:
    with scene.client() as client:
        client.config_set("requirepass", "secret")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield
    with scene.client(password="secret") as client:
        client.config_set("requirepass", "")


@contextmanager
def not_saving(scene: Scene) -> Iterator[None]:
    """A snapshot cannot take its place: the server takes no writes until one succeeds."""
    obstacle = scene.folder / "dump.rdb"
    obstacle.mkdir()
    with scene.client() as client:
        client.config_set("save", "3600 1")
        save_until(client, "err")
        yield
        obstacle.rmdir()
        save_until(client, "ok")


def save_until(client: Any, status: str) -> None:
    client.bgsave()
    eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == status)


@contextmanager
def application_killed(scene: Scene) -> Iterator[None]:
    scene.kill_app()
    scene.start_app()
    yield


@contextmanager
def both_killed(scene: Scene) -> Iterator[None]:
    with refusing(scene):
        scene.goes_on(1_000)
        scene.kill_app()
        scene.start_app()
        yield


@contextmanager
def clock_jumps(scene: Scene) -> Iterator[None]:
    """A day back, and forth again, also while marks wait."""
    with refusing(scene):
        (scene.folder / "jump").touch()
        yield
    scene.goes_on(1_000)
    (scene.folder / "jump").unlink()


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    """Marks wait, then the disk is full, then the server is back: there is no room to delete them.

    The application stands still in between, as without room and server its marks would be lost.
    """
    instance = scene.folder / "instance"
    if not instance.is_mount():
        pytest.skip("needs the right to mount a file system")
    assert scene.app is not None
    with refusing(scene):
        scene.goes_on(1_000)
        scene.app.send_signal(signal.SIGSTOP)
        status = os.statvfs(instance)
        (instance / "stuffing").write_bytes(b"x" * (status.f_bavail * status.f_bsize))
    scene.app.send_signal(signal.SIGCONT)
    yield
    (instance / "stuffing").unlink()


FAULTS: list[Callable[[Scene], AbstractContextManager[None]]] = [
    killed, refusing, loading, frozen, silent, cutting, full, read_only, locked, not_saving,
    application_killed, both_killed, clock_jumps,
    disk_full,
]  # fmt: skip


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """A small file system of its own at `folder`, where this user may mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = (
        mount is not None
        and os.geteuid() == 0
        and subprocess.run(command, check=False).returncode == 0
    )
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(params=["immediate", "background"])
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with own_disk(tmp_path / "instance"), serving(Proxy(tmp_path / "server.sock")) as proxy:
        scene = Scene(tmp_path, request.param, proxy)
        try:
            scene.server.start()
            scene.start_app()
            yield scene
        finally:
            scene.kill_app()
            scene.server.kill()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_acknowledged_mark_arrives(
    scene: Scene, fault: Callable[[Scene], AbstractContextManager[None]]
) -> None:
    scene.goes_on(MARKS // 5)
    with fault(scene):
        scene.goes_on(MARKS // 5)
    told = scene.end()
    assert scene.acknowledged() >= MARKS
    assert not scene.missing(), scene.output()
    assert not told["raised"]
    assert not told["slow"]
    assert told["grown"] < ROOM
