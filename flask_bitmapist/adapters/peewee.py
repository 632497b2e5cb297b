"""peewee: INSERT, UPDATE and DELETE of models -> marks, published after the COMMIT.

Models note their rows in the changes of the innermost transaction or savepoint. A database that a
tracked model is bound to is followed by overriding its public ``connect``, ``begin``, ``commit``,
``rollback`` and ``execute_sql`` (savepoints), on every version of peewee from 3.17 on.

Not by ``Database.after_commit()`` and ``query_hooks``, which peewee has since 4.5: they see nothing
of ``manual_commit()``, of a bare ``rollback()`` and of a failed statement, after which PostgreSQL
rolls back, without any error, when peewee sends COMMIT; and then ``after_commit()`` runs.

Not seen: raw SQL, the database's own cascades and triggers, upserts. Use `record` there; statements
such as ``User.update(...)`` are an opt-in.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from operator import and_, or_
from typing import Any, ClassVar, NamedTuple, cast

try:
    from peewee import (
        Database,
        ForeignKeyField,
        IntegerField,
        Model,
        ModelSelect,
        MySQLDatabase,
        Node,
        Proxy,
        SqliteDatabase,
        Value,
    )
except ImportError as error:
    raise ImportError(
        'peewee is missing: pip install "flask-bitmapist[peewee]"', name=error.name
    ) from error

from ..ids import TextKey
from ..marking import Mark, contained_faults, publish
from .base import Action, BitmapistableModel, Changes, checked_marks

logger = logging.getLogger("flask_bitmapist")

_Key = tuple[Any, ...]

# Keys of one SELECT. Composite ones are joined by OR, and SQLite nests expressions 1000 deep.
_KEYS_PER_SELECT = 500
_COMPOSITE_KEYS_PER_SELECT = 50
# libpq's PQTRANS_INTRANS and PQTRANS_INERROR.
_IN_TRANSACTION = 2
_IN_FAILED_TRANSACTION = 3


# --- Transactions ---------------------------------------------------------------------------------


class _Transaction:
    """The changes of one connection's open transaction, and of each savepoint inside it."""

    def __init__(self, *, is_open: bool) -> None:
        self._levels: list[tuple[str, Changes]] = []
        self._ends_with: str | None = None
        if is_open:
            self.begin()

    @property
    def innermost(self) -> Changes | None:
        """The changes of the innermost savepoint; None outside a transaction."""
        return self._levels[-1][1] if self._levels else None

    def begin(self) -> None:
        self._levels = [("", Changes())]
        self._ends_with = None

    def begin_with_savepoint(self, name: str) -> None:
        """SQLite's SAVEPOINT outside a transaction begins one, which its RELEASE commits."""
        self.begin()
        self._ends_with = name
        self.savepoint(name)

    def commit(self) -> None:
        if self._levels:
            self._merge_from(0)
            changes = self._levels[0][1]
            self.rollback()
            publish(changes.marks())

    def rollback(self) -> None:
        self._levels = []

    def savepoint(self, name: str) -> None:
        if self._levels:
            self._levels.append((name, Changes()))

    def release(self, name: str) -> None:
        level = self._level(name)
        # One that we do not know began before we watched, so around all that we do know.
        self._merge_from(max(level - 1, 0))
        if level == 1 and self._ends_with == name:
            self.commit()

    def rollback_to(self, name: str) -> None:
        level = self._level(name)
        # The savepoint itself stays.
        self._levels[level:] = [(name, Changes())] if self._levels else []

    def _level(self, name: str) -> int:
        """Where the last savepoint called `name` is; 0 for one that we do not know."""
        names = [known for known, _ in self._levels]
        return max((level for level, known in enumerate(names) if known == name), default=0)

    def _merge_from(self, level: int) -> None:
        for _, released in self._levels[level + 1 :]:
            self._levels[level][1].absorb(released)
        del self._levels[level + 1 :]


class _OfThread(threading.local):
    transaction: _Transaction | None = None


class _OfAllThreads:
    transaction: _Transaction | None = None


