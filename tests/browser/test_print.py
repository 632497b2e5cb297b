"""On paper: all of the figures, and nothing that can only be clicked."""

from __future__ import annotations

import pytest

from .pages import PAGES
from .visitors import Visit

#: A4 without its margins.
PAPER = {"width": 688, "height": 1000}
#: What is drawn beyond the right edge, where no printer reaches.
CUT = """() => [...document.querySelectorAll("main :is(h2, p, th, td, .card, .calendar, .chart)")]
  .filter((part) => part.checkVisibility() && !part.closest("caption, .unseen, .tip"))
  .filter((part) => part.getBoundingClientRect().right > innerWidth + 1)
  .map((part) => part.outerHTML.slice(0, 160))"""
FOR_SCREENS = "header nav, .find, .ask, .saving, .formats, .pager, summary, button"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_printed_whole_and_without_its_controls(
    site: str, visit: Visit, name: str
) -> None:
    page = visit(site + PAGES[name][0])
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print")
    assert page.evaluate(CUT) == []
    assert page.locator(FOR_SCREENS).filter(visible=True).count() == 0
    assert page.locator("h1").is_visible()


def test_a_long_table_is_printed_to_its_end(site: str, visit: Visit) -> None:
    page = visit(site + PAGES["trends"][0])
    page.emulate_media(media="print")
    table = page.locator(".short")
    assert table.evaluate("(box) => box.scrollHeight <= box.clientHeight")
