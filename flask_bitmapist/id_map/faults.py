"""What can be wrong with a map."""

from __future__ import annotations

import redis


class DamagedMapError(redis.ResponseError):
    """The id map has lost something that only a backup can restore."""

    def __init__(self, told: str) -> None:
        super().__init__(f"the id map is damaged: {told}")


class IncompleteMapError(redis.ResponseError):
    """The id map cannot be read yet."""

    def __init__(self, index: str) -> None:
        super().__init__(
            f"the id map is not complete: {index} lacks ids. Run: flask bitmapist reindex"
        )


class OvertakenError(Exception):
    """What ids are looked up under, a `Proviso`, no longer holds."""


class HistoryChangedError(Exception):
    """The server no longer has the state in which a process has seen the map."""
