"""Who is to be erased because their row was deleted, as the server remembers it until it is done.

A wish is written with the mark of the deletion, so it outlives the process that made it, and waits
in a spool like any mark. It may arrive twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from .marks import Id
from .trip import replies

#: A hash: whose wish it is, and when it was made -> the rest of it.
WISHES = "flask_bitmapist:to_erase"


class Wish(NamedTuple):
    """That a person be erased."""

    id: Id
    #: When the row was deleted, by the clock of the machine that did it, in microseconds since the
    #: epoch. It tells the wishes of one id apart.
    asked: int
    #: The same by the server's clock: what was marked until then goes.
    before: int
    #: Events and flags that stay.
    kept: tuple[str, ...]
    #: Since when somebody new has the id, a naive moment of the calendar; None: nobody has. What
    #: they had in common with whoever has gone is cleared already: flags, and periods that were not
    #: over then.
    since: datetime | None = None

    @property
    def whose(self) -> tuple[type, Id]:
        """Whose it is: 7 and '7' are two."""
        return type(self.id), self.id

    @property
    def field(self) -> str:
        """Its field on the server."""
        return json.dumps([self.id, self.asked])

    def dumps(self) -> str:
        """Its value on the server."""
        since = None if self.since is None else self.since.isoformat()
        return json.dumps([self.before, self.kept, since])

    @classmethod
    def loads(cls, field: bytes, value: bytes) -> Wish:
        """The wish of a field and its value."""
        (id_, asked), (before, kept, since) = json.loads(field), json.loads(value)
        return cls(id_, asked, before, tuple(kept), since and datetime.fromisoformat(since))


def wishes(client: Any) -> list[Wish]:
    """All that are not done, the oldest first.

    :param client: any redis-py compatible client, or a pipeline that watches.
    :raises redis.RedisError: if the server does not answer.
    """
    (fields,) = replies(client, [("HKEYS", WISHES)])
    if not fields:
        return []
    (values,) = replies(client, [("HMGET", WISHES, *fields)])
    held = zip(fields, values, strict=True)
    found = [Wish.loads(field, value) for field, value in held if value is not None]
    return sorted(found, key=lambda wish: wish.asked)


def fulfilled(done: Iterable[Wish]) -> list[tuple[Any, ...]]:
    """The commands that forget the wishes `done`."""
    fields = [wish.field for wish in done]
    return [("HDEL", WISHES, *fields)] if fields else []
