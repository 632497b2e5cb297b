"""What can still be read of a damaged SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

#: The largest number of a row.
_LAST = 2**63 - 1
#: How many damaged places are put up with.
_PLACES = 1_000


def rows_after(
    file: Path, table: str, columns: Sequence[str], row: int | None
) -> Iterator[tuple[Any, ...]]:
    """The rows of `table` behind the number `row` that can be read, in order.

    :param columns: their names, ``id`` first; those that the file does not know are 1.
    :raises sqlite3.Error: if nothing can be read at all.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as db:
        db.text_factory = _text
        known = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
        listed = ", ".join(name if name in known else "1" for name in columns)
        query = f"SELECT {listed} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id"
        if known:
            yield from _readable(db, query, 0 if row is None else row + 1)


def _readable(db: sqlite3.Connection, query: str, first: int) -> Iterator[tuple[Any, ...]]:
    """The rows of `query` from `first` on, without those on damaged pages."""
    for _ in range(_PLACES):
        try:
            for row in db.execute(query, (first, _LAST)):
                first = max(first, row[0] + 1)
                yield row
        except sqlite3.DatabaseError:
            first = _behind_damage(db, query, first)
        else:
            return


def _behind_damage(db: sqlite3.Connection, query: str, damaged: int) -> int:
    """The least number above `damaged` from which on a row can be read, as far as steps tell."""

    def is_readable(first: int) -> bool:
        try:
            db.execute(query, (first, _LAST)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return True

    # A page holds the rows between two numbers, which may be far apart. Longer steps are faster
    # and may miss what lies between two damaged pages.
    step, readable = 1, damaged + 1
    while not is_readable(readable):
        if readable == _LAST:
            return _LAST
        damaged, step = readable, step + step // 4 + 1
        readable = min(readable + step, _LAST)
    while readable - damaged > 1:
        middle = (damaged + readable) // 2
        if is_readable(middle):
            readable = middle
        else:
            damaged = middle
    return readable


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")
