"""The commands that let data go: `erase`, `prune`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..current import current_tracker
from ..refusals import SERVER_ERRORS
from ..tracker import Tracker
from .group import command
from .terminal import Picture, counted, progress

if TYPE_CHECKING:
    from ..maintenance.prune import Pruned
    from ..maintenance.receipts import Receipt

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only tell what would go.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")


class Erased(NamedTuple):
    """The receipt of an erasure."""

    receipt: Receipt

    def to_dict(self) -> dict[str, Any]:
        return self.receipt.to_dict()

    def rows(self) -> list[list[Any]]:
        return [[*event] for event in self.receipt.events]

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(_ERASED, self.rows())

    def picture(self) -> Picture:
        receipt = self.receipt
        if not receipt.people:
            return Picture([], [], note="nobody waits to be erased")
        told = "would be erased" if receipt.moment is None else "erased, and found to be gone"
        parts = [f"{counted(receipt.bits, 'bit')} of {counted(len(receipt.events), 'event')}"]
        if receipt.entries:
            parts.append(f"{counted(receipt.entries, 'entry', 'entries')} of the id map")
        whose = f", of {receipt.people:,} people" if receipt.people > 1 else ""
        return Picture(_ERASED, self.rows(), note=f"{' and '.join(parts)}{whose}: {told}")


_ERASED = ["event", "first", "last", "bits"]


@command("erase", Erased.picture)
@click.argument("user", required=False)
@click.option("--keep", multiple=True, help="An event or flag whose ids are not those of users.")
@click.option("--due", is_flag=True, help="Those who wait for it, as their rows were deleted.")
@_DRY_RUN
@_YES
def erase(user: str | None, keep: tuple[str, ...], due: bool, dry_run: bool, yes: bool) -> Erased:
    """Erase USER: every bit in every event and flag, and the entry in the id map.

    Marks that were made before, and wait in a queue or spool somewhere, do not come back. It can be
    stopped at any moment, and run again.

    With --due, erase those whose rows were deleted, where a model has __bitmapist_erase_deleted__.
    The application does so by itself. This is for those whose process ended before it could.

    \b
    flask bitmapist erase 42 --keep post:created
    flask bitmapist erase --due --yes
    """
    if due:
        _check_due(user, keep)
    elif user is None:
        raise ValueError("name the USER to erase, or --due for those whose rows were deleted")
    tracker = _sending_tracker()
    if due:
        return _erase_due(tracker, dry_run=dry_run, yes=yes)
    if not dry_run and not yes:
        click.confirm(f"Erase {user} for good?", abort=True, err=True)
    with _going_through(tracker, dry_run=dry_run) as bar:
        return Erased(tracker.erase(user, keep=keep, dry_run=dry_run, watch=bar.add))


def _check_due(user: str | None, keep: tuple[str, ...]) -> None:
    """:raises ValueError: if more is asked for than to erase those who wait."""
    if user is not None:
        raise ValueError("--due erases those who wait, and takes no USER")
    if keep:
        raise ValueError(
            "--due keeps what the models say: name events with other ids in __bitmapist_keep__"
        )


def _erase_due(tracker: Tracker, *, dry_run: bool, yes: bool) -> Erased:
    from ..wishes import wishes

    waiting = len({wish.whose for wish in wishes(tracker.server.patient)})
    if waiting and not dry_run and not yes:
        people = counted(waiting, "person", "people")
        click.confirm(f"Erase {people} whose rows were deleted for good?", abort=True, err=True)
    with _going_through(tracker, dry_run=dry_run) as bar:
        return Erased(tracker.erase_due(dry_run=dry_run, watch=bar.add))


@contextmanager
def _going_through(tracker: Tracker, *, dry_run: bool) -> Iterator[Any]:
    """The progress of whoever goes through all keys once, or until nothing is found."""
    passes = 1 if dry_run else 2
    with _resumable(dry_run=dry_run):
        client = tracker.server.patient
        with progress(lambda: passes * client.dbsize()) as bar:
            yield bar


@contextmanager
def _resumable(*, dry_run: bool) -> Iterator[None]:
    """Say what to do, if what is inside is stopped."""
    again = "" if dry_run else "Not all is done: run the same command again, and it goes on"
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {again}".rstrip(), err=True)
        click.get_current_context().exit(130)
    except SERVER_ERRORS:
        if again:
            click.echo(again, err=True)
        raise


class Gone(NamedTuple):
    """What became of the periods of each length."""

    pruned: list[Pruned]
    is_dry: bool

    def to_dict(self) -> list[dict[str, Any]]:
        from dataclasses import asdict

        return [asdict(of_grain) for of_grain in self.pruned]

    def to_csv(self) -> str:
        from ..analytics import csv_text

        rows = [[*of_grain.values()] for of_grain in self.to_dict()]
        return csv_text([*self.to_dict()[0]], rows)

    def picture(self) -> Picture:
        header = ["period", "over", "bytes", "to expire", "bytes", "bits set in longer periods"]
        if self.is_dry:
            note = "nothing is changed: this is what would be"
        else:
            freed = counted(sum(of_grain.gone_bytes for of_grain in self.pruned), "byte")
            note = f"{freed} freed"
        rows = [
            [first, *(f"{number:,}" for number in numbers)]
            for first, *numbers in (of_grain.values() for of_grain in self.to_dict())
        ]
        return Picture(header, rows, note=note)


@command("prune", Gone.picture)
@_DRY_RUN
@_YES
def prune(dry_run: bool, yes: bool) -> Gone:
    """Let periods go as BITMAPIST_TTL says, also those that were there before it was set.

    What is over is deleted, and the rest will expire. Bits that a longer period lacks are set there
    first. It can be stopped at any moment, and run again.

    \b
    flask bitmapist prune --dry-run
    """
    from ..delivery.expiry import Expiries
    from ..maintenance.prune import prune as let_go

    tracker = _sending_tracker()
    settings = tracker.settings
    if not settings.ttl:
        raise ValueError(
            "BITMAPIST_TTL is not set, so every period is kept: set how long each is to stay, "
            "such as BITMAPIST_TTL = {'hour': timedelta(days=14), 'day': timedelta(days=400)}"
        )
    if not dry_run and not yes:
        told = ", ".join(
            f"{grain}s that ended {_told(age)} ago" for grain, age in settings.ttl.items()
        )
        click.confirm(f"Delete {told}?", abort=True, err=True)
    client = tracker.server.patient
    names = tracker.reader.known(scanned=False).events
    with _resumable(dry_run=dry_run), progress(client.dbsize) as bar:
        expiries = Expiries(settings.ttl, settings.timezone)
        return Gone(let_go(client, names, expiries, dry_run=dry_run, watch=bar.add), dry_run)


def _told(age: timedelta) -> str:
    return counted(age.days, "day") if age == timedelta(age.days) else str(age)


def _sending_tracker() -> Tracker:
    """:raises ValueError: if the application's data is not on the server."""
    tracker = current_tracker()
    if not tracker.sends():
        raise ValueError(
            "the application's marks are not on the server, as BITMAPIST_ENABLED is False, or "
            "TESTING is set: BITMAPIST_ENABLED = True sends them"
        )
    return tracker
