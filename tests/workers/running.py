"""Worker processes under test, the server they mark on, and the log of what was acknowledged."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis as redis_py
from flask import Flask
from servers import DAY, MortalServer

from flask_bitmapist import FlaskBitmapist

TESTS = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class Site:
    """A folder with a server, an application's spool and the log; and what runs there."""

    def __init__(self, folder: Path, delivery: str) -> None:
        self.folder = folder
        self.server = MortalServer(folder)
        self.server.start()
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
            "PYTHONWARNINGS": "ignore",
            "MARKS_FOLDER": str(folder),
            "MARKS_SERVER": self.server.url,
            "MARKS_DELIVERY": delivery,
            "MARKS_BROKER": f"redis+socket://{folder}/server.sock?virtual_host=1",
        }

    def acknowledged(self) -> set[int]:
        with suppress(FileNotFoundError):
            return {int(line) for line in (self.folder / "acknowledged").read_text().split()}
        return set()

    def missing(self, *keys: str) -> set[int]:
        """The acknowledged marks that are in none of the server's bitmaps `keys`."""
        acknowledged = self.acknowledged()
        with redis_py.Redis.from_url(self.server.url) as client:
            for key in keys or (DAY,):
                bitmap = client.get(key) or b""
                assert isinstance(bitmap, bytes)
                acknowledged = {id_ for id_ in acknowledged if not bit(bitmap, id_)}
        return acknowledged

    def deliver_the_rest(self) -> None:
        """What the next process of the application does: it delivers what earlier ones left."""
        app = Flask("workers", instance_path=f"{self.folder}/instance")
        options = {"BITMAPIST_REDIS_URL": self.server.url, "BITMAPIST_TIMEOUT": 5}
        assert FlaskBitmapist(app, options).tracker.flush()

    @contextmanager
    def running(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that ends with SIGTERM, if it has not ended before."""
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
            process.terminate()
            process.wait(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def output(self) -> str:
        return (self.folder / "output").read_text()


class Visitors:
    """Threads that ask a web server to mark, one id after the other, as fast as it answers."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next = iter(range(1, 1_000_000))
        self._ends = threading.Event()
        self._threads: list[threading.Thread] = []

    def mark(self, marks: int = 1) -> None:
        for _ in range(marks):
            ask(self._path, next(self._next))

    def begin(self, visitors: int) -> None:
        for first in range(visitors):
            ids = range(100_000 + first, 1_000_000, visitors)
            thread = threading.Thread(target=self._keep_asking, args=(ids,))
            self._threads.append(thread)
            thread.start()

    def _keep_asking(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            if self._ends.is_set():
                return
            # While the server ends it refuses, or does not answer.
            with suppress(OSError, http.client.HTTPException):
                ask(self._path, id_)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def bit(bitmap: bytes, offset: int) -> bool:
    return offset // 8 < len(bitmap) and bool(bitmap[offset // 8] >> 7 - offset % 8 & 1)


def ask(path: str, id_: int) -> None:
    """:raises OSError: if nobody answers."""
    assert answer(path, id_) == (200, b"marked")


def answer(path: str, id_: int) -> tuple[int, bytes]:
    """The status and the body of what the server at `path` answers.

    :raises OSError: if nobody answers.
    """
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(path)
        connection.request("GET", f"/{id_}", headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(path: str) -> bool:
    try:
        return answer(path, 0)[0] == 200
    except OSError:
        return False
