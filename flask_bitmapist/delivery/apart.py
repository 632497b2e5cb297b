"""Marks kept apart, in the spool's file: the server refuses them while it takes others.

An ACL may lack a command, or a key may hold something else. They are written once the server takes
them. Until then, their opposites (a mark of an unmarked bit, the reverse, or another value of a
dimension) wait behind them, because the later one decides.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..marks import Deed, Settled, SettledMark, singles
from .spool import Spool, packed, unpacked

logger = logging.getLogger("flask_bitmapist")

#: How many are looked up in one query.
_LOOKED_UP = 300
#: No row has a larger number.
_LAST_ROW = 2**63 - 1

#: Each event by one look into the index: DISTINCT would read all of it.
_EVENTS = """
    WITH RECURSIVE known (event) AS (
      SELECT MIN(event) FROM apart WHERE server = :server
      UNION ALL
      SELECT (SELECT MIN(event) FROM apart WHERE server = :server AND event > known.event)
      FROM known WHERE known.event IS NOT NULL
    )
    SELECT event FROM known WHERE event IS NOT NULL
"""

_INSERT = """
    INSERT INTO apart (id, server, event, identity, value, mark, reason, made)
    SELECT MAX(?, 1 + COALESCE((SELECT MAX(id) FROM apart), 0)), ?, ?, ?, ?, ?, ?, ?
    WHERE ? IS NOT (
      SELECT mark FROM apart WHERE server = ? AND event = ? AND identity = ?
      ORDER BY id DESC LIMIT 1
    )
"""

#: The events and ids of marks kept apart: what they make of the person (`_outcome`) -> why.
Held = dict[tuple[str, int | str], dict[int | str, str]]


class KeptApart(NamedTuple):
    """A mark in the file."""

    row: int
    #: None: it cannot be read.
    mark: SettledMark | None
    #: A moment before which it was not made, in seconds since the epoch.
    made: float


class Apart:
    """The marks of one server that are kept apart."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def events(self) -> frozenset[str]:
        """The events of which marks are kept apart. Errors and cost are those of `Spool.look`."""
        return self._spool.look(_EVENTS)

    def held(self, marks: Iterable[Settled], *, up_to: int | None = None) -> Held:
        """The marks kept apart that have the same events and ids as `marks`.

        :param up_to: only rows up to this one.
        """
        found: Held = {}
        events = self.events()
        marks = [mark for mark in marks if mark[0].event in events]
        if not marks:
            return found
        names = sorted({(what.event, json.dumps(id_)) for what, id_ in singles(marks)})
        last = _LAST_ROW if up_to is None else up_to
        for first in range(0, len(names), _LOOKED_UP):
            part = names[first : first + _LOOKED_UP]
            query = (
                "SELECT event, identity, value, reason FROM apart WHERE server = ? AND id <= ?"
                f" AND (event, identity) IN (VALUES {','.join(['(?, ?)'] * len(part))})"
            )
            for event, identity, value, reason in self._rows(query, last, *sum(part, ())):
                values = found.setdefault((event, json.loads(identity)), {})
                values[value] = reason
        return found

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._spool.file.run(
            lambda db: db.execute(query, (self._spool.server, *values)).fetchall()
        )

    def append(self, marks: Sequence[tuple[SettledMark, str]], made: float | None = None) -> None:
        """Keep `marks`, each with its reason, behind those kept already; repeat none of them.

        The oldest go if there is no room for all.

        :param made: as `Spool.append`.
        """

        def insert(db: sqlite3.Connection) -> int:
            now = time.time_ns() // 1000
            since = now / 1e6 if made is None else made
            for mark, reason in marks:
                what, id_ = mark
                name = (self._spool.server, what.event, json.dumps(id_))
                text = json.dumps(packed(mark))
                row = (now, *name, _outcome(what), text, reason, since, text, *name)
                db.execute(_INSERT, row)
            return self._spool.make_room(db, "apart", "spooled")

        self._spool.lose(self._spool.file.transact(insert))

    def after(self, row: int, limit: int) -> list[KeptApart]:
        """The next marks after `row`, oldest first."""
        query = "SELECT id, mark, made FROM apart WHERE server = ? AND id > ? ORDER BY id LIMIT ?"
        found = self._rows(query, row, limit)
        return [KeptApart(id_, self._read(text), made) for id_, text, made in found]

    def _read(self, text: str) -> SettledMark | None:
        try:
            (mark,) = singles([unpacked(json.loads(text))])
            return mark
        except (TypeError, ValueError) as error:  # written by another version, or damaged
            logger.error("a mark in the spool %s cannot be read: %s", self._spool.path, error)
            return None

    def remove(self, rows: Sequence[int]) -> None:
        """Forget marks that have been written."""
        gone = [(row,) for row in rows]
        self._spool.file.transact(lambda db: db.executemany("DELETE FROM apart WHERE id = ?", gone))

    def reasons(self) -> dict[str, int]:
        """How many marks are kept apart, by reason."""
        return dict(
            self._rows(
                "SELECT reason, COUNT(*) FROM apart WHERE server = ? "
                "GROUP BY reason ORDER BY COUNT(*) DESC"
            )
        )


def to_keep_apart(
    marks: Iterable[Settled], held: Held, refused: Mapping[SettledMark, str]
) -> list[tuple[SettledMark, str]]:
    """Those of `marks` that are `refused` or the opposite of one that waits, and the reason.

    :param held: the marks kept apart; those found here are added.
    """
    kept = []
    for mark in singles(marks):
        what, id_ = mark
        values = held.get((what.event, id_), {})
        outcome = _outcome(what)
        others = (reason for other, reason in values.items() if other != outcome)
        reason = refused.get(mark) or next(others, None)
        if reason is not None:
            kept.append((mark, reason))
            held.setdefault((what.event, id_), {})[outcome] = reason
    return kept


def _outcome(what: Deed) -> int | str:
    """1 for a mark and 0 for an unmark; for a dimension, '=' and the value."""
    return int(what.value) if what.choice is None else f"={what.choice}"
