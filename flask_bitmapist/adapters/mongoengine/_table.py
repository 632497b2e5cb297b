"""The documents of a model, for a backfill: read by key, without its querysets and signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bson import json_util
from mongoengine.base import BaseField

from ..rows import Asked, Key, Page, check_attributes, id_of_object, of_objects
from ._rows import id_in, key_behind


class Rows:
    """The documents of `model`, in the order of their keys."""

    def __init__(self, model: Any, asked: Asked, source: Any = None) -> None:
        """
        :param source: not used: a model knows its collection.
        :raises ValueError: if `model` lacks an attribute, or the query is no JSON object.
        """
        check_attributes(model, asked)
        self._model, self._asked = model, asked
        key = model._meta["id_field"]
        self._id = self._field(key if asked.id in (None, "pk") else asked.id)
        #: The fields of the moment, the flags and the dimensions; None: only a document has it.
        self._fields = [self._field(name) for name in (asked.at, *asked.kept)]
        self._query = {**_of_class(model), **_query(asked.where)}

    @property
    def _collection(self) -> Any:
        return self._model._get_collection()

    def count(self) -> int:
        return int(self._collection.count_documents(self._query))

    def page(self, after: Key | None, size: int) -> Page | None:
        query = self._query
        if after is not None:
            query = {"$and": [query, {"_id": {"$gt": after[0]}}]}
        fields = [self._id, *self._fields]
        by_column = all(field is not None for field in fields)
        names = [field.db_field for field in fields] if by_column else None
        found = [*self._collection.find(query, names).sort("_id", 1).limit(size)]
        if not found:
            return None
        last = (found[-1]["_id"],)
        return self._of_columns(found, last) if by_column else self._of_documents(found, last)

    def _of_columns(self, found: Sequence[Mapping[str, Any]], last: Key) -> Page:
        moments, *values = [
            [_python(field, one.get(field.db_field)) for one in found] for field in self._fields
        ]
        return Page(
            [self._id_of(one.get(self._id.db_field)) for one in found],
            moments,
            dict(zip(self._asked.kept, values, strict=True)),
            last,
        )

    def _of_documents(self, found: Sequence[Any], last: Key) -> Page:
        documents = [self._model._from_son(one) for one in found]
        if self._id is None:
            ids = [key_behind(id_of_object(one, self._asked.id)) for one in documents]
        else:
            ids = [self._id_of(one.get(self._id.db_field)) for one in found]
        return of_objects(documents, self._asked, ids, last)

    def _id_of(self, value: Any) -> object:
        return None if value is None else id_in(self._id, self._id.to_python(value))

    def _field(self, name: object) -> Any:
        field = getattr(self._model, name, None) if isinstance(name, str) else None
        return field if isinstance(field, BaseField) else None


def _python(field: Any, value: Any) -> Any:
    return None if value is None else field.to_python(value)


def _of_class(model: Any) -> dict[str, Any]:
    """Which documents of the collection are of `model`, if it holds several classes."""
    if not model._meta.get("allow_inheritance"):
        return {}
    return {"_cls": {"$in": [*model._subclasses]}}


def _query(where: str | None) -> dict[str, Any]:
    if where is None:
        return {}
    try:
        query = json_util.loads(where)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the query {where!r} is not MongoDB's extended JSON: {error}") from error
    if not isinstance(query, dict):
        raise ValueError(f"the query {where!r} is not a JSON object")
    return query
