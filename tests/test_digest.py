"""digest: a board as HTML that mail programs keep, as text, as JSON, as a message."""

from __future__ import annotations

import email
import email.policy
import json
import re
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_bitmapist import FlaskBitmapist, chart, mark_event, mark_unique
from flask_bitmapist.boards import board_of
from flask_bitmapist.digest import HEIGHT, Digest
from flask_bitmapist.reading.segments import Event
from flask_bitmapist.saved import save
from flask_bitmapist.tracker import Tracker

NOW = datetime(2026, 11, 23, 14, 32)  # a Monday
CHARTS = [
    chart("Sign-ups", "trend", event="user:created", by="week", rows=9),
    chart("Who stays", "retention", cohort="user:created", returned="user:seen", by="week"),
    chart("Far", "funnel", steps=["user:created", "user:seen", "user:paid"], by="week"),
    chart("Life", "lifecycle", event="user:seen", by="week", rows=4),
    chart("Often", "stickiness", event="user:seen"),
]


@pytest.fixture
def app(app_with_pages: Flask) -> Flask:
    return app_with_pages


@pytest.fixture
def extension(app: Flask, at_now: None) -> FlaskBitmapist:
    """An app with a board, and some weeks of marks."""
    for ago in range(0, 63, 7):
        day = NOW - timedelta(days=ago)
        mark_event("user:created", [*range(10 * ago, 11 * ago + 3)], now=day)
        mark_event("user:seen", [*range(0, 12 * ago + 3, 2)], now=day)
    extension: FlaskBitmapist = app.extensions["bitmapist"]
    extension.board("Weekly", CHARTS)
    return extension


