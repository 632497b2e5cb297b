"""SQLAlchemy's ORM-enabled bulk statements, for models with ``__bitmapist_bulk__ = True``.

``session.execute(insert(Model) | update(Model) | delete(Model))`` and the legacy
``Query.update/delete`` mark the rows that they wrote. The caller gets the rows and the row count
that the statement gives without us.

Not seen: new rows whose keys nobody tells (on a database without RETURNING: upserts, several rows
without their keys); ``update().where()`` with a list of parameters; statements inside a CTE or a
``from_statement()``; an INSERT that returns ``text()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

from sqlalchemy import Delete, Insert, Result, TextClause, Update, event, select, tuple_
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from ..faults import contained_faults
from .base import Action
from .sqlalchemy import (
    SQLAlchemyBitmapistable,
    as_text_key,
    id_from_key,
    marked_column,
    open_changes,
    row_of,
)

# Keys of one SELECT: SQLite allows 32766 parameters.
_KEYS_PER_SELECT = 1_000

_Key = tuple[object, ...]


def listen() -> None:
    """Listen to the statements of every session, from now on. Harmless when repeated."""
    if not event.contains(Session, "do_orm_execute", _on_execute):
        event.listen(Session, "do_orm_execute", _on_execute)


def _on_execute(state: ORMExecuteState) -> Result[Any] | None:
    mapper = state.bind_mapper
    if mapper is None or not getattr(mapper.class_, "__bitmapist_bulk__", False):
        return None
    statement = state.statement
    if isinstance(statement, Insert):
        return _Insertion(state, mapper, statement).execute()
    if isinstance(statement, Update | Delete):
        return _Change(state, mapper, statement).execute()
    return None


class _Row(NamedTuple):
    key: _Key
    model: type[SQLAlchemyBitmapistable]
    id: object
    flags: dict[str, bool]


class _Statement:
    """One bulk statement on a tracked model, about to be executed."""

    def __init__(self, state: ORMExecuteState, mapper: Mapper[Any], statement: Any) -> None:
        self._state = state
        self._mapper = mapper
        #: What it returns, whether it is an upsert, and its options, have no public names.
        self._statement = statement
        self._dialect: Any = state.session.get_bind(**state.bind_arguments).dialect
        names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._key_names = names
        self._key = [getattr(mapper.class_, name) for name in names]

    def _keys_in_parameters(self) -> list[_Key]:
        """The keys of the rows that a list of parameters names; empty unless it names them all."""
        given: Any = self._state.parameters or ()
        rows = [given] if isinstance(given, dict) else given
        keys = [tuple(row.get(name) for name in self._key_names) for row in rows]
        return [] if any(None in key for key in keys) else keys

    def _execute(self, statement: Any = None, **options: Any) -> Any:
        return self._state.invoke_statement(statement=statement, execution_options=options)

    def _returns_columns(self) -> bool:
        """Whether columns can be appended to what the caller returns: not to text(), which has
        no place in a result's keys.
        """
        return not any(isinstance(column, TextClause) for column in self._statement._returning)

    def _execute_returning(self) -> tuple[list[_Key], Result[Any]]:
        """The keys by RETURNING, and a result with what the caller returns alone."""
        frozen = self._execute(self._statement.returning(*self._key)).freeze()
        rows = frozen().all()
        width = len(frozen().keys()) - len(self._key)
        if width:
            result = frozen().columns(*range(width))
        else:
            result = frozen.with_new_rows([])()
            # An INSERT from a SELECT, the only one whose result would be more than empty.
            result.rowcount = len(rows)
        return [tuple(row[width:]) for row in rows], result

    def _can(self, feature: str) -> bool:
        table = self._mapper.local_table
        return getattr(self._dialect, feature) and getattr(table, "implicit_returning", False)

    def _note(self, action: Action, rows: Iterable[_Row]) -> None:
        changes = open_changes(self._state.session)
        if changes is not None:
            for key, model, id_, flags in rows:
                if model.__bitmapist_bulk__:
                    changes.note(row_of(self._mapper, key), model, action, id_, flags)

    def _rows(self, keys: Sequence[_Key], *, flags: bool) -> list[_Row]:
        """What `keys` are to be marked as; as far as the key does not tell it, from the table."""
        return _rows(self._state, self._mapper, list(dict.fromkeys(keys)), flags=flags)


class _Insertion(_Statement):
    def execute(self) -> Result[Any]:
        keys, result = self._inserted()
        with contained_faults("note inserted rows of %s", self._mapper.class_.__name__):
            self._note("created", self._rows(keys, flags=True))
        return result

    def _inserted(self) -> tuple[list[_Key], Result[Any]]:
        statement, many = self._statement, bool(self._state.parameters)
        # An upsert, or INSERT OR IGNORE: not every row given is inserted, and lastrowid lies.
        conditional = statement._post_values_clause is not None or bool(statement._prefixes)
        known = self._keys_in_parameters()
        if known and not conditional:
            return known, self._execute()
        feature = "insert_executemany_returning" if many else "insert_returning"
        if statement._returning:
            return self._execute_returning() if self._returns_columns() else ([], self._execute())
        if self._can(feature) and (many or statement.select is not None):
            return self._execute_returning()
        if self._can(feature):
            result = self._execute(statement.return_defaults(supplemental_cols=self._key))
            columns = [attribute.expression for attribute in self._key]
            return _keys_of(result.returned_defaults_rows, columns), result
        result = self._execute()
        if many or conditional:
            return [], result
        return [tuple(key) for key in result.inserted_primary_key_rows if None not in key], result


class _Change(_Statement):
    """An UPDATE or DELETE."""

    def execute(self) -> Result[Any]:
        deletes = isinstance(self._statement, Delete)
        name = self._mapper.class_.__name__
        doomed: list[_Row] | None = None
        if deletes and not _key_tells_all(self._mapper):
            with contained_faults("read the rows of %s that will be deleted", name):
                doomed = self._rows(self._matching_keys(), flags=False)
        keys, result = self._changed()
        with contained_faults("note changed rows of %s", name):
            if doomed is None:
                rows = self._rows(keys, flags=not deletes)
            else:
                gone = set(keys)
                rows = [row for row in doomed if row.key in gone]
            self._note("deleted" if deletes else "updated", rows)
        return result

    def _changed(self) -> tuple[list[_Key], Result[Any]]:
        if isinstance(self._state.parameters, list):  # UPDATE by primary key
            result = self._execute()
            return self._updated_by_key(), result
        if self._statement._returning and self._returns_columns():
            return self._execute_returning()
        if not self._statement._returning and self._can_fetch():
            # The same result and row count as without; synchronize_session may have been another.
            result = self._execute(synchronize_session="fetch")
            mapper = self._mapper
            inherits = mapper.local_table is not mapper.base_mapper.local_table
            columns = mapper.local_table.primary_key if inherits else mapper.primary_key
            return _keys_of(result.returned_defaults_rows, columns), result
        keys = self._matching_keys()
        return keys, self._execute()

    def _updated_by_key(self) -> list[_Key]:
        if self._statement.whereclause is not None:
            return []
        keys = self._keys_in_parameters()
        if self._dialect.supports_sane_multi_rowcount:  # then a missing row was an error
            return keys
        return [key for key, _ in _read(self._state, self._mapper, keys, [])]

    def _can_fetch(self) -> bool:
        verb = "delete" if isinstance(self._statement, Delete) else "update"
        if not self._can(f"{verb}_returning"):
            return False
        return (
            getattr(self._dialect, f"{verb}_returning_multifrom")
            or len(self._matching().get_final_froms()) == 1
        )

    def _matching(self) -> Any:
        query = select(*self._key).select_from(self._mapper)
        query = query.options(*self._statement._with_options)  # with_loader_criteria()
        criteria = self._statement.whereclause
        return query if criteria is None else query.where(criteria)

    def _matching_keys(self) -> list[_Key]:
        state = self._state
        rows = state.session.execute(
            self._matching(),
            cast(Any, state.parameters) or {},
            execution_options={"autoflush": state.execution_options.get("autoflush", True)},
            bind_arguments=dict(state.bind_arguments),
        )
        return [tuple(row) for row in rows]


def _keys_of(rows: Sequence[Any] | None, columns: Iterable[Any]) -> list[_Key]:
    order = list(columns)
    return [tuple(row._mapping[column] for column in order) for row in rows or ()]


def _key_tells_all(mapper: Mapper[Any]) -> bool:
    return mapper.class_.__bitmapist_id__ is None and not _is_polymorphic(mapper)


def _is_polymorphic(mapper: Mapper[Any]) -> bool:
    """Whether a statement on `mapper` may have changed rows of its subclasses."""
    return mapper.polymorphic_on is not None and any(
        other is not mapper and not other.concrete for other in mapper.self_and_descendants
    )


def _rows(
    state: ORMExecuteState, mapper: Mapper[Any], keys: list[_Key], *, flags: bool
) -> list[_Row]:
    if not _is_polymorphic(mapper):
        return _rows_of_class(state, mapper, keys, flags=flags)
    by_mapper: dict[Mapper[Any], list[_Key]] = {}
    for key, (value,) in _read(state, mapper, keys, [mapper.polymorphic_on]):
        by_mapper.setdefault(mapper.polymorphic_map.get(value, mapper), []).append(key)
    return [
        row
        for other, its_keys in by_mapper.items()
        for row in _rows_of_class(state, other, its_keys, flags=flags)
    ]


def _rows_of_class(
    state: ORMExecuteState, mapper: Mapper[Any], keys: list[_Key], *, flags: bool
) -> list[_Row]:
    model = mapper.class_
    names = list(model.__bitmapist_flags__) if flags else []
    chosen = None if model.__bitmapist_id__ is None else marked_column(mapper)
    columns = [mapper.columns[name] for name in names] + ([] if chosen is None else [chosen])
    if not columns:
        return [_Row(key, model, id_from_key(mapper, key), {}) for key in keys]
    rows = []
    for key, values in _read(state, mapper, keys, columns):
        held = dict(zip(names, map(bool, values), strict=False))
        id_ = id_from_key(mapper, key) if chosen is None else as_text_key(chosen, values[-1])
        rows.append(_Row(key, model, id_, held))
    return rows


def _read(
    state: ORMExecuteState, mapper: Mapper[Any], keys: Iterable[_Key], columns: Sequence[Any]
) -> Iterator[tuple[_Key, Sequence[Any]]]:
    """The values of `columns` in the rows with `keys`, as far as they exist."""
    # Not by the session: an application's own listener may hide rows, such as those just deleted
    # softly.
    connection = state.session.connection(bind_arguments=dict(state.bind_arguments))
    primary_key = mapper.primary_key
    width = len(primary_key)
    query = select(*primary_key, *columns).select_from(mapper.persist_selectable)
    remaining = iter(keys)
    while batch := list(islice(remaining, _KEYS_PER_SELECT)):
        if width == 1:
            criterion = primary_key[0].in_([key for (key,) in batch])
        else:
            criterion = tuple_(*primary_key).in_(batch)
        for row in connection.execute(query.where(criterion)):
            yield tuple(row[:width]), row[width:]
