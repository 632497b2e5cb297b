"""Marks that have left the spool lately: its file keeps them, as the server may yet lose them.

The process that brought them to the server may be gone when that shows. So any other one can look,
and have them wait again, in their old place. And a process that sends marks again of before an
outage sees what it has marked since: another one may have brought that to the server first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from ..marks import Deed, Id, Settled, deed, singles

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


#: It cannot be seen, as in a cluster.
UNPROVEN = Proof("", 0, "")


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


class Lost(NamedTuple):
    """Marks that the server had, and may have lost."""

    #: A moment before which none of them was made, in seconds since the epoch.
    made: float
    marks: Sequence[Settled]
    #: And one after which none of them was written.
    written: float


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
        found = db.execute("SELECT count FROM sent WHERE id = ?", (row,)).fetchone()
        if found is None:  # since it was looked at, another process has made room
            continue
        recalled += found[0]
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


def marks_since(db: sqlite3.Connection, server: str, moment: float) -> list[str]:
    """What began to wait after `moment`, in seconds since the epoch, and was sent; oldest first."""
    query = "SELECT marks FROM sent WHERE server = ? AND id > ? ORDER BY id"
    return [marks for (marks,) in db.execute(query, (server, int(moment * 1e6)))]


def still_last(lost: Sequence[Settled], later: Iterable[Settled]) -> Sequence[Settled]:
    """What is left of `lost` where one of the `later` marks contradicts it.

    Of a value of a dimension, that may be its month alone.
    """
    about_lost = {about for what, id_ in singles(lost) for about in _about(what, id_)}
    told: dict[_About, Deed] = {}
    for what, id_ in singles(later):
        told |= dict.fromkeys(about_lost.intersection(_about(what, id_)), what)
    if not told:
        return lost
    return [(left, id_) for what, id_ in singles(lost) if (left := _left(what, id_, told))]


#: Whose which bits are set or cleared.
_About = tuple[str, str, Id, date | None]


def _about(what: Deed, who: Id) -> list[_About]:
    day = what.hour and what.hour.date()
    days = [day] if what.choice is None or not what.unique else [None, day]
    return [(what.event, what.kind, who, day) for day in days]


def _left(what: Deed, who: Id, told: Mapping[_About, Deed]) -> Deed | None:
    """What is left of the mark, after what was `told` later."""
    *now, last = (_contradicts(told.get(about), what) for about in _about(what, who))
    if last:
        return None
    return deed(*what._replace(unique=False)) if any(now) else what


def _contradicts(later: Deed | None, earlier: Deed) -> bool:
    return later is not None and (later.value, later.choice) != (earlier.value, earlier.choice)
