"""peewee's INSERT, UPDATE and DELETE statements, for models that opt in.

``User.insert(...)``, ``insert_many``, ``insert_from``, ``bulk_create``, ``update``, ``bulk_update``
and ``delete`` mark the rows that they wrote. The caller gets the same result as without us.

Not seen: upserts; new rows whose keys nobody knows, for which a warning is logged (on a database
without RETURNING: several rows without their keys).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import and_, or_
from typing import Any, cast

from peewee import Node, SqliteDatabase, Value

from ...faults import contained_faults
from ..base import Action, kept_attributes
from ._rows import (
    Key,
    MarkedRow,
    TrackedModel,
    as_stored,
    id_from_key,
    is_expression,
    marked_row,
    note,
    read,
    row_of,
    select,
)
from ._transactions import changes_of, resolved

logger = logging.getLogger("flask_bitmapist")

# Keys of one SELECT. Composite ones are joined by OR, and SQLite nests expressions 1000 deep.
_KEYS_PER_SELECT = 500
_COMPOSITE_KEYS_PER_SELECT = 50


def note_rows_of(query: Any, action: Action) -> None:
    """Have `query`, on a tracked model, note the rows that `action` happens to."""
    mix_in(_KINDS[action], query)


class _Statement:
    """Mixin of a query on a tracked model."""

    model: TrackedModel
    _returning: Any
    _return_cursor: bool
    #: The keys that came back, while it returns them besides what the caller gets.
    _told: list[Key] | None = None
    _tells = False

    def _execute(self, database: Any) -> Any:
        raise NotImplementedError

    def execute_plainly(self, database: Any) -> Any:
        return cast(Any, super())._execute(database)

    # Keys by RETURNING

    def _can_return_keys(self, database: Any) -> bool:
        if not self.model.__bitmapist_bulk__ or not self._key_fields:
            return False  # a model that has not opted in gets peewee's own statement
        database = resolved(database)
        if not isinstance(database, SqliteDatabase):
            return self._return_cursor or database.returning_clause
        return database.server_version >= (3, 35) and not _is_virtual(database, self.model)

    def _execute_returning_keys(self, database: Any) -> tuple[list[Key], Any]:
        """The keys, from RETURNING, and the cursor; for a statement that returns nothing itself."""
        returning = cast(Any, self).returning(*self._key_fields).tuples()
        cursor = super(_Statement, returning)._execute(database)  # type: ignore[misc]
        if cursor is None:  # nothing to insert
            return [], None
        return self._keys(cursor), cursor.cursor

    def _execute_returning_keys_too(self, database: Any) -> tuple[list[Key], Any]:
        """The keys, and the caller's result; for a statement that returns something itself."""
        self._told, self._tells = None, True
        try:
            result = self.execute_plainly(database)
        finally:
            self._tells = False
        return self._told or [], result

    def apply_returning(self, ctx: Any) -> Any:
        if not self._tells:
            return cast(Any, super()).apply_returning(ctx)
        own, self._returning = self._returning, (*self._returning, *self._key_fields)
        try:
            return cast(Any, super()).apply_returning(ctx)
        finally:
            self._returning = own

    def _get_cursor_wrapper(self, cursor: Any) -> Any:
        if self._tells:
            cursor = _Split(cursor, len(self._key_fields))
            self._told = self._keys(cursor.last_columns)
        return cast(Any, super())._get_cursor_wrapper(cursor)

    # Rows of keys

    @property
    def _key_fields(self) -> Key:
        return cast(Key, self.model._meta.get_primary_keys())

    def _keys(self, rows: Iterable[Sequence[Any]]) -> list[Key]:
        fields = self._key_fields
        return [tuple(map(as_stored, fields, row)) for row in rows]

    def _rows(self, database: Any, keys: Iterable[Key], *, values: bool = True) -> list[MarkedRow]:
        """What to mark for the rows with `keys`: read from the table, unless the keys suffice."""
        model = self.model
        names = kept_attributes(model) if values else []
        if not names and model.__bitmapist_id__ is None:
            return [MarkedRow(model, key, id_from_key(key), {}) for key in dict.fromkeys(keys)]
        rows = []
        for instance in self._instances(database, keys):
            with contained_faults("read a row of %s", model.__name__):
                rows.append(marked_row(instance, names))
        return rows

    def _instances(self, database: Any, keys: Iterable[Key]) -> Iterator[Any]:
        fields = self._key_fields
        size = _KEYS_PER_SELECT if len(fields) == 1 else _COMPOSITE_KEYS_PER_SELECT
        remaining = iter(dict.fromkeys(keys))
        while batch := list(islice(remaining, size)):
            if len(fields) == 1:
                criterion = fields[0].in_([key for (key,) in batch])
            else:
                criterion = functools.reduce(or_, (_equal(fields, key) for key in batch))
            query = select(self.model, self.model._meta.sorted_fields).where(criterion)
            yield from read(database, query)


