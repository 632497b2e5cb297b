"""The spool's file: a SQLite database that processes share, and that may break or vanish.

It exists while something waits. A connection is kept, as opening one costs a hundred times what an
insert does; it does not cross a fork, and a file that was deleted or replaced is noticed. A damaged
file is set aside, and what can be read of it is brought over into a new one.
"""

from __future__ import annotations

import glob
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ..config import SPOOL_NAME
from ..deadline import time_left
from .file_lock import FileLock
from .forks import stop_for_forks
from .own_files import ensure_own
from .salvage import rows_after
from .tables import COLUMNS, empty_log, is_empty, set_up, shrink

logger = logging.getLogger("flask_bitmapist")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

#: Seconds to wait for others that use the file, at most, and if the call has no time left.
_LOCK_WAIT, _MOMENT = 2.0, 0.03
_PAUSE = 0.001  # seconds between two attempts
#: How many damaged files are kept for whoever wants to look into them.
_KEPT = 3
#: Rows brought over from a damaged file at a time: nobody can append meanwhile.
_ROWS_AT_A_TIME = 1_000

#: SQLite's files: the database, its write-ahead log, and what its processes share.
_ENDINGS = ("", "-wal", "-shm")

#: A file's number, its size, and when it was written last, in nanoseconds.
Stamp = tuple[int, int, int]
#: The stamps of the file and of the log beside it.
State = tuple[Stamp, Stamp | None]


class SpoolError(OSError):
    """The spool's file cannot be read or written now."""


class SpoolBusyError(SpoolError):
    """Others keep the file locked for longer than this call may wait."""


class _DamagedError(Exception):
    """The file with the number `inode` is damaged."""

    def __init__(self, inode: int | None, why: object) -> None:
        super().__init__(why)
        self.inode = inode


