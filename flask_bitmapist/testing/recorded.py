"""The marks that an application made, recorded without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import overload

from ..dimensions import choice_of, flag_of
from ..ids import normal_form
from ..marks import Mark, Settled, SettledMark, singles
from ..tracker import Tracker


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class RecordedMark:
    """One mark, as it would have been delivered.

    Equal to the `Mark` that says the same, and to the tuple that `Mark` is made from: the id may
    have any form; ``when``, ``hourly`` and ``unique`` are compared only where they are not None.
    """

    event: str
    #: An int (a plain id), or the text of a mapped one.
    id: int | str
    #: False: the mark was taken back.
    value: bool
    #: The hour for which it was marked, naive in ``BITMAPIST_TIMEZONE``; None: a flag, undated.
    hour: datetime | None
    hourly: bool
    unique: bool
    #: ``__bitmapist_ids__`` of the model; '' for the users' ids and for ids that are not mapped.
    space: str
    #: Of the dimension `event`, the value from now on; '' is none. None: `event` is no dimension.
    choice: str | None = None
    #: False: a flag, or a value of a dimension whose months are not kept.
    dated: bool = True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RecordedMark):
            return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)
        if not isinstance(other, tuple):
            return NotImplemented
        mark = Mark(*other)
        if self.choice is not None or mark.choice is not None:
            return (
                (self.event, self.choice) == (mark.event, _text(mark.choice))
                and mark.dated == self.dated
                and _is_id(self.id, mark.id)
            )
        return (
            (self.event, self.value) == (mark.event, mark.value)
            and _is_id(self.id, mark.id)
            and mark.dated == self.dated
            and self._is_at(mark.when)
            and mark.hourly in (None, self.hourly)
            and mark.unique in (None, self.unique)
        )

    def __hash__(self) -> int:
        return hash((self.event, self.id))

    def __repr__(self) -> str:
        if self.choice is not None:
            undated = "" if self.dated else "dated=False, "
            return f"Mark({self.event!r}, {self.id!r}, {undated}choice={self.choice!r})"
        if self.dated and self.value:
            return repr((self.event, self.id))
        undated = "" if self.dated else ", dated=False"
        return f"Mark({self.event!r}, {self.id!r}, {self.value}{undated})"

    def _is_at(self, when: datetime | date | None) -> bool:
        if when is None or self.hour is None:
            return when is None
        if isinstance(when, datetime):
            return self.hour == when.replace(minute=0, second=0, microsecond=0)
        return self.hour.date() == when


def _text(choice: object) -> str | None:
    return None if choice is None else choice_of(choice)


def _is_id(recorded: int | str, given: object) -> bool:
    # Compared as text too: a textual key ('7') is not the int that it spells.
    return recorded == normal_form(given) or (isinstance(given, str) and recorded == given)


class RecordedMarks(Sequence[RecordedMark]):
    """The marks made so far, in order; compared with a list of marks or of their tuples.

    ``assert marks == [("user:created", 7)]``, ``("user:created", 7) in marks``, ``not marks``.
    """

    def __init__(self) -> None:
        #: The same marks, one tuple for each batch: a commit is one, and so is a direct call.
        self.batches: list[tuple[RecordedMark, ...]] = []
        #: The ids of those who are to be erased, as their rows were deleted, in order.
        self.to_erase: list[int | str] = []

    @overload
    def __getitem__(self, index: int) -> RecordedMark: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RecordedMark]: ...
    def __getitem__(self, index: int | slice) -> RecordedMark | Sequence[RecordedMark]:
        return self._marks[index]

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return self._marks == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._marks)

    @property
    def _marks(self) -> list[RecordedMark]:
        return [mark for batch in self.batches for mark in batch]

    def of(self, event: str) -> set[int | str]:
        """The ids that `event` is marked for now, as a dated event or as a flag."""
        return self.events().get(event, set()) | self.flags().get(event, set())

    def events(self, on: date | None = None) -> dict[str, set[int | str]]:
        """The ids of each event on the day `on`, or on any day; without those taken back."""
        bits = {
            (mark.event, mark.id, mark.hour.date()): mark.value
            for mark in self._marks
            if mark.hour is not None and mark.choice is None
        }
        return _by_event(key[:2] for key, set_ in bits.items() if set_ and on in (None, key[2]))

    def flags(self) -> dict[str, set[int | str]]:
        """The ids that each flag (an undated event) is set for now.

        Each value of a dimension is one: ``user:plan=pro``.
        """
        bits = {
            (mark.event, mark.id): mark.value
            for mark in self._marks
            if mark.choice is None and (mark.hour is None or mark.unique)
        }
        chosen = {
            (mark.event, mark.id): mark.choice for mark in self._marks if mark.choice is not None
        }
        return _by_event(
            [
                *(key for key, set_ in bits.items() if set_),
                *((flag_of(event, value), id_) for (event, id_), value in chosen.items() if value),
            ]
        )

    def clear(self) -> None:
        """Forget what was recorded."""
        self.batches.clear()
        self.to_erase.clear()

    def take(self, marks: Sequence[Settled]) -> None:
        """Record `marks` as one batch."""
        listed = [*singles(marks)]
        self.to_erase += [id_ for what, id_ in listed if what.kept is not None and not what.value]
        done = [mark for mark in listed if mark[0].kept is None]
        if done:
            self.batches.append(tuple(map(_recorded, done)))


def _recorded(mark: SettledMark) -> RecordedMark:
    what, id_ = mark
    _, _, space = what.kind.partition(":")
    is_dated = what.hour is not None if what.choice is None else what.only is not None
    options = (what.value, what.hour, what.hourly, what.unique, space, what.choice, is_dated)
    return RecordedMark(what.event, id_, *options)


def _by_event(bits: Iterable[tuple[str, int | str]]) -> dict[str, set[int | str]]:
    ids: dict[str, set[int | str]] = {}
    for event, id_ in bits:
        ids.setdefault(event, set()).add(id_)
    return ids


@contextmanager
def record_marks() -> Iterator[RecordedMarks]:
    """Record the marks of every application in the process; none of them reaches a server.

    It does what `bitmapist_marks` does, for the body of a ``with``.
    """
    recorded, outer = RecordedMarks(), Tracker.recorder
    Tracker.recorder = recorded.take
    try:
        yield recorded
    finally:
        Tracker.recorder = outer