def _equal(fields: Sequence[Any], key: Key) -> Any:
    return functools.reduce(and_, (field == part for field, part in zip(fields, key, strict=True)))


def _is_virtual(database: Any, model: TrackedModel) -> bool:
    """Whether the table is a virtual one, such as FTS5's.

    SQLite refuses RETURNING in their UPDATE and DELETE, and returns -1 as each rowid of an INSERT.
    """
    schema = f'"{model._meta.schema}".' if model._meta.schema else ""
    cursor = database.cursor()
    cursor.execute(
        f"SELECT 1 FROM {schema}sqlite_master WHERE name = ? AND sql LIKE 'CREATE VIRTUAL TABLE%'",
        (model._meta.table_name,),
    )
    return cursor.fetchone() is not None


class _Split:
    """A cursor without its last columns, which are ours."""

    def __init__(self, cursor: Any, width: int) -> None:
        rows = cursor.fetchall()
        #: Of each row.
        self.last_columns = [row[-width:] for row in rows]
        self.description = cursor.description[:-width]
        self._rows = iter([row[:-width] for row in rows])
        self._cursor = cursor

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _Change(_Statement):
    """An UPDATE or DELETE."""

    def _matching(self, columns: Sequence[Any]) -> Any:
        """A SELECT of the rows that the statement will change."""
        query = select(self.model, columns)
        for part in ("_where", "_order_by", "_limit", "_offset", "_cte_list"):
            setattr(query, part, getattr(self, part))
        sources = getattr(self, "_from", None)
        return query.from_(self.model, *sources) if sources else query

    def _matching_keys(self, database: Any) -> list[Key]:
        return self._keys(read(database, self._matching(self._key_fields).tuples()))

    def _execute_noting_keys(self, database: Any) -> tuple[list[Key], Any]:
        if self._can_return_keys(database):
            if self._return_cursor:
                return self._execute_returning_keys_too(database)
            keys, _ = self._execute_returning_keys(database)
            return keys, len(keys)
        # Another transaction may come between the two. The statement's result is the caller's.
        keys = []
        with contained_faults("find the rows of %s to be changed", self.model.__name__):
            keys = self._matching_keys(database)
        result = self.execute_plainly(database)
        return keys if self._return_cursor or result else [], result


class _Update(_Change):
    _update: Mapping[Any, Any]

    def _execute(self, database: Any) -> Any:
        name = self.model.__name__
        if any(field in self._update for field in self._key_fields):
            moved = []
            with contained_faults("find the rows of %s whose keys change", name):
                moved = self._moved_keys(database)
            result = self.execute_plainly(database)
        else:
            keys, result = self._execute_noting_keys(database)
            moved = list(zip(keys, keys, strict=True))
        with contained_faults("note updated rows of %s", name), changes_of(database) as changes:
            former = {key: before for before, key in moved if before != key}
            for row in self._rows(database, [key for _, key in moved]):
                before = None
                if row.key in former:
                    key = former[row.key]
                    chosen = self.model.__bitmapist_id__ is not None
                    before = row_of(self.model, key), row.id if chosen else id_from_key(key)
                note(changes, "updated", row, before)
        return result

    def _moved_keys(self, database: Any) -> list[tuple[Key, Key]]:
        """The keys of the rows before and after: the SELECT evaluates the assignments."""
        fields = self._key_fields
        after = [self._assigned(field) if field in self._update else field for field in fields]
        rows = read(database, self._matching([*fields, *after]).tuples())
        width = len(fields)
        moved = (self._keys((row[:width], row[width:])) for row in rows)
        return [(before, now) for before, now in moved]

    def _assigned(self, field: Any) -> Any:
        value = self._update[field]
        return value if is_expression(value) else Value(value, converter=field.db_value)


