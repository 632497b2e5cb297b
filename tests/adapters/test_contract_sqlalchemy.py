"""The contract of adapters on SQLAlchemy: a class for each database."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import Boolean, Engine, Integer, String, Uuid, create_engine, func, select
from sqlalchemy import delete as delete_where
from sqlalchemy import insert as insert_many
from sqlalchemy import update as update_where
from sqlalchemy.orm import DeclarativeBase, MappedColumn, Session, mapped_column

from flask_bitmapist import SQLAlchemyBitmapistable
from flask_bitmapist.adapters.sqlalchemy import record
from flask_bitmapist.marks import Mark
from flask_bitmapist.testing import ContractOrm

from .contract import ServerContract
from .engines import sqlite_engine


class SQLAlchemyOrm(ContractOrm):
    """A session for each transaction, a declarative base for each test."""

    def __init__(self, engine: Engine) -> None:
        class Base(DeclarativeBase):
            pass

        self._engine = engine
        self._base = Base
        self._current = threading.local()

    def model(self, name: str, *, parent: Any = None, key: Any = None, **options: Any) -> Any:
        body = options | {"__mapper_args__": {"polymorphic_identity": name}}
        if parent is None:
            body |= _columns(key) | {"__tablename__": name.lower()}
            body["__mapper_args__"]["polymorphic_on"] = "kind"
        bases = (SQLAlchemyBitmapistable, self._base) if parent is None else (parent,)
        model = type(name, bases, body)
        self._base.registry.configure()
        self._base.metadata.create_all(self._engine)
        return model

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            self._current.session = session
            try:
                yield
            finally:
                del self._current.session

    def savepoint(self) -> AbstractContextManager[Any]:
        return self._session.begin_nested()

    def create(self, model: Any, **values: Any) -> Any:
        row = model(**values)
        self._session.add(row)
        self._session.flush()
        return row

    def update(self, row: Any, **values: Any) -> None:
        self._session.add(row)
        for name, value in values.items():
            setattr(row, name, value)
        self._session.flush()

    def delete(self, row: Any) -> None:
        self._session.delete(row)
        self._session.flush()

    def count(self, model: Any) -> int:
        with Session(self._engine) as session:
            return session.scalars(select(func.count()).select_from(model)).one()

    def record(self, *marks: Mark | tuple[Any, ...]) -> None:
        if hasattr(self._current, "session"):
            record(self._session, *marks)
        else:
            with Session(self._engine) as session:
                record(session, *marks)

    def bulk_insert(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        self._session.execute(insert_many(model), [dict(row) for row in rows])

    def bulk_update(self, model: Any, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self._session.execute(update_where(model).filter_by(**where).values(**values))

    def bulk_delete(self, model: Any, where: Mapping[str, Any]) -> None:
        self._session.execute(delete_where(model).filter_by(**where))

    def close(self) -> None:
        self._base.metadata.drop_all(self._engine)
        self._base.registry.dispose()
        self._engine.dispose()

    @property
    def _session(self) -> Session:
        session: Session = self._current.session
        return session


def _columns(key: Any) -> dict[str, MappedColumn[Any]]:
    kinds: dict[Any, Any] = {None: Integer, str: String(40), UUID: Uuid}
    if key is tuple:
        keys = {"team": mapped_column(String(40), primary_key=True)}
        keys["number"] = mapped_column(Integer, primary_key=True, autoincrement=False)
    else:
        keys = {"id": mapped_column(kinds[key], primary_key=True)}
    return keys | {
        "kind": mapped_column(String(40)),
        "name": mapped_column(String(40)),
        "premium": mapped_column(Boolean, default=False),
        "author": mapped_column(Integer),
    }


class SQLAlchemyContract(ServerContract):
    #: The environment variable with the URL of an empty database; None: SQLite.
    variable: ClassVar[str | None] = None

    @pytest.fixture
    def orm(self, tmp_path: Path) -> Iterator[SQLAlchemyOrm]:
        if self.variable is None:
            engine = sqlite_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}")
        elif self.variable in os.environ:
            engine = create_engine(os.environ[self.variable])
        else:
            pytest.skip(f"{self.variable} is not set")
        orm = SQLAlchemyOrm(engine)
        yield orm
        orm.close()


class TestSQLite(SQLAlchemyContract):
    pass


class TestPostgreSQL(SQLAlchemyContract):
    variable = "TEST_POSTGRESQL_URL"


class TestMySQL(SQLAlchemyContract):
    variable = "TEST_MYSQL_URL"
