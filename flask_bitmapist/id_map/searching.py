"""Looks ids up in the index, which may have grown since the process last saw it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .faults import HistoryChangedError
from .index import buckets, entry, offset_in, stored
from .keys import map_keys
from .known import State
from .promoting import PROMOTIONS


class Search:
    """A search for the offsets of ids of one kind: `command` and `take`, until it `is_over`."""

    def __init__(self, kind: str, ids: Iterable[str], size: int, since: State | None) -> None:
        """
        :param size: how many ids the index had, as far as that is known.
        :param since: the state that has to be in the past of what is found.
        """
        self.kind = kind
        #: The state in which the offsets were found; None: there is no complete index.
        self.state = since
        #: What `PROMOTIONS` was when the first of them were looked for.
        self.promotions: bytes | None = None
        self.found: dict[str, int] = {}
        self._size = size
        #: Each of the ids as it would be entered.
        self.entries = {id_: entry(stored(id_)) for id_ in ids}
        self._left = {id_: digest for id_, (_, digest) in self.entries.items()}
        self._buckets: list[int] = []
        self._read: list[int] = []
        self._has_read = False

    @property
    def is_over(self) -> bool:
        """Whether all ids that have an offset are `found`."""
        return not self._left

    def command(self) -> tuple[Any, ...]:
        """What reads the buckets in which the ids should be."""
        self._buckets = [*buckets(self._left.values(), self._size)]
        self._read = [*dict.fromkeys(self._buckets)]
        since = "state" if self.state is None else self.state.field
        return ("HMGET", map_keys(self.kind).index, "state", since, PROMOTIONS, *self._read)

    def take(self, reply: Sequence[Any]) -> None:
        """Take the reply to `command`.

        :raises HistoryChangedError: if the map has not been in the state `since`.
        """
        text, since, promotions, *held = reply
        if self.state is not None and since != self.state.text:
            raise HistoryChangedError
        if text is None:
            self._left = {}
            return
        self.state = State.of(text)
        if not self._has_read:
            self._has_read, self.promotions = True, promotions
        records = dict(zip(self._read, held, strict=True))
        now: Iterable[int] = self._buckets
        if self.state.size != self._size:
            now = buckets(self._left.values(), self.state.size)
        left = {}
        for (id_, wanted), number, later in zip(
            self._left.items(), self._buckets, now, strict=True
        ):
            offset = offset_in(records[number], wanted)
            if offset is not None:
                self.found[id_] = offset
            elif later != number:
                left[id_] = wanted
        self._left, self._size = left, self.state.size
