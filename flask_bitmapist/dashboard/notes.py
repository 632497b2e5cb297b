"""Annotations on time axes: which points they belong to, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from flask import current_app, request

from ..annotations import Annotation, kept
from ..current import current_tracker
from ..periods import Grain, Period, local
from .range_form import MOST_PERIODS

#: Where a request keeps the annotations.
_KEPT = "flask_bitmapist.annotations"
#: The most characters that a chart has room for.
_ROOM = 16
#: How many texts are below each other before one is at the top again.
_LEVELS = 3


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted at one point of a chart.

    :ivar index: the number of the point.
    :ivar start: when its period begins.
    :ivar level: at which height its text is drawn: neighbours would cover each other.
    """

    index: int
    start: datetime
    annotations: Sequence[Annotation]
    level: int

    @property
    def text(self) -> str:
        return "; ".join(one.text for one in self.annotations)

    @property
    def date(self) -> date:
        """The first day on which it is noted."""
        return self.annotations[0].date

    @property
    def short(self) -> str:
        """As much of the text as a chart has room for."""
        return self.text if len(self.text) <= _ROOM else f"{self.text[: _ROOM - 1]}…"


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes on one time axis, in order."""

    listed: Sequence[Note]

    def __iter__(self) -> Iterator[Note]:
        return iter(self.listed)

    def __bool__(self) -> bool:
        return bool(self.listed)

    def at(self, start: date) -> str:
        """What is noted in the period that begins at `start`; empty if nothing is."""
        return next((note.text for note in self.listed if note.start == _key(start)), "")

    @property
    def annotations(self) -> list[Annotation]:
        return [one for note in self.listed for one in note.annotations]


def notes_among(annotations: Iterable[Annotation], points: Iterable[Any], by: Grain) -> Notes:
    """Those of `annotations` on an axis of `points`, which have the ``period_start`` of a `by`."""
    starts = {_key(point.period_start): index for index, point in enumerate(points)}
    found: dict[datetime, list[Annotation]] = {}
    zone = current_tracker().settings.timezone
    for one in annotations:
        start = Period.containing(by, local(one.date, zone), zone).start
        if start in starts:
            found.setdefault(start, []).append(one)
    return Notes(
        [
            Note(starts[start], start, found[start], number % _LEVELS)
            for number, start in enumerate(sorted(found))
        ]
    )


def notes_on(points: Iterable[Any], by: Grain) -> Notes:
    """All that is noted on an axis, as `notes_among`."""
    return notes_among(of_request(), points, by)


def of_request() -> Sequence[Annotation]:
    """All annotations; read once for the current request."""
    environ = request.environ
    if _KEPT not in environ:
        environ[_KEPT] = all_annotations()
    found: Sequence[Annotation] = environ[_KEPT]
    return found


def changes_since(day: date) -> dict[str, str]:
    """The query string that asks what has changed since `day`; by the week if that is long ago."""
    since = {"over": f"since {day}"}
    today = current_tracker().now().date()
    return since if today - day < timedelta(days=MOST_PERIODS) else {**since, "by": "week"}


def with_annotations(
    report: Any, by: Grain | None, annotations: Iterable[Annotation]
) -> dict[str, Any]:
    """`report` as a dict, and those of `annotations` that are in its periods, if any are.

    :param by: their grain; None: it has none.
    """
    told: dict[str, Any] = report.to_dict()
    points = getattr(report, "points", None) or getattr(report, "rows", None)
    if by is None or not points:
        return told
    notes = notes_among(annotations, points, by)
    noted = [{"date": str(one.date), "text": one.text} for one in notes.annotations]
    return {**told, "annotations": noted} if noted else told


def all_annotations() -> Sequence[Annotation]:
    """Those of the current application's code, and those on its server, in order."""
    in_code = current_app.extensions["bitmapist"].annotations_of(current_app)
    return sorted({*in_code, *kept(current_tracker().reader.redis)})


def _key(start: date) -> datetime:
    return start if isinstance(start, datetime) else datetime(start.year, start.month, start.day)
