"""Which row a change is about, and whose bit it marks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from typing import Any, cast

from sqlalchemy import Column, inspect
from sqlalchemy.orm import (
    ColumnProperty,
    InstanceState,
    Mapper,
    MapperProperty,
    RelationshipProperty,
    SynonymProperty,
)
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.orm.interfaces import MANYTOONE
from sqlalchemy.types import TypeDecorator, TypeEngine

from ...ids import TextKey, can_identify
from ...many import is_array
from ..base import BitmapistableModel, kept_attributes


def row_of(mapper: Mapper[Any], key: Iterable[object], token: object = None) -> Hashable:
    """The identity of the row with the primary key `key`, whichever class of a hierarchy names it.

    :param token: the ORM's identity token: which of several databases holds the row.
    """
    return cast(
        Hashable, mapper.identity_key_from_primary_key(tuple(key), identity_token=cast(Any, token))
    )


def identity(target: BitmapistableModel) -> object:
    """The id to mark for `target`."""
    state: InstanceState[Any] = inspect(target)
    # The identity first: attributes of a detached or expired row may not load any more.
    return id_of(target, state.identity or state.mapper.primary_key_from_instance(target))


def id_of(target: BitmapistableModel, key: Iterable[object]) -> object:
    """The id to mark for `target`, whose primary key is `key`; None marks nobody."""
    mapper = inspect(target).mapper
    columns = id_columns(mapper)
    if columns is None:
        return target._bitmapist_chosen_id()
    if type(target).__bitmapist_id__ is None:
        return id_from_values(columns, key)
    values = [getattr(target, mapper.get_property_by_column(column).key) for column in columns]
    return None if None in values else id_from_values(columns, values)


def id_columns(mapper: Mapper[Any]) -> Sequence[Column[Any]] | None:
    """The columns of `mapper` whose values are the id; None if Python code gives it."""
    return columns_of(mapper, mapper.class_.__bitmapist_id__)


def columns_of(mapper: Mapper[Any], chosen: object) -> Sequence[Column[Any]] | None:
    """As `id_columns`, for an id that is `chosen` by an attribute's name, a method, or None."""
    if chosen is None:
        return cast("Sequence[Column[Any]]", mapper.primary_key)
    attribute = named_attribute(mapper, chosen)
    if isinstance(attribute, RelationshipProperty):
        return _foreign_key(attribute)
    if isinstance(attribute, ColumnProperty) and isinstance(attribute.columns[0], Column):
        return (attribute.columns[0],)
    return None


def named_attribute(mapper: Mapper[Any], name: object) -> MapperProperty[Any] | None:
    """The mapped attribute called `name`, with synonyms followed; None if there is none."""
    if not isinstance(name, str) or not mapper.has_property(name):
        return None
    attribute = mapper.get_property(name)
    if isinstance(attribute, SynonymProperty):
        return named_attribute(mapper, attribute.name)
    return attribute


def _foreign_key(relationship: RelationshipProperty[Any]) -> Sequence[Column[Any]] | None:
    """The columns that hold the related row's primary key; None if no column here does."""
    if relationship.direction is not MANYTOONE:
        return None
    related: Mapper[Any] = relationship.mapper
    try:
        # By attribute: a joined subclass has its key in two tables.
        local_columns = {
            related.get_property_by_column(remote).key: local
            for local, remote in relationship.local_remote_pairs or ()
        }
    except UnmappedColumnError:
        return None
    names = [related.get_property_by_column(column).key for column in related.primary_key]
    if not local_columns.keys() >= set(names):
        return None
    return cast("Sequence[Column[Any]]", [local_columns[name] for name in names])


def id_from_values(columns: Iterable[Column[Any]], values: Iterable[object]) -> object:
    """The id that the `values` of `columns` make: one value, or a tuple of several."""
    parts = tuple(map(_as_text_key, columns, values))
    return parts[0] if len(parts) == 1 else parts


def as_text_keys(column: Column[Any], values: Sequence[object]) -> Sequence[object]:
    """The `values` of `column`, made to stay text if it is textual."""
    if is_array(values) or {*map(type, values)} <= {int, type(None)}:
        return values
    return [_as_text_key(column, value) for value in values]


def _as_text_key(column: Column[Any], value: object) -> object:
    """`value`, made to stay text if `column` is textual."""
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        return value
    return value if _holds_numbers(column.type) else TextKey(value)


def _holds_numbers(type_: TypeEngine[Any]) -> bool:
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    kind = _python_type(type_)
    return kind is not None and issubclass(kind, int)


def _python_type(type_: TypeEngine[Any]) -> type | None:
    """The Python type of a column's values; None if SQLAlchemy does not say."""
    try:
        return type_.python_type
    except NotImplementedError:
        return None


def check_options(mapper: Mapper[Any], model: type[BitmapistableModel]) -> None:
    """Check that the options of `model` name attributes that exist, and ids that can be marked.

    :raises TypeError: if not; the message says what is wrong.
    """
    for name in _named_attributes(model):
        if not hasattr(model, name):
            raise TypeError(f"{model.__name__} has no attribute {name!r}, which its options name")
    chosen = model.__bitmapist_id__
    columns = id_columns(mapper)
    if columns is None and isinstance(named_attribute(mapper, chosen), RelationshipProperty):
        raise TypeError(
            f"{model.__name__}.{chosen} gives no id: __bitmapist_id__ takes a relationship whose "
            "foreign key is in this model and refers to a primary key"
        )
    for column in columns or ():
        _check_type(model, mapper.get_property_by_column(column).key, column.type)
    if model.__bitmapist_bulk__:
        _check_bulk_options(mapper, model, columns)


def _check_type(model: type[BitmapistableModel], name: str, type_: TypeEngine[Any]) -> None:
    kind = _python_type(type_)
    if kind is not None and not can_identify(kind):
        raise TypeError(
            f"{model.__name__}.{name} holds {kind.__name__} values, which cannot be ids: "
            "set __bitmapist_id__ to another attribute or a method"
        )


def _check_bulk_options(
    mapper: Mapper[Any], model: type[BitmapistableModel], columns: Sequence[Column[Any]] | None
) -> None:
    chosen = model.__bitmapist_id__
    if columns is None and callable(chosen):
        raise TypeError(
            f"{model.__name__}.__bitmapist_id__ must name a column, as __bitmapist_bulk__ is True: "
            "bulk statements load no objects whose method could be called"
        )
    names = [name for name in kept_attributes(model) if name not in mapper.columns]
    for name in names + ([chosen] if columns is None else []):
        raise TypeError(
            f"{model.__name__}.{name} must be a column, as __bitmapist_bulk__ is True: "
            "bulk statements load no objects that have attributes"
        )


def _named_attributes(model: type[BitmapistableModel]) -> list[str]:
    """The attributes that the options of `model` name."""
    chosen = model.__bitmapist_id__
    return [*kept_attributes(model), *([chosen] if isinstance(chosen, str) else [])]
