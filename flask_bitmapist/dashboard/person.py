"""One user: a calendar of activity, and the first and the last time of each event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from flask import Response
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..analytics import Profile
from ..ids import normal_form
from ..questions import ProfileQuestion
from ..questions.fields import Declared
from .addresses import url_for
from .answers import download
from .drawing import calendar
from .find import erased
from .page import Behind, Visit, attempt
from .people import Listing, UserLink
from .query import FIRST_REPORTED_YEAR, FIRST_YEAR, Query
from .ranged_page import RangedPage
from .rendering import render


class PersonPage(RangedPage):
    """What one user did on the days of a range: `user` is as the query string has it."""

    endpoint = "person"
    template = "person"
    asks = ProfileQuestion
    usual_number = 365
    most: ClassVar[Mapping[str, int]] = {"rows": 1_000}

    @classmethod
    def fields(cls) -> list[Declared]:
        return [field for field in super().fields() if field.name != "user"]

    def __init__(self, visit: Visit, values: Mapping[str, Any]) -> None:
        super().__init__(visit, {"by": "day", **values})
        self.user = visit.query.text("id")
        self.list_query = visit.query.text("back")
        if not self.user:
            raise BadRequest("The parameter id is missing: whose page should this be?")

    @classmethod
    def usual(cls, query: Query) -> Mapping[str, Any]:
        return {}

    def behind(self, query: Query) -> Behind:
        raise BadRequest("A person's page has no people behind it.")

    @cached_property
    def arguments(self) -> dict[str, Any]:
        told = {"id": self.user, **super().arguments}
        return {**told, "back": self.list_query} if self.list_query else told

    def _typed_values(self) -> Mapping[str, Any]:
        return {**super()._typed_values(), "user": self.user}

    @property
    def neighbours(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The query strings of as many days before, and after; None where there are none."""
        first, last = self.range.days
        length, today = last - first, self.visit.now.date()
        before, after = first - timedelta(days=1), last + timedelta(days=1)
        rest = self.fixed_arguments
        return (
            {**rest, "start": before - length, "end": before}
            if (before - length).year >= FIRST_REPORTED_YEAR and before.year >= FIRST_YEAR
            else None,
            {**rest, "start": after, "end": min(after + length, today)} if after <= today else None,
        )


def view() -> Response:
    """What a user did on which days, and since when."""
    visit = Visit.of_request()
    asked = PersonPage.read(visit)
    back = _list_of(visit, asked.list_query)
    visit.query.close()
    report, problem = attempt(asked, asked.report)
    if visit.query.form != "html" or not isinstance(report, Profile):
        return download(report, problem, visit.query.form)
    id_ = normal_form(asked.user)
    is_unknown = not (report.events or report.flags or report.dimensions)
    text = render(
        asked.template,
        as_of=visit.now,
        question=asked,
        query=visit.query,
        person=UserLink()(id_),
        report=report,
        back=back,
        is_unknown=is_unknown,
        erased=erased(id_) if is_unknown else None,
        squares=calendar(report.days, *asked.range.days),
        up_to=asked.up_to,
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
