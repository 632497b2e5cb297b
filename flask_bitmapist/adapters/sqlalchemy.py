"""SQLAlchemy: INSERT, UPDATE and DELETE of the ORM -> marks, published after the COMMIT.

Listeners are registered once, at import, before an application can register its own:

* mapper ``after_insert``, ``after_update`` and ``before_delete``: note the row in the changes of the
  session's innermost transaction;
* session ``after_commit``: a SAVEPOINT was released: hand its changes to the enclosing one; the
  root has committed: set them aside;
* session ``after_transaction_end``: of the root: publish; of anything else: drop what is left.

Not seen: ``session.bulk_*``, Core statements and raw SQL, the database's own cascades and triggers,
savepoints made behind the ORM. Use `record` there, or opt in to bulk statements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast

try:
    from sqlalchemy import Column, event, inspect
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import (
        ColumnProperty,
        Mapper,
        RelationshipProperty,
        Session,
        SessionTransaction,
        object_session,
        scoped_session,
    )
    from sqlalchemy.orm.attributes import get_history
    from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
    from sqlalchemy.orm.interfaces import MANYTOONE
except ImportError as error:
    raise ImportError(
        'SQLAlchemy 2 is missing: pip install "flask-bitmapist[sqlalchemy]"', name=error.name
    ) from error

from ..ids import TextKey
from ..marking import Mark, publish
from .base import Action, BitmapistableModel, Changes

# Slots of session.info.
_OPEN = "flask_bitmapist.open"  # {SessionTransaction: Changes}
_COMMITTED = "flask_bitmapist.committed"  # [Mark]
# Slot of InstanceState.info.
_CHANGED = "flask_bitmapist.changed"  # {attribute}


class SQLAlchemyBitmapistable(BitmapistableModel):
    """Mixin: ``class User(db.Model, Bitmapistable)`` marks ``user:created``, ``user:updated`` and
    ``user:deleted`` when the transaction that inserted, updated or deleted a row has committed.

    The class options are those of `BitmapistableModel`. With ``__bitmapist_bulk__ = True``,
    ``session.execute(insert(User) | update(User) | delete(User))`` marks too.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__bitmapist_bulk__:
            # Only then: a do_orm_execute listener costs every statement of every session 6 us.
            from .sqlalchemy_bulk import listen

            listen()

    def __bitmapist_identity__(self) -> object:
        state = inspect(self)
        # The identity first: attributes of a detached or expired row may not load any more.
        return _id_of(self, state.identity or state.mapper.primary_key_from_instance(self))


def record(
    session: Session | scoped_session[Any] | AsyncSession, *marks: Mark | tuple[Any, ...]
) -> None:
    """Publish `marks` when the innermost open transaction of `session`, and all around it, commit.

    For what the ORM does not see, such as raw SQL. Outside any transaction they are published at
    once.

    :param marks: such as ``("post:published", post_id)``.
    """
    target = getattr(session, "sync_session", session)  # AsyncSession
    target = target() if isinstance(target, scoped_session) else target
    changes = open_changes(target)
    if changes is None:
        publish(marks)
    else:
        changes.enlist(marks)


