"""Reports in the room of a card: one figure, a few words on it, and a small drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import takewhile
from typing import Any, NamedTuple

from ..analytics import (
    ActiveUsers,
    Adoption,
    Average,
    Changes,
    Churned,
    Compare,
    Conversion,
    Funnel,
    Lifecycle,
    Overlap,
    Report,
    Retention,
    Stickiness,
    TimeToConvert,
    Trend,
    Trends,
)
from ..annotations import Annotation
from ..periods import Grain
from ..reading.segments import Event, Expression
from .drawing import (
    MOST_CURVES,
    BarPlot,
    LinePlot,
    bar_plot,
    full_label,
    label,
    line_plot,
    more_or_fewer,
    percent,
    periods,
    polyline,
    signed_count,
    thousands,
    when,
)
from .notes import Notes, notes_among

#: The most changes that a card lists.
_CHANGES = 5
#: The most pairs of events that a card lists.
_PAIRS = 5
#: The most rows of the parts of a comparison that it lists.
_PARTS = 12
#: What a line is called that is the whole of the others.
WHOLE = "everybody"
#: How many names the axis of a card has room for.
_NAMES = 3


class Target(NamedTuple):
    """A value that is to be reached.

    :ivar y: where its line is, from the top, in per cent.
    """

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Other:
    """A line beside the first one, on the same axes.

    :ivar kind: the stylesheet's class.
    :ivar name: what it is of, and its last value.
    :ivar closed: the pieces of the line through the periods that are over.
    :ivar running: the last piece, to a period that is not over; empty if there is none.
    :ivar x: where its last point is, across.
    :ivar y: and from the top.
    """

    kind: str
    name: str
    closed: list[str]
    running: list[str]
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line.

    :ivar labels: the names of its points on the axis; empty for those that it has no room for.
    :ivar tips: the value of each point.
    :ivar name: what it is of, where there are others.
    :ivar others: lines beside it, such as those of its parts.
    """

    plot: LinePlot[Any]
    labels: Sequence[str]
    tips: Sequence[str]
    percents: bool = False
    target: Target | None = None
    name: str = ""
    others: Sequence[Other] = ()

    @property
    def parts(self) -> Sequence[Other]:
        """The others, as far as they are parts of it."""
        return self.others if self.name == WHOLE else ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars.

    :ivar legend: the kinds of their pieces, with their names.
    """

    plot: BarPlot[Any]
    labels: Sequence[str]
    tips: Sequence[str]
    legend: Mapping[str, str]


class Share(NamedTuple):
    """A bar from the left, of so much of the whole width; None: there is none to draw."""

    name: str
    rate: float | None
    value: str


@dataclass(frozen=True, slots=True)
class Shares:
    """Bars below each other."""

    rows: Sequence[Share]


@dataclass(frozen=True, slots=True)
class Small:
    """A report in the room of a card.

    :ivar figure: the one figure that somebody would ask for; empty if there is none yet.
    :ivar told: what it counts.
    """

    figure: str
    told: str
    drawing: Line | Bars | Shares
    #: What is noted on its time axis; that of no other report is one.
    notes: Notes = field(default_factory=lambda: Notes(()))


def small(
    question: Any,
    report: Report,
    annotations: Sequence[Annotation] = (),
    target: float | None = None,
) -> Small:
    """The answer to `question` in the room of a card.

    :param annotations: to be drawn as far as they are on its time axis.
    :param target: a value that is to be reached; only for the charts that can have one.
    """
    if target is None:
        drawn = _DRAWN[type(report)](question, report)
    else:
        drawn = _with_target(_DRAWN[type(report)](question, report, reach=target), target)
    if getattr(question, "as_of", "now") == "then":
        told = f"{drawn.told.removesuffix('.')}; by {question.breakdown} as it was then"
        drawn = replace(drawn, told=told)
    return replace(drawn, notes=notes_among(annotations, points_of(report), by_of(question)))


def points_of(report: Report) -> Sequence[Any]:
    """The points of its time axis; none if it has no such axis."""
    points: Sequence[Any]
    points = (
        report.series[0].points if isinstance(report, Trends) else getattr(report, "points", ())
    )
    return points


def by_of(question: Any) -> Grain:
    """The grain of the periods of the answer to `question`."""
    by: Grain = getattr(question, "by", "day")
    return by


def _with_target(drawn: Small, target: float) -> Small:
    """The same with the line of a target."""
    line = drawn.drawing
    assert isinstance(line, Line)  # as `boards.check_target` sees to
    text = f"target {_rate(target) if line.percents else f'{target:,g}'}"
    told = f"{drawn.told.removesuffix('.')}; {text}"
    return replace(
        drawn, told=told, drawing=replace(line, target=Target(line.plot.y(target), text))
    )


def _trend(question: Any, report: Trend, reach: float = 0) -> Small:
    at, users = _columns(report.points, "users")
    did = f"did {_said(question.event)}"
    parts = {name: _columns(part.points, "users")[1] for name, part in report.parts.items()}
    most = max((max(row) for row in parts.values()), default=0)
    drawn = _line(question.by, did, at, users, report.points, max(reach, most))
    return _beside(drawn, parts, _last_over(report.points), thousands)


def _trends(question: Any, report: Trends, reach: float = 0) -> Small:
    """The first event; the others as lines beside it, and in words."""
    first, *others = report.series
    at, users = _columns(first.points, "users")
    did = f"did {_said(question.events[0])}"
    lines = {one.event: _columns(one.points, "users")[1] for one in others}
    most = max((max(row) for row in lines.values()), default=0)
    drawn = _line(question.by, did, at, users, first.points, max(reach, most))
    if not others:
        return drawn
    over = _last_over(first.points)
    drawn = _beside(drawn, lines, over, thousands, f"{first.event}: {thousands(users[over])}")
    rest = ", ".join(f"{thousands(one.points[-1].users)} {one.event}" for one in others)
    return replace(drawn, told=f"{drawn.told}. The others, {when(at[-1], question.by)}: {rest}")


def _active_users(question: Any, report: ActiveUsers, reach: float = 0) -> Small:
    at, users = _columns(report.points, "day")
    return _line("day", f"did {_said(question.event)}", at, users, report.points, reach)


def _line(
    by: Grain,
    did: str,
    at: Sequence[date],
    users: Sequence[int],
    points: Sequence[Any],
    reach: float,
) -> Small:
    line = Line(
        line_plot(points, users, running=not points[-1].complete, reach=reach),
        _axis([label(one, by) for one in at]),
        [_tip(one, by, thousands(n), p) for one, n, p in zip(at, users, points, strict=True)],
    )
    counts = [thousands(n) for n in users]
    return Small(*_latest(by, did, at, counts, points), line)


def _latest(
    by: Grain, did: str, at: Sequence[date], values: Sequence[str], points: Sequence[Any]
) -> tuple[str, str]:
    """The value of the last period that is over, and what it counts; else the present one's."""
    last = _last_over(points)
    if not points[last].complete:
        return values[last], f"{did} {when(at[last], by)}, so far"
    before = f"; {values[last - 1] or 'nobody'} the {by} before" if last else ""
    return values[last], f"{did} {when(at[last], by)}{before}"


