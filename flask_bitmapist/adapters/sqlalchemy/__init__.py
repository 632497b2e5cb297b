"""SQLAlchemy: INSERT, UPDATE and DELETE of the ORM -> marks, published after the COMMIT.

Listeners are registered once, at import, before an application can register its own:

* `_rows`: mapper events note what a flush does to a row;
* `_statements`: ORM-enabled bulk statements, once a model opts in;
* `_transactions`: what is noted follows the connection's transaction, until its COMMIT.

Not seen: ``session.bulk_*``, Core statements and raw SQL, the database's own cascades and triggers.
Use `record` there, or opt in to bulk statements.
"""

from __future__ import annotations

from typing import Any

try:
    import sqlalchemy.orm  # noqa: F401
except ImportError as error:
    raise ImportError(
        'SQLAlchemy 2 is missing: pip install "flask-bitmapist[sqlalchemy]"', name=error.name
    ) from error

from ..base import BitmapistableModel
from . import _rows, _statements
from ._ids import identity
from ._transactions import record

__all__ = ["SQLAlchemyBitmapistable", "record"]


class SQLAlchemyBitmapistable(BitmapistableModel):
    """Mixin: ``class User(db.Model, Bitmapistable)`` marks ``user:created``, ``user:updated`` and
    ``user:deleted`` when the transaction that inserted, updated or deleted a row has committed.

    The class options are those of `BitmapistableModel`. With ``__bitmapist_bulk__ = True``,
    ``session.execute(insert(User) | update(User) | delete(User))`` marks too.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__bitmapist_bulk__:
            # Only then: a do_orm_execute listener costs every statement of every session 6 us.
            _statements.listen()

    def __bitmapist_identity__(self) -> object:
        return identity(self)


_rows.listen(SQLAlchemyBitmapistable)
