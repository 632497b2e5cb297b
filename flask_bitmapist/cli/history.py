"""The commands that bring history in, take it out and compare it: `backfill` and its kin."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from flask import current_app
from werkzeug.utils import import_string

from ..current import current_tracker
from .group import answering, command, commands, unwritten_told
from .terminal import Picture, counted, has_somebody, progress, shown

if TYPE_CHECKING:
    from ..maintenance.backfill import Backfill

_DAY = click.DateTime(["%Y-%m-%d"])
_ZONE_HELP = "The zone of times that have none. Default: BITMAPIST_TIMEZONE."


class Outcome(NamedTuple):
    """What a run has done, finished or not."""

    done: Any
    exit_code: int = 0
    #: Where to resume.
    after: str | None = None
    #: Whether it would have done it.
    is_dry: bool = False

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = self.done.to_dict()
        return told if self.after is None else {**told, "after": self.after}

    def to_csv(self) -> str:
        from ..analytics import csv_text

        told = self.to_dict()
        return csv_text([*told], [[*told.values()]])


def _picture(outcome: Outcome) -> Picture:
    names = {"future": "in the future"}
    if outcome.is_dry:
        names["marked"] = "would be marked"
    rows = [
        [names.get(name, name).replace("_", " "), f"{value:,}" if type(value) is int else value]
        for name, value in outcome.to_dict().items()
        if value not in (0, None, "", []) or name in ("rows", "marked")
    ]
    head, *others = rows or [[]]
    return Picture(head, others)


class _Zone(click.ParamType):  # type: ignore[type-arg]
    """The name of a time zone."""

    name = "zone"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return ZoneInfo(value)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            self.fail(f"{value!r} is no time zone: name one such as Europe/Berlin")


class _Imported(click.ParamType):  # type: ignore[type-arg]
    """An object of the application, such as ``shop.models:User``."""

    name = "module:name"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if ":" not in value and "." not in value:
            self.fail(f"{value!r} cannot be imported: name its module too, as in shop.models:User")
        try:
            return import_string(value)
        except ImportError as error:
            # Werkzeug's own message has several lines; the error in it says what is missing.
            reason = getattr(error, "exception", error)
            self.fail(f"{value!r} cannot be imported: {reason}")


_YES = click.option("--yes", is_flag=True, help="Do not ask, on a terminal.")


def _of_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which rows of which model are marked, and for whom."""
    for option in (
        click.option(
            "--session",
            "source",
            type=_Imported(),
            help="For SQLAlchemy without Flask-SQLAlchemy: its engine, as in shop.db:engine.",
        ),
        click.option(
            "--timezone",
            "naive_in",
            type=_Zone(),
            help=_ZONE_HELP,
        ),
        click.option("--until", type=_DAY, help="Only rows up to this day."),
        click.option("--since", type=_DAY, help="Only rows from this day on."),
        click.option("--where", help="Only these rows: SQL, or for MongoEngine JSON."),
        click.option("--id", "id_", help="The attribute that says who. Default: as the model."),
        click.option("--event", help="Default: <model>:created."),
        click.option("--at", required=True, help="The attribute that says when."),
        click.argument("model", type=_Imported()),
    ):
        function = option(function)
    return function


def _ask(question: str, *, yes: bool) -> None:
    """Ask, unless `yes` is told, or nobody is there: marks are only added, once each."""
    if not yes and has_somebody():
        click.confirm(question, abort=True, err=True)


def _job(
    model: Any,
    at: str,
    event: str | None,
    id_: str | None,
    where: str | None,
    since: datetime | None,
    until: datetime | None,
    naive_in: Any,
    source: Any,
) -> Backfill:
    """The rows that these options name."""
    from ..maintenance.backfill import Backfill

    return Backfill(
        current_tracker(),
        model,
        at,
        event=event,
        who=id_,
        where=where,
        days=_days(since, until),
        naive_in=naive_in,
        source=source,
    )


def _days(since: datetime | None, until: datetime | None) -> Any:
    from ..maintenance.days import Days

    return Days(since and since.date(), until and until.date())


def _outcome(
    run: Callable[[], Any],
    key_text: Callable[[Any], str],
    findings: str = "",
    *,
    is_dry: bool = False,
) -> Outcome:
    """What `run` returns, or what it had done when it was stopped.

    :param findings: the name of a count which, unless 0, gives exit code 3.
    """
    from ..maintenance.runs import StoppedError

    try:
        done = run()
    except StoppedError as stopped:
        cause = stopped.__cause__
        told = current_tracker().server.explain(cause) if isinstance(cause, Exception) else None
        level = "" if isinstance(cause, KeyboardInterrupt) else "Error: "
        click.echo(f"{level}{shown(told or str(stopped))}", err=True)
        after = None if stopped.after is None else key_text(stopped.after)
        # Of a query that fails at once, as for a wrong --where, the next run would do the same.
        if after is not None or not isinstance(cause, Exception) or told is not None:
            again = "." if after is None else f", with --after {_quoted(after)}"
            click.echo(f"To go on from here, run the same command again{again}", err=True)
        code = 130 if isinstance(cause, KeyboardInterrupt) else 1
        return Outcome(stopped.counts, code, after, is_dry)
    return Outcome(done, 3 if findings and getattr(done, findings) else 0, is_dry=is_dry)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


