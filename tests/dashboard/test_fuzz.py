"""Any query of any page is answered: 200 or 400, harmless, and no link of it leads astray."""

from __future__ import annotations

from urllib.parse import quote

import pytest
import redis as redis_py
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from months import write_months

from flask_bitmapist import mark_dimension, mark_event
from flask_bitmapist.dashboard.pages import PAGES as ENTRIES
from flask_bitmapist.dashboard.people import PAGES_WITH_PEOPLE

from .conftest import FLAGS, LOG
from .reading import addresses
from .test_escaping import IDS, NAMES, check_harmless

EVENTS = [*LOG, "visitor:seen"]
#: The sort of value that a parameter takes.
SORTS = {
    "event": EVENTS,
    "segment": [
        *EVENTS,
        *(f"flag:{flag}" for flag in FLAGS),
        "user:logged_in & (flag:beta | song:played) - user:created",
        "song:played | song:played | song:played",
        "user:created & not did(song:played, last 30 days)",
        "first(user:created, 2026-10) | did(song:played, 2 days of ever)",
        "not did(song:played, ever)",
        "was(user:plan=free) | song:played - was(user:plan=free)",
        "was(user:team=red)",
        "did(song:played, 2 hours of 2026)",
        "did(song:played,",
        "never:marked - flag:never",
        "a &",
        '"',
        "flag:",
        "(" * 150,
        "a - " * 120 + "a",
    ],
    "grain": ["hour", "day", "week", "month", "year"],
    "number": [
        "0",
        "1",
        "2",
        "7",
        "60",
        "61",
        "366",
        "-1",
        "1.5",
        "1e9",
        "9" * 4300,
        "\uff10",
        "+1",
    ],
    "range": [
        "today",
        "last 28 days",
        "Last Month",
        "this quarter",
        "2026-W47",
        "2026-10 to 2027-03",
        "since 1850",
        "1999",
        "2027",
        "ever",
        "last 100 years",
        "last 0 days",
        "last",
    ],
    "moment": ["2026-11-23T14:00:00", "2026-11-23", "2026-10-31T00:00:00", "2026-11-23T24:00:00"],
    "day": [
        "2026-11-23",
        "2026-10-31",
        "2000-01-01",
        "2024-02-29",
        "2100-12-31",
        "1999-12-31",
        "0000-00-00",
        "0001-01-01",
        "9999-12-31",
        "2026-02-30",
        "2026-1-3",
    ],
    "find": ["user", "PLAYED", ""],
    "id": ["1", "7", "0", "u1", "None", "-1", "4294967296", "9" * 512, *IDS],
    "list": ["page=2", "of=cohort&k=1&at=2026-11-16", "of=nothing", "rows=0", "a"],
    "order": ["ordered", "strict", "any"],
    "mode": ["on", "on_or_after", "on_or_before", "streak", "first_return"],
    "members": ["first", "every"],
    "within": ["7", "12", "28", "week", "month"],
    "joint": ["and", "or", "except"],
    "time": ["", "did", "first", "was"],
    "as of": ["now", "then", "later"],
    "when": [
        "ever",
        "last 30 days",
        "last month",
        "2026-W53",
        "3 days of ever",
        "soon",
        ")",
        "a, b",
    ],
    "group": ["returning", "resurrected", "new", "dormant", "active"],
    "complete": ["", "1"],
    "switch": ["", "yes"],
    "which": ["active", "users", "new"],
    "of a step": ["reached", "dropped", "open"],
    "table": ["events", "days"],
    "converted": ["", "yes", "no"],
    "format": ["html", "json", "csv"],
    "values": [
        "user:plan",
        "flag:beta",
        "flag:beta&breakdown=song:played - user:created",
        "user:plan&breakdown=flag:beta",
        "never:marked",
        "user:team",
        "a &",
    ],
    "value": ["free", 'a " b', "(no value)", "flag:beta", "gold"],
    "sort": ["event", "today", "week", "month", "year"],
}
_SEGMENT = {"where": "segment", "term": "segment", **{n: n for n in ("joint", "time", "when")}}
_BROKEN = {**_SEGMENT, "breakdown": "values", "as_of": "as of"}
_ROWS = {"by": "grain", "rows": "number", "end": "day"}
_RANGE = {"over": "range", "start": "day", **_ROWS}
_DATES = {"over": "range", "start": "day", "end": "day"}
#: Page -> its parameters, and what sort of value each takes.
PAGES = {
    "/": {
        "event": "event",
        "find": "find",
        "sort": "sort",
        "page": "number",
        "complete": "complete",
        "table": "table",
    },
    "/trends": {
        "event": "segment",
        "rolling": "number",
        "previous": "switch",
        "active": "event",
        "target": "number",
        "breakdown": "segment",
        "as_of": "as of",
        **_RANGE,
        **_SEGMENT,
    },
    "/cohort": {
        "cohort": "event",
        "returned": "event",
        "periods": "number",
        "mode": "mode",
        "members": "members",
        "target": "number",
        "previous": "switch",
        **_RANGE,
        **_BROKEN,
    },
    "/funnel": {
        "step": "event",
        "within": "number",
        "order": "order",
        "previous": "switch",
        **_RANGE,
        **_BROKEN,
    },
    "/time-to-convert": {
        "step": "event",
        "within": "number",
        "order": "order",
        **_RANGE,
        **_SEGMENT,
    },
    "/conversion": {
        "step": "event",
        "within": "number",
        "order": "order",
        "target": "number",
        **_RANGE,
        **_SEGMENT,
    },
    "/lifecycle": {"event": "event", "previous": "switch", **_RANGE, **_BROKEN},
    "/stickiness": {"event": "event", "within": "within", "by": "grain", **_DATES, **_BROKEN},
    "/churned": {"event": "event", "silent": "number", **_RANGE, **_SEGMENT},
    "/adoption": {"feature": "event", "active": "event", **_RANGE, **_SEGMENT},
    "/overlap": {"event": "segment", **_RANGE, **_SEGMENT},
    "/changes": {**_RANGE, **_SEGMENT},
    "/compare": {"arm": "segment", "goal": "event", **_RANGE, **_BROKEN},
    "/person": {"id": "id", "back": "list", "rows": "number", **_DATES},
    "/find": {"text": "id"},
    "/boards": {"board": "find"},
}
#: Parameters that tell of which figure the people are asked for, by the page that has it.
_BEHIND: dict[str, dict[str, str]] = {
    "people": {},
    "trends": {"number": "number", "at": "moment", "whole": "switch", "value": "segment"},
    "cohort": {"at": "day", "k": "number"},
    "funnel": {"number": "number", "which": "of a step"},
    "time_to_convert": {"k": "number"},
    "conversion": {"at": "day", "number": "number", "which": "of a step"},
    "lifecycle": {"at": "day", "group": "group"},
    "stickiness": {"k": "number"},
    "churned": {"at": "day", "active": "switch"},
    "adoption": {"at": "day", "which": "which"},
    "overlap": {"one": "number", "other": "number"},
    "changes": {"event": "event", "before": "switch"},
    "compare": {"number": "number", "converted": "converted"},
}
BEHIND = {
    f"/people?of={of}": {
        **(PAGES[f"/{of.replace('_', '-')}"] if of != "people" else {**_ROWS, **_SEGMENT}),
        **parameters,
        **({"value": "value"} if "breakdown" in PAGES.get(f"/{of}", ()) else {}),
        "page": "number",
    }
    for of, parameters in _BEHIND.items()
}

