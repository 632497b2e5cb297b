"""The spool: settled marks on disk, in order, until Redis takes them again.

All processes of an application share one file, which exists while marks wait. A committed row
survives a crash of the process, but not of the machine (WAL with ``synchronous=NORMAL``).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..marks import Settled, count, deed, parts, singles
from . import sent
from .addresses import Addresses, name_of, server_of
from .database import Database, SpoolError, State
from .erasures import Waited
from .file_lock import FileLock
from .sent import Left, Lost, Proof, Sent
from .stats import Outcomes
from .tables import used_bytes
from .writer import BULK

__all__ = ["Spool", "SpoolError", "server_of"]

logger = logging.getLogger("flask_bitmapist")

#: Rows read for one trip, at most. It sends as many marks as fit the wait for one reply.
_ROWS_PER_TRIP = 1_000
#: Longer than the clock that stamps files stands still, in nanoseconds.
_TICK = 50_000_000
#: Rows that go at a time when there is no more room.
_ROWS_DROPPED = 10

#: Numbers grow with time, also from one file to the next, so that what is brought over from a
#: damaged file comes first.
_INSERT = """
    INSERT INTO spooled (id, server, marks, count, made)
    SELECT MAX(?, 1 + COALESCE((SELECT MAX(id) FROM spooled), 0)), ?, ?, ?, ?
"""
#: What a row raises that another version has written, or that is damaged.
_UNREADABLE = (TypeError, ValueError)
_WAITING = "FROM spooled WHERE server = :server AND id > :done"
#: What the file holds for a server, by table.
_CONTENTS = f"""
    SELECT 'spooled' WHERE EXISTS (SELECT 1 {_WAITING}) OR EXISTS (SELECT 1 FROM aside)
    UNION SELECT 'apart' WHERE EXISTS (SELECT 1 FROM apart WHERE server = :server)
    UNION SELECT 'sent' WHERE EXISTS (SELECT 1 FROM sent WHERE server = :server)
