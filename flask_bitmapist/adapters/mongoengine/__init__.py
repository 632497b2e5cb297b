"""MongoEngine: documents created, updated and deleted -> marks, published once they are final.

* `_rows`: what marks need to know about a document;
* `_transactions`: when they are published;
* `_saves`: ``save()``, seen through its signals;
* `_statements`: ``insert()``, ``delete()``, ``update()`` and ``modify()`` of querysets, which a
  document's own ``delete()`` and the delete rules use too;
* `_found`, `_reading`: which documents a statement is about, and what the database has of them.

Not seen: ``update()`` and ``modify()`` of models that have not opted in, and PyMongo. Use `record`
there.
"""

from __future__ import annotations

from typing import Any

try:
    from mongoengine import Document, EmbeddedDocument
except ImportError as error:
    raise ImportError(
        'MongoEngine is missing: pip install "flask-bitmapist[mongoengine]"', name=error.name
    ) from error

from ..base import BitmapistableModel, kept_attributes
from ._rows import id_of
from ._saves import listen
from ._statements import see_statements
from ._transactions import record

__all__ = ["MongoEngineBitmapistable", "record"]


class MongoEngineBitmapistable(BitmapistableModel):
    """Mixin: ``class User(MongoEngineBitmapistable, Document)`` marks ``user:created``,
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
            listen(cls)

    def __bitmapist_identity__(self) -> object:
        return id_of(self)


def _check_attributes(model: Any) -> None:
    if model._meta.get("abstract") or model._dynamic:
        return
    chosen = model.__bitmapist_id__
    for name in (*kept_attributes(model), *([chosen] if isinstance(chosen, str) else [])):
        # MongoEngine adds the field `id` after the class is made.
        if name != "id" and not hasattr(model, name):
            raise TypeError(f"{model.__name__} has no attribute {name!r}, which its options name")


see_statements()
