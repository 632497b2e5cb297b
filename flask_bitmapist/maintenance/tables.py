"""A model's rows as marks: which ORM reads them, under which names, whose they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any, NamedTuple, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ..adapters.base import dimensions_of
from ..adapters.rows import Asked, Key, Rows
from ..ids import normal_form
from ..many import is_array
from ..marks import checked_name
from ..tracker import Tracker


def rows_of(model: Any, asked: Asked, source: Any = None) -> Rows:
    """The rows of `model`, read by its ORM's adapter.

    :param source: for SQLAlchemy: an engine or a session, unless Flask-SQLAlchemy has it.
    :raises ValueError: if it is not a model, or lacks an attribute that is `asked` for.
    """
    table = import_module(f"..adapters.{_orm_of(model)}._table", __package__)
    return cast(Rows, table.Rows(model, asked, source))


def _orm_of(model: Any) -> str:
    if isinstance(model, type):
        packages = {base.__module__.partition(".")[0] for base in model.__mro__}
        for orm in ("peewee", "mongoengine"):
            if orm in packages:
                return orm
        if hasattr(model, "__mapper__"):
            return "sqlalchemy"
    raise ValueError(f"{model!r} is not a model of SQLAlchemy, peewee or MongoEngine")


class Names(NamedTuple):
    """Under which names the rows of a model are marked."""

    event: str
    #: Event of each flag, by attribute.
    flags: dict[str, str]
    #: Likewise, each dimension.
    dimensions: dict[str, str]
    #: The name of the map of textual ids.
    space: str

    @classmethod
    def of(cls, model: Any, event: str | None) -> Names:
        """Those of `model`, whose class options are the defaults.

        :raises ValueError: if `event` cannot name an event, or `model` is no model.
        """
        _orm_of(model)
        name = getattr(model, "__bitmapist_name__", None) or model.__name__.lower()
        flags = getattr(model, "__bitmapist_flags__", ())
        dimensions = dimensions_of(model)
        return cls(
            checked_name(f"{name}:created" if event is None else event),
            {flag: f"{name}:{flag}" for flag in flags},
            {dimension: f"{name}:{dimension}" for dimension in dimensions},
            getattr(model, "__bitmapist_ids__", ""),
        )


class Ids(NamedTuple):
    """Ids that can be marked, and where they were."""

    #: An array of offsets, or a list.
    values: Any
    places: NDArray[np.intp]
    #: Why the first of the others cannot be marked; '' if all of them are None.
    reason: str

    def chosen(self, mask: NDArray[np.bool_]) -> tuple[Any, NDArray[np.intp]]:
        """Those whose place has a true value in `mask`, with their places."""
        kept = np.flatnonzero(mask[self.places])
        if is_array(self.values):
            return self.values[kept], self.places[kept]
        return [self.values[place] for place in kept.tolist()], self.places[kept]


def usable(tracker: Tracker, ids: Sequence[object], space: str) -> Ids:
    """Those of `ids` that `tracker` can mark, checked as it does."""
    are_ints = is_array(ids) or {*map(type, ids)} == {int}
    if are_ints and tracker.settings.id_map != "always":
        try:
            offsets = np.asarray(ids, np.int64)
        except OverflowError:
            return _usable_one_by_one(tracker, ids, space)
        fit = (offsets >= 0) & (offsets <= tracker.settings.max_id)
        if fit.all():
            return Ids(offsets, np.arange(len(offsets)), "")
        ids = offsets.tolist()
    elif is_array(ids):
        ids = np.asarray(ids).tolist()
    return _usable_one_by_one(tracker, ids, space)


def _usable_one_by_one(tracker: Tracker, ids: Sequence[object], space: str) -> Ids:
    values, places, reason = list[object](), list[int](), ""
    for place, id_ in enumerate(ids):
        if id_ is None:
            continue
        try:
            value = normal_form(id_)
            tracker.check_id(value, space)
        except (TypeError, ValueError) as error:
            reason = reason or str(getattr(error, "without_id", error))
        else:
            # A textual key stays text, although it may read like a number.
            values.append(id_ if isinstance(value, str) else value)
            places.append(place)
    return Ids(values, np.array(places, np.intp), reason)


# Keys, as a command prints and takes them

_KINDS: dict[str, Any] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "Decimal": Decimal,
    "UUID": UUID,
    "bytes": bytes.fromhex,
}


def key_text(key: Key) -> str:
    """`key` as JSON: ``20000``, ``["de", 7]``, ``{"UUID": "..."}``."""
    parts = [_part_text(part) for part in key]
    return json.dumps(parts[0] if len(parts) == 1 else parts)


def _part_text(part: Any) -> Any:
    if isinstance(part, bool | int | float) or type(part) is str:
        return part
    told = part.isoformat() if isinstance(part, date) else str(part)
    return {type(part).__name__: part.hex() if isinstance(part, bytes) else told}


def key_of(text: str) -> Key:
    """The key that `key_text` made `text` of.

    :raises ValueError: if `text` is not such a key.
    """
    try:
        parts = json.loads(text)
        return tuple(map(_part_of, parts if isinstance(parts, list) else [parts]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is no key: give it as the command printed it") from error


def _part_of(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    ((kind, text),) = part.items()
    if kind == "ObjectId":
        from bson import ObjectId

        return ObjectId(text)
    return _KINDS[kind](text)
