"""The pages: each asks analytics for one report and shows it."""

from __future__ import annotations

import logging

from flask import request
from redis.exceptions import RedisError
from werkzeug.exceptions import BadRequest

from ..marking import current_tracker
from ..periods import Period
from .forms import BY, LONGEST, cohort_form
from .pages import page

# The views import analytics when they run: a worker that only marks never loads NumPy.

logger = logging.getLogger("flask_bitmapist")


def index() -> str:
    """Every event with its users today, this week, this month, this year and day by day."""
    from ..analytics.overview import overview

    tracker = current_tracker()
    report = overview(tracker=tracker)
    if not report.events and not report.flags:
        return page("empty")
    return page("index", report=report, timezone=tracker.settings.timezone)


def cohort() -> str:
    """Of those who did one event in a period, how many did another one k periods later."""
    from ..analytics.retention import retention
    from ..analytics.segments import Event

    tracker = current_tracker()
    events = tracker.event_names()
    if not events and not request.args:
        return page("empty")
    form = cohort_form(request.args, events)
    now = tracker.now()
    table = retention(
        Event(form.cohort),
        Event(form.returned),
        form.by,
        periods=form.columns - 1,
        start=Period.containing(form.by, now).shift(1 - form.rows).start,
        members="every",
        now=now,
        tracker=tracker,
    )
    return page(
        "cohort",
        form=form,
        table=table,
        as_of=now,
        largest=table.largest,
        events=events,
        periods=BY,
        longest=LONGEST,
        timezone=tracker.settings.timezone,
    )


def bad_request(error: BadRequest) -> tuple[str, int]:
    """A query that cannot be answered, with the sentence that says why."""
    return page("message", title="That cannot be shown", text=error.description), 400


def no_answer(error: RedisError) -> tuple[str, int]:
    """Redis did not answer: the reason goes to the log, not to the page."""
    logger.error("the dashboard cannot read from Redis: %s", error)
    text = "Redis did not answer, so there are no figures now. The application's log says why."
    return page("message", title="No figures at the moment", text=text), 503
