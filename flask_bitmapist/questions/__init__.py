"""Questions: one frozen value per report. Functions, commands and pages all build them.

A question gives the report, the people behind each of its figures, and the query string that asks
it again. Nothing here loads NumPy or talks to a server.
"""

from __future__ import annotations

from collections.abc import Mapping

from .adoption import AdoptionFigure, AdoptionQuestion
from .base import AsOf, BrokenDown, Figure, PartFigure, Question, Ranged
from .changes import ChangesFigure, ChangesQuestion
from .check import CheckQuestion
from .churned import ChurnedFigure, ChurnedQuestion
from .compare import CompareFigure, CompareQuestion
from .condition import Condition, ConditionError
from .conversion import (
    ConversionFigure,
    ConversionQuestion,
    TimeToConvertFigure,
    TimeToConvertQuestion,
)
from .funnel import FunnelFigure, FunnelQuestion
from .lifecycle import LifecycleFigure, LifecycleQuestion
from .overlap import OverlapFigure, OverlapQuestion
from .retention import RetentionFigure, RetentionQuestion
from .stickiness import StickinessFigure, StickinessQuestion
from .trend import ActiveUsersFigure, ActiveUsersQuestion, TrendFigure, TrendQuestion
from .trends import TrendsFigure, TrendsQuestion
from .users import PeopleFigure, PeopleQuestion, ProfileQuestion, TimelineQuestion

__all__ = [
    "REPORTS",
    "ActiveUsersFigure",
    "ActiveUsersQuestion",
    "AdoptionFigure",
    "AdoptionQuestion",
    "AsOf",
    "BrokenDown",
    "ChangesFigure",
    "ChangesQuestion",
    "CheckQuestion",
    "ChurnedFigure",
    "ChurnedQuestion",
    "CompareFigure",
    "CompareQuestion",
    "Condition",
    "ConditionError",
    "ConversionFigure",
    "ConversionQuestion",
    "Figure",
    "FunnelFigure",
    "FunnelQuestion",
    "LifecycleFigure",
    "LifecycleQuestion",
    "OverlapFigure",
    "OverlapQuestion",
    "PartFigure",
    "PeopleFigure",
    "PeopleQuestion",
    "ProfileQuestion",
    "Question",
    "Ranged",
    "RetentionFigure",
    "RetentionQuestion",
    "StickinessFigure",
    "StickinessQuestion",
    "TimeToConvertFigure",
    "TimeToConvertQuestion",
    "TimelineQuestion",
    "TrendFigure",
    "TrendQuestion",
    "TrendsFigure",
    "TrendsQuestion",
]

#: The reports about no single person, by the names of their functions.
REPORTS: Mapping[str, type[Question]] = {
    "trend": TrendQuestion,
    "trends": TrendsQuestion,
    "active_users": ActiveUsersQuestion,
    "retention": RetentionQuestion,
    "funnel": FunnelQuestion,
    "time_to_convert": TimeToConvertQuestion,
    "conversion": ConversionQuestion,
    "lifecycle": LifecycleQuestion,
    "stickiness": StickinessQuestion,
    "churned": ChurnedQuestion,
    "adoption": AdoptionQuestion,
    "overlap": OverlapQuestion,
    "changes": ChangesQuestion,
    "compare": CompareQuestion,
}
