"""SQLAlchemy: INSERT, UPDATE and DELETE of the ORM -> marks, published after the COMMIT.

Listeners are registered once, at import, before an application can register its own:

* mapper ``after_insert``, ``after_update`` and ``before_delete``: note the row in the changes of
  the session's innermost transaction;
* session ``after_commit``, sent for RELEASE SAVEPOINT too: the changes are committed;
* session ``after_transaction_end``: hand committed changes to the enclosing transaction, publish
  those of the root, drop all others.

Not seen: ``session.bulk_*``, Core statements and raw SQL, the database's own cascades and triggers,
savepoints made behind the ORM. Use `record` there, or opt in to bulk statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

try:
    from sqlalchemy import Column, event, inspect
    from sqlalchemy.orm import (
        ColumnProperty,
        Mapper,
        RelationshipProperty,
        Session,
        SessionTransaction,
        object_session,
    )
    from sqlalchemy.orm.attributes import get_history
    from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
    from sqlalchemy.orm.interfaces import MANYTOONE
    from sqlalchemy.types import TypeDecorator, TypeEngine
except ImportError as error:
    raise ImportError(
        'SQLAlchemy 2 is missing: pip install "flask-bitmapist[sqlalchemy]"', name=error.name
    ) from error

from ..current import publish
from ..faults import contained_faults
from ..ids import TextKey
from ..marks import Mark
from .base import Action, BitmapistableModel, Changes, checked_marks

if TYPE_CHECKING:  # needs greenlet, which an application without asyncio does not have
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import scoped_session

# Slot of Session.info.
_OPEN = "flask_bitmapist.open"  # {SessionTransaction: Changes}
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
    session: Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any],
    *marks: Mark | tuple[Any, ...],
) -> None:
    """Publish `marks` when the innermost open transaction of `session`, and all around it, commit.

    For what the ORM does not see, such as raw SQL. Outside any transaction they are published at
    once.

    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is no mark or no id.
    :raises ValueError: for an event name or id that is not allowed. None is recorded then.
    """
    checked = checked_marks(marks)
    target: Any = session() if callable(session) else session  # a scoped one is a factory
    changes = open_changes(getattr(target, "sync_session", target))
    if changes is None:
        publish(checked)
    else:
        changes.enlist(checked)


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
    return value if _holds_numbers(column.type) else TextKey(value)


def _holds_numbers(type_: TypeEngine[Any]) -> bool:
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    try:
        return issubclass(type_.python_type, int)
    except NotImplementedError:
        return False


def id_from_key(mapper: Mapper[Any], key: Iterable[object]) -> object:
    """The id of a row with the primary key `key`: the key itself, or a tuple if composite."""
    columns = cast("tuple[Column[Any], ...]", mapper.primary_key)
    parts = tuple(map(as_text_key, columns, key))
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
    key_before: tuple[object, ...] | None = None,
) -> None:
    model = type(target)
    with contained_faults("note a row of %s as %s", model.__name__, action):
        changes = open_changes(cast(Session, object_session(target)))
        if changes is None:
            return
        values = {flag: bool(getattr(target, flag)) for flag in flags}
        mapper = inspect(target).mapper
        before = None
        if key_before is not None:
            before = row_of(mapper, key_before), _id_of(target, key_before)
        changes.note(row_of(mapper, key), model, action, _id_of(target, key), values, before=before)


def _check_attributes(mapper: Mapper[Any], model: type[SQLAlchemyBitmapistable]) -> None:
    for name in _named_attributes(model):
        if not hasattr(model, name):
            raise TypeError(f"{model.__name__} has no attribute {name!r}, which its options name")
        if model.__bitmapist_bulk__ and name not in mapper.columns:
            raise TypeError(
                f"{model.__name__}.{name} must be a column, as __bitmapist_bulk__ is True: "
                "bulk statements load no objects to ask"
            )
    if model.__bitmapist_bulk__ and callable(model.__bitmapist_id__):
        raise TypeError(
            f"{model.__name__}.__bitmapist_id__ must name a column, as __bitmapist_bulk__ is True: "
            "bulk statements load no objects to call a method of"
        )


def _named_attributes(model: type[SQLAlchemyBitmapistable]) -> list[str]:
    """The attributes that the options of `model` name."""
    chosen = model.__bitmapist_id__
    return [*model.__bitmapist_flags__, *([chosen] if isinstance(chosen, str) else [])]


def _after_insert(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    key = mapper.primary_key_from_instance(target)
    _note(target, "created", tuple(key), type(target).__bitmapist_flags__)


def _before_update(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    # An attribute set to an SQL expression has lost its history in after_update, where it is
    # expired already.
    inspect(target).info[_CHANGED] = _changed(mapper, target)


def _after_update(mapper: Mapper[Any], _: object, target: SQLAlchemyBitmapistable) -> None:
    # Again, as a listener after ours may have edited the row in before_update.
    changed = inspect(target).info.pop(_CHANGED, set()) | _changed(mapper, target)
    if not changed:
        return
    flags = type(target).__bitmapist_flags__
    key = tuple(mapper.primary_key_from_instance(target))
    before = inspect(target).identity
    if before is not None and before != key:
        _note(target, "updated", key, flags, before)
    else:
        _note(target, "updated", key, _perhaps_changed(mapper, flags, changed))


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


def _perhaps_changed(mapper: Mapper[Any], names: Iterable[str], changed: set[str]) -> list[str]:
    """Those of the attributes `names` that an UPDATE of `changed` may have given a new value."""
    return [name for name in names if name in changed or _is_computed(mapper, name)]


def _is_computed(mapper: Mapper[Any], name: str) -> bool:
    """Whether `name` may change without being set: a property, or a column with an ``onupdate``."""
    column = mapper.columns.get(name)
    if not isinstance(column, Column):
        return True
    return any(
        rule is not None for rule in (column.onupdate, column.server_onupdate, column.computed)
    )


def _is_stored(mapper: Mapper[Any], name: str) -> bool:
    attribute = mapper.attrs.get(name)
    if isinstance(attribute, ColumnProperty):
        return isinstance(attribute.columns[0], Column)
    if isinstance(attribute, RelationshipProperty):
        return attribute.post_update and attribute.direction is MANYTOONE
    return False


def _after_commit(session: Session) -> None:
    changes = open_changes(session)
    if changes is not None:
        changes.committed = True


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    by_transaction = session.info.get(_OPEN, {})
    changes = by_transaction.pop(transaction, None)
    if not by_transaction:
        session.info.pop(_OPEN, None)
    if changes is None or not changes.committed:
        return
    if transaction.parent is None:
        # Here rather than in after_commit: the connection is back in its pool, the session usable.
        publish(changes.marks())
    elif (enclosing := open_changes(session)) is not None:
        enclosing.absorb(changes)


_mapper_listeners: dict[str, Callable[..., None]] = {
    "mapper_configured": _check_attributes,
    "after_insert": _after_insert,
    "before_update": _before_update,
    "after_update": _after_update,
    "before_delete": _before_delete,
}
for _name, _listener in _mapper_listeners.items():
    event.listen(SQLAlchemyBitmapistable, _name, _listener, propagate=True)
# Before the listeners of an application, which may raise.
event.listen(Session, "after_commit", _after_commit, insert=True)
event.listen(Session, "after_transaction_end", _after_transaction_end)
