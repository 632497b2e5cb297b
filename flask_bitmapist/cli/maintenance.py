"""The commands that write: `reindex`, `pack`, `unpack`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import click

from ..current import current_tracker
from .group import command
from .terminal import Picture, progress


class Reindexed(NamedTuple):
    """The names that the registry has gained and lost."""

    registered: list[str]
    forgotten: list[str]

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    def rows(self) -> list[list[str]]:
        return [[change, name] for change, names in self._asdict().items() for name in names]

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(["change", "name"], self.rows())


@command("reindex", lambda answer: Picture(["change", "name"], answer.rows()))
def reindex() -> Reindexed:
    """Register what bitmapist, or flask-bitmapist 0.1.2, has marked.

    Names whose bitmaps have all been deleted are forgotten. Id maps that a development build of 1.0
    has left are taken over.

    \b
    flask bitmapist reindex
    """
    tracker = current_tracker()
    return Reindexed(tracker.reindex(), tracker.forget_emptied())


class Swapped(NamedTuple):
    """How many bitmaps were swapped, or would be, and their bytes."""

    bitmaps: int
    raw_bytes: int
    packed_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(self._fields, [self])


def _picture(swapped: Swapped) -> Picture:
    return Picture(["bitmaps", "raw bytes", "packed bytes"], [[f"{n:,}" for n in swapped]])


@command("pack", _picture)
@click.option("--days", type=click.IntRange(1), help="Only periods over for so many days.")
@click.option("--dry-run", is_flag=True, help="Only tell what it would save.")
def pack(days: int | None, dry_run: bool) -> Swapped:
    """Keep bitmaps of past periods in a fraction of their memory.

    Those that are over for BITMAPIST_PACK_AFTER, or for 35 days. It can be stopped at any moment,
    and run again: it goes on with what is left.

    \b
    flask bitmapist pack --dry-run
    """
    from .. import swapping
    from ..packed_periods import USUAL_AGE

    tracker = current_tracker()
    client = tracker.server.patient
    age = tracker.settings.pack_after or USUAL_AGE
    if days is not None:
        age = timedelta(days=days)
    before = (tracker.now() - age).date()
    keys = swapping.raw_keys(client, tracker.reader.known(scanned=False).events.keys(), before)
    listed = [*keys]
    if listed and not dry_run:
        swapping.announce(client, before)
    return _swapped(listed, lambda key: swapping.pack(client, key, dry=dry_run))


@command("unpack", _picture)
def unpack() -> Swapped:
    """Keep all bitmaps as bitmapist does, which then reads them too.

    \b
    flask bitmapist unpack
    """
    from .. import swapping
    from ..packed_periods import packed_keys

    client = current_tracker().server.patient
    return _swapped([*packed_keys(client)], lambda key: swapping.unpack(client, key))


def _swapped(keys: Sequence[str], swap: Callable[[str], Any]) -> Swapped:
    done = Swapped(0, 0, 0)
    with progress(lambda: len(keys)) as bar:
        for key in keys:
            if one := swap(key):
                raw, packed = done.raw_bytes + one.raw, done.packed_bytes + one.packed
                done = Swapped(done.bitmaps + 1, raw, packed)
            bar.add(1)
    return done
