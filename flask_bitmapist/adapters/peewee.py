"""peewee: INSERT, UPDATE and DELETE of models -> marks, published after the COMMIT.

Models note their rows in the changes of the innermost transaction or savepoint, which
`peewee_transactions` follows.

Not seen: raw SQL, the database's own cascades and triggers, upserts. Use `record` there; statements
such as ``User.update(...)`` are an opt-in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, cast

try:
    from peewee import ForeignKeyField, IntegerField, Model, ModelSelect, Node, Proxy
except ImportError as error:
    raise ImportError(
        'peewee is missing: pip install "flask-bitmapist[peewee]"', name=error.name
    ) from error

from ..faults import contained_faults
from ..ids import TextKey
from ..marks import Mark
from .base import Action, BitmapistableModel, Changes, checked_marks
from .peewee_transactions import changes_of, follow

Key = tuple[Any, ...]

# The model whose save() or delete_instance() notes the row, so that its statement does not.
_noting: ContextVar[type | None] = ContextVar("bitmapist_peewee_noting", default=None)
# Whether statements are tracked without __bitmapist_bulk__: those that name their rows by key.
_by_key: ContextVar[bool] = ContextVar("bitmapist_peewee_by_key", default=False)


class _StatementMaker:
    """A class method of peewee's that makes a statement, which is tracked if the model asks for it.

    peewee itself says on what it may be called: newer versions refuse ``row.delete()``, which
    would empty the table.
    """

    def __init__(self, action: Action) -> None:
        self._action = action

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, row: Any, model: type[PeeweeBitmapistable]) -> Callable[..., Any]:
        make = getattr(super(self._owner, model if row is None else row), self._name)

        @functools.wraps(make)
        def make_tracked(*args: Any, **kwargs: Any) -> Any:
            return _tracked(model, self._action, make(*args, **kwargs))

        return make_tracked


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
        for name in _named_attributes(cls):
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
            return id_from_key(_key_of(self))
        field = _field(self, chosen)
        if field is None:
            return self._bitmapist_chosen_id()
        return as_stored(field, self.__data__.get(field.name))

    # Rows

    def save(self, force_insert: bool = False, only: Iterable[Any] | None = None) -> Any:
        meta = self._meta
        only = None if only is None else list(only)
        created = force_insert or meta.primary_key is False or cast(Any, self)._pk is None
        dirty = _dirty(self)
        carried = _carried(self, only, dirty)
        with _noted_by(type(self)):
            rows = cast(Any, super()).save(force_insert=force_insert, only=only)
        keys = {field.name for field in meta.get_primary_keys()}
        if rows and (created or dirty & carried - keys):
            with contained_faults("note a saved row of %s", type(self).__name__):
                self._note_saved(created, carried)
        return rows

    def _note_saved(self, created: bool, carried: set[str]) -> None:
        row = self if _holds_what_is_marked(self, created) else _stored(self)
        if row is not None:
            flags = [
                flag
                for flag in type(self).__bitmapist_flags__
                # The value of an attribute that was not written may be out of date.
                if created or (field := _field(self, flag)) is None or field.name in carried
            ]
            with changes_of(self._meta.database) as changes:
                note(changes, "created" if created else "updated", marked_row(row, flags))

    def delete_instance(self, recursive: bool = False, delete_nullable: bool = False) -> Any:
        delete = functools.partial(
            cast(Any, super()).delete_instance,
            recursive=recursive,
            delete_nullable=delete_nullable,
        )
        if recursive:
            with _tracked_by_key():
                return delete()
        doomed = None
        with contained_faults("read a row of %s to be deleted", type(self).__name__):
            # Before: once the row is gone, what __bitmapist_id__ asks may be gone too.
            row = self if _holds_what_is_marked(self) else _stored(self)
            doomed = None if row is None else marked_row(row)
        with _noted_by(type(self)):
            rows = delete()
        if rows and doomed is not None:
            with (
                contained_faults("note a deleted row of %s", type(self).__name__),
                changes_of(self._meta.database) as changes,
            ):
                note(changes, "deleted", doomed)
        return rows

    # Statements that name one row by its key

    @classmethod
    def set_by_id(cls, key: Any, value: Any) -> Any:
        with _tracked_by_key():
            return cast(Any, super()).set_by_id(key, value)

    @classmethod
    def delete_by_id(cls, pk: Any) -> Any:
        with _tracked_by_key():
            return cast(Any, super()).delete_by_id(pk)

    # Statements

    insert = _StatementMaker("created")
    insert_many = _StatementMaker("created")
    insert_from = _StatementMaker("created")
    update = _StatementMaker("updated")
    delete = _StatementMaker("deleted")


def record(database: Any, *marks: Mark | tuple[Any, ...]) -> None:
    """Publish `marks` when the innermost open transaction of `database`, and all around it, commit.

    For what the models do not see, such as raw SQL. Outside any transaction they are published at
    once.

    :param database: a peewee ``Database``, a ``DatabaseProxy`` or a ``FlaskDB``.
    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is no mark or no id.
    :raises ValueError: for an event name or id that is not allowed. None is recorded then.
    """
    checked = checked_marks(marks)
    with changes_of(database) as changes:
        changes.enlist(checked)


class MarkedRow(NamedTuple):
    """What is marked of a row: read while it can be."""

    model: type[PeeweeBitmapistable]
    key: Key
    id: object
    flags: dict[str, bool]


def note(
    changes: Changes, action: Action, row: MarkedRow, before: tuple[object, object] | None = None
) -> None:
    """`action` happened to `row`.

    :param before: its identity and id before an update that changed its key.
    """
    identity = row_of(row.model, row.key)
    changes.note(identity, row.model, action, row.id, row.flags, before=before)


def row_of(model: type[PeeweeBitmapistable], key: Key) -> object:
    """The identity of a row."""
    if not key or any(map(is_expression, key)):
        return object()  # a row that nothing can come back to
    return (model._meta.schema, model._meta.table_name, *key)


def marked_row(instance: PeeweeBitmapistable, flags: Iterable[str] = ()) -> MarkedRow:
    """What is marked of the row of `instance`, and the values of its `flags`."""
    values = {flag: bool(getattr(instance, flag)) for flag in flags}
    return MarkedRow(type(instance), _key_of(instance), instance.__bitmapist_identity__(), values)


def _key_of(instance: PeeweeBitmapistable) -> Key:
    fields = instance._meta.get_primary_keys()
    return tuple(as_stored(field, instance.__data__.get(field.name)) for field in fields)


def id_from_key(key: Key) -> object:
    """The id of a row with the primary key `key`: the key itself, or a tuple if composite."""
    if not key or any(part is None for part in key):
        return None
    return key[0] if len(key) == 1 else key


def as_stored(field: Any, value: Any) -> Any:
    """`value` as the database gives it back: 7 for an integer field that was assigned '7'."""
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


def _named_attributes(model: type[PeeweeBitmapistable]) -> list[str]:
    """The attributes that the options of `model` name."""
    chosen = model.__bitmapist_id__
    return [*model.__bitmapist_flags__, *([chosen] if isinstance(chosen, str) else [])]


def _field(model: Any, name: object) -> Any:
    """The field that `name` names, by itself or as a foreign key's ``_id``; None if none does."""
    meta = model._meta
    if not isinstance(name, str):
        return None
    by_id = (field for field in meta.refs if field.object_id_name == name)
    return meta.combined.get(name) or next(by_id, None)


