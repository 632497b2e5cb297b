"""MongoEngine: documents created, updated and deleted -> marks, published once they are final.

Signals are connected for each model alone, as a receiver for all senders would make the
``delete()`` of every queryset, of any model, delete document by document:

* ``pre_save_post_validation``, ``post_save``: a document was inserted, replaced or changed;
* ``pre_delete``, ``post_delete``: it was deleted, also by a queryset or a CASCADE rule;
* ``post_bulk_insert``: ``queryset.insert()`` inserted it.

A write is final when the server has acknowledged it, and is published at once. In a transaction,
of a bound session of PyMongo or of MongoEngine's development branch, it waits for the commit.

Not seen: ``update()`` and ``modify()`` of querysets and documents, NULLIFY and PULL rules, PyMongo.
Use `record` there, or opt in to bulk statements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

try:
    from bson import DBRef
    from mongoengine import Document, EmbeddedDocument, connection, signals
    from mongoengine.base import BaseField
    from mongoengine.queryset import QuerySet
    from mongoengine.queryset.base import BaseQuerySet
    from pymongo import ReadPreference
    from pymongo.client_session import ClientSession
except ImportError as error:
    raise ImportError(
        'MongoEngine is missing: pip install "flask-bitmapist[mongoengine]"', name=error.name
    ) from error

from ..current import publish
from ..faults import contained_faults
from ..ids import TextKey
from ..marks import Mark
from .base import Action, BitmapistableModel, Changes, checked_marks

# The ContextVar that ClientSession.bind() of PyMongo >= 4.17 sets: nothing public tells it.
_BOUND_SESSION = getattr(sys.modules[ClientSession.__module__], "_SESSION", None)

# Slot of a session's __dict__: the Changes of its transaction.
_CHANGES = "_flask_bitmapist_changes"
# Slot of a document's __dict__, between two signals: whether the database had it before.
_STORED = "_flask_bitmapist_stored"

# Keys of one query: it must stay far below 16 MiB.
_KEYS_PER_QUERY = 1_000
# Another process may change or delete the document that was chosen.
_ATTEMPTS = 3


class MongoEngineBitmapistable(BitmapistableModel):
    """Mixin: ``class User(Document, MongoEngineBitmapistable)`` marks ``user:created``,
    ``user:updated`` and ``user:deleted`` once a document's insert, change or deletion is final.

    The class options are those of `BitmapistableModel`. An ``__bitmapist_id__`` that names a
    reference stands for the key of what it refers to. With ``__bitmapist_bulk__ = True``,
    ``update()`` and ``modify()`` of the model's querysets and documents mark too.

    :raises TypeError: for an EmbeddedDocument, and for options that name no attribute.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, EmbeddedDocument):
            raise TypeError(
                f"{cls.__name__} is an EmbeddedDocument, which has no key of its own to mark: "
                "give the mixin to the document that it is stored in"
            )
        if issubclass(cls, Document):
            _check_attributes(cls)
            _listen(cls)
            if cls.__bitmapist_bulk__:
                _see_bulk_statements(cls)

    def __bitmapist_identity__(self) -> object:
        return _id_of(self)


def record(session: ClientSession | None, *marks: Mark | tuple[Any, ...]) -> None:
    """Publish `marks` when the open transaction of `session` commits.

    For what MongoEngine does not see, such as writes of PyMongo. Outside any transaction they are
    published at once.

    :param session: the PyMongo session that the writes were made in; None: the one, if any, that
        MongoEngine writes in now.
    :param marks: such as ``("post:published", post_id)``.
    :raises TypeError: for something that is no mark or no id.
    :raises ValueError: for an event name or id that is not allowed. None is recorded then.
    """
    checked = checked_marks(marks)
    changes = _open_changes(session or _current_session())
    if changes is None:
        publish(checked)
    else:
        changes.enlist(checked)


# Transactions


def _current_session() -> ClientSession | None:
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

    The session's methods are replaced until then. PyMongo's own CommandListener knows only the
    clients that were made after it, and no commit of a transaction without writes.
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


# Documents


def _note(action: Action, documents: Iterable[Any], flags: Iterable[str] | None = None) -> None:
    """`action` happened to `documents`: in the open transaction, or for good.

    :param flags: those that it may have changed; None: all.
    """
    changes = _open_changes(_current_session())
    noted = Changes() if changes is None else changes
    for document in documents:
        model = type(document)
        with contained_faults("note a document of %s as %s", model.__name__, action):
            names = model.__bitmapist_flags__ if flags is None else flags
            # A dynamic document may lack it.
            values = {name: bool(getattr(document, name, False)) for name in names}
            noted.note(_row_of(document), model, action, _id_of(document), values)
    if changes is None:
        publish(noted.marks())


