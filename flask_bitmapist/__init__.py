"""Flask-Bitmapist: self-hosted product analytics for Flask.

Models, logins and views mark events into Redis bitmaps under bitmapist's own keys.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .api import (
    get_event_names,
    mark,
    mark_dimension,
    mark_event,
    mark_unique,
    mark_visitor,
    unmark_event,
    unmark_unique,
)
from .boards import chart
from .dimensions import Dimension
from .events import (
    BitOpAnd,
    BitOpNot,
    BitOpOr,
    BitOpXor,
    DayEvents,
    HourEvents,
    MonthEvents,
    UniqueEvents,
    WeekEvents,
    YearEvents,
)
from .extension import FlaskBitmapist
from .marks import Mark

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from . import analytics as analytics
    from .adapters.mongoengine import MongoEngineBitmapistable as MongoEngineBitmapistable
    from .adapters.peewee import PeeweeBitmapistable as PeeweeBitmapistable
    from .adapters.sqlalchemy import SQLAlchemyBitmapistable as SQLAlchemyBitmapistable
    from .legacy import chain_events as chain_events
    from .legacy import get_cohort as get_cohort
    from .legacy import get_event_data as get_event_data

    Bitmapistable = SQLAlchemyBitmapistable
    SYSTEMS: MutableMapping[str, Any]

__all__ = [
    "BitOpAnd",
    "BitOpNot",
    "BitOpOr",
    "BitOpXor",
    "DayEvents",
    "Dimension",
    "FlaskBitmapist",
    "HourEvents",
    "Mark",
    "MonthEvents",
    "UniqueEvents",
    "WeekEvents",
    "YearEvents",
    "analytics",
    "chain_events",
    "chart",
    "get_cohort",
    "get_event_data",
    "get_event_names",
    "mark",
    "mark_dimension",
    "mark_event",
    "mark_unique",
    "mark_visitor",
    "unmark_event",
    "unmark_unique",
]

# Loaded when first asked for: an application that only marks imports no ORM and no NumPy.
# The mixins are not in __all__: `import *` would ask for all of them, and so for every ORM.
_LAZY = {
    "Bitmapistable": (".adapters.sqlalchemy", "SQLAlchemyBitmapistable"),
    "SQLAlchemyBitmapistable": (".adapters.sqlalchemy", "SQLAlchemyBitmapistable"),
    "PeeweeBitmapistable": (".adapters.peewee", "PeeweeBitmapistable"),
    "MongoEngineBitmapistable": (".adapters.mongoengine", "MongoEngineBitmapistable"),
    "chain_events": (".legacy", "chain_events"),
    "get_cohort": (".legacy", "get_cohort"),
    "get_event_data": (".legacy", "get_event_data"),
}


def __getattr__(name: str) -> Any:
    if name == "analytics":
        return import_module(".analytics", __name__)
    if name == "SYSTEMS":
        return import_module(".systems", __name__).servers()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module, __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LAZY, "SYSTEMS"})
