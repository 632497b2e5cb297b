"""What a transaction of MongoDB marks, and when."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import mongoengine
import pytest
from mongoengine import BooleanField, Document, IntField, StringField
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import InvalidOperation, OperationFailure
from servers import eventually

from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable, record

from .marks import Marks

pytest_plugins = ["adapters.mongodb"]

#: PyMongo's label of an error after which the whole transaction may be tried again.
TRANSIENT = "TransientTransactionError"

bound = pytest.mark.skipif(
    not hasattr(ClientSession, "bind"), reason="PyMongo < 4.17 binds no sessions to operations"
)


class Account(MongoEngineBitmapistable, Document):
    __bitmapist_flags__ = ("premium",)
    __bitmapist_bulk__ = True

    id = IntField(primary_key=True)
    name = StringField(unique=True, sparse=True)
    premium = BooleanField(default=False)


class Invoice(MongoEngineBitmapistable, Document):
    id = IntField(primary_key=True)


class Other(Document):
    """Has not the mixin."""

    id = IntField(primary_key=True)


@pytest.fixture
def client(server_database: Database[Any], marks: Marks) -> MongoClient[Any]:
    client: MongoClient[Any] = server_database.client
    if "setName" not in client.admin.command("hello"):
        pytest.skip("transactions need a replica set")
    Account.ensure_indexes()
    Invoice.ensure_indexes()
    Other.ensure_indexes()
    return client


@pytest.fixture
def session(client: MongoClient[Any]) -> Iterator[ClientSession]:
    with client.start_session() as session:
        yield session
    assert not [name for name in vars(session) if "bitmapist" in name]


@contextmanager
def transaction(client: MongoClient[Any]) -> Iterator[ClientSession]:
    """A transaction that MongoEngine writes in, of a session bound to this thread."""
    with client.start_session() as session, session.bind(), session.start_transaction():
        yield session


class UndoneError(Exception):
    pass


def undone(client: MongoClient[Any], work: Callable[[], Any]) -> None:
    """Do `work` in a transaction that an exception ends."""
    with suppress(UndoneError), transaction(client):
        work()
        raise UndoneError


@bound
class TestBoundSessions:
    def test_marks_wait_for_the_commit(self, client: MongoClient[Any], marks: Marks) -> None:
        with transaction(client):
            Account(id=1, premium=True).save()
            Account(id=2).save()
            assert marks() == {}
        assert marks() == {"account:created": [1, 2]}
        assert marks.flags() == {"account:premium": [1]}

    def test_an_aborted_transaction_marks_nothing(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        undone(client, lambda: Account(id=1).save())
        assert Account.objects.count() == 0
        assert marks() == {}

    def test_an_abandoned_session_marks_nothing(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        with client.start_session() as session, session.bind():
            session.start_transaction()
            Account(id=1).save()
        assert Account.objects.count() == 0
        assert marks() == {}

    def test_each_transaction_marks_only_its_own_changes(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        with client.start_session() as session, session.bind():
            with session.start_transaction():
                Account(id=1).save()
            session.start_transaction()
            Account(id=2).save()
            session.abort_transaction()
            with session.start_transaction():
                Account(id=3).save()
            Account(id=4).save()
            assert marks() == {"account:created": [1, 3, 4]}
        assert not [name for name in vars(session) if "bitmapist" in name]

    def test_the_net_change_of_a_document_is_marked(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        stays, goes = Account(id=1).save(), Account(id=2, premium=True).save()
        marks.forget()
        with transaction(client):
            came = Account(id=3).save()
            came.premium = True
            came.save()
            Account(id=4).save().delete()
            stays.premium = True
            stays.save()
            stays.premium = False
            stays.save()
            goes.name = "goes"
            goes.save()
            goes.delete()
        assert marks() == {
            "account:created": [3],
            "account:updated": [1],
            "account:deleted": [2],
        }
        assert marks.flags() == {"account:premium": [3]}

    def test_documents_of_two_collections_may_have_one_key(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        with transaction(client):
            Account(id=1).save()
            Invoice(id=1).save().delete()
        assert marks() == {"account:created": [1]}

    def test_bulk_statements_wait_too(self, client: MongoClient[Any], marks: Marks) -> None:
        Account(id=1).save()
        marks.forget()

        def work() -> None:
            Account.objects.insert([Account(id=2), Account(id=3)])
            Account.objects.update(premium=True)
            Account.objects(id=3).modify(remove=True)
            Account.objects(id=4).update_one(upsert=True, name="d")

        undone(client, work)
        assert marks() == {}
        with transaction(client):
            work()
        assert marks() == {"account:created": [2, 4], "account:updated": [1]}
        assert marks.flags() == {"account:premium": [1, 2]}

    def test_a_commit_is_one_batch(
        self, client: MongoClient[Any], marks: Marks, bit_commands: Callable[[], int]
    ) -> None:
        Account(id=1).save()  # the event is known from now on
        before = bit_commands()
        with transaction(client) as session:
            for number in range(2, 20):
                Account(id=number).save()
            record(session, ("account:created", 20))
        assert marks() == {"account:created": list(range(1, 21))}
        assert bit_commands() - before == 4  # day, week, month and the flag

    def test_a_retried_transaction_marks_once(self, client: MongoClient[Any], marks: Marks) -> None:
        attempts = []

        def work(session: ClientSession) -> None:
            attempts.append(session)
            Account(id=len(attempts)).save()
            if len(attempts) == 1:
                raise OperationFailure("try again", 112, {"errorLabels": [TRANSIENT]})

        with client.start_session() as session, session.bind():
            session.with_transaction(work)
        assert len(attempts) == 2
        assert marks() == {"account:created": [2]}

    def test_a_write_outside_of_the_transaction_is_marked_at_once(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        def create() -> None:
            Account(id=2).save()

        with ThreadPoolExecutor(1) as other, transaction(client):
            Account(id=1).save()
            other.submit(create).result()
            assert marks() == {"account:created": [2]}
        assert marks() == {"account:created": [1, 2]}

    def test_a_transaction_of_other_documents_is_left_alone(self, client: MongoClient[Any]) -> None:
        with transaction(client) as session:
            before = dict(vars(session))
            Other.objects.insert([Other(id=1), Other(id=2)])
            Other.objects.delete()
            assert vars(session).keys() == before.keys()

    def test_record_without_a_session_uses_the_bound_one(
        self, client: MongoClient[Any], marks: Marks
    ) -> None:
        with transaction(client):
            record(None, ("account:seen", 1))
            assert marks() == {}
        assert marks() == {"account:seen": [1]}


class TestRecord:
    """`record` with a session that PyMongo's own writes are given."""

    def test_own_marks_wait_for_the_commit(
        self, session: ClientSession, server_database: Database[Any], marks: Marks
    ) -> None:
        with session.start_transaction():
            server_database.account.insert_one({"_id": 1}, session=session)
            record(session, ("account:created", 1))
            assert marks() == {}
        assert marks() == {"account:created": [1]}

    def test_own_marks_of_an_aborted_transaction_are_dropped(
        self, session: ClientSession, server_database: Database[Any], marks: Marks
    ) -> None:
        session.start_transaction()
        server_database.account.insert_one({"_id": 1}, session=session)
        record(session, ("account:created", 1))
        session.abort_transaction()
        assert marks() == {}

    def test_a_transaction_without_writes_marks_too(
        self, session: ClientSession, marks: Marks
    ) -> None:
        with session.start_transaction():
            record(session, ("account:seen", 1))
        assert marks() == {"account:seen": [1]}

    def test_a_session_without_a_transaction_marks_at_once(
        self, session: ClientSession, marks: Marks
    ) -> None:
        record(session, ("account:seen", 1))
        assert marks() == {"account:seen": [1]}

    def test_a_wrong_mark_raises_and_keeps_the_others(
        self, session: ClientSession, marks: Marks
    ) -> None:
        with session.start_transaction():
            record(session, ("account:seen", 1))
            with pytest.raises(ValueError, match="cannot name an event"):
                record(session, ("account:seen", 2), (" ", 3))
        assert marks() == {"account:seen": [1]}

    def test_a_commit_that_failed_marks_once_it_succeeds(
        self, session: ClientSession, server_database: Database[Any], marks: Marks
    ) -> None:
        session.start_transaction()
        server_database.account.insert_one({"_id": 1}, session=session)
        record(session, ("account:created", 1))
        let_a_commit_fail(session.client)
        with pytest.raises(OperationFailure):
            session.commit_transaction()
        assert marks() == {}
        with pytest.raises(InvalidOperation):
            session.abort_transaction()
        session.commit_transaction()
        assert marks() == {"account:created": [1]}
        session.commit_transaction()  # as PyMongo allows

    def test_a_commit_that_was_given_up_leaves_nothing_to_the_next_transaction(
        self, session: ClientSession, server_database: Database[Any], marks: Marks
    ) -> None:
        session.start_transaction()
        server_database.account.insert_one({"_id": 1}, session=session)
        record(session, ("account:seen", 1))
        let_a_commit_fail(session.client)
        with pytest.raises(OperationFailure):
            session.commit_transaction()
        with session.start_transaction():
            record(session, ("account:seen", 2))
        assert marks() == {"account:seen": [2]}

    def test_a_followed_session_is_collected(self, client: MongoClient[Any], marks: Marks) -> None:
        session = client.start_session()
        session.start_transaction()
        record(session, ("account:seen", 1))
        session.end_session()
        gone = weakref.ref(session)
        del session

        def is_collected() -> bool:  # threads of PyMongo may hold it for a moment
            gc.collect()
            return gone() is None

        eventually(is_collected)
        assert marks() == {}


