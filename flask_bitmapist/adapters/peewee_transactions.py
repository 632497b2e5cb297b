"""What follows a peewee database's transactions, to publish what they changed after the COMMIT.

A database that a tracked model is bound to is followed by overriding its public ``connect``,
``begin``, ``commit``, ``rollback`` and ``execute_sql`` (savepoints), on every version of peewee
from 3.17 on.

Not by ``Database.after_commit()`` and ``query_hooks``, which peewee has since 4.5: they see nothing
of ``manual_commit()``, of a bare ``rollback()`` and of a failed statement, after which PostgreSQL
rolls back, without any error, when peewee sends COMMIT; and then ``after_commit()`` runs.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import Database, MySQLDatabase, Proxy, SqliteDatabase

from ..current import publish
from .base import Changes

# libpq's PQTRANS_INTRANS and PQTRANS_INERROR.
_IN_TRANSACTION = 2
_IN_FAILED_TRANSACTION = 3


@contextmanager
def changes_of(database: Any) -> Iterator[Changes]:
    """The changes of the innermost open savepoint or transaction.

    Outside of any, where each statement commits by itself, they are published at the end.
    """
    database = resolved(database)
    follow(database)
    innermost = None if database.is_closed() else database._bitmapist.current.innermost
    if innermost is not None:
        yield innermost
    else:
        changes = Changes()
        yield changes
        publish(changes.marks())


def resolved(database: Any) -> Any:
    """The database behind a `DatabaseProxy` or a `FlaskDB`."""
    while not isinstance(database, Database):
        database = database.obj if isinstance(database, Proxy) else database.database
    return database


def follow(database: Any) -> None:
    """Have `database` follow its transactions, if it is one yet."""
    if isinstance(database, Proxy):
        database = database.obj
    if not isinstance(database, Database) or "_bitmapist" in database.__dict__:
        return
    kind: Any = type(database)
    if any(cls.__module__ == "playhouse.pwasyncio" for cls in kind.__mro__):
        raise TypeError(f"Flask-Bitmapist does not follow the transactions of an async {kind!r}")
    database.__dict__.setdefault("_bitmapist", _Transactions(database))
    database.__class__ = _following(kind)


class _Transaction:
    """The changes of one connection's open transaction, and of each savepoint inside it."""

    def __init__(self, *, is_open: bool) -> None:
        self._levels: list[tuple[str, Changes]] = []
        self._ends_with: str | None = None
        if is_open:
            self.begin()

    @property
    def innermost(self) -> Changes | None:
        """The changes of the innermost savepoint; None outside a transaction."""
        return self._levels[-1][1] if self._levels else None

    def begin(self) -> None:
        self._levels = [("", Changes())]
        self._ends_with = None

    def begin_with_savepoint(self, name: str) -> None:
        """SQLite's SAVEPOINT outside a transaction begins one, which its RELEASE commits."""
        self.begin()
        self._ends_with = name
        self.savepoint(name)

    def commit(self) -> None:
        if self._levels:
            self._merge_from(0)
            changes = self._levels[0][1]
            self.rollback()
            publish(changes.marks())

    def rollback(self) -> None:
        self._levels = []

    def savepoint(self, name: str) -> None:
        if self._levels:
            self._levels.append((name, Changes()))

    def release(self, name: str) -> None:
        level = self._level(name)
        # One that we do not know began before we watched, so around all that we do know.
        self._merge_from(max(level - 1, 0))
        if level == 1 and self._ends_with == name:
            self.commit()

    def rollback_to(self, name: str) -> None:
        level = self._level(name)
        # The savepoint itself stays.
        self._levels[level:] = [(name, Changes())] if self._levels else []

    def _level(self, name: str) -> int:
        """Where the last savepoint called `name` is; 0 for one that we do not know."""
        names = [known for known, _ in self._levels]
        return max((level for level, known in enumerate(names) if known == name), default=0)

    def _merge_from(self, level: int) -> None:
        for _, released in self._levels[level + 1 :]:
            self._levels[level][1].absorb(released)
        del self._levels[level + 1 :]


class _OfThread(threading.local):
    transaction: _Transaction | None = None


class _OfAllThreads:
    transaction: _Transaction | None = None