"""


def _all(waited: Sequence[Waited]) -> list[Settled]:
    return [mark for _, marks in waited for mark in marks]


class Spool:
    """A queue of marks in a file, which may also hold marks for other servers."""

    def __init__(self, path: Path, server: Addresses, *, limit: int = 256 * 2**20) -> None:
        """
        :param server: as returned by `server_of`.
        :param limit: bytes that the file may hold; beyond them the oldest marks go.
        """
        self.path = path
        #: What the file calls the server.
        self.server = server.names[0]
        self.file = Database(path, self._find_server)
        self.addresses = server
        self._limit = limit
        self._outcomes = Outcomes()
        self._overflows = False
        #: The last row that was written to the server and could not be deleted, and its file.
        self._kept = (0, 0)
        #: Query -> its answer; what the file and `_kept` were when it was given.
        self._seen: dict[str, tuple[State, tuple[int, int], frozenset[Any]]] = {}

    def _find_server(self, db: sqlite3.Connection) -> None:
        self.server = name_of(db, self.addresses)

    def _asked(self) -> dict[str, Any]:
        """What queries are asked with."""
        state = self.file.state()
        file, row = self._kept
        return {
            "server": self.server,
            "done": row if state is not None and state[0][0] == file else -1,
            "limit": _ROWS_PER_TRIP,
        }

    @property
    def lost(self) -> int:
        """How many marks are gone for good: beyond the limit, or in rows that cannot be read."""
        return self._outcomes["dropped"]

    def contents(self) -> frozenset[str]:
        """What it holds: ``spooled`` marks, which wait; those kept ``apart``; and those ``sent``.

        Errors and cost are those of `look`.
        """
        return self.look(_CONTENTS)

    def holds_marks(self) -> bool:
        """Whether anything waits. Errors and cost are those of `look`."""
        return "spooled" in self.contents()

    def look(self, query: str) -> frozenset[Any]:
        """The values that `query` finds. Costs two stat() while nobody has written to the file.

        :raises SpoolError: if the file cannot be read.
        """
        state = self.file.state()
        if state is None:
            return frozenset()
        kept = self._kept
        if (seen := self._seen.get(query)) and seen[:2] == (state, kept):
            return seen[2]

        def select(db: sqlite3.Connection) -> frozenset[Any]:
            return frozenset(value for (value,) in db.execute(query, self._asked()))

        found = self.file.run(select)
        # Trusted only if nobody wrote while we looked (closing may do, by a checkpoint), or just
        # before: what is written next, in the same tick of the clock, would not show.
        if state == self.file.state() and _newest(state) < time.time_ns() - _TICK:
            self._seen[query] = state, kept, found
        return found

    def backlog(self) -> int:
        """How many marks wait.

        :raises SpoolError: if the file cannot be read.
        """
        if self.file.state() is None:
            return 0
        query = f"SELECT COALESCE(SUM(count), 0) {_WAITING}"
        return int(self.file.run(lambda db: db.execute(query, self._asked()).fetchone()[0]))

    def append(self, marks: Sequence[Settled], made: float | None = None) -> None:
        """Add `marks` behind those that wait already; the oldest go if there is no room for all.

        :param made: when they were made at the earliest, in seconds since the epoch; None: now.
        :raises SpoolError: if the file cannot be written; then none of `marks` is kept.
        """
        self.append_all([(time.time() if made is None else made, marks)])

    def append_all(self, waited: Sequence[Waited]) -> None:
        """As `append`, for marks of several moments."""
        packs = [
            (json.dumps(_grouped(part)), count(part), made)
            for made, marks in waited
            for part in parts(marks, BULK)
        ]

        def insert(db: sqlite3.Connection) -> int:
            now = time.time_ns() // 1000
            db.executemany(_INSERT, [(now, self.server, *pack) for pack in packs])
            return self.make_room(db, "spooled", "apart")

        self.lose(self.file.transact(insert))

    def make_room(self, db: sqlite3.Connection, *tables: str) -> int:
        """Delete the oldest rows of `tables` until the rest fits.

        :returns: how many marks are lost.
        """
        dropped = 0
        if self.file.size <= self._limit or used_bytes(db) <= self._limit:
            return dropped
        db.execute("DELETE FROM sent")  # which the server has
        for table in tables:
            marks = "SUM(count)" if table == "spooled" else "COUNT(*)"
            oldest = f"SELECT id FROM {table} ORDER BY id LIMIT {_ROWS_DROPPED}"
            # Somewhat more than needed, so that not every mark has to make room.
            while used_bytes(db) > self._limit - self._limit // 1024:
                (gone,) = db.execute(
                    f"SELECT {marks} FROM {table} WHERE id IN ({oldest})"
                ).fetchone()
                if not gone:
                    break
                db.execute(f"DELETE FROM {table} WHERE id IN ({oldest})")
                dropped += gone
        return dropped

    def lose(self, dropped: int) -> None:
        """Count marks that had to go, and say so once until the spool is empty."""
        if not dropped:
            return
        self._outcomes.add("dropped", dropped)
        if not self._overflows:
            self._overflows = True
            logger.error(
                "the spool %s has reached BITMAPIST_SPOOL_SIZE (%d bytes): the oldest marks go",
                self.path,
                self._limit,
            )

    def drain(
        self,
        write: Callable[[Sequence[Settled]], Proof | None],
        trips: int,
        living: Callable[[Sequence[Waited]], Sequence[Settled]] = _all,
    ) -> bool:
        """Hand what waits, and is `living`, to `write`, oldest first, at most `trips` times.

        Rows leave their table after `write` returns: for that of `sent` marks, if it returns a
        proof. A crash in between replays them, which is harmless as long as all other marks queue
        behind.

        :returns: False, having done nothing, if another process is draining: it will find what was
            appended meanwhile.
        :raises SpoolError: if the file cannot be read or written.
        """
        while trips > 0:
            with self.alone() as alone:
                if not alone:
                    return False
                self.file.bring_over()
                while trips > 0 and self._drain_one_trip(write, living):
                    trips -= 1
            # A process that appended while we were draining relies on this check.
            if not self.holds_marks():
                self._tidy()
                break
        return True

    def _drain_one_trip(
        self,
        write: Callable[[Sequence[Settled]], Proof | None],
        living: Callable[[Sequence[Waited]], Sequence[Settled]],
    ) -> bool:
        """Whether there was anything."""
        waited: list[Waited] = []
        unreadable: list[tuple[int, Exception]] = []
        last = length = 0
        for id_, row, size, made in self.file.run(self._next_rows):
            try:
                found = _marks_in(row)
            except _UNREADABLE as error:
                unreadable.append((size, error))
                found = []
            length += count(found)
            if waited and length > BULK:
                break
            waited.append((made, found))
            last = id_
        if not waited:
            return False
        # The file is not locked meanwhile, so that appending never waits for Redis.
        marks = living(waited)
        proof = write(marks)
        for size, fault in unreadable:
            logger.error("%d marks in the spool %s cannot be read: %s", size, self.path, fault)
            self._outcomes.add("dropped", size)
        made = min(made for made, _ in waited)
        kept = Left(last, json.dumps(_grouped(marks)), count(marks), made) if marks else None
        self._forget(last, kept, proof)
        return True

    def _next_rows(self, db: sqlite3.Connection) -> list[tuple[int, str, int, float]]:
        """The oldest rows, as many as one trip can send, but at least one."""
        query = f"SELECT id, marks, count, made {_WAITING} ORDER BY id LIMIT :limit"
        rows: list[tuple[int, str, int, float]] = []
        size = 0
        for row in db.execute(query, self._asked()):
            size += row[2]
            if rows and size > BULK:
                break
            rows.append(row)
        return rows

    def _forget(self, last: int, left: Left | None, proof: Proof | None) -> None:
        """Delete the rows up to `last`, or if that is not possible, remember that they are done.

        :param left: what was sent of them; None: nothing.
        """
        query = "DELETE FROM spooled WHERE server = ? AND id <= ?"

        def move(db: sqlite3.Connection) -> None:
            if left is not None and proof is not None:
                sent.note(db, self.server, left, time.time(), proof)
            db.execute(query, (self.server, last))

        try:
            self.file.transact(move)
        except SpoolError as error:  # on a full disk there is no room to note what is deleted
            logger.debug("what was sent stays in the spool: %s", error)
            state = self.file.state()
            self._kept = (0 if state is None else state[0][0], last)

    def sent(self) -> list[Sent]:
        """What has been sent lately.

        :raises SpoolError: if the file cannot be read.
        """
        return self.file.run(lambda db: sent.listed(db, self.server))

    def still_last(self, lost: Lost) -> Sequence[Settled]:
        """Those of `lost` that no mark contradicts which began to wait later, and has been sent.

        :raises SpoolError: if the file cannot be read.
        """
        if "sent" not in self.contents():
            return lost.marks
        rows = self.file.run(lambda db: sent.marks_since(db, self.server, lost.written))
        later: list[Settled] = []
        for row in rows:
            with suppress(*_UNREADABLE):
                later += _marks_in(row)
        return sent.still_last(lost.marks, later)

    def settle(self, *, lost: Sequence[int], done: Sequence[int]) -> int:
        """Have rows of what was sent wait again that are `lost`, and forget those that are `done`.

        :returns: how many marks wait again.
        :raises SpoolError: if the file cannot be written.
        """

        def work(db: sqlite3.Connection) -> int:
            sent.forget(db, done)
            return sent.recall(db, lost)

        recalled = self.file.transact(work)
        if not recalled:
            self._tidy()
        return recalled

    def _tidy(self) -> None:
        self._overflows = False
        with suppress(SpoolError):
            self.file.tidy(self._asked())

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process is draining; none can start inside. A dead process releases it.

        :raises SpoolError: if the lock's file cannot be used.
        """
        with ExitStack() as held:
            try:
                lock = FileLock(self.file.beside("-drain"))
                alone = held.enter_context(lock.held())
            except OSError as error:
                raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error
            yield alone


