"""Mutation check: break each hook and guard of the adapters in turn; some test has to fail.

Run on demand, in an environment with the test dependencies, such as nox's::

    python tests/mutate_adapters.py [sqlalchemy] [peewee] [mongoengine] [-k WORD]

Mutants are made in a copy of the package, one at a time. The exit code is 1 if one survives, or if
its row below is out of date: `Mutant.fault` says how. ``adapters/test_mutants.py`` looks for such
rows in every run of the tests. The mutants of a database server run where its variable, such as
``TEST_POSTGRESQL_URL``, is set. Needs ``fork()``.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ADAPTERS = Path("flask_bitmapist/adapters")

POSTGRESQL, MYSQL = "TEST_POSTGRESQL_URL", "TEST_MYSQL_URL"
# A mutant may make a test wait for what never comes.
SECONDS = 300

#: The quickest to fail first.
TESTS = {
    "sqlalchemy": [
        "test_sqlalchemy.py",
        "test_sqlalchemy_joined.py",
        "test_sqlalchemy_ids.py",
        "test_sqlalchemy_bulk.py",
        "test_sqlalchemy_routing.py",
        "test_sqlalchemy_servers.py",
        "test_sqlalchemy_two_phase.py",
        "test_sqlalchemy_styles.py",
        "test_contract_sqlalchemy.py",
    ],
    "peewee": ["test_peewee.py", "test_contract_peewee.py"],
    "mongoengine": [
        "test_mongoengine.py",
        "test_mongoengine_transactions.py",
        "test_contract_mongoengine.py",
    ],
}

#: The tests that break first, where they are further down in `TESTS`.
FIRST = {
    "sqlalchemy/_ids.py": ["test_sqlalchemy_ids.py"],
    "sqlalchemy/_transactions.py": ["test_sqlalchemy_joined.py", "test_sqlalchemy_servers.py"],
    "sqlalchemy/_statements.py": ["test_sqlalchemy_bulk.py", "test_sqlalchemy_routing.py"],
}


@dataclass(frozen=True)
class Mutant:
    """`text`, which `file` has exactly once, becomes `replacement`."""

    file: str
    name: str
    text: str
    replacement: str = ""
    #: The variable with the URL of the database server that tells the difference.
    needs: str = ""

    def fault(self, source: str) -> str:
        """Why the row does not fit the `source` of its file; empty if it does."""
        if (found := source.count(self.text)) != 1:
            return f"its text is {found} times in {self.file}"
        return "its replacement is its text" if self.text == self.replacement else ""

    def applied_to(self, source: str) -> str:
        mutated = source.replace(self.text, self.replacement)
        ast.parse(mutated)  # any test would kill what is not Python
        return mutated


def mutants_of(file: str, *rows: tuple[str, ...]) -> list[Mutant]:
    return [Mutant(file, *row) for row in rows]


def uncontained(name: str, message: str) -> tuple[str, str, str]:
    """The faults that `message` reports are raised."""
    text = f'contained_faults("{message}"'
    return name, text, f'__import__("contextlib").nullcontext() or {text}'


def untracked(method: str, action: str) -> tuple[str, str, str]:
    """The statements of a peewee model's `method` are plain ones."""
    return method, f'    {method} = _Statement("{action}")\n', ""


# --- The mutants: name, text, replacement (none: the text is removed), the server that it needs ---
#
# What one server, one process and the newest libraries cannot show is left out: reads from a
# secondary of MongoDB; a transaction that MongoDB has ended after an error; rows that another
# transaction changes between a SELECT and a statement; types of SQLAlchemy 2.0 without a Python
# type.

# fmt: off

