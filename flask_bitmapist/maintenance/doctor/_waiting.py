"""Marks that wait on this machine's disk, rather than being on the server."""

from __future__ import annotations

import glob
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...config import Settings
from ...server import Server
from ._findings import Finding, several, sized

#: The share of BITMAPIST_SPOOL_SIZE from which there is a warning.
_TIGHT = 0.8
_PART = "waiting"


def check(settings: Settings, server: Server) -> Iterator[Finding]:
    """The spool: what is in it, and whether it can be used."""
    path = settings.spool
    if path is None:
        yield Finding(
            _PART,
            "warning",
            "BITMAPIST_SPOOL is False",
            "Set it to True, unless marks made while the server is away may be lost",
        )
        return
    try:
        yield from _look(path, settings, server)
    except OSError as error:
        yield Finding(
            _PART,
            "warning",
            f"{path} cannot be looked at: {error.strerror}",
            "Run this as the user that the application runs as, or name another file in "
            "BITMAPIST_SPOOL",
        )


def _look(path: Path, settings: Settings, server: Server) -> Iterator[Finding]:
    if not _is_writable(path):
        yield Finding(
            _PART,
            "warning",
            f"{path} cannot be written by this user",
            "Name a file in BITMAPIST_SPOOL that the application can write: marks of an outage "
            "would be lost",
        )
    if path.exists():
        yield from _content(path, settings, server)
    else:
        yield Finding(_PART, "ok", "nothing waits in the spool")
    if aside := _set_aside(path):
        yield Finding(
            _PART,
            "warning",
            f"{several(len(aside), 'damaged file')} of the spool: {', '.join(aside)}",
            "Look into the disk. What could be read has been brought over; delete the files then",
        )


def _is_writable(path: Path) -> bool:
    """Whether the file can be written, or made."""
    if path.exists():
        return path.is_file() and os.access(path, os.W_OK)
    folder = next(folder for folder in path.parents if folder.exists())
    return folder.is_dir() and os.access(folder, os.W_OK)


def _set_aside(path: Path) -> list[str]:
    found = path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
    return sorted(file.name for file in found if not file.name.endswith(("-wal", "-shm")))


def _content(path: Path, settings: Settings, server: Server) -> Iterator[Finding]:
    try:
        # It is only read, as another user may look who could leave files of their own.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        ) as db:
            yield from _rows(db, server)
    except sqlite3.Error as error:
        yield Finding(
            _PART,
            "warning",
            f"the spool {path} cannot be read: {error}",
            "If it is damaged, the next process that uses it sets it aside, and saves what it can",
        )
    size = path.stat().st_size
    if size > _TIGHT * settings.spool_size:
        yield Finding(
            _PART,
            "warning",
            f"the spool has {sized(size)} of the {sized(settings.spool_size)} that "
            "BITMAPIST_SPOOL_SIZE gives it",
            "Bring the server back, or raise it: beyond it the oldest marks go",
        )


def _rows(db: sqlite3.Connection, server: Server) -> Iterator[Finding]:
    ours = _names_of(db, server)
    waiting, others, oldest = 0, 0, 0.0
    query = "SELECT server, SUM(count), MIN(made) FROM spooled GROUP BY server"
    for name, marks, made in db.execute(query):
        if name in ours:
            waiting, oldest = waiting + marks, made
        else:
            others += marks
    if waiting:
        hours = (time.time() - oldest) / 3600
        yield Finding(
            _PART,
            "warning",
            f"{several(waiting, 'mark')} in the spool, the oldest for {hours:.1f} hours",
            "Bring the server back; a running process delivers them, or tracker.flush()",
        )
    else:
        yield Finding(_PART, "ok", "nothing waits in the spool for this server")
    if others:
        yield Finding(
            _PART,
            "warning",
            f"{several(others, 'mark')} in the spool for a server at another address",
            "Set BITMAPIST_REDIS_URL to the former address for a moment, or delete the file",
        )
    query = "SELECT server, reason, COUNT(*) FROM apart GROUP BY server, reason"
    for name, reason, marks in db.execute(query):
        if name in ours:
            yield Finding(
                _PART,
                "error",
                f"{several(marks, 'mark')} refused: {reason}",
                "Do what the sentence says: they are written within half a minute",
            )


def _names_of(db: sqlite3.Connection, server: Server) -> set[str]:
    """What the file calls the server."""
    from ...delivery import server_of

    addresses = server_of(server.client)
    places = ", ".join("?" * len(addresses.names))
    query = f"SELECT server FROM servers WHERE address IN ({places})"
    known = {name for (name,) in db.execute(query, addresses.names)}
    return {*known, *addresses.names, addresses.formerly}
