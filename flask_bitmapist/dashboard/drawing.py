"""How figures are drawn and written: plots, heat steps, labels.

Plots are measured in per cent of their box, from its top left corner, so that a page can stretch
the box without stretching the text of the axes. The points of lines are SVG's ``x,y`` pairs in a
box of 1000 by 1000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate, groupby
from math import ceil, floor, log10
from typing import Generic, TypeVar

from ..periods import Grain

_Point = TypeVar("_Point")

#: The stylesheet has the classes q0 .. q20.
HEAT_STEPS = 20
#: Half the width of what is drawn of a point without neighbours.
_DASH = 0.4
#: How many labels the horizontal axis of a plot has room for on a telephone.
_LABELS = 5
#: The most curves of a plot beside that of the whole: the stylesheet has the classes c0 .. c6.
MOST_CURVES = 6
#: What marks the curves of a plot, apart from their colours; that of the whole has none.
MARKS = {
    "c1": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "c2": "M-3.5-3.5h7v7h-7z",
    "c3": "M0-5L5 4H-5z",
    "c4": "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "c5": "M0 5L5-4H-5z",
    "c6": "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
}
#: The share of its slot that a bar takes.
_BAR = 0.76
#: The least height of a bar's piece, in per cent: fewer people than a pixel shows are seen too.
_LEAST = 2.0
_MINUS = "\N{MINUS SIGN}"
#: How dark the square of a day with few events is at least, of 1.
_FAINTEST = 0.35


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across a plot, and its value."""

    y: float
    value: float


@dataclass(frozen=True, slots=True)
class Slot(Generic[_Point]):
    """The part of a plot's width that belongs to one point.

    :ivar left: where it begins.
    :ivar width: how wide it is.
    :ivar x: where the point is drawn, across.
    :ivar y: where it is drawn, from the top; None: it has no value.
    :ivar labelled: whether the axis names it.
    """

    left: float
    width: float
    x: float
    y: float | None
    point: _Point
    labelled: bool


class _FromZero:
    """A plot whose axis begins at 0."""

    __slots__ = ()
    ticks: list[Tick]

    def y(self, value: float) -> float:
        """How far `value` is from the top, in per cent."""
        return 100 * (1 - value / self.ticks[-1].value)


@dataclass(frozen=True, slots=True)
class LinePlot(_FromZero, Generic[_Point]):
    """A line with the area below it, or with the band of its interval.

    :ivar closed: the pieces of the line through the periods that are over; it is interrupted where
        there is no value.
    :ivar running: the last pieces, to periods that are not over; empty if there are none.
    :ivar areas: the polygons to fill.
    """

    closed: list[str]
    running: list[str]
    areas: list[str]
    slots: list[Slot[_Point]]
    ticks: list[Tick]


@dataclass(frozen=True, slots=True)
class Curve:
    """One of several lines.

    :ivar kind: the stylesheet's class.
    :ivar closed: the pieces of the line through the periods that are over.
    :ivar running: the last piece, to a period that is not over; empty if there is none.
    :ivar marked: where it is marked, across and from the top.
    """

    kind: str
    closed: list[str]
    running: list[str]
    marked: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class CurvePlot(_FromZero, Generic[_Point]):
    """Several lines on the same axes."""

    curves: list[Curve]
    slots: list[Slot[_Point]]
    ticks: list[Tick]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a stacked bar.

    :ivar kind: the stylesheet's class.
    """

    kind: str
    y: float
    height: float
    users: int


@dataclass(frozen=True, slots=True)
class Bar(Generic[_Point]):
    """The pieces of one point, above the base line and below it."""

    left: float
    width: float
    slot: Slot[_Point]
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class BarPlot(Generic[_Point]):
    """Stacked bars on a base line."""

    base: float
    bars: list[Bar[_Point]]
    ticks: list[Tick]


def ticks(
    top: float, bottom: float = 0.0, *, whole: bool = True
) -> tuple[list[Tick], float, float]:
    """Round values that cover `bottom` to `top`, and the first and last of them.

    They are 1, 2 or 5 times a power of ten apart; at least 1 if the values are `whole`.
    """
    extent = (top - bottom) or 1
    rough = extent / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    if whole:
        step = max(step, 1)
    first, last = floor(bottom / step), max(ceil(top / step), 1)
    low, high = first * step, last * step
    values = [step * n for n in range(first, last + 1)]
    return [Tick(100 * (high - value) / (high - low), value) for value in values], low, high


def _slots(
    points: Sequence[_Point], heights: Sequence[float | None], *, edges: bool
) -> list[Slot[_Point]]:
    """The slots of `points`; with `edges`, the first and the last are drawn at the box's edges."""
    count = len(points)
    step = max(1, ceil(count / _LABELS))
    width = 100 / max(1, count - 1 if edges else count)
    shift = width / 2 if edges else 0.0
    return [
        Slot(
            i * width - shift,
            width,
            i * width - shift + width / 2,
            height,
            point,
            i % step == (count - 1) % step,
        )
        for i, (point, height) in enumerate(zip(points, heights, strict=False))
    ]


