"""The commands about annotations: `annotate` and `annotations`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import click
from flask import current_app

from ..annotations import annotation_of, keep, kept, remove
from ..current import current_tracker
from .group import command
from .terminal import Picture


class Kept(NamedTuple):
    """An annotation, and what has become of it."""

    date: str
    text: str
    #: ``added``, ``kept``, ``removed`` or ``missing``.
    state: str

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(["date", "text", "state"], [[*self]])


@command("annotate", lambda told: Picture(["date", "text", "state"], [[*told]]))
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
@click.argument("text")
@click.option("--remove", "removes", is_flag=True, help="Remove it instead.")
def annotate(day: datetime, text: str, removes: bool) -> Kept:
    """Note on every chart that TEXT happened on DAY, such as a release.

    \b
    flask bitmapist annotate 2026-11-01 "v2.0"
    flask bitmapist annotate --remove 2026-11-01 "v2.0"
    """
    annotation = annotation_of(day.date(), text)
    client = current_tracker().server.patient
    if removes:
        state = "removed" if remove(client, annotation) else "missing"
    else:
        state = "added" if keep(client, annotation) else "kept"
    return Kept(annotation.date.isoformat(), annotation.text, state)


class Listed(NamedTuple):
    """All annotations, as rows of a day, a text and where they are declared."""

    rows: list[list[str]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "annotations": [
                dict(zip(("date", "text", "declared"), row, strict=True)) for row in self.rows
            ]
        }

    def to_csv(self) -> str:
        from ..analytics import csv_text

        return csv_text(["date", "text", "declared"], self.rows)


@command("annotations", lambda found: Picture(["date", "text", "declared"], found.rows))
def listed() -> Listed:
    """Every annotation: those of the application's code, and those that `annotate` has kept.

    \b
    flask bitmapist annotations
    """
    in_code = current_app.extensions["bitmapist"].annotations_of(current_app)
    found = [(one, "code") for one in in_code]
    found += [(one, "server") for one in kept(current_tracker().reader.redis)]
    return Listed([[one.date.isoformat(), one.text, where] for one, where in sorted(found)])
