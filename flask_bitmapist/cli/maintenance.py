"""The command that writes: `reindex`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..current import current_tracker
from .group import command
from .terminal import Picture


class Reindexed(NamedTuple):
    """The names that the registry has gained and lost."""

    registered: list[str]
    forgotten: list[str]

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    def rows(self) -> list[list[str]]:
        return [[change, name] for change, names in self._asdict().items() for name in names]

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(["change", "name"], self.rows())


@command("reindex", lambda answer: Picture(["change", "name"], answer.rows()))
def reindex() -> Reindexed:
    """Register what bitmapist, or flask-bitmapist 0.1.2, has marked.

    Names whose bitmaps have all been deleted are forgotten.

    \b
    flask bitmapist reindex
    """
    tracker = current_tracker()
    return Reindexed(tracker.reindex(), tracker.forget_emptied())
