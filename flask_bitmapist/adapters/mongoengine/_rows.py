"""What marks need to know about a document: its class, identity, id, flags and dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from bson import DBRef
from mongoengine import Document, EmbeddedDocument
from mongoengine.base import BaseField

from ...faults import contained_faults
from ...ids import TextKey
from ..base import Action, BitmapistableModel, kept_attributes


@dataclass(frozen=True)
class Row:
    """A document as it is marked."""

    model: type[BitmapistableModel]
    #: Its collection and key: the same whichever class of a hierarchy it is read as.
    identity: tuple[object, ...]
    id: object
    #: Of the flags and dimensions to which a change may have given a new value.
    values: Mapping[str, object]

    def __post_init__(self) -> None:
        hash(self.identity)  # raises for a key that is a dict, which cannot be an id


def row_of(document: Any, collection: Any, kept: Iterable[str] | None = None) -> Row:
    """The row of `document`.

    :param collection: the one that it is stored in, which may not be its class's own.
    :param kept: the names of the flags and dimensions to read; None: all.
    """
    model = type(document)
    names = kept_attributes(model) if kept is None else kept
    # A dynamic document may lack it.
    values = {name: getattr(document, name, None) for name in names}
    return Row(model, (collection.full_name, _key_of(document)), id_of(document), values)


def row_of_key(model: Any, collection: Any, key: Any) -> Row:
    """The row of a model whose marks need only the key.

    :param key: as MongoDB has it.
    """
    id_ = id_in(_key_field(model), python_key(model, key))
    return Row(model, (collection.full_name, id_), id_, {})


def rows_of(documents: Iterable[Any], collection: Any, action: Action) -> list[Row]:
    """The rows of those `documents` that have the mixin and can be marked."""
    rows = []
    for document in documents:
        if isinstance(document, BitmapistableModel):
            with contained_faults("note a document of %s as %s", type(document).__name__, action):
                rows.append(row_of(document, collection))
    return rows


def needs_document(model: type[BitmapistableModel]) -> bool:
    """Whether marks of `model` need more than a document's key."""
    return bool(kept_attributes(model)) or model.__bitmapist_id__ is not None


def raw_key(document: Any) -> Any:
    """The key of `document` as MongoDB has it; None if it has none yet."""
    # Not by `pk`, which would fetch what a reference refers to.
    value = document._data.get(document._meta["id_field"])
    return None if value is None else _key_field(document).to_mongo(value)


def python_key(model: Any, key: Any) -> Any:
    """The key that MongoDB has, as a document of `model` would have it."""
    return _key_field(model).to_python(key)


def id_of(document: Any) -> object:
    """The id to mark for `document`."""
    chosen = type(document).__bitmapist_id__
    if chosen is None or chosen == "pk":
        return _key_of(document)
    field = getattr(type(document), chosen, None) if isinstance(chosen, str) else None
    if isinstance(field, BaseField):
        return id_in(field, document._data.get(field.name))
    return key_behind(document._bitmapist_chosen_id())


def changed_attributes(document: Any, changed: Iterable[str]) -> list[str]:
    """The kept ones that are among the fields `changed` (called as in the database)."""
    names = {name.partition(".")[0] for name in changed}
    fields = document._db_field_map
    return [name for name in kept_attributes(type(document)) if fields.get(name) in names]


def computed_attributes(document: Any) -> list[str]:
    """The kept ones that are not fields of the class: each may depend on any field."""
    fields = document._db_field_map
    return [name for name in kept_attributes(type(document)) if name not in fields]


def _key_field(model: Any) -> Any:
    return model._fields[model._meta["id_field"]]


def _key_of(document: Any) -> object:
    return id_in(_key_field(document), document._data.get(document._meta["id_field"]))


def id_in(field: Any, value: Any) -> object:
    """The id that `value` of `field` stands for. A textual one stays text."""
    if isinstance(value, str):
        value = field.to_python(value)  # '7', assigned to an IntField
    id_ = key_behind(value)
    return TextKey(id_) if isinstance(id_, str) else id_


def key_behind(value: Any) -> object:
    """The key of what `value` refers to, if it is a reference; else `value`."""
    if isinstance(value, Document):
        return _key_of(value)
    if isinstance(value, EmbeddedDocument):  # a composite key
        fields = [(value._fields[name], value._data.get(name)) for name in value._fields_ordered]
        return tuple(id_in(field, part) for field, part in fields)
    if isinstance(value, dict) and isinstance(value.get("_ref"), DBRef):  # GenericReferenceField
        value = value["_ref"]
    if not isinstance(value, DBRef):  # as a LazyReference is
        return cast(object, value)
    # MongoDB's values keep their type: a str is a textual key.
    return TextKey(value.id) if isinstance(value.id, str) else value.id