def _last_over(points: Sequence[Any]) -> int:
    """The number of the last point whose period is over; of the last one, if none is."""
    over = [number for number, point in enumerate(points) if point.complete]
    return over[-1] if over else len(points) - 1


def _retention(question: Any, report: Retention, reach: float = 0) -> Small:
    known = _averages(report)
    rates = [average.rate or 0.0 for _, average in known]
    band = [(average.low or 0.0, average.high or 0.0) for _, average in known]
    parts = {
        name: [average.rate or 0.0 for _, average in _averages(part)]
        for name, part in report.parts.items()
    }
    most = max((max(row, default=0.0) for row in parts.values()), default=0.0)
    line = Line(
        line_plot(known, rates, band=band, reach=max(reach, most)),
        _axis([f"+{k}" for k, _ in known]),
        [f"{periods(k, question.by)} later: {_rate(rate)}" for k, rate in enumerate(rates)],
        percents=True,
    )
    did = f"of those who did {_said(question.cohort)} did {_said(question.returned)}"
    if len(rates) < 2:
        return Small("", f"Nobody's first {question.by} is over.", line)
    told = f"{did} 1 {question.by} later"
    if report.previous is not None:
        told += _before(report.previous.average[1].rate)
    return _beside(Small(_rate(rates[1]), told, line), parts, 1, _rate)


