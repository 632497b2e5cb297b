"""Which documents a queryset's statement affects: MongoDB does not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from types import TracebackType
from typing import Any

from ...faults import contained_faults
from ..base import Action, BitmapistableModel
from ._reading import documents, find
from ._rows import Row, needs_document, row_of_key, rows_of
from ._transactions import current_session


@dataclass(frozen=True)
class Found:
    """A document whose class and key (as MongoDB has it) are known."""

    model: Any
    key: Any


def classes_of(model: Any) -> Iterator[Any]:
    """The classes of the documents that querysets of `model` hold."""
    yield model
    for subclass in model.__subclasses__():
        yield from classes_of(subclass)


def has_mixin(model: Any) -> bool:
    return issubclass(model, BitmapistableModel)


def has_opted_in(model: Any) -> bool:
    return has_mixin(model) and bool(model.__bitmapist_bulk__)


def doomed_rows(queryset: Any, by_document: bool) -> list[Row]:
    """What `queryset` is about to delete.

    :param by_document: whether it is a document's own ``delete()``.
    """
    model, collection, query = queryset._document, queryset._collection, queryset._query
    if any(each.__bitmapist_id__ is not None for each in filter(has_mixin, classes_of(model))):
        with contained_faults("read the documents of %s to delete", model.__name__):
            return rows_of(map(model._from_son, find(collection, query)), collection, "deleted")
        return []
    named = by_document and "_id" in query
    found = [Found(model, query["_id"])] if named else matched_by(queryset)
    return _rows_of_keys(found, collection, "deleted")


def matched_by(queryset: Any, at_most: int = 0) -> list[Found]:
    """The documents that a statement of `queryset` applies to."""
    model, query = queryset._document, queryset._query
    with contained_faults("find the documents of %s to mark", model.__name__):
        # Only its query counts: MongoEngine ignores its limit and its order.
        found = find(queryset._collection, query, ["_cls"], at_most)
        by_name = {each._class_name: each for each in classes_of(model)}
        return [Found(by_name.get(each.get("_cls"), model), each["_id"]) for each in found]
    return []


def rows_now(found: list[Found], queryset: Any, action: Action) -> list[Row]:
    """The rows of documents as they are now."""
    collection = queryset._collection
    if not any(needs_document(each.model) for each in found):
        return _rows_of_keys(found, collection, action)
    keys = [each.key for each in found]
    return rows_of(documents(queryset._document, collection, keys), collection, action)


def _rows_of_keys(found: list[Found], collection: Any, action: Action) -> list[Row]:
    rows = []
    for each in found:
        if has_mixin(each.model):  # a queryset of a base class may hold others
            with contained_faults("note a document of %s as %s", each.model.__name__, action):
                rows.append(row_of_key(each.model, collection, each.key))
    return rows


def stored_all_the_same(queryset: Any, inserted: Sequence[Any], error: Any) -> list[Row]:
    """The rows of the `inserted` documents that the database has, in spite of PyMongo's `error`."""
    session = current_session()
    if session is not None and session.in_transaction:
        return []  # the server has ended the transaction
    failed = {failure["index"] for failure in error.details["writeErrors"]}
    pairs = zip(inserted, _sent(error.__traceback__), strict=True)
    not_failed = [pair for number, pair in enumerate(pairs) if number not in failed]
    # Those after the first failure were not tried, unless PyMongo was told to.
    stored = not_failed[: error.details["nInserted"]]
    found = [Found(type(document), sent["_id"]) for document, sent in stored]
    marked = [each for each in found if has_mixin(each.model)]
    return rows_now(marked, queryset, "created")


def _sent(traceback: TracebackType | None) -> Sequence[Any]:
    """What the ``insert_many()`` that raised was given.

    PyMongo has given these documents keys, and MongoEngine drops them when the insert fails.
    """
    for frame, _ in walk_tb(traceback):
        if frame.f_code.co_name == "insert_many" and "documents" in frame.f_locals:
            return list(frame.f_locals["documents"])
    raise LookupError("no insert_many() of PyMongo has raised")