SQLALCHEMY = [
    *mutants_of("base.py", uncontained("fault in telling", "work out what a transaction has changed")),
    *mutants_of(
        "sqlalchemy/__init__.py",
        ("do_orm_execute", "            _statements.listen()\n", "            pass\n"),
        ("do_orm_execute without opting in", "        if cls.__bitmapist_bulk__:\n",
         "        if True:\n"),
    ),
    *mutants_of(
        "sqlalchemy/_rows.py",
        # Listeners
        ("mapper_configured", '        "mapper_configured": check_options,\n'),
        ("after_insert", '        "after_insert": _after_insert,\n'),
        ("before_update", '        "before_update": _before_update,\n'),
        ("after_update", '        "after_update": _after_update,\n'),
        ("before_delete", '        "before_delete": _before_delete,\n'),
        ("subclasses not listened to", "propagate=True", "propagate=False"),
        # Rows
        uncontained("fault in noting", "note a row of %s as %s"),
        ("identity token", "state.mapper, state.identity_token", "state.mapper, None"),
        ("former id", "before = row_of(mapper, key_before, token), id_of(target, key_before)",
         "pass"),
        ("change by a later listener", " | _changed(mapper, target)"),
        ("UPDATE without a change", "    if not changed:\n        return\n"),
        ("changed key", "if before is not None and before != key:", "if False:"),
        ("flags that did not change", "_perhaps_changed(mapper, kept, changed))", "kept)"),
        ("computed flags", " or _is_computed(mapper, name)"),
        ("onupdate", "(column.onupdate, column.server_onupdate, column.computed)", "()"),
        ("column_property", "isinstance(attribute.columns[0], Column)", "True"),
        ("post_update", "attribute.post_update and attribute.direction is MANYTOONE", "False"),
        ("relationship", "attribute.post_update and attribute.direction is MANYTOONE", "True"),
    ),
    *mutants_of(
        "sqlalchemy/_ids.py",
        ("identity by class", "mapper.identity_key_from_primary_key(tuple(key), "
         "identity_token=cast(Any, token))", "(mapper, *key)"),
        ("identity of the hierarchy", "mapper.identity_key_from_primary_key(tuple(key), "
         "identity_token=cast(Any, token))", "(mapper.base_mapper, *key)"),
        ("id of a detached row", "state.identity or "),
        ("relationship as an id", "if isinstance(attribute, RelationshipProperty):", "if False:"),
        ("relationship to nobody",
         "return None if None in values else id_from_values(columns, values)",
         "return id_from_values(columns, values)"),
        ("synonym", "if isinstance(attribute, SynonymProperty):", "if False:"),
        ("relationship to many", "if relationship.direction is not MANYTOONE:", "if False:"),
        ("relationship to another column", "if not local_columns.keys() >= set(names):",
         "if False:"),
        ("order of a foreign key", "[local_columns[name] for name in names]",
         "[*local_columns.values()]"),
        ("textual key is a number", "value if _holds_numbers(column.type) else TextKey(value)",
         "value"),
        ("number is a textual key", "value if _holds_numbers(column.type) else TextKey(value)",
         "TextKey(value)"),
        ("type decorator", "while isinstance(type_, TypeDecorator):", "while False:"),
        ("composite key", "parts[0] if len(parts) == 1 else parts", "parts[0]"),
        # Options
        ("option names nothing", "if not hasattr(model, name):", "if False:"),
        ("relationship that tells no id",
         "if columns is None and isinstance(named_attribute(mapper, chosen), RelationshipProperty):",
         "if False:"),
        ("type that cannot be an id", "if kind is not None and not can_identify(kind):",
         "if False:"),
        ("bulk: flag is no column", "if name not in mapper.columns]", "if False]"),
        ("bulk: id is no column", "[chosen] if columns is None else []", "[]"),
        ("bulk: id is a method", "if columns is None and callable(chosen):", "if False:"),
    ),
    *mutants_of(
        "sqlalchemy/_transactions.py",
        # Listeners
        ("handle_error", 'event.listen(Engine, "handle_error", _on_error)\n'),
        ("after_begin", 'event.listen(Session, "after_begin", _after_begin)\n'),
        ("before_commit", 'event.listen(Session, "before_commit", _before_commit)\n'),
        ("after_commit", 'event.listen(Session, "after_commit", _after_commit, insert=True)\n'),
        ("after_commit behind the application's", ", insert=True"),
        ("after_transaction_end",
         'event.listen(Session, "after_transaction_end", _after_transaction_end)\n'),
        # Transactions of connections
        ("savepoint is its transaction", "connection.get_nested_transaction() or "),
        ("root of a savepoint not followed", "        _changes_in(root)  # followed", "        # followed"),
        ("open savepoints not followed", "        _savepoints.setdefault(root, []).append(ref(transaction))",
         "        pass"),
        ("ended savepoints kept", "if savepoint is not None and savepoint.is_active:",
         "if savepoint is not None:"),
        ("open savepoints forgotten", "        changes.absorb(_changes.pop(savepoint, Changes()))",
         "        pass"),
        ("released savepoint forgotten", "        enclosing.absorb(changes)", "        pass"),
        ("released savepoint published", "    if enclosing is not None:", "    if False:"),
        ("left to no session", "elif (scope := _committing_scope(connection)) is not None:",
         "elif (scope := None) is not None:"),
        ("outer transaction not published",
         "    elif marks := changes.marks():\n        publish(marks)\n"),
        ("two phases", "    TwoPhaseTransaction: _FollowedTwoPhase,\n", "", POSTGRESQL),
        # Transactions that a failed statement ends
        ("COMMIT after a failed statement", "            _aborted.add(transaction)",
         "            pass", POSTGRESQL),
        ("savepoint after a failed statement", ", transaction.connection.get_nested_transaction()",
         ",", POSTGRESQL),
        ("error of the driver", "and _comes_from_the_server(error)", "", POSTGRESQL),
        ("deadlock", "error.args[:1] == (_DEADLOCK,)", "False", MYSQL),
        ("any error of MySQL", "error.args[:1] == (_DEADLOCK,)", "True", MYSQL),
        ("rollback by SQLite",
         'not getattr(connection.connection.dbapi_connection, "in_transaction", True)', "False"),
        ("any error of SQLite",
         'not getattr(connection.connection.dbapi_connection, "in_transaction", True)', "True"),
        ("savepoints of what is rolled back", "(root, *_open_savepoints(root))", "(root,)"),
        # Sessions
        ("record: unchecked", "checked_marks(marks)", "[Mark(*mark) for mark in marks]"),
        ("record: scoped session", "session() if callable(session) else session", "session"),
        ("record: AsyncSession", 'getattr(target, "sync_session", target)', "target"),
        ("record: no transaction", "        publish(checked)", "        pass"),
        ("record: forgotten", "scope.changes().enlist(checked)", "pass"),
        ("record: savepoint is its transaction", "session.get_nested_transaction() or "),
        ("record: before a connection", "    scope.take_over(pending)\n"),
        ("record: with a connection", "if self.connections else None", "if False else None"),
        ("record: rollback is a commit", "self.pending if self.has_committed else None",
         "self.pending"),
        ("record: rolled back savepoint",
         "if scope.has_committed and enclosing is not None:", "if enclosing is not None:"),
        ("record: released savepoint", "            enclosing.take_over(scope.pending)",
         "            pass"),
        ("commit is no commit", "        scope.has_committed = True", "        pass"),
        ("connections of the flush in a commit", "    if scope.is_committing:", "    if False:"),
        ("a savepoint's commit is the root's",
         "if root is None or session.get_nested_transaction() is not None:", "if root is None:"),
        ("ended transaction kept", "scopes.pop(transaction, None)", "scopes.get(transaction)"),
        ("slot kept", "        session.info.pop(_OPEN, None)", "        pass"),
        ("root not published", "        publish(marks)\n\n\nevent", "        pass\n\n\nevent"),
        ("session still committing", "        _committing.pop(connection, None)", "        pass"),
    ),
    *mutants_of(
        "sqlalchemy/_statements.py",
        ("opt-in", 'getattr(mapper.class_, "__bitmapist_bulk__", False)',
         'hasattr(mapper.class_, "__bitmapist_bulk__")'),
        ("INSERT", "state.is_insert or "),
        ("UPDATE", "state.is_update or "),
        ("DELETE", " or state.is_delete)", ")"),
        ("ahead of other listeners", "    if _has_last_word(state):", "    if True:"),
        ("twice", "        and _SENT not in state.execution_options\n"),
        ("get_bind", "if not _has_last_word(state):", "if True:"),
        ("other listeners again", "if not _has_last_word(state):", "if False:"),
        uncontained("fault in preparing", "prepare to mark a bulk statement"),
        ("alias", 'self._statement.entity_description["expr"]', "self._mapper.class_"),
        ("alias fetched", "if self._is_of_alias() or not", "if not"),
        ("subclass opts out", "                if model.__bitmapist_bulk__:",
         "                if True:"),
        ("identity token", 'self._state.execution_options.get("identity_token")', "None"),
        ("RETURNING text()",
         "return not any(isinstance(column, TextClause)",
         "return True or any(isinstance(column, TextClause)"),
        ("keys in the caller's rows", "result = frozen().columns(*range(width))",
         "result = frozen()"),
        ("row count of INSERT from SELECT", "            result.rowcount = len(rows)\n"),
        ("implicit_returning=False", 'and getattr(table, "implicit_returning", False)'),
        uncontained("fault in noting inserted rows", "note inserted rows of %s"),
        ("fault in reading doomed rows",
         'contained_faults(\n            "read the rows of %s that will be deleted"',
         '__import__("contextlib").nullcontext() or contained_faults(\n'
         '            "read the rows of %s that will be deleted"'),
        uncontained("fault in finding rows", "find the rows of %s to be changed"),
        uncontained("fault in noting changed rows", "note changed rows of %s"),
        ("upsert", "statement._post_values_clause is not None", "False"),
        ("INSERT OR IGNORE", " or bool(statement._prefixes)"),
        ("keys given by the caller", "if known and not conditional:", "if False:"),
        ("some keys missing", "return [] if any(None in key for key in keys) else keys",
         "return keys"),
        ("chosen id of deleted rows", "not deletes or _key_tells_all(self._mapper)", "True"),
        ("rows that stayed", " if row.key in gone"),
        ("UPDATE by primary key", "if isinstance(self._state.parameters, list):", "if False:"),
        ("UPDATE by primary key and criteria", "if self._statement.whereclause is not None:",
         "if False:"),
        ("UPDATE of a missing row", "if self._connection.dialect.supports_sane_multi_rowcount:",
         "if True:"),
        ("the caller's RETURNING", "if self._statement._returning and self._returns_columns():",
         "if False:"),
        ("keys fetched", "if not self._statement._returning and self._can_fetch():", "if False:"),
        ("inherited keys", "inherits = mapper.local_table is not mapper.base_mapper.local_table",
         "inherits = False"),
        ("with_loader_criteria", "query.options(*self._statement._with_options)", "query"),
        ("criteria", "query if criteria is None else query.where(criteria)", "query"),
        ("parameters", "cast(Any, self._state.parameters) or {}", "{}"),
        ("autoflush", "            self._state.session._autoflush()", "            pass"),
        ("autoflush=False", 'self._state.execution_options.get("autoflush", True)', "True"),
        ("LIMIT", 'self._statement.dialect_kwargs.get("mysql_limit") is not None', "False", MYSQL),
        ("snapshot", "            query = query.with_for_update()\n", "", MYSQL),
        ("SELECT that fails",
         'connection.dialect.name != "postgresql" or connection._is_autocommit_isolation()',
         "True", POSTGRESQL),
        ("rows of subclasses", "if not _is_polymorphic(mapper):", "if True:"),
        ("related rows of nobody", "None if None in parts else id_from_values(chosen, parts)",
         "id_from_values(chosen, parts)"),
        ("found by the session", "rows = self._connection.execute(",
         "rows = self._state.session.execute("),
        ("connection of another database",
         "state.session.connection(bind_arguments=dict(state.bind_arguments))",
         "state.session.connection()"),
        ("more rows than one SELECT reads", "while batch :=", "if batch :="),
        ("composite keys", "if width == 1:", "if True:"),
    ),
]

