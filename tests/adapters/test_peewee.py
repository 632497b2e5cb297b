"""What peewee's models mark, and when."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from peewee import (
    SQL,
    BigIntegerField,
    BooleanField,
    CharField,
    CompositeKey,
    Database,
    DatabaseProxy,
    ForeignKeyField,
    IntegerField,
    IntegrityError,
    Model,
    MySQLDatabase,
    OperationalError,
    PostgresqlDatabase,
    ProgrammingError,
    SqliteDatabase,
    UUIDField,
    fn,
)
from playhouse import signals
from playhouse.flask_utils import FlaskDB
from playhouse.pool import PooledSqliteDatabase
from playhouse.sqlite_ext import FTS5Model, RowIDField, SearchField

from flask_bitmapist.adapters.peewee import PeeweeBitmapistable as Bitmapistable
from flask_bitmapist.adapters.peewee import _transactions, record
from flask_bitmapist.login import user_id
from flask_bitmapist.testing import abandoned
from flask_bitmapist.tracker import Tracker

from .marks import Marks
from .peewee_servers import server_database

VERSION = tuple(int(part) for part in version("peewee").split(".")[:2])
SERVERS = {"postgresql": "TEST_POSTGRESQL_URL", "mysql": "TEST_MYSQL_URL"}

# What peewee < 4 passes to PyMySQL.
pytestmark = pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")


class User(Bitmapistable, Model):
    __bitmapist_flags__ = ("premium",)

    id: Any  # peewee's own
    name = CharField(null=True, unique=True)
    premium = BooleanField(default=False)
    visits = IntegerField(default=0)

    class Meta:
        table_name = "users"


class Post(Bitmapistable, Model):
    __bitmapist_id__ = "author"

    id: Any
    title = CharField(default="")
    author = ForeignKeyField(User, null=True, backref="posts")


class Comment(Bitmapistable, Model):
    id: Any
    post = ForeignKeyField(Post, backref="comments")


class Bulk(Bitmapistable, Model):
    __bitmapist_bulk__ = True
    __bitmapist_flags__ = ("premium",)

    id: Any
    name = CharField(null=True, unique=True)
    premium = BooleanField(default=False)


MODELS: list[Any] = [User, Post, Comment, Bulk]


def open_database(kind: str) -> Database:
    if kind == "sqlite":
        return SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
    return server_database(os.environ[SERVERS[kind]])


KINDS = ["sqlite", *(kind for kind, name in SERVERS.items() if name in os.environ)]


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tracker: Tracker) -> Iterator[Database]:
    """A database with the tables of all models, which are bound to it."""
    database = open_database(request.param)
    with database.bind_ctx(MODELS):
        database.drop_tables(MODELS)
        database.create_tables(MODELS)
        yield database
        while database.in_transaction():
            database.pop_transaction()
        if not database.is_closed():
            database.close()
        database.drop_tables(MODELS)
        database.close()


@pytest.fixture
def memory(tracker: Tracker) -> Iterator[Database]:
    """For the tests that declare models of their own."""
    with closing(SqliteDatabase(":memory:")) as database:
        yield database


@pytest.fixture
def ann(db: Database, marks: Marks) -> User:
    """A user who was there before, her marks forgotten."""
    ann = User.create(id=7, name="Ann")
    marks.forget()
    return ann


def declare(database: Any, named: str = "Thing", **body: Any) -> Any:
    options = {"database": database}
    if "primary_key" in body:
        options["primary_key"] = body.pop("primary_key")
    meta = type("Meta", (), options)
    model = type(named, (Bitmapistable, Model), body | {"Meta": meta})
    database.create_tables([model])
    return model


class TestSave:
    def test_the_key_that_the_database_gave_is_marked(self, db: Database, marks: Marks) -> None:
        user = User(name="Ann")
        user.save()
        assert marks() == {"user:created": [user.id]}

    def test_a_key_of_zero_is_updated_not_created(self, memory: Database, marks: Marks) -> None:
        thing = declare(memory, id=IntegerField(primary_key=True), name=CharField(null=True))
        row = thing.create(id=0)
        assert marks() == {"thing:created": [0]}
        row.name = "zero"
        row.save()
        assert marks() == {"thing:created": [0], "thing:updated": [0]}

    def test_a_preset_key_without_force_insert_updates_no_row(
        self, db: Database, marks: Marks
    ) -> None:
        assert User(id=3, name="nobody").save() == 0
        assert marks() == {}

    def test_force_insert_of_a_preset_key_is_created(self, db: Database, marks: Marks) -> None:
        User(id=3, name="Ann").save(force_insert=True)
        assert marks() == {"user:created": [3]}

    def test_saving_what_has_not_changed_marks_nothing(self, ann: User, marks: Marks) -> None:
        ann.save()
        User.get_by_id(7).save()
        assert marks() == {}

    def test_only_what_is_saved_counts_as_a_change(self, ann: User, marks: Marks) -> None:
        ann.name, ann.premium = "Anna", True
        ann.save(only=[User.visits])
        assert (marks(), marks.flags()) == ({}, {})
        ann.save(only=["name"])
        assert (marks(), marks.flags()) == ({"user:updated": [7]}, {})
        ann.save(only=[User.premium])
        assert marks.flags() == {"user:premium": [7]}

    def test_only_save_dirty_sends_and_marks_no_more(self, memory: Database, marks: Marks) -> None:
        class Thing(Bitmapistable, Model):
            __bitmapist_flags__ = ("premium",)
            name = CharField(null=True)
            premium = BooleanField(default=False)

            class Meta:
                database = memory
                only_save_dirty = True

        memory.create_tables([Thing])
        row = Thing.create(id=1, premium=True)
        marks.forget()
        assert not row.save()
        assert marks() == {}
        stale = Thing.get_by_id(1)
        row.premium = False
        row.save()
        stale.name = "x"
        stale.save()
        assert (marks(), marks.flags()) == ({"thing:updated": [1]}, {})

    def test_a_stale_row_that_overwrites_a_flag_sets_it(self, ann: User, marks: Marks) -> None:
        stale = User.get_by_id(7)
        ann.premium = True
        ann.save()
        assert marks.flags() == {"user:premium": [7]}
        stale.name = "Anna"
        stale.save()  # peewee writes all columns
        assert not User.get_by_id(7).premium
        assert marks.flags() == {}

    def test_get_or_create_marks_what_it_creates(self, db: Database, marks: Marks) -> None:
        user, created = User.get_or_create(name="Ann", defaults={"id": 3})
        assert created
        assert marks() == {"user:created": [3]}
        marks.forget()
        assert User.get_or_create(name="Ann") == (user, False)
        assert marks() == {}

    def test_an_unsaved_parent_gives_its_key_to_the_child(self, db: Database, marks: Marks) -> None:
        ann = User(name="Ann")
        post = Post(author=ann)
        ann.save()
        post.save()
        assert marks() == {"user:created": [ann.id], "post:created": [ann.id]}

    def test_an_sql_expression_is_a_change_of_the_value_it_gives(
        self, ann: User, marks: Marks
    ) -> None:
        setattr(ann, "premium", User.visits == 0)  # noqa: B010
        ann.save()
        assert marks() == {"user:updated": [7]}
        assert marks.flags() == {"user:premium": [7]}

    def test_a_flag_cleared_by_an_sql_expression_is_cleared(
        self, db: Database, marks: Marks
    ) -> None:
        ann = User.create(id=7, premium=True)
        setattr(ann, "premium", User.visits > 0)  # noqa: B010
        ann.save()
        assert marks.flags() == {}

    def test_a_row_loaded_in_part_is_marked_as_it_is_stored(self, ann: User, marks: Marks) -> None:
        Post.create(id=1, author=ann)
        marks.forget()
        post = Post.select(Post.id, Post.title).where(Post.id == 1).get()
        post.title = "x"
        post.save()
        assert marks() == {"post:updated": [7]}

    def test_a_row_that_the_models_own_select_hides_is_marked(
        self, memory: Database, marks: Marks
    ) -> None:
        def select(cls: Any, *fields: Any) -> Any:
            inherited: Any = super(thing, cls)
            return inherited.select(*fields).where(~cls.gone)

        thing = declare(
            memory,
            __bitmapist_flags__=("premium",),
            premium=BooleanField(default=True),
            gone=BooleanField(default=False),
            select=classmethod(select),
        )
        thing.create(id=3)
        marks.forget()
        loaded = thing.select(thing.id).get()
        loaded.gone = True
        loaded.save()
        assert marks() == {"thing:updated": [3]}

    def test_the_stored_author_counts_not_the_unsaved_one(self, ann: User, marks: Marks) -> None:
        bob = User.create(id=8, name="Bob")
        post = Post.create(author=ann)
        marks.forget()
        post.author = bob
        post.delete_instance()
        assert marks() == {"post:deleted": [7]}

    def test_a_flag_that_the_database_fills_in_is_read(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(
            memory,
            __bitmapist_flags__=("on", "off"),
            on=BooleanField(constraints=[SQL("DEFAULT 1")], null=True),
            off=BooleanField(null=True),
        )
        thing.create(id=4)
        assert marks.flags() == {"thing:on": [4]}


def stamped_models(database: Database) -> Any:
    """A model whose base model's ``save()`` and ``delete_instance()`` do what many do."""

    class Base(Model):
        n = IntegerField(default=0)
        premium = BooleanField(default=False)

        class Meta:
            pass

        def save(self, *args: Any, **kwargs: Any) -> Any:  # it forgets to return
            type(self).update(n=-1).where(type(self).n == 99).execute()
            self.n += 1
            self.premium = self.n > 1
            super().save(*args, **kwargs)

        def delete_instance(self, *args: Any, **kwargs: Any) -> Any:
            type(self).delete().where(type(self).n == 99).execute()
            super().delete_instance(*args, **kwargs)

    Base._meta.database = database

    class Thing(Bitmapistable, Base):
        __bitmapist_flags__ = ("premium",)

    Thing._meta.set_database(database)
    database.create_tables([Thing])
    return Thing


