"""Random programs of transactions: the marks are the difference of what is committed.

A second connection reads the tables after every step, so that it sees what has been committed by
then, and nothing else. ``FUZZ_EXAMPLES=5000`` runs as many programs instead of the few of everyday.
"""

from __future__ import annotations

import itertools
import os
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from peewee import (
    BooleanField,
    Check,
    Database,
    DatabaseError,
    ForeignKeyField,
    IntegerField,
    Model,
    SqliteDatabase,
)

from flask_bitmapist.adapters.peewee import PeeweeBitmapistable, record
from flask_bitmapist.testing import RecordedMarks, record_marks
from flask_bitmapist.tracker import Tracker

from .peewee_servers import server_database

# What peewee < 4 passes to PyMySQL.
pytestmark = pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")

SERVERS = {"postgresql": "TEST_POSTGRESQL_URL", "mysql": "TEST_MYSQL_URL"}
KINDS = ["sqlite", *(kind for kind, name in SERVERS.items() if name in os.environ)]


class Item(PeeweeBitmapistable, Model):
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("hot",)

    id = IntegerField(primary_key=True)
    value = IntegerField(constraints=[Check("value >= 0")])
    hot = BooleanField(default=False)

    class Meta:
        table_name = "fuzz_item"


class Note(PeeweeBitmapistable, Model):
    id: Any
    """Marked for its author; the database gives the keys. Not opted in to bulk statements."""

    __bitmapist_id__ = "author"
    __bitmapist_flags__ = ("hot",)

    item = ForeignKeyField(Item, column_name="item_id")
    author = IntegerField(unique=True)
    value = IntegerField(constraints=[Check("value >= 0")])
    hot = BooleanField(default=False)

    class Meta:
        table_name = "fuzz_note"


class Own(Model):
    """Written by raw SQL, and marked with `record`."""

    number = IntegerField(primary_key=True)

    class Meta:
        table_name = "fuzz_own"


MODELS: list[Any] = [Item, Note, Own]
TABLES = {
    "item": "SELECT id, value, hot FROM fuzz_item",
    "note": "SELECT author, value, hot FROM fuzz_note",
    "own": "SELECT number, 0, 0 FROM fuzz_own",
}
#: (event name, marked id) -> (value, hot)
Snapshot = dict[tuple[str, int], tuple[int, bool]]

KEYS = range(1, 6)
keys = st.sampled_from(KEYS)
flags = st.booleans()


class StopError(Exception):
    pass


def refused() -> AbstractContextManager[None]:
    """Around a statement that may be refused, or come in an order that makes no sense."""
    return suppress(DatabaseError, ValueError)


