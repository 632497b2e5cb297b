"""How the spool tells servers apart: by their addresses, without credentials."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where one server, with its database, is found: any of these addresses will do."""

    #: In order; a cluster has one for each node, a Sentinel master one for each sentinel.
    names: tuple[str, ...]
    #: What the spools of the first version called it, and others like it.
    formerly: str


def server_of(client: Any) -> Addresses:
    """Which server and database `client` writes to."""
    pool: Any = getattr(client, "connection_pool", None)
    formerly = _address(pool, getattr(pool, "service_name", None))
    if nodes := getattr(client, "nodes_manager", None):
        # redis-py 5 keeps no list of the nodes that were configured, only of those that are there.
        known = {**nodes.startup_nodes, **nodes.nodes_cache}
        return _of((["cluster", name] for name in known), formerly)
    if sentinels := getattr(pool, "sentinel_manager", None):
        master = [pool.service_name, pool.connection_kwargs.get("db")]
        found = (_address(one.connection_pool, None) for one in sentinels.sentinels)
        return _of(([*master, name] for name in found), formerly)
    return Addresses((formerly,), formerly)


def _of(names: Iterable[list[Any]], formerly: str) -> Addresses:
    return Addresses(tuple(sorted(json.dumps(name) for name in names)), formerly)


def _address(pool: Any, service: Any) -> str:
    options = getattr(pool, "connection_kwargs", {})
    address = [options.get(name) for name in ("host", "port", "path", "db")]
    return json.dumps([service, *address], default=str)


def name_of(db: sqlite3.Connection, server: Addresses) -> str:
    """What the file calls `server`, from now on if it did not know it.

    The nodes of a cluster come and go, so what was written under other addresses of it is found by
    one that is left.
    """
    if server.names == (server.formerly,):
        return server.formerly
    places = ", ".join("?" * len(server.names))
    query = f"SELECT DISTINCT server FROM servers WHERE address IN ({places}) ORDER BY server"
    known = [name for (name,) in db.execute(query, server.names)]
    name = known[0] if known else server.names[0]
    for other in (*known[1:], server.formerly):
        for table in ("servers", "spooled", "apart", "sent"):
            db.execute(f"UPDATE {table} SET server = ? WHERE server = ?", (name, other))
    db.executemany(
        "INSERT OR IGNORE INTO servers (address, server) VALUES (?, ?)",
        [(address, name) for address in server.names],
    )
    return str(name)
