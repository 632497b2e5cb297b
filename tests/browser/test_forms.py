"""Forms: pickers, addresses worth sharing, and the segment builder."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from .served import AWKWARD
from .visitors import Visit, settle

if TYPE_CHECKING:
    from playwright.sync_api import Page


def show(page: Page) -> None:
    """Submit the form, and wait for the answer."""
    with page.expect_response(lambda response: urlsplit(response.url).path.startswith("/")):
        # By keyboard: a list of events may still cover it.
        page.get_by_role("button", name="Show").press("Enter")
    settle(page)


def asked(page: Page) -> list[tuple[str, str]]:
    """The address's query string."""
    return parse_qsl(urlsplit(page.url).query, keep_blank_values=True)


def pick(page: Page, label: str, typed: str) -> None:
    """Choose an event as one does by keyboard."""
    page.locator(f'.ts-control input[aria-label="{label}"]').focus()
    page.keyboard.type(typed)
    page.locator(".ts-dropdown .option.active").wait_for()
    page.keyboard.press("Enter")


def test_an_event_is_chosen_by_keyboard_and_asked_for(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    before = page.text_content(".heat")
    pick(page, "The event by which they return", "post:re")
    show(page)
    assert ("returned", "post:read") in asked(page)
    assert "post:read" in page.inner_text(".lede")
    assert page.text_content(".heat") != before


def test_a_long_name_in_a_picker_ends_before_its_arrow(site: str, visit: Visit) -> None:
    (long,) = (name for name in AWKWARD if len(name) > 99)
    page = visit(f"{site}/cohort?{urlencode({'cohort': long})}")
    picker = page.locator(".ts-control").first
    room = picker.evaluate("""(picker) => {
      const right = (element) => element.getBoundingClientRect().right;
      return right(picker) - right(picker.querySelector(".item"));
    }""")
    arrow = picker.evaluate("""(picker) => {
      const style = getComputedStyle(picker, "::after");
      return Math.SQRT2 * parseFloat(style.width) + parseFloat(style.right);
    }""")
    assert room > arrow


def test_the_address_is_worth_sharing(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    pick(page, "The event by which they return", "post:re")
    page.get_by_text("month", exact=True).click()
    page.get_by_label("When", exact=True).select_option("this quarter")
    show(page)
    assert "" not in dict(asked(page)).values()
    other = visit(page.url)
    assert other.inner_text("main") == page.inner_text("main")
    plain = visit(page.url, "scriptless")
    assert plain.text_content(".heat") == page.text_content(".heat")


def test_the_back_button_shows_the_former_figures(site: str, visit: Visit) -> None:
    from playwright.sync_api import expect

    page = visit(f"{site}/cohort")
    address, before = page.url, page.text_content(".heat")
    page.get_by_text("month", exact=True).click()
    show(page)
    assert page.text_content(".heat") != before
    page.go_back()
    page.wait_for_url(address)
    expect(page.locator(".heat")).to_have_text(before)
    expect(page.locator(".ts-control")).to_have_count(3)
    page.go_forward()
    page.wait_for_url("**by=month**")


def test_a_form_works_without_javascript(site: str, visit: Visit) -> None:
    page = visit(f"{site}/funnel", "scriptless")
    page.get_by_label("Step 2").select_option("post:read")
    page.get_by_label("Step 3").select_option("post:created")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**step=post**")
    assert page.locator(".funnel tbody th").all_inner_texts() == [
        "1 user:created",
        "2 post:read",
        "3 post:created",
    ]
    assert page.get_by_label("Step 4").input_value() == ""


def test_a_funnel_grows_and_shrinks_by_its_pickers(site: str, visit: Visit) -> None:
    page = visit(f"{site}/funnel")
    pick(page, "Step 3", "post:c")
    show(page)
    assert page.locator(".funnel tbody tr").count() == 3
    pick(page, "Step 2", "no step")
    show(page)
    assert page.locator(".funnel tbody th").all_inner_texts() == [
        "1 user:created",
        "2 post:created",
    ]


def test_a_segment_is_built_condition_by_condition(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort")
    everyone = page.text_content(".heat")
    page.get_by_text("of everyone").click()
    pick(page, "Add a condition", "post:read")
    show(page)
    page.get_by_label("How the next condition joins").select_option("except")
    pick(page, "Add a condition", "flag:user:p")
    show(page)
    page.get_by_label("How the next condition joins").select_option("and")
    pick(page, "Add a condition", "sold")
    show(page)
    text = page.get_by_label("as text")
    assert text.input_value() == "post:read - flag:user:premium & sold"
    assert dict(asked(page))["term"] == "sold"
    page.get_by_role("link", name="Remove sold").click()
    page.wait_for_url(lambda url: "sold" not in url)
    assert text.input_value() == "post:read - flag:user:premium"
    conditions = page.locator(".conditions li").all_inner_texts()
    assert [" ".join(one.split()[:-1]) for one in conditions] == [
        "post:read",
        "except flag:user:premium",
    ]
    assert page.text_content(".heat") != everyone


def test_a_broken_segment_is_marked_under_the_character(site: str, visit: Visit) -> None:
    page = visit(f"{site}/cohort", refused=(400,))
    page.get_by_text("of everyone").click()
    page.get_by_label("as text").fill("post:read & | sold")
    page.keyboard.press("Enter")
    page.locator("#segment-error").wait_for()
    _, text, caret, _ = page.inner_text("#segment-error").splitlines()
    assert text[caret.index("^")] == "|"
    assert page.get_by_label("as text").get_attribute("aria-invalid") == "true"
    assert page.get_by_label("as text").input_value() == "post:read & | sold"
    assert page.get_by_label("as text").is_visible()
    assert page.locator(".problem").count() == 1


def test_a_segment_of_several_conditions_is_read_without_scrolling(site: str, visit: Visit) -> None:
    where = "(post:created & post:read) - did(post:read, last month)"
    page = visit(f"{site}/people?{urlencode({'where': where})}")
    cut = "field => field.scrollWidth - field.clientWidth"
    assert page.locator("input[name=where]").evaluate(cut) <= 0


def test_after_an_answer_one_is_where_one_was_and_hears_what_it_says(
    site: str, visit: Visit
) -> None:
    from playwright.sync_api import expect

    page = visit(f"{site}/funnel", refused=(400,))
    said = page.locator("#said")
    expect(said).to_have_text("")
    page.get_by_label("When", exact=True).select_option("last 7 days")
    page.locator("#show").press("Enter")
    page.wait_for_url("**over=last%207%20days**")
    settle(page)
    assert page.evaluate("document.activeElement.id") == "show"
    expect(said).to_contain_text("Of the people who did user:created in the last 7 days")
    page.get_by_text("of everyone").click()
    page.get_by_label("as text").fill("(")
    page.keyboard.press("Enter")
    page.locator(".problem").wait_for()
    expect(said).to_have_text(page.inner_text(".problem"))


def test_a_table_that_was_opened_stays_open(site: str, visit: Visit) -> None:
    page = visit(f"{site}/lifecycle")
    page.get_by_text("As a table").click()
    page.get_by_text("month", exact=True).click()
    show(page)
    page.locator("th:text-is('Nov 2026 *')").wait_for()


def test_a_screen_reader_finds_one_combobox_a_picker_and_hears_its_choice(
    site: str, visit: Visit
) -> None:
    page = visit(f"{site}/cohort")
    picker = page.get_by_role("combobox", name="The event by which they return")
    assert picker.count() == 1
    assert picker.get_attribute("aria-description") == "user:logged_in"
    pick(page, "The event by which they return", "post:re")
    assert picker.get_attribute("aria-description") == "post:read"


def test_a_day_that_is_not_chosen_is_today(site: str, visit: Visit) -> None:
    page = visit(f"{site}/")
    assert page.locator(".until span").is_visible()
    page.locator("input[name=end]").fill("2026-10-31")
    assert page.locator(".until span").is_hidden()
    show(page)
    assert dict(asked(page))["end"] == "2026-10-31"
    assert page.locator(".until span").is_hidden()


def test_a_range_has_a_name_or_two_days(site: str, visit: Visit) -> None:
    page = visit(f"{site}/lifecycle?over=last+month")
    names = page.get_by_label("When", exact=True)
    first, last = (page.locator(f"input[name={name}]") for name in ("start", "end"))
    assert not first.is_visible()
    names.select_option("dates …")
    # The days begin as those that are shown: the weeks of October.
    assert (first.input_value(), last.input_value()) == ("2026-09-28", "2026-11-01")
    first.fill("2026-10-12")
    page.locator("#show").click()
    page.wait_for_url("**start=2026-10-12&end=2026-11-01**")
    settle(page)
    assert "over=" not in page.url
    assert first.is_visible()
    names.select_option("this quarter")
    assert not first.is_visible()
    page.locator("#show").click()
    page.wait_for_url("**over=this%20quarter**")
    assert "start=" not in page.url


def test_a_link_to_the_range_is_copied(site: str, visit: Visit) -> None:
    page = visit(f"{site}/lifecycle?over=last+28+days")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    said = page.locator("#said")
    for name, part in (("last 28 days", "over=last+28+days"), ("these dates", "end=2026-11-25")):
        link = page.get_by_role("link", name=name)
        link.click()
        assert part in page.evaluate("navigator.clipboard.readText()")
        assert said.text_content() == "The link is copied."


@pytest.mark.parametrize("visitor", ["usual", "scriptless"])
def test_a_question_is_saved_on_a_new_board_and_the_board_deleted(
    site: str, visit: Visit, visitor: str
) -> None:
    page = visit(f"{site}/churned?silent=2", visitor)
    page.get_by_text("Save this question").click()
    form = page.locator(".saving form")
    form.locator("[name=title]").fill("Who left")
    form.locator("[name=to]").select_option("new")
    form.locator("[name=name]").fill(f"Board of the {visitor}")
    form.get_by_role("button", name="Save").click()
    page.locator("h1", has_text=f"Board of the {visitor}").wait_for()
    assert page.locator(".board h2").all_inner_texts() == ["Who left"]
    page.get_by_text("Rename or delete this board").click()
    page.get_by_role("button", name="Delete the board").click()
    page.locator("h1", has_text="Boards").wait_for()
    assert f"Board of the {visitor}" not in page.inner_text("main")