def _newest(state: State) -> int:
    return max(stamp[2] for stamp in state if stamp is not None)


def _grouped(marks: Sequence[Settled]) -> list[list[object]]:
    """`marks` in order, those of one deed that follow each other as one."""
    if len(marks) == 1:
        return [packed(marks[0])]
    return [
        packed((what, [id_ for _, id_ in singles(same)]))  # type: ignore[arg-type]
        for what, same in groupby(marks, key=itemgetter(0))
    ]


def _marks_in(row: str) -> list[Settled]:
    return [unpacked(values) for values in json.loads(row)]


def packed(mark: Settled) -> list[object]:
    what, who = mark
    hour = None if what.hour is None else what.hour.isoformat()
    listed = who if isinstance(who, int | str | list) else who.tolist()
    # As of before there were dimensions, so that an earlier version can read what it may.
    end = 10 if what.kept is not None else 9 if what.choice is not None else 8
    options = what[3:end]
    return [[what.event, what.value, hour, *options], listed]


def unpacked(values: list[Any]) -> Settled:
    """What `packed` made, in this version or before ids had a place of their own."""
    first, second, *rest = values
    (event, value, hour, *options), who = ([first, *rest], second) if rest else (first, second)
    if len(options) == 7:
        options[-1] = tuple(options[-1])  # JSON has made a list of it
    return deed(event, value, None if hour is None else datetime.fromisoformat(hour), *options), who