def _pieces(slots: Iterable[Slot[_Point]]) -> list[list[tuple[float, float]]]:
    """The places of what is drawn in one piece."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for slot in slots:
        if slot.y is not None:
            pieces[-1].append((slot.x, slot.y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _lines(slots: Iterable[Slot[_Point]]) -> list[str]:
    """The pieces of a line; one of a single point is a dash."""
    return [polyline(piece if len(piece) > 1 else _dash(*piece[0])) for piece in _pieces(slots)]


def _dash(x: float, y: float) -> list[tuple[float, float]]:
    return [(max(x - _DASH, 0), y), (min(x + _DASH, 100), y)]


def _running(closed: Sequence[Slot[_Point]], running: Sequence[Slot[_Point]]) -> list[str]:
    """The pieces to the `running` periods, the first of which begins where the others end."""
    return _lines([*closed[-1:], *running]) if _pieces(running) else []


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """The points of a line, given in per cent of the box."""
    return " ".join(f"{x * 10:.1f},{y * 10:.1f}" for x, y in points)


def line_plot(
    points: Sequence[_Point],
    values: Sequence[float | None],
    *,
    running: int = 0,
    band: Sequence[tuple[float, float]] | None = None,
    whole: bool | None = None,
    reach: float = 0,
) -> LinePlot[_Point]:
    """A line through `values`.

    :param points: what the values belong to.
    :param values: None is a gap.
    :param running: of how many of them, the last ones, the period is not over.
    :param band: the interval of each value, filled instead of the area below the line; then there
        is no gap.
    :param whole: whether the values are counts, not rates; None: those without a band are.
    :param reach: a value that the axis reaches in any case.
    """
    tops = (top for _, top in band or ())
    counts = band is None if whole is None else whole
    known = (value for value in values if value is not None)
    marks, low, high = ticks(max((*known, *tops, reach)), whole=counts)

    def height(value: float) -> float:
        return 100 * (high - value) / (high - low)

    heights = [None if value is None else height(value) for value in values]
    slots = _slots(points, heights, edges=True)
    begun = len(slots) - running
    closed = slots[:begun]
    if band is None:
        areas = [
            polyline([*piece, (piece[-1][0], 100), (piece[0][0], 100)]) for piece in _pieces(closed)
        ]
    else:
        upper = [(slot.x, height(top)) for slot, (_, top) in zip(slots, band, strict=True)]
        lower = [(slot.x, height(bottom)) for slot, (bottom, _) in zip(slots, band, strict=True)]
        areas = [polyline([*upper, *reversed(lower)])] if closed else []
    return LinePlot(_lines(closed), _running(closed, slots[begun:]), areas, slots, marks)


def curve_plot(
    points: Sequence[_Point],
    values: Mapping[str, Sequence[float | None]],
    *,
    running: bool = False,
    rates: bool = False,
    reach: float = 0,
) -> CurvePlot[_Point]:
    """A line for each of several rows of values.

    :param points: what the values belong to.
    :param values: by the class of its line; a row that ends early has a shorter line. None is a
        gap.
    :param running: whether the last one's period is not over.
    :param rates: whether the values are rates, not counts.
    :param reach: a value that the axis reaches in any case.
    """
    tops = (value for row in values.values() for value in row if value is not None)
    marks, low, high = ticks(max((*tops, reach)), whole=not rates)
    curves = []
    for kind, row in values.items():
        heights = [None if one is None else 100 * (high - one) / (high - low) for one in row]
        slots = _slots(points, heights, edges=True)
        begun = len(slots) - (running and len(row) == len(points))
        marked = [(slot.x, slot.y) for slot in slots if slot.labelled and slot.y is not None]
        curves.append(
            Curve(
                kind,
                _lines(slots[:begun]),
                _running(slots[:begun], slots[begun:]),
                marked if kind in MARKS else [],
            )
        )
    return CurvePlot(curves, _slots(points, [0.0] * len(points), edges=True), marks)


def bar_plot(
    points: Sequence[_Point],
    above: Sequence[Sequence[tuple[str, int]]],
    below: Sequence[Sequence[tuple[str, int]]] | None = None,
) -> BarPlot[_Point]:
    """Stacked bars.

    :param points: what the bars belong to.
    :param above: for each point the pieces ``(kind, users)`` above the base line, upwards.
    :param below: the pieces below it, downwards.
    """
    below = below or [[] for _ in points]
    sums = [sum(users for _, users in pieces) for pieces in above]
    depths = [sum(users for _, users in pieces) for pieces in below]
    marks, low, high = ticks(max(sums, default=0), -max(depths, default=0))
    scale = 100 / (high - low)
    base = high * scale

    def pieces(up: Sequence[tuple[str, int]], down: Sequence[tuple[str, int]]) -> list[Piece]:
        risen = _heights([users for _, users in up], scale)
        hanging = _heights([users for _, users in down], scale)
        tops, bottoms = accumulate(risen), accumulate(hanging, initial=0.0)
        return [
            *(
                Piece(kind, base - top, height, users)
                for (kind, users), top, height in zip(up, tops, risen, strict=True)
            ),
            *(
                Piece(kind, base + bottom, height, users)
                for (kind, users), bottom, height in zip(down, bottoms, hanging, strict=False)
            ),
        ]

    slots = _slots(points, [base - total * scale for total in sums], edges=False)
    bars = [
        Bar(slot.left + slot.width * (1 - _BAR) / 2, slot.width * _BAR, slot, pieces(up, down))
        for slot, up, down in zip(slots, above, below, strict=True)
    ]
    return BarPlot(base, bars, marks)


def _heights(users: Sequence[int], scale: float) -> list[float]:
    """The heights of a bar's pieces; what small ones gain, the largest one loses."""
    heights = [max(number * scale, _LEAST) if number else 0.0 for number in users]
    if heights:
        largest = heights.index(max(heights))
        gained = sum(heights) - sum(users) * scale
        heights[largest] = max(heights[largest] - gained, min(heights[largest], _LEAST))
    return heights


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of daily counts; the piece to a last day that is not over is drawn apart.

    The points are in a box of `width` by `height`.
    """

    closed: str
    running: str
    x: float
    y: float
    width: int
    height: int


def sparkline(
    days: Sequence[int], width: int = 120, height: int = 28, *, is_over: bool = False
) -> Sparkline:
    """Draw at least two days' counts, scaled to the smallest and the largest of the complete days.

    A last day that is not over would flatten the others: if it is below them, it is drawn at the
    floor.
    """
    lowest, top, margin = min(days if is_over else days[:-1]), max(days), 4
    scale = (height - 2 * margin) / (top - lowest) if top > lowest else 0.0
    step = (width - 2 * margin) / (len(days) - 1)
    points = [
        (margin + i * step, height - margin - max(0, count - lowest) * scale)
        for i, count in enumerate(days)
    ]
    drawn = [f"{x:.1f},{y:.1f}" for x, y in points]
    x, y = points[-1]
    if is_over:
        line, running = " ".join(drawn), ""
    else:
        line, running = " ".join(drawn[:-1]), " ".join(drawn[-2:])
    return Sparkline(line, running, round(x, 1), round(y, 1), width, height)


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """A day's square: its column is the week, its row the weekday from Monday."""

    column: int
    row: int
    day: date
    #: The events done on that day.
    done: list[str]

    @property
    def events(self) -> int:
        return len(self.done)


