"""What a flush does to a row: created, updated with which flags and dimensions, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Column, Connection, event, inspect
from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.orm.interfaces import MANYTOONE

from ...faults import contained_faults
from ..base import Action, BitmapistableModel, kept_attributes
from ._ids import check_options, id_of, row_of
from ._transactions import changes_of

# Slot of InstanceState.info.
_CHANGED = "flask_bitmapist.changed"  # {attribute}


def listen(mixin: type[BitmapistableModel]) -> None:
    """Listen to the flushes of every model with `mixin`."""
    listeners: dict[str, Callable[..., None]] = {
        "mapper_configured": check_options,
        "after_insert": _after_insert,
        "before_update": _before_update,
        "after_update": _after_update,
        "before_delete": _before_delete,
    }
    for name, listener in listeners.items():
        event.listen(mixin, name, listener, propagate=True)


def _note(
    connection: Connection,
    target: BitmapistableModel,
    action: Action,
    key: tuple[object, ...],
    kept: Iterable[str] = (),
    key_before: tuple[object, ...] | None = None,
) -> None:
    model = type(target)
    with contained_faults("note a row of %s as %s", model.__name__, action):
        changes = changes_of(connection)
        if changes is None:
            return
        values = {name: getattr(target, name) for name in kept}
        state = inspect(target)
        mapper, token = state.mapper, state.identity_token
        before = None
        if key_before is not None:
            before = row_of(mapper, key_before, token), id_of(target, key_before)
        row = row_of(mapper, key, token)
        changes.note(row, model, action, id_of(target, key), values, before=before)


def _after_insert(mapper: Mapper[Any], connection: Connection, target: BitmapistableModel) -> None:
    key = mapper.primary_key_from_instance(target)
    _note(connection, target, "created", tuple(key), kept_attributes(type(target)))


def _before_update(mapper: Mapper[Any], _: object, target: BitmapistableModel) -> None:
    # An attribute set to an SQL expression has lost its history by after_update: it is expired.
    inspect(target).info[_CHANGED] = _changed(mapper, target)


def _after_update(mapper: Mapper[Any], connection: Connection, target: BitmapistableModel) -> None:
    # Again, because a listener after ours may have edited the row in before_update.
    changed = inspect(target).info.pop(_CHANGED, set()) | _changed(mapper, target)
    if not changed:
        return
    kept = kept_attributes(type(target))
    key = tuple(mapper.primary_key_from_instance(target))
    before = inspect(target).identity
    if before is not None and before != key:
        _note(connection, target, "updated", key, kept, before)
    else:
        _note(connection, target, "updated", key, _perhaps_changed(mapper, kept, changed))


def _before_delete(_: object, connection: Connection, target: BitmapistableModel) -> None:
    # Before: once the row is gone, an expired attribute could not be loaded.
    _note(connection, target, "deleted", inspect(target).identity)


def _changed(mapper: Mapper[Any], target: BitmapistableModel) -> set[str]:
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
    """Those attributes in `names` whose value an UPDATE of `changed` may have changed."""
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
