"""A command for each report; its arguments and options come from the report's question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .. import questions
from ..periods import GRAINS, Grain
from ..questions import PeopleFigure, PeopleQuestion, Question
from ..questions import fields as kinds
from ..questions.fields import Declared, Kind, declared
from .group import command
from .terminal import Bar, Picture, Share, Spark, shown

if TYPE_CHECKING:
    from datetime import datetime

    from ..analytics import (
        ActiveUsers,
        Adoption,
        Changes,
        Check,
        Churned,
        Compare,
        Conversion,
        Funnel,
        Lifecycle,
        Overlap,
        Overview,
        Profile,
        Report,
        Retention,
        Stickiness,
        Timeline,
        TimeToConvert,
        Trend,
        Trends,
    )

#: The most values that a check lists for a figure.
_MOST_SHOWN = 12
_NOTHING = "Nothing is recorded for this user in this range."
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"])


class _Window(click.ParamType):  # type: ignore[type-arg]
    """A number of periods, or ``week``, or ``month``; the question says which are allowed."""

    name = "window"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return int(value) if str(value).isdecimal() else value


def _type_of(kind: Kind) -> Any:
    match kind:
        case kinds.Choice(choices=choices):
            return click.Choice(choices)
        case kinds.Number() | kinds.Count():
            return int
        case kinds.Moment():
            return _MOMENT
        case kinds.Window():
            return _Window()
    return str


def _parameter(field: Declared) -> Callable[[Any], Any]:
    """Required fields are arguments, all others options."""
    name = field.name.replace("_", "-")
    required = field.usual is MISSING
    if required and isinstance(field.kind, kinds.Several):
        return click.argument(field.name, nargs=-1, required=True)
    if required and isinstance(field.kind, kinds.Segment | kinds.Anyone):
        return click.argument(field.name)
    if isinstance(field.kind, kinds.Switch):
        return click.option(f"--{name}", field.name, is_flag=True, help=field.help)
    if isinstance(field.kind, kinds.Values):
        return click.option(
            f"--{name}",
            field.name,
            multiple=True,
            callback=lambda context, option, given: given or None,
            help=field.help,
        )
    return click.option(
        f"--{name}",
        field.name,
        type=_type_of(field.kind),
        required=required,
        default=None if required else field.usual,
        show_default=field.usual not in (MISSING, None),
        help=field.help,
    )


def report_command(
    name: str,
    question: type[Question],
    picture: Callable[[Any], Picture],
    help_: str,
    **usual: Any,
) -> None:
    """Register the command `name`, which asks `question`.

    :param picture: makes the table that a terminal shows.
    :param help_: what the command's help says, with an example.
    :param usual: values of fields that are not options of this command.
    """

    def ask(**values: Any) -> Report:
        from ..analytics import answer

        return answer(question.of(strict=True, **usual, **values))

    ask.__doc__ = help_
    for field in reversed([f for f in declared(question) if f.told and f.name not in usual]):
        ask = _parameter(field)(ask)
    command(name, lambda report: _with_parts(picture, report))(ask)


def _with_parts(picture: Callable[[Any], Picture], report: Any) -> Picture:
    """The table of a report; if it is broken down, with those of its parts below that."""
    whole, parts = picture(report), getattr(report, "parts", None)
    if not parts:
        return whole
    rows, is_open = list[list[Any]](), set[int]()
    for name, part in [("(all)", whole), *((name, picture(part)) for name, part in parts.items())]:
        is_open.update(len(rows) + number for number in part.open)
        # Nothing but these have a column more, if any.
        filled = (len(whole.header) - len(part.header)) * [None]
        rows += ([name, *row, *filled] for row in part.rows)
    return Picture(["value", *whole.header], rows, frozenset(is_open), whole.note)


@command("events", lambda found: _events(found))
@click.option("--end", type=_MOMENT, help="The day as of which to tell. Default: today.")
def events(end: datetime | None) -> Overview:
    """Every event: its users today, this week, this month, this year, and 30 days.

    \b
    flask bitmapist events
    flask bitmapist events --end 2026-10-31
    flask bitmapist events --json | jq -r '.events[].event'
    """
    from ..analytics import overview

    return overview(end=end)


def _events(found: Overview) -> Picture:
    rows = [[a.event, Spark(a.days), a.today, a.week, a.month, a.year] for a in found.events]
    rows += [[f"flag:{flag.flag}", None, flag.users, None, None, None] for flag in found.flags]
    return Picture(["event", "30 days", _day_of(found), "week", "month", "year"], rows)


def _day_of(found: Overview) -> str:
    from ..current import current_tracker

    day = found.as_of.date()
    return "today" if day == current_tracker().now().date() else f"{day}"


class Everyone(NamedTuple):
    """All the ids of a segment."""

    ids: list[int | str]

    def to_dict(self) -> list[int | str]:
        return self.ids

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(["id"], [[id_] for id_ in self.ids])


@command("users", lambda found: Picture(["id"], [[id_] for id_ in found.ids]))
@click.argument("expression")
@click.option("--by", type=click.Choice(GRAINS), default="day", show_default=True)
@click.option("--at", type=_MOMENT, help="A moment of the period. Default: now.")
@click.option("--over", help="In any period of a range in words: 'last 28 days', 'last month'.")
def users(expression: str, by: Grain, at: datetime | None, over: str | None) -> Everyone:
    """The ids of the people in EXPRESSION, an event or a segment, in one period or in a range.

    \b
    flask bitmapist users "song:played - flag:user:premium" --by month --csv
    """
    from ..analytics import everyone_behind

    if at is not None and over is not None:
        raise ValueError("a period or a range: give --at or --over, not both")
    question = PeopleQuestion.of(expression=expression, by=by, end=at, over=over, strict=True)
    return Everyone([*chain.from_iterable(everyone_behind(question, PeopleFigure()))])


def _trend(report: Trend) -> Picture:
    most = max((point.users for point in report.points), default=0) or 1
    rows = [[p.period_start, p.users, Bar(p.users / most)] for p in report.points]
    return Picture(["period", "users", ""], rows, _open(report.points))


def _trends(report: Trends) -> Picture:
    series, points = report.series, report.series[0].points
    columns: list[tuple[str, list[Any]]] = []
    for one in series:
        told = [one.total, *one.points]
        columns.append((one.event, [point.users for point in told]))
        if any(point.previous is not None for point in told):
            columns.append(("before", [point.previous for point in told]))
        if any(point.share is not None for point in told):
            columns.append(("%", [Share(point.share) for point in told]))
    periods = ["in all", *(point.period_start for point in points)]
    rows = zip(periods, *(told for _, told in columns), strict=True)
    header = ["period", *(name for name, _ in columns)]
    is_open = frozenset(1 + number for number in _open(points))
    note = "In all: the users of the whole range, each counted once."
    return Picture(header, [list(row) for row in rows], is_open, note)


def _open(points: list[Any]) -> frozenset[int]:
    return frozenset(number for number, point in enumerate(points) if not point.complete)


def _active_users(report: ActiveUsers) -> Picture:
    rows = [[p.period_start, p.day, p.week, p.month, Share(p.stickiness)] for p in report.points]
    header = ["day", "users", "7 days", "28 days", "DAU/MAU, %"]
    return Picture(header, rows, _open(report.points))


def _retention(report: Retention) -> Picture:
    header = ["period", "size", *(f"+{k}" for k in range(len(report.average)))]
    average = ["average, %", report.size, *(Share(cell.rate) for cell in report.average)]
    averages = [average]
    if (before := report.previous) is not None:
        told = (Share(cell.rate) for cell in before.average)
        averages.append(["before, %", before.size, *told])
    rows = [
        [row.period_start, row.size, *(Share(c.rate, c.state == "open") for c in row.cells)]
        for row in report.rows
    ]
    is_open = any(cell.state == "open" for row in report.rows for cell in row.cells)
    return Picture(header, [*averages, *rows], note="*: the period is not over" if is_open else "")


def _lifecycle(report: Lifecycle) -> Picture:
    header = ["period", "new", "returning", "resurrected", "dormant"]
    rows = [[p.period_start, p.new, p.returning, p.resurrected, p.dormant] for p in report.points]
    if not report.previous:
        return Picture(header, rows, _open(report.points))
    averages = [
        [name, *(round(mean, 1) for mean in average.values())]
        for name, average in (("mean", report.average), ("before", report.previous_average))
        if average
    ]
    is_open = frozenset(len(averages) + number for number in _open(report.points))
    return Picture(header, [*averages, *rows], is_open)


def _stickiness(report: Stickiness) -> Picture:
    rows = [[k, n, Share(report.shares[k])] for k, n in report.counts.items()]
    return Picture(["periods", "users", "%"], rows)


def _funnel(report: Funnel) -> Picture:
    header = ["step", "users", "% of first", "% of previous"]
    rows = [[s.event, s.users, Share(s.from_first), Share(s.from_previous)] for s in report.steps]
    if any(step.open for step in report.steps):
        header.append("open")
        rows = [[*row, step.open] for row, step in zip(rows, report.steps, strict=True)]
    if report.previous:
        header += ["before", "% of first"]
        rows = [
            [*row, then.users, Share(then.from_first)]
            for row, then in zip(rows, report.previous, strict=True)
        ]
    return Picture(header, rows)


def _time_to_convert(report: TimeToConvert) -> Picture:
    rows = [[t.periods, t.users, Share(t.share), Bar(t.share or 0.0)] for t in report.times]
    note = f"{report.users} of the {report.entered} who began."
    if report.median is not None:
        note += f" Half of them took no longer than {report.median}."
    open_times = frozenset(k for k, taken in enumerate(report.times) if not taken.complete)
    return Picture(["periods", "users", "%", ""], rows, open_times, note=note)


def _conversion(report: Conversion) -> Picture:
    rows = [[p.period_start, *p.users, Share(p.rate)] for p in report.points]
    return Picture(["period", *report.steps, "%"], rows, _open(report.points))


def _compare(report: Compare) -> Picture:
    header = ["arm", "size", "converted", "%", "from", "to", "p"]
    rows = [
        [a.segment, a.size, a.converted, Share(a.rate), Share(a.low), Share(a.high), _p(a.p)]
        for a in report.arms
    ]
    return Picture(header, rows)


def _p(p: float | None) -> str | None:
    return None if p is None else f"{p:.3f}"


def _adoption(report: Adoption) -> Picture:
    header = ["period", "active", "users", "%", "new"]
    rows = [[p.period_start, p.active, p.users, Share(p.rate), p.new] for p in report.points]
    return Picture(header, rows, _open(report.points))


def _churned(report: Churned) -> Picture:
    rows = [[p.period_start, p.active, p.users, Share(p.rate)] for p in report.points]
    return Picture(["period", "active", "gone", "%"], rows)


def _overlap(report: Overlap) -> Picture:
    rows = [
        [event, *(Share(share) if i != j else report.counts[i][j] for j, share in enumerate(line))]
        for i, (event, line) in enumerate(zip(report.events, report.jaccard, strict=True))
    ]
    note = "Users of both, as a percentage of the users of either. On the diagonal: users."
    return Picture(["", *report.events], rows, note=note)


def _changes(report: Changes) -> Picture:
    rows = [[a.event, a.users, a.before, a.change, Share(a.rate)] for a in report.events]
    note = (
        f"{report.start} to {report.end}{'' if report.complete else ', so far'}; "
        f"before: from {report.before_start} on."
    )
    return Picture(["event", "users", "before", "change", "%"], rows, note=note)


def _listed(values: list[float]) -> str:
    """What a figure sums up, in the room of a line."""
    if len(values) > _MOST_SHOWN:
        return f"{len(values)} values from {min(values):.4g} to {max(values):.4g}"
    return ", ".join(f"{value:.4g}" for value in values)


class Verdict(NamedTuple):
    """A check as a terminal shows it: a sentence, and the figures."""

    report: Check

    def show(self) -> None:
        """Print it."""
        alarm = self.report.alarm
        click.secho("Alarm: " if alarm else "All is well: ", bold=True, nl=False)
        click.echo(shown(self.report.sentence))
        rows = [
            [one.figure, _listed([*one.summed_up.values()])]
            for one in self.report.figures
            if one.summed_up
        ]
        if rows:
            click.echo()
            Picture(["figure", "of"], rows).show()


@command("check", Verdict)
@click.argument("condition")
@click.option("--at", type=_MOMENT, help="A moment of the period. Default: the last complete one.")
def check(condition: str, at: Any) -> Check:
    """Whether CONDITION holds, for the last complete day, week, ...: a reason for an alarm.

    The exit code is 3 if it holds, and 0 if it does not.

    \b
    flask bitmapist check \\
        "users(user:seen, day) < 0.7 * mean(previous 4 same weekdays)"
    """
    from ..analytics import check

    return check(condition, at=at)


def _timeline(report: Timeline) -> Picture:
    rows = [[event, day] for event, days in report.days.items() for day in days]
    return Picture(["event", "day"], rows, note="" if rows else _NOTHING)


def _profile(report: Profile) -> Picture:
    rows = [
        [span.event, span.first, span.last, len(report.days.get(span.event, ()))]
        for span in report.events
    ]
    notes = [f"{dimension} is {shown(value)}" for dimension, value in report.dimensions.items()]
    notes += [f"Flags set now: {', '.join(map(shown, report.flags))}"] if report.flags else []
    note = "\n".join(notes) if rows or notes else _NOTHING
    return Picture(["event", "first ever", "last", "days in the range"], rows, note=note)


report_command(
    "show",
    questions.TrendQuestion,
    _trend,
    """The users of EVENT (or of a segment), period by period.

    \b
    flask bitmapist show user:seen --by week
    flask bitmapist show "song:played & flag:user:premium" --start 2026-01-01
    """,
)
report_command(
    "trends",
    questions.TrendsQuestion,
    _trends,
    """The users of each of EVENTS (or segments), period by period.

    \b
    flask bitmapist trends user:created post:created --previous
    flask bitmapist trends "a & b" c --over "last quarter" --by week
    """,
)
report_command(
    "active",
    questions.ActiveUsersQuestion,
    _active_users,
    """Daily, weekly (7 days) and monthly (28 days) active users: those who did EVENT.

    \b
    flask bitmapist active user:seen --rows 14
    """,
)
report_command(
    "retention",
    questions.RetentionQuestion,
    _retention,
    """Of those who first did COHORT in a period, the percentage who did RETURNED k periods later.

    --json and --csv give numbers of users.

    \b
    flask bitmapist retention user:created user:seen --by week
    flask bitmapist retention user:created song:played --where flag:user:premium
    """,
)
report_command(
    "lifecycle",
    questions.LifecycleQuestion,
    _lifecycle,
    """Who is new, returning, resurrected or dormant in EVENT, period by period.

    \b
    flask bitmapist lifecycle user:seen --by month
    """,
)
report_command(
    "stickiness",
    questions.StickinessQuestion,
    _stickiness,
    """How many did EVENT in exactly k of the last periods.

    \b
    flask bitmapist stickiness user:seen --within 7
    """,
)
report_command(
    "funnel",
    questions.FunnelQuestion,
    _funnel,
    """How many did each of STEPS and all before it, in this order (unknown within a period).

    \b
    flask bitmapist funnel user:created post:created user:upgraded --within 14
    """,
)
report_command(
    "time-to-convert",
    questions.TimeToConvertQuestion,
    _time_to_convert,
    """How many periods it took from the first of STEPS to the last.

    \b
    flask bitmapist time-to-convert user:created user:upgraded --within 30
    """,
)
report_command(
    "conversion",
    questions.ConversionQuestion,
    _conversion,
    """Of those who did the first of STEPS in each period, how many did the others in time.

    \b
    flask bitmapist conversion user:created user:upgraded --within 14 --by week
    """,
)
report_command(
    "adoption",
    questions.AdoptionQuestion,
    _adoption,
    """How many of those who did ACTIVE in each period also did FEATURE.

    \b
    flask bitmapist adoption song:played user:seen --by week
    """,
)
report_command(
    "churned",
    questions.ChurnedQuestion,
    _churned,
    """How many did EVENT in each period, and not in the ones after it.

    \b
    flask bitmapist churned user:seen --silent 4 --by week
    """,
)
report_command(
    "overlap",
    questions.OverlapQuestion,
    _overlap,
    """How much the users of EVENTS overlap in one period.

    \b
    flask bitmapist overlap song:played user:seen --by month
    """,
)
report_command(
    "changes",
    questions.ChangesQuestion,
    _changes,
    """How many more or fewer people did each event than in as many periods right before.

    \b
    flask bitmapist changes --over "since 2026-10-19"
    flask bitmapist changes --over "last month" --by month
    """,
)
report_command(
    "compare",
    questions.CompareQuestion,
    _compare,
    """How many people in each of ARMS, which are segments, did the goal.

    \b
    flask bitmapist compare flag:button:blue flag:button:green user:upgraded
    """,
)
report_command(
    "timeline",
    questions.TimelineQuestion,
    _timeline,
    """What USER, an id as the application knows it, did on which days.

    \b
    flask bitmapist timeline 42 --start 2026-01-01
    """,
)
report_command(
    "profile",
    questions.ProfileQuestion,
    _profile,
    """The first and the last time of each event of USER, and the flags.

    \b
    flask bitmapist profile 42
    """,
)
