"""What the database has, read by PyMongo.

A queryset of MongoEngine would call the application: its classes, managers and signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pymongo import ReadPreference

from ._transactions import current_session

# Keys of one query: it must stay far below 16 MiB.
_KEYS_PER_QUERY = 1_000


def find(
    collection: Any, query: Any, fields: Sequence[str] | None = None, at_most: int = 0
) -> Iterator[dict[str, Any]]:
    """What `query` finds in `collection`, in the transaction of the writes around it.

    :param fields: those to read besides the key; None: all.
    :param at_most: 0: no limit.
    """
    primary = collection.with_options(read_preference=ReadPreference.PRIMARY)
    found = primary.find(query, fields, limit=at_most, session=current_session())
    yield from found


def documents(model: Any, collection: Any, keys: Sequence[Any]) -> Iterator[Any]:
    """The documents with `keys` as they are now, each of its own class.

    :param keys: as MongoDB has them.
    """
    for first in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[first : first + _KEYS_PER_QUERY]
        yield from map(model._from_son, find(collection, {"_id": {"$in": some}}))
