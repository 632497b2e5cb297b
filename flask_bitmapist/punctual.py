"""Connections that keep the deadline of a call: set-up, sending and each part of a reply.

The timeouts of redis-py bound one receive each. A server that sends a byte now and then, or is slow
in each step of a connection's set-up, multiplies them.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from functools import lru_cache
from queue import Empty, LifoQueue
from typing import Any

import redis

from .deadline import is_set, time_left
from .resp import OddReplyError, PlainReplies

#: So many bytes are received at once, and so many of replies are read past the parser.
_PART, _SMALL = 16_384, 65_536
#: To tell the kernel a timeout costs a system call: this many seconds too many do not matter.
_SLACK = 0.01


class PunctualPool(redis.BlockingConnectionPool):
    """A pool of punctual connections, for one of which a call waits no longer than it may."""

    def __init__(self, connection_class: Any = redis.Connection, **settings: Any) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            connection_class=punctual(connection_class),
            **{"queue_class": _Connections, **settings},
        )

    @property
    def timeout(self) -> float | None:
        try:
            return time_left(self._patience)
        except TimeoutError:  # which redis-py expects from a socket alone
            return 0.0

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._patience = seconds

    def kept(self) -> Any:
        """A connection that is ready, to be returned to `keep`; None: there is none at hand.

        What redis-py does to find one takes longer than a trip on a fast way.
        """
        if self._kept and self.pid == os.getpid():
            with suppress(IndexError):  # another thread was faster
                connection, is_ready = self._kept.pop(), False
                try:
                    is_ready = connection.is_ready()
                finally:  # gevent's look lets others go on, and may raise a timeout
                    if not is_ready:
                        self.release(connection)  # type: ignore[no-untyped-call]
                if is_ready:
                    return connection
        return None

    def keep(self, connection: Any) -> None:
        """Keep `connection` at hand, whose replies its `read` has read to the last.

        So redis-py's parser holds nothing back.
        """
        self._kept.append(connection)
        # Whoever began to wait before that has not seen it.
        if self._waiting:
            self._release_kept()

    def get_connection(self, *command: Any, **options: Any) -> Any:
        """As redis-py does it."""
        waiting = object()
        self._waiting.add(waiting)
        try:
            self._release_kept()
            return super().get_connection(*command, **options)  # type: ignore[no-untyped-call]
        finally:
            self._waiting.discard(waiting)

    def _release_kept(self) -> None:
        self._checkpid()
        with suppress(IndexError):
            while True:
                self.release(self._kept.pop())  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Begin without connections, also in a child process."""
        #: Connections at hand. For redis-py they are in use.
        self._kept: list[Any] = []
        #: Those who may be waiting for one.
        self._waiting: set[object] = set()
        super().reset()  # type: ignore[no-untyped-call]

    def drop_idle(self) -> None:
        """Disconnect the connections that nobody uses; each connects again when it is used."""
        self._release_kept()
        idle: list[Any] = []
        try:
            with suppress(Empty):
                while True:
                    idle.append(self.pool.get_nowait())
            for connection in idle:
                if connection is not None:
                    connection.disconnect()
        finally:  # gevent's disconnecting lets others go on, and may raise a timeout
            for connection in reversed(idle):
                self.pool.put_nowait(connection)


class _Connections(LifoQueue[Any]):
    """The queue of a pool, for signal handlers too: one may come while its thread is in here."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.mutex = threading.RLock()  # type: ignore[assignment]
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)


@lru_cache(maxsize=64)
def punctual(kind: Any) -> Any:
    """The class of connections `kind`, but punctual.

    A class that is none of redis-py's own is left as it is: there is no telling what it overrides.
    """
    if not kind.__module__.startswith("redis."):
        return kind
    if not issubclass(kind, redis.Connection):
        bases: tuple[Any, ...] = (Punctual, kind)
    else:
        # TLS checks the host's name, and redis-py connects to TCP below it: so the class that goes
        # by addresses must stand between the two.
        bases = (Punctual, _ByAddress) if kind is redis.Connection else (Punctual, kind, _ByAddress)
    return type(kind.__name__, bases, {})


class Punctual:
    """Makes the class of a connection that it goes before punctual."""

    socket_timeout: Any
    socket_connect_timeout: Any
    _sock: Any
    # Those of later versions of redis-py.
    _should_reconnect = False
    _re_auth_token: Any = None

    def _connect(self) -> Any:
        given = self.socket_timeout, self.socket_connect_timeout
        try:
            self.socket_timeout, self.socket_connect_timeout = map(time_left, given)
            connected = super()._connect()  # type: ignore[misc]
        except TimeoutError as error:  # redis-py 8.1 makes an AttributeError of it on Unix sockets
            raise redis.TimeoutError("Timeout connecting to server") from error
        finally:
            self.socket_timeout, self.socket_connect_timeout = given
        return _Socket(connected, self.socket_timeout)

    def is_ready(self) -> bool:
        """Whether it is connected, and nothing has come unasked, such as the server's farewell."""
        connected = self._sock
        is_due = self._should_reconnect or self._re_auth_token is not None
        return connected is not None and not is_due and connected.is_quiet()

    def read(self, count: int) -> list[Any] | None:
        """`count` replies; None if there is anything else: then redis-py's parser finds it all.

        :raises redis.RedisError: if the server does not answer.
        """
        connected = self._sock
        if not isinstance(connected, _Socket):
            return None
        try:
            return connected.read(count)
        except TimeoutError as error:
            raise redis.TimeoutError("Timeout reading from socket") from error
        except OSError as error:
            raise redis.ConnectionError(f"Error while reading from socket: {error}") from error


