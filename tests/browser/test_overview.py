"""The overview: what comes at once and what comes after, and its table of events."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from .served import AWKWARD, FEATURES
from .visitors import Visit

NAMES = "#events tbody th"


def test_the_first_part_is_there_before_the_second_has_come(site: str, visit: Visit) -> None:
    page = visit("about:blank")
    held = []
    page.route(re.compile("complete=1"), lambda route: held.append(route))
    page.goto(f"{site}/")
    assert page.locator(NAMES).count() == 50
    assert page.locator(".kpi .n").all_inner_texts() == ["…"] * 4
    held[0].continue_()
    page.locator(".kpi .n a").first.wait_for()
    assert re.fullmatch("[0-9]+", page.inner_text(".kpi .n a >> nth=0"))
    assert page.locator("#events .spark").count() == 50
    assert "…" not in page.inner_text("#events")
    assert page.url == f"{site}/"


def test_a_browser_without_javascript_is_led_to_the_complete_page(site: str, visit: Visit) -> None:
    page = visit(f"{site}/?sort=week", "scriptless")
    page.locator(".kpi .n a").first.wait_for()
    assert "complete=1" in page.url
    assert "sort=week" in page.url


def test_a_search_narrows_the_table_while_one_types(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    find = page.get_by_label("Find an event")
    find.press_sequentially("user:", delay=30)
    page.locator(NAMES).nth(2).wait_for(state="detached")
    assert page.locator(NAMES).all_inner_texts() == ["user:created", "user:logged_in"]
    assert page.evaluate("document.activeElement.id") == "find"
    assert find.input_value() == "user:"
    find.press_sequentially("nobody", delay=30)
    page.locator("#events .nothing").wait_for()
    assert page.inner_text("#events .nothing") == "No event has “user:nobody” in its name."


def test_a_search_works_without_javascript(site: str, visit: Visit) -> None:
    page = visit(f"{site}/?complete=1", "scriptless")
    page.get_by_label("Find an event").fill("user:")
    page.keyboard.press("Enter")
    page.wait_for_url("**find=user**")
    page.locator(".kpi .n a").first.wait_for()
    assert page.locator(NAMES).all_inner_texts() == ["user:created", "user:logged_in"]


def test_the_table_is_sorted_by_a_column_s_heading(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    page.get_by_role("link", name="This month").click()
    page.wait_for_url("**sort=month**")
    months = page.locator("#events tbody td:nth-child(5)").all_inner_texts()
    counts = [int(month.replace(",", "")) for month in months]
    assert counts == sorted(counts, reverse=True)
    assert page.locator("[aria-sort=descending]").inner_text().startswith("This month")


def test_sorting_and_paging_change_the_table_alone(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    page.evaluate("window.same = true; scrollTo(0, 500)")
    page.get_by_role("link", name="This week").click()
    page.locator("[aria-sort=descending]").wait_for()
    assert page.url == f"{site}/?event=user:logged_in&sort=week"
    assert page.evaluate("document.activeElement.id") == "by-week"
    assert page.text_content("#said") == "50 of 69 events, sorted by week"
    page.get_by_label("Find an event").fill("feature:")
    page.wait_for_url("**find=feature**")
    assert page.locator("[aria-sort=descending]").inner_text().startswith("This week")
    page.get_by_role("link", name="Next").click()
    page.wait_for_url("**page=2**")
    assert page.locator(NAMES).count() == len(FEATURES) - 50
    assert "…" not in page.inner_text("#events")
    assert page.evaluate("window.same && scrollY >= 400")
    page.reload()
    page.locator(".kpi .n a").first.wait_for()
    assert page.locator(NAMES).count() == len(FEATURES) - 50


def test_the_pager_leads_to_the_other_events_and_back(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    first = page.locator(NAMES).all_inner_texts()
    page.get_by_role("link", name="Next").click()
    page.wait_for_url("**page=2**")
    rest = page.locator(NAMES).all_inner_texts()
    assert {*FEATURES, *AWKWARD} < {*first, *rest}
    assert not {*first} & {*rest}
    page.get_by_role("link", name="Previous").click()
    page.wait_for_url(lambda url: "page=2" not in url)
    assert page.locator(NAMES).all_inner_texts() == first


def test_another_event_tells_who_is_active(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    before = page.inner_text(".kpi .n a >> nth=0")
    page = visit(f"{site}/?{urlencode({'event': AWKWARD[0]})}")
    page.locator(".kpi .n a").first.wait_for()
    assert page.inner_text(".lede code") == AWKWARD[0]
    assert page.inner_text(".kpi .n a >> nth=0") not in ("…", before)
