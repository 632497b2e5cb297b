"""The sets of users that a report counts, and the people in one of them, page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Protocol

from ..reading.bitmap import Bitmap
from ..reading.bitmaps import Bitmaps, Narrowing, parts, tally
from ..reading.time_limit import small_step
from ._report import Report, check_length

if TYPE_CHECKING:
    from ..tracker import Tracker

#: The people of a page, unless it is told.
USUAL_PAGE = 50
#: The most people of a page.
MOST_LISTED = 1_000
# Ids looked up together.
_TOGETHER = 10_000
# The bits of the longest string that Redis allows.
_MOST_USERS = 2**32


@dataclass(frozen=True, slots=True)
class People(Report):
    """The users behind a figure, one page of them.

    :ivar users: the figure: how many there are in all.
    :ivar first: the index, from 0, of the first of `ids` among them.
    :ivar ids: in the order of their offsets, as the application knows them: plain ids are ints in
        ascending order, mapped ones the texts that they were marked with, with
        ``BITMAPIST_ID_MAP="always"`` the ints among them as ints.
    """

    users: int
    first: int
    ids: list[int | str]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a user; there may be none."""
        return ["id"], [[id_] for id_ in self.ids]


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the users behind a figure are asked for.

    :raises ValueError: naming the argument that is wrong, and what is allowed.
    """

    first: int
    limit: int

    def __post_init__(self) -> None:
        check_length("first", self.first, least=0, most=_MOST_USERS)
        check_length("limit", self.limit, most=MOST_LISTED)


class Counted(Protocol):
    """What a report counts."""

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the bitmaps in which it counts."""

    @property
    def narrowing(self) -> Narrowing | None:
        """What is needed of long bitmaps; None: all of it."""

    @property
    def steps(self) -> Sequence[Sequence[str]] | None:
        """The keys that are left one after the other; None: all are needed at a time."""

    def counted(self, bitmaps: Bitmaps, within: Sequence[Bitmap]) -> list[list[int]]:
        """The counts of one part of the bitmaps, and then those of the people in each of `within`.

        All lists are of one length.
        """


def counts(client: Any, asked: Counted) -> list[int]:
    """All that `asked` counts.

    :param client: any redis-py compatible client.
    """
    return tally(
        client,
        asked.keys,
        lambda part: asked.counted(part, [])[0],
        asked.narrowing,
        uses_of([asked]),
    )


def uses_of(every: Iterable[Counted]) -> Mapping[str, int] | None:
    """How often several reports leave each key; None if some report needs all of them at a time."""
    uses, lasting = Counter[str](), set[str]()
    for asked in every:
        if asked.steps is None:
            return None
        passing = Counter(chain.from_iterable(asked.steps))
        uses += passing
        lasting |= {*asked.keys} - passing.keys()
    # What one of them looks at again is kept, whatever the others do.
    return {key: times for key, times in uses.items() if key not in lasting}


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets behind the figures of a report: it counts them, and tells who is in them.

    :ivar tracker: whose users.
    :ivar keys: the keys of the bitmaps that they are made of.
    :ivar make: makes them of one part of the bitmaps; always as many, in the same order.
    :ivar steps: for each set the keys that are done with when it has been asked for; None: any
        may be looked at again.
    """

    tracker: Tracker
    keys: Sequence[str]
    make: Callable[[Bitmaps], Iterable[Bitmap]]
    steps: Sequence[Sequence[str]] | None = None

    @property
    def narrowing(self) -> None:
        """All of the bitmaps is needed."""

    def counts(self) -> list[int]:
        """How many users each has."""
        return counts(self.tracker.reader.redis, self)

    def counted(self, bitmaps: Bitmaps, within: Sequence[Bitmap]) -> list[list[int]]:
        lists: list[list[int]] = [[] for _ in range(1 + len(within))]
        steps = repeat(()) if self.steps is None else self.steps
        # A set at a time, since all of them may be many times as large as the bitmaps.
        for users, keys in zip(self.make(bitmaps), steps, strict=self.steps is not None):
            small_step(len(lists))
            for counted, size in zip(lists, (len(users), *map(users.common, within)), strict=True):
                counted.append(size)
            bitmaps.leave(keys)
        return lists


@dataclass(frozen=True, slots=True)
class Crowd:
    """The users behind one figure of a report.

    :ivar sets: the sets of the report.
    :ivar pick: takes the figure's set of these, or makes it.
    :ivar kind: that of the users' ids.
    """

    sets: Sets
    pick: Callable[[Iterable[Bitmap]], Bitmap]
    kind: str

    def page(self, page: Page) -> People:
        """One page of them.

        Every part is counted, but only those that the page overlaps are spelt out, so that neither
        the memory nor the ids looked up depend on how many users there are.
        """
        users, offsets = 0, list[int]()
        for first_offset, here in self._parts():
            begin, end = page.first - users, page.first + page.limit - users
            found = len(here)
            users += found
            if begin < found and end > 0:
                offsets += (here.ids()[max(begin, 0) : end] + first_offset).tolist()
        return People(users, page.first, self._ids(offsets))

    def everyone(self) -> Iterator[list[int | str]]:
        """All of them, in lists of a bounded length, read once."""
        for first_offset, here in self._parts():
            offsets = here.ids() + first_offset
            for begin in range(0, len(offsets), _TOGETHER):
                yield self._ids(offsets[begin : begin + _TOGETHER].tolist())

    def others(self, key: str) -> Crowd:
        """Those in the bitmap `key`, whose ids are of the same kind, without these."""
        sets = Sets(
            self.sets.tracker,
            [*self.sets.keys, key],
            lambda part: [part[key] - self.pick(self.sets.make(part))],
        )
        return Crowd(sets, only, self.kind)

    def _parts(self) -> Iterator[tuple[int, Bitmap]]:
        """Those of each part of the range of offsets, with its first offset."""
        for part in parts(self.sets.tracker.reader.redis, self.sets.keys):
            yield part.first_offset, self.pick(self.sets.make(part))

    def _ids(self, offsets: list[int]) -> list[int | str]:
        return self.sets.tracker.reader.identifiers_at(offsets, self.kind)


def nth(index: int) -> Callable[[Iterable[Bitmap]], Bitmap]:
    """Picks the set at `index`; later ones are not built if they are built one by one."""
    return lambda sets: next(islice(sets, index, None))


#: Takes the set of a report that has one.
only = nth(0)
