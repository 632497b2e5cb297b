"""The queue of background delivery: marks that wait for the flusher."""

from __future__ import annotations

import functools
import os
import weakref
from collections import deque
from collections.abc import Iterable, Sequence

from ..marks import Settled, SettledMark, singles

#: How many marks may wait for the background thread before callers must help.
_LIMIT = 100_000
_BATCH = 5_000


class Queue:
    """A bounded queue."""

    def __init__(self) -> None:
        self._marks: deque[SettledMark] = deque()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=functools.partial(_forked, weakref.ref(self)))

    def put(self, marks: Iterable[Settled]) -> Sequence[Settled]:
        """Queue `marks`; returns those for which there is no room."""
        each = [*singles(marks)]
        room = max(0, _LIMIT - len(self._marks))
        self._marks.extend(each[:room])
        return each[room:]

    def take(self) -> list[Settled]:
        """The next marks, which leave the queue."""
        return [self._marks.popleft() for _ in range(min(_BATCH, len(self._marks)))]

    @property
    def is_long(self) -> bool:
        """Whether it fills a batch: then it is not to wait."""
        return len(self._marks) >= _BATCH

    def __len__(self) -> int:
        return len(self._marks)


def _forked(reference: weakref.ref[Queue]) -> None:
    queue = reference()
    if queue is not None:
        queue._marks = deque()  # the parent delivers what it queued
