"""Which page answers at which endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from flask import Response

from . import overview, people, person
from .compare import CompareQuestion
from .funnel import FunnelQuestion
from .lifecycle import LifecycleQuestion
from .page import view
from .retention import RetentionQuestion
from .stickiness import StickinessQuestion

VIEWS: Mapping[str, Callable[[], Response]] = {
    "index": overview.view,
    "cohort": partial(view, RetentionQuestion),
    "funnel": partial(view, FunnelQuestion),
    "lifecycle": partial(view, LifecycleQuestion),
    "stickiness": partial(view, StickinessQuestion),
    "compare": partial(view, CompareQuestion),
    "people": people.view,
    "person": person.view,
}
