"""Every report about a range: a question as it is usually asked, and one figure of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask_bitmapist import questions

NOW = datetime(2026, 11, 23, 14, 32)


@dataclass(frozen=True)
class Asked:
    """A kind of question with the fields that it needs, and a figure with people behind it."""

    kind: type[questions.Question]
    fields: dict[str, Any]
    figure: questions.Figure

    def question(self, **more: Any) -> questions.Question:
        """The question with these fields besides, or instead."""
        return self.kind.of(**{"now": NOW} | self.fields | more)


def every_report(event: str) -> dict[str, Asked]:
    """Each report by its name, asked of `event`; "seen" and "goal" are the other events."""
    return {
        "trend": Asked(
            questions.TrendQuestion, {"event": event, "rolling": 2}, questions.TrendFigure()
        ),
        "trends": Asked(
            questions.TrendsQuestion,
            {"events": ["seen", event], "active": "seen"},
            questions.TrendsFigure(number=1),
        ),
        "active users": Asked(
            questions.ActiveUsersQuestion, {"event": event}, questions.ActiveUsersFigure()
        ),
        "retention": Asked(
            questions.RetentionQuestion,
            {"cohort": event, "returned": "seen", "by": "day"},
            questions.RetentionFigure(k=1),
        ),
        "lifecycle": Asked(
            questions.LifecycleQuestion,
            {"event": event},
            questions.LifecycleFigure(group="returning"),
        ),
        "stickiness": Asked(
            questions.StickinessQuestion, {"event": event}, questions.StickinessFigure(k=1)
        ),
        "funnel": Asked(
            questions.FunnelQuestion,
            {"steps": [event, "goal"], "within": 3},
            questions.FunnelFigure(step=1),
        ),
        "compare": Asked(
            questions.CompareQuestion,
            {"arms": ["goal", event], "goal": "seen"},
            questions.CompareFigure(arm=1),
        ),
        "time to convert": Asked(
            questions.TimeToConvertQuestion,
            {"steps": [event, "goal"]},
            questions.TimeToConvertFigure(k=1),
        ),
        "conversion": Asked(
            questions.ConversionQuestion,
            {"steps": [event, "goal"], "within": 3},
            questions.ConversionFigure(step=1),
        ),
        "adoption": Asked(
            questions.AdoptionQuestion,
            {"feature": event, "active": "seen"},
            questions.AdoptionFigure(which="new"),
        ),
        "churned": Asked(
            questions.ChurnedQuestion,
            {"event": event, "silent": 3},
            questions.ChurnedFigure(at=NOW - timedelta(days=9)),
        ),
        "overlap": Asked(
            questions.OverlapQuestion,
            {"events": ["seen", event]},
            questions.OverlapFigure(one=0, other=1),
        ),
        "changes": Asked(
            questions.ChangesQuestion, {"where": event}, questions.ChangesFigure(event="seen")
        ),
        "people": Asked(questions.PeopleQuestion, {"expression": event}, questions.PeopleFigure()),
    }