class Programs(RuleBasedStateMachine):
    """One connection that writes, in transactions of all kinds."""

    def __init__(self, database: Database, observer: Database, marks: RecordedMarks) -> None:
        super().__init__()
        self.database = database
        self.observer = observer
        self.marks = marks
        self.fresh = itertools.count(1)
        self.contexts: list[Any] = []
        self.committed: Snapshot = {}
        self.flags: set[tuple[str, int | str]] = set()
        for model in (Note, Item, Own):
            database.execute(model.delete())
        for key in KEYS[::2]:
            Item.create(id=key, value=next(self.fresh), hot=key == 3)
        marks.clear()
        self.committed = self.snapshot()
        self.flags = {("item", 3)}

    def teardown(self) -> None:
        if self.is_open:
            self.database.rollback()
        while self.database.in_transaction():
            self.database.pop_transaction()
        self.database.close()
        self.marks.clear()

    # What is committed, and what is marked.

    def snapshot(self) -> Snapshot:
        return {
            (name, id_): (value, bool(hot))
            for name, query in TABLES.items()
            for id_, value, hot in self.observer.execute_sql(query).fetchall()
        }

    @invariant()
    def marks_are_the_difference(self) -> None:
        before, after = self.committed, self.snapshot()
        expected: dict[str, set[int]] = {}
        for row in before | after:
            name, id_ = row
            if before.get(row) != after.get(row):
                event = "created" if row not in before else "updated"
                event = event if row in after else "deleted"
                expected.setdefault(f"{name}:{event}", set()).add(id_)
        assert self.marks.events() == expected
        for mark in self.marks:
            if mark.hour is None:
                flag = (mark.event.partition(":")[0], mark.id)
                (self.flags.add if mark.value else self.flags.discard)(flag)
        assert self.flags == {row for row, (_, hot) in after.items() if hot}
        self.committed = after
        self.marks.clear()

    @property
    def is_open(self) -> bool:
        """Whether the server has a transaction open, whatever peewee thinks."""
        connection = self.database.connection()
        if isinstance(self.database, SqliteDatabase):
            return bool(connection.in_transaction)
        if hasattr(connection, "server_status"):
            return bool(connection.server_status & 1)
        return bool(connection.info.transaction_status != 0)

    # Rows.

    @rule(key=keys, hot=flags)
    def create(self, key: int, hot: bool) -> None:
        with refused():
            Item.create(id=key, value=next(self.fresh), hot=hot)

    @rule(key=keys, hot=flags)
    def get_or_create(self, key: int, hot: bool) -> None:
        # It begins a transaction, which on MySQL commits one that was begun by hand: that is a step
        # of its own, as two commits may tell more than the difference that they make together.
        is_mysql = hasattr(self.database.connection(), "server_status")
        if is_mysql and self.is_open and not self.database.in_transaction():
            self.database.begin()
            self.marks_are_the_difference()
        with refused():
            Item.get_or_create(id=key, defaults={"value": next(self.fresh), "hot": hot})

    @rule(key=keys, hot=flags)
    def add_note(self, key: int, hot: bool) -> None:
        number = next(self.fresh)
        with refused():
            Note(item=key, author=1000 + number, value=number, hot=hot).save()

    @rule(key=keys, hot=flags, part=flags, of_notes=flags, wrong=flags)
    def save(self, key: int, hot: bool, part: bool, of_notes: bool, wrong: bool) -> None:
        model: Any = Note if of_notes else Item
        with refused():
            field = model.item if of_notes else model.id
            row = model.get_or_none(field == key)
            if row is None:
                return
            row.hot, row.value = hot, -1 if wrong else next(self.fresh)
            row.save(only=[model.value] if part else None)

    @rule(key=keys, of_notes=flags)
    def save_unchanged(self, key: int, of_notes: bool) -> None:
        with refused():
            row = Note.get_or_none(Note.item == key) if of_notes else Item.get_or_none(id=key)
            if row is not None:
                row.save()

    @rule(key=keys)
    def save_part_of_a_row(self, key: int) -> None:
        with refused():
            row = Note.select(Note.id, Note.value).where(Note.item == key).first()
            if row is not None:
                row.value = Note.value + 10_000
                row.save()

    @rule(key=keys, recursive=flags)
    def delete(self, key: int, recursive: bool) -> None:
        with refused():
            row = Item.get_or_none(id=key)
            if row is not None:
                row.delete_instance(recursive=recursive)

    @rule(key=keys, hot=flags)
    def set_by_id(self, key: int, hot: bool) -> None:
        with refused():
            Item.set_by_id(key, {"value": next(self.fresh), "hot": hot})

    @rule(key=keys)
    def delete_by_id(self, key: int) -> None:
        with refused():
            Item.delete_by_id(key)

    @rule()
    def record(self) -> None:
        number = next(self.fresh)
        with refused():
            self.database.execute_sql(f"INSERT INTO fuzz_own (number) VALUES ({number})")
            record(self.database, ("own:created", number))

    # Statements.

    @rule(keys=st.lists(keys, min_size=1, max_size=3), hot=flags)
    def insert_many(self, keys: list[int], hot: bool) -> None:
        rows = [{"id": key, "value": next(self.fresh), "hot": hot} for key in keys]
        with refused():
            if len(rows) == 1:
                Item.insert(rows[0]).execute()
            else:
                Item.insert_many(rows).execute()

    @rule(keys=st.lists(keys, unique=True, min_size=1, max_size=3))
    def bulk_create(self, keys: list[int]) -> None:
        with refused():
            Item.bulk_create([Item(id=key, value=next(self.fresh)) for key in keys])

    @rule(keys=st.lists(keys, unique=True, min_size=1, max_size=3), hot=flags)
    def bulk_update(self, keys: list[int], hot: bool) -> None:
        with refused():
            rows = list(Item.select().where(Item.id.in_(keys)))
            for row in rows:
                row.value, row.hot = next(self.fresh), hot
            if rows:
                Item.bulk_update(rows, [Item.value, Item.hot])

    @rule(first=keys, hot=flags, wrong=flags)
    def update(self, first: int, hot: bool, wrong: bool) -> None:
        value = -1 if wrong else Item.value + 1000 * next(self.fresh)
        with refused():
            Item.update(value=value, hot=hot).where(Item.id >= first).execute()

    @rule(first=keys)
    def delete_where(self, first: int) -> None:
        with refused():
            Item.delete().where(Item.id >= first).execute()

    # Transactions.

    @rule(kind=st.sampled_from(["atomic", "atomic", "transaction", "savepoint", "manual_commit"]))
    def enter(self, kind: str) -> None:
        alone = kind == "savepoint" and not self.is_open
        if len(self.contexts) < 5 and (not alone or isinstance(self.database, SqliteDatabase)):
            context = getattr(self.database, kind)()
            with refused():
                context.__enter__()
                self.contexts.append(context)

    @rule()
    def start_session(self) -> None:
        if len(self.contexts) < 5:
            with refused():
                self.database.session_start()
                self.contexts.append(None)

    @rule(fail=flags)
    def leave(self, fail: bool) -> None:
        if not self.contexts:
            return
        context = self.contexts.pop()
        with refused():
            if context is None:
                (self.database.session_rollback if fail else self.database.session_commit)()
            elif fail:
                error = StopError()
                context.__exit__(StopError, error, None)
            else:
                context.__exit__(None, None, None)

    @rule(rollback=flags)
    def end_and_go_on(self, rollback: bool) -> None:
        """``commit()`` or ``rollback()`` of the transaction or savepoint that was entered last."""
        context: Any = (
            getattr(self.contexts[-1], "_helper", self.contexts[-1]) if self.contexts else None
        )
        if hasattr(context, "rollback"):
            with refused():
                (context.rollback if rollback else context.commit)()

    @rule(verb=st.sampled_from(["begin", "commit", "rollback"]), raw=flags)
    def control_by_hand(self, verb: str, raw: bool) -> None:
        if verb == "begin" and self.is_open:
            return
        with refused():
            if raw:
                self.database.execute_sql(verb)
            else:
                getattr(self.database, verb)()

    @rule(
        verb=st.sampled_from(["SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT"]),
        name=st.sampled_from("ab"),
    )
    def savepoint_by_hand(self, verb: str, name: str) -> None:
        if self.is_open or isinstance(self.database, SqliteDatabase):
            with refused():
                self.database.execute_sql(f"{verb} {name}")


@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_the_difference_of_what_is_committed(
    kind: str, tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def connect() -> Database:
        if kind == "sqlite":
            pragmas = {"synchronous": 0, "foreign_keys": 1}
            return SqliteDatabase(str(tmp_path / "fuzz.sqlite3"), pragmas=pragmas)
        return server_database(os.environ[SERVERS[kind]])

    database, observer = connect(), connect()
    examples = int(os.environ.get("FUZZ_EXAMPLES", "100"))
    with database.bind_ctx(MODELS), record_marks() as marks:
        database.drop_tables(MODELS)
        database.create_tables(MODELS)
        database.close()
        try:
            programs: Any = partial(Programs, database, observer, marks)  # any callable will do
            run_state_machine_as_test(
                programs,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=40,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.explicit, Phase.generate, Phase.shrink],
                ),
            )
        finally:
            while database.in_transaction():
                database.pop_transaction()
            database.close()
            observer.close()
            database.drop_tables(MODELS)
            database.close()
    assert "could not" not in caplog.text