class _Transactions:
    """The open transactions of one database: one for each thread's connection."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._local = _OfThread() if database.thread_safe else _OfAllThreads()

    @property
    def current(self) -> _Transaction:
        """That of the current thread."""
        if self._local.transaction is None:
            self._local.transaction = _Transaction(is_open=self._database.in_transaction())
        return self._local.transaction

    def forget(self) -> None:
        """The connection is a new one."""
        self._local.transaction = None

    @contextmanager
    def controlled(self, verb: str, savepoint: str = "") -> Iterator[None]:
        """Around a statement that controls the transaction; nothing follows from one that fails."""
        status = _status(self._database)
        try:
            yield
        finally:
            if verb == "rollback":  # however it ends, nothing before it is certain
                self.current.rollback()
        if verb == "begin":
            self._begun(status)
        elif verb == "commit" and status == _IN_FAILED_TRANSACTION:
            # PostgreSQL has rolled back, silently.
            self.current.rollback()
        elif verb == "commit":
            self.current.commit()
        elif verb == "savepoint":
            self._savepoint_made(savepoint)
        elif verb == "release":
            self.current.release(savepoint)
        elif verb == "rollback_to":
            self.current.rollback_to(savepoint)

    def _begun(self, status: int | None) -> None:
        # Inside a transaction, MySQL has committed that, and PostgreSQL done nothing.
        if isinstance(self._database, MySQLDatabase):
            self.current.commit()
        if status != _IN_TRANSACTION or self.current.innermost is None:
            self.current.begin()

    def _savepoint_made(self, savepoint: str) -> None:
        if self.current.innermost is None and isinstance(self._database, SqliteDatabase):
            self.current.begin_with_savepoint(savepoint)
        else:
            self.current.savepoint(savepoint)


@functools.cache
def _following(kind: Any) -> Any:
    """The class of databases `kind`, made to tell of its transactions.

    A subclass with one base: the class of a living object can only become one of the same layout.
    """

    class Following(kind):  # type: ignore[misc]
        _bitmapist: _Transactions

        def connect(self, *args: Any, **kwargs: Any) -> Any:
            opened = super().connect(*args, **kwargs)
            if opened:
                self._bitmapist.forget()
            return opened

        def begin(self, *args: Any, **kwargs: Any) -> Any:
            with self._bitmapist.controlled("begin"):
                return super().begin(*args, **kwargs)

        def commit(self) -> Any:
            with self._bitmapist.controlled("commit"):
                return super().commit()

        def rollback(self) -> Any:
            with self._bitmapist.controlled("rollback"):
                return super().rollback()

        def execute_sql(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
            verb, savepoint = _transaction_control(sql)
            if verb is None:
                return super().execute_sql(sql, *args, **kwargs)
            with self._bitmapist.controlled(verb, savepoint):
                return super().execute_sql(sql, *args, **kwargs)

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Following, name, getattr(kind, name))
    return Following


# Each group is named after its verb; those of savepoints hold the savepoint's name.
_CONTROL = re.compile(
    r"""\s*
    (?: (?P<begin>BEGIN|START\s+TRANSACTION)\b.*
      | (?P<commit>COMMIT|END) (?:\s+(?:WORK|TRANSACTION))?
      | (?P<rollback>ROLLBACK|ABORT) (?:\s+(?:WORK|TRANSACTION))?
      | SAVEPOINT\s+ (?P<savepoint>\S+?)
      | RELEASE (?:\s+SAVEPOINT)? \s+ (?P<release>\S+?)
      | ROLLBACK (?:\s+(?:WORK|TRANSACTION))? \s+TO (?:\s+SAVEPOINT)? \s+ (?P<rollback_to>\S+?)
    )\s*;?\s*""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def _transaction_control(sql: object) -> tuple[str | None, str]:
    """The verb of a statement that controls a transaction, and the savepoint that it names."""
    match = _CONTROL.fullmatch(sql) if isinstance(sql, str) else None
    if match is None or match.lastgroup is None:
        return None, ""
    return match.lastgroup, match[match.lastgroup].strip('"`').casefold()


def _status(database: Any) -> int | None:
    """What psycopg knows of the transaction's state; None on other databases."""
    if database.is_closed():
        return None
    return getattr(getattr(database.connection(), "info", None), "transaction_status", None)


def _resolved(database: Any) -> Any:
    """The database behind a `DatabaseProxy` or a `FlaskDB`."""
    while not isinstance(database, Database):
        database = database.obj if isinstance(database, Proxy) else database.database
    return database


def _follow(database: Any) -> None:
    """Have `database` follow its transactions, if it is one yet."""
    if isinstance(database, Proxy):
        database = database.obj
    if not isinstance(database, Database) or "_bitmapist" in database.__dict__:
        return
    kind: Any = type(database)
    if any(cls.__module__ == "playhouse.pwasyncio" for cls in kind.__mro__):
        raise TypeError(f"Flask-Bitmapist does not follow the transactions of an async {kind!r}")
    database.__dict__.setdefault("_bitmapist", _Transactions(database))
    database.__class__ = _following(kind)


