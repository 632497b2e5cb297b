"""How long the current call may still take, whatever it does with a server meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from time import monotonic

#: When time is up, by `time.monotonic`; None: it never is.
_end: ContextVar[float | None] = ContextVar("bitmapist_deadline", default=None)


class within:  # noqa: N801 - reads as what it is: with within(0.25):
    """Whatever the block does on our connections ends within some seconds, or raises.

    A deadline that is set already holds on. A class, because a generator would take twice as long,
    for each mark.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._token: Token[float | None] | None = None

    def __enter__(self) -> None:
        if _end.get() is None:
            self._token = _end.set(monotonic() + self._seconds)

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            _end.reset(self._token)


@contextmanager
def not_counted() -> Iterator[None]:
    """What the block takes is no part of the call's time."""
    end = _end.get()
    if end is None:
        yield
        return
    began = monotonic()
    _end.set(None)
    try:
        yield
    finally:
        _end.set(end + monotonic() - began)


def time_left(most: float | None) -> float | None:
    """Seconds that are left, but at most `most`; None: as long as it takes.

    :raises TimeoutError: when time is up.
    """
    end = _end.get()
    if end is None:
        return most
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("the call has taken as long as it may")
    return left if most is None or left < most else most


def is_set() -> bool:
    """Whether the current call has a deadline."""
    return _end.get() is not None