class _Transactions:
    """The open transactions of one database: one for each thread's connection."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._local = _OfThread() if database.thread_safe else _OfAllThreads()

    @property
    def current(self) -> _Transaction:
        """That of the current thread."""
        if self._local.transaction is None:
            self._local.transaction = _Transaction(is_open=self._database.in_transaction())
        return self._local.transaction

    def forget(self) -> None:
        """The connection is a new one."""
        self._local.transaction = None

    @contextmanager
    def controlled(self, verb: str, savepoint: str = "") -> Iterator[None]:
        """Around a statement that controls the transaction; nothing follows from one that fails."""
        status = _status(self._database)
        try:
            yield
        finally:
            if verb == "rollback":  # however it ends, nothing before it is certain
                self.current.rollback()
        if verb == "begin":
            self._begun(status)
        elif verb == "commit" and status == _IN_FAILED_TRANSACTION:
            # PostgreSQL has rolled back, silently.
            self.current.rollback()
        elif verb == "commit":
            self.current.commit()
        elif verb == "savepoint":
            self._savepoint_made(savepoint)
        elif verb == "release":
            self.current.release(savepoint)
        elif verb == "rollback_to":
            self.current.rollback_to(savepoint)

    def _begun(self, status: int | None) -> None:
        # Inside a transaction, MySQL has committed that, and PostgreSQL done nothing.
        if isinstance(self._database, MySQLDatabase):
            self.current.commit()
        if status != _IN_TRANSACTION or self.current.innermost is None:
            self.current.begin()

    def _savepoint_made(self, savepoint: str) -> None:
        if self.current.innermost is None and isinstance(self._database, SqliteDatabase):
            self.current.begin_with_savepoint(savepoint)
        else:
            self.current.savepoint(savepoint)


@functools.cache
def _following(kind: Any) -> Any:
    """The class of databases `kind`, made to tell of its transactions.

    A subclass with one base: the class of a living object can only become one of the same layout.
    """

    class Following(kind):  # type: ignore[misc]
        _bitmapist: _Transactions

        def connect(self, *args: Any, **kwargs: Any) -> Any:
            opened = super().connect(*args, **kwargs)
            if opened:
                self._bitmapist.forget()
            return opened

        def begin(self, *args: Any, **kwargs: Any) -> Any:
            with self._bitmapist.controlled("begin"):
                return super().begin(*args, **kwargs)

        def commit(self) -> Any:
            with self._bitmapist.controlled("commit"):
                return super().commit()

        def rollback(self) -> Any:
            with self._bitmapist.controlled("rollback"):
                return super().rollback()

        def execute_sql(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
            verb, savepoint = _transaction_control(sql)
            if verb is None:
                return super().execute_sql(sql, *args, **kwargs)
            with self._bitmapist.controlled(verb, savepoint):
                return super().execute_sql(sql, *args, **kwargs)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Following, name, getattr(kind, name))
    return Following


# Each group is named after its verb; those of savepoints hold the savepoint's name.
_CONTROL = re.compile(
    r"""\s*
    (?: (?P<begin>BEGIN|START\s+TRANSACTION)\b.*
      | (?P<commit>COMMIT|END) (?:\s+(?:WORK|TRANSACTION))?
      | (?P<rollback>ROLLBACK|ABORT) (?:\s+(?:WORK|TRANSACTION))?
      | SAVEPOINT\s+ (?P<savepoint>\S+?)
      | RELEASE (?:\s+SAVEPOINT)? \s+ (?P<release>\S+?)
      | ROLLBACK (?:\s+(?:WORK|TRANSACTION))? \s+TO (?:\s+SAVEPOINT)? \s+ (?P<rollback_to>\S+?)
    )\s*;?\s*""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def _transaction_control(sql: object) -> tuple[str | None, str]:
    """The verb of a statement that controls a transaction, and the savepoint that it names."""
    match = _CONTROL.fullmatch(sql) if isinstance(sql, str) else None
    if match is None or match.lastgroup is None:
        return None, ""
    return match.lastgroup, match[match.lastgroup].strip('"`').casefold()


def _status(database: Any) -> int | None:
    """What psycopg knows of the transaction's state; None on other databases."""
    if database.is_closed():
        return None
    return getattr(getattr(database.connection(), "info", None), "transaction_status", None)
