"""Deliveries that are to end before their process does, or when their application is gone.

An application may be dropped while its marks wait in the queue. So it is not the application that
keeps its delivery alive.
"""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol

from ..faults import contained_faults


class Ending(Protocol):
    """What has something to do at its end."""

    def end(self) -> None: ...
    def end_soon(self) -> None: ...


_unended: set[Ending] = set()


def end_with(owner: object, ending: Ending) -> None:
    """Have `ending` end when the process does, or soon after `owner` is gone.

    :param owner: nothing that `ending` needs may refer to it.
    """
    _unended.add(ending)
    # Soon: the garbage collector runs anywhere, and whatever lock it interrupts may be needed.
    weakref.finalize(owner, ending.end_soon).atexit = False


def has_ended(ending: Ending) -> None:
    """It needs nothing more."""
    _unended.discard(ending)


def _end_all() -> None:
    for ending in [*_unended]:
        with contained_faults("deliver marks"):
            ending.end()


atexit.register(_end_all)
