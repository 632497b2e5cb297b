"""One user: a calendar of activity, and the first and last day of each event."""

from __future__ import annotations

from datetime import date, timedelta

from flask import Response, request
from werkzeug.exceptions import BadRequest

from ..analytics.timeline import timeline
from ..ids import normal_form
from ..marking import current_tracker
from .drawing import calendar
from .page import download, render
from .people import person
from .query import YEARS, Query

_DAYS = 365


def view() -> Response:
    """What a user did on which days."""
    tracker = current_tracker()
    query = Query(request.args, tracker.catalogue())
    asked = query.text("id")
    last = query.day("end") or tracker.now().date()
    query.close()
    if not asked:
        raise BadRequest("The parameter id is missing: whose page is it to be?")
    first: date = last - timedelta(days=_DAYS - 1)
    try:
        id_ = normal_form(asked)
        report = timeline(id_, first, last)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if query.form != "html":
        return download(report, "", query.form)
    before = first - timedelta(days=1)
    text = render(
        "person",
        person=person(id_),
        report=report,
        squares=calendar(report.days, first, last),
        end=last,
        earlier=before if before.year in YEARS else None,
        days=_DAYS,
    )
    return Response(text, mimetype="text/html")