PEEWEE = [
    *mutants_of(
        "peewee/_control.py",
        ("one statement", 'one_statement or ";" not in sql or ', '";" not in sql or ', MYSQL),
        ("routines", " or _ROUTINE.search(sql) is not None", "", POSTGRESQL),
        ("script", "statements[:1] if one_statement else statements", "statements[:1]", POSTGRESQL),
        ("comments", '            yield " "\n', "            yield token[0]\n"),
        ("quotes", "      | '(?:[^']|'')*' |", "      |", POSTGRESQL),
        ("dollar quotes", r" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$", "", POSTGRESQL),
        ("leading comments of MySQL", r"(?:\s|\#[^\n]*\n)*", r"\s*", MYSQL),
        ("AND CHAIN", 'chained=match["chain"] is not None', "chained=False", POSTGRESQL),
        ("AND NO CHAIN", r" | \s+AND\s+NO\s+CHAIN ", "", POSTGRESQL),
        ("BEGIN NOT ATOMIC", r"(?!\s+NOT\s+ATOMIC)", "", MYSQL),
        ("PREPARE TRANSACTION", r"PREPARE\s+TRANSACTION\b.*", "PREPAREE", POSTGRESQL),
        ("quoted savepoints", """.strip("\\"`'[]").casefold()"""),
    ),
    *mutants_of(
        "peewee/_transactions.py",
        # Overrides of the database
        ("connect", "                self._bitmapist.forget()", "                pass"),
        ("begin", 'with self._bitmapist.controlled(Control("begin")):', "if True:"),
        ("commit", 'with self._bitmapist.controlled(Control("commit")):', "if True:"),
        ("rollback", 'with self._bitmapist.controlled(Control("rollback")):', "if True:"),
        ("execute_sql", "if not controls:", "if True:"),
        ("scripts of PostgreSQL", "one_statement = not isinstance(self, PostgresqlDatabase)",
         "one_statement = True", POSTGRESQL),
        ("SQL in bytes", "    if isinstance(sql, bytes):", "    if False:", POSTGRESQL),
        ("composed SQL", "sql if isinstance(sql, str) else sql.as_string(database.connection())",
         "str(sql)", POSTGRESQL),
        # What follows from each statement
        ("BEGIN", "            self._begun(status)", "            pass"),
        ("COMMIT", "            self.current.commit()\n        elif control.verb in (",
         "            pass\n        elif control.verb in ("),
        ("ROLLBACK", "            self.current.rollback()\n        elif control.verb ==",
         "            pass\n        elif control.verb =="),
        ("SAVEPOINT", "            self._savepoint_made(control.savepoint)", "            pass"),
        ("RELEASE", "            self.current.release(control.savepoint)", "            pass"),
        ("ROLLBACK TO", "            self.current.rollback_to(control.savepoint)",
         "            pass"),
        ("chained", "        if control.chained:\n            self.current.begin()\n", "", POSTGRESQL),
        ("failed ROLLBACK", "if is_rolled_back or ", "if "),
        ("failed script", " or _status(self._database) == _IDLE", "", POSTGRESQL),
        ("SAVEPOINT outside a transaction", "self.current.begin_with_savepoint(savepoint)", "pass"),
        ("COMMIT after a failed statement", " and status != _IN_FAILED_TRANSACTION", "", POSTGRESQL),
        ("BEGIN inside a transaction",
         "if status != _IN_TRANSACTION or self.current.innermost is None:", "if True:", POSTGRESQL),
        ("BEGIN commits", "if isinstance(self._database, MySQLDatabase):", "if False:", MYSQL),
        ("savepoints merged", "self._levels[level][1].absorb(released)", "pass"),
        ("commit forgets savepoints", "            self._merge_from(0)\n"),
        ("commit ends nothing", "            self.rollback()\n            publish",
         "            publish"),
        ("commit publishes nothing", "            publish(changes.marks())", "            pass"),
        ("savepoint of an unknown name", "max(level - 1, 0)", "level - 1"),
        # Which databases are followed
        ("at the first mark", "    database = resolved(database)\n    follow(database)\n",
         "    database = resolved(database)\n"),
        ("followed twice", ' or "_bitmapist" in database.__dict__'),
        ("async database",
         'if any(cls.__module__ == "playhouse.pwasyncio" for cls in kind.__mro__):', "if False:"),
        ("DatabaseProxy", "database.obj if isinstance(database, Proxy) else database.database",
         "database.database"),
        ("transaction that is open already",
         "_Transaction(is_open=self._database.in_transaction())", "_Transaction(is_open=False)"),
        ("thread_safe=False", "_OfThread() if database.thread_safe else _OfAllThreads()",
         "_OfThread()"),
        ("threads", "_OfThread() if database.thread_safe else _OfAllThreads()", "_OfAllThreads()"),
        ("closed database", "None if database.is_closed() else "),
        ("outside a transaction", "        yield changes\n        publish(changes.marks())",
         "        yield changes"),
        ("record: unchecked", "checked_marks(marks)", "[Mark(*mark) for mark in marks]"),
        ("record: forgotten", "changes.enlist(checked)", "pass"),
    ),
    *mutants_of(
        "peewee/_model.py",
        # Overrides of the model
        ("peewee's guard", "model if row is None else row", "model"),
        ("save", "        _saved.set(Saved(self, field_dict, unsaved(self)))\n"),
        ("delete_instance", "with _set(_doomed, Doomed(self)), ", "with "),
        ("delete_instance(recursive=True)", ", _set(_by_key, recursive or _by_key.get())"),
        ("set_by_id", "    set_by_id = _ByKey()\n"),
        ("delete_by_id", "    delete_by_id = _ByKey()\n"),
        untracked("insert", "created"),
        untracked("insert_many", "created"),
        untracked("insert_from", "created"),
        untracked("update", "updated"),
        untracked("delete", "deleted"),
        ("opt-in", "    elif asked_for:", "    else:"),
        ("statements inside save()", "        _saved.set(None)  #", "        pass  #"),
        ("save() of another model", "if saved is not None and type(saved.instance) is model:",
         "if saved is not None:"),
        ("save() that fails",
         "        with _set(_saved, None):\n            return cast(Any, super()).save(",
         "        if True:\n            return cast(Any, super()).save("),
        ("other rows that delete_instance() deletes", "others=asked_for", "others=False"),
        ("other rows without opting in", "others=asked_for", "others=True"),
        ("validate_model", "        follow(database)\n        if isinstance",
         "        if isinstance"),
        ("validate_model: DatabaseProxy", "cast(Any, database).attach_callback(follow)", "pass"),
        ("bind", "        follow(database)\n        return cast(Any, super()).bind",
         "        return cast(Any, super()).bind"),
        ("mixin behind Model",
         "if Model in order and order.index(Model) < order.index(PeeweeBitmapistable):",
         "if False:"),
        ("option names nothing", "if not hasattr(cls, name):", "if False:"),
    ),
    *mutants_of(
        "peewee/_saves.py",
        ("saved: no row", "        if rows:\n            with contained_faults(\"note an up",
         "        if True:\n            with contained_faults(\"note an up"),
        ("saved: no change", '"updated" if changed else None', '"updated"'),
        ("saved: nothing to note", "        if action is None and not kept:\n            return\n"),
        ("saved: as in memory", "as_is_stored(database, instance, created=created, written=written)",
         "instance"),
        ("saved: what was written", "created=created, written=written", "created=created"),
        ("saved: flags not written", 'if action == "created"\n            or (', "if True or ("),
        ("saved: key that the database gave", "                self._set_key(key)\n"),
        ("saved: upsert", "if self._on_conflict is None:", "if True:"),
        uncontained("saved: fault of an INSERT", "note an inserted row of %s"),
        uncontained("saved: fault of an UPDATE", "note an updated row of %s"),
        ("deleted: no row", "if rows and row is not None:", "if row is not None:"),
        ("deleted: as in memory", "as_is_stored(database, self._doomed.instance)",
         "self._doomed.instance"),
        ("deleted: its own statement", "if not _holds(self._where, self._doomed.condition):",
         "if False:"),
        ("deleted: condition with others",
         "_holds(condition.lhs, part) or _holds(condition.rhs, part)", "False"),
        uncontained("deleted: fault in reading", "read a row of %s to be deleted"),
        uncontained("deleted: fault", "note a deleted row of %s"),
    ),
    *mutants_of(
        "peewee/_rows.py",
        ("stored: hidden rows", "ModelSelect(model, columns)",
         "model.select(*columns)"),
        ("stored: queries that are counted",
         "    sql, parameters = database.get_sql_context().sql(query).query()\n",
         "    return list(query.execute(database))\n"),
        ("row without a key", "return object()  # a row", "return key  # a row"),
        ("composite key", "key[0] if len(key) == 1 else key", "key[0]"),
        ("value as assigned", "    value = field.python_value(field.db_value(value))\n"),
        ("textual key is a number",
         "TextKey(value) if isinstance(value, str) and not _holds_numbers(field) else value",
         "value"),
        ("number is a textual key", "isinstance(value, str) and not _holds_numbers(field)",
         "isinstance(value, str)"),
        ("foreign key to numbers", "while isinstance(field, ForeignKeyField):", "while False:"),
        ("foreign key by its _id", "meta.combined.get(name) or next(by_id, None)",
         "meta.combined.get(name)"),
        ("unsaved changes", " and field.name not in dirty"),
        ("expression in memory", "not is_expression(instance.__data__[field.name]) and "),
        ("default of the database", "else created and not field.constraints", "else created"),
    ),
    *mutants_of(
        "peewee/_statements.py",
        ("RETURNING", "if not self.model.__bitmapist_bulk__ or not self._key_fields:", "if True:"),
        ("RETURNING without opting in", "not self.model.__bitmapist_bulk__ or "),
        ("virtual tables", " and not _is_virtual(database, self.model)"),
        ("the caller's RETURNING of an INSERT", "if self._return_cursor or (database",
         "if (database"),
        ("the caller's RETURNING of others",
         "            if self._return_cursor:\n                return", "            if False:\n"
         "                return"),
        ("peewee's own RETURNING", "(database.returning_clause and not as_row_count)", "False",
         POSTGRESQL),
        ("columns that the caller did not ask for", "_Split(cursor, len(self._key_fields))",
         "_Split(cursor, 0)"),
        ("description of columns that the caller did not ask for", "cursor.description[:-width]",
         "cursor.description"),
        ("keys beside the caller's columns", "        finally:\n            self._returning = own",
         "        finally:\n            pass"),
        ("UPDATE of the key", "if any(field in self._update for field in self._key_fields):",
         "if False:"),
        ("assigned expression", "value if is_expression(value) else "),
        ("chosen id of deleted rows", "if self.model.__bitmapist_id__ is not None:", "if False:"),
        ("rows that stayed", "if row.key in gone:", "if True:"),
        ("upsert", "if self._on_conflict is not None:", "if False:"),
        ("unknown keys", "if keys is None:", "if False:", MYSQL),
        ("as_rowcount", "len(keys) if as_row_count else "),
        ("generator of rows", "rows = self._insert = list(self._insert)",
         "rows = list(self._insert)", MYSQL),
        ("keys given by the caller", "        given = self._given_keys()", "        given = None"),
        ("missing keys",
         "if any(part is None or is_expression(part) for key in keys for part in key):",
         "if False:"),
        ("key of one row", "if given is None and is_one and self.model._meta.auto_increment:",
         "if False:"),
        ("flags and chosen ids", "if not names and model.__bitmapist_id__ is None:", "if True:"),
        ("more rows than one SELECT reads", "while batch :=", "if batch :="),
        ("composite keys", "            if len(fields) == 1:", "            if True:"),
        ("criteria", '("_where", "_order_by", "_limit", "_offset", "_cte_list")', "()"),
        ("UPDATE FROM", "query.from_(self.model, *sources) if sources else query", "query"),
        uncontained("fault in reading a row", "read a row of %s"),
        uncontained("fault in reading doomed rows", "read the rows of %s to be deleted"),
        uncontained("fault in finding rows", "find the rows of %s to be changed"),
        uncontained("fault in finding rows whose keys change",
                    "find the rows of %s whose keys change"),
        uncontained("fault in noting inserted rows", "note inserted rows of %s"),
        uncontained("fault in noting updated rows", "note updated rows of %s"),
        uncontained("fault in noting deleted rows", "note deleted rows of %s"),
    ),
]