class TestWhatIsWritten:
    """What is marked is what the statement wrote, whatever ``save()`` was called with."""

    @pytest.mark.parametrize("only_dirty", [False, True])
    def test_a_base_models_save_changes_the_row(
        self, memory: Database, marks: Marks, only_dirty: bool
    ) -> None:
        thing = stamped_models(memory)
        thing._meta.only_save_dirty = only_dirty
        row = thing.create(id=1)
        assert (marks(), marks.flags()) == ({"thing:created": [1]}, {})
        marks.forget()
        row.save()
        assert (marks(), marks.flags()) == ({"thing:updated": [1]}, {"thing:premium": [1]})

    def test_a_base_models_delete_instance_returns_nothing(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = stamped_models(memory)
        row = thing.create(id=1)
        thing.insert(id=2, n=99).execute()
        marks.forget()
        row.delete_instance()
        assert thing.select().count() == 0
        assert marks() == {"thing:deleted": [1]}

    def test_a_base_models_delete_instance_only_hides_the_row(
        self, memory: Database, marks: Marks
    ) -> None:
        class Base(Model):
            gone = BooleanField(default=False)

            class Meta:
                database = memory

            def delete_instance(self, *args: Any, **kwargs: Any) -> int:
                self.gone = True
                return self.save()

        class Thing(Bitmapistable, Base):
            pass

        memory.create_tables([Thing])
        row = Thing.create(id=1)
        marks.forget()
        assert row.delete_instance() == 1
        assert marks() == {"thing:updated": [1]}

    def test_statements_of_a_base_models_save_are_tracked_by_opting_in(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = stamped_models(memory)
        thing.__bitmapist_bulk__ = True
        rows = [thing.create(id=id_) for id_ in (1, 2)]
        thing.insert(id=3, n=99).execute()
        marks.forget()
        rows[0].save()
        assert marks() == {"thing:updated": [1, 3]}
        thing.update(n=99).where(thing.id == 3).execute()
        marks.forget()
        rows[1].delete_instance()
        assert marks() == {"thing:deleted": [2, 3]}

    @pytest.mark.parametrize("only_dirty", [False, True])
    def test_a_pre_save_handler_changes_the_row(
        self, memory: Database, marks: Marks, only_dirty: bool
    ) -> None:
        class Thing(Bitmapistable, signals.Model):
            __bitmapist_flags__ = ("premium",)
            premium = BooleanField(default=False)

            class Meta:
                database = memory
                only_save_dirty = only_dirty

        memory.create_tables([Thing])
        Thing.create(id=1)
        marks.forget()

        @signals.pre_save(sender=Thing)
        def promote(_: Any, instance: Any, created: bool) -> None:
            instance.premium = True

        Thing.get_by_id(1).save()
        assert (marks(), marks.flags()) == ({"thing:updated": [1]}, {"thing:premium": [1]})

    def test_a_pre_save_handler_saves_another_row(self, memory: Database, marks: Marks) -> None:
        class Thing(Bitmapistable, signals.Model):
            n = IntegerField(default=0)

            class Meta:
                database = memory

        memory.create_tables([Thing])
        first, second = Thing.create(id=1), Thing.create(id=2)
        marks.forget()

        @signals.pre_save(sender=Thing)
        def follow(_: Any, instance: Any, created: bool) -> None:
            if instance is first:
                second.n = 5
                second.save()

        first.save()
        assert marks() == {"thing:updated": [2]}

    def test_a_post_save_handler_deletes_the_row(self, memory: Database, marks: Marks) -> None:
        class Thing(Bitmapistable, signals.Model):
            class Meta:
                database = memory

        memory.create_tables([Thing])

        @signals.post_save(sender=Thing)
        def remove(_: Any, instance: Any, created: bool) -> None:
            instance.delete_instance()

        with memory.atomic():
            Thing.create()
        assert marks() == {}

    def test_the_savepoint_around_a_base_models_save_is_rolled_back(
        self, memory: Database, marks: Marks
    ) -> None:
        class Base(Model):
            class Meta:
                database = memory

            def save(self, *args: Any, **kwargs: Any) -> Any:
                with abandoned(memory.atomic()):
                    super().save(*args, **kwargs)
                return 1

        class Thing(Bitmapistable, Base):
            pass

        memory.create_tables([Thing])
        with memory.atomic():
            Thing.create(id=1)
        assert marks() == {}

    def test_a_stale_row_without_changes_takes_the_flag_back(self, ann: User, marks: Marks) -> None:
        stale = User.get_by_id(7)
        ann.premium = True
        ann.save()
        marks.forget_days()
        stale.visits += 1
        stale.save(only=[User.visits])
        assert marks.flags() == {"user:premium": [7]}
        marks.forget_days()
        stale.save()  # peewee writes all columns
        changed = User.get_by_id(7).premium is False
        assert changed
        assert (marks(), marks.flags()) == ({}, {})

    def test_flags_written_back_count_in_their_order(
        self, ann: User, db: Database, marks: Marks
    ) -> None:
        stale = User.get_by_id(7)
        with db.atomic():
            ann.premium = True
            ann.save()
            stale.save()
        assert (marks(), marks.flags()) == ({"user:updated": [7]}, {})
        with db.atomic():
            User.get_by_id(7).save()
            ann.premium = True
            ann.save()
        assert marks.flags() == {"user:premium": [7]}
        with db.atomic():
            User.get_by_id(7).save()
            ann.delete_instance()
        assert (marks()["user:deleted"], marks.flags()) == ([7], {})

    def test_a_save_that_fails_does_not_affect_the_next_statement(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory)
        thing.create(id=1)
        marks.forget()
        with pytest.raises(ValueError, match="no data to save"):
            thing(id=1).save()
        thing.insert(id=2).execute()
        assert marks() == {}

    def test_an_own_insert_method_makes_it_an_upsert(self, memory: Database, marks: Marks) -> None:
        def insert(cls: Any, *args: Any, **kwargs: Any) -> Any:
            inherited: Any = super(thing, cls)
            return inherited.insert(*args, **kwargs).on_conflict_ignore()

        thing = declare(memory, insert=classmethod(insert))
        memory.execute_sql("INSERT INTO thing (id) VALUES (1)")
        thing.create(id=1)
        assert marks() == {}

    def test_an_own_delete_method_has_its_own_condition(
        self, memory: Database, marks: Marks
    ) -> None:
        def delete(cls: Any) -> Any:
            inherited: Any = super(thing, cls)
            return inherited.delete().where(cls.id < 2)

        thing = declare(memory, delete=classmethod(delete))
        rows = [thing.create(id=id_) for id_ in (1, 2)]
        marks.forget()
        assert [row.delete_instance() for row in rows] == [1, 0]
        assert marks() == {"thing:deleted": [1]}

    def test_a_row_that_has_not_changed_is_not_asked_for_its_id(self, memory: Database) -> None:
        def chosen(row: Any) -> Any:
            asked.append(row)
            return row.id

        asked: list[Any] = []
        thing = declare(memory, __bitmapist_id__=chosen, n=IntegerField(default=0))
        row = thing.create(id=1)
        asked.clear()
        row.save()
        assert asked == []

    def test_an_own_update_method_writes_more(self, memory: Database, marks: Marks) -> None:
        log = declare(memory, "Log", n=IntegerField(default=0))

        def update(cls: Any, *args: Any, **kwargs: Any) -> Any:
            log.update(n=1).execute()  # there are no rows
            inherited: Any = super(thing, cls)
            return inherited.update(*args, **kwargs | {"stamp": 1})

        thing = declare(
            memory,
            n=IntegerField(default=0),
            stamp=IntegerField(default=0),
            update=classmethod(update),
        )
        row = thing.create(id=1)
        row.n = 2
        row.save()
        assert thing.get().stamp == 1
        assert marks() == {"thing:created": [1], "thing:updated": [1]}


class TestDelete:
    def test_deleting_what_is_gone_marks_nothing(self, ann: User, marks: Marks) -> None:
        User.delete().where(User.id == 7).execute()
        assert ann.delete_instance() == 0
        assert marks() == {}

    def test_a_recursive_deletion_marks_every_row(self, db: Database, marks: Marks) -> None:
        ann, bob = User.create(id=7), User.create(id=8)
        post = Post.create(id=1, author=ann)
        Post.create(id=2, author=bob)
        comment = Comment.create(post=post)
        marks.forget()
        with db.atomic():
            ann.delete_instance(recursive=True, delete_nullable=True)
        assert marks() == {
            "user:deleted": [7],
            "post:deleted": [7],
            "comment:deleted": [comment.id],
        }
        assert Post.select().count() == 1

    def test_a_recursive_deletion_updates_the_children_that_it_leaves(
        self, memory: Database, marks: Marks
    ) -> None:
        user = declare(memory, "User")
        post = declare(
            memory, "Post", author=ForeignKeyField(user, null=True, on_delete="SET NULL")
        )
        post.create(id=5, author=user.create(id=7))
        marks.forget()
        user.get_by_id(7).delete_instance(recursive=True)
        assert marks() == {"user:deleted": [7], "post:updated": [5]}

    def test_without_opting_in_peewee_sends_what_it_sends_without_us(
        self, ann: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        Post.create(id=1, author=ann)
        with caplog.at_level(logging.DEBUG, "peewee"):
            User.set_by_id(7, {"visits": 1})
            ann.delete_instance(recursive=True, delete_nullable=True)
            User.delete_by_id(7)
        sent = [record.msg[0] for record in caplog.records if record.name == "peewee"]
        assert [sql.split()[0] for sql in sent] == ["UPDATE", *["DELETE"] * 4]
        assert not any("RETURNING" in sql for sql in sent)

    def test_a_tree_deletes_itself(self, memory: Database, marks: Marks) -> None:
        node = declare(memory, "Node", parent=ForeignKeyField("self", null=True))
        root = node.create(id=1)
        node.create(id=2, parent=root)
        node.create(id=3, parent=root)
        marks.forget()
        root.delete_instance(recursive=True, delete_nullable=True)
        assert marks() == {"node:deleted": [1, 2, 3]}

    def test_the_id_is_read_before_the_row_is_gone(self, memory: Database, marks: Marks) -> None:
        def owner(row: Any) -> Any:
            return type(row).get_by_id(row.id).owner

        thing = declare(memory, __bitmapist_id__=owner, owner=IntegerField())
        row = thing.create(owner=5)
        row.delete_instance()
        assert marks() == {"thing:created": [5], "thing:deleted": [5]}


class TestTransactions:
    def test_autocommit_marks_each_write_at_once(self, db: Database, marks: Marks) -> None:
        User.create(id=1)
        assert marks() == {"user:created": [1]}
        User.create(id=2)
        assert marks() == {"user:created": [1, 2]}

    def test_nested_transactions_are_one(self, db: Database, marks: Marks) -> None:
        with db.transaction():
            User.create(id=1)
            with db.transaction():
                User.create(id=2)
            assert marks() == {}
        assert marks() == {"user:created": [1, 2]}

    def test_an_explicit_commit_marks_and_goes_on(self, db: Database, marks: Marks) -> None:
        transaction = db.transaction()
        with abandoned(transaction):
            User.create(id=1)
            transaction.commit()
            assert marks() == {"user:created": [1]}
            User.create(id=2)
        assert marks() == {"user:created": [1]}

    def test_an_explicit_rollback_drops_and_goes_on(self, db: Database, marks: Marks) -> None:
        with db.atomic() as transaction:
            User.create(id=1)
            transaction.rollback()
            User.create(id=2)
        assert marks() == {"user:created": [2]}

    def test_sessions_mark_when_they_commit(self, db: Database, marks: Marks) -> None:
        db.session_start()
        User.create(id=1)
        db.session_start()
        User.create(id=2)
        assert marks() == {}
        db.session_commit()
        assert marks() == {"user:created": [1, 2]}
        db.session_rollback()

    def test_a_session_that_is_rolled_back_marks_nothing(self, db: Database, marks: Marks) -> None:
        db.session_start()
        User.create(id=1)
        db.session_rollback()
        assert marks() == {}

    def test_decorators_are_transactions(self, db: Database, marks: Marks) -> None:
        @db.atomic()
        def create(*ids: int) -> None:
            for id_ in ids:
                User.create(id=id_)
                assert marks() == {}

        with pytest.raises(IntegrityError):
            create(1, 1)
        create(2, 3)
        assert marks() == {"user:created": [2, 3]}

    def test_the_database_as_a_context_is_a_transaction(self, tmp_path: Path, marks: Marks) -> None:
        database = SqliteDatabase(str(tmp_path / "app.sqlite3"))
        thing = declare(database)
        database.close()
        with abandoned(database):
            thing.create(id=1)
        with database:
            thing.create(id=2)
            assert marks() == {}
        assert marks() == {"thing:created": [2]}

    def test_a_bare_rollback_inside_atomic_drops_what_it_undoes(
        self, db: Database, marks: Marks
    ) -> None:
        # PostgreSQL and MySQL, and peewee < 4 on SQLite, let the COMMIT that follows pass.
        ends_well = not (isinstance(db, SqliteDatabase) and VERSION >= (4, 0))
        try:
            with db.atomic():
                User.create(id=1)
                db.rollback()
                User.create(id=2)  # by itself: no transaction is open
                assert marks() == {"user:created": [2]}
        except OperationalError:
            assert not ends_well
        assert [user.id for user in User.select()] == [2]
        assert marks() == {"user:created": [2]}

    def test_a_failed_statement_inside_atomic_may_undo_it_all(
        self, db: Database, marks: Marks
    ) -> None:
        # PostgreSQL answers the COMMIT with a ROLLBACK, and peewee sees no error.
        with db.atomic():
            User.create(id=1)
            with pytest.raises(IntegrityError):
                User.create(id=1)
        stored = [user.id for user in User.select()]
        assert stored == ([] if isinstance(db, PostgresqlDatabase) else [1])
        assert marks() == ({"user:created": stored} if stored else {})

    def test_a_failing_commit_marks_nothing(self, tmp_path: Path, marks: Marks) -> None:
        database = SqliteDatabase(str(tmp_path / "app.sqlite3"), pragmas={"foreign_keys": 1})
        user = declare(database, "User")
        receipt = declare(
            database, "Receipt", user=ForeignKeyField(user, deferrable="INITIALLY DEFERRED")
        )

        @database.atomic()
        def create() -> None:
            user.create(id=1)
            receipt.create(user=99)

        with pytest.raises(IntegrityError):
            create()
        assert user.select().count() == 0
        user.create(id=2)
        assert marks() == {"user:created": [2]}
        database.close()

    def test_manual_commit_marks_when_it_commits(self, db: Database, marks: Marks) -> None:
        with db.manual_commit():
            db.begin()
            User.create(id=1)
            assert marks() == {}
            db.commit()
            assert marks() == {"user:created": [1]}
            db.begin()
            User.create(id=2)
            db.rollback()
            User.create(id=3)  # by itself
            assert marks() == {"user:created": [1, 3]}

    def test_bare_begin_and_rollback_are_a_transaction(self, db: Database, marks: Marks) -> None:
        db.begin()
        User.create(id=1)
        assert marks() == {}
        db.rollback()
        db.begin()
        User.create(id=2)
        db.commit()
        assert marks() == {"user:created": [2]}

    def test_a_begin_inside_a_transaction_does_what_the_database_does(
        self, db: Database, marks: Marks
    ) -> None:
        db.begin()
        User.create(id=1)
        if isinstance(db, SqliteDatabase):
            with pytest.raises(OperationalError):
                db.begin()
        else:
            db.begin()  # PostgreSQL ignores it, MySQL commits
        User.create(id=2)
        db.rollback()
        stored = [user.id for user in User.select()]
        assert stored == ([1] if isinstance(db, MySQLDatabase) else [])
        assert marks() == ({"user:created": stored} if stored else {})
        if isinstance(db, SqliteDatabase):
            return
        db.begin()
        User.create(id=3)
        db.begin()
        User.create(id=4)
        db.commit()
        assert marks() == {"user:created": [*stored, 3, 4]}

    @pytest.mark.parametrize(
        ("begin", "end", "kept"),
        [
            ("BEGIN", "COMMIT", True),
            ("start transaction", "commit work;", True),
            ("BEGIN", "ROLLBACK", False),
            ("begin ", " rollback ; ", False),
            ("/* a */ BEGIN", "-- done\n/* b */ COMMIT -- c", True),
            ("BEGIN/* a */;", "ROLLBACK /* b */ ;", False),
            ("-- a; COMMIT\nBEGIN", "/* COMMIT */ ROLLBACK", False),
        ],
    )
    def test_transactions_in_raw_sql_are_followed(
        self, db: Database, marks: Marks, begin: str, end: str, kept: bool
    ) -> None:
        if isinstance(db, SqliteDatabase):
            begin = begin.replace("start transaction", "begin immediate")
            end = end.replace(" work", "")
        db.execute_sql(begin)
        User.create(id=1)
        assert marks() == {}
        db.execute_sql(end)
        assert User.select().count() == kept
        assert marks() == ({"user:created": [1]} if kept else {})

    @pytest.mark.parametrize("chained", ["AND CHAIN", "WORK AND CHAIN", "/* a */ AND\n CHAIN;"])
    def test_a_chained_transaction_begins_with_the_end_of_the_last(
        self, db: Database, marks: Marks, chained: str
    ) -> None:
        if isinstance(db, SqliteDatabase):
            pytest.skip("SQLite has no AND CHAIN")
        db.begin()
        User.create(id=1)
        db.execute_sql(f"COMMIT {chained}")
        assert marks() == {"user:created": [1]}
        User.create(id=2)
        db.execute_sql(f"ROLLBACK {chained}")
        User.create(id=3)
        assert marks() == {"user:created": [1]}
        db.execute_sql("COMMIT AND NO CHAIN")
        assert marks() == {"user:created": [1, 3]}
        User.create(id=4)
        assert marks() == {"user:created": [1, 3, 4]}

    def test_a_script_is_followed_statement_by_statement(self, db: Database, marks: Marks) -> None:
        if not isinstance(db, PostgresqlDatabase):
            pytest.skip("needs a driver that takes more than one statement")
        db.execute_sql("BEGIN; SELECT '; COMMIT;', $$; COMMIT; $$, \"id\" FROM users -- ; COMMIT;")
        User.create(id=1)
        assert marks() == {}
        db.execute_sql("SELECT 1; COMMIT; BEGIN")
        User.create(id=2)
        assert marks() == {"user:created": [1]}
        db.execute_sql("ROLLBACK; BEGIN; SAVEPOINT a")
        User.create(id=3)
        db.execute_sql("ROLLBACK TO a; COMMIT;")
        User.create(id=4)
        assert marks() == {"user:created": [1, 4]}

    def test_sql_of_another_type_is_followed(self, db: Database, marks: Marks) -> None:
        if not isinstance(db, PostgresqlDatabase):
            pytest.skip("other drivers take text only")
        psycopg2_sql = pytest.importorskip("psycopg2.sql")
        db.execute_sql(psycopg2_sql.SQL("BEGIN"))
        User.create(id=1)
        assert marks() == {}
        db.execute_sql(b"COMMIT")
        assert marks() == {"user:created": [1]}

    def test_a_compound_statement_of_mariadb_is_not_a_transaction(
        self, db: Database, marks: Marks
    ) -> None:
        if not isinstance(db, MySQLDatabase) or "MariaDB" not in str(
            db.execute_sql("SELECT version()").fetchone()
        ):
            pytest.skip("needs MariaDB")
        db.begin()
        User.create(id=1)
        db.execute_sql("BEGIN NOT ATOMIC SELECT 1; END")
        assert marks() == {}
        db.commit()
        assert marks() == {"user:created": [1]}
        db.execute_sql("# of MySQL alone\nBEGIN")
        User.create(id=2)
        assert marks() == {"user:created": [1]}
        db.execute_sql("# of MySQL alone\nCOMMIT")
        assert marks() == {"user:created": [1, 2]}

    def test_a_script_that_fails_after_its_commit_leaves_no_transaction(
        self, db: Database, marks: Marks
    ) -> None:
        if not isinstance(db, PostgresqlDatabase):
            pytest.skip("needs a driver that takes more than one statement")
        db.begin()
        User.create(id=1)
        with pytest.raises(ProgrammingError):
            db.execute_sql("COMMIT; SELECT nothing")
        User.create(id=2)
        assert marks() == {"user:created": [2]}  # of the first nobody can be sure

    def test_a_routine_with_a_body_of_statements_ends_no_transaction(
        self, db: Database, marks: Marks
    ) -> None:
        body = {
            SqliteDatabase: "CREATE TRIGGER t AFTER INSERT ON post BEGIN SELECT 1; END",
            PostgresqlDatabase: "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE SQL "
            "BEGIN ATOMIC SELECT 1; END",
        }
        sql = next((sql for kind, sql in body.items() if isinstance(db, kind)), None)
        if sql is None:
            pytest.skip("MySQL commits upon CREATE")
        db.begin()
        User.create(id=1)
        db.execute_sql(sql)
        assert marks() == {}
        db.rollback()
        assert marks() == {}

    def test_a_prepared_transaction_is_not_committed_yet(self, db: Database, marks: Marks) -> None:
        if not isinstance(db, PostgresqlDatabase):
            pytest.skip("PostgreSQL's")
        db.begin()
        User.create(id=1)
        db.execute_sql("PREPARE TRANSACTION 'a'")
        db.execute_sql("ROLLBACK PREPARED 'a'")
        User.create(id=2)
        assert marks() == {"user:created": [2]}

    def test_a_rollback_that_fails_ends_the_transaction_too(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory)
        memory.execute_sql("BEGIN")
        thing.create(id=1)
        with pytest.raises(IntegrityError):
            memory.execute_sql("INSERT OR ROLLBACK INTO thing (id) VALUES (1)")
        with pytest.raises(OperationalError):
            memory.execute_sql("ROLLBACK")
        thing.create(id=2)
        assert marks() == {"thing:created": [2]}

    def test_a_connection_that_is_lost_takes_its_changes_along(
        self, tmp_path: Path, marks: Marks
    ) -> None:
        database = SqliteDatabase(str(tmp_path / "app.sqlite3"))
        thing = declare(database)
        database.begin()
        thing.create(id=1)
        database.close()
        database.connect()
        thing.create(id=2)
        assert [row.id for row in thing.select()] == [2]
        assert marks() == {"thing:created": [2]}
        database.close()

    def test_marks_of_a_closed_database_are_published_at_once(
        self, tmp_path: Path, marks: Marks
    ) -> None:
        database = SqliteDatabase(str(tmp_path / "app.sqlite3"))
        declare(database)
        database.begin()
        database.close()
        record(database, ("read", 3))
        assert marks() == {"read": [3]}

    def test_the_transaction_is_over_when_marks_are_published(
        self, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        monkeypatch.setattr(
            _transactions, "publish", lambda marks: seen.append(User.select().count())
        )
        transaction = db.transaction()
        with abandoned(transaction):
            User.create()
            transaction.commit()
            db.execute_sql("SELECT 1")
        assert seen == [1]


class TestSavepoints:
    def test_an_explicit_rollback_of_a_savepoint_goes_on_inside_it(
        self, db: Database, marks: Marks
    ) -> None:
        with db.atomic():
            with db.savepoint() as savepoint:
                User.create(id=1)
                savepoint.rollback()
                User.create(id=2)
            User.create(id=3)
        assert marks() == {"user:created": [2, 3]}

    def test_an_explicit_release_keeps_what_a_later_rollback_spares(
        self, db: Database, marks: Marks
    ) -> None:
        savepoint = db.savepoint()
        with db.atomic(), abandoned(savepoint):
            User.create(id=1)
            savepoint.commit()
            User.create(id=2)
        assert marks() == {"user:created": [1]}

    def test_savepoints_in_raw_sql_are_followed(self, db: Database, marks: Marks) -> None:
        quote = db.quote[0]
        with db.atomic():
            db.execute_sql("SAVEPOINT outside")
            User.create(id=1)
            db.execute_sql(f"savepoint {quote}inside{quote} ;")
            User.create(id=2)
            db.execute_sql("ROLLBACK /* a */ TO inside")
            User.create(id=3)
            db.execute_sql(f"SAVEPOINT {quote}in between{quote}")
            User.create(id=5)
            db.execute_sql(f"ROLLBACK TO SAVEPOINT {quote}in between{quote}")
            db.execute_sql("Rollback To Savepoint inside")
            db.execute_sql("RELEASE SAVEPOINT outside")
            User.create(id=4)
        assert marks() == {"user:created": [1, 4]}

    def test_a_savepoint_outside_a_transaction_is_one_on_sqlite(
        self, db: Database, marks: Marks
    ) -> None:
        if not isinstance(db, SqliteDatabase):
            pytest.skip("PostgreSQL and MySQL refuse it")
        with db.savepoint():
            User.create(id=1)
            assert marks() == {}
        assert marks() == {"user:created": [1]}
        db.execute_sql("SAVEPOINT a")
        User.create(id=2)
        db.rollback()
        assert marks() == {"user:created": [1]}


class TestNetChange:
    def test_deleted_and_created_again_is_updated(
        self, ann: User, db: Database, marks: Marks
    ) -> None:
        with db.atomic():
            ann.delete_instance()
            User.create(id="7")
        assert marks() == {"user:updated": [7]}


class TestClassMethodsOfPeewee:
    """Newer versions of peewee refuse ``row.delete()``, which would empty the table."""

    @pytest.mark.parametrize("model", [User, Bulk])
    @pytest.mark.parametrize("name", ["delete", "update", "insert", "insert_many", "insert_from"])
    def test_are_allowed_on_a_row_just_where_peewee_allows_them(
        self, model: type[Model], name: str
    ) -> None:
        class Plain(Model):
            pass

        def is_allowed(row: Model) -> bool:
            try:
                getattr(row, name)
            except TypeError:
                return False
            return True

        assert is_allowed(model()) == is_allowed(Plain())

    @pytest.mark.skipif(
        isinstance(vars(Model)["delete"], classmethod), reason="this peewee deletes all rows"
    )
    def test_delete_called_on_a_row_does_not_empty_the_table(self, ann: User) -> None:
        with pytest.raises(TypeError, match="delete cannot be called from an instance"):
            ann.delete()
        assert User.select().count() == 1


class TestStatements:
    def test_without_opting_in_they_mark_nothing(self, ann: User, marks: Marks) -> None:
        User.insert(name="Bob").execute()
        User.insert_many([{"name": "Cid"}]).execute()
        User.bulk_create([User(name="Dan")])
        User.update(premium=True).execute()
        ann.name = "Anna"
        User.bulk_update([ann], [User.name])
        User.delete().execute()
        assert (marks(), marks.flags()) == ({}, {})

    def test_an_insert_is_created_and_returns_its_key(self, db: Database, marks: Marks) -> None:
        key = Bulk.insert(name="Ann", premium=True).execute()
        assert key == Bulk.get(name="Ann").id
        assert (marks(), marks.flags()) == ({"bulk:created": [key]}, {"bulk:premium": [key]})

    def test_many_rows_inserted_together(
        self, db: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        result = Bulk.insert_many([{"name": "a"}, {"name": "b"}]).execute()
        ids = [row.id for row in Bulk.select()]
        if isinstance(db, PostgresqlDatabase):
            assert [key for (key,) in result] == ids
        elif isinstance(db, SqliteDatabase):
            assert result == ids[-1]
        else:
            assert marks() == {}
            assert "record()" in caplog.text
            return
        assert marks() == {"bulk:created": ids}

    def test_many_rows_with_keys_of_their_own(self, db: Database, marks: Marks) -> None:
        Bulk.insert_many([{"id": 1}, {Bulk.id: 2}]).execute()
        Bulk.insert_many([(3, "c"), (4, "d")], fields=[Bulk.id, "name"]).execute()
        assert marks() == {"bulk:created": [1, 2, 3, 4]}

    def test_no_rows_mark_nothing(self, db: Database, marks: Marks) -> None:
        Bulk.insert_many([]).execute()
        Bulk.bulk_create([])
        Bulk.update(premium=True).execute()
        Bulk.delete().execute()
        assert marks() == {}

    def test_bulk_create_marks_the_keys_it_can_know(self, db: Database, marks: Marks) -> None:
        Bulk.bulk_create([Bulk(name=name) for name in "abcde"], batch_size=2)
        ids = [row.id for row in Bulk.select().order_by(Bulk.id)]
        known = isinstance(db, SqliteDatabase | PostgresqlDatabase)
        assert len(ids) == 5
        assert marks() == ({"bulk:created": ids} if known else {})

    def test_bulk_create_of_uuids(self, memory: Database, marks: Marks) -> None:
        thing = declare(
            memory, __bitmapist_bulk__=True, id=UUIDField(primary_key=True, default=uuid4)
        )
        rows = [thing(), thing()]
        thing.bulk_create(rows)
        assert marks() == {"thing:created": sorted(marks.offset(str(row.id)) for row in rows)}

    def test_an_insert_from_a_query(self, ann: User, db: Database, marks: Marks) -> None:
        columns = User.select(User.id, User.name, User.premium)
        Bulk.insert_from(columns, [Bulk.id, Bulk.name, Bulk.premium]).execute()
        known = isinstance(db, SqliteDatabase | PostgresqlDatabase)
        assert marks() == ({"bulk:created": [7]} if known else {})

    def test_an_upsert_marks_nothing(self, db: Database, marks: Marks) -> None:
        if isinstance(db, PostgresqlDatabase):
            Bulk.insert(id=1).on_conflict_ignore().execute()
        else:
            Bulk.replace(id=1).execute()
        assert Bulk.select().count() == 1
        assert marks() == {}

    def test_an_update_marks_the_rows_that_it_matches(self, db: Database, marks: Marks) -> None:
        for id_ in (1, 2, 3):
            Bulk.create(id=id_)
        marks.forget()
        assert Bulk.update(premium=True).where(Bulk.id < 3).execute() == 2
        assert marks() == {"bulk:updated": [1, 2]}
        assert marks.flags() == {"bulk:premium": [1, 2]}

    def test_an_update_that_changes_its_own_condition(self, db: Database, marks: Marks) -> None:
        Bulk.create(id=1)
        marks.forget()
        Bulk.update({Bulk.premium: True}).where(~Bulk.premium).execute()
        assert marks() == {"bulk:updated": [1]}

    def test_a_query_can_be_executed_again(self, db: Database, marks: Marks) -> None:
        Bulk.create(id=1)
        query = Bulk.update(premium=True).where(~Bulk.premium)
        marks.forget()
        assert query.execute() == 1
        assert query.execute() == 0
        assert marks() == {"bulk:updated": [1]}
        Bulk.create(id=2)
        assert query.execute() == 1
        assert marks() == {"bulk:created": [2], "bulk:updated": [1, 2]}

    def test_an_update_of_the_key_moves_the_flags(self, db: Database, marks: Marks) -> None:
        Bulk.create(id=1, premium=True)
        Bulk.create(id=2)
        marks.forget()
        with db.atomic():
            Bulk.update(id=Bulk.id + 10, premium=Bulk.premium).execute()
            Bulk.update(id=5).where(Bulk.id == 11).execute()
        assert marks() == {"bulk:updated": [5, 12]}
        assert marks.flags() == {"bulk:premium": [5]}

    def test_bulk_update_marks_its_rows(self, db: Database, marks: Marks) -> None:
        rows = [Bulk.create(id=id_) for id_ in (1, 2, 3)]
        marks.forget()
        for row in rows:
            row.premium = row.id != 2
        assert Bulk.bulk_update(rows, [Bulk.premium], batch_size=2) in (2, 3)  # MySQL: changed
        assert marks.flags() == {"bulk:premium": [1, 3]}
        assert marks()["bulk:updated"][::2] == [1, 3]

    def test_what_the_caller_returns_stays_as_it_is(self, db: Database, marks: Marks) -> None:
        if isinstance(db, MySQLDatabase):
            pytest.skip("needs RETURNING")
        assert [row.id for row in Bulk.insert(id=1).returning(Bulk).execute()] == [1]
        updated = Bulk.update(name="x").returning(Bulk.name).dicts().execute()
        assert list(updated) == [{"name": "x"}]
        assert marks()["bulk:updated"] == [1]
        deleted = Bulk.delete().returning(Bulk.id).tuples().execute()
        assert list(deleted) == [(1,)]
        assert marks()["bulk:deleted"] == [1]

    @pytest.mark.parametrize("row_type", ["model", "tuples", "dicts", "namedtuples", "objects"])
    @pytest.mark.parametrize("form", ["insert", "insert_many", "insert_from"])
    def test_an_insert_gives_what_the_caller_returns(
        self, db: Database, marks: Marks, form: str, row_type: str
    ) -> None:
        if isinstance(db, MySQLDatabase):
            pytest.skip("needs RETURNING")
        User.create(id=1, name="a")
        marks.forget()
        query = {
            "insert": lambda: Bulk.insert(name="a"),
            "insert_many": lambda: Bulk.insert_many([{"name": "a"}]),
            "insert_from": lambda: Bulk.insert_from(
                User.select(User.name, User.premium), [Bulk.name, Bulk.premium]
            ),
        }[form]().returning(Bulk.name, Bulk.name.concat("!").alias("loud"))
        if row_type != "model":
            query = getattr(query, row_type)()
        (row,) = list(query.execute())
        expected = {"tuples": ("a", "a!"), "dicts": {"name": "a", "loud": "a!"}}
        if row_type in expected:
            assert row == expected[row_type]
        elif row_type == "namedtuples":
            assert row._asdict() == {"name": "a", "loud": "a!"}
        else:
            assert (row.name, row.loud, row.id) == ("a", "a!", None)
        assert marks() == {"bulk:created": [Bulk.get().id]}

    def test_what_the_caller_returns_is_asked_for_once(self, db: Database, marks: Marks) -> None:
        if isinstance(db, MySQLDatabase):
            pytest.skip("needs RETURNING")
        query = Bulk.insert_many([{"name": "a"}, {"name": "b"}]).returning(Bulk.name)
        returned = query.execute()
        assert [column[0] for column in returned.cursor.description] == ["name"]
        assert len(returned) == 2
        assert [row.name for row in returned] == ["a", "b"]
        assert len(marks()["bulk:created"]) == 2

    def test_a_query_that_returns_something_can_be_executed_again(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory, __bitmapist_bulk__=True, n=IntegerField())
        query = thing.insert(n=5).returning(thing.n).tuples()
        assert list(query.execute()) == [(5,)]
        assert list(query.execute()) == [(5,)]
        assert marks() == {"thing:created": [row.id for row in thing.select()]}

    def test_no_rows_return_nothing(self, db: Database, marks: Marks) -> None:
        if isinstance(db, MySQLDatabase):
            pytest.skip("needs RETURNING")
        assert Bulk.insert_many([]).returning(Bulk.name).execute() is None
        assert marks() == {}

    def test_keys_returned_as_dicts_are_known(self, db: Database, marks: Marks) -> None:
        result = Bulk.insert_many([{"id": 3}]).dicts().execute()
        if isinstance(db, PostgresqlDatabase):
            assert list(result) == [{"id": 3}]
        assert marks() == {"bulk:created": [3]}

    def test_rows_of_a_virtual_table(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Entry(Bitmapistable, FTS5Model):
            __bitmapist_bulk__ = True
            text = SearchField()

            class Meta:
                database = memory

        memory.create_tables([Entry])
        Entry.create(text="a")
        assert Entry.insert(text="b").execute() == 2
        Entry.insert_many([{"rowid": 5, "text": "e"}]).execute()
        assert marks() == {"entry:created": [1, 2, 5]}
        # SQLite's RETURNING calls each of them -1.
        Entry.insert_many([{"text": "f"}, {"text": "g"}]).execute()
        assert "rows were inserted into Entry, but are not marked" in caplog.text
        assert Entry.update(text="x").where(Entry.rowid == 2).execute() == 1
        assert Entry.delete().where(Entry.rowid == 5).execute() == 1
        assert marks() == {
            "entry:created": [1, 2, 5],
            "entry:updated": [2],
            "entry:deleted": [5],
        }

    def test_a_plain_model_of_a_virtual_table(self, memory: Database, marks: Marks) -> None:
        memory.execute_sql("CREATE VIRTUAL TABLE note USING fts5(text)")

        class Note(Bitmapistable, Model):
            __bitmapist_bulk__ = True
            rowid = RowIDField()
            text = CharField()

            class Meta:
                database = memory

        Note.insert(text="a").execute()
        assert Note.delete().execute() == 1
        assert marks() == {"note:created": [1], "note:deleted": [1]}

    def test_the_chosen_id_of_each_row_is_read(self, memory: Database, marks: Marks) -> None:
        user = declare(memory, "User")
        post = declare(
            memory,
            "Post",
            __bitmapist_bulk__=True,
            __bitmapist_id__="author_id",
            author=ForeignKeyField(user),
            title=CharField(default=""),
        )
        user.create(id=7)
        user.create(id=8)
        post.insert_many([{"author": 7}, {"author": 8}]).execute()
        post.update(title="x").where(post.author == 7).execute()
        post.delete().where(post.author == 8).execute()
        assert marks() == {
            "user:created": [7, 8],
            "post:created": [7, 8],
            "post:updated": [7],
            "post:deleted": [8],
        }

    def test_rows_that_a_trigger_keeps_are_not_deleted(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(
            memory, __bitmapist_bulk__=True, __bitmapist_id__="owner", owner=IntegerField()
        )
        memory.execute_sql(
            "CREATE TRIGGER keep BEFORE DELETE ON thing WHEN OLD.owner = 7 "
            "BEGIN SELECT RAISE(IGNORE); END"
        )
        thing.insert_many([{"owner": 7}, {"owner": 8}]).execute()
        thing.delete().execute()
        assert marks() == {"thing:created": [7, 8], "thing:deleted": [8]}

    def test_rows_that_cannot_be_found_are_changed_all_the_same(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Unreadable(IntegerField):
            def python_value(self, value: Any) -> int:
                raise RuntimeError("unreadable")

        thing = declare(memory, id=Unreadable(primary_key=True), n=IntegerField(default=0))
        memory.execute_sql("INSERT INTO thing (id, n) VALUES (1, 0)")
        assert thing.set_by_id(1, {"n": 1}) == 1
        assert thing.set_by_id(1, {"id": 2}) == 1
        assert "could not find the rows of Thing to be changed" in caplog.text
        assert "could not find the rows of Thing whose keys change" in caplog.text
        assert marks() == {}

    def test_rows_that_cannot_be_read_are_deleted_all_the_same(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        thing = declare(
            memory,
            __bitmapist_bulk__=True,
            __bitmapist_id__="owner",
            owner=IntegerField(default=7),
            note=CharField(default=""),
        )
        thing.create(id=1)
        memory.execute_sql("ALTER TABLE thing DROP COLUMN note")
        assert thing.delete().execute() == 1
        assert "could not read the rows of Thing to be deleted" in caplog.text

    def test_a_row_without_a_usable_id_does_not_keep_others_unmarked(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        def reciprocal(row: Any) -> Any:
            return 60 // row.number

        thing = declare(
            memory, __bitmapist_bulk__=True, __bitmapist_id__=reciprocal, number=IntegerField()
        )
        thing.insert_many([{"number": 0}, {"number": 6}]).execute()
        assert marks() == {"thing:created": [10]}
        assert "could not read a row of Thing" in caplog.text

    def test_a_row_count_asked_for_is_returned(self, db: Database) -> None:
        insert = Bulk.insert_many([{"id": 7}, {"id": 8}])
        assert insert.as_rowcount().execute() == 2

    def test_an_update_of_the_key_from_another_table(self, db: Database, marks: Marks) -> None:
        if isinstance(db, MySQLDatabase):
            pytest.skip("MySQL has no UPDATE ... FROM")
        User.create(id=2)
        Bulk.insert_many([{"id": 1}, {"id": 2}]).execute()
        marks.forget()
        Bulk.update(id=Bulk.id + User.id + 5).from_(User).where(User.id == Bulk.id).execute()
        assert marks() == {"bulk:updated": [9]}

    def test_an_update_of_a_textual_key_by_an_expression(
        self, memory: Database, marks: Marks
    ) -> None:
        tag = declare(memory, "Tag", __bitmapist_bulk__=True, slug=CharField(primary_key=True))
        tag.create(slug="a")
        marks.forget_days()
        tag.update(slug=tag.slug.concat("b")).execute()
        assert marks() == {"tag:updated": [marks.offset("ab")]}

    def test_composite_keys(self, memory: Database, marks: Marks) -> None:
        thing = declare(
            memory,
            __bitmapist_bulk__=True,
            __bitmapist_flags__=("on",),
            a=IntegerField(),
            b=CharField(),
            on=BooleanField(default=False),
            primary_key=CompositeKey("a", "b"),
        )
        thing.insert_many([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]).execute()
        thing.update(on=True).where(thing.a == 2).execute()
        thing.delete().where(thing.a == 1).execute()
        one, two = marks.offset("1:x"), marks.offset("2:y")
        assert marks() == {
            "thing:created": sorted([one, two]),
            "thing:updated": [two],
            "thing:deleted": [one],
        }
        assert marks.flags() == {"thing:on": [two]}

    def test_more_rows_than_fit_into_one_select(self, memory: Database, marks: Marks) -> None:
        thing = declare(
            memory, __bitmapist_bulk__=True, __bitmapist_flags__=("on",), on=BooleanField()
        )
        with memory.atomic():
            for _ in range(12):
                thing.insert_many([{"on": True}] * 100).execute()
        marks.forget()
        thing.update(on=False).where(thing.id > 2).execute()
        thing.update(on=True).where(thing.id <= 1100).execute()
        assert marks.flags() == {"thing:on": list(range(1, 1101))}

    def test_limits_and_order_of_a_statement_count(self, db: Database, marks: Marks) -> None:
        if not isinstance(db, MySQLDatabase):
            pytest.skip("only MySQL has UPDATE ... ORDER BY ... LIMIT")
        for id_ in (1, 2, 3):
            Bulk.create(id=id_)
        marks.forget()
        Bulk.update(premium=True).order_by(Bulk.id.desc()).limit(1).execute()
        Bulk.delete().order_by(Bulk.id).limit(1).execute()
        assert marks() == {"bulk:updated": [3], "bulk:deleted": [1]}

    def test_saving_a_bulk_model_marks_no_more_than_any(self, db: Database, marks: Marks) -> None:
        row = Bulk.create(id=1)
        marks.forget()
        row.save()
        assert marks() == {}
        row.premium = True
        row.save()
        row.delete_instance()
        assert marks() == {"bulk:updated": [1], "bulk:deleted": [1]}

    def test_deleting_a_bulk_row_writes_no_more_bits_than_any(
        self, db: Database, bit_commands: Callable[[], int]
    ) -> None:
        Bulk.create(id=1, premium=True)
        before = bit_commands()
        Bulk.get_by_id(1).delete_instance()
        assert bit_commands() - before == 4  # day, week, month and the flag

    def test_set_by_id_and_delete_by_id_mark_without_opting_in(
        self, ann: User, marks: Marks
    ) -> None:
        User.set_by_id(7, {"premium": True})
        assert (marks(), marks.flags()) == ({"user:updated": [7]}, {"user:premium": [7]})
        User.delete_by_id(7)
        assert (marks(), marks.flags()) == ({"user:updated": [7], "user:deleted": [7]}, {})

    def test_item_access_is_by_id_too(self, ann: User, marks: Marks) -> None:
        User[7] = {"name": "Anna"}
        del User[7]
        assert marks() == {"user:updated": [7], "user:deleted": [7]}

    def test_a_statement_on_another_database_joins_its_transaction(
        self, memory: Database, tmp_path: Path, marks: Marks
    ) -> None:
        other = SqliteDatabase(str(tmp_path / "other.sqlite3"))
        thing = declare(memory, __bitmapist_bulk__=True)
        with thing.bind_ctx(other):
            other.create_tables([thing])
        with abandoned(other.atomic()):
            thing.insert({thing.id: 3}).execute(other)
        assert marks() == {}
        other.close()


class TestKeys:
    def test_a_uuid_key_is_mapped_by_its_standard_text(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory, id=UUIDField(primary_key=True, default=uuid4), n=IntegerField())
        text = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8"
        thing.create(id=text, n=1)
        row = thing.create(n=2)
        assert row.save() == 1
        thing.get_by_id(UUID(text)).delete_instance()
        first = marks.offset("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
        both = sorted([first, marks.offset(str(row.id))])
        assert marks() == {"thing:created": both, "thing:deleted": [first]}

    def test_a_uuid_default_without_force_insert_updates_no_row(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory, id=UUIDField(primary_key=True, default=uuid4), name=CharField())
        assert thing(name="x").save() == 0
        assert marks() == {}

    def test_a_textual_key_is_mapped_even_if_it_reads_like_a_number(
        self, memory: Database, marks: Marks
    ) -> None:
        tag = declare(memory, "Tag", slug=CharField(primary_key=True))
        tag.create(slug="100000")
        tag.create(slug=100001)
        assert marks() == {"tag:created": sorted(map(marks.offset, ("100000", "100001")))}
        assert marks()["tag:created"] == [0, 1]

    def test_a_foreign_key_to_a_textual_key_is_as_textual(
        self, memory: Database, marks: Marks
    ) -> None:
        tag = declare(memory, "Tag", slug=CharField(primary_key=True))
        profile = declare(
            memory, "Profile", tag=ForeignKeyField(tag, primary_key=True), n=IntegerField()
        )
        use = declare(memory, "Use", __bitmapist_id__="tag", tag=ForeignKeyField(tag))
        deeper = declare(memory, "Deeper", p=ForeignKeyField(profile, primary_key=True))
        seven = tag.create(slug="7")
        use.create(tag=seven)
        deeper.create(p=profile.create(tag=seven, n=1))
        offset = marks.offset("7")
        names = ("tag", "use", "profile", "deeper")
        assert marks() == {f"{name}:created": [offset] for name in names}

    def test_digits_from_a_numeric_column_are_that_number(
        self, memory: Database, marks: Marks
    ) -> None:
        class TextualNumber(BigIntegerField):
            def python_value(self, value: Any) -> Any:
                return None if value is None else str(value)

        thing = declare(memory, id=TextualNumber(primary_key=True))
        thing.create(id=7)
        assert marks() == {"thing:created": [7]}

    def test_digits_behind_a_foreign_key_to_numbers_are_that_number(
        self, memory: Database, marks: Marks
    ) -> None:
        class TextualNumber(BigIntegerField):
            def python_value(self, value: Any) -> Any:
                return None if value is None else str(value)

        user = declare(memory, "User", id=TextualNumber(primary_key=True))
        post = declare(memory, "Post", __bitmapist_id__="author", author=ForeignKeyField(user))
        post.create(author=7)
        assert marks() == {"post:created": [7]}

    def test_a_chosen_foreign_key_by_its_own_name_for_the_id(
        self, memory: Database, marks: Marks
    ) -> None:
        tag = declare(memory, "Tag", slug=CharField(primary_key=True))
        use = declare(
            memory,
            "Use",
            __bitmapist_id__="tag_slug",
            tag=ForeignKeyField(tag, object_id_name="tag_slug"),
        )
        use.create(tag="100000")
        assert marks() == {"use:created": [marks.offset("100000")]}

    def test_a_key_that_cannot_be_noted_is_logged_and_the_row_written(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Document(CharField):
            def db_value(self, value: Any) -> Any:
                return json.dumps(value)

            def python_value(self, value: Any) -> Any:
                return json.loads(value)

        thing = declare(
            memory,
            __bitmapist_bulk__=True,
            key=Document(primary_key=True),
            n=IntegerField(default=0),
        )
        row = thing.create(key={"a": 1})
        assert row.delete_instance() == 1
        thing.insert(key={"b": 2}).execute()
        assert thing.update(n=1).execute() == 1
        assert thing.delete().execute() == 1
        assert marks() == {}
        assert "unhashable" in caplog.text

    def test_a_number_given_as_text_is_the_number(self, db: Database, marks: Marks) -> None:
        with db.atomic():
            User.create(id="7")
            User.get_by_id(7).delete_instance()
        assert marks() == {}

    def test_a_composite_key_is_one_mapped_id(self, memory: Database, marks: Marks) -> None:
        user = declare(memory, "User")
        member = declare(
            memory,
            "Member",
            user=ForeignKeyField(user),
            team=CharField(),
            role=CharField(default=""),
            primary_key=CompositeKey("user", "team"),
        )
        row = member.create(user=user.create(id=7), team="red")
        row.role = "captain"
        row.save()
        row.delete_instance()
        offset = marks.offset("7:red")
        assert marks() == {
            "user:created": [7],
            "member:created": [offset],
            "member:updated": [offset],
            "member:deleted": [offset],
        }

    def test_a_key_made_by_an_sql_function_is_logged_and_the_row_is_there(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        tag = declare(memory, "Tag", slug=CharField(primary_key=True))
        with memory.atomic():
            tag.create(slug=fn.LOWER("ANN"))
            tag.create(slug="bob")
        assert tag.select().count() == 2
        assert marks() == {"tag:created": [marks.offset("bob")]}
        assert "is not an id" in caplog.text

    def test_a_table_without_a_key_marks_the_chosen_id(
        self, memory: Database, marks: Marks
    ) -> None:
        log = declare(
            memory, "Log", __bitmapist_id__="user", user=IntegerField(), primary_key=False
        )
        with memory.atomic():
            log.create(user=7)
            log.create(user=8)
        assert marks() == {"log:created": [7, 8]}


class TestOptions:
    @pytest.mark.parametrize("chosen", ["author", "author_id"])
    def test_the_id_is_an_attribute(self, memory: Database, marks: Marks, chosen: str) -> None:
        user = declare(memory, "User")
        post = declare(
            memory, "Post", __bitmapist_id__=chosen, author=ForeignKeyField(user, null=True)
        )
        post.create(id=1, author=user.create(id=7))
        post.create(id=2)
        assert marks() == {"user:created": [7], "post:created": [7]}

    def test_the_id_of_a_foreign_key_is_read_without_a_query(
        self, ann: User, monkeypatch: pytest.MonkeyPatch, db: Database
    ) -> None:
        queries: list[Any] = []
        execute = type(db).execute_sql

        def noted(self: Database, sql: str, *args: Any) -> Any:
            queries.append(sql)
            return execute(self, sql, *args)

        monkeypatch.setattr(type(db), "execute_sql", noted)
        Post.create(author=7)
        assert len(queries) == 1

    def test_the_id_is_a_property_or_a_method(self, memory: Database, marks: Marks) -> None:
        def doubled(self: Any) -> Any:
            return self.id * 2

        by_property = declare(
            memory, "A", __bitmapist_id__="twice", twice=property(doubled), x=IntegerField()
        )
        by_method = declare(memory, "B", __bitmapist_id__=doubled)
        by_property.create(id=1, x=0)
        by_method.create(id=2)
        assert marks() == {"a:created": [2], "b:created": [4]}

    def test_a_flag_that_is_computed_follows_every_update(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(
            memory,
            __bitmapist_flags__=("paying",),
            plan=CharField(null=True),
            paying=property(lambda self: self.plan is not None),
        )
        row = thing.create(id=1)
        assert marks.flags() == {}
        row.plan = "gold"
        row.save()
        assert marks.flags() == {"thing:paying": [1]}
        part = thing.select(thing.id).get()
        part.plan = None
        part.save()
        assert marks.flags() == {}

    @pytest.mark.parametrize(
        "option", [{"__bitmapist_flags__": ("nothing",)}, {"__bitmapist_id__": "nothing"}]
    )
    def test_an_option_that_names_nothing_is_an_error_at_declaration(
        self, memory: Database, option: dict[str, Any]
    ) -> None:
        with pytest.raises(TypeError, match="Thing has no attribute 'nothing'"):
            declare(memory, **option)

    def test_the_mixin_after_the_model_is_an_error_that_says_so(self) -> None:
        with pytest.raises(TypeError, match="PeeweeBitmapistable before Model"):

            class Wrong(Model, Bitmapistable):
                pass

    def test_the_mixin_after_a_base_model_is_an_error_too(self) -> None:
        class Base(Model):
            pass

        with pytest.raises(TypeError, match="before Model"):

            class Wrong(Base, Bitmapistable):
                pass

    def test_an_id_method_that_raises_is_logged_and_the_row_is_there(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(self: Any) -> int:
            raise KeyError("broken")

        thing = declare(memory, __bitmapist_id__=broken, __bitmapist_bulk__=True, n=IntegerField())
        with memory.atomic():
            row = thing.create(n=1)
            row.n = 2
            row.save()
            thing.insert(n=3).execute()
            thing.update(n=4).execute()
            assert row.delete_instance() == 1
            assert thing.delete().execute() == 1
        assert marks() == {}
        assert "broken" in caplog.text

    def test_an_option_that_was_spoilt_later_is_logged_and_the_row_saved(
        self, memory: Database, marks: Marks, caplog: pytest.LogCaptureFixture
    ) -> None:
        thing = declare(memory)
        thing.__bitmapist_events__ = None
        with memory.atomic():
            thing.create(id=1)
        thing.create(id=2)
        assert thing.select().count() == 2
        assert marks() == {}
        assert caplog.text.count("could not work out what a transaction has changed") == 2

    def test_subclasses_mark_under_their_own_name(self, memory: Database, marks: Marks) -> None:
        base = declare(memory, "Base", __bitmapist_flags__=("on",), on=BooleanField())
        child: Any = type("Child", (base,), {})
        memory.create_tables([child])
        child.create(id=1, on=True)
        assert (marks(), marks.flags()) == ({"child:created": [1]}, {"child:on": [1]})

    def test_the_identity_is_what_marks_carry(self, ann: User) -> None:
        assert user_id(ann) == 7
        assert user_id(Post(author=ann)) == 7
        assert user_id(User()) is None

    def test_two_classes_of_one_table_are_one_row(self, ann: User, marks: Marks) -> None:
        class Member(Bitmapistable, Model):
            premium = BooleanField(default=False)
            visits = IntegerField(default=0)

            class Meta:
                table_name = "users"
                database = User._meta.database

        with User._meta.database.atomic():
            ann.delete_instance()
            Member.create(id=7)
        assert marks() == {"member:updated": [7]}


class TestDatabases:
    def test_a_database_that_is_bound_later_is_followed(
        self, tracker: Tracker, marks: Marks
    ) -> None:
        class Thing(Bitmapistable, Model):
            pass

        database = SqliteDatabase(":memory:")
        Thing.bind(database)
        database.create_tables([Thing])
        with database.manual_commit():
            database.begin()
            Thing.create(id=1)
            database.rollback()
        assert marks() == {}
        database.close()

    def test_a_model_bound_behind_our_back_is_followed_from_its_first_mark(
        self, tracker: Tracker, marks: Marks
    ) -> None:
        class Thing(Bitmapistable, Model):
            pass

        database = SqliteDatabase(":memory:")
        Thing._meta.set_database(database)
        database.create_tables([Thing])
        with database.atomic(), abandoned(database.atomic()):
            Thing.create(id=1)
        assert marks() == {}
        with database.atomic(), database.atomic():
            Thing.create(id=2)
        assert marks() == {"thing:created": [2]}
        database.close()

    @pytest.mark.parametrize("released", [True, False])
    def test_savepoints_from_before_the_first_mark_are_around_it(
        self, tracker: Tracker, marks: Marks, released: bool
    ) -> None:
        class Thing(Bitmapistable, Model):
            pass

        database = SqliteDatabase(":memory:")
        Thing._meta.set_database(database)
        database.create_tables([Thing])
        with database.atomic():
            with database.atomic() if released else abandoned(database.atomic()):
                Thing.create(id=1)
            Thing.create(id=2)
        assert marks() == {"thing:created": [1, 2] if released else [2]}
        database.close()

    def test_a_proxy_is_followed_once_it_is_initialised(
        self, tracker: Tracker, marks: Marks
    ) -> None:
        proxy = DatabaseProxy()

        class Thing(Bitmapistable, Model):
            __bitmapist_bulk__ = True

            class Meta:
                database = proxy

        database = SqliteDatabase(":memory:")
        proxy.initialize(database)
        database.create_tables([Thing])
        with proxy.manual_commit():
            proxy.begin()
            Thing.create(id=1)
            Thing.insert(id=2).execute()
            Thing.insert_many([{"id": 3}]).execute()
            record(proxy, ("read", 1))
            assert marks() == {}
            proxy.commit()
        assert marks() == {"thing:created": [1, 2, 3], "read": [1]}
        database.close()

    def test_flask_db_marks_with_its_requests(
        self, app: Flask, tmp_path: Path, marks: Marks
    ) -> None:
        flask_db = FlaskDB(app, SqliteDatabase(str(tmp_path / "app.sqlite3")))

        class Thing(Bitmapistable, flask_db.Model):  # type: ignore[name-defined]
            pass

        flask_db.database.create_tables([Thing])
        flask_db.database.close()

        @app.post("/<int:id>")
        def create(id: int) -> str:  # noqa: A002
            with flask_db.database.atomic() as transaction:
                Thing.create(id=id)
                record(flask_db, ("asked", id))
                if id % 2:
                    transaction.rollback()
            return ""

        client = app.test_client()
        for id_ in (1, 2):
            client.post(f"/{id_}")
        assert marks() == {"thing:created": [2], "asked": [2]}

    def test_flask_db_without_an_app_is_followed_later(
        self, app: Flask, tmp_path: Path, marks: Marks
    ) -> None:
        flask_db = FlaskDB(database=SqliteDatabase(str(tmp_path / "app.sqlite3")))

        class Thing(Bitmapistable, flask_db.Model):  # type: ignore[name-defined]
            pass

        flask_db.init_app(app)
        database = flask_db.database
        database.create_tables([Thing])
        database.begin()
        Thing.create(id=1)
        database.rollback()
        database.close()
        assert marks() == {}

    def test_pooled_connections_hand_nothing_on(self, tmp_path: Path, marks: Marks) -> None:
        database = PooledSqliteDatabase(str(tmp_path / "app.sqlite3"), max_connections=2)
        thing = declare(database)
        with abandoned(database.atomic()):
            thing.create(id=1)
        database.close()
        database.connect()
        with database.atomic():
            thing.create(id=2)
        database.close()
        assert marks() == {"thing:created": [2]}
        database.close_all()

    def test_threads_have_transactions_of_their_own(self, tmp_path: Path, marks: Marks) -> None:
        database = SqliteDatabase(
            str(tmp_path / "app.sqlite3"), timeout=30, pragmas={"synchronous": 0}
        )
        thing = declare(database)
        failed = []

        def work(first: int) -> None:
            try:
                for id_ in range(first, first + 10):
                    with database.atomic() as transaction:
                        thing.create(id=id_)
                        if id_ % 2:
                            transaction.rollback()
            except Exception as error:
                failed.append(error)
            finally:
                database.close()

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert marks() == {"thing:created": list(range(0, 40, 2))}
        database.close()

    def test_one_connection_shared_by_threads_is_one_transaction(self, marks: Marks) -> None:
        database = SqliteDatabase(":memory:", thread_safe=False, check_same_thread=False)
        thing = declare(database)
        with abandoned(database.atomic()):
            thread = threading.Thread(target=thing.create, kwargs={"id": 1})
            thread.start()
            thread.join()
        assert thing.select().count() == 0
        assert marks() == {}
        with database.atomic():
            thread = threading.Thread(target=thing.create, kwargs={"id": 2})
            thread.start()
            thread.join()
        assert marks() == {"thing:created": [2]}
        database.close()

    def test_two_databases_commit_apart(
        self, memory: Database, tmp_path: Path, marks: Marks
    ) -> None:
        other = SqliteDatabase(str(tmp_path / "other.sqlite3"))
        here, there = declare(memory, "Here"), declare(other, "There")
        with abandoned(memory.atomic()):
            here.create(id=1)
            with other.atomic():
                there.create(id=2)
        assert marks() == {"there:created": [2]}
        other.close()

    def test_a_followed_database_still_has_its_own_kind(self, memory: Database) -> None:
        declare(memory)
        declare(memory, "Another")
        kind = type(memory)
        assert isinstance(memory, SqliteDatabase)
        assert (kind.__name__, kind.__module__) == ("SqliteDatabase", "peewee")
        assert kind.__mro__[1] is SqliteDatabase

    @pytest.mark.skipif(VERSION < (4, 0), reason="peewee < 4 has no async databases")
    def test_an_async_database_is_refused(self) -> None:
        pytest.importorskip("aiosqlite")
        from playhouse.pwasyncio import AsyncSqliteDatabase

        with pytest.raises(TypeError, match="async"):

            class Thing(Bitmapistable, Model):
                class Meta:
                    database = AsyncSqliteDatabase(":memory:")

    @pytest.mark.skipif(VERSION < (4, 5), reason="peewee < 4.5 has no after_commit()")
    def test_peewees_own_callbacks_run_after_the_marks(
        self, memory: Database, marks: Marks
    ) -> None:
        thing = declare(memory)
        seen = []
        with memory.atomic():
            thing.create(id=1)
            memory.after_commit(lambda: seen.append(marks()))
        assert seen == [{"thing:created": [1]}]


class TestSignals:
    def test_statements_of_signal_handlers_are_tracked_too(
        self, memory: Database, marks: Marks
    ) -> None:
        class Base(Bitmapistable, signals.Model):
            __bitmapist_bulk__ = True

            class Meta:
                database = memory

        class Thing(Base):
            n = IntegerField(default=0)

        class Log(Base):
            pass

        memory.create_tables([Thing, Log])
        Thing.create(id=1)
        Thing.create(id=2)
        marks.forget()

        @signals.post_save(sender=Thing)
        def log(_: Any, instance: Any, created: bool) -> None:
            Log.insert(id=9).execute()
            Thing.update(n=5).where(Thing.id == 2).execute()

        row = Thing.get_by_id(1)
        row.n = 3
        row.save()
        assert marks() == {"thing:updated": [1, 2], "log:created": [9]}

    def test_a_save_of_ones_own_is_marked(self, memory: Database, marks: Marks) -> None:
        class Thing(Bitmapistable, Model):
            n = IntegerField(default=0)

            class Meta:
                database = memory

            def save(self, *args: Any, **kwargs: Any) -> Any:
                self.n += 1
                return super().save(*args, **kwargs)

        memory.create_tables([Thing])
        Thing.create(id=1).save()
        assert marks() == {"thing:created": [1], "thing:updated": [1]}


class TestRecord:
    def test_raw_sql_can_be_marked(self, db: Database, marks: Marks) -> None:
        with db.atomic():
            db.execute_sql("INSERT INTO users (id, premium, visits) VALUES (5, '0', 0)")
            record(db, ("user:created", 5))
        assert marks() == {"user:created": [5]}


class TestSurroundings:
    def test_without_any_app_rows_are_written_and_the_reason_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with closing(SqliteDatabase(":memory:")) as database:
            thing = declare(database)
            thing.create()
            assert thing.select().count() == 1
        assert "FlaskBitmapist(app)" in caplog.text


def test_a_missing_peewee_is_an_error_that_says_what_to_install() -> None:
    code = "import sys\nsys.modules['peewee'] = None\nimport flask_bitmapist.adapters.peewee\n"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        'ImportError: peewee is missing: pip install "flask-bitmapist[peewee]"' in finished.stderr
    )


class TestNotSeen:
    def test_raw_sql(self, db: Database, marks: Marks) -> None:
        db.execute_sql("INSERT INTO users (id, premium, visits) VALUES (5, '0', 0)")
        User.raw("SELECT 1").execute()
        assert marks() == {}

    def test_rows_that_the_database_deletes(self, tracker: Tracker, marks: Marks) -> None:
        with closing(SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})) as database:
            user = declare(database, "User")
            post = declare(database, "Post", author=ForeignKeyField(user, on_delete="CASCADE"))
            post.create(author=user.create(id=7))
            marks.forget()
            user.get_by_id(7).delete_instance()
            assert post.select().count() == 0
            assert marks() == {"user:deleted": [7]}

    def test_the_same_value_counts_as_a_change(self, ann: User, marks: Marks) -> None:
        ann.name = "Ann"
        ann.save()
        changed = not isinstance(User._meta.database, MySQLDatabase)
        assert marks() == ({"user:updated": [7]} if changed else {})
