"""Follows a peewee database's transactions, to publish what they changed after the COMMIT.

A database that a tracked model is bound to is followed by overriding its public ``connect``,
``begin``, ``commit``, ``rollback`` and ``execute_sql`` (savepoints), on every version of peewee
from 3.17 on.

Not by ``Database.after_commit()`` and ``query_hooks``, which peewee has had since 4.5: they do not
see ``manual_commit()``, a bare ``rollback()`` or a failed statement. After that one, PostgreSQL
answers peewee's COMMIT with a rollback and no error, and ``after_commit()`` still runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peewee import Database, MySQLDatabase, PostgresqlDatabase, Proxy, SqliteDatabase

from ...current import publish
from ...marks import Mark
from ..base import Changes, checked_marks
from ._control import Control, controls_in

# libpq's PQTRANS_IDLE, PQTRANS_INTRANS and PQTRANS_INERROR.
_IDLE = 0
_IN_TRANSACTION = 2
_IN_FAILED_TRANSACTION = 3


def record(database: Any, *marks: Mark | tuple[Any, ...]) -> None:
    """Publish `marks` when the innermost open transaction of `database`, and all around it, commit.

    Use it for what the models do not see, such as raw SQL. Outside any transaction they are
    published at once.

    :param database: a peewee ``Database``, a ``DatabaseProxy`` or a ``FlaskDB``.
    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is not a mark, or not an id.
    :raises ValueError: for an event name or id that is not allowed. Then none is recorded.
    """
    checked = checked_marks(marks)
    with changes_of(database) as changes:
        changes.enlist(checked)


@contextmanager
def changes_of(database: Any) -> Iterator[Changes]:
    """The changes of the innermost open savepoint or transaction.

    Outside any, where each statement commits by itself, they are published at the end.
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
    """Have `database` follow its transactions; a proxy without a database yet is left alone."""
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
        # One that we do not know began before we watched, so it is around all that we know.
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
        """The transaction of the current thread."""
        if self._local.transaction is None:
            self._local.transaction = _Transaction(is_open=self._database.in_transaction())
        return self._local.transaction

    def forget(self) -> None:
        """Forget the thread's transaction: its connection is a new one."""
        self._local.transaction = None

    @contextmanager
    def controlled(self, *controls: Control) -> Iterator[None]:
        """Around statements that control the transaction, sent together."""
        status = _status(self._database)
        try:
            yield
        except BaseException:
            # Nothing before a ROLLBACK is certain, nor before a script that failed in the middle.
            is_rolled_back = any(control.verb == "rollback" for control in controls)
            if is_rolled_back or _status(self._database) == _IDLE:
                self.current.rollback()
            raise
        for control in controls:
            self._follow(control, status)

    def _follow(self, control: Control, status: int | None) -> None:
        if control.verb == "begin":
            self._begun(status)
        elif control.verb == "commit" and status != _IN_FAILED_TRANSACTION:
            self.current.commit()
        elif control.verb in ("commit", "rollback"):
            # PostgreSQL answers COMMIT with a silent ROLLBACK after a statement that failed.
            self.current.rollback()
        elif control.verb == "savepoint":
            self._savepoint_made(control.savepoint)
        elif control.verb == "release":
            self.current.release(control.savepoint)
        elif control.verb == "rollback_to":
            self.current.rollback_to(control.savepoint)
        if control.chained:
            self.current.begin()

    def _begun(self, status: int | None) -> None:
        # Inside a transaction, MySQL has committed that one, and PostgreSQL has done nothing.
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
    """A subclass of the database class `kind` that reports its transactions.

    It has one base, since a live object's class can only be changed to one of the same layout.
    """

    class Following(kind):  # type: ignore[misc]
        _bitmapist: _Transactions

        def connect(self, *args: Any, **kwargs: Any) -> Any:
            opened = super().connect(*args, **kwargs)
            if opened:
                self._bitmapist.forget()
            return opened

        def begin(self, *args: Any, **kwargs: Any) -> Any:
            with self._bitmapist.controlled(Control("begin")):
                return super().begin(*args, **kwargs)

        def commit(self) -> Any:
            with self._bitmapist.controlled(Control("commit")):
                return super().commit()

        def rollback(self) -> Any:
            with self._bitmapist.controlled(Control("rollback")):
                return super().rollback()

        def execute_sql(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
            one_statement = not isinstance(self, PostgresqlDatabase)
            controls = controls_in(_text(sql, self), one_statement=one_statement)
            if not controls:
                return super().execute_sql(sql, *args, **kwargs)
            with self._bitmapist.controlled(*controls):
                return super().execute_sql(sql, *args, **kwargs)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Following, name, getattr(kind, name))
    return Following


def _text(sql: Any, database: Any) -> str:
    """`sql`, which may be bytes or what ``psycopg2.sql`` composes."""
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return sql if isinstance(sql, str) else sql.as_string(database.connection())


def _status(database: Any) -> int | None:
    """What psycopg knows of the transaction's state; None on other databases."""
    if database.is_closed():
        return None
    return getattr(getattr(database.connection(), "info", None), "transaction_status", None)
