"""``flask bitmapist ...``: the reports as aligned tables, JSON or CSV. `reindex` alone writes.

Exit codes: 0; 1 if the server does not answer or the output takes nothing; 2 for a question that
cannot be answered as asked.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup

from .current import current_tracker
from .periods import GRAINS
from .refusals import SERVER_ERRORS

commands = AppGroup("bitmapist", help="Who was active, who came back, who did what.")

# What to draw with, and what instead where the output's encoding does not have it.
_SPARKS = ("▁▂▃▄▅▆▇█", "_.:-=+*#")
_BAR = ("█", "#")
_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"])

_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "start": click.option("--start", type=_MOMENT, help="A moment of the first period."),
    "end": click.option("--end", type=_MOMENT, help="A moment of the last one. Default: now."),
    "at": click.option("--at", type=_MOMENT, help="A moment of the period. Default: now."),
    "where": click.option("--where", metavar="SEGMENT", help="Only those in this segment."),
    "by": click.option(
        "--by", type=click.Choice(GRAINS), default="day", show_default=True, help="The period."
    ),
}

Rows = list[list[Any]]
Answer = tuple[Any, list[str], Rows]  # what --json tells; the header; the rows


def _command(*options: str) -> Callable[[Callable[..., Answer]], click.Command]:
    """A command that asks for one `Answer` and prints it; its name is the function's."""

    def decorate(ask: Callable[..., Answer]) -> click.Command:
        @functools.wraps(ask)
        def run(as_json: bool, as_csv: bool, **arguments: Any) -> None:
            server = current_tracker().server
            try:
                _ = server.facts  # a server that is too old says so before it says anything else
                told, header, rows = ask(**arguments)
            except SERVER_ERRORS as error:
                reason = server.explain(error) or f"Redis does not answer: {error}"
                raise click.ClickException(reason) from error
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            with _unwritten_told():
                if as_json:
                    click.echo(json.dumps(told, indent=2))
                elif as_csv:
                    from .analytics._report import csv_text

                    click.echo(csv_text(header, rows), nl=False)
                else:
                    _print_table(header, rows)

        run = click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values.")(run)
        run = click.option("--json", "as_json", is_flag=True, help="JSON, for pipes.")(run)
        for name in reversed(options):
            run = _OPTIONS[name](run)
        return commands.command(ask.__name__.rstrip("_"))(run)

    return decorate


def _report(report: Any) -> Answer:
    return (report.to_dict(), *report.table())


@_command()
def events() -> Answer:
    """Every event: its users today, this week, this month, this year, and 30 days.

    \b
    flask bitmapist events
    flask bitmapist events --json | jq -r '.events[].event'
    """
    from .analytics import overview

    found = overview()
    header = ["event", "30 days", "today", "week", "month", "year"]
    rows = [[a.event, _spark(a.days), a.today, a.week, a.month, a.year] for a in found.events] + [
        [f"flag:{flag.flag}", "", flag.users, "", "", ""] for flag in found.flags
    ]
    return found.to_dict(), header, rows


@_command("by", "start", "end", "where")
@click.argument("event")
def show(event: str, **arguments: Any) -> Answer:
    """The users of EVENT (or of a segment), period by period.

    \b
    flask bitmapist show user:seen --by week
    flask bitmapist show "song:played & flag:user:premium" --start 2026-01-01
    """
    from .analytics import trend

    report = trend(event, strict=True, **arguments)
    header, rows = report.table()
    most = max((point.users for point in report.points), default=0)
    bar = _drawable(*_BAR)
    bars = [bar * round(40 * point.users / most) if most else "" for point in report.points]
    return (
        report.to_dict(),
        [*header, ""],
        [[*row, bar] for row, bar in zip(rows, bars, strict=True)],
    )


@_command("by", "at")
@click.argument("expression")
def users(expression: str, **arguments: Any) -> Answer:
    """The ids of those in EXPRESSION, an event or a segment, in one period.

    \b
    flask bitmapist users "song:played - flag:user:premium" --by month --csv
    """
    from .analytics import users as ids_of

    found = ids_of(expression, strict=True, **arguments)
    ids = found if isinstance(found, list) else found.tolist()
    return ids, ["id"], [[id_] for id_ in ids]


@_command("start", "end", "where")
@click.argument("cohort")
@click.argument("returned")
@click.option("--by", type=click.Choice(GRAINS), default="week", show_default=True)
@click.option("--periods", type=int, default=12, show_default=True, help="Columns after the first.")
@click.option(
    "--mode",
    type=click.Choice(["on", "on_or_after", "on_or_before", "streak", "first_return"]),
    default="on",
    show_default=True,
)
@click.option(
    "--members", type=click.Choice(["first", "every"]), default="first", show_default=True
)
def retention(cohort: str, returned: str, **arguments: Any) -> Answer:
    """Of those who first did COHORT in a period, the per cent who did RETURNED k periods later.

    A star marks a period that is not over. --json and --csv have the numbers of users.

    \b
    flask bitmapist retention user:created user:seen --by week
    flask bitmapist retention user:created song:played --where flag:user:premium
    """
    from .analytics import retention as report_of

    report = report_of(cohort, returned, strict=True, **arguments)
    header = [arguments["by"], "size", *(f"+{k}" for k in range(len(report.average)))]
    average = ["average", report.size, *(_per_cent(cell.rate) for cell in report.average)]
    rows = [
        [row.period_start, row.size, *(_per_cent(c.rate, c.state == "open") for c in row.cells)]
        for row in report.rows
    ]
    return report.to_dict(), header, [average, *rows]


