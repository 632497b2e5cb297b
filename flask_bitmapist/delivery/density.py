"""Plain ids that cost more than they need to: a bitmap is as long as the largest id in it."""

from __future__ import annotations

import logging

from ..ids import PLAIN
from ..marks import Deed

logger = logging.getLogger("flask_bitmapist")

#: An id is far from others if it is above so many times the highest of so many marks before it.
_FAR, _MARKS = 64, 32
#: Below this one, a bitmap is at most 128 KiB long.
_CHEAP = 2**20
#: Of an event that has no marks yet: how many it has, and the highest id of these.
_NONE = (0, 0)


class Density:
    """Says once for each event that an id makes its bitmaps much longer than they need be.

    All it looks at are the ids that this process marks.
    """

    def __init__(self, limit: int) -> None:
        """:param limit: the largest id that nothing is said about, unless it is far from others."""
        self._limit = limit
        #: Event -> its marks so far, and the highest id of these.
        self._seen: dict[str, tuple[int, int]] = {}
        self._told: set[str] = set()

    def check(self, what: Deed, highest: int, marks: int = 1) -> None:
        """Look at `marks` of the deed `what`, with ids up to `highest`."""
        event = what.event
        if what.kind != PLAIN or event in self._told:
            return
        before, usual = self._seen.get(event, _NONE)
        if highest > self._limit:
            self._tell(what, highest, "above BITMAPIST_DENSE_LIMIT")
        elif highest > _CHEAP and before >= _MARKS and highest > _FAR * usual:
            self._tell(what, highest, f"far above all others so far (up to {usual})")
        self._seen[event] = before + marks, usual if usual > highest else highest

    def _tell(self, what: Deed, highest: int, reason: str) -> None:
        self._told.add(what.event)
        logger.warning(
            "%r is marked with an id %s: each bitmap that it is in takes %.1f MB, however few ids "
            "are in it. If there are such ids but not most of those below them, map them with "
            'BITMAPIST_ID_MAP="always"; if all are in use, raise BITMAPIST_DENSE_LIMIT',
            what.event,
            reason,
            (highest // 8 + 1) / 1e6,
        )
