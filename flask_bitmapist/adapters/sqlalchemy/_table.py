"""The rows of a model, for a backfill: read by key, without the session and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from flask import current_app
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Select,
    and_,
    func,
    inspect,
    or_,
    select,
)
from sqlalchemy import literal_column as sql_text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ColumnProperty, Mapper, Session

from ...many import is_array
from ..rows import Asked, Key, Page, check_attributes, id_of_object, of_objects
from . import _collected
from ._ids import as_text_keys, columns_of, named_attribute


class Rows:
    """The rows of `model`, in the order of its primary key.

    Each page is a transaction of its own, so that none is open for long.
    """

    def __init__(self, model: Any, asked: Asked, source: Any = None) -> None:
        """
        :param source: an engine, a session or what makes one; None: Flask-SQLAlchemy's.
        :raises ValueError: if `model` lacks an attribute, or nothing says where its rows are.
        """
        check_attributes(model, asked)
        self._model, self._asked = model, asked
        self._mapper: Mapper[Any] = inspect(model)
        self._engine = _engine_of(self._mapper, source)
        self._key = [self._attribute(column) for column in self._mapper.primary_key]
        self._id = columns_of(self._mapper, asked.id)
        #: Those of the moment, flags and dimensions; None: a property, which only an object has.
        self._columns = [self._column(name) for name in (asked.at, *asked.kept)]
        #: Whether columns may come as arrays: in the order of a single key.
        self._may_be_collected = len(self._key) == 1

    def count(self) -> int:
        statement = self._selected([func.count()]).select_from(self._model)
        with self._engine.connect() as connection:
            return int(connection.execute(statement).scalar_one())

    def page(self, after: Key | None, size: int) -> Page | None:
        if self._id is None or any(column is None for column in self._columns):
            return self._page_of_objects(after, size)
        ids = [self._attribute(column) for column in self._id]
        asked = {one.key: one for one in (*self._key, *ids, *self._columns)}
        found = self._fetched(self._after([*asked.values()], after).limit(size), asked)
        if not found:
            return None
        return Page(
            _ids(self._id, [found[one.key] for one in ids]),
            found[self._columns[0].key],
            {
                name: _listed(found[one.key])
                for name, one in zip(self._asked.kept, self._columns[1:], strict=True)
            },
            tuple(_last(found[one.key]) for one in self._key),
        )

    def _fetched(self, statement: Select[Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        """The columns `asked` for of what `statement` finds, by name; {} if it finds nothing.

        From the driver's own rows: those of SQLAlchemy take longer than all else together.
        """
        dialect, types = self._engine.dialect, [one.type for one in asked.values()]
        with self._engine.connect() as connection:
            if _collected.may_be_collected(dialect.name, types):
                arrays = self._collected(connection, statement)
                if arrays is not None:
                    return dict(zip(asked, arrays, strict=True))
            cursor = cast(Any, connection.execute(statement)).cursor
            columns: list[Sequence[Any]] = [*zip(*cursor.fetchall(), strict=True)]
            kinds = [description[1] for description in cursor.description]
        found = {}
        for (name, attribute), values, kind in zip(asked.items(), columns, kinds, strict=False):
            found[name] = values
            # SQLite's times are texts, which are parsed together.
            if dialect.name != "sqlite" or type(attribute.type) is not DateTime:
                type_ = attribute.type.dialect_impl(dialect)
                if process := type_.result_processor(dialect, kind):
                    found[name] = [*map(process, values)]
        return found

    def _collected(self, connection: Connection, statement: Select[Any]) -> list[Any] | None:
        if not self._may_be_collected:
            return None
        try:
            return _collected.fetched(connection, statement)
        except DBAPIError:  # a column has another type, or SQLite is older than its JSON
            connection.rollback()
            self._may_be_collected = False
            return None

    def _page_of_objects(self, after: Key | None, size: int) -> Page | None:
        chosen = self._asked.id
        with Session(self._engine) as session:
            found = session.scalars(self._after([self._model], after).limit(size)).unique().all()
            if not found:
                return None
            keys = [self._mapper.primary_key_from_instance(row) for row in found]
            if self._id is None:
                ids: Sequence[object] = [id_of_object(row, chosen) for row in found]
            else:
                names = [self._attribute(column).key for column in self._id]
                ids = _ids(self._id, [[getattr(row, name) for row in found] for name in names])
            return of_objects(found, self._asked, ids, tuple(keys[-1]))

    def _after(self, asked: Sequence[Any], after: Key | None) -> Select[Any]:
        statement = self._selected(asked).order_by(*self._key)
        return statement if after is None else statement.where(_beyond(self._key, after))

    def _selected(self, asked: Sequence[Any]) -> Select[Any]:
        statement = select(*asked)
        where = self._asked.where
        return statement if where is None else statement.where(sql_text(f"({where})", Boolean))

    def _attribute(self, column: Column[Any]) -> Any:
        return getattr(self._model, self._mapper.get_property_by_column(column).key)

    def _column(self, name: str) -> Any:
        attribute = named_attribute(self._mapper, name)
        return getattr(self._model, name) if isinstance(attribute, ColumnProperty) else None


def _listed(values: Sequence[Any]) -> Sequence[Any]:
    return np.asarray(values).tolist() if is_array(values) else values


def _last(values: Sequence[Any]) -> Any:
    return int(values[-1]) if is_array(values) else values[-1]


def _ids(of: Sequence[Column[Any]], columns: Sequence[Sequence[object]]) -> Sequence[object]:
    typed = [as_text_keys(column, values) for column, values in zip(of, columns, strict=True)]
    if len(typed) == 1:
        return typed[0]
    return [None if None in parts else parts for parts in zip(*typed, strict=True)]


def _beyond(key: Sequence[Any], after: Key) -> Any:
    """Whether a row's key comes after `after`, as indexes are searched for it everywhere."""
    first, value = key[0], after[0]
    if len(key) == 1:
        return first > value
    return and_(first >= value, or_(first > value, _beyond(key[1:], after[1:])))


def _engine_of(mapper: Mapper[Any], source: Any) -> Engine:
    if source is None:
        source = getattr(current_app.extensions.get("sqlalchemy"), "session", None)
    if source is None:
        raise ValueError(
            f"nothing says in which database the rows of {mapper.class_.__name__} are, as the app "
            "has no Flask-SQLAlchemy: name an engine or a session, as in --session shop.db:Session"
        )
    if isinstance(source, Engine):
        return source
    session = source if hasattr(source, "get_bind") else source()
    return cast(Engine, session.get_bind(mapper=mapper).engine)