def _before(rate: float | None) -> str:
    """What a share was in the periods right before."""
    return f"; {_rate(rate) or 'unknown'} in the period before"


def _averages(report: Retention) -> list[tuple[int, Average]]:
    """Those that exist."""
    return [*takewhile(lambda found: found[1].rate is not None, enumerate(report.average))]


def _beside(
    drawn: Small,
    parts: Mapping[str, Sequence[float]],
    index: int,
    told: Callable[[Any], str],
    name: str = WHOLE,
) -> Small:
    """The same with the lines of the largest `parts`.

    :param parts: their values, as of the points of the line that is drawn.
    :param index: the number of the point whose values are told; that of the figure.
    :param name: what the line is of that is drawn.
    """
    line = drawn.drawing
    assert isinstance(line, Line)  # what has points is drawn as a line
    known = {part: row for part, row in parts.items() if len(row) > index}
    largest = sorted(known, key=lambda part: -known[part][index])[:MOST_CURVES]
    others = []
    for number, part in enumerate(largest, start=1):
        row = known[part]
        at = [(slot.x, line.plot.y(n)) for slot, n in zip(line.plot.slots, row, strict=False)]
        is_open = bool(line.plot.running) and len(at) == len(line.plot.slots)
        others.append(
            Other(
                f"c{number}",
                f"{part}: {told(row[index])}",
                [polyline(at[:-1] if is_open else at)],
                [polyline(at[-2:])] if is_open else [],
                *at[-1],
            )
        )
    left = f". {len(parts) - len(others)} of the lines are not drawn" * (len(parts) > len(others))
    return replace(
        drawn, told=f"{drawn.told}{left}", drawing=replace(line, name=name, others=others)
    )


def _lifecycle(question: Any, report: Lifecycle) -> Small:
    """The groups of each period; broken down, the active of each part."""
    at, users = _columns(report.points, "active")
    if report.parts:
        parts = {name: _columns(part.points, "active")[1] for name, part in report.parts.items()}
        most = max((max(row) for row in parts.values()), default=0)
        active = f"did {_said(question.event)}"
        drawn = _line(question.by, active, at, users, report.points, most)
        return _beside(drawn, parts, _last_over(report.points), thousands)
    groups = ("returning", "resurrected", "new")
    bars = Bars(
        bar_plot(
            report.points,
            [[(group, getattr(point, group)) for group in groups] for point in report.points],
            [[("dormant", point.dormant)] for point in report.points],
        ),
        _axis([label(one, question.by) for one in at]),
        [
            _tip(
                point.period_start,
                question.by,
                f"{thousands(point.new)} new, {thousands(point.resurrected)} resurrected, "
                f"{thousands(point.returning)} returning, {thousands(point.dormant)} gone quiet",
                point,
            )
            for point in report.points
        ],
        {**{group: group for group in groups}, "dormant": "gone quiet"},
    )
    counts = [thousands(n) for n in users]
    did = f"did {_said(question.event)}"
    return Small(*_latest(question.by, did, at, counts, report.points), bars)


