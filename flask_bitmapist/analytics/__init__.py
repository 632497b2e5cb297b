"""Reports: read-only, computed with NumPy from bitmaps that are fetched in one round trip.

Every report takes events or segments, a range and a moment as of which to report, and gives a
frozen dataclass with `to_dict`, `to_csv` and `to_dataframe`.
"""

from __future__ import annotations

from .adoption import Adoption, AdoptionPoint, adoption
from .bitmaps import Bitmap
from .churned import Churned, ChurnedPoint, churned
from .cohort import chain_events, get_cohort, get_event_data
from .compare import Arm, Compare, compare, compare_people
from .funnel import Funnel, Step, funnel, funnel_people
from .lifecycle import Lifecycle, LifecyclePoint, lifecycle, lifecycle_people
from .overlap import Overlap, overlap
from .overview import EventActivity, FlagCount, Overview, overview
from .people import contains, count, people, users
from .report import Report
from .retention import Average, Cell, Retention, Row, retention, retention_people
from .segments import Event, Expression, Flag, SegmentError, parse
from .sets import People
from .stickiness import Stickiness, stickiness, stickiness_people
from .time_limit import TimeLimitError, time_limit
from .timeline import EventSpan, Profile, Timeline, profile, timeline
from .trend import ActivePoint, ActiveUsers, Point, Trend, active_users, trend

__all__ = [
    "ActivePoint",
    "ActiveUsers",
    "Adoption",
    "AdoptionPoint",
    "Arm",
    "Average",
    "Bitmap",
    "Cell",
    "Churned",
    "ChurnedPoint",
    "Compare",
    "Event",
    "EventActivity",
    "EventSpan",
    "Expression",
    "Flag",
    "FlagCount",
    "Funnel",
    "Lifecycle",
    "LifecyclePoint",
    "Overlap",
    "Overview",
    "People",
    "Point",
    "Profile",
    "Report",
    "Retention",
    "Row",
    "SegmentError",
    "Step",
    "Stickiness",
    "TimeLimitError",
    "Timeline",
    "Trend",
    "active_users",
    "adoption",
    "chain_events",
    "churned",
    "compare",
    "compare_people",
    "contains",
    "count",
    "funnel",
    "funnel_people",
    "get_cohort",
    "get_event_data",
    "lifecycle",
    "lifecycle_people",
    "overlap",
    "overview",
    "parse",
    "people",
    "profile",
    "retention",
    "retention_people",
    "stickiness",
    "stickiness_people",
    "time_limit",
    "timeline",
    "trend",
    "users",
]
