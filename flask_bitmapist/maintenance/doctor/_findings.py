"""What the doctor finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    :ivar part: what it is about: ``server``, ``data``, ``waiting``, ``setup`` or ``models``.
    :ivar found: a sentence that says how it is.
    :ivar advice: what to do; '' if it is well.
    """

    part: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class EventMemory:
    """What one event, or flag, takes of the server.

    :ivar kind: that of its ids: ``plain``, ``mapped`` or ``mapped:<name>``.
    :ivar bytes: all its bitmaps, by period: ``hour``, ``day``, ``week``, ``month``, ``undated``.
    :ivar largest_id: the largest offset in its longest bitmap; None: all are packed.
    :ivar density: the share of offsets up to that one which are set in that bitmap.
    """

    event: str
    kind: str
    bitmaps: int
    bytes: dict[str, int]
    largest_id: int | None
    density: float | None

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.bytes.values())


@dataclass(frozen=True, slots=True)
class Growth:
    """How the bitmaps grow.

    :ivar monthly: bytes a month, as in the last three whole months; None: there are none yet.
    :ivar total: bytes now.
    """

    total: int
    monthly: int | None

    @property
    def in_a_year(self) -> int | None:
        """Bytes a year from now, if nobody has larger ids by then."""
        return None if self.monthly is None else self.total + 12 * self.monthly


@dataclass(frozen=True, slots=True)
class Model:
    """A model that marks what happens to its rows.

    :ivar id: the attribute whose value is marked; ``primary key``, or ``method``.
    :ivar bulk: whether bulk statements are followed.
    :ivar erases: whether people whose rows are deleted are erased.
    """

    name: str
    orm: str
    events: list[str]
    flags: list[str]
    dimensions: list[str]
    id: str
    bulk: bool
    erases: bool


@dataclass(slots=True)
class Diagnosis:
    """All that was found. `events` begins with the largest."""

    findings: list[Finding] = field(default_factory=list)
    events: list[EventMemory] = field(default_factory=list)
    growth: Growth | None = None
    models: list[Model] = field(default_factory=list)

    def count(self, level: Level) -> int:
        """How many findings are of `level`."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 if there is an error."""
        return int(self.count("error") > 0)

    def to_dict(self) -> dict[str, Any]:
        """It as JSON has it."""
        growth = self.growth
        return {
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [asdict(finding) for finding in self.findings],
            "events": [asdict(event) for event in self.events],
            "growth": growth and {**asdict(growth), "in_a_year": growth.in_a_year},
            "models": [asdict(model) for model in self.models],
        }

    def to_csv(self) -> str:
        """The findings as CSV."""
        from ...analytics import csv_text

        rows = [[*asdict(finding).values()] for finding in self.findings]
        return csv_text(["part", "level", "found", "advice"], rows)


def sized(size: float) -> str:
    """`size` bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def several(count: int, noun: str) -> str:
    """`count` with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
