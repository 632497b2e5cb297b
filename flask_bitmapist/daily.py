"""What a process has marked today, so that it need not mark it again."""

from __future__ import annotations

from collections.abc import Hashable

#: Ids that are remembered; beyond that it begins anew, and they are marked once more.
_LIMIT = 100_000


class Daily:
    """The ids that were marked in the current period.

    Threads share it without a lock: at worst a mark is made twice, which sets the same bit.
    """

    def __init__(self) -> None:
        self._period: Hashable = None
        self._ids: set[Hashable] = set()

    def is_first(self, id_: Hashable, period: Hashable) -> bool:
        """Whether `id_` was not asked for in `period` yet; a new period forgets the one before."""
        if period != self._period:
            self._period, self._ids = period, set()
        if id_ in self._ids:
            return False
        if len(self._ids) >= _LIMIT:
            self._ids = set()
        self._ids.add(id_)
        return True
