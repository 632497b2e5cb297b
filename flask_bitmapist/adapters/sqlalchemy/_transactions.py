"""When changes are published: with the COMMIT of the connection's own transaction.

Changes belong to the innermost transaction or savepoint of the connection that made them, whoever
began it: a session, another session, or the application on the connection. Each is followed until
it commits. Then its changes go to the transaction around it, or are published if there is none.
Rollbacks need no handling: what never commits is never handed on.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, MutableSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Engine, NestedTransaction, RootTransaction, Transaction, event
from sqlalchemy.engine import ExceptionContext, TwoPhaseTransaction
from sqlalchemy.orm import Session, SessionTransaction

from ...current import publish
from ...faults import contained_faults
from ...marks import Mark
from ..base import Changes, checked_marks

if TYPE_CHECKING:  # needs greenlet, which an application without asyncio does not have
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session


def record(
    session: Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any],
    *marks: Mark | tuple[Any, ...],
) -> None:
    """Publish `marks` when the innermost open transaction of `session`, and all around it, commit.

    Use it for what the ORM does not see, such as raw SQL. Outside any transaction they are
    published at once.

    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is not a mark, or not an id.
    :raises ValueError: for an event name or id that is not allowed. Then none is recorded.
    """
    checked = checked_marks(marks)
    target: Any = session() if callable(session) else session  # a scoped one is a factory
    scope = _open_scope(getattr(target, "sync_session", target))
    if scope is None:
        publish(checked)
    else:
        scope.changes().enlist(checked)


# --- Transactions of connections ------------------------------------------------------------------

# Weak: what is rolled back is forgotten with its transaction.
_changes: MutableMapping[Transaction, Changes] = WeakKeyDictionary()
_savepoints: MutableMapping[Transaction, list[ref[Transaction]]] = WeakKeyDictionary()


def changes_of(connection: Connection) -> Changes | None:
    """The changes of the innermost transaction of `connection`; None outside any."""
    transaction = _innermost(connection)
    return None if transaction is None else _changes_in(transaction)


def _innermost(connection: Connection) -> Transaction | None:
    return connection.get_nested_transaction() or connection.get_transaction()


def _changes_in(transaction: Transaction) -> Changes:
    changes = _changes.get(transaction)
    if changes is None:
        _follow(transaction)
        changes = _changes[transaction] = Changes()
    return changes


class _Followed(Transaction):
    """A transaction, or savepoint, that hands its changes on when it has committed.

    SQLAlchemy sends ``commit`` before the COMMIT, which may fail, and nothing after it.
    """

    __slots__ = ()

    def commit(self) -> None:
        # A COMMIT also ends the savepoints that are still open, and keeps what they did.
        inside = list(_open_savepoints(self))
        aborted = _is_aborted(self)
        super().commit()
        if not aborted:
            with contained_faults("pass on what a transaction has changed"):
                _hand_on(self, inside)


class _FollowedRoot(_Followed, RootTransaction):
    __slots__ = ()


class _FollowedTwoPhase(_Followed, TwoPhaseTransaction):
    __slots__ = ()


class _FollowedSavepoint(_Followed, NestedTransaction):
    __slots__ = ()


_FOLLOWED: dict[type[Transaction], type[_Followed]] = {
    RootTransaction: _FollowedRoot,
    TwoPhaseTransaction: _FollowedTwoPhase,
    NestedTransaction: _FollowedSavepoint,
}


def _follow(transaction: Transaction) -> None:
    transaction.__class__ = _FOLLOWED[type(transaction)]
    root = transaction.connection.get_transaction()
    if root is not None and root is not transaction:
        _changes_in(root)  # followed too: its COMMIT may end the savepoint
        _savepoints.setdefault(root, []).append(ref(transaction))


def _open_savepoints(transaction: Transaction) -> Iterator[Transaction]:
    for reference in _savepoints.get(transaction, ()):
        savepoint = reference()
        if savepoint is not None and savepoint.is_active:
            yield savepoint


def _hand_on(transaction: Transaction, inside: list[Transaction]) -> None:
    changes = _changes.pop(transaction, None) or Changes()
    for savepoint in inside:
        changes.absorb(_changes.pop(savepoint, Changes()))
    connection = transaction.connection
    enclosing = changes_of(connection)
    if enclosing is not None:
        enclosing.absorb(changes)
    elif (scope := _committing_scope(connection)) is not None:
        scope.committed.append(changes)
    elif marks := changes.marks():
        publish(marks)


# --- Transactions that a failed statement ends ----------------------------------------------------

# PostgreSQL's transactions in which a statement failed: they can only be rolled back.
_aborted: MutableSet[Transaction] = WeakSet()

_DEADLOCK = 1213  # of MySQL and MariaDB


def _on_error(context: ExceptionContext) -> None:
    connection = context.connection
    transaction = None if connection is None else _innermost(connection)
    if connection is None or transaction is None:
        return
    with contained_faults("see what a failed statement did to its transaction"):
        error = context.original_exception
        if context.dialect.name == "postgresql" and _comes_from_the_server(error):
            _aborted.add(transaction)
        elif _has_ended_its_transaction(context.dialect.name, error, connection):
            _forget(connection)


def _is_aborted(transaction: Transaction) -> bool:
    """Whether PostgreSQL will answer a COMMIT with a rollback: it raises nothing."""
    return not _aborted.isdisjoint((transaction, transaction.connection.get_nested_transaction()))


def _comes_from_the_server(error: BaseException) -> bool:
    """Whether it is an error of PostgreSQL, rather than of its driver alone."""
    return bool(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None))


def _has_ended_its_transaction(dialect: str, error: BaseException, connection: Connection) -> bool:
    """Whether the database has rolled the whole transaction back with the failed statement."""
    if dialect == "sqlite":  # by ON CONFLICT ROLLBACK, or because the disk is full
        return not getattr(connection.connection.dbapi_connection, "in_transaction", True)
    return dialect in ("mysql", "mariadb") and error.args[:1] == (_DEADLOCK,)


def _forget(connection: Connection) -> None:
    """Drop what the open transaction of `connection` has done so far."""
    root = connection.get_transaction()
    if root is not None:
        for transaction in (root, *_open_savepoints(root)):
            _changes.pop(transaction, None)


# --- Transactions of sessions ---------------------------------------------------------------------

# Slot of Session.info.
_OPEN = "flask_bitmapist.open"  # {SessionTransaction: _Scope}

# The session that is committing the transaction of a connection.
_committing: MutableMapping[Connection, ref[Session]] = WeakKeyDictionary()


@dataclass(slots=True)
class _Scope:
    """A transaction, or savepoint, of a session."""

    connections: list[Connection] = field(default_factory=list)
    #: Marks of the caller's own, recorded before it had a connection.
    pending: Changes | None = None
    #: What its connections have committed.
    committed: list[Changes] = field(default_factory=list)
    is_committing: bool = False
    has_committed: bool = False

    def changes(self) -> Changes:
        """Where marks of the caller's own go."""
        changes = changes_of(self.connections[0]) if self.connections else None
        if changes is None:
            changes = self.pending = self.pending or Changes()
        return changes

    def take_over(self, pending: Changes | None) -> None:
        """Take over marks that were recorded in a savepoint, or before there was a connection."""
        if pending is not None:
            self.changes().absorb(pending)

    def marks(self) -> list[Mark]:
        pending = self.pending if self.has_committed else None
        done = self.committed if pending is None else [*self.committed, pending]
        return [mark for changes in done for mark in changes.marks()]


