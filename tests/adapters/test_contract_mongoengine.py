"""The contract of adapters on MongoEngine: in a server's transactions, and without on mongomock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import Any, ClassVar
from uuid import UUID

import pytest
from mongoengine import (
    BooleanField,
    Document,
    EmbeddedDocument,
    EmbeddedDocumentField,
    IntField,
    StringField,
    UUIDField,
)
from mongoengine.base import BaseField
from pymongo.client_session import ClientSession
from pymongo.database import Database

from flask_bitmapist.adapters.mongoengine import MongoEngineBitmapistable, record
from flask_bitmapist.marks import Mark
from flask_bitmapist.testing import Capability, ContractOrm

from .contract import ServerContract

pytest_plugins = ["adapters.mongodb"]

CANNOT: dict[Capability, str] = {
    "savepoints": "MongoDB has none",
}
NO_TRANSACTIONS = "a write is final once the server has acknowledged it, and is marked at once"


class TeamNumber(EmbeddedDocument):
    """A composite key."""

    team = StringField()
    number = IntField()


KEYS: dict[Any, BaseField] = {
    str: StringField(primary_key=True),
    UUID: UUIDField(primary_key=True),
    tuple: EmbeddedDocumentField(TeamNumber, primary_key=True),
}


class MongoEngineOrm(ContractOrm):
    """A document class for each model; without transactions unless given a client."""

    def __init__(self, database: Database[Any], *, transactions: bool) -> None:
        self._client = database.client if transactions else None

    def model(self, name: str, *, parent: Any = None, key: Any = None, **options: Any) -> Any:
        if parent is not None:
            return type(name, (parent,), options)
        fields = {
            "name": StringField(),
            "premium": BooleanField(default=False),
            "author": IntField(),
            "meta": {"allow_inheritance": True},
        }
        if key is not None:
            fields["id"] = copy(KEYS[key])
        model: Any = type(name, (MongoEngineBitmapistable, Document), fields | options)
        model.ensure_indexes()  # a transaction cannot make them
        return model

    def transaction(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._client is None else self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        assert self._client is not None
        with self._client.start_session() as session, session.bind(), session.start_transaction():
            yield

    def create(self, model: Any, **values: Any) -> Any:
        if "team" in values:
            values["id"] = TeamNumber(team=values.pop("team"), number=values.pop("number"))
        return model.objects.create(**values)

    def update(self, row: Any, **values: Any) -> None:
        for name, value in values.items():
            setattr(row, name, value)
        row.save()

    def delete(self, row: Any) -> None:
        row.delete()

    def count(self, model: Any) -> int:
        return int(model.objects.count())

    def record(self, *marks: Mark | tuple[Any, ...]) -> None:
        record(None, *marks)

    def key(self, row: Any) -> Any:
        return (row.id.team, row.id.number) if isinstance(row.id, TeamNumber) else row.id

    def bulk_insert(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        model.objects.insert([model(**row) for row in rows])

    def bulk_update(self, model: Any, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        model.objects(**where).update(**values)

    def bulk_delete(self, model: Any, where: Mapping[str, Any]) -> None:
        model.objects(**where).delete()


class TestMongomock(ServerContract):
    cannot: ClassVar[Mapping[Capability, str]] = CANNOT | {
        "transactions": NO_TRANSACTIONS,
        "uuid keys": "mongomock cannot store a UUID",
    }

    @pytest.fixture
    def orm(self, mongomock_database: Database[Any]) -> MongoEngineOrm:
        return MongoEngineOrm(mongomock_database, transactions=False)


class TestServer(ServerContract):
    """Each write on its own, as MongoEngine makes it."""

    cannot: ClassVar[Mapping[Capability, str]] = CANNOT | {"transactions": NO_TRANSACTIONS}

    @pytest.fixture
    def orm(self, server_database: Database[Any]) -> MongoEngineOrm:
        return MongoEngineOrm(server_database, transactions=False)


class TestBoundSession(ServerContract):
    """In the transactions of sessions that PyMongo >= 4.17 has bound."""

    cannot: ClassVar[Mapping[Capability, str]] = CANNOT

    @pytest.fixture
    def orm(self, server_database: Database[Any]) -> MongoEngineOrm:
        if not hasattr(ClientSession, "bind"):
            pytest.skip("PyMongo < 4.17 binds no sessions to operations")
        if "setName" not in server_database.client.admin.command("hello"):
            pytest.skip("transactions need a replica set")
        return MongoEngineOrm(server_database, transactions=True)
