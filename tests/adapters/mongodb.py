"""MongoDB for the tests of MongoEngine: mongomock, and a server over a real socket.

A plugin: ``pytest_plugins = ["adapters.mongodb"]`` in a test module provides the fixtures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import mongoengine
import pytest
from pymongo.database import Database


@pytest.fixture(scope="session")
def mongodb_url() -> Iterator[str]:
    """A real MongoDB when MONGODB_URI is set, else a SecantusDB of our own."""
    if "MONGODB_URI" in os.environ:
        yield os.environ["MONGODB_URI"]
        return
    secantus = pytest.importorskip(
        "secantus", reason="no MongoDB server: set MONGODB_URI, or pip install --pre SecantusDB"
    )
    with secantus.SecantusDBServer(port=0, storage_path=":memory:") as server:
        yield server.uri


@contextmanager
def connected(url: str | None) -> Iterator[Database[Any]]:
    """MongoEngine's default connection is to a fresh database: of mongomock if `url` is None."""
    name = f"test_{uuid4().hex}"
    where: dict[str, Any] = {"host": url}
    if url is None:
        where = {"mongo_client_class": pytest.importorskip("mongomock").MongoClient}
    client = mongoengine.connect(name, uuidRepresentation="standard", **where)
    try:
        yield client[name]
    finally:
        client.drop_database(name)
        for document in _documents(mongoengine.Document):
            # MongoEngine forgets this of the last document of each name alone.
            document._disconnect()
        mongoengine.disconnect()


def _documents(base: Any) -> Iterator[Any]:
    for document in base.__subclasses__():
        yield document
        yield from _documents(document)


@pytest.fixture
def mongomock_database() -> Iterator[Database[Any]]:
    with connected(None) as database:
        yield database


@pytest.fixture
def server_database(mongodb_url: str) -> Iterator[Database[Any]]:
    with connected(mongodb_url) as database:
        yield database
