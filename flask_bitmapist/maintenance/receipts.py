"""What an erasure tells of what it has done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from ..packed_periods import days_of
from .stored import event_of


class ErasedEvent(NamedTuple):
    """What was erased of one event."""

    event: str
    #: The first and the last day of the periods that had a bit; None: only the undated one had.
    first: date | None
    last: date | None
    #: How many bits were set in hours, days, weeks and months, and in the undated bitmap.
    bits: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased of one person, or of several together. It does not say whom.

    :ivar moment: the erasure's, by the server's clock. Marks made before it do not come back. None:
        nothing was done.
    :ivar events: what had a bit, by name.
    :ivar kept: events that were left as they were.
    :ivar entries: how many entries of id maps are gone.
    :ivar people: how many persons these were.
    """

    moment: datetime | None
    events: list[ErasedEvent] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    entries: int = 0
    people: int = 1

    @classmethod
    def of(
        cls,
        moment: int | None,
        found: Mapping[str, int],
        kept: Iterable[str],
        entries: int,
        people: int,
    ) -> Receipt:
        """The receipt of what was found.

        :param moment: in microseconds since the epoch.
        :param found: how many bits under which key.
        """
        by_event: dict[str, dict[str, int]] = {}
        for key, bits in found.items():
            by_event.setdefault(str(event_of(key)), {})[key] = bits
        return cls(
            None if moment is None else datetime.fromtimestamp(moment / 1e6, UTC),
            [_erased(event, of_event) for event, of_event in sorted(by_event.items())],
            sorted(kept),
            entries,
            people,
        )

    @classmethod
    def of_all(cls, receipts: Sequence[Receipt]) -> Receipt:
        """The one receipt for the people of all `receipts`."""
        by_event: dict[str, list[ErasedEvent]] = {}
        for event in (event for receipt in receipts for event in receipt.events):
            by_event.setdefault(event.event, []).append(event)
        moments = [receipt.moment for receipt in receipts if receipt.moment is not None]
        return cls(
            max(moments, default=None),
            [
                ErasedEvent(
                    name,
                    min((one.first for one in parts if one.first is not None), default=None),
                    max((one.last for one in parts if one.last is not None), default=None),
                    sum(one.bits for one in parts),
                )
                for name, parts in sorted(by_event.items())
            ],
            sorted({name for receipt in receipts for name in receipt.kept}),
            sum(receipt.entries for receipt in receipts),
            sum(receipt.people for receipt in receipts),
        )

    @property
    def bits(self) -> int:
        """How many bits were cleared."""
        return sum(event.bits for event in self.events)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        return {
            "moment": None if self.moment is None else self.moment.isoformat(),
            "people": self.people,
            "bits": self.bits,
            "entries": self.entries,
            "kept": self.kept,
            "events": [
                {
                    **event._asdict(),
                    "first": event.first and event.first.isoformat(),
                    "last": event.last and event.last.isoformat(),
                }
                for event in self.events
            ],
        }


def _erased(event: str, bits: Mapping[str, int]) -> ErasedEvent:
    spans = [(first, end - timedelta(days=1)) for first, end in filter(None, map(days_of, bits))]
    days = {first for first, last in spans if first == last}
    # A week or month counts only if none of its days is left.
    told = [span for span in spans if not any(span[0] <= day <= span[1] for day in days)]
    return ErasedEvent(
        event,
        min([*days, *(first for first, _ in told)], default=None),
        max([*days, *(last for _, last in told)], default=None),
        sum(bits.values()),
    )
