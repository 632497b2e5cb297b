"""Which row a model's instance stands for, and what is marked for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from peewee import ForeignKeyField, IntegerField, Model, ModelSelect, Node

from ...ids import TextKey
from ..base import Action, BitmapistableModel, Changes, kept_attributes

Key = tuple[Any, ...]
#: A model with the mixin, whose attributes are peewee's.
TrackedModel = type[Any]


class MarkedRow(NamedTuple):
    """What is marked for a row, read while it can be."""

    model: type[BitmapistableModel]
    key: Key
    id: object
    #: Of its flags and dimensions.
    values: dict[str, object]


def note(
    changes: Changes,
    action: Action | None,
    row: MarkedRow,
    before: tuple[object, object] | None = None,
) -> None:
    """`action` happened to `row`; None: it was written unchanged.

    :param before: its identity and id before an update that changed its key.
    """
    identity = row_of(row.model, row.key)
    changes.note(identity, row.model, action, row.id, row.values, before=before)


def row_of(model: TrackedModel, key: Key) -> object:
    """The identity of a row."""
    if not key or any(map(is_expression, key)):
        return object()  # a row that nothing can come back to
    return (model._meta.schema, model._meta.table_name, *key)


def marked_row(instance: Any, kept: Iterable[str] = ()) -> MarkedRow:
    """What is marked for the row of `instance`, with the values of those `kept` attributes."""
    values = {name: getattr(instance, name) for name in kept}
    return MarkedRow(type(instance), key_of(instance), instance.__bitmapist_identity__(), values)


# Keys and ids


def key_of(instance: Any) -> Key:
    """The primary key; () if the table has none."""
    fields = instance._meta.get_primary_keys()
    return tuple(as_stored(field, instance.__data__.get(field.name)) for field in fields)


def id_from_key(key: Key) -> object:
    """The id of a row with the primary key `key`: the key itself, or a tuple if composite."""
    if not key or any(part is None for part in key):
        return None
    return key[0] if len(key) == 1 else key


def as_stored(field: Any, value: Any) -> Any:
    """`value` as the database returns it: 7 for an integer field that was assigned '7'."""
    if value is None or is_expression(value):
        return value
    value = field.python_value(field.db_value(value))
    return TextKey(value) if isinstance(value, str) and not _holds_numbers(field) else value


def _holds_numbers(field: Any) -> bool:
    while isinstance(field, ForeignKeyField):
        field = field.rel_field
    return isinstance(field, IntegerField)


def is_expression(value: object) -> bool:
    """Whether `value` is SQL, whose value only the database knows."""
    return isinstance(value, Node) and not isinstance(value, Model)


# Attributes that the options of a model name


def named_attributes(model: TrackedModel) -> list[str]:
    """The attributes that the options of `model` name."""
    chosen = model.__bitmapist_id__
    return [*kept_attributes(model), *([chosen] if isinstance(chosen, str) else [])]


def field_named(model: Any, name: object) -> Any:
    """The field called `name`, or the foreign key whose ``_id`` that is; None if there is none."""
    meta = model._meta
    if not isinstance(name, str):
        return None
    by_id = (field for field in meta.refs if field.object_id_name == name)
    return meta.combined.get(name) or next(by_id, None)


# The stored row


def unsaved(instance: Any) -> set[str]:
    """The names of the fields that were assigned since the row was read or saved."""
    return {field.name for field in instance.dirty_fields}


def as_is_stored(
    database: Any, instance: Any, *, created: bool = False, written: Collection[str] = ()
) -> Any:
    """An instance whose marked attributes are as the database has them.

    That is `instance` itself, unless it was loaded with only some columns, has unsaved changes or
    an SQL expression, or was created without a column that the database fills in: then the row is
    read. None if it is gone.

    :param created: whether the row was inserted just now.
    :param written: names of fields that were written just now, though they still count as unsaved.
    """
    if _holds_what_is_marked(instance, created, written):
        return instance
    model = type(instance)
    query = select(model, model._meta.sorted_fields).where(instance._pk_expr())
    return next(iter(read(database, query)), None)


def _holds_what_is_marked(instance: Any, created: bool, written: Collection[str]) -> bool:
    model = type(instance)
    fields = [field_named(model, name) for name in named_attributes(model)]
    if callable(model.__bitmapist_id__) or any(field is None for field in fields):
        fields = model._meta.sorted_fields  # a method or property may ask for any
    dirty = unsaved(instance).difference(written) if fields else ()
    return all(
        not is_expression(instance.__data__[field.name]) and field.name not in dirty
        if field.name in instance.__data__
        else created and not field.constraints
        for field in fields
    )


def select(model: TrackedModel, columns: Iterable[Any]) -> Any:
    """A SELECT. Not ``model.select()``, which an application may override to hide rows."""
    return ModelSelect(model, columns)


def read(database: Any, query: Any) -> list[Any]:
    """The rows of a SELECT of ours.

    It bypasses ``execute_sql()``: only the application's own queries are logged, counted in tests
    and passed to hooks.
    """
    sql, parameters = database.get_sql_context().sql(query).query()
    cursor = database.cursor()
    cursor.execute(sql, parameters or ())
    return list(query._get_cursor_wrapper(cursor))
