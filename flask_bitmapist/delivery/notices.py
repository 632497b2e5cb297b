"""What an application is told when delivery degrades and when it has recovered, and when: later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from blinker import NamedSignal

from .. import signals

Part = Literal["server", "spool"]


class Notices:
    """Signals that are due. They are sent where no lock is held, as receivers may do anything."""

    def __init__(self, sender: Callable[[], object]) -> None:
        """:param sender: returns the app; None: it is gone, and nobody is told."""
        self._sender = sender
        self.begin_anew()

    def begin_anew(self) -> None:
        """This process is a child, or the first: what its parent has to tell is not its own."""
        self._due: deque[tuple[NamedSignal, dict[str, str]]] = deque()

    def degraded(self, part: Part, reason: str) -> None:
        """`part` has failed for the first time since it worked."""
        self._due.append((signals.delivery_degraded, {"part": part, "reason": reason}))

    def recovered(self, part: Part) -> None:
        """`part`, which had failed, works again."""
        self._due.append((signals.delivery_recovered, {"part": part}))

    def send(self) -> None:
        """Send what is due."""
        while self._due:
            signal, told = self._due.popleft()
            if (sender := self._sender()) is not None:
                signals.send(signal, sender, **told)
