"""Figures: what is said of them when they are pointed at, and the people behind them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .pages import PAGES
from .visitors import Visit, drawn, settle

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

DETAIL = re.compile(
    r"(\d+) of (\d+) \(\d+\.\d %, 95 % \d+\.\d.\d+\.\d\), "
    r"week of \d+ \w+ 2026 \+ \d+(, still open)?"
)


def assert_seen(page: Page, detail: Locator) -> None:
    """It lies inside the window, and nothing covers or clips it."""
    box, window = detail.bounding_box(), page.viewport_size
    assert box["width"] > 20
    assert box["x"] >= 0
    assert box["y"] >= 0
    assert box["x"] + box["width"] <= window["width"]
    assert box["y"] + box["height"] <= window["height"]
    assert detail.evaluate("""(detail) => {
      detail.style.pointerEvents = "auto"; // or it would not be found where it is
      const box = detail.getBoundingClientRect();
      const corners = [[box.left + 3, box.top + 3], [box.right - 3, box.bottom - 3]];
      return corners.every(([x, y]) => detail.contains(document.elementFromPoint(x, y)));
    }""")


def number_of_people(page: Page) -> int:
    """How many the people's page speaks of."""
    page.wait_for_url("**/people?**")
    return int(page.inner_text(".lede b").replace(",", ""))


# The heat table


@pytest.mark.parametrize("visitor", ["usual", "narrow"])
def test_a_cell_tells_its_whole_story_when_pointed_at(
    site: str, visit: Visit, visitor: str
) -> None:
    page = visit(f"{site}/cohort?rows=40&periods=11", visitor)
    cells = page.locator(".heat tbody tr:not(.average) td:nth-child(n+4) a")
    for cell in (cells.nth(3), cells.last):
        cell.scroll_into_view_if_needed()
        cell.hover()
        detail = cell.locator(".tip")
        assert DETAIL.fullmatch(detail.inner_text())
        assert_seen(page, detail)
    average = page.locator(".average .value").nth(2)
    average.hover()
    assert "pooled over" in average.locator(".tip").inner_text()
    assert_seen(page, average.locator(".tip"))


