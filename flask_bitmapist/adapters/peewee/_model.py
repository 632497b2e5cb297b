"""The mixin for peewee's models: which of their methods make statements that are tracked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, cast

from peewee import Model, Proxy

from ..base import Action, BitmapistableModel
from ._rows import as_stored, field_named, id_from_key, key_of, named_attributes, unsaved
from ._saves import Doomed, Saved, note_doomed_row, note_saved_row
from ._statements import note_rows_of
from ._transactions import follow

# The row that save() writes with its next statement.
_saved: ContextVar[Saved | None] = ContextVar("bitmapist_peewee_saved", default=None)
# The row whose delete_instance() runs.
_doomed: ContextVar[Doomed | None] = ContextVar("bitmapist_peewee_doomed", default=None)
# Whether statements are tracked without __bitmapist_bulk__: those that name their rows by key.
_by_key: ContextVar[bool] = ContextVar("bitmapist_peewee_by_key", default=False)


@contextmanager
def _set(variable: ContextVar[Any], value: object) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class _ClassMethod:
    """A class method of peewee's, with something around it.

    peewee still decides what it may be called on: newer versions refuse ``row.delete()``, which
    would empty the table.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, row: Any, model: type[PeeweeBitmapistable]) -> Callable[..., Any]:
        method = getattr(super(self._owner, model if row is None else row), self._name)
        return self._around(method, model)

    def _around(
        self, method: Callable[..., Any], model: type[PeeweeBitmapistable]
    ) -> Callable[..., Any]:
        raise NotImplementedError


class _ByKey(_ClassMethod):
    """One that names a single row by its key: its statement is tracked."""

    def _around(
        self, method: Callable[..., Any], model: type[PeeweeBitmapistable]
    ) -> Callable[..., Any]:
        @functools.wraps(method)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            with _set(_by_key, True):
                return method(*args, **kwargs)

        return tracked


class _Statement(_ClassMethod):
    """One that makes a statement, which is tracked if the model opts in."""

    def __init__(self, action: Action) -> None:
        self._action = action

    def _around(
        self, method: Callable[..., Any], model: type[PeeweeBitmapistable]
    ) -> Callable[..., Any]:
        @functools.wraps(method)
        def made(*args: Any, **kwargs: Any) -> Any:
            query = method(*args, **kwargs)
            _track(model, self._action, query)
            return query

        return made


def _track(model: type[PeeweeBitmapistable], action: Action, query: Any) -> None:
    saved, doomed = _saved.get(), _doomed.get()
    asked_for = model.__bitmapist_bulk__ or _by_key.get()
    if saved is not None and type(saved.instance) is model:
        _saved.set(None)  # the next one comes from code that save() calls: a default, a signal
        note_saved_row(query, action, saved)
    elif action == "deleted" and doomed is not None and type(doomed.instance) is model:
        note_doomed_row(query, doomed, others=asked_for)
    elif asked_for:
        note_rows_of(query, action)


class PeeweeBitmapistable(BitmapistableModel):
    """Mixin: ``class User(Bitmapistable, Model)`` marks ``user:created``, ``user:updated`` and
    ``user:deleted`` when the transaction that inserted, updated or deleted a row has committed.

    It comes before `Model`. The class options are those of `BitmapistableModel`. With
    ``__bitmapist_bulk__ = True``, ``User.insert(...)``, ``insert_many``, ``bulk_create``,
    ``update``, ``bulk_update`` and ``delete`` mark too.
    """

    _meta: ClassVar[Any]
    __data__: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if Model in order and order.index(Model) < order.index(PeeweeBitmapistable):
            raise TypeError(
                f"{cls.__name__}: put the mixin PeeweeBitmapistable before Model, as in class "
                f"{cls.__name__}(PeeweeBitmapistable, Model), or its methods are not used"
            )

    @classmethod
    def validate_model(cls) -> None:
        """peewee's hook at the end of a model's declaration."""
        cast(Any, super()).validate_model()
        for name in named_attributes(cls):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} has no attribute {name!r}, which its options name")
        # Now rather than at the first mark: by then a transaction may be open.
        database = cls._meta.database
        follow(database)
        if isinstance(database, Proxy):
            cast(Any, database).attach_callback(follow)

    @classmethod
    def bind(cls, database: Any, *args: Any, **kwargs: Any) -> Any:
        follow(database)
        return cast(Any, super()).bind(database, *args, **kwargs)

    def __bitmapist_identity__(self) -> object:
        chosen = type(self).__bitmapist_id__
        if chosen is None:
            return id_from_key(key_of(self))
        field = field_named(self, chosen)
        if field is None:
            return self._bitmapist_chosen_id()
        return as_stored(field, self.__data__.get(field.name))

    # Rows

    def save(self, *args: Any, **kwargs: Any) -> Any:
        with _set(_saved, None):
            return cast(Any, super()).save(*args, **kwargs)

    def _populate_unsaved_relations(self, field_dict: dict[str, Any]) -> None:
        """What peewee's `save()` does last before it makes its statement."""
        cast(Any, super())._populate_unsaved_relations(field_dict)
        _saved.set(Saved(self, field_dict, unsaved(self)))

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> Any:
        with _set(_doomed, Doomed(self)), _set(_by_key, recursive or _by_key.get()):
            return cast(Any, super()).delete_instance(
                recursive=recursive, delete_nullable=delete_nullable
            )

    def _pk_expr(self) -> Any:
        """The condition that names this row in the DELETE of peewee's `delete_instance()`."""
        condition = cast(Any, super())._pk_expr()
        doomed = _doomed.get()
        if doomed is not None:  # the last one made is this row's own
            doomed.condition = condition
        return condition

    # Statements

    set_by_id = _ByKey()
    delete_by_id = _ByKey()
    insert = _Statement("created")
    insert_many = _Statement("created")
    insert_from = _Statement("created")
    update = _Statement("updated")
    delete = _Statement("deleted")
