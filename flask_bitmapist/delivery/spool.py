"""The spool: settled marks on disk, in order, until Redis takes them again.

All processes of an application share one SQLite file, created when first needed. A committed row
survives a crash of the process, but not of the machine (WAL with ``synchronous=NORMAL``).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ..marks import Settled, count, deed, parts
from .own_files import ensure_own
from .writer import BULK

logger = logging.getLogger("flask_bitmapist")

#: Rows read for one trip. It sends as many marks to Redis as fit the wait for one reply.
_ROWS_PER_TRIP = 200
_LOCK_WAIT = 5.0  # seconds
#: Longer than the clock that stamps files stands still, in nanoseconds.
_TICK = 50_000_000
_TABLES = (
    "CREATE TABLE IF NOT EXISTS spooled (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    "server TEXT NOT NULL, marks TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS apart (id INTEGER PRIMARY KEY AUTOINCREMENT, server TEXT NOT NULL, "
    "event TEXT NOT NULL, identity TEXT NOT NULL, value INTEGER NOT NULL, mark TEXT NOT NULL, "
    "reason TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS apart_name ON apart (server, event, identity)",
)


#: A file's number, its size, and when it was written last, in nanoseconds.
_Stamp = tuple[int, int, int]
#: The stamps of the spool's file and of the log beside it.
_State = tuple[_Stamp, _Stamp | None]


class SpoolError(OSError):
    """The spool's file cannot be read or written."""


def server_of(client: Any) -> str:
    """Which server and database `client` writes to, without its credentials.

    Clusters are not told apart, as their nodes come and go. For a Sentinel master it is the name.
    """
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", {})
    address = [options.get(name) for name in ("host", "port", "path", "db")]
    return json.dumps([getattr(pool, "service_name", None), *address], default=str)


class Spool:
    """A queue of marks in a file, which may also hold marks for other servers."""

    def __init__(self, path: Path, server: str) -> None:
        """:param server: as returned by `server_of`."""
        self.path = path
        self.server = server
        self._path, self._wal = str(path), f"{path}-wal"
        #: Query -> its answer, and the state of the file that gave it.
        self._seen: dict[str, tuple[_State, frozenset[Any]]] = {}

    def holds_marks(self) -> bool:
        """Whether anything waits. Errors and cost are those of `look`."""
        return bool(self.look("SELECT 1 FROM spooled WHERE server = :server LIMIT 1"))

    def look(self, query: str) -> frozenset[Any]:
        """The values that `query` finds. Costs two stat() while nobody has written to the file.

        :raises SpoolError: if the file cannot be read.
        """
        state = self._state()
        if state is None:
            return frozenset()
        seen, found = self._seen.get(query, (None, frozenset[Any]()))
        if seen == state:
            return found
        with self.open() as db:
            found = frozenset(value for (value,) in db.execute(query, {"server": self.server}))
        # Trusted only if nobody wrote while we looked (closing may do, by a checkpoint), or just
        # before: what is written next, in the same tick of the clock, would not show.
        if state == self._state() and _newest(state) < time.time_ns() - _TICK:
            self._seen[query] = state, found
        return found

    def _state(self) -> _State | None:
        """Something that changes when somebody writes; None while there is no file."""
        file = _stamp(self._path)
        return None if file is None else (file, _stamp(self._wal))

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def append(self, marks: Sequence[Settled]) -> None:
        """Add `marks` behind those that wait already.

        :raises SpoolError: if the file cannot be written; then none of `marks` is kept.
        """
        rows = [
            (self.server, json.dumps([packed(mark) for mark in part]))
            for part in parts(marks, BULK)
        ]
        with self.open() as db, db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO spooled (server, marks) VALUES (?, ?)", rows)

    def drain(self, write: Callable[[Sequence[Settled]], None], trips: int) -> bool:
        """Hand what waits to `write`, oldest first, at most `trips` times.

        Rows leave the file after `write` returns. A crash in between replays them, which is
        harmless as long as all other marks queue behind.

        :returns: False, having done nothing, if another process is draining: it will find what was
            appended meanwhile.
        :raises SpoolError: if the file cannot be read or written.
        """
        while trips > 0:
            with self.open() as db, self.alone() as alone:
                if not alone:
                    return False
                while trips > 0 and self._drain_one_trip(db, write):
                    trips -= 1
            # A process that appended while we were draining relies on this check.
            if not self.holds_marks():
                break
        return True

    def _drain_one_trip(
        self, db: sqlite3.Connection, write: Callable[[Sequence[Settled]], None]
    ) -> bool:
        """Whether there was anything."""
        query = "SELECT id, marks FROM spooled WHERE server = ? ORDER BY id LIMIT ?"
        marks: list[Settled] = []
        taken: list[tuple[int]] = []
        for id_, row in db.execute(query, (self.server, _ROWS_PER_TRIP)).fetchall():
            try:
                found = [unpacked(values) for values in json.loads(row)]
            except (TypeError, ValueError) as error:  # of another version, or damaged
                logger.error("marks in the spool %s cannot be read: %s", self.path, error)
                found = []
            if marks and count(marks) + count(found) > BULK:
                break
            marks += found
            taken.append((id_,))
        # The file is not locked meanwhile, so that appending never waits for Redis.
        write(marks)
        if not taken:
            return False
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM spooled WHERE id = ?", taken)
        return True

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other process is draining; none can start inside. A dead process releases it.

        The lock is that of a second SQLite file: SQLite can lock wherever Python runs.
        """
        lock = self._beside("-drain")
        ensure_own(lock)
        with closing(sqlite3.connect(lock, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                yield False
            else:
                yield True

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: a connection must not cross a fork, nor threads.
        try:
            ensure_own(self.path)
            with closing(
                sqlite3.connect(self.path, timeout=_LOCK_WAIT, isolation_level=None)
            ) as db:
                _use_wal(db)
                db.execute("PRAGMA synchronous = NORMAL")
                for statement in _TABLES:
                    db.execute(statement)
                yield db
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error


def _newest(state: _State) -> int:
    return max(stamp[2] for stamp in state if stamp is not None)


def _stamp(file: str) -> _Stamp | None:
    try:
        status = os.lstat(file)  # a third of what Path.lstat takes, for each mark
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _use_wal(db: sqlite3.Connection) -> None:
    # Unlike the other statements here, this one does not wait for a writer: SQLite calls no busy
    # handler when it has to turn a read lock into an exclusive one.
    patience = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        time.sleep(0.005)


def packed(mark: Settled) -> list[object]:
    what, who = mark
    hour = None if what.hour is None else what.hour.isoformat()
    listed = who if isinstance(who, int | str | list) else who.tolist()
    return [[what.event, what.value, hour, *what[3:]], listed]


def unpacked(values: list[Any]) -> Settled:
    """What `packed` made, in this version or before ids had a place of their own."""
    first, second, *rest = values
    (event, value, hour, *options), who = ([first, *rest], second) if rest else (first, second)
    return deed(event, value, None if hour is None else datetime.fromisoformat(hour), *options), who
