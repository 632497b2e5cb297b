"""The spool: settled marks on disk, in order, until Redis takes them again.

One SQLite file for all processes of an application, created when it is first needed. A committed
row survives the death of the process, not that of the machine (WAL with ``synchronous=NORMAL``).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from .writer import SettledMark

logger = logging.getLogger("flask_bitmapist")

#: Rows that go to Redis under one lock of the file.
_ROWS_PER_TRIP = 200
_MARKS_PER_ROW = 1_000
_LOCK_WAIT = 5.0  # seconds


class SpoolError(OSError):
    """The spool's file cannot be read or written."""


class Spool:
    """A queue of marks in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen_empty: tuple[object, ...] | None = None

    def holds_marks(self) -> bool:
        """Whether anything waits. Costs two stat() while nobody has written to the file.

        A file that cannot be read holds nothing that could be delivered: logged, and False.
        """
        state = self._state()
        if state is None or state == self._seen_empty:
            return False
        try:
            with self._open() as db:
                waits = bool(db.execute("SELECT EXISTS (SELECT 1 FROM spool)").fetchone()[0])
        except SpoolError as error:
            logger.error("%s", error)
            return False
        # Trusted only if nobody wrote while we looked (closing may do, by a checkpoint).
        self._seen_empty = state if not waits and state == self._state() else None
        return waits

    def _state(self) -> tuple[object, ...] | None:
        """What changes when somebody writes; None while there is no file."""
        states: list[tuple[int, int, int] | None] = []
        for file in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                status = file.stat()
                states.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                states.append(None)
        return tuple(states) if states[0] else None

    def append(self, marks: Sequence[SettledMark]) -> None:
        """Keep `marks` behind those that wait already.

        :raises SpoolError: if the file cannot be written; nothing of `marks` is kept then.
        """
        rows = [
            (json.dumps([_packed(mark) for mark in marks[first : first + _MARKS_PER_ROW]]),)
            for first in range(0, len(marks), _MARKS_PER_ROW)
        ]
        with self._open() as db, db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO spool (marks) VALUES (?)", rows)

    def drain(self, write: Callable[[Sequence[SettledMark]], None], trips: int) -> bool:
        """Hand what waits to `write`, oldest first, at most `trips` times.

        Rows leave the file after `write` returned: a crash between the two replays them, which is
        harmless as long as unmarks queue behind.

        :returns: False, having done nothing, while another process drains.
        :raises SpoolError: if the file cannot be read or written.
        """
        with self._open() as db:
            db.execute("PRAGMA busy_timeout = 0")
            for _ in range(trips):
                try:
                    db.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return False
                rows = db.execute(
                    "SELECT id, marks FROM spool ORDER BY id LIMIT ?", (_ROWS_PER_TRIP,)
                ).fetchall()
                write([_unpacked(packed) for _, row in rows for packed in json.loads(row)])
                db.executemany("DELETE FROM spool WHERE id = ?", [row[:1] for row in rows])
                db.execute("COMMIT")
                if len(rows) < _ROWS_PER_TRIP:
                    break
        return True

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: a connection must not cross a fork, nor threads.
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(mode=0o600)
            with closing(
                sqlite3.connect(self.path, timeout=_LOCK_WAIT, isolation_level=None)
            ) as db:
                _use_wal(db)
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS spool "
                    "(id INTEGER PRIMARY KEY AUTOINCREMENT, marks TEXT NOT NULL)"
                )
                yield db
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error


def _use_wal(db: sqlite3.Connection) -> None:
    # Unlike the other statements here, this one does not wait for whoever is writing: where SQLite
    # has to turn a read lock into an exclusive one it asks no busy handler.
    patience = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        time.sleep(0.005)


def _packed(mark: SettledMark) -> list[object]:
    hour = None if mark.hour is None else mark.hour.isoformat()
    return [*mark._replace(hour=None)[:3], hour, *mark[4:]]


def _unpacked(packed: list[object]) -> SettledMark:
    mark = SettledMark(*packed)  # type: ignore[arg-type]
    return mark._replace(hour=None if packed[3] is None else datetime.fromisoformat(str(packed[3])))
