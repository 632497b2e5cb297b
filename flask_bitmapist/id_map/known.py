"""What a process knows of a map, and in which history of the server it holds.

Each time a map grows, it enters a new state, whose name nobody can guess. Where a state is found
again, all has happened that had happened when a process saw it: the offsets that it knew then hold.
So one look tells of any number of offsets.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from secrets import token_hex
from typing import NamedTuple

from ..locks import Lock

#: Identifiers kept in the process, of each kind: about 20 MB when full.
CACHE_SIZE = 100_000
#: States that a map remembers: those of its sizes by this modulus.
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
        """Where the index remembers it."""
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
        """What is known of the state `since` holds `now`, which is later, and so does `found`.

        It is not remembered if another thread has been faster: who knows whether both have seen the
        same history.
        """
        with self._lock:
            if self.state != since:
                return
            self.state = now
            self.offsets.update(found or {})
            while len(self.offsets) > CACHE_SIZE:
                self.offsets.popitem(last=False)