MONGOENGINE = [
    *mutants_of(
        "mongoengine/__init__.py",
        ("EmbeddedDocument", "if issubclass(cls, EmbeddedDocument):", "if False:"),
        ("option names nothing", "            _check_attributes(cls)\n"),
        ("options of a dynamic document", " or model._dynamic"),
        ("signals", "            listen(cls)\n"),
        ("statements", "\nsee_statements()\n", "\n"),
    ),
    *mutants_of(
        "mongoengine/_saves.py",
        ("pre_save_post_validation",
         "    signals.pre_save_post_validation.connect(_before_save, sender=model)\n"),
        ("post_save", "    signals.post_save.connect(_after_save, sender=model)\n"),
        ("replaced document", "_REPLACING if _is_stored(document) else _NEW", "_NEW"),
        ("any document is replaced", "_REPLACING if _is_stored(document) else _NEW", "_REPLACING"),
        ("replaced document is created", '"updated" if before == _REPLACING else "created"', '"created"'),
        ("deleted document is as in memory", "if created and before == _LOADED:", "if False:"),
        ("save without a change", "elif changed := document._get_changed_fields():",
         "elif (changed := document._get_changed_fields()) is not None:"),
        ("slot kept by save()", "vars(document).pop(_BEFORE, _LOADED)",
         "vars(document).get(_BEFORE, _LOADED)"),
        ("flag that is a property", "if computed := computed_attributes(document):", "if computed := []:"),
        ("flag that is a property, from memory", "row_of(stored, collection, computed)",
         "row_of(document, collection, computed)"),
        ("flags that were written", "values={**row.values, **values}", "values=values"),
        uncontained("fault in marking", "mark a saved document of %s"),
        uncontained("fault in looking for a document", "look for a document of %s"),
        uncontained("fault in reading again", "read a document of %s again"),
    ),
    *mutants_of(
        "mongoengine/_rows.py",
        ("document of another model", "        if isinstance(document, BitmapistableModel):\n",
         "        if True:\n"),
        ("key that is no id", "        hash(self.identity)", "        pass"),
        ("identity without collection", "(collection.full_name, _key_of(document))",
         "(_key_of(document),)"),
        ("identity of a key without collection", "(collection.full_name, id_)", "(id_,)"),
        ("flags that did not change", "if fields.get(name) in names", "if name in fields"),
        ("flag with a db_field", "if fields.get(name) in names", "if name in names"),
        ("flag in a nested change", 'name.partition(".")[0] for name in changed', "name for name in changed"),
        uncontained("fault in noting", "note a document of %s as %s"),
        ("flags need no document", "bool(kept_attributes(model)) or "),
        ("chosen ids need no document", " or model.__bitmapist_id__ is not None"),
        # Ids
        ("textual key is a number", "TextKey(id_) if isinstance(id_, str) else id_", "id_"),
        ("value as assigned", "value = field.to_python(value)", "pass"),
        ("value as stored", "return _key_field(model).to_python(key)", "return key"),
        ("value to look for", "_key_field(document).to_mongo(value)", "value"),
        ("textual key behind a DBRef", "TextKey(value.id) if isinstance(value.id, str) else value.id",
         "value.id"),
        ("generic reference", 'isinstance(value, dict) and isinstance(value.get("_ref"), DBRef)',
         "False"),
        ("referenced document", "    if isinstance(value, Document):\n        return _key_of(value)\n"),
        ("composite key", "if isinstance(value, EmbeddedDocument):", "if False:"),
        ("chosen reference is fetched", "if isinstance(field, BaseField):", "if False:"),
        ("chosen pk", ' or chosen == "pk"'),
    ),
    *mutants_of(
        "mongoengine/_reading.py",
        ("limit", ", limit=at_most"),
        ("outside the transaction", ", session=current_session()"),
        ("more keys than one query has", "for first in range(0, len(keys), _KEYS_PER_QUERY):",
         "for first in (0,):"),
    ),
    *mutants_of(
        "mongoengine/_transactions.py",
        ("bound session", "_BOUND_SESSION.get() if _BOUND_SESSION is not None else None", "None"),
        ("passed session", "get_passed() if get_passed is not None else None", "None"),
        ("outside a transaction", "if session is None or not session.in_transaction:",
         "if session is None:"),
        ("commit_transaction", '        "commit_transaction": commit_transaction,\n'),
        ("abort_transaction", '        "abort_transaction": abort_transaction,\n'),
        ("start_transaction", '        "start_transaction": start_transaction,\n'),
        ("commit publishes nothing", "        leave()\n        publish(changes.marks())",
         "        leave()"),
        ("commit ends nothing", "        leave()\n        publish(changes.marks())",
         "        publish(changes.marks())"),
        ("failed commit",
         "        kind.commit_transaction(session)  # if",
         "        leave()\n        kind.commit_transaction(session)  # if"),
        ("abort ends nothing", "        kind.abort_transaction(session)\n        leave()",
         "        kind.abort_transaction(session)"),
        ("failed abort", "        kind.abort_transaction(session)\n        leave()",
         "        leave()\n        kind.abort_transaction(session)"),
        ("start ends nothing", "        leave()\n        return kind.start",
         "        return kind.start"),
        ("record: its session", "_open_changes(session or current_session())",
         "_open_changes(current_session())"),
        ("record: current session", "_open_changes(session or current_session())",
         "_open_changes(session)"),
        ("record: unchecked", "checked_marks(marks)", "[Mark(*mark) for mark in marks]"),
        ("session of others is followed", "    if not rows:\n        return\n"),
    ),
    *mutants_of(
        "mongoengine/_statements.py",
        ("one inserted document", "[doc_or_docs] if isinstance(doc_or_docs, Document) else doc_or_docs",
         "doc_or_docs"),
        ("inserted documents", '    _mark("created", self, lambda: rows_of(', "    (lambda *_: 0)(lambda: rows_of("),
        ("partly refused insert",
         '        _mark("created", self, lambda: stored_all_the_same(self, inserted, cause))\n'),
        ("deleted twice", "if deleted or deleted is None:", "if True:"),
        ("unacknowledged deletion", "if deleted or deleted is None:", "if deleted:"),
        ("deletion one by one", "if not by_document and _deletes_one_by_one(self):", "if False:"),
        ("deletion with a limit", "        or queryset._limit\n"),
        ("deletion with an offset", "        queryset._skip\n        or ", "        "),
        ("deletion that is listened to",
         "        or any(signal.has_receivers_for(model) for signal in listened)\n"),
        ("document.delete() that is listened to", "if not by_document and _deletes_one_by_one(self):",
         "if _deletes_one_by_one(self):"),
        ("queryset.update", "    if call[\"multi\"]:\n", "    if True:\n        return call()\n    if call[\"multi\"]:\n"),
        ("queryset.none()", "if queryset._none or queryset._empty:", "if False:"),
        ("update without a change", "elif result.modified_count:", "else:"),
        ("update that inserts", "if result.upserted_id is not None:", "if False:"),
        ("unacknowledged update", "    if result.acknowledged:\n", "    if True:\n"),
        ("update: full result", '    if call["full_result"]:\n', "    if True:\n"),
        ("update_one: which", "call(self=chosen, upsert=False, full_result=True)",
         "call(full_result=True)"),
        ("update_one: upsert of the chosen one", "upsert=False, "),
        ("update_one: filter of an upsert", '(call["upsert"] and len(matched) == 1)', "False"),
        ("update_one: nothing to change", '_ATTEMPTS if call["update"] else 0', "_ATTEMPTS"),
        ("update_one: unacknowledged", "if not result.acknowledged or result.matched_count:",
         "if result.matched_count:"),
        ("update_one: another attempt", "if not result.acknowledged or result.matched_count:",
         "if True:"),
        ("modify that may insert", '"updated" if existed else "created"', '"updated"'),
        ("modify that inserts", "        if upsert:  # one", "        if False:  # one"),
        ("modify(remove=True)", '            _mark("deleted", self, lambda: rows_of([document]',
         '            (lambda *_: 0)(lambda: rows_of([document]'),
        ("modify(remove=True) opted out", "if has_opted_in(type(document)):", "if True:"),
        ("subclass opts out", "if has_opted_in(each.model)]", "]"),
        uncontained("fault in marking documents", "mark the %s documents of %s"),
    ),
    *mutants_of(
        "mongoengine/_found.py",
        ("querysets of a base class", "        yield from classes_of(subclass)\n", "        pass\n"),
        ("opted out", " and bool(model.__bitmapist_bulk__)"),
        ("chosen ids of what is deleted", "if any(each.__bitmapist_id__ is not None", "if False and any(each.__bitmapist_id__"),
        ("named document is read", 'by_document and "_id" in query', "False"),
        ("class of a document", 'by_name.get(each.get("_cls"), model)', "model"),
        ("document without the mixin", "        if has_mixin(each.model):  # a", "        if True:  # a"),
        ("documents as they were", "if not any(needs_document(each.model) for each in found):",
         "if True:"),
        ("unneeded documents are read", "if not any(needs_document(each.model) for each in found):",
         "if False:"),
        uncontained("fault in finding documents", "find the documents of %s to mark"),
        uncontained("fault in reading what is deleted", "read the documents of %s to delete"),
        uncontained("fault in noting a key", "note a document of %s as %s"),
        ("partly refused insert: what failed", " if number not in failed"),
        ("partly refused insert: what was not tried", '[: error.details["nInserted"]]'),
        ("partly refused insert: other models", "[each for each in found if has_mixin(each.model)]", "found"),
    ),
]

