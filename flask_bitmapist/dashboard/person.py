"""One user: a calendar of activity, and the first and the last time of each event."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qsl

from flask import Response
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..analytics import Profile, answer
from ..ids import normal_form
from ..questions import ProfileQuestion
from .addresses import url_for
from .answers import download
from .drawing import calendar, full_label
from .find import erased
from .page import Visit, in_time
from .people import Listing, UserLink
from .query import FIRST_YEAR
from .rendering import render

_DAYS = 365


def view() -> Response:
    """What a user did on which days of a year, and since when."""
    visit = Visit.of_request()
    query, today = visit.query, visit.now.date()
    asked = query.text("id")
    last = query.day("end") or today
    list_query = query.text("back")
    back = _list_of(visit, list_query)
    query.close()
    if not asked:
        raise BadRequest("The parameter id is missing: whose page should this be?")
    first = last - timedelta(days=_DAYS - 1)

    def ask() -> Profile:
        question = ProfileQuestion.of(user=asked, start=first, end=last, now=visit.now)
        profile = answer(question)
        assert isinstance(profile, Profile)
        return profile

    report, problem = in_time(ask)
    if query.form != "html" or report is None:
        return download(report, problem, query.form)
    id_ = normal_form(asked)
    is_unknown = not (report.events or report.flags or report.dimensions)
    before, after = first - timedelta(days=1), min(last + timedelta(days=_DAYS), today)
    text = render(
        "person",
        as_of=visit.now,
        person=UserLink()(id_),
        report=report,
        back=back,
        list_query=list_query,
        is_unknown=is_unknown,
        erased=erased(id_) if is_unknown else None,
        squares=calendar(report.days, first, last),
        end=last,
        earlier=before if before.year >= FIRST_YEAR else None,
        later=after if after > last else None,
        days=_DAYS,
        up_to=full_label(last, "day") if last < today else "",
    )
    return Response(text, mimetype="text/html")


def _list_of(visit: Visit, text: str) -> str | None:
    """The address of the list of people that the query string `text` asks for; None: of none.

    :raises BadRequest: if it asks for no such list.
    """
    if not text:
        return None
    asked = MultiDict(parse_qsl(text, keep_blank_values=True))
    try:
        Listing.read(visit.asking(asked))
    except BadRequest as error:
        raise BadRequest(
            f"The parameter back must be the query string of a list of people: {error.description}"
        ) from None
    return url_for("bitmapist.people", **asked.to_dict(flat=False))
