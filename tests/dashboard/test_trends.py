"""The trends page: what it draws, how it names it, and hours, which are no days."""

from __future__ import annotations

from datetime import timedelta

from flask_bitmapist import analytics, mark_event
from flask_bitmapist.dashboard.drawing import more

from .conftest import NOW, Browser
from .reading import figures


def test_each_event_has_a_line_a_name_and_a_column(recorded: None, browser: Browser) -> None:
    page = browser.open("/trends", event=["user:logged_in", "song:played"], over="last 7 days")
    chart = page.one("svg", class_="chart")
    assert len(chart.all("g", class_="c1")) == len(chart.all("g", class_="c2")) == 1
    names = [span.text for span in page.one("figcaption").all("span")]
    assert names == ["user:logged_in", "song:played"]
    (table,) = page.all("table")
    assert table.rows[0] == ["Day", *names]
    assert table.rows[1:3] == [["23 Nov *", "3", "1"], ["22 Nov", "1", "1"]]


def test_the_period_before_has_a_dashed_line_and_leads_to_its_people(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/trends", over="last 7 days", previous="yes")
    chart = page.one("svg", class_="chart")
    assert [g.classes for g in chart.all("g") if "before" in g.classes] == [{"c1", "before"}]
    assert page.one("figcaption").text.endswith("the 7 days before")
    (table,) = page.all("table")
    # On the 23rd 3 people were there, a week before also 3.
    assert table.rows[1] == ["23 Nov *", "3", "3"]
    link = next(one for one in table.all("a") if "at=2026-11-16" in one.attributes["href"])
    assert browser.open(link.attributes["href"]).one("b").text == link.text


def test_everybody_of_the_range_is_counted_once_at_the_top(
    recorded: None, browser: Browser
) -> None:
    events = ["user:logged_in", "song:played"]
    page = browser.open("/trends", event=events, over="last 3 days", previous="yes")
    report = analytics.trends(events, over="last 3 days", previous=True)
    lines = page.one("ul", class_="totals").all("li")
    for line, series in zip(lines, report.series, strict=True):
        total = series.total
        assert total.previous is not None
        assert line.text == (
            f"{series.event} {total.users} people so far, "
            f"{more(total.users, total.previous)} in the 3 days before"
        )
        to_people, to_before = line.all("a")
        assert browser.open(to_people.attributes["href"]).one("b").text == str(total.users)
        before = browser.open(to_before.attributes["href"])
        told = [one.one("b").text for one in before.one("ul", class_="totals").all("li")]
        assert str(total.previous) in told
    assert sum(point.users for point in report.series[0].points) > report.series[0].total.users


def test_a_share_of_the_active_is_drawn_and_told_beside_the_numbers(
    recorded: None, browser: Browser
) -> None:
    page = browser.open("/trends", event="song:played", active="user:logged_in", over="today")
    assert page.one("h2", id="lines-title").text == "Share of the active, %, day by day"
    # Of the three who logged in today, number 10 has played a song.
    assert page.one("table").rows == [["Day", "song:played", "%"], ["23 Nov *", "1", "33.3"]]


def test_hours_lead_to_the_people_of_that_hour(at_now: None, browser: Browser) -> None:
    for hours, user in ((0, 1), (1, 2), (3, 3)):
        mark_event("song:played", user, now=NOW - timedelta(hours=hours), track_hourly=True)
    page = browser.open("/trends", by="hour", over="last 4 hours", previous="yes")
    assert [row[1] for row in page.one("table").rows[1:]] == ["1", "1", "0", "1"]
    (eleven,) = [link for link, _ in figures(page) if "at=2026-11-23T11:00:00" in link]
    people = browser.open(eleven)
    assert "in 23 Nov 2026, 11:00" in people.all("p", class_="lede")[0].text
    assert people.one("b").text == "1"


def test_the_parts_of_a_breakdown_are_lines_of_their_own(recorded: None, browser: Browser) -> None:
    values = ["flag:beta", "flag:user:premium"]
    page = browser.open("/trends", breakdown=values, by="week", over="last 6 weeks")
    assert page.one("table").rows[0] == ["Week of", *values]
    assert [span.text for span in page.one("figcaption").all("span")] == values


def test_each_event_of_the_overview_leads_to_its_trend(recorded: None, browser: Browser) -> None:
    table = browser.open("/").one("div", id="events").one("table")
    for row in table.all("tr")[1:]:
        link = row.one("th").one("a")
        page = browser.open(link.attributes["href"])
        assert page.one("h1").text == "How many do what"
        assert page.one("figcaption").text == link.text


def test_a_share_of_nobody_is_a_gap(recorded: None, browser: Browser) -> None:
    for ago, users in ((5, [1, 2]), (4, [1]), (2, [1])):
        mark_event("rare", users, now=NOW - timedelta(days=ago))
    page = browser.open("/trends", event="song:played", active="rare", over="last 7 days")
    lines = page.one("svg", class_="lines").all("polyline")
    assert len(lines) == 2, "there is nothing between the days on which somebody was there"
    tips = [one.text for one in page.one("svg", class_="chart").all("title")]
    assert [tip.endswith("nobody was active") for tip in tips] == [
        *(True, False, False, True),
        *(False, True, True),
    ]


def test_a_conversion_of_nobody_is_a_gap(recorded: None, browser: Browser) -> None:
    for ago in (6, 5, 3):
        mark_event("begun", [ago, 9], now=NOW - timedelta(days=ago))
    steps = ["begun", "song:played"]
    page = browser.open("/conversion", step=steps, within=1, over="last 7 days")
    assert len(page.one("svg", class_="lines").all("polyline")) == 2
    tips = [one.text for one in page.all("text", class_="tip")]
    assert tips[2:4] == ["19 Nov 2026: nobody began", "20 Nov 2026: 0.0 %, 0 of 2"]
    assert len(page.all("circle")) == 3
