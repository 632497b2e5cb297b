"""What stands in the spool's file, and how much room it takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

#: The columns of each table that may be brought over from a damaged file.
COLUMNS = {
    "spooled": ("id", "server", "marks", "count", "made"),
    "apart": ("id", "server", "event", "identity", "value", "mark", "reason", "made"),
    "servers": ("id", "address", "server"),
}
_NAMES = ("spooled", "apart", "servers", "aside", "sent", "spooled_server", "apart_name")
_LISTED = ", ".join(f"'{name}'" for name in _NAMES)
#: Of columns that the first versions did not make. Marks were made at `made`, at the earliest.
_TYPES = {"count": "INTEGER NOT NULL DEFAULT 1", "made": "REAL NOT NULL DEFAULT 0"}
_LATER = (("spooled", "count"), ("spooled", "made"), ("apart", "made"))
_MADE = (
    "CREATE TABLE IF NOT EXISTS spooled (id INTEGER PRIMARY KEY, server TEXT NOT NULL, "
    f"marks TEXT NOT NULL, count {_TYPES['count']}, made {_TYPES['made']})",
    "CREATE INDEX IF NOT EXISTS spooled_server ON spooled (server)",
    "CREATE TABLE IF NOT EXISTS apart (id INTEGER PRIMARY KEY, server TEXT NOT NULL, "
    "event TEXT NOT NULL, identity TEXT NOT NULL, value INTEGER NOT NULL, mark TEXT NOT NULL, "
    f"reason TEXT NOT NULL, made {_TYPES['made']})",
    "CREATE INDEX IF NOT EXISTS apart_name ON apart (server, event, identity)",
    # A server may have several addresses; one of them stands for it in the other tables.
    "CREATE TABLE IF NOT EXISTS servers (id INTEGER PRIMARY KEY, address TEXT UNIQUE NOT NULL, "
    "server TEXT NOT NULL)",
    # What a trip has written lately, and how to see whether the server still has it (`sent.Proof`).
    "CREATE TABLE IF NOT EXISTS sent (id INTEGER PRIMARY KEY, server TEXT NOT NULL, "
    "marks TEXT NOT NULL, count INTEGER NOT NULL, made REAL NOT NULL, at REAL NOT NULL, "
    "trips TEXT NOT NULL, number INTEGER NOT NULL, origin TEXT NOT NULL)",
    # Damaged files that have not been brought over yet.
    "CREATE TABLE IF NOT EXISTS aside (file TEXT PRIMARY KEY)",
)


def set_up(db: sqlite3.Connection) -> None:
    """Make `db` ready for use, and the tables if there are none."""
    if db.execute("PRAGMA page_count").fetchone() == (0,):
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    query = f"SELECT COUNT(*) FROM sqlite_schema WHERE name IN ({_LISTED})"
    if db.execute(query).fetchone() == (len(_NAMES),) and not _lacking(db):
        return
    with db:
        db.execute("BEGIN IMMEDIATE")
        for statement in _MADE:
            db.execute(statement)
        for table, column in _lacking(db):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {_TYPES[column]}")


def _lacking(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """The columns that the tables, which an earlier version made, do not have."""
    return [
        (table, column)
        for table, column in _LATER
        if column not in {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
    ]


def is_empty(db: sqlite3.Connection, done: Mapping[str, object]) -> bool:
    """Whether the file holds no rows, and nothing that somebody else has put into it.

    :param done: rows of its ``server`` up to its ``done`` do not count.
    """
    (found,) = db.execute(
        "SELECT EXISTS (SELECT 1 FROM spooled WHERE server != :server OR id > :done) "
        "OR EXISTS (SELECT 1 FROM apart) OR EXISTS (SELECT 1 FROM aside) "
        "OR EXISTS (SELECT 1 FROM sent) "
        "OR EXISTS (SELECT 1 FROM sqlite_schema "
        f"WHERE name NOT IN ({_LISTED}) AND name NOT LIKE 'sqlite%')",
        done,
    ).fetchone()
    return not found


def used_bytes(db: sqlite3.Connection) -> int:
    """How much of the file is in use."""
    pages, free, size = _numbers(db, "page_count", "freelist_count", "page_size")
    return (pages - free) * size


def shrink(db: sqlite3.Connection) -> None:
    """Give free pages back, if most are free, and empty the log."""
    pages, free = _numbers(db, "page_count", "freelist_count")
    if free > pages // 2:
        # Not by execute(), which does one step of it, and so removes one page.
        db.executescript("PRAGMA incremental_vacuum")
    empty_log(db)


def empty_log(db: sqlite3.Connection) -> bool:
    """Carry over what the log holds; False if others use it, or there is no room."""
    try:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:
        return False
    return not busy


def _numbers(db: sqlite3.Connection, *names: str) -> list[int]:
    return [int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names]
