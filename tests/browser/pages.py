"""Every page of the dashboard, as an address below its prefix."""

from __future__ import annotations

from urllib.parse import urlencode

from flask_bitmapist.dashboard import pages
from flask_bitmapist.dashboard.pages import PageEntry

FUNNEL = [("step", "user:created"), ("step", "post:read"), ("step", "post:created")]
PREVIOUS = ("previous", "yes")
TRENDS = [("event", "user:logged_in"), ("event", "post:read"), PREVIOUS]
SEGMENT = [("where", "user:logged_in - flag:user:premium")]
BREAKDOWN = [("breakdown", "flag:user:premium"), ("breakdown", "post:created - user:created")]
THEN = [("breakdown", "user:plan"), ("as_of", "then")]

#: What a page is asked, by its module; the others answer when nothing is asked.
ASKED: dict[str, list[tuple[str, str]]] = {
    "trends": TRENDS,
    "lifecycle": [PREVIOUS],
    "changes": [("over", "since 2026-10-26")],
    "boards": [("board", "Weekly")],
    "funnel": FUNNEL,
    "time_to_convert": [*FUNNEL, ("within", "14")],
    "conversion": [*FUNNEL, ("within", "7")],
    "people": [("rows", "7")],
    "person": [("id", "9")],
    "find": [("text", "9")],
}
#: What of a page holds its figures, by its module.
FIGURES = {
    "trends": ".plain td a",
    "overview": ".kpi .n a",
    "boards": ".board .chart",
    "retention": ".heat td a",
    "funnel": ".funnel td a",
    "time_to_convert": ".bar a",
    "conversion": ".plain td a",
    "lifecycle": ".bar a",
    "stickiness": ".bar a",
    "churned": ".bar a",
    "adoption": ".bar a",
    "overlap": ".heat td a",
    "changes": ".plain td a",
    "compare": ".funnel td a",
    "people": ".people tbody th",
    "person": ".calendar rect",
    "find": ".calendar rect",
}


def _address(page: PageEntry) -> str:
    asked = ASKED.get(page.module)
    return f"{page.address}?{urlencode(asked)}" if asked else page.address


#: Name -> (address, what of the page holds its figures).
PAGES = {page.module: (_address(page), FIGURES[page.module]) for page in pages.PAGES} | {
    "retention-of-a-segment": (f"/cohort?{urlencode([*SEGMENT, PREVIOUS])}", FIGURES["retention"]),
    **{
        f"{name}-broken-down": (
            f"/{name}?{urlencode([*asked, *BREAKDOWN])}",
            ".wide tbody td, .multiples .bar a",
        )
        for name, asked in {
            "trends": TRENDS,
            "cohort": [PREVIOUS],
            "funnel": [*FUNNEL, PREVIOUS],
            "lifecycle": [],
            "stickiness": [],
            "compare": [],
        }.items()
    },
    "trends-by-the-plan-of-then": (f"/trends?{urlencode([*TRENDS, *THEN])}", FIGURES["trends"]),
    "list-of-boards": ("/boards", ".listed a"),
    "people-behind-a-cell": ("/people?of=cohort&at=2026-11-02&k=1", FIGURES["people"]),
}
#: Pages that say what is wrong: name -> (address, status).
MISTAKES = {
    "broken-segment": (f"/cohort?{urlencode([('where', 'user:created & | web')])}", 400),
    "out-of-range": ("/cohort?rows=1000", 400),
    "no-such-parameter": ("/funnel?colour=red", 400),
}
