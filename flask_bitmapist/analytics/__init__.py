"""Reports: read-only, computed with NumPy from bitmaps that are fetched in one round trip.

Every report takes events or segments, a range and a moment as of which to report, and gives a
frozen dataclass with `to_dict`, `to_csv` and `to_dataframe`.
"""

from __future__ import annotations

from ..reading.bitmap import Bitmap
from ..reading.segments import Did, Event, Expression, First, Flag, SegmentError, Was, parse
from ..reading.time_limit import TimeLimitError, time_limit
from ._active_users import ActivePoint, ActiveUsers, active_users
from ._adoption import Adoption, AdoptionPoint, adoption
from ._answers import answer, everyone_behind, kind_behind, others_flagged, people_behind
from ._breakdown import NO_VALUE, part_of
from ._changes import Change, Changes, changes
from ._check import Check, CheckedFigure, check
from ._churned import Churned, ChurnedPoint, churned
from ._compare import Arm, Compare, compare, compare_people
from ._conversion import Conversion, ConversionPoint, conversion
from ._funnel import Funnel, Step, funnel, funnel_people
from ._lifecycle import Lifecycle, LifecyclePoint, lifecycle, lifecycle_people
from ._overlap import Overlap, overlap
from ._overview import EventActivity, FlagCount, Overview, overview
from ._people import contains, count, people, users
from ._report import Report, csv_rows, csv_text
from ._retention import Average, Cell, Retention, Row, retention, retention_people
from ._sets import People
from ._stickiness import Stickiness, stickiness, stickiness_people
from ._summaries import Summaries, Summary, summaries
from ._time_to_convert import Taken, TimeToConvert, time_to_convert
from ._timeline import EventSpan, Profile, Timeline, profile, timeline
from ._trend import Point, Trend, trend
from ._trends import Series, Trends, TrendsPoint, trends

__all__ = [
    "NO_VALUE",
    "ActivePoint",
    "ActiveUsers",
    "Adoption",
    "AdoptionPoint",
    "Arm",
    "Average",
    "Bitmap",
    "Cell",
    "Change",
    "Changes",
    "Check",
    "CheckedFigure",
    "Churned",
    "ChurnedPoint",
    "Compare",
    "Conversion",
    "ConversionPoint",
    "Did",
    "Event",
    "EventActivity",
    "EventSpan",
    "Expression",
    "First",
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
    "Series",
    "Step",
    "Stickiness",
    "Summaries",
    "Summary",
    "Taken",
    "TimeLimitError",
    "TimeToConvert",
    "Timeline",
    "Trend",
    "Trends",
    "TrendsPoint",
    "Was",
    "active_users",
    "adoption",
    "answer",
    "changes",
    "check",
    "churned",
    "compare",
    "compare_people",
    "contains",
    "conversion",
    "count",
    "csv_rows",
    "csv_text",
    "everyone_behind",
    "funnel",
    "funnel_people",
    "kind_behind",
    "lifecycle",
    "lifecycle_people",
    "others_flagged",
    "overlap",
    "overview",
    "parse",
    "part_of",
    "people",
    "people_behind",
    "profile",
    "retention",
    "retention_people",
    "stickiness",
    "stickiness_people",
    "summaries",
    "time_limit",
    "time_to_convert",
    "timeline",
    "trend",
    "trends",
    "users",
]
