"""peewee's databases on a server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from peewee import Database, MySQLDatabase, PostgresqlDatabase


def server_database(url: str) -> Database:
    """The database at a URL as SQLAlchemy takes it: ``postgresql+psycopg2://user@host/name``."""
    parts = urlsplit(url)
    kinds = {"postgresql": PostgresqlDatabase, "mysql": MySQLDatabase, "mariadb": MySQLDatabase}
    options: dict[str, Any] = {
        "user": parts.username,
        "password": parts.password and unquote(parts.password),
        "host": parts.hostname,
        "port": parts.port,
        **dict(parse_qsl(parts.query)),
    }
    given = {name: value for name, value in options.items() if value is not None}
    return kinds[parts.scheme.partition("+")[0]](parts.path.lstrip("/"), **given)