@_command("by", "start", "end", "where")
@click.argument("event")
def lifecycle(event: str, **arguments: Any) -> Answer:
    """Who is new, returning, resurrected or dormant in EVENT, period by period.

    \b
    flask bitmapist lifecycle user:seen --by month
    """
    from .analytics import lifecycle as report_of

    return _report(report_of(event, strict=True, **arguments))


@_command("by", "end", "where")
@click.argument("event")
@click.option("--within", default="28", show_default=True, help="Periods, or week, or month.")
def stickiness(event: str, within: str, **arguments: Any) -> Answer:
    """How many did EVENT in exactly k of the last periods.

    \b
    flask bitmapist stickiness user:seen --within 7
    """
    from .analytics import stickiness as report_of

    window: Any = int(within) if within.isdecimal() else within
    return _report(report_of(event, within=window, strict=True, **arguments))


@_command("by", "start", "end", "where")
@click.argument("steps", nargs=-1, required=True)
@click.option("--within", type=int, help="Periods that the way may take from its entry.")
@click.option(
    "--order",
    type=click.Choice(["ordered", "strict", "any"]),
    default="ordered",
    show_default=True,
)
def funnel(steps: Sequence[str], **arguments: Any) -> Answer:
    """How many did all STEPS up to each one, in this order (within a period it is unknown).

    \b
    flask bitmapist funnel user:created post:created user:upgraded --within 14
    """
    from .analytics import funnel as report_of

    return _report(report_of(steps, strict=True, **arguments))


@_command("start", "end")
@click.argument("user")
def timeline(user: str, **arguments: Any) -> Answer:
    """What USER, an id as the application knows it, did on which days.

    \b
    flask bitmapist timeline 42 --start 2026-01-01
    """
    from .analytics import timeline as report_of

    return _report(report_of(user, **arguments))


@_command()
def reindex() -> Answer:
    """Register what bitmapist, or flask-bitmapist 0.1.2, has marked.

    Names whose bitmaps have all been deleted are forgotten.

    \b
    flask bitmapist reindex
    """
    tracker = current_tracker()
    changes = {"registered": tracker.reindex(), "forgotten": tracker.forget_emptied()}
    rows = [[change, name] for change, names in changes.items() for name in names]
    return changes, ["change", "name"], rows


@contextmanager
def _unwritten_told() -> Iterator[None]:
    """Say in a sentence why the output cannot be written."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise click.ClickException(
            f"the output's encoding, {error.encoding}, does not have "
            f"{error.object[error.start]!a}: set PYTHONIOENCODING=utf-8"
        ) from error
    except BrokenPipeError:
        raise  # nobody reads on, as in `| head`: click ends quietly
    except OSError as error:
        # Python would try again to write what is left, and complain, when the process ends.
        with suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise click.ClickException(f"the output was not written: {error.strerror}") from error


def _drawable(usual: str, plain: str) -> str:
    """`usual`, unless the output's encoding does not have all of it."""
    return usual if _shown(usual) == usual else plain


def _shown(text: str) -> str:
    """`text` as the output's encoding can tell it: what it does not have as ``\\u6b4c``."""
    # Where the output was closed (`>&-`) sys.stdout is None; a StringIO has an encoding of None.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _spark(values: Sequence[int]) -> str:
    most, sparks = max(values, default=0), _drawable(*_SPARKS)
    top = len(sparks) - 1
    return "".join(sparks[round(top * value / most) if most else 0] for value in values)


def _per_cent(rate: float | None, is_open: bool = False) -> str:
    return "" if rate is None else f"{100 * rate:.1f}{'*' if is_open else ''}"


def _print_table(header: Sequence[str], rows: Rows) -> None:
    """Aligned columns, numbers to the right; styles reach a terminal only."""
    texts = [[_shown(_text(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    right = [all(_is_number(text) for text in column) for column in zip(*texts, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(
                cells, widths, right or [False] * len(widths), strict=True
            )
        )
        return "  ".join(padded).rstrip()

    click.secho(line(header), bold=True)
    for cells in texts:
        click.secho(line(cells), dim="*" in cells[-1] or cells[-1] == "no")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def _is_number(text: str) -> bool:
    return not text.strip("0123456789.,*-") and not text.count("-") > 1
