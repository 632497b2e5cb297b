"""The kinds of visitor, and what is noticed while they look."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a run without a browser loads nothing of it
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request

#: What opens a page for a kind of visitor: the fixture `visit`.
Visit = Callable[..., "Page"]
SCREENSHOTS = Path(os.environ.get("BROWSER_SCREENSHOTS", Path(__file__).parent / "screenshots"))
USUAL: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}
#: How each differs from the usual one, in Playwright's words.
VISITORS: dict[str, dict[str, Any]] = {
    "usual": {},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
    "still": {"reduced_motion": "reduce"},
    "scriptless": {"java_script_enabled": False},
}
#: Chromium's own line about an answer that is no success.
_STATUS = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


class Watch:
    """What the pages of a context do that they should not."""

    def __init__(self, context: BrowserContext) -> None:
        self.faults: list[str] = []
        #: The statuses of answers that are no success, as the browser noted them.
        self.refused: list[int] = []
        context.on("console", self._console)
        context.on("request", self._request)
        context.on("weberror", lambda error: self.faults.append(f"uncaught: {error.error}"))
        context.expose_function("violated", lambda what: self.faults.append(f"CSP: {what}"))
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (event) =>"
            " violated(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"
        )

    def _console(self, message: ConsoleMessage) -> None:
        if status := _STATUS.match(message.text):
            self.refused.append(int(status[1]))
        elif message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.faults.append(f"a request to {request.url}")


def settle(page: Page) -> None:
    """Wait until the page has what it loads by itself."""
    page.locator(":root:not(:has(#figures[aria-busy], .htmx-request))").wait_for()


def drawn(page: Page) -> None:
    """Wait until the page has answered a change of the window or the theme."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(page: Page, name: str) -> None:
    """Keep the page as it looks now."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
