"""The offsets of mapped ids in a batch, and how a trip checks that they still hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..id_map import Offsets
from ..id_map.keys import map_keys
from ..id_map.known import Known, State


class ReliedOffsets(dict[str, dict[str, int]]):
    """Kind -> id -> offset."""

    def __init__(self) -> None:
        super().__init__()
        self._states: list[tuple[Known, State]] = []

    def add(self, offsets: Offsets) -> None:
        """Rely on `offsets`, too."""
        if offsets.state is not None:
            self.setdefault(offsets.known.kind, {}).update(offsets)
            self._states.append((offsets.known, offsets.state))

    @property
    def questions(self) -> int:
        """How many commands `ask` queues."""
        return len(self._states)

    def ask(self, pipe: Any) -> None:
        """Queue the questions; `hold` takes the replies."""
        for known, state in self._states:
            pipe.repeat_command("HMGET", map_keys(known.kind).index, state.field, "state")

    def hold(self, replies: Sequence[Any]) -> bool:
        """Whether the server has been in the states in which the offsets hold."""
        for (known, state), (since, now) in zip(self._states, replies, strict=True):
            if since != state.text:
                return False
            if now != since:
                known.advance(state, State.of(now))
        return True