def _row_of(document: Any) -> tuple[object, ...]:
    """The identity of a document, whichever class of its hierarchy names it."""
    return (document._get_collection().full_name, _key_of(document))


def _key_of(document: Any) -> object:
    return _stored_id(document, document._meta["id_field"])


def _id_of(document: Any) -> object:
    chosen = type(document).__bitmapist_id__
    if chosen is None or chosen == "pk":
        return _key_of(document)
    field = getattr(type(document), chosen, None) if isinstance(chosen, str) else None
    if isinstance(field, BaseField):
        return _stored_id(document, field.name)
    return _key_behind(document._bitmapist_chosen_id())


def _stored_id(document: Any, name: str) -> object:
    """The id that the field `name` holds, a textual one as such."""
    # Not by getattr(), which would fetch what a reference refers to.
    value = document._data.get(name)
    if isinstance(value, str):
        value = document._fields[name].to_python(value)  # '7', assigned to an IntField
    id_ = _key_behind(value)
    return TextKey(id_) if isinstance(id_, str) else id_


def _key_behind(value: Any) -> object:
    """The key of what `value` refers to, if it is a reference; else `value`."""
    if isinstance(value, Document):
        return _key_of(value)
    if isinstance(value, EmbeddedDocument):  # a composite key
        return tuple(_stored_id(value, name) for name in value._fields_ordered)
    if isinstance(value, dict) and isinstance(value.get("_ref"), DBRef):  # GenericReferenceField
        value = value["_ref"]
    if not isinstance(value, DBRef):  # as a LazyReference is
        return cast(object, value)
    # MongoDB's values keep their type: a str is a textual key.
    return TextKey(value.id) if isinstance(value.id, str) else value.id


def _is_stored(document: Any) -> bool:
    """Whether the database has a document of this key."""
    if document.pk is None:
        return False
    with contained_faults("look for a document of %s", type(document).__name__):
        found = document._qs.filter(**document._object_key)
        return bool(found.read_preference(ReadPreference.PRIMARY).count())
    return False


# Signals


def _check_attributes(model: Any) -> None:
    if model._meta.get("abstract") or model._dynamic:
        return
    chosen = model.__bitmapist_id__
    for name in (*model.__bitmapist_flags__, *([chosen] if isinstance(chosen, str) else [])):
        # MongoEngine adds the field `id` after the class was made.
        if name != "id" and not hasattr(model, name):
            raise TypeError(f"{model.__name__} has no attribute {name!r}, which its options name")


def _listen(model: Any) -> None:
    signals.pre_save_post_validation.connect(_before_save, sender=model)
    signals.post_save.connect(_after_save, sender=model)
    signals.post_delete.connect(_after_delete, sender=model)
    for ancestor in model.__mro__:
        # The querysets of a document that has not the mixin hold those of its subclasses too.
        if issubclass(ancestor, Document):
            signals.pre_delete.connect(_before_delete, sender=ancestor)
            signals.post_bulk_insert.connect(_after_insert, sender=ancestor)


def _before_save(_: object, document: Any, created: bool = False, **__: object) -> None:
    # A document of the same key is replaced, and MongoEngine calls it created.
    vars(document)[_STORED] = created and _is_stored(document)


def _after_save(_: object, document: Any, created: bool = False, **__: object) -> None:
    replaced = vars(document).pop(_STORED, False)
    if created:
        _note("updated" if replaced else "created", [document])
        return
    changed = document._get_changed_fields()  # still there: cleared after this signal
    if changed:
        _note("updated", [document], _perhaps_changed(document, changed))


def _perhaps_changed(document: Any, changed: Iterable[str]) -> list[str]:
    """The flags that a change of the database's fields `changed` may have given a new value."""
    stored = document._db_field_map
    changed = {name.partition(".")[0] for name in changed}
    return [
        flag
        for flag in type(document).__bitmapist_flags__
        if flag not in stored or stored[flag] in changed  # a property may depend on any field
    ]


def _before_delete(_: object, document: Any, **__: object) -> None:
    if isinstance(document, MongoEngineBitmapistable):
        # MongoEngine does not tell, and `User(id=7).delete()` is a way to delete what is there.
        vars(document)[_STORED] = _is_stored(document)


def _after_delete(_: object, document: Any, **__: object) -> None:
    if vars(document).pop(_STORED, False):
        _note("deleted", [document], ())


