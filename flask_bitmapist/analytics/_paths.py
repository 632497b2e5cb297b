"""Who takes the steps of a path, period by period: in order or not, at any time or in a window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from operator import and_, or_

from ..periods import Period
from ..reading.bitmap import EMPTY, Bitmap
from ..reading.bitmaps import Bitmaps, sliding_unions
from ..reading.time_limit import small_step
from ._report import Scope, Users

#: For each step, for each period, who did its event.
Took = Sequence[Sequence[Bitmap]]


@dataclass(frozen=True, slots=True)
class Path:
    """Steps, each taken by its users; the first one in an entry period alone.

    :ivar entries: the periods in which the first step may be taken.
    :ivar periods: those in which the others may be, `entries` first.
    """

    users: Sequence[Users]
    entries: Sequence[Period]
    periods: Sequence[Period]

    @classmethod
    def of(cls, users: Sequence[Users], asked: Scope, within: int | None) -> Path:
        """That of the periods of a scope; the steps may take `within` periods more, if any."""
        later = (asked.periods[-1].shift(k + 1) for k in range(within or 0))
        after = [period for period in later if period <= asked.current]
        return cls(users, asked.periods, [*asked.periods, *after])

    def keys(self) -> list[str]:
        entering, *following = self.users
        return [
            *entering.keys(self.entries),
            *(key for users in following for key in users.keys(self.periods)),
        ]

    def took(self, bitmaps: Bitmaps) -> list[list[Bitmap]]:
        """For each step, for each of `periods`, who did its event."""
        entering, *following = self.users
        entered = [entering.in_period(bitmaps, period) for period in self.entries]
        return [
            entered + [EMPTY] * (len(self.periods) - len(entered)),
            *([users.in_period(bitmaps, period) for period in self.periods] for users in following),
        ]


def in_order(took: Took, *, strict: bool) -> list[Bitmap]:
    """Who reached each step."""
    reached = [EMPTY] * len(took)
    for did in zip(*took, strict=True):
        small_step(len(did))
        for k in _turns(len(took), strict):
            reached[k] |= did[k] & reached[k - 1] if k else did[k]
    return reached


def _turns(steps: int, strict: bool) -> Iterable[int]:
    """The steps in the order in which a period moves users on.

    Backwards, nobody moves by two steps in one period.
    """
    return range(steps - 1, -1, -1) if strict else range(steps)


def in_order_within(
    took: Took, within: int, closed: int, *, strict: bool
) -> tuple[list[Bitmap], list[Bitmap]]:
    """Who reached each step at most `within` periods after an entry; who did by an early one.

    :param closed: in how many periods, from the first on, an entry is early: its window is over.
    """
    periods = list(zip(*took, strict=True))
    early = Windows(took, within, strict=strict)
    for did in periods[:closed]:
        early.move(did)
    every = early.copy()
    for did in periods[closed:]:
        every.move(did)
    # An entry's window ends `within` periods later.
    for did in periods[closed : closed + within] if closed else ():
        early.move([EMPTY, *did[1:]])
    return every.reached, early.reached


class Windows:
    """Who has reached each step at most `within` periods after an entry.

    The same as running `in_order` from each entry over its window, and the union of that. But of
    all the entries by which a user can have reached a step only the latest matters, since its
    window closes last; and whoever reaches step k by it had reached k - 1 by one no earlier, so
    each step takes the latest entry over from the step before. That costs log2(within) operations
    a step and period, where the windows one by one would cost `within`.
    """

    def __init__(self, took: Took, within: int, *, strict: bool) -> None:
        self.reached = [EMPTY] * len(took)
        self._by_entry = [Entries(within + 1) for _ in took[1:]]
        self._moves, self._slots = 0, within + 1
        self._turns = _turns(len(took), strict)

    def copy(self) -> Windows:
        """Another one that goes on from here."""
        other = copy(self)
        other.reached = [*self.reached]
        other._by_entry = [entries.copy() for entries in self._by_entry]
        return other

    def move(self, did: Sequence[Bitmap]) -> None:
        """Users move on in the next period; `did` are those who did each step in it."""
        small_step(len(did) * (1 + self._slots.bit_length()))
        slot = self._moves % self._slots
        self._moves += 1
        for entries in self._by_entry:
            entries.close(slot)
        for k in self._turns:
            arrived = did[k] & self._by_entry[k - 1].open if k else did[k]
            self.reached[k] |= arrived
            if k == len(self._by_entry):
                self._finish(arrived, slot)
                continue
            if k:
                self._by_entry[k].take_over(arrived, self._by_entry[k - 1])
            else:
                self._by_entry[k].enter(arrived, slot)

    def _finish(self, users: Bitmap, slot: int) -> None:
        """`users` take the last step in the period of `slot`."""


class _Timed(Windows):
    """The same, and how many periods after an entry each user took the last step."""

    def __init__(self, took: Took, within: int, *, strict: bool) -> None:
        super().__init__(took, within, strict=strict)
        #: By the number of periods; a user who took it several times is in several of them.
        self.after = [EMPTY] * self._slots

    def _finish(self, users: Bitmap, slot: int) -> None:
        if not self._by_entry:  # the first step is the last one
            self.after[0] |= users
            return
        small_step(self._slots)
        for entered, those in self._by_entry[-1].by_slot(users):
            self.after[(slot - entered) % self._slots] |= those


class Entries:
    """The latest entry by which each user reached a step, for those whose window is `open`.

    An entry is the number of its period modulo the length of a window, kept as one bitmap over all
    users for each binary digit (bit-slicing: P. O'Neil and D. Quass, Improved query performance
    with variant indexes, SIGMOD 1997, 38-49).
    """

    def __init__(self, slots: int) -> None:
        self.open = EMPTY
        self._digits = [EMPTY] * (slots - 1).bit_length()

    def copy(self) -> Entries:
        """The same, apart from what follows."""
        other = copy(self)
        other._digits = [*self._digits]
        return other

    def close(self, slot: int) -> None:
        """Forget those who entered in `slot` when it was used before."""
        closing = self.open
        for digit, users in enumerate(self._digits):
            closing = closing & users if slot >> digit & 1 else closing - users
        self.open -= closing

    def enter(self, users: Bitmap, slot: int) -> None:
        """`users` enter in `slot`."""
        for digit, those in enumerate(self._digits):
            self._digits[digit] = those | users if slot >> digit & 1 else those - users
        self.open |= users

    def by_slot(self, users: Bitmap) -> Iterator[tuple[int, Bitmap]]:
        """Each slot in which any of `users` entered, and who did."""
        told = [(0, users)]
        for digit, those in reversed([*enumerate(self._digits)]):
            told = [
                half
                for slot, group in told
                for half in ((slot, group - those), (slot | 1 << digit, group & those))
                if half[1]
            ]
        yield from told

    def take_over(self, users: Bitmap, before: Entries) -> None:
        """`users` reach this step by the entries by which they reached the step `before`."""
        for digit, (those, told) in enumerate(zip(self._digits, before._digits, strict=True)):
            self._digits[digit] = (those - users) | (told & users)
        self.open |= users


def times_in_order(took: Took, within: int, *, strict: bool) -> list[Bitmap]:
    """For 0, 1, ... `within` periods, who took the last step so long after an entry at the soonest.

    Of all entries by which somebody takes it in a period, the latest one is the soonest before.
    """
    windows = _Timed(took, within, strict=strict)
    for did in zip(*took, strict=True):
        windows.move(did)
    return _soonest(windows.after)


def times_in_any_order(took: Took, within: int, entries: int) -> list[Bitmap]:
    """For 0, 1, ... `within` periods, whose shortest window with all steps is so many longer.

    :param entries: as in `in_any_order`.
    """
    ends = range(within + 1)
    return _soonest([in_any_order(took, width, entries, 0)[0][-1] for width in ends])


def _soonest(sets: Sequence[Bitmap]) -> list[Bitmap]:
    """Each of `sets` without those who are in an earlier one."""
    before = accumulate(sets, or_, initial=EMPTY)
    return [users - earlier for users, earlier in zip(sets, before, strict=False)]


def in_any_order(
    took: Took, within: int, entries: int, closed: int
) -> tuple[list[Bitmap], list[Bitmap]]:
    """Who took each step and all before it in the window from some entry; who took the first early.

    :param entries: in how many periods there may be entries.
    :param closed: in how many of them, from the first on, the first step is early: all windows in
        which it lies are over.
    """
    first, *others = ([*sliding_unions(step, within + 1)[:entries]] for step in took)
    early = sliding_unions(took[0][:closed], within + 1)
    return _in_some(first, others), _in_some(early, others)


def _in_some(first: Sequence[Bitmap], others: Sequence[Sequence[Bitmap]]) -> list[Bitmap]:
    """Who took each step and all before it in one window, given who took each in which."""
    reached = [EMPTY] * (1 + len(others))
    for window in zip(first, *others, strict=False):
        small_step(len(window))
        for k, users in enumerate(accumulate(window, and_)):
            reached[k] |= users
    return reached