class _ByAddress(redis.Connection):
    """Shares the time left fairly between the addresses of a host: the first may be dead."""

    def _connect(self) -> socket.socket:
        if not is_set():
            return super()._connect()  # type: ignore[no-any-return, no-untyped-call]
        name, patience = self.host, self.socket_connect_timeout
        untried = _addresses(name, self.port, self.socket_type)
        while True:
            address = untried.pop(0)
            try:
                self.host = address
                self.socket_connect_timeout = _share(patience, len(untried) + 1)
                connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
            except OSError:
                if not untried:
                    raise
            else:
                return _hurried(connected)
            finally:
                self.host, self.socket_connect_timeout = name, patience


def _share(patience: float | None, addresses: int) -> float:
    return (time_left(patience) or 0.0) / addresses


def _hurried(connected: socket.socket) -> socket.socket:
    """`connected`, ready for TLS to shake hands in the time left."""
    try:
        connected.settimeout(time_left(connected.gettimeout()))
    except TimeoutError:
        connected.close()
        raise
    return connected


def _addresses(name: str, port: int, family: int) -> list[str]:
    """The addresses of the host `name`: one or more.

    :raises OSError: if they are not to be had in the time left.
    """
    with suppress(socket.gaierror):
        socket.getaddrinfo(name, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [name]
    answers: list[list[str] | OSError] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)
            answers.append([*dict.fromkeys(str(address[0]) for *_, address in found)])
        except OSError as error:
            answers.append(error)

    # Nothing else ends a look-up early: it may take as long as the resolver's own settings say.
    asking = threading.Thread(target=ask, name="flask-bitmapist-names", daemon=True)
    try:
        asking.start()
    except RuntimeError:  # the process ends, or has too many threads
        ask()
    else:
        asking.join(time_left(None))
    if not answers:
        raise TimeoutError(f"the address of {name} could not be found in time")
    if isinstance(answers[0], OSError):
        raise answers[0]
    return answers[0]


class _Socket:
    """A connected socket whose every operation also ends with the call's time.

    redis-py and its parsers use it in place of the socket.
    """

    __slots__ = (
        "_connected",
        "_look",
        "_pending",
        "_replies",
        "_timeout",
        "_told",
        "_unread",
        "fileno",
    )

    def __init__(self, connected: Any, timeout: float | None) -> None:
        """:param timeout: seconds for one operation, if the call has more."""
        self._connected = connected
        self._timeout = timeout
        #: What the socket was told last.
        self._told = connected.gettimeout()
        # redis-py 8 asks for these two before each command: __getattr__ takes a microsecond.
        self.fileno = connected.fileno
        self._pending = getattr(connected, "pending", _nothing)
        #: What was received and given back.
        self._unread = b""
        self._replies: PlainReplies | None = None
        self._look = _look_at(connected)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = self._told = timeout
        self._connected.settimeout(timeout)

    def pending(self) -> int:
        """How many bytes are to be had without asking the kernel."""
        return len(self._unread) + self._pending()

    def is_quiet(self) -> bool:
        """Whether nothing is to be read, not even the end."""
        if self._unread or self._look is None or self._look.poll(0):
            return False
        return self._pending is _nothing or not self._pending()

    def read(self, count: int) -> list[Any] | None:
        """`count` replies; None if there is anything else, all of which stays unread."""
        if not count:
            return []
        came = b""
        try:
            # Unless they were read to the end, they are of no more use.
            replies, self._replies = self._replies or PlainReplies(), None
            replies.expect(count)
            while len(came) < _SMALL and (data := self.recv(_PART)):
                came += data
                found = replies.after(data)
                if found is not None:
                    self._replies = replies
                    return found
        except OddReplyError:
            pass
        self._unread = came
        return None

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        if self._unread:
            part = self._unread[: size or len(buffer)]
            self._unread = self._unread[len(part) :]
            buffer[: len(part)] = part
            return len(part)
        self._hurry()
        return self._connected.recv_into(buffer, size, flags)  # type: ignore[no-any-return]

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self._unread:
            part = self._unread[:size]
            if not flags & socket.MSG_PEEK:
                self._unread = self._unread[size:]
            return part
        self._hurry()
        return self._connected.recv(size, flags)  # type: ignore[no-any-return]

    def sendall(self, data: Any) -> None:
        # A TLS socket's own gives each part of the data the whole timeout.
        self._hurry()
        sent = self._connected.send(data)
        while sent < len(data):
            data = memoryview(data)[sent:]
            self._hurry()
            sent = self._connected.send(data)

    def _hurry(self) -> None:
        """Give the next operation as much time as the call has left."""
        wanted = self._timeout
        if wanted == 0:  # only look whether there is anything
            return
        left, told = time_left(wanted), self._told
        if left != told and (left is None or told is None or not 0 <= told - left < _SLACK):
            self._connected.settimeout(left)
            self._told = left


def _look_at(connected: Any) -> Any:
    """What tells whether anything can be read; None on Windows, which has no poll."""
    if not hasattr(select, "poll"):
        return None
    look = select.poll()
    look.register(connected.fileno(), select.POLLIN)
    return look


def _nothing() -> int:
    """What a socket without TLS has deciphered and not given out."""
    return 0
