"""``insert()``, ``delete()``, ``update()`` and ``modify()`` of querysets.

Documents and delete rules go through these four methods of MongoEngine's base class too. They are
wrapped there, for all querysets, because nothing else sees every statement and changes none:

* a signal of deletions makes MongoEngine delete in another way (see `_saves`), and ``update()`` and
  ``modify()`` have no signals;
* a queryset class of ours would run before the application's own has made the statement what it
  wants, and ``no_cache()`` and the querysets of a base class would not use it.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any

from mongoengine import Document, signals
from mongoengine.errors import BulkWriteError
from mongoengine.queryset.base import BaseQuerySet

from ...faults import contained_faults
from ..base import Action
from ._found import (
    Found,
    classes_of,
    doomed_rows,
    has_mixin,
    has_opted_in,
    matched_by,
    rows_now,
    stored_all_the_same,
)
from ._rows import Row, python_key, raw_key, rows_of
from ._transactions import note

_insert, _delete = BaseQuerySet.insert, BaseQuerySet.delete
_update, _modify = BaseQuerySet.update, BaseQuerySet.modify

# Another process may change or delete the document that was chosen.
_ATTEMPTS = 3


def see_statements() -> None:
    """Watch the statements of querysets, for models with the mixin."""
    for statement in (insert, delete, update, modify):
        setattr(BaseQuerySet, statement.__name__, statement)


@wraps(_insert)
def insert(self: Any, doc_or_docs: Any, *args: Any, **kwargs: Any) -> Any:
    inserted = [doc_or_docs] if isinstance(doc_or_docs, Document) else doc_or_docs
    try:
        result = _insert(self, doc_or_docs, *args, **kwargs)
    except BulkWriteError as error:
        cause = error.__context__
        _mark("created", self, lambda: stored_all_the_same(self, inserted, cause))
        raise
    _mark("created", self, lambda: rows_of(inserted, self._collection, "created"))
    return result


@wraps(_delete)
def delete(self: Any, *args: Any, **kwargs: Any) -> Any:
    if not _is_seen(self, has_mixin):
        return _delete(self, *args, **kwargs)
    call = _Call(_delete, self, *args, **kwargs)
    by_document = call["_from_doc_delete"]
    if not by_document and _deletes_one_by_one(self):
        return call()
    doomed = doomed_rows(self, by_document)
    deleted = call()
    if deleted or deleted is None:  # None: not acknowledged
        _mark("deleted", self, lambda: doomed)
    return deleted


@wraps(_update)
def update(self: Any, *args: Any, **kwargs: Any) -> Any:
    if not _is_seen(self, has_opted_in):
        return _update(self, *args, **kwargs)
    call = _Call(_update, self, *args, **kwargs)
    if call["multi"]:
        matched = matched_by(self)
        result = call(full_result=True)
    else:
        matched, result = _update_one(self, call)
    if result.acknowledged:
        if result.upserted_id is not None:
            _mark_found("created", self, [Found(self._document, result.upserted_id)])
        elif result.modified_count:
            _mark_found("updated", self, matched)
    if call["full_result"]:
        return result
    return result.raw_result["n"] if result.raw_result else None


@wraps(_modify)
def modify(self: Any, *args: Any, **kwargs: Any) -> Any:
    if not _is_seen(self, has_opted_in):
        return _modify(self, *args, **kwargs)
    call = _Call(_modify, self, *args, **kwargs)
    upsert = call["upsert"]
    existed = not upsert or bool(matched_by(self, 1))
    document = call()
    if document is None:
        if upsert:  # one was inserted, and MongoDB does not tell which
            _mark_found("created", self, matched_by(self, 1))
    elif call["remove"]:
        if has_opted_in(type(document)):
            _mark("deleted", self, lambda: rows_of([document], self._collection, "deleted"))
    else:
        modified = Found(type(document), raw_key(document))
        _mark_found("updated" if existed else "created", self, [modified])
    return document


# Functions, not methods: an application's queryset class may have methods of any name.


def _mark(action: Action, queryset: Any, rows: Callable[[], list[Row]]) -> None:
    with contained_faults("mark the %s documents of %s", action, queryset._document.__name__):
        note(action, rows())


def _mark_found(action: Action, queryset: Any, found: list[Found]) -> None:
    opted_in = [each for each in found if has_opted_in(each.model)]
    _mark(action, queryset, lambda: rows_now(opted_in, queryset, action))


def _is_seen(queryset: Any, is_marked: Callable[[Any], bool]) -> bool:
    """Whether `queryset` may hold documents of a class that is marked."""
    if queryset._none or queryset._empty:
        return False
    return any(map(is_marked, classes_of(queryset._document)))


def _deletes_one_by_one(queryset: Any) -> bool:
    """Whether MongoEngine will call ``delete()`` of each document, where it is seen."""
    model = queryset._document
    listened = (signals.pre_delete, signals.post_delete)
    return bool(
        queryset._skip
        or queryset._limit
        or any(signal.has_receivers_for(model) for signal in listened)
    )


def _update_one(queryset: Any, call: _Call) -> tuple[list[Found], Any]:
    """Update one document of `queryset`; return which, and the result.

    MongoDB does not say which, so one of those that match is chosen and named in the filter.
    """
    for _ in range(_ATTEMPTS if call["update"] else 0):
        matched = matched_by(queryset, 2)
        # The filter of an upsert stays: it says what to insert.
        if not matched or (call["upsert"] and len(matched) == 1):
            return matched, call(full_result=True)
        chosen = BaseQuerySet.__call__(queryset, pk=python_key(matched[0].model, matched[0].key))
        result = call(self=chosen, upsert=False, full_result=True)
        if not result.acknowledged or result.matched_count:
            return matched[:1], result
    return [], call(full_result=True)


class _Call:
    """A call of a queryset's method, whose parameters differ between versions of MongoEngine."""

    def __init__(self, method: Any, *args: Any, **kwargs: Any) -> None:
        self._method = method
        self._bound = inspect.signature(method).bind(*args, **kwargs)
        self._bound.apply_defaults()

    def __getitem__(self, parameter: str) -> Any:
        return self._bound.arguments[parameter]

    def __call__(self, /, **instead: Any) -> Any:
        """Make the call.

        :param instead: arguments in place of the caller's own.
        """
        arguments = {**self._bound.arguments, **instead}
        bound = inspect.BoundArguments(self._bound.signature, OrderedDict(arguments))
        return self._method(*bound.args, **bound.kwargs)
