"""The rows of a model, for a backfill: read by key, without the model's own queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import SQL, fn

from ..rows import Asked, Key, Page, check_attributes, id_of_object, of_objects
from ._rows import as_stored, field_named, id_from_key, key_of, read, select


class Rows:
    """The rows of `model`, in the order of its primary key."""

    def __init__(self, model: Any, asked: Asked, source: Any = None) -> None:
        """
        :param source: not used: a model knows its database.
        :raises ValueError: if `model` lacks an attribute or a primary key.
        """
        check_attributes(model, asked)
        self._model, self._asked = model, asked
        self._key = [*model._meta.get_primary_keys()]
        if not self._key:
            raise ValueError(f"{model.__name__} has no primary key, by which its rows are read")
        #: The fields of the id, the moment, flags and dimensions; None: only an object has it.
        self._id = self._key if asked.id is None else [field_named(model, asked.id)]
        self._columns = [field_named(model, name) for name in (asked.at, *asked.kept)]

    @property
    def _database(self) -> Any:
        return self._model._meta.database

    def count(self) -> int:
        query = self._selected([fn.COUNT(SQL("*"))]).tuples()
        return int(read(self._database, query)[0][0])

    def page(self, after: Key | None, size: int) -> Page | None:
        if any(field is None for field in (*self._id, *self._columns)):
            return self._page_of_objects(after, size)
        asked = {field.name: field for field in (*self._key, *self._id, *self._columns)}
        rows = read(self._database, self._after([*asked.values()], after).limit(size).tuples())
        if not rows:
            return None
        found = dict(zip(asked, zip(*rows, strict=True), strict=True))
        return Page(
            _ids([(field, found[field.name]) for field in self._id]),
            found[self._columns[0].name],
            {
                flag: found[field.name]
                for flag, field in zip(self._asked.kept, self._columns[1:], strict=True)
            },
            tuple(found[field.name][-1] for field in self._key),
        )

    def _page_of_objects(self, after: Key | None, size: int) -> Page | None:
        query = self._after(self._model._meta.sorted_fields, after).limit(size)
        found = read(self._database, query)
        if not found:
            return None
        chosen = self._asked.id
        ids = [id_from_key(key_of(row)) for row in found]
        if chosen is not None:
            ids = [id_of_object(row, chosen) for row in found]
        last = tuple(found[-1].__data__[field.name] for field in self._key)
        return of_objects(found, self._asked, ids, last)

    def _after(self, fields: Sequence[Any], after: Key | None) -> Any:
        query = self._selected(fields).order_by(*self._key)
        return query if after is None else query.where(_beyond(self._key, after))

    def _selected(self, fields: Sequence[Any]) -> Any:
        query = select(self._model, fields)
        where = self._asked.where
        if where is None:
            return query
        if self._database.param == "%s":  # the drivers look for parameters in all of the text
            where = where.replace("%", "%%")
        return query.where(SQL(f"({where})"))


def _ids(columns: Sequence[tuple[Any, Sequence[object]]]) -> Sequence[object]:
    typed = [_typed(field, values) for field, values in columns]
    if len(typed) == 1:
        return typed[0]
    return [id_from_key(parts) for parts in zip(*typed, strict=True)]


def _typed(field: Any, values: Sequence[object]) -> Sequence[object]:
    """The `values` of `field`, made to stay text if it is textual."""
    if {*map(type, values)} <= {int, type(None)}:
        return values
    return [as_stored(field, value) for value in values]


def _beyond(key: Sequence[Any], after: Key) -> Any:
    """Whether a row's key comes after `after`, as indexes are searched for it everywhere."""
    first, value = key[0], after[0]
    if len(key) == 1:
        return first > value
    return (first >= value) & ((first > value) | _beyond(key[1:], after[1:]))