def _dirty(instance: Any) -> set[str]:
    return {field.name for field in instance.dirty_fields}


def _carried(instance: Any, only: list[Any] | None, dirty: set[str]) -> set[str]:
    """The fields that ``save()`` writes."""
    meta = instance._meta
    if only is not None:
        return {(meta.combined[name] if isinstance(name, str) else name).name for name in only}
    return dirty if meta.only_save_dirty else set(instance.__data__)


def _holds_what_is_marked(instance: Any, created: bool = False) -> bool:
    """Whether `instance` has in memory, as they are stored, the attributes that are marked.

    It has not if it was loaded with some columns only, has unsaved changes or an SQL expression,
    or was created without a column that the database fills in.
    """
    model = type(instance)
    fields = [_field(model, name) for name in _named_attributes(model)]
    if callable(model.__bitmapist_id__) or any(field is None for field in fields):
        fields = model._meta.sorted_fields  # a method or property may ask for any
    dirty = _dirty(instance) if fields else ()
    return all(
        not is_expression(instance.__data__[field.name]) and field.name not in dirty
        if field.name in instance.__data__
        else created and not field.constraints
        for field in fields
    )


def _stored(instance: Any) -> PeeweeBitmapistable | None:
    """The row of `instance`, read anew; None if there is none."""
    model = type(instance)
    # Not model.select(), which an application may have made to hide rows.
    query = ModelSelect(model, model._meta.sorted_fields).where(instance._pk_expr())
    return next(iter(query.execute()), None)


@contextmanager
def _noted_by(model: type) -> Iterator[None]:
    token = _noting.set(model)
    try:
        yield
    finally:
        _noting.reset(token)


@contextmanager
def _tracked_by_key() -> Iterator[None]:
    token = _by_key.set(True)
    try:
        yield
    finally:
        _by_key.reset(token)


def _tracked(model: type[PeeweeBitmapistable], action: Action, query: Any) -> Any:
    """`query`, made to note the rows that it changes, if `model` asks for it."""
    if _noting.get() is model:
        # save()'s own. The next one comes from code that save() calls: a default, a signal.
        _noting.set(None)
    elif model.__bitmapist_bulk__ or _by_key.get():
        from .peewee_bulk import track  # which imports this module

        track(query, action)
    return query