def _after_insert(_: object, documents: Iterable[Any], **__: object) -> None:
    _note("created", [each for each in documents if isinstance(each, MongoEngineBitmapistable)])


# Bulk statements


def _see_bulk_statements(model: Any) -> None:
    """Have the querysets of `model`, of whatever class, see bulk statements."""
    own = model._meta.get("queryset_class", QuerySet)
    if not issubclass(own, _BulkQuerySet):
        model._meta["queryset_class"] = type(f"Bitmapist{own.__name__}", (_BulkQuerySet, own), {})


class _BulkQuerySet(BaseQuerySet):  # type: ignore[misc]
    """The bulk statements of models with ``__bitmapist_bulk__ = True``."""

    def update(
        self,
        upsert: bool = False,
        multi: bool = True,
        write_concern: Any = None,
        read_concern: Any = None,
        full_result: bool = False,
        **update: Any,
    ) -> Any:
        update |= {"write_concern": write_concern, "read_concern": read_concern}
        if not _is_seen(self):
            return super().update(upsert, multi, full_result=full_result, **update)
        if multi:
            matched = _matched(self)
            result = super().update(upsert, full_result=True, **update)
        else:
            matched, result = _update_one(self, upsert, update)
        if result.acknowledged:
            if result.upserted_id is not None:
                _note_bulk("created", self, _all(self)(__raw__={"_id": result.upserted_id}))
            elif result.modified_count:
                _note_bulk("updated", self, _read_again(self, matched))
        if full_result:
            return result
        return result.raw_result["n"] if result.raw_result else None

    def modify(
        self,
        upsert: bool = False,
        full_response: bool = False,
        remove: bool = False,
        new: bool = False,
        **update: Any,
    ) -> Any:
        if not _is_seen(self):
            return super().modify(upsert, full_response, remove, new, **update)
        existed = not upsert or bool(_matched(self, 1))
        document = super().modify(upsert, full_response, remove, new, **update)
        if document is None:
            if upsert:  # one was inserted, and MongoDB does not tell which
                _note_bulk("created", self, _read_again(self, _matched(self, 1)))
        elif remove:
            _note_bulk("deleted", self, [document])
        else:
            action: Action = "updated" if existed else "created"
            _note_bulk(action, self, _read_again(self, [document]))
        return document


# Functions, not methods: the model's own queryset class may have any names.


def _is_seen(queryset: Any) -> bool:
    without_documents = queryset._none or queryset._empty
    return queryset._document.__bitmapist_bulk__ and not without_documents


def _update_one(queryset: Any, upsert: bool, update: dict[str, Any]) -> tuple[list[Any], Any]:
    """Update one document of `queryset`, and tell which.

    MongoDB does not: so any one of those that match is chosen, and named in the filter.
    """
    own: Any = super(_BulkQuerySet, type(queryset))
    for _ in range(_ATTEMPTS):
        matched = _matched(queryset, 1)
        if not matched:
            break
        chosen = queryset.filter(pk=matched[0].pk)
        result = own.update(chosen, multi=False, full_result=True, **update)
        if not result.acknowledged or result.matched_count:
            return matched, result
    return [], own.update(queryset, upsert, False, full_result=True, **update)


def _all(queryset: Any) -> Any:
    """All documents of the collection of `queryset`, in any order."""
    everything = QuerySet(queryset._document, queryset._collection)
    return everything.order_by().read_preference(ReadPreference.PRIMARY)


def _matched(queryset: Any, at_most: int | None = None) -> list[Any]:
    """The documents that a statement of `queryset` applies to, with their keys alone."""
    with contained_faults("find the documents of %s to mark", queryset._document.__name__):
        # Its query alone counts: MongoEngine ignores its limit and its order.
        return list(_all(queryset)(__raw__=queryset._query).only("pk").limit(at_most))
    return []


def _read_again(queryset: Any, documents: list[Any]) -> Iterator[Any]:
    """`documents` as they are now, if their marks depend on more than the key."""
    if not any(map(_needs_reading, map(type, documents))):
        yield from documents
        return
    keys = [document.pk for document in documents]
    for first in range(0, len(keys), _KEYS_PER_QUERY):
        yield from _all(queryset)(pk__in=keys[first : first + _KEYS_PER_QUERY])


def _needs_reading(model: Any) -> bool:
    return bool(model.__bitmapist_flags__) or model.__bitmapist_id__ is not None


def _note_bulk(action: Action, queryset: Any, documents: Iterable[Any]) -> None:
    with contained_faults("mark the %s documents of %s", action, queryset._document.__name__):
        _note(action, (each for each in documents if type(each).__bitmapist_bulk__))
