"""One user: a calendar of activity, and the first and the last time of each event."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from flask import Response
from werkzeug.exceptions import BadRequest

from ..analytics._timeline import profile
from ..current import current_tracker
from ..ids import normal_form
from .drawing import calendar
from .page import download, in_time, query_of_request, render
from .people import person
from .query import FIRST_YEAR

_DAYS = 365


def view() -> Response:
    """What a user did on which days of a year, and since when."""
    query = query_of_request()
    asked, today = query.text("id"), current_tracker().now().date()
    last = query.day("end") or today
    query.close()
    if not asked:
        raise BadRequest("The parameter id is missing: whose page is it to be?")
    first = last - timedelta(days=_DAYS - 1)
    report, problem = in_time(partial(profile, asked, first, last))
    if query.form != "html" or report is None:
        return download(report, problem, query.form)
    id_ = normal_form(asked)
    before, after = first - timedelta(days=1), min(last + timedelta(days=_DAYS), today)
    text = render(
        "person",
        person=person(id_),
        report=report,
        squares=calendar(report.days, first, last),
        end=last,
        earlier=before if before.year >= FIRST_YEAR else None,
        later=after if after > last else None,
        days=_DAYS,
    )
    return Response(text, mimetype="text/html")