@command("backfill", _picture)
@_of_rows
@click.option("--after", help="Only rows after this key, as printed when a run was stopped.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be marked.")
@_YES
def backfill(after: str | None, dry_run: bool, yes: bool, **rows: Any) -> Outcome:
    """Mark what the rows of MODEL tell: who was created when, and the flags.

    Nothing is marked twice: it can be stopped at any moment, and run again.

    \b
    flask bitmapist backfill shop.models:User --at created_at --dry-run
    flask bitmapist backfill shop.models:Order --at paid_at --event order:paid
    """
    from ..maintenance.tables import key_of, key_text

    job = _job(**rows)
    start = None if after is None else key_of(after)
    if not dry_run:
        _ask(f"Mark what the rows tell, as {job.names.event}?", yes=yes)
    with progress(job.count, job.names.event) as bar:
        return _outcome(
            lambda: job.run(after=start, dry=dry_run, told=lambda done: bar.reach(done.rows)),
            key_text,
            is_dry=dry_run,
        )


class Comparison(NamedTuple):
    """What `reconcile` found, and did."""

    done: Any
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        told = {name: getattr(self.done, name) for name in _COUNTS}
        return told | {"differences": [one._asdict() for one in self.done.differences]}

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(_DIFFERENCE, self.done.differences)


_COUNTS = ("event", "rows", "missing", "extra", "repaired", "cleared")
_DIFFERENCE = ("found", "event", "granularity", "start", "id")


def _comparison(comparison: Comparison) -> Picture:
    """How many differ, by period."""
    done = comparison.done
    counted = Counter(one[:4] for one in done.differences)
    rows = [[*of[1:], of[0], count] for of, count in counted.items()]
    note = f"Rows: {done.rows:,}. Missing marks: {done.missing:,}. Without a row: {done.extra:,}."
    if done.repaired:
        note += " The rows were marked again."
    if done.cleared:
        note += f" Taken back: {done.cleared:,}."
    return Picture(["event", "granularity", "start", "found", "bits"], rows, note=note)


@command("reconcile", _comparison)
@_of_rows
@click.option("--repair", is_flag=True, help="Mark the rows whose marks are missing.")
@click.option("--clear", is_flag=True, help="Take back marks of days without a row, and flags.")
@click.option("--yes", is_flag=True, help="Do not ask before marks are taken back.")
def reconcile(repair: bool, clear: bool, yes: bool, **rows: Any) -> Comparison:
    """Compare what the rows of MODEL tell with what is marked.

    A mark may be missing, or have no row, as after a deletion. --csv and --json list whose. The
    exit code is 3 if differences are left.

    \b
    flask bitmapist reconcile shop.models:User --at created_at
    flask bitmapist reconcile shop.models:User --at created_at --repair
    """
    from ..maintenance.reconciling import Reconcile

    tracker = current_tracker()
    if clear and not yes:
        told = "Marks of deleted rows have no row either. Take them back?"
        click.confirm(told, abort=True, err=True)
    job = _job(**rows)
    with progress(job.count, job.names.event) as bar:
        done = Reconcile(tracker, job).run(repair=repair, clear=clear, told=bar.reach)
    return Comparison(done, 3 if done.left else 0)


