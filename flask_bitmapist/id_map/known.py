"""What a process knows of a map, and in which state of the map that holds.

Each time a map grows, it enters a new state with a random name. If the server remembers a state
that a process has seen, nothing from before it was lost, so the offsets that the process knew then
still hold. One look is enough for any number of offsets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from secrets import token_hex
from typing import NamedTuple

from ..locks import Lock

#: Identifiers kept in the process, of each kind: about 20 MB when full.
CACHE_SIZE = 100_000
#: How many states a map remembers: that of size n replaces that of size n - 256.
STATES = 256


class State(NamedTuple):
    """A state of a map."""

    #: How many ids it has.
    size: int
    #: Size and a random name, as the server keeps them.
    text: bytes

    @classmethod
    def of(cls, text: bytes) -> State:
        return cls(int(text.partition(b":")[0]), text)

    @classmethod
    def new(cls, size: int) -> State:
        """A state that no map has been in before."""
        return cls(size, f"{size}:{token_hex(6)}".encode())

    @property
    def field(self) -> str:
        """The field of the index that remembers it."""
        return f"state{self.size % STATES}"

    @staticmethod
    def fields() -> list[str]:
        """All that a `field` can be."""
        return [f"state{number}" for number in range(STATES)]


class Known:
    """The offsets of ids of one kind that a process knows, and the state in which they hold."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        #: None: nothing is known.
        self.state: State | None = None
        # In the order in which they were learnt. Taking the oldest from a dict would get slower and
        # slower: removals leave gaps at its front, which are searched each time.
        self.offsets: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()

    def advance(
        self, since: State | None, now: State, found: Mapping[str, int] | None = None
    ) -> None:
        """Move what is known from the state `since` to the later one `now`, and add `found`.

        Nothing is remembered if another thread has been faster: both may not have seen the same
        history.
        """
        with self._lock:
            if self.state != since:
                return
            self.state = now
            self.offsets.update(found or {})
            while len(self.offsets) > CACHE_SIZE:
                self.offsets.popitem(last=False)
