"""The offsets of mapped ids in a batch, and how a trip checks that they still hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..id_map import Offsets
from ..id_map.keys import map_keys
from ..id_map.known import Known, State
from ..id_map.promoting import PROMOTIONS


class ReliedOffsets(dict[str, dict[str, int]]):
    """Kind -> id -> offset."""

    def __init__(self) -> None:
        super().__init__()
        self._states: list[tuple[Known, State]] = []
        #: By kind: what `PROMOTIONS` was when the offsets of visitors were looked up.
        self._promotions: dict[str, bytes | None] = {}
        #: Whether `hold` has found that a visitor may have become a user since.
        self.is_overtaken = False

    def add(self, offsets: Offsets) -> None:
        """Rely on `offsets`, too."""
        if offsets.state is not None:
            self.setdefault(offsets.known.kind, {}).update(offsets)
            self._states.append((offsets.known, offsets.state))
            if offsets.has_visitors:
                self._promotions.setdefault(offsets.known.kind, offsets.promotions)

    @property
    def has_visitors(self) -> bool:
        """Whether some are those of visitors."""
        return bool(self._promotions)

    @property
    def questions(self) -> int:
        """How many commands `ask` queues."""
        return len(self._states) + len(self._promotions)

    def ask(self, pipe: Any) -> None:
        """Queue the questions; `hold` takes the replies."""
        for known, state in self._states:
            pipe.repeat_command("HMGET", map_keys(known.kind).index, state.field, "state")
        for kind in self._promotions:
            pipe.repeat_command("HMGET", map_keys(kind).index, PROMOTIONS)

    def expected(self) -> list[tuple[str, str, bytes]]:
        """What `hold` looks for: the index of a map, its field, and what that is to have."""
        states = [
            (map_keys(known.kind).index, state.field, state.text) for known, state in self._states
        ]
        promotions = self._promotions.items()
        return states + [
            (map_keys(kind).index, PROMOTIONS, held or b"") for kind, held in promotions
        ]

    def hold(self, replies: Sequence[Any]) -> bool:
        """Whether the server has been in the states in which the offsets hold."""
        rest = iter(replies)
        for (known, state), (since, now) in zip(self._states, rest, strict=False):
            if since != state.text:
                return False
            if now != since:
                known.advance(state, State.of(now))
        self.is_overtaken = [*rest] != [[held] for held in self._promotions.values()]
        return not self.is_overtaken