@dataclass(frozen=True, slots=True)
class Calendar:
    """A person's days, one column per week; `months` names the columns in which months begin."""

    days: list[CalendarDay]
    months: list[tuple[int, date]]
    weeks: int
    most: int

    def shade(self, events: int) -> str:
        """The class of a day's square: a single event stands out from none."""
        return heat(_FAINTEST + (1 - _FAINTEST) * events / self.most, 1) if events else "none"

    @property
    def scale(self) -> list[int]:
        """Numbers of events that show the shades."""
        return sorted({0, min(1, self.most), -(-self.most // 2), self.most})


def calendar(done: dict[str, list[date]], first: date, last: date) -> Calendar:
    """How many events somebody did on each day from `first` to `last`."""
    by_day: dict[date, list[str]] = {}
    for event, on in done.items():
        for day in on:
            by_day.setdefault(day, []).append(event)
    monday = first - timedelta(days=first.weekday())
    span = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    days = [
        CalendarDay((day - monday).days // 7, day.weekday(), day, by_day.get(day, []))
        for day in span
    ]
    months = [
        (next(group).column, date(*month, 1))
        for month, group in groupby(
            (day for day in days if day.row == 0),
            key=lambda square: (square.day.year, square.day.month),
        )
    ]
    # There is no room for a month's name if only a week of it is shown.
    months = [
        month
        for month, after in zip(months, [*months[1:], (days[-1].column + 1, last)], strict=True)
        if after[0] - month[0] > 1
    ]
    return Calendar(days, months, days[-1].column + 1, max(map(len, by_day.values()), default=0))


def heat(rate: float, largest: float) -> str:
    """The class of a cell, from q0 for nothing to q20 for the largest rate of the table."""
    return f"q{round(HEAT_STEPS * min(1.0, rate / largest)) if largest else 0}"


def label(start: date, by: Grain, year: int | None = None) -> str:
    """The short name of a period; that of a day or week has its year if it is not `year`."""
    match by:
        case "hour":
            return f"{start:%H:%M}"
        case "month":
            return f"{start:%b %Y}"
        case "year":
            return f"{start:%Y}"
        case _:
            other = f" {start.year}" if year not in (None, start.year) else ""
            return f"{start.day} {start:%b}{other}"


def full_label(start: date, by: Grain) -> str:
    """The name of a period in a sentence: 2 Nov 2026, week of 2 Nov 2026, November 2026."""
    match by:
        case "month":
            return f"{start:%B %Y}"
        case "year":
            return f"{start:%Y}"
    day = f"{start.day} {start:%b %Y}"
    if by == "week":
        return f"week of {day}"
    return f"{day}, {start:%H:%M}" if isinstance(start, datetime) and by == "hour" else day


def when(start: date, by: Grain) -> str:
    """The period as an adverb: on 2 Nov 2026, in the week of 2 Nov 2026, in November 2026."""
    match by:
        case "day":
            return f"on {full_label(start, by)}"
        case "week":
            return f"in the {full_label(start, by)}"
        case _:
            return f"in {full_label(start, by)}"


def periods(number: int, by: Grain) -> str:
    """How long something takes: 1 day, 30 days."""
    return f"{number} {by}{'' if number == 1 else 's'}"


def more(now: float, then: float) -> str:
    """How a number compares, before "in the 28 days before": 120 more (+11.1 %) than."""
    change = round(now - then, 1)
    if not change:
        return "as many as"
    share = f" ({signed(100 * change / then)} %)" if then else ""
    if isinstance(change, int):
        return f"{more_or_fewer(change)}{share} than"
    return f"{abs(change):,.1f} {'more' if change > 0 else 'fewer'}{share} than"


def more_or_fewer(change: int) -> str:
    """A difference of counts in words: 120 more, 12 fewer."""
    return f"{thousands(abs(change))} {'more' if change > 0 else 'fewer'}"


def signed_count(change: int) -> str:
    """A difference of counts with its sign: +120, or 0."""
    return f"{change:+,}".replace("-", _MINUS) if change else "0"


def points_more(change: float) -> str:
    """How a share of 1 compares, before "in the 28 days before": 2.1 points more than."""
    points = round(100 * change, 1)
    if not points:
        return "the same as"
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than"


def signed(number: float) -> str:
    """A number with its sign, and one decimal: +11.1."""
    return f"{number:+,.1f}".replace("-", _MINUS)


def thousands(number: int) -> str:
    """A count with separators: 12,480."""
    return f"{number:,}"


def short(number: float) -> str:
    """The value of a tick: 600, 12k, 1.5M."""
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if abs(number) >= 10 * unit or (abs(number) >= unit and name == "M"):
            return f"{abs(number) / unit:g}{name}"
    return f"{abs(number):,.0f}"


def tick_percent(rate: float) -> str:
    """The value of a tick that is a share of 1, with as many decimals as it needs: 0.5 %."""
    return f"{round(100 * rate, 9):g} %"


def percent(rate: float) -> str:
    """A share of 1 as a number of per cent: 34.3."""
    return f"{100 * rate:.1f}"