NASTY = st.sampled_from([*NAMES, *IDS]) | st.text(max_size=20) | st.just("x" * 3000)
#: Bytes that are no UTF-8, as a query string may have them.
BROKEN = st.sampled_from(["%FF", "%ED%A0%80", "%C0%80", "%00", "%", "%zz", "+", ";", "%0d%0a"])


def queries(parameters: dict[str, str]) -> st.SearchStrategy[str]:
    """Query strings, most of whose parameters are of the page and as it takes them."""

    def value(sort: str) -> st.SearchStrategy[str]:
        fitting = st.sampled_from(SORTS[sort]).map(quote)
        return fitting | fitting | fitting | NASTY.map(quote) | BROKEN

    pairs = [
        st.tuples(st.just(name), value(sort)).map("=".join)
        for name, sort in {**parameters, "format": "format"}.items()
    ]
    strange = NASTY.map(lambda name: f"{quote(name)}=1")
    fitting = st.lists(st.one_of(pairs), max_size=7, unique_by=lambda pair: pair.split("=")[0])
    return st.one_of(
        fitting, fitting, fitting, st.lists(st.one_of(*pairs, strange), max_size=5)
    ).map("&".join)


def test_every_page_is_asked() -> None:
    assert {*PAGES, "/people"} == {page.address for page in ENTRIES}
    assert {*_BEHIND} == {*PAGES_WITH_PEOPLE}


@pytest.mark.parametrize("page", [*PAGES, *BEHIND])
@settings(max_examples=settings().max_examples // 3)  # for each of the pages
@given(data=st.data())
def test_any_query_is_answered(
    recorded: None,
    redis: redis_py.Redis,
    client: FlaskClient,
    page: str,
    data: st.DataObject,
) -> None:
    mark_event("visitor:seen", ["u1", "u2"])
    mark_dimension("user:plan", [1, 2, 3], "free")
    mark_dimension("user:plan", 4, 'a " b')
    mark_dimension("user:team", 4, "red")
    write_months(redis, "user:plan", {"2026-10": {"free": [1, 5]}}, {})
    query = data.draw(queries({**PAGES, **BEHIND}[page]))
    answer = client.get(
        f"/bitmapist{page}{'&' if '?' in page else '?'}{query}", follow_redirects=True
    )
    assert answer.status_code in (200, 400)
    assert answer.headers["Cache-Control"] == "no-store"
    match answer.mimetype:
        case "text/html":
            shown = check_harmless(answer.text)
            leads = sorted({a for a in addresses(shown) if "/static/" not in a})
            if answer.status_code == 200:
                led = client.get(data.draw(st.sampled_from(leads)))
                assert led.status_code == 200
        case "application/json":
            assert isinstance(answer.json, dict)
            assert ("error" in answer.json) == (answer.status_code == 400)
        case other:
            assert other == ("text/csv" if answer.status_code == 200 else "text/plain")
