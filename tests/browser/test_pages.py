"""Each page for each kind of visitor: what it shows, what it asks for, how wide it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask import Flask

from flask_bitmapist import mark_event

from .pages import MISTAKES, PAGES
from .served import NOW, application, serve
from .visitors import Visit, drawn, picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: What sticks out of its card or of the window, unless it is in a box that scrolls.
STICKING_OUT = """() => {
  const inside = (element, box) => element.getBoundingClientRect().right <= box + 1;
  const solid = "a, button, input, select, p, h1, h2, pre, table, li, label, figure";
  return [...document.querySelectorAll(`body :is(${solid})`)]
    .filter((element) => element.checkVisibility())
    .filter((element) => !element.closest(".scroll *, svg, .unseen, .skip, pre *"))
    .filter((element) => !inside(element, Math.min(innerWidth,
      element.closest(".card")?.getBoundingClientRect().right ?? Infinity)))
    .map((element) => element.outerHTML.slice(0, 120));
}"""


def assert_fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate(STICKING_OUT) == []


def look_at(page: Page, name: str) -> None:
    """See that the page fits into windows of all widths; keep pictures of what it looks like."""
    for width in (2560, 1280, 768, 360):
        page.set_viewport_size({"width": width, "height": 800})
        drawn(page)
        assert_fits(page)
        if width in (1280, 360):
            picture(page, f"{name}-{'light' if width > 360 else 'narrow'}")
    page.emulate_media(color_scheme="dark")
    for width in (390, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        drawn(page)
        assert_fits(page)
        picture(page, f"{name}-dark" if width == 1280 else f"{name}-dark-{width}")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_its_figures_in_windows_of_any_width(
    site: str, visit: Visit, name: str
) -> None:
    address, figures = PAGES[name]
    page = visit(site + address)
    page.locator(figures).first.wait_for(state="attached")
    look_at(page, name)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_same_figures_without_javascript(
    site: str, visit: Visit, name: str
) -> None:
    address, figures = PAGES[name]
    texts = []
    for visitor in ("usual", "scriptless"):
        page = visit(site + address, visitor)
        page.locator(figures).first.wait_for(state="attached")
        page.wait_for_load_state()  # the page to which the overview leads is not styled at once
        shown = page.locator("main :is(h1, h2, .lede, .kpi, td, li:has(a))").all_text_contents()
        texts.append([text.strip() for text in shown])
    assert texts[0] == texts[1]
    assert re.search(r"\d", "".join(texts[1]))
    for width in (360, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        assert_fits(page)


@pytest.mark.parametrize("visitor", ["narrow", "still"])
def test_the_overview_loads_on_a_telephone_and_without_motion(
    site: str, visit: Visit, visitor: str
) -> None:
    page = visit(f"{site}/", visitor)
    assert page.inner_text(".kpi .n") != "…"
    assert_fits(page)
    moving = "document.getAnimations().length"
    assert visitor == "narrow" or page.evaluate(moving) == 0


@pytest.mark.parametrize("visitor", ["usual", "scriptless"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_page_that_says_what_is_wrong(
    site: str, visit: Visit, name: str, visitor: str
) -> None:
    address, status = MISTAKES[name]
    page = visit(site + address, visitor, refused=(status,))
    assert page.locator(".problem, h1:text('That cannot be shown')").count() == 1
    if visitor == "usual":
        look_at(page, name)
    if name != "broken-segment":
        page.get_by_text("Ask again").click()
        page.wait_for_url(f"{site}{address.partition('?')[0]}")


def test_without_a_server_a_page_says_so(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    app = application(f"unix://{tmp_path}/nobody.sock")
    with serve(app) as url:
        page = visit(f"{url}/bitmapist/", refused=(503,))
        assert page.inner_text("h1") == "No figures at the moment"
        look_at(page, "no-server")


@pytest.mark.parametrize("visitor", ["usual", "scriptless"])
def test_a_stranger_is_told_that_the_dashboard_is_closed(
    browser: Browser, visit: Visit, redis_url: str, visitor: str
) -> None:
    app = application(redis_url)
    app.extensions["bitmapist"].dashboard_access(lambda: False)
    with serve(app) as url:
        page = visit(f"{url}/bitmapist/cohort", visitor, refused=(403,))
        assert "This dashboard is closed to you." in page.inner_text("body")


@pytest.mark.parametrize("visitor", ["usual", "scriptless"])
def test_before_the_first_mark_a_page_says_what_to_paste(
    browser: Browser, visit: Visit, redis_url: str, visitor: str
) -> None:
    with serve(application(redis_url)) as url:
        page = visit(f"{url}/bitmapist/", visitor)
        assert page.inner_text("h1") == "Nothing recorded yet"
        if visitor == "usual":
            look_at(page, "empty")
        page.close()  # before its server ends: it asks again every two seconds


def test_what_is_selected_on_the_empty_page_stays_selected(
    browser: Browser, visit: Visit, redis_url: str
) -> None:
    with serve(application(redis_url)) as url:
        page = visit(f"{url}/bitmapist/")
        page.locator("pre").first.evaluate("(code) => getSelection().selectAllChildren(code)")
        with page.expect_response(lambda response: response.status == 204):
            pass
        drawn(page)
        assert "mark_event" in page.evaluate("getSelection().toString()")
        page.close()  # before its server ends: it asks again every two seconds


def test_the_first_mark_appears_on_the_empty_page_by_itself(
    browser: Browser, visit: Visit, redis_url: str
) -> None:
    from playwright.sync_api import expect

    app = application(redis_url)
    with serve(app) as url:
        page = visit(f"{url}/bitmapist/")
        with app.app_context():
            mark_event("song:played", [1, 2, 3], now=NOW)
        page.locator(".kpi .n a").first.wait_for()
        assert page.inner_text(".kpi:first-child .n") == "3"
        # So do those after it, while everything is new.
        with app.app_context():
            mark_event("song:played", 4, now=NOW)
            mark_event("song:liked", 4, now=NOW)
        page.locator("#events tbody tr").nth(1).wait_for()
        assert page.locator("#events tbody td:nth-child(3)").all_inner_texts() == ["1", "4"]
        expect(page.locator(".kpi:first-child .n")).to_have_text("4")
        page.close()  # before its server ends


def test_an_application_with_other_ideas_changes_nothing(
    marked_app: Flask, site: str, visit: Visit, tmp_path: Path
) -> None:
    """Its own files of our names, other delimiters, no escaping, a prefix and a path above it."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static/dashboard.css").write_text("* { display: none !important }")
    (tmp_path / "templates/bitmapist").mkdir(parents=True)
    for file in ("base.html", "overview.html", "retention.html"):
        (tmp_path / "templates/bitmapist" / file).write_text("theirs")
    (tmp_path / "templates/page.html").write_text(
        '<link rel="stylesheet" href="[[ url_for("static", filename="dashboard.css") ]]">'
    )
    app = application(
        marked_app.config["BITMAPIST_REDIS_URL"],
        str(tmp_path),
        BITMAPIST_URL_PREFIX="/stats",
    )
    app.jinja_options = {"autoescape": False, "variable_start_string": "[["}
    with serve(app, under="/tools") as url:
        for name in ("overview", "retention"):
            address, figures = PAGES[name]
            theirs, ours = visit(f"{url}/stats{address}"), visit(site + address)
            assert theirs.inner_text("main") == ours.inner_text("main")
            assert theirs.locator(figures).first.bounding_box() == (
                ours.locator(figures).first.bounding_box()
            )
            theirs.locator("header nav a", has_text="People").click()
            theirs.wait_for_load_state()
            assert theirs.url == f"{url}/stats/people"
