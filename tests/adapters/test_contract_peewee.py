"""The contract of adapters on peewee: a class for each database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from peewee import (
    BooleanField,
    CharField,
    CompositeKey,
    Database,
    IntegerField,
    Model,
    SqliteDatabase,
    UUIDField,
)

from flask_bitmapist.adapters.peewee import PeeweeBitmapistable, record
from flask_bitmapist.marks import Mark
from flask_bitmapist.testing import ContractOrm

from .contract import ServerContract
from .peewee_servers import server_database


class PeeweeOrm(ContractOrm):
    """A database, and models bound to it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._models: list[Any] = []

    def model(self, name: str, *, parent: Any = None, key: Any = None, **options: Any) -> Any:
        class Meta:
            database = self._database
            table_name = name.lower()

        bases = (PeeweeBitmapistable, Model) if parent is None else (parent,)
        if key is tuple:
            setattr(Meta, "primary_key", CompositeKey("team", "number"))  # noqa: B010
        fields = {} if parent is not None else _fields(key)
        model = type(name, bases, fields | {"Meta": Meta} | options)
        self._models.append(model)
        self._database.create_tables([model])
        return model

    def transaction(self) -> AbstractContextManager[Any]:
        return self._database.atomic()

    def savepoint(self) -> AbstractContextManager[Any]:
        return self._database.atomic()

    def create(self, model: Any, **values: Any) -> Any:
        return model.create(**values)

    def update(self, row: Any, **values: Any) -> None:
        for name, value in values.items():
            setattr(row, name, value)
        row.save()

    def delete(self, row: Any) -> None:
        row.delete_instance()

    def count(self, model: Any) -> int:
        return int(model.select().count())

    def record(self, *marks: Mark | tuple[Any, ...]) -> None:
        record(self._database, *marks)

    def bulk_insert(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        model.insert_many(rows).execute()

    def bulk_update(self, model: Any, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        model.update(**values).where(*_equal(model, where)).execute()

    def bulk_delete(self, model: Any, where: Mapping[str, Any]) -> None:
        model.delete().where(*_equal(model, where)).execute()

    def close(self) -> None:
        self._database.drop_tables(self._models)
        self._database.close()


def _equal(model: Any, where: Mapping[str, Any]) -> list[Any]:
    return [getattr(model, name) == value for name, value in where.items()]


def _fields(key: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    if key is str:
        keys["id"] = CharField(40, primary_key=True)
    elif key is UUID:
        keys["id"] = UUIDField(primary_key=True)
    elif key is tuple:
        keys |= {"team": CharField(40), "number": IntegerField()}
    return keys | {
        "name": CharField(40, null=True),
        "premium": BooleanField(default=False),
        "author": IntegerField(null=True),
    }


class PeeweeContract(ServerContract):
    cannot: ClassVar = {"unchanged values": "peewee counts every assigned attribute as changed"}

    #: The environment variable with the URL of an empty database; None: SQLite.
    variable: ClassVar[str | None] = None

    @pytest.fixture
    def orm(self, tmp_path: Path) -> Iterator[PeeweeOrm]:
        if self.variable is None:
            database: Database = SqliteDatabase(str(tmp_path / "app.sqlite3"), timeout=30)
        elif self.variable in os.environ:
            database = server_database(os.environ[self.variable])
        else:
            pytest.skip(f"{self.variable} is not set")
        orm = PeeweeOrm(database)
        yield orm
        orm.close()


class TestSQLite(PeeweeContract):
    pass


class TestPostgreSQL(PeeweeContract):
    variable = "TEST_POSTGRESQL_URL"


# What peewee < 4 passes to PyMySQL.
@pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning")
class TestMySQL(PeeweeContract):
    variable = "TEST_MYSQL_URL"
    cannot: ClassVar = PeeweeContract.cannot | {
        "bulk insert": "MySQL does not return the keys of rows inserted together"
    }
