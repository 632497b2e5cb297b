"""When marks are published: at once, or when the transaction that wrote the documents commits.

A write is final when the server has acknowledged it. Inside a transaction, of a session that
PyMongo has bound or that MongoEngine's development branch passes along, marks wait for the commit.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, cast

from mongoengine import connection
from pymongo.client_session import ClientSession

from ...current import publish
from ...marks import Mark
from ..base import Action, Changes, checked_marks
from ._rows import Row

# The ContextVar that ClientSession.bind() of PyMongo >= 4.17 sets. It has no public name.
_BOUND_SESSION = getattr(sys.modules[ClientSession.__module__], "_SESSION", None)

# Slot of a session's __dict__: the Changes of its transaction.
_CHANGES = "_flask_bitmapist_changes"


def record(session: ClientSession | None, *marks: Mark | tuple[Any, ...]) -> None:
    """Publish `marks` when the open transaction of `session` commits.

    Use it for what MongoEngine does not see, such as writes by PyMongo. Outside any transaction
    they are published at once.

    :param session: the PyMongo session that the writes were made in; None: the one that MongoEngine
        writes in now, if any.
    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is not a mark, or not an id.
    :raises ValueError: for an event name or id that is not allowed. Then none is recorded.
    """
    checked = checked_marks(marks)
    changes = _open_changes(session or current_session())
    if changes is None:
        publish(checked)
    else:
        changes.enlist(checked)


def note(action: Action, rows: Collection[Row]) -> None:
    """`action` happened to `rows`: in the open transaction, or for good."""
    if not rows:
        return
    changes = _open_changes(current_session())
    noted = Changes() if changes is None else changes
    for row in rows:
        noted.note(row.identity, row.model, action, row.id, row.values)
    if changes is None:
        publish(noted.marks())


def current_session() -> ClientSession | None:
    """The session that MongoEngine writes in now."""
    # The development branch's run_in_transaction passes its session along, so it comes first.
    get_passed = getattr(connection, "_get_session", None)
    passed = get_passed() if get_passed is not None else None
    bound = _BOUND_SESSION.get() if _BOUND_SESSION is not None else None
    return passed or bound


def _open_changes(session: ClientSession | None) -> Changes | None:
    """The changes of the open transaction of `session`; None outside any."""
    if session is None or not session.in_transaction:
        return None
    changes = vars(session).get(_CHANGES)
    return cast(Changes, changes) if changes is not None else _followed(session)


def _followed(session: ClientSession) -> Changes:
    """Fresh changes, which the commit of the transaction of `session` will publish.

    The session's methods are replaced until then. PyMongo's own CommandListener sees only clients
    that were made after it, and not the commit of a transaction without writes.
    """
    changes = Changes()
    kind = type(session)

    def commit_transaction() -> None:
        kind.commit_transaction(session)  # if it fails, it may be called again
        leave()
        publish(changes.marks())

    def abort_transaction() -> None:
        kind.abort_transaction(session)
        leave()

    def start_transaction(*args: Any, **kwargs: Any) -> Any:
        # The last commit failed, and was given up.
        leave()
        return kind.start_transaction(session, *args, **kwargs)

    held = {
        _CHANGES: changes,
        "commit_transaction": commit_transaction,
        "abort_transaction": abort_transaction,
        "start_transaction": start_transaction,
    }

    def leave() -> None:
        for name in held:
            vars(session).pop(name, None)

    vars(session).update(held)
    return changes