class _Tags(HTMLParser):
    """The tags of a document, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_mail_has_only_what_mail_programs_keep(extension: FlaskBitmapist) -> None:
    found = _Tags(extension.digest("Weekly", url="https://shop.example").html)
    assert found.open == []
    tags = {tag for tag, _ in found.tags}
    assert tags.isdisjoint({"svg", "img", "script", "style", "link", "form", "iframe", "div"})
    for tag, attributes in found.tags:
        assert "class" not in attributes
        for address in (attributes.get("href"), attributes.get("src")):
            assert address is None or address.startswith("https://shop.example/bitmapist/")
        assert "url(" not in (attributes.get("style") or ""), tag


#: What Gmail, Yahoo, Apple Mail and Outlook on Windows (which shows mails with Word) all keep.
KEPT = {
    *("background", "color", "font-family", "font-size", "font-weight", "line-height", "height"),
    *("margin", "padding", "padding-right", "border", "border-top", "border-bottom"),
}
#: Those that some ignore, where something else does the same, or nothing is lost.
IGNORED_BY_SOME = {"max-width", "table-layout", "border-radius"}


def test_outlook_on_windows_shows_the_charts_too(extension: FlaskBitmapist) -> None:
    html = extension.digest("Weekly").html
    styles = [attributes.get("style") or "" for _, attributes in _Tags(html).tags]
    used = {one.partition(":")[0] for style in styles for one in style.split(";") if one}
    assert used <= KEPT | IGNORED_BY_SOME
    # Word gives an empty cell the height of a line, or none at all.
    blocks = re.findall(r'<td[^>]* height="\d+"[^>]*font-size:1px[^>]*>([^<]*)</td>', html)
    assert set(blocks) == {"\N{NO-BREAK SPACE}"}
    assert "<!--[if mso]><style>td{mso-line-height-rule:exactly}</style><![endif]-->" in html
    # It knows neither `max-width` nor `table-layout`.
    assert re.search(r'<!--\[if mso\]><table [^>]*width="640"[^>]*><tr><td><!\[endif\]-->', html)
    assert "<!--[if mso]></td></tr></table><![endif]-->" in html
    columns = re.findall(r'<td(?: width="(\d+%)")?[^>]* style="padding-right:1px"', html)
    assert columns
    assert "" not in columns


def test_each_chart_has_its_figure_its_picture_and_its_figures_as_text(
    extension: FlaskBitmapist,
) -> None:
    made = extension.digest("Weekly")
    assert made.subject == "Weekly: 23 Nov 2026"
    text = made.text
    assert text.startswith("Weekly\nas of 23 Nov 2026, 14:32 (UTC)\n\nSign-ups\n")
    assert (
        "10 did user:created in the week of 16 Nov 2026; 17 the week before\n"
        "  week of 23 Nov 2026, so far  3\n"
        "  week of 16 Nov 2026          10\n"
    ) in text
    assert "  and 2 more\n" in text
    words = re.sub(r"<[^>]+>|\s+", " ", made.html)
    for one in CHARTS:
        assert one.title in text
        assert one.title in words
    for line in text.splitlines():
        for part in re.split(r"\s{2,}", line.strip()):
            assert part in re.sub(r" +", " ", words) or " as of " in f" {part}", part


def test_columns_are_as_high_as_the_figures(extension: FlaskBitmapist) -> None:
    mark_event("even", [*range(100)], now=NOW - timedelta(days=2))
    mark_event("even", [*range(50)], now=NOW - timedelta(days=1))
    mark_event("even", [1], now=NOW)
    extension.board("One", [chart("Even", "trend", event="even", rows=4)])
    html = extension.digest("One").html
    blocks = re.findall(r'<td height="(\d+)" bgcolor="(#\w+)" style="font-size', html)
    # The last one is so far, and 1 of 100 is still to be seen.
    assert [(int(height), colour) for height, colour in blocks] == [
        (HEIGHT, "#006c9d"),
        (HEIGHT // 2, "#006c9d"),
        (1, "#a9cde0"),
    ]


def test_a_full_board_is_small_enough_not_to_be_cut(extension: FlaskBitmapist) -> None:
    # Gmail cuts a message behind 102 kB.
    charts = [chart(f"Chart {n}", "lifecycle", event="user:seen", rows=90) for n in range(12)]
    extension.board("Full", charts)
    html = extension.digest("Full", url="https://a-rather-long-name.shop.example").html
    assert len(html.encode()) < 102_000
    assert html.count("resurrected, ") == 12 * 7


def test_links_need_an_address(app: Flask, extension: FlaskBitmapist) -> None:
    assert "href" not in extension.digest("Weekly").html
    app.config["SERVER_NAME"] = "shop.example"
    assert 'href="http://shop.example/bitmapist/cohort?' in extension.digest("Weekly").html
    made = extension.digest("Weekly", url="https://other.example/under")
    assert 'href="https://other.example/under/bitmapist/cohort?' in made.html
    assert "https://other.example/under/bitmapist/stickiness?" in made.text


@pytest.mark.parametrize("url", [None, "https://shop.example/under", "https://proxy.example"])
def test_an_app_that_trusts_its_own_host_alone_sends_digests(
    app: Flask, extension: FlaskBitmapist, url: str | None
) -> None:
    app.config["TRUSTED_HOSTS"] = [".shop.example"]
    made = extension.digest("Weekly", url=url)
    assert ("href=" in made.html) == (f'href="{url}/bitmapist/cohort?' in made.html) == bool(url)


@pytest.mark.parametrize("url", ["shop.example", "ftp://shop.example", "javascript:alert(1)", ""])
def test_an_address_that_is_none_is_an_error(extension: FlaskBitmapist, url: str) -> None:
    with pytest.raises(ValueError, match="the address must begin with https://"):
        extension.digest("Weekly", url=url)


def test_a_board_that_there_is_not_is_an_error_with_those_there_are(
    extension: FlaskBitmapist,
) -> None:
    with pytest.raises(ValueError, match="there is no board 'Daily': there are 'Weekly'"):
        extension.digest("Daily")


def test_a_saved_board_is_sent_too(extension: FlaskBitmapist, tracker: Tracker) -> None:
    save(tracker.redis, board_of("Ours", CHARTS[:1]))
    assert extension.digest("Ours").subject == "Ours: 23 Nov 2026"


def test_titles_and_names_are_text(extension: FlaskBitmapist) -> None:
    name = "<b>\"bold\" & 'sly'</b>"
    mark_event(name, 1, now=NOW)
    extension.board(name, [chart(name, "trend", event=str(Event(name)))])
    made = extension.digest(name)
    assert "<b>" not in made.html
    assert name in made.text
    message = email.message_from_bytes(made.message().as_bytes(), policy=email.policy.default)
    assert message["Subject"] == f"{name}: 23 Nov 2026"


def test_a_chart_that_cannot_be_answered_says_so_in_its_place(extension: FlaskBitmapist) -> None:
    mark_event("visitor:seen", "ada")
    mixed = chart("Mixed", "trend", event="user:seen & visitor:seen")
    extension.board("Mixed", [mixed, CHARTS[0]])
    made = extension.digest("Mixed")
    for told in (made.text, made.html):
        assert "different kinds" in told
        assert "did user:created in the week of 16 Nov 2026" in told
    assert "error" in made.to_dict()["charts"][0]


def test_an_app_without_the_dashboard_can_send_digests(redis_url: str, tmp_path: Path) -> None:
    app = Flask("quiet", instance_path=str(tmp_path))
    app.config.update(SERVER_NAME="shop.example")
    options = {"BITMAPIST_REDIS_URL": redis_url, "DISABLE_BLUEPRINT": True}
    extension = FlaskBitmapist(app, options)
    extension.board("Weekly", CHARTS)
    with app.app_context():
        made = extension.digest("Weekly")
    assert isinstance(made, Digest)
    assert "href" not in made.html
    extension.tracker_of(app).server.close()


# The command


@pytest.fixture
def runner(app: Flask, extension: FlaskBitmapist) -> FlaskCliRunner:
    return app.test_cli_runner()


def test_the_command_prints_text_html_and_json(
    runner: FlaskCliRunner, extension: FlaskBitmapist
) -> None:
    made = extension.digest("Weekly")

    def printed(*options: str) -> str:
        done = runner.invoke(args=["bitmapist", "digest", "Weekly", *options])
        assert done.exit_code == 0, done.output
        return done.output

    assert printed() == made.text
    assert printed("--html") == f"{made.html}\n"
    told: dict[str, Any] = json.loads(printed("--json"))
    assert told == json.loads(json.dumps(made.to_dict()))
    assert [one["title"] for one in told["charts"]] == [one.title for one in CHARTS]
    assert told["charts"][0]["answer"]["points"][-2]["users"] == 10


def test_the_command_prints_a_message_for_sendmail(runner: FlaskCliRunner) -> None:
    done = runner.invoke(
        args=[
            *("bitmapist", "digest", "Weekly", "--to", "a@shop.example, b@shop.example"),
            *("--from", "stats@shop.example", "--url", "https://shop.example"),
        ]
    )
    assert done.exit_code == 0, done.output
    message: Any = email.message_from_bytes(done.stdout_bytes, policy=email.policy.default)
    assert message["To"] == "a@shop.example, b@shop.example"
    assert message["From"] == "stats@shop.example"
    assert message["Subject"] == "Weekly: 23 Nov 2026"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert "Sign-ups" in message.get_body(("html",)).get_content()
    assert max(map(len, done.stdout_bytes.splitlines())) < 998


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("Daily",), "there is no board 'Daily': there are 'Weekly'"),
        (("Weekly", "--html", "--json"), "give one of --html, --json and --to"),
        (("Weekly", "--to", "a@b\nBcc: c@d"), "Header values may not contain linefeed"),
        (("Weekly", "--url", "shop"), "must begin with https://"),
    ],
)
def test_a_digest_that_cannot_be_made_says_why(
    runner: FlaskCliRunner, arguments: tuple[str, ...], complaint: str
) -> None:
    done = runner.invoke(args=["bitmapist", "digest", *arguments])
    assert done.exit_code == 2
    assert complaint in done.output


def test_a_server_that_is_away_is_a_sentence() -> None:
    app = Flask("away")
    extension = FlaskBitmapist(app, {"BITMAPIST_REDIS_URL": "unix:///nowhere"})
    extension.board("Weekly", CHARTS)
    done = app.test_cli_runner().invoke(args=["bitmapist", "digest", "Weekly"])
    assert done.exit_code == 1
    assert "Redis does not answer" in done.output


# Targets


def test_a_target_is_a_line_through_all_columns(extension: FlaskBitmapist) -> None:
    mark_event("even", [*range(100)], now=NOW - timedelta(days=1))
    extension.board("Aim", [chart("Even", "trend", target=50, event="even", rows=3)])
    made = extension.digest("Aim")
    assert "did even on 22 Nov 2026; 0 the day before; target 50" in made.text
    picture = made.html.partition("aria-hidden")[2].partition("</tr></table>\n")[0]
    columns = picture.split("</table></td>")[:3]
    blocks = [
        re.findall(r'height="(\d+)"(?: bgcolor="(#\w+)")? style="font', one) for one in columns
    ]
    half = str(HEIGHT // 2)
    line, below = ("2", "#ad4e1c"), (str(HEIGHT // 2 - 2), "")
    assert blocks == [
        [line, below],
        [(half, "#006c9d"), line, (below[0], "#006c9d")],
        [line, below],
    ]


def test_a_target_that_is_not_reached_is_within_the_picture(extension: FlaskBitmapist) -> None:
    extension.board("Far", [chart("Far", "trend", target=5000, event="user:created", rows=3)])
    html = extension.digest("Far").html
    assert html.count('height="2" bgcolor="#ad4e1c"') == 3
    assert "target 5,000" in html


def test_what_is_noted_stands_below_its_picture(
    extension: FlaskBitmapist, tracker: Tracker
) -> None:
    extension.annotation(date(2026, 11, 17), "v2.0 <b>")
    made = extension.digest("Weekly")
    assert "  17 Nov 2026: v2.0 <b>\n" in made.text
    assert "<b>17 Nov 2026</b> v2.0 &lt;b&gt;</p>" in made.html


def test_parts_of_a_chart_are_told_with_their_values(extension: FlaskBitmapist) -> None:
    mark_unique("pro", [*range(20)])
    broken = chart(
        "Plans", "trend", event="user:created", by="week", rows=3, breakdown=["flag:pro"]
    )
    several = chart("Several", "trends", events=["user:created", "user:seen"], by="week", rows=40)
    extension.board("Parts", [broken, several])
    made = extension.digest("Parts")
    (told,) = re.findall(r"^  of them: (.*)$", made.text, re.M)
    assert "flag:pro" in told
    assert f"of them: {told}" in re.sub(r"\s+", " ", made.html)
    # Of many periods the latest are shown, whatever the report.
    assert "Several\n10 did user:created in the week of 16 Nov 2026" in made.text
    assert made.text.count("  week of 23 Nov 2026, so far  3\n") == 2
