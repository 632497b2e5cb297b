"""``save()``: a document is inserted, replaced or changed, as MongoEngine's signals tell.

Signals are connected for each model separately. Those of deletions are not used: if anybody listens
to them, MongoEngine deletes the documents of a queryset one by one, each by its own ``delete()``,
and follows CASCADE rules in circles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mongoengine import signals

from ...faults import contained_faults
from ..base import Action
from ._reading import documents, find
from ._rows import Row, changed_attributes, computed_attributes, raw_key, row_of, rows_of
from ._transactions import note

# Slot of a document's __dict__ between the two signals of a save: what was known before it.
_BEFORE = "_flask_bitmapist_before"
_NEW, _REPLACING, _LOADED = "new", "replacing", "loaded"


def listen(model: Any) -> None:
    """Mark what ``save()`` does to documents of `model`."""
    signals.pre_save_post_validation.connect(_before_save, sender=model)
    signals.post_save.connect(_after_save, sender=model)


def _before_save(_: object, document: Any, created: bool = False, **__: object) -> None:
    before = _LOADED
    if created:
        # A document of the same key is replaced, and MongoEngine calls it created.
        before = _REPLACING if _is_stored(document) else _NEW
    vars(document)[_BEFORE] = before


def _after_save(_: object, document: Any, created: bool = False, **__: object) -> None:
    before = vars(document).pop(_BEFORE, _LOADED)
    with contained_faults("mark a saved document of %s", type(document).__name__):
        collection = document._get_collection()
        if created and before == _LOADED:
            # Somebody had deleted it: now the database has only the changed fields.
            note("created", rows_of(_as_stored(document), collection, "created"))
        elif created:
            action: Action = "updated" if before == _REPLACING else "created"
            note(action, rows_of([document], collection, action))
        elif changed := document._get_changed_fields():  # still there: cleared after this signal
            note("updated", [_changed_row(document, changed)])


def _changed_row(document: Any, changed: Iterable[str]) -> Row:
    """The row of `document`, whose `changed` fields (called as in the database) were written."""
    collection = document._get_collection()
    row = row_of(document, collection, changed_attributes(document, changed))
    # They may depend on fields that this document has not loaded, or that others changed.
    if computed := computed_attributes(document):
        for stored in _as_stored(document):
            values = row_of(stored, collection, computed).values
            row = replace(row, values={**row.values, **values})
    return row


def _is_stored(document: Any) -> bool:
    """Whether the database has a document of this key."""
    with contained_faults("look for a document of %s", type(document).__name__):
        key = raw_key(document)
        return key is not None and any(find(document._get_collection(), {"_id": key}, ["_id"]))
    return False


def _as_stored(document: Any) -> list[Any]:
    """`document` as the database has it, in a list; empty if it does not."""
    with contained_faults("read a document of %s again", type(document).__name__):
        return list(documents(type(document), document._get_collection(), [raw_key(document)]))
    return []