# fmt: on

MUTANTS = {"sqlalchemy": SQLALCHEMY, "peewee": PEEWEE, "mongoengine": MONGOENGINE}

# --- The check ------------------------------------------------------------------------------------

#: Imported once. Each mutant is tested in a fork of this process: to import these takes longer than
#: most mutants live. Not NumPy, whose threads do not survive a fork.
LIBRARIES = [
    "bitmapist",
    "flask_sqlalchemy",
    "mongoengine",
    "mongomock",
    "playhouse.flask_utils",
    "redis",
    "secantus",
    "sqlalchemy.ext.asyncio",
    "sqlmodel",
]
OPTIONS = [
    "-x",
    "-q",
    "--tb=no",
    "--show-capture=no",
    "-p",
    "no:randomly",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
]


@dataclass
class Copy:
    """A copy of the package and its tests, which can be broken."""

    root: Path
    _writes: int = 0

    @classmethod
    def into(cls, root: Path) -> Copy:
        for name in ("flask_bitmapist", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
        shutil.copy(REPOSITORY / "pyproject.toml", root)
        return cls(root)

    def outcome(self, mutant: Mutant, tests: Iterable[str]) -> tuple[str, str]:
        """What became of `mutant`, and the test that told."""
        file = self.root / ADAPTERS / mutant.file
        source = file.read_text(encoding="utf-8")
        if fault := mutant.fault(source):
            return "OUTDATED", fault
        if mutant.needs and mutant.needs not in os.environ:
            return "skipped", f"{mutant.needs} is not set"
        self._write(file, mutant.applied_to(source))
        try:
            first = FIRST.get(mutant.file, [])
            failed = self.first_failure(dict.fromkeys([*first, *tests]), mutant.needs)
        finally:
            self._write(file, source)
        return ("killed", failed) if failed else ("SURVIVED", "")

    def _write(self, file: Path, source: str) -> None:
        """Write `source` with a time of its own.

        Python tells stale bytecode by the size of the source and the second in which it was
        written, and two mutants of one size may be written within a second.
        """
        self._writes += 1
        file.write_text(source, encoding="utf-8")
        os.utime(file, (self._writes, self._writes))

    def first_failure(self, tests: Iterable[str], server: str = "") -> str:
        """The first of `tests` that fails, over SQLite or over `server`; empty if none does."""
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        run = fork.Process(target=self._run, args=(list(tests), server, sender))
        run.start()
        sender.close()
        told = ""
        try:
            told = receiver.recv() if receiver.poll(SECONDS) else f"nothing within {SECONDS} s"
        except EOFError:
            told = "the process ended"
        finally:
            run.kill()
            run.join()
        return told

    def _run(self, tests: list[str], server: str, sender: Connection) -> None:
        """Run `tests` in this process, a fork in which no module of ours is loaded yet."""
        for variable in {POSTGRESQL, MYSQL} - {server}:
            os.environ.pop(variable, None)
        os.chdir(self.root)
        sys.path.insert(0, str(self.root))
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)
        paths = [f"tests/adapters/{name}" for name in tests]
        first = FirstFailure()
        code = pytest.main([*OPTIONS, *paths], plugins=[first])
        sender.send(first.test or ("" if code == 0 else f"pytest ended with {code!r}"))