def open_changes(session: Session) -> Changes | None:
    """The changes of the innermost open transaction of `session`; None outside any."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:
        return None
    by_transaction = session.info.setdefault(_OPEN, {})
    return cast(Changes, by_transaction.setdefault(transaction, Changes()))


def row_of(mapper: Mapper[Any], primary_key: Iterable[object]) -> tuple[object, ...]:
    """The identity of a row, whichever class of its hierarchy names it."""
    return (mapper.base_mapper, *primary_key)


def marked_column(mapper: Mapper[Any]) -> Column[Any] | None:
    """The column whose value is marked; None if it is a composite key or a method."""
    chosen = mapper.class_.__bitmapist_id__
    if chosen is None:
        columns = mapper.primary_key
        return cast("Column[Any]", columns[0]) if len(columns) == 1 else None
    if isinstance(chosen, str) and chosen in mapper.columns:
        column = mapper.columns[chosen]
        return column if isinstance(column, Column) else None
    return None


def as_text_key(column: Column[Any] | None, value: object) -> object:
    """`value`, told to stay text if `column` is a textual one."""
    if column is None or not isinstance(value, str):
        return value
    try:
        textual = column.type.python_type is str
    except NotImplementedError:
        return value
    return TextKey(value) if textual else value


def id_from_key(mapper: Mapper[Any], key: Iterable[object]) -> object:
    """The id of a row with the primary key `key`: the key itself, or a tuple if composite."""
    parts = tuple(map(as_text_key, mapper.primary_key, key))
    return parts[0] if len(parts) == 1 else parts


def _id_of(target: SQLAlchemyBitmapistable, key: Iterable[object]) -> object:
    if type(target).__bitmapist_id__ is None:
        return id_from_key(inspect(target).mapper, key)
    return as_text_key(marked_column(inspect(target).mapper), target._bitmapist_chosen_id())


def _note(
    target: SQLAlchemyBitmapistable,
    action: Action,
    key: tuple[object, ...],
    flags: Iterable[str] = (),
) -> None:
    changes = open_changes(cast(Session, object_session(target)))
    if changes is not None:
        values = {flag: bool(getattr(target, flag)) for flag in flags}
        row = row_of(inspect(target).mapper, key)
        changes.note(row, type(target), action, _id_of(target, key), values)


def _check_attributes(mapper: Mapper[Any], model: type[SQLAlchemyBitmapistable]) -> None:
    chosen = model.__bitmapist_id__
    for name in (*model.__bitmapist_flags__, *([chosen] if isinstance(chosen, str) else [])):
        if not hasattr(model, name):
            raise TypeError(f"{model.__name__} has no attribute {name!r}, which its options name")


def _after_insert(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    key = mapper.primary_key_from_instance(target)
    _note(target, "created", key, type(target).__bitmapist_flags__)


def _before_update(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    # An attribute set to an SQL expression has lost its history in after_update, where it is
    # expired already.
    inspect(target).info[_CHANGED] = _changed(mapper, target)


def _after_update(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    # Again, as a listener after ours may have edited the row in before_update.
    changed = inspect(target).info.pop(_CHANGED, set()) | _changed(mapper, target)
    if changed:
        key = mapper.primary_key_from_instance(target)
        flags = [flag for flag in type(target).__bitmapist_flags__ if flag in changed]
        _note(target, "updated", key, flags)


def _before_delete(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    # Before: once the row is gone, an expired attribute could not be loaded.
    _note(target, "deleted", cast(Any, inspect(target).identity))


def _changed(mapper: Mapper[Any], target: SQLAlchemyBitmapistable) -> set[str]:
    """The attributes whose change an UPDATE carries.

    Not `session.is_modified`: it counts relationships that change no column of this row.
    """
    return {
        name
        for name in tuple(inspect(target).committed_state)
        if _is_stored(mapper, name)
        and get_history(target, name, PASSIVE_NO_INITIALIZE).has_changes()
    }


def _is_stored(mapper: Mapper[Any], name: str) -> bool:
    attribute = mapper.attrs.get(name)
    if isinstance(attribute, ColumnProperty):
        return isinstance(attribute.columns[0], Column)
    if isinstance(attribute, RelationshipProperty):
        return attribute.post_update and attribute.direction is MANYTOONE
    return False


def _after_commit(session: Session) -> None:
    by_transaction = session.info.get(_OPEN)
    transaction = session.get_nested_transaction() or session.get_transaction()
    changes = by_transaction.pop(transaction, None) if by_transaction else None
    if changes is None or transaction is None:
        return
    if not transaction.nested:
        session.info[_COMMITTED] = changes.marks()
        return
    enclosing = cast(SessionTransaction, transaction.parent)
    while not enclosing.nested and enclosing.parent is not None:  # a flush's own subtransaction
        enclosing = enclosing.parent
    by_transaction.setdefault(enclosing, Changes()).absorb(changes)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    session.info.get(_OPEN, {}).pop(transaction, None)
    # Here rather than in after_commit: the connection is back in its pool, and the session usable.
    if transaction.parent is None and _COMMITTED in session.info:
        publish(session.info.pop(_COMMITTED))


for _name, _listener in {
    "mapper_configured": _check_attributes,
    "after_insert": _after_insert,
    "before_update": _before_update,
    "after_update": _after_update,
    "before_delete": _before_delete,
}.items():
    event.listen(SQLAlchemyBitmapistable, _name, _listener, propagate=True)
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_transaction_end", _after_transaction_end)
