"""The commands that let data go: `erase`, `prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..current import current_tracker
from ..tracker import Tracker
from .group import command
from .terminal import Picture, counted, progress

if TYPE_CHECKING:
    from ..maintenance.erase import Receipt
    from ..maintenance.prune import Pruned

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
        told = "would be erased" if receipt.moment is None else "erased, and found to be gone"
        parts = [f"{counted(receipt.bits, 'bit')} of {counted(len(receipt.events), 'event')}"]
        if receipt.entries:
            parts.append(f"{counted(receipt.entries, 'entry', 'entries')} of the id map")
        return Picture(_ERASED, self.rows(), note=f"{' and '.join(parts)}: {told}")


_ERASED = ["event", "first", "last", "bits"]


@command("erase", Erased.picture)
@click.argument("user")
@click.option("--keep", multiple=True, help="An event or flag whose ids are not those of users.")
@_DRY_RUN
@_YES
def erase(user: str, keep: tuple[str, ...], dry_run: bool, yes: bool) -> Erased:
    """Erase USER: every bit in every event and flag, and the entry in the id map.

    Marks that were made before, and wait in a queue or spool somewhere, do not come back. It can be
    stopped at any moment, and run again.

    \b
    flask bitmapist erase 42 --keep post:created
    """
    tracker = _sending_tracker()
    if not dry_run and not yes:
        click.confirm(f"Erase {user} for good?", abort=True, err=True)
    passes = 1 if dry_run else 2
    with progress(lambda: passes * tracker.server.patient.dbsize()) as bar:
        return Erased(tracker.erase(user, keep=keep, dry_run=dry_run, watch=bar.add))


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
        told = ", ".join(f"{grain}s after {age}" for grain, age in settings.ttl.items())
        click.confirm(f"Delete {told}?", abort=True, err=True)
    client = tracker.server.patient
    names = tracker.reader.known(scanned=False).events
    with progress(client.dbsize) as bar:
        expiries = Expiries(settings.ttl, settings.timezone)
        return Gone(let_go(client, names, expiries, dry_run=dry_run, watch=bar.add), dry_run)


def _sending_tracker() -> Tracker:
    """:raises ValueError: if the application's data is not on the server."""
    tracker = current_tracker()
    if not tracker.sends():
        raise ValueError(
            "the application's marks are not on the server, as BITMAPIST_ENABLED is False, or "
            "TESTING is set: BITMAPIST_ENABLED = True sends them"
        )
    return tracker
