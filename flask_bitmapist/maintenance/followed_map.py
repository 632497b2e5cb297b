"""An id map that follows another server's: the same ids have the same offsets."""

from __future__ import annotations

from ..id_map.assigning import assign
from ..id_map.completing import check_complete, complete
from ..id_map.index import entry, nobody
from ..id_map.keys import BLOCK, map_keys
from ..id_map.known import State
from ..trip import replies
from .sides import Side


class FollowedMap:
    """The ids of one kind, which are to have the same offsets on both sides."""

    def __init__(self, source: Side, target: Side, kind: str) -> None:
        self._source, self._target = source, target
        self._kind = kind
        self._keys = map_keys(kind)
        #: Up to this offset both are known to agree.
        self._size = 0

    def check(self) -> None:
        """Check that the target has the ids of the source, or the first of them, or none.

        :raises ValueError: if it has others.
        """
        self._source.patiently(lambda: check_complete(self._source.client, self._keys))
        self._go(writes=False)
        self._size = 0

    def follow(self) -> None:
        """Give the target the ids that the source has. Errors are those of `check`."""
        self._go(writes=True)

    def _go(self, *, writes: bool) -> None:
        while True:
            block, begin = self._keys.block(self._size), self._size % BLOCK
            asked = [("LRANGE", block, begin, -1)]
            (theirs,), (ours,) = self._source.ask(asked), self._target.ask(asked)
            if not theirs:
                return
            for offset, pair in enumerate(zip(theirs, ours, strict=False), self._size):
                if pair[0] != pair[1] and nobody(offset) not in pair:
                    raise self._difference(offset)
            if writes and len(theirs) > len(ours):
                self._add(self._size + len(ours), theirs[len(ours) :])
            self._size += len(theirs)
            if self._size % BLOCK:  # the last block: ids that are added meanwhile can wait
                return

    def _add(self, first: int, ids: list[bytes]) -> None:
        client = self._target.client
        entries = [*map(entry, ids)]

        def added() -> list[int]:
            complete(client, self._keys, lambda: None)
            (state,) = replies(client, [("HGET", self._keys.index, "state")])
            return assign(client, self._keys, entries, State.of(state)).offsets

        offsets = self._target.patiently(added)
        for wanted, offset in enumerate(offsets, first):
            if offset != wanted:
                raise self._difference(wanted)

    def _difference(self, offset: int) -> ValueError:
        return ValueError(
            f"the {self._kind} ids of the two servers have different offsets, from {offset} on: "
            "copy to a server without mapped ids, or bring them over with "
            "flask bitmapist export and import, which give them new offsets"
        )