@command("import", _picture)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), help="Default: as it looks.")
@click.option("--event", help="The event of all lines.")
@click.option("--event-column", help="The column that says what was done. Default: event.")
@click.option("--user-column", help="The column that says who. Default: user.")
@click.option("--time-column", help="The column that says when. Default: time.")
@click.option("--timezone", "naive_in", type=_Zone(), help=_ZONE_HELP)
@click.option("--text-ids", is_flag=True, help="Ids are texts, even those that look like numbers.")
@click.option("--rejects", type=click.Path(dir_okay=False), help="Where bad lines are put.")
@click.option("--after", type=int, help="Only lines after this one, as printed by a stopped run.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be marked.")
@_YES
def import_(
    file: str,
    form: str | None,
    event: str | None,
    event_column: str | None,
    user_column: str | None,
    time_column: str | None,
    naive_in: Any,
    text_ids: bool,
    rejects: str | None,
    after: int | None,
    dry_run: bool,
    yes: bool,
) -> Outcome:
    """Mark what the lines of FILE tell: an export, or any log as CSV or JSON lines.

    FILE is - for the standard input. Lines that cannot be marked are put into a file, FILE.rejects
    by default, each with its number and the reason, and the exit code is then 3.

    \b
    flask bitmapist import history.csv
    flask bitmapist import signups.jsonl --event user:created --time-column at
    """
    from ..maintenance.importing import Columns, Import

    columns = None
    if event or event_column or user_column or time_column:
        columns = Columns(event_column or "event", user_column or "user", time_column or "time")
    job = Import(
        current_tracker(),
        file,
        form,
        columns,
        event=event,
        rejects=Path(rejects or f"{'import' if file == '-' else file}.rejects"),
        naive_in=naive_in,
        has_text_ids=text_ids,
    )
    if not dry_run and file != "-":
        _ask(f"Mark what {shown(file)} tells?", yes=yes)
    return _outcome(lambda: job.run(after=after, dry=dry_run), str, "rejected", is_dry=dry_run)


@commands.command("export")
@click.option("--event", "events", multiple=True, help="Only this event, or several of them.")
@click.option("--since", type=_DAY, help="Only periods that begin on this day or later.")
@click.option("--until", type=_DAY, help="Only periods that begin on this day or earlier.")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv")
def export(
    events: tuple[str, ...], since: datetime | None, until: datetime | None, form: str
) -> None:
    """Print the events as lines, from which `import` gives another server the same bits.

    \b
    flask bitmapist export > history.csv
    flask bitmapist export --event user:created --since 2026-01-01 --format jsonl
    """
    from ..maintenance.exporting import Export

    with answering(), unwritten_told():
        job = Export(current_tracker(), events, _days(since, until))
        with progress(job.months, "months") as bar:
            job.write(sys.stdout, form, bar.reach)
        sys.stdout.flush()
    if job.lost:
        lost = counted(job.lost, "bit")
        raise click.ClickException(f"left out: {lost}, as the server has lost whose they are")


@command("copy", _picture)
@click.argument("url")
@click.option("--out", is_flag=True, help="The other way: from the application's server to URL.")
@click.option("--prefix", help="How the keys begin there; with bitmapist4: bitmapist_")
@click.option("--ignore-erasures", is_flag=True, help="Copy although erased persons may come back.")
@click.option("--dry-run", is_flag=True, help="Only tell what there is to copy.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def copy(
    url: str, out: bool, prefix: str | None, ignore_erasures: bool, dry_run: bool, yes: bool
) -> Outcome:
    """Copy all bitmaps from the server at URL into the application's own.

    Both may be in use. Bits are added to what is there, and read back; packed periods, ids,
    expiries and erasures go along. It can be stopped at any moment, and run again.

    \b
    flask bitmapist copy redis://old.example:6379 --dry-run
    flask bitmapist copy redis://old.example:6379 --prefix bitmapist_
    flask bitmapist copy --out redis://new.example:6379
    """
    from ..maintenance.copying import Copy
    from ..maintenance.runs import StoppedError
    from ..maintenance.sides import client_at
    from ..periods import KEY_PREFIX

    if out and prefix is not None:
        raise ValueError("--prefix is for keys that are copied in: leave it out with --out")
    tracker = current_tracker()
    settings, path = tracker.settings, current_app.instance_path
    with client_at(url, settings, path, writes=out) as other:
        own = tracker.server.patient
        source, target = (own, other) if out else (other, own)
        job = Copy(
            source,
            target,
            settings,
            prefix=KEY_PREFIX if prefix is None else prefix,
            ignores_erasures=ignore_erasures,
        )
        try:
            found = job.survey()
        except StoppedError as stopped:
            raise click.ClickException(shown(str(stopped))) from stopped
        if dry_run:
            return Outcome(found)
        if not yes:
            to = "there" if out else "here"
            bitmaps, size = counted(found.bitmaps, "bitmap"), counted(found.bytes, "byte")
            told = f"Copy {bitmaps} of {size} {to}?"
            click.confirm(told, abort=True, err=True)
        with progress(lambda: 2 * found.bitmaps, "bitmaps") as bar:
            outcome = _outcome(lambda: job.run(bar.add), str, "is_wanting")
    if getattr(outcome.done, "erased_meanwhile", False):
        told = "Persons were erased from the source whose bits may have been copied before"
        click.echo(f"{told}: erase them from the target too", err=True)
    if getattr(outcome.done, "slots_moved", False):
        told = "Slots of the source were being moved, so that keys may have been missed"
        click.echo(f"{told}: run it again once they have moved", err=True)
    return outcome
