"""SQLAlchemy's engines and tables, made once or for each test."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event


def sqlite_engine(url: str, **options: object) -> Engine:
    """An engine whose transactions and savepoints are SQLite's own, and whose foreign keys count.

    The recipe of SQLAlchemy's documentation: the sqlite3 module begins too late for savepoints.
    """
    return with_real_savepoints(create_engine(url, **options))


def with_real_savepoints(engine: Engine) -> Engine:
    """`engine`, whose transactions and savepoints are SQLite's own."""

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


class Tables:
    """The empty tables of a module: they are copied into a database quicker than created."""

    def __init__(self, metadata: MetaData) -> None:
        self._metadata = metadata
        self._image: bytes | None = None

    def put_into(self, engine: Engine) -> Engine:
        """Into `engine`, whose connections share one database in memory."""
        with engine.connect() as connection:
            database: Any = connection.connection.dbapi_connection
            if self._image is None:
                with connection.begin():
                    self._metadata.create_all(connection)
                self._image = database.serialize()
            else:
                database.deserialize(self._image)
        return engine
