"""A slow network: proxies in front of a real server that hold back what it replies."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

#: How a proxy hands on what the server sent.
Pace = Callable[[socket.socket, bytes], None]


def at_once(client: socket.socket, data: bytes) -> None:
    client.sendall(data)


def late(client: socket.socket, data: bytes) -> None:
    """Each reply takes a fifth of a second."""
    time.sleep(0.2)
    client.sendall(data)


def dripping(client: socket.socket, data: bytes) -> None:
    """A byte now and then."""
    for byte in data:
        time.sleep(0.2)
        client.sendall(bytes([byte]))


def never(client: socket.socket, data: bytes) -> None:
    pass


class Proxy:
    """Listens on `address` (a port, or the path of a socket) for the server at `upstream`."""

    def __init__(self, upstream: Path | int, address: Path | int = 0, host: str = "127.0.0.1"):
        self.pace: Pace = at_once
        self._upstream = upstream
        if isinstance(address, Path):
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(os.fspath(address))
            self._listener.listen()
        else:
            self._listener = socket.create_server((host, address))
        self._tls: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def use_tls(self, certificate: Path) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def close(self) -> None:
        # accept() goes on in its thread otherwise.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, client: Any) -> None:
        with suppress(OSError), closing(client), closing(self._connected()) as server:
            if self._tls is None:
                self._relay_between(client, server)
            else:
                with closing(self._tls.wrap_socket(client, server_side=True)) as client:
                    self._relay_between(client, server)

    def _relay_between(self, client: Any, server: socket.socket) -> None:
        while True:
            pending = client.pending() if self._tls is not None else 0
            ready, _, _ = select.select([client, server], [], [], 0 if pending else None)
            if (pending or client in ready) and not self._hand(client, server, at_once):
                return
            if server in ready and not self._hand(server, client, self.pace):
                return

    @staticmethod
    def _hand(giver: Any, taker: Any, pace: Pace) -> bool:
        data = giver.recv(65_536)
        if data:
            pace(taker, data)
        return bool(data)

    def _connected(self) -> socket.socket:
        if isinstance(self._upstream, int):
            return socket.create_connection(("127.0.0.1", self._upstream))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(os.fspath(self._upstream))
        except OSError:
            server.close()
            raise
        return server


@contextmanager
def serving(proxy: Proxy) -> Iterator[Proxy]:
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
