"""Marks that have left the spool lately: its file keeps them, as the server may yet lose them.

The process that brought them to the server may be gone when that shows. So any other one can look,
and have them wait again, in their old place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

#: Trips that are kept, at most: each has a thousand marks or so.
_MOST = 500


class Proof(NamedTuple):
    """How to see whether a server still has a trip: see `delivery.recent`."""

    #: The key in which it counts the trips of a process.
    trips: str
    #: The count from which on it has had this one.
    number: int
    #: The name of the data.
    origin: str


class Sent(NamedTuple):
    """The marks of one trip."""

    row: int
    #: When they were sent, in seconds since the epoch.
    at: float
    proof: Proof


class Left(NamedTuple):
    """What is kept of them: in the form of the table `spooled`."""

    row: int
    marks: str
    length: int
    made: float


def note(db: sqlite3.Connection, server: str, left: Left, at: float, proof: Proof) -> None:
    """Keep what was sent `at` this moment; the oldest go if there are too many."""
    row, *rest = left
    db.execute(
        "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row, server, *rest, at, *proof),
    )
    db.execute(
        "DELETE FROM sent WHERE server = ? AND id <= "
        "(SELECT id FROM sent WHERE server = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (server, server, _MOST),
    )


def listed(db: sqlite3.Connection, server: str) -> list[Sent]:
    """All that is kept, oldest first."""
    query = "SELECT id, at, trips, number, origin FROM sent WHERE server = ? ORDER BY id"
    return [Sent(row, at, Proof(*proof)) for row, at, *proof in db.execute(query, (server,))]


def recall(db: sqlite3.Connection, rows: Iterable[int]) -> int:
    """Have the marks of `rows` wait again; returns how many these are."""
    recalled = 0
    for row in rows:
        recalled += db.execute("SELECT count FROM sent WHERE id = ?", (row,)).fetchone()[0]
        db.execute(
            "INSERT OR IGNORE INTO spooled (id, server, marks, count, made) "
            "SELECT id, server, marks, count, made FROM sent WHERE id = ?",
            (row,),
        )
        forget(db, [row])
    return recalled


def forget(db: sqlite3.Connection, rows: Iterable[int]) -> None:
    """Keep `rows` no longer."""
    db.executemany("DELETE FROM sent WHERE id = ?", [(row,) for row in rows])
