"""Deliveries that are to end before their process does, or when their application is gone.

An application may be dropped while its marks wait in the queue. So it is not the application that
keeps its delivery alive.
"""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from contextlib import suppress
from typing import Protocol

from ..faults import contained_faults


class Ending(Protocol):
    """What has something to do at its end."""

    def end(self) -> None: ...
    def end_soon(self) -> None: ...


_unended: set[Ending] = set()
#: Those that nobody needs any more and that have only files to let go of.
_idle: deque[Ending] = deque()


def end_with(owner: object, ending: Ending) -> None:
    """Have `ending` end when the process does, or soon after `owner` is gone.

    :param owner: nothing that `ending` needs may refer to it.
    """
    with suppress(IndexError):  # another thread may end the last of them
        while True:
            _end(_idle.popleft())
    _unended.add(ending)
    weakref.finalize(owner, ending.end_soon).atexit = False


def end_with_next(ending: Ending) -> None:
    """Have it end when the next one is made. The garbage collector may call this."""
    _idle.append(ending)


def has_ended(ending: Ending) -> None:
    """It needs nothing more."""
    _unended.discard(ending)


def _end_all() -> None:
    for ending in [*_unended]:
        _end(ending)


def _end(ending: Ending) -> None:
    with contained_faults("deliver marks"):
        ending.end()


atexit.register(_end_all)
