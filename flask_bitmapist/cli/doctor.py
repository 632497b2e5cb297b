"""The command `doctor`: what is found, by part, with a sentence on what to do."""

from __future__ import annotations

import textwrap
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from flask import current_app

from ..current import current_tracker
from ..refusals import SERVER_ERRORS
from .group import command
from .terminal import Picture, progress, shown

if TYPE_CHECKING:
    from ..maintenance.doctor import Diagnosis, Finding

_WIDTH = 80
_TITLES = {
    "server": "Server",
    "data": "Data",
    "waiting": "Marks that wait here",
    "setup": "Settings",
    "models": "Models",
}
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
#: Columns of the levels, with two spaces on either side.
_INDENT = " " * 11
#: Events in the table.
_EVENTS = 10


@dataclass(frozen=True, slots=True)
class Chart:
    """A diagnosis as a terminal shows it."""

    diagnosis: Diagnosis

    def show(self) -> None:
        """Print it."""
        for part, findings in groupby(self.diagnosis.findings, lambda finding: finding.part):
            click.secho(_TITLES[part], bold=True)
            for finding in findings:
                _show(finding)
            if part == "data" and self.diagnosis.events:
                click.echo()
                _table(self.diagnosis).show()
            click.echo()
        counted = [
            f"{count} {level}{'' if count == 1 else 's'}"
            for level in ("error", "warning")
            if (count := self.diagnosis.count(level))
        ]
        click.echo(", ".join(counted) or "All is well.")


def _show(finding: Finding) -> None:
    lines = _wrapped(finding.found)
    level = click.style(f"{finding.level:7}", fg=_COLOURS[finding.level])
    click.echo(f"  {level}  {lines[0]}")
    for line in lines[1:]:
        click.echo(f"{_INDENT}{line}")
    for line in _wrapped(finding.advice and f"-> {finding.advice}."):
        click.secho(f"{_INDENT}{line}", bold=True)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(shown(text), _WIDTH - len(_INDENT), break_on_hyphens=False)


def _table(diagnosis: Diagnosis) -> Picture:
    from ..maintenance.doctor import sized

    rows: list[list[Any]] = [
        [
            event.event if len(event.event) <= 28 else f"{event.event[:27]}~",
            event.kind,
            event.bitmaps,
            sized(event.total),
            "" if event.largest_id is None else f"{event.largest_id:,}",
            "" if event.density is None else _per_cent(event.density),
        ]
        for event in diagnosis.events[:_EVENTS]
    ]
    left = len(diagnosis.events) - _EVENTS
    note = f"and {left:,} more: --json has all" if left > 0 else ""
    header = ["event", "ids", "bitmaps", "memory", "largest id", "in use"]
    return Picture(header, rows, note=note)


def _per_cent(share: float) -> str:
    return "< 0.01%" if 0 < share < 0.0001 else f"{100 * share:.3g}%"


@command("doctor", Chart, nullcontext)
def doctor() -> Diagnosis:
    """Look whether the server, the data, the spool, settings and models are well.

    It only reads. The exit code is 1 if there is an error; warnings do not count.

    \b
    flask bitmapist doctor
    """
    from ..maintenance.doctor import examine

    tracker = current_tracker()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    with progress(_keys) as bar:
        return examine(app, tracker, bar.add)


def _keys() -> int:
    """How many keys the server has; 0 if it does not say."""
    try:
        return int(current_tracker().server.quick.dbsize())
    except SERVER_ERRORS:
        return 0
