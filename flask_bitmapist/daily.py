"""Whom a process has marked today, so that it need not mark them again."""

from __future__ import annotations

from collections.abc import Hashable

#: How many ids are remembered. Beyond that it starts over, and they are marked once more.
_LIMIT = 100_000


class Daily:
    """The ids that were marked in the current period.

    Threads share it without a lock: at worst a mark is made twice, which sets the same bit again.
    """

    def __init__(self) -> None:
        self._period: Hashable = None
        self._ids: set[Hashable] = set()

    def is_first(self, id_: Hashable, period: Hashable) -> bool:
        """Whether this is the first call for `id_` in `period`; a new period starts afresh."""
        if period != self._period:
            self._period, self._ids = period, set()
        if id_ in self._ids:
            return False
        if len(self._ids) >= _LIMIT:
            self._ids = set()
        self._ids.add(id_)
        return True

    def forget(self, id_: Hashable) -> None:
        """The next call for `id_` is the first one again."""
        self._ids.discard(id_)