class Deletion(_Change):
    def _execute(self, database: Any) -> Any:
        name = self.model.__name__
        doomed: list[MarkedRow] | None = None
        if self.model.__bitmapist_id__ is not None:
            with contained_faults("read the rows of %s to be deleted", name):
                doomed = self._rows(database, self._matching_keys(database), values=False)
        keys, result = self._execute_noting_keys(database)
        with contained_faults("note deleted rows of %s", name), changes_of(database) as changes:
            gone = set(keys)
            rows = self._rows(database, keys, values=False) if doomed is None else doomed
            for row in rows:
                if row.key in gone:
                    note(changes, "deleted", row)
        return result


class _Insertion(_Statement):
    _on_conflict: Any
    _insert: Any
    _columns: Any

    def _execute(self, database: Any) -> Any:
        if self._on_conflict is not None:
            # An upsert does not say which rows are new.
            return self.execute_plainly(database)
        keys, result = self._inserted(database)
        name = self.model.__name__
        if keys is None:
            logger.warning(
                "rows were inserted into %s, but are not marked: the database did not return "
                "their keys. Mark them with record()",
                name,
            )
            return result
        with contained_faults("note inserted rows of %s", name), changes_of(database) as changes:
            for row in self._rows(database, keys):
                note(changes, "created", row)
        return result

    def _inserted(self, database: Any) -> tuple[list[Key] | None, Any]:
        """The keys of the new rows, None where they cannot be known, and the caller's result."""
        as_row_count = getattr(self, "_as_rowcount", False)
        if self._can_return_keys(database):
            # Where it can use RETURNING, peewee asks for the keys itself and hands them out.
            if self._return_cursor or (database.returning_clause and not as_row_count):
                return self._execute_returning_keys_too(database)
            keys, cursor = self._execute_returning_keys(database)
            if cursor is None:
                return keys, None
            return keys, len(keys) if as_row_count else database.last_insert_id(cursor)
        given = self._given_keys()
        result = self.execute_plainly(database)
        is_one = isinstance(self._insert, Mapping) and not self._return_cursor
        if given is None and is_one and self.model._meta.auto_increment:
            given = self._keys([(result,)])
        return given, result

    def _given_keys(self) -> list[Key] | None:
        """The keys of the rows to insert, if the caller gives them all."""
        if isinstance(self._insert, Node) or not self._key_fields:
            return None
        if isinstance(self._insert, Mapping):
            rows = [self._insert]
        else:
            rows = self._insert = list(self._insert)  # it may be a generator
        keys = [tuple(self._given(row, field) for field in self._key_fields) for row in rows]
        if any(part is None or is_expression(part) for key in keys for part in key):
            return None
        return self._keys(keys)

    def _given(self, row: Any, field: Any) -> Any:
        if isinstance(row, Mapping):
            names = (field, field.name, field.column_name)
            return next((row[name] for name in names if name in row), None)
        # By identity and name: comparing fields makes an SQL expression.
        columns = self._columns or cast(Any, self).get_default_columns()
        values = zip(columns, row, strict=False)
        return next((value for column, value in values if _is_column(column, field)), None)


def _is_column(column: Any, field: Any) -> bool:
    return column is field or (
        isinstance(column, str) and column in (field.name, field.column_name)
    )


_KINDS: dict[Action, type[_Statement]] = {
    "created": _Insertion,
    "updated": _Update,
    "deleted": Deletion,
}


def mix_in(mixin: type, query: Any) -> None:
    """Put `mixin` in front of the classes of `query`."""
    query.__class__ = _mixed(cast(Any, mixin), cast(Any, type(query)))


@functools.cache
def _mixed(mixin: Any, cls: Any) -> Any:
    return type(cls.__name__, (mixin, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
