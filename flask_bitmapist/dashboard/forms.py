"""The query strings of the dashboard's forms, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from ..periods import Grain

#: The periods that the form offers.
BY: tuple[Grain, ...] = ("day", "week", "month")
#: The most rows, and the most columns, that still make a page.
LONGEST = 60


@dataclass(frozen=True, slots=True)
class CohortForm:
    """What the cohort page was asked for."""

    cohort: str
    returned: str
    by: Grain
    rows: int
    columns: int


def cohort_form(args: MultiDict[str, str], events: Sequence[str]) -> CohortForm:
    """Read the cohort page's query string; what it leaves out is 12 weeks of who came back.

    :param args: the query.
    :param events: the known events, at least one unless the query names some.
    :raises BadRequest: with a sentence on the first parameter that cannot be used.
    """
    for name in args:
        if name not in CohortForm.__slots__:
            allowed = ", ".join(CohortForm.__slots__)
            raise BadRequest(f"There is no parameter {name!r}: use {allowed}.")
    return CohortForm(
        cohort=_event(args.get("cohort") or _prefer("user:created", events), events),
        returned=_event(args.get("returned") or _prefer("user:logged_in", events), events),
        by=_period(args.get("by", "week")),
        rows=_length("rows", args.get("rows", "12")),
        columns=_length("columns", args.get("columns", "12")),
    )


def _prefer(event: str, events: Sequence[str]) -> str:
    return event if event in events or not events else events[0]


def _event(name: str, events: Sequence[str]) -> str:
    if name not in events:
        raise BadRequest(f"No event {name!r} has been recorded.")
    return name


def _period(text: str) -> Grain:
    for grain in BY:
        if text == grain:
            return grain
    raise BadRequest(f"The period must be {', '.join(BY[:-1])} or {BY[-1]}, not {text!r}.")


def _length(what: str, text: str) -> int:
    if re.fullmatch("[0-9]{1,4}", text) and 1 <= int(text) <= LONGEST:
        return int(text)
    raise BadRequest(f"The {what} must be a whole number from 1 to {LONGEST}, not {text!r}.")
