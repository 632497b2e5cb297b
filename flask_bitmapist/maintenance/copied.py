"""What a copy tells: what there is to copy, and what was copied."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Survey:
    """What there is to copy.

    :ivar bitmaps: how many, packed ones included.
    :ivar bytes: how long they are together.
    :ivar packed: how many of them are packed.
    :ivar skipped: keys with the prefix that are no bitmaps of events.
    """

    bitmaps: int = 0
    bytes: int = 0
    packed: int = 0
    skipped: int = 0
    events: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {**asdict(self), "events": len(self.events)}


@dataclass(slots=True)
class Copied:
    """What a copy has done.

    :ivar bitmaps: how many were compared in the last pass, and how many `bytes` they have.
    :ivar source_bits: their bits on the source.
    :ivar target_bits: those on the target; more, if the target has marks of its own.
    :ivar written: how many bitmaps lacked bits and were sent them, in all passes.
    :ivar skipped: keys with the prefix that are no bitmaps of events.
    :ivar passes: how often all keys were gone through.
    :ivar still_marked: bitmaps that got new bits even in the last pass.
    :ivar unequal: bitmaps that lacked bits after these had been sent, and keys under which the
        target has something else.
    :ivar erased_meanwhile: somebody has been erased from the source during the copy, or since an
        earlier one.
    :ivar slots_moved: slots of the source's cluster moved even in the last pass, so that keys may
        have been missed: one that goes to a node whose keys have been listed is not found.
    """

    bitmaps: int = 0
    bytes: int = 0
    source_bits: int = 0
    target_bits: int = 0
    written: int = 0
    skipped: int = 0
    passes: int = 0
    still_marked: int = 0
    unequal: list[str] = field(default_factory=list)
    erased_meanwhile: bool = False
    slots_moved: bool = False

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return asdict(self)

    @property
    def is_wanting(self) -> bool:
        """Whether the target may lack bits, or have those of somebody who was erased."""
        return bool(self.unequal) or self.erased_meanwhile or self.slots_moved
