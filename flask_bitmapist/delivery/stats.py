"""What became of the marks of one process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..locks import Lock

Outcome = Literal["sent", "spooled", "replayed", "refused", "dropped", "resent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What became of this process's marks, and what waits in the spool that processes share."""

    #: Written as they were made.
    sent: int = 0
    #: Put into the spool because the server did not answer.
    spooled: int = 0
    #: Written from the spool, whichever process put them there.
    replayed: int = 0
    #: Refused for good: the id's kind differs from the event's, or it is too large. The log names
    #: them.
    refused: int = 0
    #: Lost: there was no spool, it could not be written to, it had no more room, or held a row that
    #: cannot be read.
    dropped: int = 0
    #: Sent again because the server had lost them since, or may have. They are counted once more as
    #: spooled, and as replayed.
    resent: int = 0
    #: Now kept apart: how many, by a sentence that says why the server refuses them.
    waiting: Mapping[str, int] = field(default_factory=dict)
    #: ``open``: the server failed a moment ago and is not tried.
    breaker: Literal["closed", "open"] = "closed"
    # Of all processes that share the spool, and so no part of what this one has done.
    #: Now waiting in the spool for the server to be back.
    backlog: int = field(default=0, compare=False)
    #: Damaged files of the spool that were set aside, and are still there.
    set_aside: int = field(default=0, compare=False)


class Outcomes:
    """Counts the marks of this process, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._counts: Counter[Outcome] = Counter()

    def add(self, outcome: Outcome, marks: int) -> None:
        with self._lock:
            self._counted()[outcome] += marks

    def __getitem__(self, outcome: Outcome) -> int:
        with self._lock:
            return self._counted()[outcome]

    def _counted(self) -> Counter[Outcome]:
        if self._process != os.getpid():  # a child, which Python need not have been told of
            self._begin()
        return self._counts