def _open_scope(session: Session) -> _Scope | None:
    """The innermost open transaction of `session`; None outside any."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    return None if transaction is None else _scope_of(session, transaction)


def _scope_of(session: Session, transaction: SessionTransaction) -> _Scope:
    scopes: dict[SessionTransaction, _Scope] = session.info.setdefault(_OPEN, {})
    return scopes.setdefault(transaction, _Scope())


def _committing_scope(connection: Connection) -> _Scope | None:
    reference = _committing.get(connection)
    session = None if reference is None else reference()
    root = None if session is None else session.get_transaction()
    return None if session is None or root is None else _scope_of(session, root)


def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    scope = _scope_of(session, transaction)
    pending, scope.pending = scope.pending, None
    scope.connections.append(connection)
    scope.take_over(pending)
    if scope.is_committing:
        _committing[connection] = ref(session)


def _before_commit(session: Session) -> None:
    root = session.get_transaction()
    if root is None or session.get_nested_transaction() is not None:
        return
    scope = _scope_of(session, root)
    scope.is_committing = True
    for connection in scope.connections:
        _committing[connection] = ref(session)


def _after_commit(session: Session) -> None:
    scope = _open_scope(session)
    if scope is not None:
        scope.has_committed = True


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    scopes = session.info.get(_OPEN, {})
    scope = scopes.pop(transaction, None)
    if not scopes:
        session.info.pop(_OPEN, None)
    if scope is None:
        return
    if transaction.parent is not None:
        enclosing = _open_scope(session)
        if scope.has_committed and enclosing is not None:
            enclosing.take_over(scope.pending)
        return
    for connection in scope.connections:
        _committing.pop(connection, None)
    if marks := scope.marks():
        # Here rather than in after_commit: the connection is back in its pool, the session usable.
        publish(marks)


event.listen(Engine, "handle_error", _on_error)
event.listen(Session, "after_begin", _after_begin)
event.listen(Session, "before_commit", _before_commit)
# Before the listeners of an application, which may raise.
event.listen(Session, "after_commit", _after_commit, insert=True)
event.listen(Session, "after_transaction_end", _after_transaction_end)
