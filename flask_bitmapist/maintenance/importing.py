"""Marks what the lines of a file tell: an export, or any other log."""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, tzinfo
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..dimensions import value_of
from ..ids import MAPPED, PLAIN, TextKey, mapped_kind, normal_form
from ..many import is_array
from ..marks import checked_name
from ..periods import local
from ..registry import mismatch
from ..tracker import Tracker
from .days import Days, day_of
from .lines import COLUMNS, GRANULARITIES, Granularity
from .moments import Clock, Seconds
from .parts import in_parts
from .records import FORMS, Record
from .runs import PATIENCE, Bulk, run
from .tables import Ids, usable

#: Lines that are read, and written, together.
PAGE = 50_000
#: The name of the standard input.
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has done, or would do."""

    #: Lines that were read: those marked, and those rejected.
    lines: int = 0
    marked: int = 0
    rejected: int = 0
    #: The file in which they are.
    rejects: str = ""
    #: The first and the last day that was marked.
    first: date | None = None
    last: date | None = None
    #: Lines that were marked on a day that is still to come.
    future: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "marked": self.marked,
            "rejected": self.rejected,
            "rejects": self.rejects,
            "first": self.first and self.first.isoformat(),
            "last": self.last and self.last.isoformat(),
            "future": self.future,
        }


class Columns(NamedTuple):
    """Which column says what."""

    event: str | None = "event"
    user: str = "user"
    time: str = "time"
    granularity: str | None = None
    kind: str | None = None

    @classmethod
    def of_file(cls, names: Sequence[str]) -> Columns:
        """Those of a file with the columns `names`; if it tells none, of an export."""
        if names and not {*COLUMNS} <= {*names}:
            return cls()
        event, granularity, start, id_, kind = COLUMNS
        return cls(event, id_, start, granularity, kind)


class Group(NamedTuple):
    """What the lines that are marked together have in common."""

    event: str
    #: None: each is a mark.
    granularity: Granularity | None
    #: Whether ids are texts even where they look like numbers.
    has_text_ids: bool
    space: str

    @property
    def is_dated(self) -> bool:
        return self.granularity is None or self.granularity.is_dated


class RejectedLine(NamedTuple):
    """A line that is not marked, and why."""

    record: Record
    reason: str


class Import:
    """A file whose lines are to be marked."""

    def __init__(
        self,
        tracker: Tracker,
        path: str,
        form: str | None,
        columns: Columns | None = None,
        *,
        event: str | None = None,
        rejects: Path,
        naive_in: tzinfo | None = None,
        has_text_ids: bool = False,
    ) -> None:
        """
        :param path: of the file; ``-`` is the standard input.
        :param form: one of `lines.FORMATS`; None: as its first line looks.
        :param columns: None: those of an export, or ``event``, ``user`` and ``time``.
        :param event: that of all lines.
        :param rejects: the file for lines that cannot be marked.
        :param naive_in: the zone of moments that have none; default: ``BITMAPIST_TIMEZONE``.
        :param has_text_ids: whether ids are texts even where they look like numbers.
        :raises ValueError: for an event name that is not allowed.
        """
        self._tracker = tracker
        self._path, self._form = path, form
        self._columns = columns
        self._event = event if event is None else checked_name(event)
        self._rejects = _Rejects(rejects)
        self._clock = Clock(tracker.settings.timezone, naive_in)
        self._has_text_ids = has_text_ids
        #: The kind of ids of each event.
        self._kinds: dict[str, str | None] = {}
        self._has_begun = False

    def run(
        self,
        *,
        after: int | None = None,
        dry: bool = False,
        patience: float = PATIENCE,
        told: Callable[[Imported], object] = lambda done: None,
    ) -> Imported:
        """Mark all lines that can be; the others are put into the file of rejects.

        :param after: the number of the line after which to begin.

        Other parameters and errors are those of `Backfill.run`.
        """
        bulk = None if dry else Bulk(self._tracker, patience)
        self._rejects.continues = after is not None
        with self._rejects:
            return run(
                self._pages,
                lambda page, done: self._mark(page, done, bulk),
                after,
                Imported(),
                bulk,
                told,
            )

    def _pages(self, after: int | None) -> Iterator[tuple[int, list[Record]]]:
        with self._opened() as file:
            lines = iter(file)
            begin = [*islice(lines, 1)]
            form = self._form or ("jsonl" if "".join(begin).startswith("{") else "csv")
            records = FORMS[form](chain(begin, lines))
            if self._columns is None:
                self._columns = Columns.of_file(records.columns)
            columns = self._columns
            if self._event is not None:
                columns = columns._replace(event=None)
            for page in in_parts(records.records(columns, after or 0), PAGE):
                yield page[-1].line, page

    @contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        # Bytes that are not UTF-8 must reach the file of rejects unchanged.
        options: dict[str, Any] = {
            "encoding": "utf-8-sig",
            "errors": "surrogateescape",
            "newline": "",
        }
        if self._path != STDIN:
            with Path(self._path).open(**options) as file:
                yield file
            return
        if self._has_begun:
            raise OSError("the server has lost marks, and the input is gone: begin anew with it")
        self._has_begun = True
        file = TextIOWrapper(sys.stdin.buffer, **options)
        yield file
        file.detach()  # else it would be closed

    def _mark(self, page: Sequence[Record], done: Imported, bulk: Bulk | None) -> Imported:
        groups: dict[Group, list[Record]] = {}
        rejected: list[RejectedLine] = []
        for record in page:
            try:
                groups.setdefault(self._group(record, bulk), []).append(record)
            except ValueError as error:
                rejected.append(RejectedLine(record, str(error)))
        past = Days(until=local(None, self._tracker.settings.timezone).date())
        marked, future = 0, 0
        days = [day for day in (done.first, done.last) if day is not None]
        for group, records in groups.items():
            clock, bad = self._mark_group(group, records, bulk)
            rejected += bad
            marked += len(records) - len(bad)
            if len(clock):
                days += [day_of(clock.min()), day_of(clock.max())]
                future += int((~past.contain(clock)).sum())
        self._rejects.add(rejected)
        return replace(
            done,
            lines=done.lines + len(page),
            marked=done.marked + marked,
            rejected=done.rejected + len(rejected),
            rejects=self._rejects.name,
            first=min(days, default=None),
            last=max(days, default=None),
            future=done.future + future,
        )

    def _group(self, record: Record, bulk: Bulk | None) -> Group:
        """:raises ValueError: if it says nothing that can be marked."""
        if record.values is None:
            raise ValueError(record.reason)
        event, _, _, granularity, kind = record.values
        event = self._event or event
        if not isinstance(event, str):
            raise ValueError(f"{event!r} is no event's name")
        checked_name(event)
        if self._columns is None or self._columns.granularity is None:
            is_text = self._has_text_ids or self._kind(event, bulk) not in (None, PLAIN)
            return Group(event, None, is_text, "")
        if granularity not in GRANULARITIES:
            raise ValueError(f"{granularity!r} is no granularity: use {', '.join(GRANULARITIES)}")
        if GRANULARITIES[granularity].is_value:
            value_of(event, may_be_none=GRANULARITIES[granularity].is_dated)
        if not isinstance(kind, str) or kind.partition(":")[0] not in (PLAIN, MAPPED):
            raise ValueError(f"{kind!r} is no kind of ids: use {PLAIN} or {MAPPED}")
        return Group(event, GRANULARITIES[granularity], kind != PLAIN, kind.partition(":")[2])

    def _kind(self, event: str, bulk: Bulk | None) -> str | None:
        """The kind of the ids of `event`; None: nobody has marked it."""
        if event not in self._kinds:
            asked = functools.partial(self._tracker.reader.registered_kind, event)
            self._kinds[event] = asked() if bulk is None else bulk.patiently(asked)
        return self._kinds[event]

    def _mark_group(
        self, group: Group, records: Sequence[Record], bulk: Bulk | None
    ) -> tuple[Seconds, list[RejectedLine]]:
        """Mark what `records` tell; returns the moments of dated ones, and those not marked."""
        columns = [*zip(*(cast(Sequence[Any], one.values) for one in records), strict=True)]
        raw = columns[1]
        if group.has_text_ids:
            raw = tuple(TextKey(id_) if isinstance(id_, str) else id_ for id_ in raw)
        ids = usable(self._tracker, raw, group.space)
        is_good = np.zeros(len(records), np.bool_)
        is_good[ids.places] = True
        reasons = {
            place: self._reason(raw[place], group.space)
            for place in np.flatnonzero(~is_good).tolist()
        }
        self._sift_kinds(group, ids, is_good, reasons, bulk)
        clock = np.zeros(len(records), np.int64)
        if group.is_dated:
            clock, is_timed = self._clock.read(columns[2])
            for place in np.flatnonzero(is_good & ~is_timed).tolist():
                reasons[place] = f"{columns[2][place]!r} is no time"
            is_good &= is_timed
        who, places = ids.chosen(is_good)
        if len(places) and bulk is not None:
            self._write(group, who, clock[places], bulk)
        rejected = [RejectedLine(records[place], reason) for place, reason in reasons.items()]
        return clock[places if group.is_dated else []], rejected

    def _reason(self, id_: object, space: str) -> str:
        """Why `id_` cannot be marked."""
        try:
            self._tracker.check_id(normal_form(id_), space)
        except (TypeError, ValueError) as error:
            return str(error)
        return "there is no id"

    def _sift_kinds(
        self,
        group: Group,
        ids: Ids,
        is_good: NDArray[np.bool_],
        reasons: dict[int, str],
        bulk: Bulk | None,
    ) -> None:
        """Take out of `is_good` those of `ids` that are of another kind than the event's."""
        if self._tracker.settings.id_map == "always" or is_array(ids.values):
            kinds = [mapped_kind(group.space) if not is_array(ids.values) else PLAIN]
            kinds *= len(ids.values)
        else:
            mapped = mapped_kind(group.space)
            kinds = [PLAIN if isinstance(id_, int) else mapped for id_ in ids.values]
        for kind, place in zip(kinds, ids.places.tolist(), strict=True):
            known = self._kind(group.event, bulk)
            if known is None:
                known = self._kinds[group.event] = kind
            if kind != known:
                is_good[place] = False
                reasons[place] = mismatch(group.event, kind, known)

    def _write(self, group: Group, who: Any, clock: Seconds, bulk: Bulk) -> None:
        event, granularity, _, space = group
        when = clock.astype("datetime64[s]")
        if granularity is None:
            if not self._tracker.settings.track_hourly:
                when = when.astype("datetime64[D]")
            bulk.write(event, who, True, True, when, None, None, space)
        elif granularity.is_value:
            rest: tuple[Any, ...]
            dimension, value = value_of(event, may_be_none=granularity.is_dated)
            if granularity.is_dated:
                rest = (when, None, None, space, True, value)
                bulk.write(dimension, who, True, True, *rest, only=granularity.only)
            else:
                rest = (None, None, None, space, True, value)
                bulk.write(dimension, who, True, False, *rest, is_old_news=True)
        elif granularity.is_dated:
            # Only the bits that the line names, whatever this application would mark.
            options = (when, granularity.is_hourly, False, space)
            bulk.write(event, who, True, True, *options, only=granularity.only)
        else:
            bulk.write(event, who, True, False, None, None, None, space)


class _Rejects:
    """The file of lines that are not marked. It is made for the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._last = 0
        #: Whether an earlier run has begun it.
        self.continues = False

    @property
    def name(self) -> str:
        """Its path; '' while there is none."""
        return str(self._path) if self._last else ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, rejected: Sequence[RejectedLine]) -> None:
        """Add the lines that it does not have yet: lines may be read twice."""
        new = sorted(
            (record.line, reason, record.text.rstrip("\r\n"))
            for record, reason in rejected
            if record.line > self._last
        )
        if not new:
            return
        if self._file is None:
            options: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}
            mode = "a" if self.continues else "w"
            self._file = self._path.open(mode, newline="", **options)
            if not self._file.tell():
                csv.writer(self._file).writerow(["line", "reason", "text"])
        csv.writer(self._file).writerows(new)
        self._file.flush()
        self._last = new[-1][0]