@contextmanager
def _changes(database: Any) -> Iterator[Changes]:
    """The changes of the innermost open savepoint or transaction.

    Outside of any, where each statement commits by itself, they are published at the end.
    """
    database = _resolved(database)
    _follow(database)
    innermost = None if database.is_closed() else database._bitmapist.current.innermost
    if innermost is not None:
        yield innermost
    else:
        changes = Changes()
        yield changes
        publish(changes.marks())


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
    with _changes(database) as changes:
        changes.enlist(checked)


# --- Models ---------------------------------------------------------------------------------------

# The model whose save() or delete_instance() notes the row, so that its statement does not.
_noting: ContextVar[type | None] = ContextVar("bitmapist_peewee_noting", default=None)
# Whether statements are tracked without __bitmapist_bulk__: those that name their rows by key.
_by_key: ContextVar[bool] = ContextVar("bitmapist_peewee_by_key", default=False)


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
        _follow(database)
        if isinstance(database, Proxy):
            cast(Any, database).attach_callback(_follow)

    @classmethod
    def bind(cls, database: Any, *args: Any, **kwargs: Any) -> Any:
        _follow(database)
        return cast(Any, super()).bind(database, *args, **kwargs)

    def __bitmapist_identity__(self) -> object:
        chosen = type(self).__bitmapist_id__
        if chosen is None:
            return _id_from_key(_key_of(self))
        field = _field(self, chosen)
        if field is None:
            return self._bitmapist_chosen_id()
        return _as_stored(field, self.__data__.get(field.name))

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
            with _changes(self._meta.database) as changes:
                _note(changes, "created" if created else "updated", _row(row, flags))

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
            doomed = None if row is None else _row(row)
        with _noted_by(type(self)):
            rows = delete()
        if rows and doomed is not None:
            with (
                contained_faults("note a deleted row of %s", type(self).__name__),
                _changes(self._meta.database) as changes,
            ):
                _note(changes, "deleted", doomed)
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

    @classmethod
    def insert(cls, *args: Any, **kwargs: Any) -> Any:
        return _tracked(cls, _Insertion, cast(Any, super()).insert(*args, **kwargs))

    @classmethod
    def insert_many(cls, *args: Any, **kwargs: Any) -> Any:
        return _tracked(cls, _Insertion, cast(Any, super()).insert_many(*args, **kwargs))

    @classmethod
    def insert_from(cls, *args: Any, **kwargs: Any) -> Any:
        return _tracked(cls, _Insertion, cast(Any, super()).insert_from(*args, **kwargs))

    @classmethod
    def update(cls, *args: Any, **kwargs: Any) -> Any:
        return _tracked(cls, _Update, cast(Any, super()).update(*args, **kwargs))

    @classmethod
    def delete(cls) -> Any:
        return _tracked(cls, _Deletion, cast(Any, super()).delete())


class _Row(NamedTuple):
    """What is marked of a row: read while it can be."""

    model: type[PeeweeBitmapistable]
    key: _Key
    id: object
    flags: dict[str, bool]


def _note(
    changes: Changes, action: Action, row: _Row, before: tuple[object, object] | None = None
) -> None:
    identity = _identity(row.model, row.key)
    changes.note(identity, row.model, action, row.id, row.flags, before=before)


def _identity(model: type[PeeweeBitmapistable], key: _Key) -> object:
    if not key or any(map(_is_expression, key)):
        return object()  # a row that nothing can come back to
    return (model._meta.schema, model._meta.table_name, *key)


def _row(instance: PeeweeBitmapistable, flags: Iterable[str] = ()) -> _Row:
    values = {flag: bool(getattr(instance, flag)) for flag in flags}
    return _Row(type(instance), _key_of(instance), instance.__bitmapist_identity__(), values)


def _key_of(instance: PeeweeBitmapistable) -> _Key:
    fields = instance._meta.get_primary_keys()
    return tuple(_as_stored(field, instance.__data__.get(field.name)) for field in fields)


def _id_from_key(key: _Key) -> object:
    if not key or any(part is None for part in key):
        return None
    return key[0] if len(key) == 1 else key


def _as_stored(field: Any, value: Any) -> Any:
    """`value` as the database gives it back: 7 for an integer field that was assigned '7'."""
    if value is None or _is_expression(value):
        return value
    value = field.python_value(field.db_value(value))
    return TextKey(value) if isinstance(value, str) and not _holds_numbers(field) else value


def _holds_numbers(field: Any) -> bool:
    while isinstance(field, ForeignKeyField):
        field = field.rel_field
    return isinstance(field, IntegerField)


def _is_expression(value: object) -> bool:
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
        not _is_expression(instance.__data__[field.name]) and field.name not in dirty
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


# --- Statements -----------------------------------------------------------------------------------


