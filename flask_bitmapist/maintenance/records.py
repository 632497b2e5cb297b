"""Reads the records of a CSV or JSON lines file, each with its text; bad records do not stop it."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, NamedTuple

#: Lines of JSON among which the first object is looked for, to tell which columns there are.
_LOOKED_AT = 100


class Record(NamedTuple):
    """What one record of a file says."""

    #: The number of its last line, from 1 on.
    line: int
    #: Its lines as they are.
    text: str
    #: The values of the columns asked for; None: it has no such columns.
    values: Sequence[Any] | None
    #: Why not.
    reason: str = ""


class _Lines:
    """Lines that can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        #: Those since `take`.
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self.number += 1
        return line

    def take(self) -> list[str]:
        taken, self.taken = self.taken, []
        return taken

    def give_back(self, lines: Sequence[str]) -> None:
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


class Csv:
    """Records of CSV, whose first line names the columns."""

    def __init__(self, lines: Iterable[str]) -> None:
        """:raises ValueError: if it has no first line."""
        self._lines = _Lines(lines)
        self._reader = csv.reader(self._lines)
        try:
            self.columns: Sequence[str] = next(self._reader)
        except (StopIteration, csv.Error) as error:
            raise ValueError("the file is empty: its first line names the columns") from error
        self._lines.take()

    def records(self, columns: Sequence[str | None], after: int) -> Iterator[Record]:
        """The records after line `after`; a column of None has no value.

        :raises ValueError: if the file lacks a column.
        """
        for name in columns:
            if name is not None and name not in self.columns:
                raise ValueError(
                    f"there is no column {name!r}; there are {', '.join(self.columns)}"
                )
        places = [None if name is None else self.columns.index(name) for name in columns]
        while self._lines.number < after and next(self._lines, None) is not None:
            self._lines.take()
        while True:
            try:
                found = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._bad(str(error))
                continue
            if not found:
                self._lines.take()
            elif len(found) != len(self.columns):
                yield self._bad(f"{len(found)} values for {len(self.columns)} columns")
            else:
                values = [None if place is None else found[place] for place in places]
                yield Record(self._lines.number, "".join(self._lines.take()), values)

    def _bad(self, reason: str) -> Record:
        """Only the first line that was taken: a stray quotation mark may have swallowed more."""
        first, *rest = self._lines.take()
        self._lines.give_back(rest)
        return Record(self._lines.number, first, None, reason)


class JsonLines:
    """Records of JSON, one object a line."""

    def __init__(self, lines: Iterable[str]) -> None:
        rest = iter(lines)
        begin: list[str] = []
        #: Those of the first object; they may differ from line to line.
        self.columns: Sequence[str] = ()
        for line in islice(rest, _LOOKED_AT):
            begin.append(line)
            with suppress(RecursionError, ValueError):
                if isinstance(found := json.loads(line), dict):
                    self.columns = [*found]
                    break
        self._lines = chain(begin, rest)

    def records(self, columns: Sequence[str | None], after: int) -> Iterator[Record]:
        """As those of `Csv`; a missing value is None."""
        for number, line in enumerate(self._lines, start=1):
            if number <= after or not line.strip():
                continue
            try:
                found = json.loads(line)
            except (RecursionError, ValueError) as error:
                yield Record(number, line, None, f"no JSON: {error}")
                continue
            if not isinstance(found, dict):
                yield Record(number, line, None, "no JSON object")
                continue
            yield Record(number, line, [name and found.get(name) for name in columns])


FORMS: dict[str, type[Csv] | type[JsonLines]] = {"csv": Csv, "jsonl": JsonLines}