def _stickiness(question: Any, report: Stickiness) -> Small:
    counts = [*report.counts.items()]
    bars = Bars(
        bar_plot(counts, [[("new", users)] for _, users in counts]),
        _axis([str(k) for k, _ in counts]),
        [f"on {periods(k, question.by)}: {thousands(users)}" for k, users in counts],
        {},
    )
    window = f"{full_label(report.start, question.by)} to {full_label(report.end, question.by)}"
    told = f"did {_said(question.event)}, {window}, by the number of {question.by}s"
    if report.parts:
        return _frequencies(question, report, told)
    return Small(thousands(report.users), told, bars)


def _frequencies(question: Any, report: Stickiness, told: str) -> Small:
    """The shares of those who did it in 1, 2, ... periods, of everybody and of each part."""
    counts, whole = [*report.counts], [*report.shares.values()]
    parts = {
        name: [share or 0.0 for share in part.shares.values()]
        for name, part in report.parts.items()
        if part.users
    }
    most = max((max(row) for row in parts.values()), default=0.0)
    line = Line(
        line_plot(counts, whole, whole=False, reach=most),
        _axis([str(k) for k in counts]),
        [
            f"on {periods(k, question.by)}: {_rate(share) or 'nobody'}"
            for k, share in zip(counts, whole, strict=True)
        ],
        percents=True,
    )
    drawn = Small(thousands(report.users), told, line)
    return _beside(drawn, parts, 0, lambda rate: f"{_rate(rate)} on {periods(1, question.by)}")


def _funnel(question: Any, report: Funnel) -> Small:
    last = report.steps[-1]
    told = f"of those who did {_said(question.steps[0])} got to {_said(question.steps[-1])}"
    if question.within is not None:
        within = periods(question.within, question.by)
        told += f" within {within}, counting those whose time is up"
    if report.parts:
        ends = [(WHOLE, last), *((name, part.steps[-1]) for name, part in report.parts.items())]
        rows = [Share(name, end.from_first, _rate(end.from_first)) for name, end in ends]
        return Small(_rate(last.from_first), told, Shares(rows))
    rows = [Share(step.event, step.from_first, thousands(step.users)) for step in report.steps]
    if report.previous:
        told += _before(report.previous[-1].from_first)
    return Small(_rate(last.from_first), told, Shares(rows))


def _adoption(question: Any, report: Adoption, reach: float = 0) -> Small:
    did = f"of those who did {_said(question.active)} did {_said(question.feature)}"
    return _rates(question.by, did, report.points, reach)


def _conversion(question: Any, report: Conversion, reach: float = 0) -> Small:
    first, last = question.steps[0], question.steps[-1]
    within = f"{_said(last)} within {periods(question.within, question.by)}"
    did = f"of those who did {_said(first)} got to {within}, beginning"
    return _rates(question.by, did, report.points, reach)


def _rates(by: Grain, did: str, points: Sequence[Any], reach: float) -> Small:
    at = [point.period_start for point in points]
    rates = [point.rate for point in points]
    shares = [_rate(rate) for rate in rates]
    running = sum(not point.complete for point in points)
    line = Line(
        line_plot(points, rates, running=running, whole=False, reach=reach),
        _axis([label(one, by) for one in at]),
        [
            _tip(point.period_start, by, one or "nobody", point)
            for point, one in zip(points, shares, strict=True)
        ],
        percents=True,
    )
    return Small(*_latest(by, did, at, shares, points), line)


def _time_to_convert(question: Any, report: TimeToConvert) -> Small:
    bars = Bars(
        bar_plot(report.times, [[("new", taken.users)] for taken in report.times]),
        _axis([str(taken.periods) for taken in report.times]),
        [f"in {periods(one.periods, question.by)}: {thousands(one.users)}" for one in report.times],
        {},
    )
    first, last = question.steps[0], question.steps[-1]
    if report.median is None:
        return Small("", f"Nobody got from {_said(first)} to {_said(last)}.", bars)
    told = f"or less took half of those who got from {_said(first)} to {_said(last)}"
    return Small(periods(report.median, question.by), told, bars)


