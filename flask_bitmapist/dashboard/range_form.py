"""The range that a page shows, as it was asked for and as dates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

from ..periods import Grain, Period
from ..ranges import MOST_YEARS, Between, Containing, Last, Named, Range
from . import drawing
from .query import FIRST_REPORTED_YEAR, FIRST_YEAR

#: The most periods that a page shows, unless it says otherwise.
MOST_PERIODS = 366
#: The ranges that a form offers.
PRESETS = (
    "today",
    "yesterday",
    "last 7 days",
    "last 28 days",
    "last 90 days",
    "last 12 weeks",
    "last 12 months",
    "this week",
    "last week",
    "this month",
    "last month",
    "this quarter",
    "last quarter",
    "this year",
    "last year",
)


def up_to_now(number: int, by: Grain) -> str:
    """So many periods, the last of which is the present one, in words; of years at most 100."""
    number = min(number, MOST_YEARS) if by == "year" else number
    return str(Range.parse(f"last {number} {by}" if number > 1 else f"this {by}"))


def up_to(number: int, last: Period) -> date:
    """The first day of so many periods up to the `last` one; of years at most 100."""
    number = min(number, MOST_YEARS) if last.grain == "year" else number
    return last.shift(1 - number).start.date()


def words_of(over: str | None, start: date | None, end: date | None) -> str:
    """A range that a form has asked for, in words."""
    if over is not None:
        return over
    return f"since {start}" if end is None else f"{start} to {end}"


@dataclass(frozen=True, slots=True)
class ShownRange:
    """The periods that a page shows.

    :ivar words: what the question is asked.
    :ivar now: naive, in the application's calendar.
    """

    words: str
    first: Period
    last: Period
    now: datetime

    @classmethod
    def of(cls, words: str, by: Grain, now: datetime, containing: Containing) -> ShownRange:
        """
        :raises ValueError: if it is not a range, has no beginning, or has not begun.
        """
        first, last = Range.parse(words).periods(by, now, containing)
        if last < first:
            raise ValueError(f"The range {words!r} has not begun.")
        return cls(words, first, last, now)

    def check(self, most: int) -> None:
        """
        :raises ValueError: if it has more than `most` periods, or lies before there were any users.
        """
        begin, end = self.days
        if begin.year < FIRST_REPORTED_YEAR or end.year < FIRST_YEAR:
            raise ValueError(
                f"A range begins in {FIRST_REPORTED_YEAR} or later, and ends in {FIRST_YEAR} or "
                f"later: not {begin} to {end}."
            )
        if self.number(most) > most:
            raise ValueError(
                f"From {begin} to {end} are more than {most} {self.first.grain}s, the most of this "
                "page: take a shorter range, or longer periods."
            )

    def number(self, most: int) -> int:
        """How many periods it has; one more than `most` if it has more."""
        return sum(1 for _ in islice(self.first.until(self.last), most + 1))

    @property
    def days(self) -> tuple[date, date]:
        """Its first and its last day, today at the latest."""
        end = self.last.end - timedelta(microseconds=1)
        return self.first.start.date(), min(end, self.now).date()

    @property
    def is_relative(self) -> bool:
        """Whether it is another one tomorrow, or next month."""
        return not isinstance(Range.parse(self.words), Named | Between)

    @property
    def dates(self) -> str:
        """Its first and its last day: 28 Sep to 1 Nov 2026."""
        begin, end = self.days
        if begin == end:
            return drawing.full_label(begin, "day")
        return f"{drawing.label(begin, 'day', end.year)} to {drawing.full_label(end, 'day')}"

    @property
    def adverb(self) -> str:
        """In the last 28 days; on 2 Nov 2026; from 28 Sep to 1 Nov 2026."""
        by = self.first.grain
        if self.first == self.last:
            return drawing.when(self.first.start, by)
        if self.words and isinstance(Range.parse(self.words), Last):
            return f"in the {self.words}"
        return f"from {self.dates}"
