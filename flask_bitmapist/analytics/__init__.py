"""Reports: read-only, computed with NumPy from bitmaps that are fetched in one round trip."""

from __future__ import annotations

from .bitmaps import Bitmap, counts, fetch, union
from .cohort import chain_events, get_cohort, get_event_data
from .cohort_table import CohortTable, cohort_table
from .overview import EventActivity, FlagCount, Overview, overview

__all__ = [
    "Bitmap",
    "CohortTable",
    "EventActivity",
    "FlagCount",
    "Overview",
    "chain_events",
    "cohort_table",
    "counts",
    "fetch",
    "get_cohort",
    "get_event_data",
    "overview",
    "union",
]