def test_the_arrow_keys_move_in_the_table_which_is_one_stop(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    page.locator(".scroll[aria-label='Retention table']").focus()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.inner_text().startswith("58")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    detail = DETAIL.fullmatch(focused.locator(".tip").inner_text())
    assert detail is not None
    users, size = detail.group(1, 2)
    assert users == focused.locator("small").inner_text()
    assert_seen(page, focused.locator(".tip"))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert "pooled over" in focused.locator(".tip").inner_text()
    assert_seen(page, focused.locator(".tip"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.heat')") is None
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert number_of_people(page) == int(users) <= int(size)


def test_without_javascript_every_cell_is_a_link(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort", "scriptless")
    cell = page.locator(".heat tbody tr:nth-child(3) td:nth-child(5) a")
    cell.focus()
    people = int(cell.locator("small").inner_text())
    page.keyboard.press("Enter")
    assert number_of_people(page) == people


def test_the_tooltip_of_a_cell_stays_beside_it_until_escape(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    cell = page.locator(".heat tbody tr:nth-child(3) td:nth-child(5) a")
    cell.hover()
    said = cell.locator(".tip")
    box, beside = cell.bounding_box(), said.bounding_box()
    assert abs(beside["y"] - box["y"] - box["height"]) < 12
    assert abs(beside["x"] - box["x"]) < 12
    page.keyboard.press("Escape")
    assert said.evaluate("(said) => getComputedStyle(said).visibility") == "hidden"
    page.keyboard.press("Shift")
    assert said.evaluate("(said) => getComputedStyle(said).visibility") == "visible"


def test_a_screen_reader_hears_of_a_cell_once(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    cell = page.locator(".heat tbody tr:nth-child(3) td:nth-child(5) a")
    assert page.get_by_role("link", name=cell.locator(".tip").text_content(), exact=True).count()


# The people behind a number


def test_a_piece_of_a_lifecycle_bar_opens_its_people(site: str, visit: Visit) -> None:
    page = visit(f"{site}/lifecycle")
    page.locator(".bar a:has(.dormant)").nth(-3).hover()
    said = page.locator(".bar:hover .tip").last
    assert_inside_card(said)
    (gone,) = map(int, re.findall(r"(\d+) gone quiet", said.text_content() or ""))
    page.mouse.down()
    page.mouse.up()
    assert number_of_people(page) == gone
    assert "did user:logged_in in the week before but not in the week of" in page.inner_text(
        ".lede"
    )


def test_a_bar_of_the_overview_tells_its_story_inside_its_card(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    for width in (1280, 900, 360):
        page.set_viewport_size({"width": width, "height": 800})
        page.locator(".bar a:has(.returning)").nth(4).hover()
        for said in page.locator(".bar:hover .tip").all():
            assert_inside_card(said)


def assert_inside_card(said: Locator) -> None:
    assert said.evaluate("""(said) => {
      const inner = said.getBoundingClientRect();
      const outer = said.closest(".card").getBoundingClientRect();
      return inner.left >= outer.left && inner.right <= outer.right && inner.top >= outer.top
        && getComputedStyle(said).visibility === "visible";
    }""")


@pytest.mark.parametrize("link", ["td:nth-child(3) a >> nth=2", ".away >> nth=1"])
def test_a_step_of_a_funnel_opens_its_people(site: str, visit: Visit, link: str) -> None:
    page = visit(site + PAGES["funnel"][0])
    number = int(page.inner_text(f".funnel {link}"))
    page.locator(f".funnel {link}").click()
    assert number_of_people(page) == number


def test_a_bar_of_stickiness_opens_its_people(site: str, visit: Visit) -> None:
    page = visit(f"{site}/stickiness")
    page.locator(".bar a").nth(1).hover()
    said = page.locator(".bar:hover .tip").last
    assert_inside_card(said)
    number = int(said.text_content().split()[0])
    page.mouse.down()
    page.mouse.up()
    assert number_of_people(page) == number


@pytest.mark.parametrize("column", [2, 3])
def test_an_arm_opens_its_people(site: str, visit: Visit, column: int) -> None:
    page = visit(f"{site}/compare?arm=user:created&arm=post:read&goal=sold")
    link = page.locator(f".funnel tbody tr:nth-child(2) td:nth-child({column}) a")
    number = int(link.inner_text())
    link.click()
    assert number_of_people(page) == number


def test_a_person_is_one_click_behind_and_the_report_one_click_back(
    site: str, visit: Visit
) -> None:
    page = visit(site + PAGES["people-behind-a-cell"][0])
    name = page.locator(".people a").first
    label = name.inner_text()
    name.click()
    page.wait_for_url("**/person?**")
    assert page.inner_text("h1") == label
    page.go_back()
    page.get_by_text("Back to the report").click()
    page.wait_for_url("**/cohort?**")


# Charts


def test_the_trend_is_replaced_by_one_that_reads_out_its_points(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    chart = page.locator("figure[data-chart=days]")
    assert chart.locator(".uplot canvas").count() == 1
    assert chart.locator(":scope > svg").count() == 0
    over = chart.locator(".u-over").bounding_box()
    page.mouse.move(over["x"] + over["width"] / 2, over["y"] + 40)
    said = chart.locator(".readout").inner_text()
    ((day, users),) = re.findall(r"^(\d+ \w+ 2026): (\d+)$", said)
    page.mouse.down()
    page.mouse.up()
    assert number_of_people(page) == int(users)
    assert f"on {day}" in page.inner_text(".lede")


def test_the_last_point_of_the_trend_is_told_as_unfinished(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    over = page.locator("figure[data-chart=days] .u-over").bounding_box()
    page.mouse.move(over["x"] + over["width"] - 1, over["y"] + 40)
    said = page.locator(".readout").first.inner_text()
    today = page.inner_text(".kpi .n a >> nth=0")
    assert said == f"25 Nov 2026 so far: {today}"


def test_the_line_of_a_day_that_is_over_has_no_dashed_end(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    assert _is_cut_short(page)
    page = visit(f"{site}/?end=2026-11-24")
    assert not _is_cut_short(page)
    over = page.locator("figure[data-chart=days] .u-over").bounding_box()
    page.mouse.move(over["x"] + over["width"] - 1, over["y"] + 40)
    said = page.locator("figure[data-chart=days] .readout").inner_text()
    assert said == f"24 Nov 2026: {page.inner_text('.kpi .n a >> nth=0')}"


def _is_cut_short(page: Page) -> bool:
    """Whether the wash below the line ends before the last day: it is below whole days alone."""
    alpha: int = page.evaluate("""() => {
      const figure = document.querySelector("figure[data-chart=days]");
      const canvas = figure.querySelector("canvas"), over = figure.querySelector(".u-over");
      const [outer, inner] = [canvas, over].map((one) => one.getBoundingClientRect());
      const scale = canvas.width / outer.width;
      const x = Math.round((inner.right - outer.left - 2) * scale);
      const y = Math.round((inner.bottom - outer.top - 5) * scale);
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      return copy.getImageData(x, y, 1, 1).data[3];
    }""")
    return alpha == 0


def test_the_curve_of_retention_reads_out_its_interval(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    over = page.locator("figure[data-chart=curve] .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    said = page.locator("figure[data-chart=curve] .readout").inner_text()
    assert re.fullmatch(r"\+5: \d+\.\d % \(95 % \d+\.\d.\d+\.\d\)", said)


def test_a_chart_follows_the_window_and_keeps_its_height(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    chart = page.locator("figure[data-chart] .uplot")
    before = chart.bounding_box()
    page.set_viewport_size({"width": 700, "height": 800})
    drawn(page)
    after = chart.bounding_box()
    assert after["width"] < before["width"] - 300
    assert after["height"] == before["height"]


def test_a_chart_follows_the_theme(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    commonest = """() => {
      const canvas = document.querySelector("figure[data-chart] canvas");
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
      const found = {};
      for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] === 255) {
          const colour = [pixels[i], pixels[i + 1], pixels[i + 2]].join();
          found[colour] = (found[colour] ?? 0) + 1;
        }
      const most = Object.entries(found).sort((a, b) => b[1] - a[1]).slice(0, 4);
      return most.map(([colour]) => colour.split(",").map(Number));
    }"""
    light = page.evaluate(commonest)
    page.emulate_media(color_scheme="dark")
    drawn(page)
    dark = page.evaluate(commonest)
    assert has(light, 0x00, 0x6C, 0x9D)
    assert has(dark, 0x5D, 0xBE, 0xE9)
    assert not has(dark, 0x00, 0x6C, 0x9D)


def has(colours: list[list[int]], *wanted: int) -> bool:
    """Whether one of them is `wanted`, as exactly as a canvas draws."""
    return any(max(abs(a - b) for a, b in zip(one, wanted, strict=True)) < 3 for one in colours)


def test_after_a_form_s_answer_charts_and_tables_work_as_before(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    page.get_by_text("day", exact=True).click()
    with page.expect_response("**/cohort?**"):
        page.get_by_role("button", name="Show").click()
    page.wait_for_url("**by=day**")
    settle(page)
    assert page.locator("figure[data-chart] .uplot").count() == 1
    assert page.locator(".heat [tabindex='0']").count() == 1


def test_a_page_that_is_asked_again_and_again_keeps_nothing_of_former_answers(
    site: str, visit: Visit
) -> None:
    page = visit(f"{site}/cohort")
    # Whatever listens on these outlives its element.
    page.evaluate("""() => {
      const outlives = (one) => [window, document].includes(one) || one instanceof MediaQueryList;
      window.listening = 0;
      for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
        const original = EventTarget.prototype[name];
        EventTarget.prototype[name] = function (...given) {
          if (outlives(this ?? window)) window.listening += step;
          return original.apply(this, given);
        };
      }
    }""")
    for by in ("day", "week", "day"):
        page.get_by_text(by, exact=True).click()
        with page.expect_response("**/cohort?**"):
            page.get_by_role("button", name="Show").click()
        page.wait_for_url(f"**by={by}**")
        settle(page)
    assert page.locator("figure[data-chart] .uplot").count() == 1
    assert page.evaluate("window.listening") <= 0