@functools.cache
def _mixed(mixin: Any, cls: Any) -> Any:
    """`cls` as if it had been declared with `mixin` in front."""
    return type(cls.__name__, (mixin, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def _tracked(model: type[PeeweeBitmapistable], kind: type, query: Any) -> Any:
    """`query`, made to note the rows that it changes, if `model` asks for it."""
    if _noting.get() is model:
        # save()'s own. The next one comes from code that save() calls: a default, a signal.
        _noting.set(None)
    elif model.__bitmapist_bulk__ or _by_key.get():
        query.__class__ = _mixed(kind, cast(Any, type(query)))
    return query


class _Statement:
    """Mixin of a query on a tracked model."""

    model: type[PeeweeBitmapistable]
    _return_cursor: bool

    def _execute(self, database: Any) -> Any:
        raise NotImplementedError

    def _execute_plainly(self, database: Any) -> Any:
        return cast(Any, super())._execute(database)

    def _execute_returning_keys(self, database: Any) -> tuple[list[_Key], Any]:
        """The keys by RETURNING, and the cursor; for a statement that returns nothing itself."""
        returning = cast(Any, self).returning(*self._key_fields).tuples()
        cursor = super(_Statement, returning)._execute(database)  # type: ignore[misc]
        if cursor is None:  # nothing to insert
            return [], None
        return self._keys(cursor), cursor.cursor

    def _can_return_keys(self, database: Any) -> bool:
        if self._return_cursor or not self._key_fields:
            return False
        database = _resolved(database)
        is_sqlite = isinstance(database, SqliteDatabase)
        return database.returning_clause or (is_sqlite and database.server_version >= (3, 35))

    @property
    def _key_fields(self) -> _Key:
        return cast(_Key, self.model._meta.get_primary_keys())

    def _keys(self, rows: Iterable[Sequence[Any]]) -> list[_Key]:
        fields = self._key_fields
        return [tuple(map(_as_stored, fields, row)) for row in rows]

    def _rows(self, database: Any, keys: Iterable[_Key], *, flags: bool = True) -> list[_Row]:
        """What is marked of the rows with `keys`: read from the database, unless the keys tell."""
        model = self.model
        names = model.__bitmapist_flags__ if flags else ()
        if not names and model.__bitmapist_id__ is None:
            return [_Row(model, key, _id_from_key(key), {}) for key in dict.fromkeys(keys)]
        rows = []
        for instance in self._instances(database, keys):
            with contained_faults("read a row of %s", model.__name__):
                rows.append(_row(instance, names))
        return rows

    def _instances(self, database: Any, keys: Iterable[_Key]) -> Iterator[PeeweeBitmapistable]:
        fields = self._key_fields
        size = _KEYS_PER_SELECT if len(fields) == 1 else _COMPOSITE_KEYS_PER_SELECT
        remaining = iter(dict.fromkeys(keys))
        while batch := list(islice(remaining, size)):
            if len(fields) == 1:
                criterion = fields[0].in_([key for (key,) in batch])
            else:
                criterion = functools.reduce(or_, (_equal(fields, key) for key in batch))
            query = ModelSelect(self.model, self.model._meta.sorted_fields).where(criterion)
            yield from query.execute(database)


def _equal(fields: Sequence[Any], key: _Key) -> Any:
    return functools.reduce(and_, (field == part for field, part in zip(fields, key, strict=True)))


class _Change(_Statement):
    """An UPDATE or DELETE."""

    def _matching(self, columns: Sequence[Any]) -> Any:
        """A SELECT of the rows that the statement is going to change."""
        query = ModelSelect(self.model, columns)
        for part in ("_where", "_order_by", "_limit", "_offset", "_cte_list"):
            setattr(query, part, getattr(self, part))
        sources = getattr(self, "_from", None)
        return query.from_(self.model, *sources) if sources else query

    def _matching_keys(self, database: Any) -> list[_Key]:
        return self._keys(self._matching(self._key_fields).tuples().execute(database))

    def _execute_noting_keys(self, database: Any) -> tuple[list[_Key], Any]:
        if self._can_return_keys(database):
            keys, _ = self._execute_returning_keys(database)
            return keys, len(keys)
        # Between the two another transaction may come. What the statement returns is the caller's.
        keys = self._matching_keys(database)
        result = self._execute_plainly(database)
        return keys if self._return_cursor or result else [], result


class _Update(_Change):
    _update: Mapping[Any, Any]

    def _execute(self, database: Any) -> Any:
        name = self.model.__name__
        if any(field in self._update for field in self._key_fields):
            moved = self._moved_keys(database)
            result = self._execute_plainly(database)
        else:
            keys, result = self._execute_noting_keys(database)
            moved = dict(zip(keys, keys, strict=True))
        with contained_faults("note updated rows of %s", name), _changes(database) as changes:
            former = {key: before for before, key in moved.items() if before != key}
            for row in self._rows(database, moved.values()):
                before = None
                if row.key in former:
                    key = former[row.key]
                    chosen = self.model.__bitmapist_id__ is not None
                    before = _identity(self.model, key), row.id if chosen else _id_from_key(key)
                _note(changes, "updated", row, before)
        return result

    def _moved_keys(self, database: Any) -> dict[_Key, _Key]:
        """The keys of the rows before and after: the SELECT evaluates the assignments."""
        fields = self._key_fields
        after = [self._assigned(field) if field in self._update else field for field in fields]
        rows = self._matching([*fields, *after]).tuples().execute(database)
        width = len(fields)
        moved = {}
        for row in rows:
            before, now = self._keys((row[:width], row[width:]))
            moved[before] = now
        return moved

    def _assigned(self, field: Any) -> Any:
        value = self._update[field]
        return value if _is_expression(value) else Value(value, converter=field.db_value)


class _Deletion(_Change):
    def _execute(self, database: Any) -> Any:
        name = self.model.__name__
        doomed: list[_Row] | None = None
        if self.model.__bitmapist_id__ is not None:
            with contained_faults("read the rows of %s to be deleted", name):
                doomed = self._rows(database, self._matching_keys(database), flags=False)
        keys, result = self._execute_noting_keys(database)
        with contained_faults("note deleted rows of %s", name), _changes(database) as changes:
            gone = set(keys)
            rows = self._rows(database, keys, flags=False) if doomed is None else doomed
            for row in rows:
                if row.key in gone:
                    _note(changes, "deleted", row)
        return result


class _Insertion(_Statement):
    _on_conflict: Any
    _insert: Any
    _columns: Any
    _cursor_wrapper: Any

    def _execute(self, database: Any) -> Any:
        if self._on_conflict is not None:
            # An upsert: which rows are new cannot be told.
            return self._execute_plainly(database)
        keys, result = self._inserted(database)
        name = self.model.__name__
        if keys is None:
            logger.warning(
                "rows were inserted into %s, but are not marked: the database did not return "
                "their keys. Mark them with record()",
                name,
            )
            return result
        with contained_faults("note inserted rows of %s", name), _changes(database) as changes:
            for row in self._rows(database, keys):
                _note(changes, "created", row)
        return result

    def _inserted(self, database: Any) -> tuple[list[_Key] | None, Any]:
        """The keys of the new rows, None where they cannot be known, and the caller's result."""
        returns_keys = self._can_return_keys(database)
        as_row_count = getattr(self, "_as_rowcount", False)
        if returns_keys and database.returning_clause and not as_row_count:
            # peewee asks for them itself, and gives them to the caller.
            result = self._execute_plainly(database)
            rows = list(self._cursor_wrapper or ())
            known = all(isinstance(row, tuple) for row in rows)
            return self._keys(rows) if known else None, result
        if returns_keys:
            keys, cursor = self._execute_returning_keys(database)
            if cursor is None:
                return keys, None
            return keys, len(keys) if as_row_count else database.last_insert_id(cursor)
        given = self._given_keys()
        result = self._execute_plainly(database)
        is_one = isinstance(self._insert, Mapping) and not self._return_cursor
        if given is None and is_one and self.model._meta.auto_increment:
            given = self._keys([(result,)])
        return given, result

    def _given_keys(self) -> list[_Key] | None:
        """The keys of the rows to insert, if the caller gives them all."""
        if isinstance(self._insert, Node) or not self._key_fields:
            return None
        if isinstance(self._insert, Mapping):
            rows = [self._insert]
        else:
            rows = self._insert = list(self._insert)  # it may be a generator
        keys = [tuple(self._given(row, field) for field in self._key_fields) for row in rows]
        if any(part is None or _is_expression(part) for key in keys for part in key):
            return None
        return self._keys(keys)

    def _given(self, row: Any, field: Any) -> Any:
        if isinstance(row, Mapping):
            names = (field, field.name, field.column_name)
            return next((row[name] for name in names if name in row), None)
        # By identity and name: fields that are compared make an SQL expression.
        columns = self._columns or cast(Any, self).get_default_columns()
        values = zip(columns, row, strict=False)
        return next((value for column, value in values if _is_column(column, field)), None)


def _is_column(column: Any, field: Any) -> bool:
    return column is field or (
        isinstance(column, str) and column in (field.name, field.column_name)
    )