class FirstFailure:
    """A plugin of pytest that keeps the name of the first test that fails."""

    test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid.partition("::")[2]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.test:
            self.test = f"import of {report.nodeid}"


def outcomes(copy: Copy, adapter: str, mutants: list[Mutant]) -> Iterator[str]:
    """Of each mutant of `adapter`, told as it goes."""
    for server in sorted({mutant.needs for mutant in mutants} & {"", *os.environ}):
        if failed := copy.first_failure(TESTS[adapter], server):
            sys.exit(f"{adapter}: without any mutant, this test fails: {failed}")
    for number, mutant in enumerate(mutants, 1):
        started = time.monotonic()
        outcome, told = copy.outcome(mutant, TESTS[adapter])
        where = f"{adapter} {number}/{len(mutants)} {mutant.file}: {mutant.name}"
        print(f"{outcome:9} {time.monotonic() - started:4.0f} s  {where:75} {told}", flush=True)
        yield outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("adapters", nargs="*", help=f"of {', '.join(MUTANTS)}; default: all")
    parser.add_argument(
        "-k", metavar="WORD", default="", help="only mutants with it in file or name"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.adapters) - set(MUTANTS):
        parser.error(f"no such adapter: {', '.join(sorted(unknown))}")
    for library in LIBRARIES:
        import_module(library)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy.into(Path(folder))
        for adapter in arguments.adapters or MUTANTS:
            chosen = [
                mutant
                for mutant in MUTANTS[adapter]
                if arguments.k in f"{mutant.file}: {mutant.name}"
            ]
            counts.update(outcomes(copy, adapter, chosen))
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["SURVIVED"] or counts["OUTDATED"] else 0


if __name__ == "__main__":
    sys.exit(main())
