"""The models that mark what happens to their rows, and what their adapters cannot see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...adapters.base import (
    ACTIONS,
    BitmapistableModel,
    dimensions_of,
    models_below,
    name_in_events,
)
from ._findings import Finding, Model, several

_PART = "models"
#: Models that have a line of their own.
_LISTED = 10
_ADAPTERS = "flask_bitmapist.adapters."
#: What each adapter is called, and what happens to rows unseen by it.
_ORMS = {
    "sqlalchemy": (
        "SQLAlchemy",
        "session.bulk_*, Core statements, raw SQL, the database's cascades and triggers",
    ),
    "peewee": ("peewee", "raw SQL, upserts, the database's cascades and triggers"),
    "mongoengine": ("MongoEngine", "PyMongo"),
}


def models() -> list[Model]:
    """Those of all applications in this process, in the order of their names."""
    found = {_full_name(cls): cls for cls in models_below(BitmapistableModel) if _is_model(cls)}
    return [_described(cls) for _, cls in sorted(found.items())]


def _is_model(cls: Any) -> bool:
    """Whether `cls` has rows: it is neither a mixin nor abstract."""
    orm = _orm_of(cls)
    if cls.__module__.startswith(_ADAPTERS):
        return False
    if orm == "sqlalchemy":
        return "__mapper__" in vars(cls)
    if orm in _ORMS:
        meta = getattr(cls, "_meta", None)
        return meta is not None and not (isinstance(meta, dict) and meta.get("abstract"))
    return True


def _orm_of(cls: type) -> str:
    """The adapter of `cls`; for one that is not ours, its module."""
    ours = [base.__module__ for base in cls.__mro__ if base.__module__.startswith(_ADAPTERS)]
    name = ours[0].removeprefix(_ADAPTERS).partition(".")[0]
    if name in _ORMS:
        return name
    mixins = [base for base in cls.__mro__ if BitmapistableModel in base.__bases__]
    return mixins[0].__module__ if mixins else name


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _described(cls: Any) -> Model:
    name, chosen, orm = name_in_events(cls), cls.__bitmapist_id__, _orm_of(cls)
    return Model(
        _full_name(cls),
        _ORMS[orm][0] if orm in _ORMS else orm,
        [f"{name}:{action}" for action in ACTIONS if action in cls.__bitmapist_events__],
        [f"{name}:{flag}" for flag in sorted(cls.__bitmapist_flags__)],
        [f"{name}:{dimension}" for dimension in sorted(dimensions_of(cls))],
        "primary key" if chosen is None else "method" if callable(chosen) else chosen,
        cls.__bitmapist_bulk__,
        cls.__bitmapist_erase_deleted__,
    )


def check(found: Sequence[Model]) -> Iterator[Finding]:
    """What each model marks, what is not seen, and names that two models share."""
    for model in found[:_LISTED]:
        events = _shortened(model.events)
        kept = (_shortened(names) for names in (model.flags, model.dimensions) if names)
        whose = "" if model.id == "primary key" else f" by {model.id}"
        bulk = "" if model.bulk else "; not by bulk statements"
        erases = "; whoever is deleted is erased" if model.erases else ""
        name = model.name.rpartition(".")[2]
        yield Finding(
            _PART,
            "ok",
            f"{name} marks {'; '.join([events or 'nothing', *kept])}{whose}{bulk}{erases}",
        )
    if (more := len(found) - _LISTED) > 0:
        yield Finding(_PART, "ok", f"and {several(more, 'model')} more: --json has all")
    seen = {model.orm for model in found}
    for orm, blind in _ORMS.values():
        if orm in seen:
            yield Finding(_PART, "ok", f"{orm} does not see: {blind}")
    yield from _clashes(found)


def _shortened(events: Iterable[str]) -> str:
    """``user:created, user:updated`` as ``user:created, updated``."""
    listed = [*events]
    begin = listed[0].rpartition(":")[0] if listed else ""
    return ", ".join([*listed[:1], *(one.removeprefix(f"{begin}:") for one in listed[1:])])


def _clashes(found: Sequence[Model]) -> Iterator[Finding]:
    by_event: defaultdict[str, list[str]] = defaultdict(list)
    for model in found:
        for event in (*model.events, *model.flags, *model.dimensions):
            by_event[event].append(model.name)
    for pair in {
        tuple(names): event for event, names in by_event.items() if len(names) > 1
    }.items():
        names, event = pair
        yield Finding(
            _PART,
            "warning",
            f"{' and '.join(names)} all mark {event.rpartition(':')[0]}:...",
            "Give all but one another __bitmapist_name__, unless they mark the same ids",
        )