def _churned(question: Any, report: Churned) -> Small:
    at, _ = _columns(report.points, "users")
    bars = Bars(
        bar_plot(report.points, [[("dormant", point.users)] for point in report.points]),
        _axis([label(one, question.by) for one in at]),
        [
            f"{full_label(point.period_start, question.by)}: {thousands(point.users)} of "
            f"{thousands(point.active)}"
            for point in report.points
        ],
        {},
    )
    if not report.points or report.points[-1].rate is None:
        return Small("", f"Nobody did {_said(question.event)} long enough ago.", bars)
    last = report.points[-1]
    did = f"of those who did {_said(question.event)} {when(last.period_start, question.by)}"
    silence = f"were silent for {periods(question.silent, question.by)}"
    return Small(_rate(last.rate), f"{did} {silence}", bars)


def _overlap(question: Any, report: Overlap) -> Small:
    size = range(len(report.events))
    pairs = sorted(
        ((report.jaccard[i][j], i, j) for i in size for j in size if i < j),
        key=lambda pair: -(pair[0] or 0.0),
    )
    rows = [
        Share(f"{report.events[i]} and {report.events[j]}", rate, _rate(rate))
        for rate, i, j in pairs[:_PAIRS]
    ]
    if not pairs or pairs[0][0] is None:
        return Small("", "Nobody did any of it.", Shares(rows))
    _, i, j = pairs[0]
    told = f"of those who did {report.events[i]} or {report.events[j]} did both"
    return Small(rows[0].value, told, Shares(rows))


def _changes(question: Any, report: Changes) -> Small:
    largest = report.events[:_CHANGES]
    most = max((abs(one.change) for one in largest), default=0)
    rows = [
        Share(one.event, abs(one.change) / most if most else None, signed_count(one.change))
        for one in largest
    ]
    dates = f"since {full_label(report.start, question.by)}"
    if not most:
        return Small("", f"No event has more or fewer people {dates}.", Shares(rows))
    told = f"did {largest[0].event} {dates} than in as many {question.by}s before"
    return Small(more_or_fewer(largest[0].change), told, Shares(rows))


def _compare(question: Any, report: Compare) -> Small:
    rows = [Share(arm.segment, arm.rate, _rate(arm.rate)) for arm in report.arms]
    of_parts = [
        Share(f"{arm.segment}, {name}", arm.rate, _rate(arm.rate))
        for name, part in report.parts.items()
        for arm in part.arms
    ]
    best = max(rows, key=lambda row: row.rate or 0.0)
    if best.rate is None:
        return Small("", "Nobody is in any of the arms.", Shares(rows))
    drawn = Shares([*rows, *of_parts[:_PARTS]])
    told = f"of {best.name} did {_said(question.goal)}"
    if left := len(of_parts[_PARTS:]):
        told += f". {left} of the rows are not drawn"
    return Small(best.value, told, drawn)


def _axis(names: Sequence[str]) -> list[str]:
    """The `names` that the axis has room for, among them the last."""
    step = -(-len(names) // _NAMES) or 1
    return [
        name if (len(names) - number) % step == 1 % step else ""
        for number, name in enumerate(names)
    ]


def _columns(points: Sequence[Any], name: str) -> tuple[list[date], list[int]]:
    return [point.period_start for point in points], [getattr(point, name) for point in points]


def _tip(at: date, by: Grain, value: str, point: Any) -> str:
    return f"{full_label(at, by)}{'' if point.complete else ', so far'}: {value}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{percent(rate)} %"


def _said(expression: Expression) -> str:
    """An event by its name, a segment in its text form."""
    return expression.name if isinstance(expression, Event) else str(expression)


_DRAWN: Mapping[type[Report], Callable[..., Small]] = {
    ActiveUsers: _active_users,
    Adoption: _adoption,
    Churned: _churned,
    Conversion: _conversion,
    Compare: _compare,
    Funnel: _funnel,
    Lifecycle: _lifecycle,
    Overlap: _overlap,
    Changes: _changes,
    Retention: _retention,
    Stickiness: _stickiness,
    TimeToConvert: _time_to_convert,
    Trend: _trend,
    Trends: _trends,
}
