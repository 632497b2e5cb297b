"""Every page of the dashboard, as an address below its prefix."""

from __future__ import annotations

from urllib.parse import urlencode

FUNNEL = [("step", "user:created"), ("step", "post:read"), ("step", "post:created")]
SEGMENT = [("where", "user:logged_in - flag:user:premium")]

#: Name -> (address, what of the page holds its figures).
PAGES = {
    "overview": ("/", ".kpi .n a"),
    "retention": ("/cohort", ".heat td a"),
    "retention-of-a-segment": (f"/cohort?{urlencode(SEGMENT)}", ".heat td a"),
    "funnel": (f"/funnel?{urlencode(FUNNEL)}", ".funnel td a"),
    "lifecycle": ("/lifecycle", ".bar a"),
    "stickiness": ("/stickiness", ".bar a"),
    "churned": ("/churned", ".bar a"),
    "adoption": ("/adoption", ".bar a"),
    "overlap": ("/overlap", ".heat td a"),
    "compare": ("/compare", ".funnel td a"),
    "people": ("/people?rows=7", ".people li"),
    "people-behind-a-cell": ("/people?of=cohort&at=2026-11-02&k=1", ".people li"),
    "person": ("/person?id=9", ".calendar rect"),
}
#: Pages that say what is wrong: name -> (address, status).
MISTAKES = {
    "broken-segment": (f"/cohort?{urlencode([('where', 'user:created & | web')])}", 400),
    "out-of-range": ("/cohort?rows=1000", 400),
    "no-such-parameter": ("/funnel?colour=red", 400),
}