def let_a_commit_fail(client: MongoClient[Any]) -> None:
    """The next commit runs out of time: nobody knows whether it was done."""
    command = {"failCommands": ["commitTransaction"], "errorCode": 50}
    try:
        client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=command)
    except OperationFailure:
        pytest.skip("the server was started without enableTestCommands")


class TestDevelopmentBranch:
    """MongoEngine with `run_in_transaction` passes the session that `_get_session` returns."""

    @pytest.fixture
    def passed(self, session: ClientSession, monkeypatch: pytest.MonkeyPatch) -> ClientSession:
        # No release has it: the mark has to wait, although a released MongoEngine writes outside.
        monkeypatch.setattr(mongoengine.connection, "_get_session", lambda: session, raising=False)
        return session

    def test_marks_wait_for_the_commit(self, passed: ClientSession, marks: Marks) -> None:
        with passed.start_transaction():
            Account(id=1).save()
            assert marks() == {}
        assert marks() == {"account:created": [1]}

    def test_our_own_reading_is_in_the_transaction(
        self, passed: ClientSession, server_database: Database[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Account(id=1).save()
        sessions = []
        find = Collection.find

        def noted(collection: Collection[Any], *args: Any, **kwargs: Any) -> Any:
            sessions.append(kwargs["session"])
            return find(collection, *args, **kwargs)

        monkeypatch.setattr(Collection, "find", noted)
        with passed.start_transaction():
            Account(id=2).save()
        assert sessions == [passed]

    def test_an_abort_drops_them(self, passed: ClientSession, marks: Marks) -> None:
        passed.start_transaction()
        Account(id=1).save()
        passed.abort_transaction()
        assert marks() == {}

    def test_without_a_transaction_marks_do_not_wait(
        self, client: MongoClient[Any], marks: Marks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongoengine.connection, "_get_session", lambda: None, raising=False)
        Account(id=1).save()
        assert marks() == {"account:created": [1]}
