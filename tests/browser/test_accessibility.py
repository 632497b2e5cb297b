"""For everybody: axe-core's rules, the way by keyboard alone, and colours that can be read."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from .pages import MISTAKES, PAGES
from .served import application, serve
from .visitors import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
STEPS = 21

#: What can be reached with the Tab key; of radio buttons, the chosen one.
REACHABLE = """() => [..."a[href], button, input, select, summary, [tabindex]".split(", ")]
  .flatMap((kind) => [...document.querySelectorAll(kind)])
  .filter((element, i, all) => all.indexOf(element) === i)
  .filter((element) => element.tabIndex >= 0 && !element.disabled && element.type !== "hidden")
  .filter((element) => element.type !== "radio" || element.checked)
  .filter((element) => element.checkVisibility() || element.className === "skip").length"""

#: What has the focus: its number; whether its look, or that of the control it belongs to, differs
#: from what it is when something else has the focus (known a step later).
FOCUSED = """() => {
  const seen = window.seen ??= new Map();
  const look = (element) => [element, element.nextElementSibling, element.closest(".ts-control")]
    .filter(Boolean).map((part) => getComputedStyle(part))
    .map((style) => `${style.outlineStyle} ${style.outlineWidth} ${style.outlineColor}`).join();
  const last = window.last;
  const now = document.activeElement;
  const unmarked = last && last !== now && last.isConnected && look(last) === seen.get(last)
    ? last.outerHTML.slice(0, 160) : null;
  window.last = now === document.body ? null : now;
  if (window.last) seen.set(now, look(now));
  const box = now.getBoundingClientRect();
  return { end: !window.last, reached: seen.size, unmarked,
    hidden: box.bottom < 0 || box.top > innerHeight ? now.outerHTML.slice(0, 160) : null };
}"""


def violations(page: Page) -> list[str]:
    found: dict[str, Any] = page.evaluate(
        "(tags) => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", RULES
    )
    return [
        f"{rule['id']} ({rule['help']}): {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]


def examine(page: Page, axe: str) -> None:
    """Nothing is wrong in any theme, nor in a narrow window."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    page.evaluate(axe)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(site: str, visit: Visit, axe: str, name: str) -> None:
    examine(visit(site + PAGES[name][0]), axe)


@pytest.mark.parametrize("name", MISTAKES)
def test_axe_finds_nothing_where_something_is_wrong(
    site: str, visit: Visit, axe: str, name: str
) -> None:
    address, status = MISTAKES[name]
    examine(visit(site + address, refused=(status,)), axe)


def test_axe_finds_nothing_before_the_first_mark(
    browser: Browser, visit: Visit, axe: str, redis_url: str
) -> None:
    with serve(application(redis_url)) as url:
        page = visit(f"{url}/bitmapist/")
        examine(page, axe)
        page.close()  # before its server ends: it asks again every two seconds


def test_axe_finds_nothing_in_an_open_picker(site: str, visit: Visit, axe: str) -> None:
    page = visit(f"{site}/cohort")
    page.locator(".ts-control").first.click()
    page.locator(".ts-dropdown .option").first.wait_for()
    page.evaluate(axe)
    assert violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_all_of_a_page_is_reached_by_tab_and_shows_where_one_is(
    site: str, visit: Visit, name: str
) -> None:
    page = visit(site + PAGES[name][0])
    for summary in page.locator("summary").all():
        summary.evaluate("(summary) => { summary.parentElement.open = true; }")
    reachable = page.evaluate(REACHABLE)
    assert reachable > 8
    for _ in range(3 * reachable):
        page.keyboard.press("Tab")
        step = page.evaluate(FOCUSED)
        assert step["unmarked"] is None
        assert step["hidden"] is None
        if step["end"]:
            break
    assert step["end"], "the focus does not leave the page"
    assert step["reached"] == reachable


@pytest.mark.parametrize("visitor", ["usual", "narrow"])
def test_the_first_stop_skips_to_the_figures(site: str, visit: Visit, visitor: str) -> None:
    page = visit(f"{site}/cohort", visitor)
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert skip.inner_text() == "Skip to the figures"
    box = skip.bounding_box()
    assert box["x"] >= 0
    assert box["y"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


@pytest.mark.parametrize("visitor", ["usual", "dark"])
def test_heat_is_even_and_its_figures_are_readable_on_every_step(
    site: str, visit: Visit, visitor: str
) -> None:
    page = visit(f"{site}/cohort", visitor)
    styles = page.evaluate(
        """(steps) => [...Array(steps).keys()].map((step) => {
          const cell = document.createElement("div");
          cell.className = `q${step}`;
          document.body.append(cell);
          const style = getComputedStyle(cell);
          return [style.color, style.backgroundColor, style.fill];
        })""",
        STEPS,
    )
    grounds = [luminance(ground) for _, ground, _ in styles]
    for step, (ink, ground, fill) in enumerate(styles):
        assert fill == ground, f"q{step}"
        assert contrast(luminance(ink), grounds[step]) >= 4.5, f"q{step}"
    lightness = [116 * ground ** (1 / 3) for ground in grounds]
    falls = [a - b if visitor == "usual" else b - a for a, b in pairwise(lightness)]
    assert min(falls) > 1
    assert max(falls) < 4 * min(falls)


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
