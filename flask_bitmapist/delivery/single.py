"""The trip of a single mark: of those of one event and hour, all but the offset is packed once."""

from __future__ import annotations

from collections.abc import Sequence

from ..resp import key_bytes
from ..trip import Command, Trip
from .reliance import Reliance
from .relied_offsets import ReliedOffsets
from .unmarking import Key

_SETBIT = b"*4\r\n$6\r\nSETBIT\r\n"


class Single:
    """Sets one bit of each of some bitmaps, and asks whether what it relies on holds."""

    def __init__(self, keys: Sequence[Key], relies_on: Reliance) -> None:
        self.keys = keys
        self.relies_on = relies_on
        questions = relies_on.questions
        heads = [_SETBIT + key_bytes(key.name) for key in keys]
        #: What stands between the offsets.
        self._parts = (*heads, b"".join(questions.packed()))
        self._names: list[Command] = [("SETBIT", key.name) for key in keys]
        self._names += questions.names()

    def queue(self, pipe: Trip, offset: int, offsets: ReliedOffsets) -> None:
        """Queue all of it on `pipe`, which packs.

        :param offsets: those of mapped ids that are to be asked for.
        """
        bit = b"$%d\r\n%d\r\n$1\r\n1\r\n" % (len(str(offset)), offset)
        pipe.queue_together(self._names, bit.join(self._parts))
        offsets.ask(pipe)
