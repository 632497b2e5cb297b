"""The two servers of a copy, each of which may fail, and is waited for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ..cluster import Slots, slots_of
from ..config import Settings
from ..refusals import SERVER_ERRORS, UnfitServerError, refusal
from ..server import Server
from ..trip import Trip, replies
from .runs import PATIENCE, patiently


@contextmanager
def client_at(url: str, settings: Settings, instance_path: str, *, writes: bool) -> Iterator[Any]:
    """A client of the server, or cluster, at `url`; its connections are closed at the end.

    :param writes: False also accepts a server that cannot hold the application's data.
    :raises ValueError: if `url` is not such a URL. Nothing is sent.
    :raises UnfitServerError: if it cannot hold the data.
    """
    if urlsplit(url).scheme not in ("redis", "rediss", "unix", "embedded"):
        raise ValueError("the URL must begin with redis://, rediss://, unix:// or embedded:///")
    try:
        server = Server.of(replace(settings, redis_url=url), instance_path)
    except ValueError as error:
        raise ValueError(str(error).replace("BITMAPIST_REDIS_URL", "the URL")) from None
    try:
        yield _client_of(server, writes=writes)
    finally:
        server.close()


def _client_of(server: Server, *, writes: bool) -> Any:
    try:
        return server.patient
    except UnfitServerError:
        if writes:
            raise
        return server.client


class FaultError(Exception):
    """One of the two servers failed for good: the message says which one."""


class Side:
    """One of the two servers."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.client = client

    def patiently(self, call: Callable[[], Any]) -> Any:
        """The result of `call`, which may be repeated, once the server answers.

        :raises FaultError: if it has not answered for a minute.
        """
        try:
            return patiently(call, PATIENCE)
        except SERVER_ERRORS as error:
            told = refusal(error, self.name) or f"{self.name} does not answer: {error}"
            if not told.startswith(self.name):
                told = f"{self.name}: {told}"
            raise FaultError(told.replace("BITMAPIST_REDIS_URL", "its URL")) from error

    def ask(self, commands: Collection[tuple[Any, ...]]) -> list[Any]:
        """The replies to reading `commands`."""
        listed = [*commands]
        if not listed:
            return []
        found: list[Any] = self.patiently(lambda: replies(self.client, listed))
        return found

    def write(self, pipe: Trip) -> None:
        """Send the commands of `pipe`, which may be sent twice."""

        def sent() -> None:
            pipe.execute()
            pipe.check()

        if len(pipe):
            self.patiently(sent)

    def slots(self) -> Slots:
        """As `slots_of`. Errors are those of `patiently`."""
        found: Slots = self.patiently(lambda: slots_of(self.client))
        return found

    def lengths(self, keys: Iterable[str]) -> list[int | None]:
        """The bytes under each of `keys`; None: it is not a string."""
        listed = [*keys]

        def asked() -> list[Any]:
            pipe = Trip(self.client)
            for key in listed:
                pipe.execute_command("STRLEN", key)
            told = pipe.execute() if listed else []
            if any(isinstance(one, Exception) and "WRONGTYPE" not in str(one) for one in told):
                pipe.check()
            return told

        told = self.patiently(asked)
        return [None if isinstance(one, Exception) else one for one in told]

    def keys(self, listed: Callable[[Any], Iterator[str]]) -> Iterator[str]:
        """The keys that `listed` finds; all of them again, if the server fails in between."""
        while True:
            try:
                yield from listed(self.client)
            except SERVER_ERRORS:
                # A SCAN cannot go on: a server that was started again has another order of keys.
                self.patiently(lambda: next(listed(self.client), None))
            else:
                return
