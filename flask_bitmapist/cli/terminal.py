"""What commands show on a terminal: aligned columns, bars, sparks, dimmed and bold lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import click

# Characters to draw with, and what replaces them where the output's encoding lacks them.
_SPARKS = ("▁▂▃▄▅▆▇█", "_.:-=+*#")
_BAR = ("█", "#")
_BAR_WIDTH = 40


def has_somebody() -> bool:
    """Whether somebody can be asked: the input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


@dataclass(frozen=True, slots=True)
class Share:
    """A share of 1, shown as per cent; a star means that its period is not over."""

    rate: float | None
    is_open: bool = False

    def __str__(self) -> str:
        return "" if self.rate is None else f"{100 * self.rate:.1f}{'*' if self.is_open else ''}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of up to 40 characters."""

    share: float

    def __str__(self) -> str:
        return _drawable(*_BAR) * round(_BAR_WIDTH * self.share)


@dataclass(frozen=True, slots=True)
class Spark:
    """One column for each value, in eight heights."""

    values: Sequence[int]

    def __str__(self) -> str:
        most, sparks = max(self.values, default=0), _drawable(*_SPARKS)
        top = len(sparks) - 1
        return "".join(sparks[round(top * value / most) if most else 0] for value in self.values)


@dataclass(frozen=True, slots=True)
class Picture:
    """A table as a terminal shows it.

    :ivar open: the rows whose periods are not over; shown dimmed.
    :ivar note: a sentence below the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    open: frozenset[int] = field(default_factory=frozenset)
    note: str = ""

    def show(self) -> None:
        """Print it; styles reach a terminal only. Without any rows there is no header."""
        if not self.rows:
            click.secho(self.note or "There is nothing to show.", dim=True)
            return
        fitting, left_out = self._fitting()
        texts = [[shown(_text(value)) for value in row[:fitting]] for row in self.rows]
        header = [shown(name) for name in self.header[:fitting]]
        widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
        rights = [
            all(isinstance(row[i], int | float | Share | None) for row in self.rows)
            and any(isinstance(row[i], int | float | Share) for row in self.rows)
            for i in range(len(header))
        ]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, rights, strict=True)
            )
            return "  ".join(padded).rstrip()

        click.secho(line(header), bold=True)
        for number, cells in enumerate(texts):
            click.secho(line(cells), dim=True if number in self.open else None)
        for note in (self.note, left_out):
            if note:
                click.secho(note, dim=True)

    def _fitting(self) -> tuple[int, str]:
        """How many columns fit the terminal, and a sentence about those that do not."""
        if not sys.stdout or not sys.stdout.isatty():
            return len(self.header), ""
        room, used = shutil.get_terminal_size().columns, -2
        for number, name in enumerate(self.header):
            texts = [shown(_text(row[number])) for row in self.rows]
            used += 2 + max(map(len, [shown(name), *texts]))
            # If not even two columns fit, the lines wrap anyway.
            if used > room and number > 1:
                hidden = ", ".join(map(shown, self.header[number:]))
                return number, f"No room to show: {hidden}. Take --csv or fewer columns."
        return len(self.header), ""


def shown(text: str) -> str:
    """`text` in a form that the output can show and that does no harm.

    Characters that the encoding lacks, and those that a terminal would obey rather than show
    (control characters, direction marks), are escaped, as in ``\\u6b4c``.
    """
    # Where the output was closed (`>&-`) sys.stdout is None; a StringIO has an encoding of None.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return visible.encode(encoding, "backslashreplace").decode(encoding)


def _drawable(usual: str, plainer: str) -> str:
    """`usual`, or its replacement if the output's encoding lacks any of it."""
    return usual if shown(usual) == usual else plainer


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)


def counted(number: int, one: str, several: str = "") -> str:
    """`number` with its noun.

    >>> counted(1, "entry", "entries"), counted(1200, "bit")
    ('1 entry', '1,200 bits')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


class Progress:
    """A progress bar on a terminal; elsewhere nothing is shown, not even an empty line."""

    def __init__(self, bar: Any) -> None:
        """:param bar: click's; None: nobody looks."""
        self._bar = bar

    def add(self, steps: int) -> None:
        """So many more steps are done."""
        if self._bar is not None:
            self._bar.update(steps)

    def reach(self, steps: int) -> None:
        """So many steps are done in all; fewer than before, if some had to be done again."""
        if self._bar is not None:
            self._bar.update(steps - self._bar.pos)


@contextmanager
def progress(length: Callable[[], int], label: str = "") -> Iterator[Progress]:
    """Shows how far something has come.

    :param length: returns how many steps there are; it is only called on a terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield Progress(None)
        return
    bar: Any  # click's types are not those of every version
    with click.progressbar(length=max(1, length()), label=label, file=sys.stderr) as bar:
        yield Progress(bar)
