"""A narrow window: every figure is there or announces itself, and every name stays beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from .pages import PAGES
from .visitors import Visit

WIDTHS = [360, 390, 430]
#: The boxes of a table's cells that have something to say, from the window's left edge.
CELLS = """(table) => [...table.querySelectorAll("tbody :is(th, td)")]
  .filter((cell) => cell.textContent.trim() || cell.querySelector("svg"))
  .map((cell) => cell.getBoundingClientRect())
  .map((box) => [box.left, box.right])"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["compare", "funnel"])
def test_names_and_figures_of_arms_and_steps_need_no_scrolling(
    site: str, visit: Visit, name: str, width: int
) -> None:
    page = visit(site + PAGES[name][0])
    page.set_viewport_size({"width": width, "height": 800})
    table = page.locator(".funnel")
    boxes = table.evaluate(CELLS)
    assert len(boxes) > 10
    assert all(0 <= left < right <= width for left, right in boxes)
    told = table.locator("tbody td[data-label='People']").first
    assert told.evaluate("(cell) => getComputedStyle(cell, '::before').content") == '"People"'


@pytest.mark.parametrize("width", [*WIDTHS, 600, 768])
def test_a_column_that_is_cut_shows_that_the_retention_table_goes_on(
    site: str, visit: Visit, width: int
) -> None:
    page = visit(f"{site}/cohort")
    page.set_viewport_size({"width": width, "height": 800})
    edge, columns = page.locator(".heat").evaluate(
        """(table) => [
          table.parentElement.getBoundingClientRect().right,
          [...table.tHead.rows[0].cells].map((cell) => cell.getBoundingClientRect())
            .map((box) => [box.left, box.right]),
        ]"""
    )
    assert columns[-1][1] > edge
    assert any(left < edge - 12 and right > edge + 12 for left, right in columns)


def test_a_bar_of_a_few_people_stands_on_the_axis(site: str, visit: Visit) -> None:
    page = visit(f"{site}/stickiness")
    heights = page.locator(".bar a rect").evaluate_all(
        "(bars) => bars.map((bar) => bar.getBBox().height)"
    )
    assert min(heights) >= 3
    few = page.locator(".bar a").last
    box = few.bounding_box()
    on = page.evaluate(
        "([x, y]) => document.elementsFromPoint(x, y).map((one) => one.getAttribute('class'))",
        [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
    )
    assert "new" in on
    # Nothing of a bar is drawn over the axis.
    assert page.locator(".chart").evaluate(
        "(chart) => [...chart.querySelectorAll('.bar, .base')].at(-1).matches('.base')"
    )


def test_what_is_typed_into_a_picker_takes_the_place_of_the_choice(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    picker = page.locator(".ts-wrapper", has=page.get_by_label("The event by which they return"))
    chosen = picker.locator(".item")
    picker.locator("input").focus()
    assert chosen.is_visible()
    page.keyboard.type("post")
    assert chosen.is_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert chosen.inner_text() == "user:logged_in"
    assert chosen.is_visible()


@pytest.mark.parametrize("address", ["/people", "/cohort"])
@pytest.mark.parametrize(("width", "lines"), [(1280, 1), (768, 2), (390, 3), (360, 3)])
def test_the_navigation_takes_few_lines(
    site: str, visit: Visit, address: str, width: int, lines: int
) -> None:
    page = visit(f"{site}{address}")
    page.set_viewport_size({"width": width, "height": 800})
    tops = page.locator("header nav a").evaluate_all(
        "(links) => links.map((link) => link.offsetTop)"
    )
    assert len({*tops}) <= lines


@pytest.mark.parametrize("width", WIDTHS)
def test_the_names_on_an_axis_of_days_do_not_touch(site: str, visit: Visit, width: int) -> None:
    page = visit(site + PAGES["conversion"][0])
    page.set_viewport_size({"width": width, "height": 800})
    names = page.locator(".chart text[dy='18']").evaluate_all(
        "(names) => names.map((name) => name.getBoundingClientRect())"
        ".map((box) => [box.left, box.right])"
    )
    assert len(names) > 3
    assert all(one[1] + 4 < other[0] for one, other in pairwise(names))
    assert names[-1][1] <= width


def test_no_heading_of_a_person_s_events_is_cut(site: str, visit: Visit) -> None:
    page = visit(site + PAGES["person"][0])
    page.set_viewport_size({"width": 390, "height": 800})
    edge, right = page.locator("table.plain:visible").evaluate(
        """(table) => [table.parentElement, table.tHead.rows[0].lastElementChild]
          .map((part) => part.getBoundingClientRect().right)"""
    )
    assert right <= edge