class Database:
    """One file, and this process's connection to it."""

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """:param prepare: called with each new connection, in a transaction."""
        self.path = path
        self._prepare = prepare
        self._files = tuple(f"{path}{ending}" for ending in _ENDINGS)
        self._gate = FileLock(self.beside("-gate"))
        self._db: sqlite3.Connection | None = None
        #: The parent's connection, which must be neither used nor closed.
        self._abandoned: sqlite3.Connection | None = None
        #: The numbers of the files that the connection uses.
        self._opened: tuple[int | None, ...] = ()
        #: Of the file and its log, in bytes, when a connection was needed last.
        self.size = 0
        self._is_used = False
        # Reentrant, as a signal handler may mark while its thread is in here.
        self._lock = threading.RLock()
        self._process = os.getpid()
        stop_for_forks(self)

    def beside(self, ending: str) -> Path:
        """The path of a file that belongs to this one."""
        return self.path.with_name(self.path.name + ending)

    def state(self) -> State | None:
        """Something that changes when somebody writes; None while there is no file."""
        file = _stamp(self._files[0])
        return None if file is None else (file, _stamp(self._files[1]))

    def run(self, work: Work[T]) -> T:
        """What `work` returns, which gets a connection; the file is made if it is missing.

        If the file turns out to be damaged it is set aside, and `work` runs again with a new one.

        :raises SpoolError: if the file cannot be used now.
        """
        try:
            return self._run(work)
        except _DamagedError as damage:
            try:
                self._set_aside(damage)
                return self._run(work)
            except _DamagedError as again:
                raise self._error(again) from again

    def transact(self, work: Work[T]) -> T:
        """As `run`, in a transaction that writes."""

        def transaction(db: sqlite3.Connection) -> T:
            with db:
                db.execute("BEGIN IMMEDIATE")
                return work(db)

        return self.run(transaction)

    def _run(self, work: Work[T]) -> T:
        until = time.monotonic() + _patience()
        is_emptied = False
        with self._use(until, shared=True):
            while True:
                try:
                    return work(self._connection())
                except sqlite3.OperationalError as error:
                    if _code(error) == sqlite3.SQLITE_BUSY:
                        if time.monotonic() >= until:
                            raise self._busy() from error
                        time.sleep(_PAUSE)
                    elif _is_full(error) and not is_emptied and self._empty_log():
                        is_emptied = True
                    else:
                        raise

    def _empty_log(self) -> bool:
        """Make room: the log takes several times the room of what it holds."""
        return self._db is not None and empty_log(self._db)

    @contextmanager
    def _use(self, until: float, *, shared: bool) -> Iterator[None]:
        """The file is ours inside, with other processes if `shared`.

        :param until: when to give up waiting for others, by `time.monotonic`.
        """
        if self._process != os.getpid():  # uWSGI forks without telling Python
            self._abandoned, self._db = self._db, None
            self.after_fork_in_child()
        with self._alone_in_process(until):
            if self._is_used:  # this is a signal handler, and its thread is in here
                raise self._busy()
            self._is_used = True
            try:
                self._refuse_foreign()
                wait = max(until - time.monotonic(), 0.0)
                with self._gate.held(shared=shared, wait=wait) as may_use:
                    if not may_use:
                        raise self._busy()
                    yield
            except BaseException as error:
                damaged = _is_damage(error)
                inode = self._opened[0] if self._db is not None else _inode(self._files[0])
                # A new connection would find no more room, and no unlocked file.
                if not _is_full(error) and not isinstance(error, SpoolBusyError):
                    self._close()
                if damaged:
                    raise _DamagedError(inode, error) from error
                if isinstance(error, SpoolError) or not isinstance(error, OSError | sqlite3.Error):
                    raise
                raise self._error(error) from error
            finally:
                self._is_used = False

    @contextmanager
    def _alone_in_process(self, until: float) -> Iterator[None]:
        lock = self._lock
        if not lock.acquire(timeout=max(until - time.monotonic(), 0.0)):
            raise self._busy()
        try:
            yield
        finally:
            lock.release()

    def _busy(self) -> SpoolBusyError:
        return SpoolBusyError(f"the spool {self.path} cannot be used: others keep it locked")

    def _error(self, why: object) -> SpoolError:
        return SpoolError(f"the spool {self.path} cannot be used: {why}")

    def _refuse_foreign(self) -> None:
        """:raises SpoolError: if there is a file that never was a spool."""
        if self._db is not None or self.path.name == SPOOL_NAME or self.beside("-gate").exists():
            return
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            if not b"SQLite format 3\0".startswith(file.read(16)):
                raise self._error("it is no database. Name another file in BITMAPIST_SPOOL")

    def _connection(self) -> sqlite3.Connection:
        found = self._look()
        # None: the file system takes no write-ahead log, or somebody has deleted files.
        if self._db is not None and found == self._opened and None not in found:
            return self._db
        self._close()
        ensure_own(self.path)
        file, log = self.state() or (None, None)
        if file and log and log[1] and not file[1] and not self.beside("-wal").is_symlink():
            # SQLite would delete the log.
            raise _DamagedError(file[0], "it is empty, and its log is not")
        # Without a timeout: SQLite would wait ever longer between its attempts, up to 0.1 seconds.
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        self._db, self._opened = db, (None if file is None else file[0],)
        set_up(db)
        with db:
            db.execute("BEGIN IMMEDIATE")
            self._prepare(db)
        self._opened = self._look()
        return db

    def _look(self) -> tuple[int | None, ...]:
        """The numbers of the files; notes how large they are."""
        file, log, shared = map(_stamp, self._files)
        self.size = (file[1] if file else 0) + (log[1] if log else 0)
        return tuple(stamp[0] if stamp else None for stamp in (file, log, shared))

    def _close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def _set_aside(self, damage: _DamagedError) -> None:
        """Rename the damaged file, and begin a new one that knows of it."""
        aside = self.beside(time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime()))
        with self._use(time.monotonic() + _patience(), shared=False):
            if damage.inode != _inode(self._files[0]) or aside.exists():
                return  # another process has done so
            for file in map(self.beside, reversed(_ENDINGS)):
                with suppress(FileNotFoundError):
                    file.rename(aside.with_name(aside.name + file.name[len(self.path.name) :]))
            self._connection().execute("INSERT INTO aside (file) VALUES (?)", (aside.name,))
        logger.error(
            "the spool %s is damaged (%s). It is set aside as %s", self.path, damage, aside.name
        )

    def set_aside(self) -> list[Path]:
        """The damaged files that are there, oldest first."""
        found = self.path.parent.glob(f"{glob.escape(self.path.name)}.damaged-*")
        return sorted(file for file in found if not file.name.endswith(_ENDINGS[1:]))

    def bring_over(self) -> None:
        """Bring over what can be read of damaged files, to the place that it had.

        :raises SpoolError: as `run`.
        """
        for (name,) in self.run(lambda db: db.execute("SELECT file FROM aside").fetchall()):
            rows = sum(self._bring_over(self.path.with_name(name), table) for table in COLUMNS)
            forget = "DELETE FROM aside WHERE file = ?"
            self.run(partial(_execute, forget, name))
            self.close()  # `prepare` looks at what has come
            logger.warning("%d rows of the damaged spool %s could be read", rows, name)
            self._prune()

    def _prune(self) -> None:
        """Delete damaged files, but the latest and those that are yet to be brought over."""
        listed = self.run(lambda db: db.execute("SELECT file FROM aside").fetchall())
        waiting = {name for (name,) in listed}
        for old in [file for file in self.set_aside() if file.name not in waiting][:-_KEPT]:
            for ending in _ENDINGS:
                old.with_name(old.name + ending).unlink(missing_ok=True)

    def _bring_over(self, aside: Path, table: str) -> int:
        """Bring over one table; returns how many rows."""
        columns = COLUMNS[table]
        places = ", ".join("?" * len(columns))
        brought, last = 0, None

        def part(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            try:
                found = [*islice(rows_after(aside, table, columns, last), _ROWS_AT_A_TIME)]
            except sqlite3.Error:
                return []
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", found)
            return found

        while found := self.transact(part):
            brought, last = brought + len(found), found[-1][0]
        return brought

    def tidy(self, done: Mapping[str, object]) -> None:
        """Give back the room of rows that are gone; the file too if no row is left.

        :param done: rows of its ``server`` up to its ``done`` do not count.
        :raises SpoolError: as `run`.
        """
        with suppress(_DamagedError):  # whoever needs the file will set it aside
            if self.state() is not None and not self._delete_if_empty(done):
                self.run(shrink)

    def _delete_if_empty(self, done: Mapping[str, object]) -> bool:
        if not self.run(lambda db: is_empty(db, done)):
            return False
        with self._use(time.monotonic() + _patience(), shared=False):
            if not is_empty(self._connection(), done):
                return False
            self.path.unlink()
            self._close()  # SQLite notices that its file is gone, and does not touch the log
            for ending in _ENDINGS[1:]:
                self.beside(ending).unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Close the files until they are needed again."""
        with self._lock:
            self._close()
            self._gate.close()

    def __del__(self) -> None:
        self._close()

    def before_fork(self) -> None:
        """Close the connection, and keep all threads out of SQLite.

        A child cannot use SQLite's own notes on who has locked which file, not even to close it.
        """
        self._lock.acquire()
        self._close()

    def after_fork_in_child(self) -> None:
        """Begin anew: the locks may be those of threads that the child does not have."""
        self._process = os.getpid()
        self._is_used = False
        self._lock = threading.RLock()
        self._gate.close()

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        self._lock.release()


def _patience() -> float:
    """Seconds that the call may wait for others. A moment if it has no time left: what cannot be
    kept would be lost."""
    try:
        return max(time_left(_LOCK_WAIT) or 0.0, _MOMENT)
    except TimeoutError:
        return _MOMENT


def _execute(query: str, value: str, db: sqlite3.Connection) -> None:
    db.execute(query, (value,))


def _stamp(file: str) -> Stamp | None:
    try:
        status = os.lstat(file)  # a third of what Path.lstat takes, for each mark
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _inode(file: str) -> int | None:
    try:
        return os.lstat(file).st_ino
    except OSError:
        return None


def _code(error: BaseException) -> int | None:
    """SQLite's number of the fault, of its kind rather than its details."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_full(error: BaseException) -> bool:
    """Whether there is no room on the disk, or in the files of this process."""
    return (
        _code(error) == sqlite3.SQLITE_FULL
        or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_WRITE
    )


def _is_damage(error: BaseException) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or getattr(
        error, "sqlite_errorcode", None
    ) in (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
