"""The cohort table of two events with rates and pooled averages, as the dashboard shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ..marking import current_tracker
from ..periods import Grain, Period, local
from .cohort import CohortRow, cohort_rows

if TYPE_CHECKING:
    from ..marking import Tracker

State = Literal["complete", "open", "future"]


@dataclass(frozen=True, slots=True)
class Cell:
    """How many of a cohort came back, and as a share of it (None: nobody to come back, or future).

    An open cell's period is still running: it may grow.
    """

    users: int | None
    rate: float | None
    state: State


@dataclass(frozen=True, slots=True)
class Row:
    """The cohort of one period; cell k is what it did k periods later."""

    start: datetime
    size: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class CohortTable:
    """The rows in time order, and per column the average over its complete cells.

    `largest` is the largest rate of those who came back later (k >= 1): the top of a colour scale.
    """

    by: Grain
    as_of: datetime
    rows: tuple[Row, ...]
    size: int
    average: tuple[float | None, ...]
    largest: float


def cohort_table(
    cohort: str,
    returned: str,
    by: Grain = "week",
    rows: int = 12,
    columns: int = 12,
    *,
    now: datetime | None = None,
    tracker: Tracker | None = None,
) -> CohortTable:
    """Of those who did `cohort` in a period, how many did `returned` k periods later.

    The average of a column is pooled: the users of its complete cells over the sizes of their rows.

    :param cohort: the event whose users in a period form a row.
    :param returned: the event by which they come back.
    :param by: the length of a period.
    :param rows: 1 to 1000; the last row is the current period.
    :param columns: 1 to 1000; k = 0, 1, ...
    :param now: the moment as of which to report; None is now.
    :param tracker: whose events; None is the current application's.
    :raises ValueError: an argument is none of those allowed.
    :raises redis.RedisError: the server does not answer.
    """
    tracker = tracker or current_tracker()
    moment = tracker.now() if now is None else local(now, tracker.settings.timezone)
    current = Period.containing(by, moment)
    counted = cohort_rows(
        tracker.redis, cohort, [[returned]], last=current, rows=rows, columns=columns
    )
    table = tuple(_row(row, current) for row in counted)
    average = tuple(_average(table, k) for k in range(columns))
    largest = max((cell.rate or 0.0 for row in table for cell in row.cells[1:]), default=0.0)
    return CohortTable(by, moment, table, sum(row.size for row in table), average, largest)


def _row(row: CohortRow, current: Period) -> Row:
    cells = tuple(
        _cell(users, row.size, is_open=row.period.shift(k) == current)
        for k, users in enumerate(row.users)
    )
    return Row(row.period.start, row.size, cells)


def _cell(users: int | None, size: int, *, is_open: bool) -> Cell:
    if users is None:
        return Cell(None, None, "future")
    return Cell(users, users / size if size else None, "open" if is_open else "complete")


def _average(rows: tuple[Row, ...], k: int) -> float | None:
    complete = [row for row in rows if row.size and row.cells[k].state == "complete"]
    size = sum(row.size for row in complete)
    return sum(row.cells[k].users or 0 for row in complete) / size if size else None
