"""What a backfill reads of a model's rows, a page at a time: whose they are, when, their state.

Each ORM has a class `Rows` in its ``_table`` module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from .base import BitmapistableModel, dimensions_of

#: The values of a row's primary key, as the ORM gives them.
Key = tuple[Any, ...]


class Asked(NamedTuple):
    """What to read of each row."""

    #: The attribute with the moment.
    at: str
    #: The attribute with the id to mark, or a method that gives it; None: the primary key.
    id: Any = None
    #: The attributes of flags and dimensions.
    kept: Sequence[str] = ()
    #: Which rows, in the ORM's own language; None: all.
    where: str | None = None

    @classmethod
    def of(cls, model: type, at: str, id_: str | None, where: str | None) -> Asked:
        """What to read of the rows of `model`, whose class options are the defaults."""
        chosen = getattr(model, "__bitmapist_id__", None) if id_ is None else id_
        kept = (*getattr(model, "__bitmapist_flags__", ()), *dimensions_of(model))
        return cls(at, chosen, (*kept,), where)


class Page(NamedTuple):
    """Rows in the order of their keys, in columns."""

    #: What identifies whom to mark; None: nobody. A list, or an array of integers.
    ids: Sequence[object]
    #: A list, or an array of type datetime64.
    moments: Sequence[object]
    #: The values of each of the attributes that are kept, as Python's objects.
    values: Mapping[str, Sequence[object]]
    #: The key of the last row.
    last: Key


class Rows(Protocol):
    """The rows of a model."""

    def count(self) -> int:
        """How many there are."""

    def page(self, after: Key | None, size: int) -> Page | None:
        """The next `size` rows after the key `after`, as they are now; None: there are no more."""


def of_objects(objects: Sequence[Any], asked: Asked, ids: Sequence[object], last: Key) -> Page:
    """The page of rows that were loaded as objects, because a method or a property is asked."""
    return Page(
        ids,
        [getattr(row, asked.at) for row in objects],
        {name: [getattr(row, name) for row in objects] for name in asked.kept},
        last,
    )


def id_of_object(row: Any, chosen: Any) -> object:
    """The id that `chosen`, a name or a method, gives for `row`."""
    if callable(chosen):
        return row._bitmapist_chosen_id() if isinstance(row, BitmapistableModel) else chosen(row)
    return getattr(row, chosen)


def check_attributes(model: type, asked: Asked) -> None:
    """:raises ValueError: if `model` lacks an attribute that is `asked` for."""
    for name in (asked.at, asked.id, *asked.kept):
        if isinstance(name, str) and not hasattr(model, name):
            raise ValueError(f"{model.__name__} has no attribute {name!r}")
