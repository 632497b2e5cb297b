"""SQLAlchemy's ORM-enabled bulk statements, for models with ``__bitmapist_bulk__ = True``.

``session.execute(insert(Model) | update(Model) | delete(Model))`` and the legacy
``Query.update/delete`` mark the rows that they wrote. The caller gets the same rows and row count
as without us, and none of our faults.

Not seen: new rows whose keys nobody knows (on a database without RETURNING: upserts, several rows
without their keys); criteria with a list of parameters; statements inside a CTE or a
``from_statement()``; an INSERT that returns ``text()``; MySQL's ``UPDATE ... LIMIT``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    Connection,
    Result,
    TextClause,
    event,
    select,
    tuple_,
)
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from ...faults import contained_faults
from ..base import Action, BitmapistableModel, kept_attributes
from ._ids import id_columns, id_from_values, row_of
from ._transactions import changes_of

# Keys of one SELECT: SQLite allows 32766 parameters.
_KEYS_PER_SELECT = 1_000
# Execution option of a statement that is on its way to the database.
_SENT = "flask_bitmapist_sent"

_Key = tuple[object, ...]


def listen() -> None:
    """Listen to the statements of every session, from now on. Harmless when repeated."""
    if not event.contains(Session, "do_orm_execute", _on_execute):
        event.listen(Session, "do_orm_execute", _on_execute)


def _on_execute(state: ORMExecuteState) -> Result[Any] | None:
    if not _is_tracked(state):
        return None
    if _has_last_word(state):
        return _on_final_statement(state)
    # Act after the listeners that follow: they may rewrite the statement, or send it to each of
    # several databases, as horizontal sharding does. Their order has no public name.
    state._events_todo.append(_on_final_statement)
    return state.invoke_statement()


def _on_final_statement(state: ORMExecuteState) -> Result[Any] | None:
    if not _is_tracked(state):
        return None
    statement: _Statement | None = None
    with contained_faults("prepare to mark a bulk statement"):
        kind = _Insertion if state.is_insert else _Change
        statement = kind(state)
    return None if statement is None else statement.execute()


def _is_tracked(state: ORMExecuteState) -> bool:
    mapper = state.bind_mapper
    return (
        mapper is not None
        and getattr(mapper.class_, "__bitmapist_bulk__", False)
        and (state.is_insert or state.is_update or state.is_delete)
        and _SENT not in state.execution_options
    )


def _has_last_word(state: ORMExecuteState) -> bool:
    return bool(state._events_todo[-1] is _on_execute)


class _Row(NamedTuple):
    key: _Key
    model: type[BitmapistableModel]
    id: object
    #: Of its flags and dimensions.
    values: dict[str, object]


class _Statement:
    """One bulk statement on a tracked model, about to be executed."""

    def __init__(self, state: ORMExecuteState) -> None:
        self._state = state
        self._mapper: Mapper[Any] = cast("Mapper[Any]", state.bind_mapper)
        #: Untyped: what it returns, whether it is an upsert, and its options have no public names.
        self._statement = cast(Any, state.statement)
        #: The class, or an alias of it.
        self._entity = self._statement.entity_description["expr"]
        mapper = self._mapper
        names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._key_names = names
        self._key = [getattr(self._entity, name) for name in names]
        self._connection = state.session.connection(bind_arguments=dict(state.bind_arguments))

    def execute(self) -> Result[Any]:
        """Execute it, and note its rows."""
        raise NotImplementedError

    def _keys_in_parameters(self) -> list[_Key]:
        """The keys of the rows that a list of parameters names; empty unless it names them all."""
        given: Any = self._state.parameters or ()
        rows = [given] if isinstance(given, dict) else given
        keys = [tuple(row.get(name) for name in self._key_names) for row in rows]
        return [] if any(None in key for key in keys) else keys

    def _execute(self, statement: Any = None, **options: Any) -> Any:
        state = self._state
        options[_SENT] = True
        if not _has_last_word(state):
            return state.invoke_statement(statement=statement, execution_options=options)
        # invoke_statement() calls get_bind(_sa_skip_events=True), which raises where a routing
        # session overrides get_bind(mapper, clause) alone.
        return Session.execute(
            state.session,
            state.statement if statement is None else statement,
            cast(Any, state.parameters),
            execution_options={**state.local_execution_options, **options},
            bind_arguments=dict(state.bind_arguments),
        )

    def _returns_columns(self) -> bool:
        """Whether columns can be added to what the statement returns.

        Not to text(), which has no place in a result's keys.
        """
        return not any(isinstance(column, TextClause) for column in self._statement._returning)

    def _execute_returning(self) -> tuple[list[_Key], Result[Any]]:
        """The keys, from RETURNING, and a result with only what the caller asked for."""
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
        dialect: Any = self._connection.dialect
        return getattr(dialect, feature) and getattr(table, "implicit_returning", False)

    def _note(self, action: Action, rows: Iterable[_Row]) -> None:
        changes = changes_of(self._connection)
        token = self._state.execution_options.get("identity_token")
        if changes is not None:
            for key, model, id_, values in rows:
                if model.__bitmapist_bulk__:
                    changes.note(row_of(self._mapper, key, token), model, action, id_, values)

    def _rows(self, keys: Sequence[_Key], *, values: bool) -> list[_Row]:
        """What to mark for the rows with `keys`: read from the table, unless the keys suffice."""
        keys = list(dict.fromkeys(keys))
        with _unharmed(self._connection):
            return _rows(self._connection, self._mapper, keys, values=values)


class _Insertion(_Statement):
    def execute(self) -> Result[Any]:
        keys, result = self._inserted()
        with contained_faults("note inserted rows of %s", self._mapper.class_.__name__):
            self._note("created", self._rows(keys(), values=True))
        return result

    def _inserted(self) -> tuple[Callable[[], list[_Key]], Result[Any]]:
        statement, many = self._statement, bool(self._state.parameters)
        # An upsert, or INSERT OR IGNORE: not every row given is inserted, and lastrowid lies.
        conditional = statement._post_values_clause is not None or bool(statement._prefixes)
        known = self._keys_in_parameters()
        if known and not conditional:
            return lambda: known, self._execute()
        feature = "insert_executemany_returning" if many else "insert_returning"
        if statement._returning and not self._returns_columns():
            return list, self._execute()
        if statement._returning or (self._can(feature) and (many or statement.select is not None)):
            keys, result = self._execute_returning()
            return lambda: keys, result
        if self._can(feature):
            result = self._execute(statement.return_defaults(supplemental_cols=self._key))
            columns = [attribute.expression for attribute in self._key]
            return lambda: _keys_of(result.returned_defaults_rows, columns), result
        result = self._execute()
        if many or conditional:
            return list, result
        rows = result.inserted_primary_key_rows
        return lambda: [tuple(key) for key in rows if None not in key], result


class _Change(_Statement):
    """An UPDATE or DELETE."""

    def execute(self) -> Result[Any]:
        deletes = self._state.is_delete
        tells_all = not deletes or _key_tells_all(self._mapper)
        doomed = None if tells_all else self._doomed()
        keys, result = self._changed()
        with contained_faults("note changed rows of %s", self._mapper.class_.__name__):
            if doomed is None:
                rows = self._rows(keys(), values=not deletes)
            else:
                gone = set(keys())
                rows = [row for row in doomed if row.key in gone]
            self._note("deleted" if deletes else "updated", rows)
        return result

    def _doomed(self) -> list[_Row]:
        """What to mark for the rows that match, once they are gone."""
        keys = self._found()
        with contained_faults(
            "read the rows of %s that will be deleted", self._mapper.class_.__name__
        ):
            return self._rows(keys, values=False)
        return []

    def _changed(self) -> tuple[Callable[[], list[_Key]], Result[Any]]:
        if isinstance(self._state.parameters, list):  # UPDATE by primary key
            result = self._execute()
            return self._updated_by_key, result
        if self._statement._returning and self._returns_columns():
            keys, result = self._execute_returning()
            return lambda: keys, result
        if not self._statement._returning and self._can_fetch():
            # Result and row count are those of any other synchronize_session.
            result = self._execute(synchronize_session="fetch")
            mapper = self._mapper
            inherits = mapper.local_table is not mapper.base_mapper.local_table
            columns = mapper.local_table.primary_key if inherits else mapper.primary_key
            return lambda: _keys_of(result.returned_defaults_rows, columns), result
        found = self._found()
        return lambda: found, self._execute()

    def _updated_by_key(self) -> list[_Key]:
        if self._statement.whereclause is not None:
            return []
        keys = self._keys_in_parameters()
        if self._connection.dialect.supports_sane_multi_rowcount:  # a missing row was an error
            return keys
        with _unharmed(self._connection):
            return [key for key, _ in _read(self._connection, self._mapper, keys, [])]

    def _can_fetch(self) -> bool:
        verb = "delete" if self._state.is_delete else "update"
        if self._is_of_alias() or not self._can(f"{verb}_returning"):
            return False
        return (
            getattr(self._connection.dialect, f"{verb}_returning_multifrom")
            or len(self._matching().get_final_froms()) == 1
        )

    def _is_of_alias(self) -> bool:
        return self._entity is not self._mapper.entity

    def _found(self) -> list[_Key]:
        """The keys of the rows that match, before the statement changes them."""
        if self._state.execution_options.get("autoflush", True):
            self._state.session._autoflush()  # the statement would; so what it raises is not ours
        with (
            contained_faults("find the rows of %s to be changed", self._mapper.class_.__name__),
            _unharmed(self._connection),
        ):
            # Not through the session: it may send a SELECT to a replica that lags behind, and an
            # application's own listener may hide rows.
            rows = self._connection.execute(
                self._matching(), cast(Any, self._state.parameters) or {}
            )
            return [tuple(row) for row in rows]
        return []

    def _matching(self) -> Any:
        query = select(*self._key).select_from(self._entity)
        query = query.options(*self._statement._with_options)  # with_loader_criteria()
        if self._connection.dialect.name in ("mysql", "mariadb"):
            if self._statement.dialect_kwargs.get("mysql_limit") is not None:
                raise ValueError("a LIMIT leaves open which rows it changes")
            # An UPDATE or DELETE sees rows that are not in the transaction's snapshot.
            query = query.with_for_update()
        criteria = self._statement.whereclause
        return query if criteria is None else query.where(criteria)


def _unharmed(connection: Connection) -> AbstractContextManager[object]:
    """Keep a failing SELECT of ours from ending the application's transaction on PostgreSQL."""
    if connection.dialect.name != "postgresql" or connection._is_autocommit_isolation():
        return nullcontext()
    return connection.begin_nested()


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
    connection: Connection, mapper: Mapper[Any], keys: list[_Key], *, values: bool
) -> list[_Row]:
    if not _is_polymorphic(mapper):
        return _rows_of_class(connection, mapper, keys, values=values)
    by_mapper: dict[Mapper[Any], list[_Key]] = {}
    for key, (value,) in _read(connection, mapper, keys, [mapper.polymorphic_on]):
        by_mapper.setdefault(mapper.polymorphic_map.get(value, mapper), []).append(key)
    return [
        row
        for other, its_keys in by_mapper.items()
        for row in _rows_of_class(connection, other, its_keys, values=values)
    ]


def _rows_of_class(
    connection: Connection, mapper: Mapper[Any], keys: list[_Key], *, values: bool
) -> list[_Row]:
    model = mapper.class_
    names = kept_attributes(model) if values else []
    id_of_key = model.__bitmapist_id__ is None
    chosen = id_columns(mapper) or ()
    if id_of_key and not names:
        return [_Row(key, model, id_from_values(chosen, key), {}) for key in keys]
    columns = [mapper.columns[name] for name in names] + ([] if id_of_key else [*chosen])
    rows = []
    for key, read in _read(connection, mapper, keys, columns):
        held = dict(zip(names, read, strict=False))
        parts = key if id_of_key else tuple(read[len(names) :])
        id_ = None if None in parts else id_from_values(chosen, parts)
        rows.append(_Row(key, model, id_, held))
    return rows


def _read(
    connection: Connection, mapper: Mapper[Any], keys: Iterable[_Key], columns: Sequence[Any]
) -> Iterator[tuple[_Key, Sequence[Any]]]:
    """The values of `columns` in those rows with `keys` that exist."""
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
