"""A real browser in front of a real server: ``nox -s browser``.

Chromium and axe-core are looked for when a test asks for them. What is missing skips the tests, or
fails them where BROWSER_REQUIRED is set. A test whose page breaks its Content-Security-Policy, asks
another host for anything or writes an error to the console fails by itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from .served import application, record, serve
from .visitors import USUAL, VISITORS, Visit, Watch, settle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "google-chrome")


def missing(what: str, remedy: str) -> None:
    """Skip without `what`; fail where a browser is required."""
    give_up = pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip
    give_up(f"{what} is missing: {remedy}")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    # For the package, not the session: while Playwright runs, the thread has an event loop, and
    # other tests start one of their own.
    if find_spec("playwright") is None:
        missing("playwright", "run nox -s browser")
    from playwright.sync_api import Error, sync_playwright

    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            missing("Chromium", f"install it, or set CHROMIUM ({error.message.splitlines()[0]})")
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def axe() -> str:
    """The source of axe-core."""
    file = os.environ.get("AXE_CORE", "")
    if not Path(file).is_file():
        missing("axe-core", "run nox -s browser, or let AXE_CORE name its axe.min.js")
    return Path(file).read_text("utf-8")


@pytest.fixture(scope="package")
def marked_app(browser: Browser, server: Any) -> Flask:
    """An app with four months of marks; nobody makes them where there is no browser."""
    app = application(server.fresh_database())
    record(app)
    return app


@pytest.fixture(scope="package")
def site(marked_app: Flask) -> Iterator[str]:
    """The address of its dashboard."""
    with serve(marked_app) as url:
        yield f"{url}/bitmapist"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a page for a kind of visitor, in a context that nobody has used.

    ``visit(url, visitor="usual", refused=())``: `refused` lists the statuses that are no success.
    """
    visits: list[tuple[BrowserContext, Watch, list[int]]] = []

    def visit(url: str, visitor: str = "usual", refused: tuple[int, ...] = ()) -> Page:
        context = browser.new_context(**USUAL | VISITORS[visitor])
        visits.append((context, Watch(context), [*refused]))
        page = context.new_page()
        page.goto(url)
        if VISITORS[visitor].get("java_script_enabled", True):
            settle(page)
        return page

    yield visit
    for context, watch, refused in visits:
        context.close()
        assert watch.faults == []
        assert watch.refused == refused
