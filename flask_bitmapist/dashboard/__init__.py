"""The dashboard: a blueprint of server-rendered pages, closed to strangers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    has_request_context,
    request,
    request_finished,
)
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import BadRequest

from ..refusals import SERVER_ERRORS
from .access import refuse_strangers
from .pages import PAGES, PageEntry

if TYPE_CHECKING:
    from flask.sansio.app import App

#: Pages are self-contained: styles, scripts and figures from this blueprint, nothing inline,
#: nothing from elsewhere, in no one's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "same-origin",
}


#: The part of a rule that stands for the host, in applications whose rules have one.
_HOST = "bitmapist_host"


class _Registration(BlueprintSetupState):
    """Adds the rules; where the application's rules have hosts, ours answer on each of them."""

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        if self.app.url_map.host_matching:
            # Without a host a rule would match none.
            options.setdefault("host", f"<{_HOST}>")
        super().add_url_rule(rule, endpoint, view_func, **options)


class _Dashboard(Blueprint):
    def make_setup_state(
        self, app: App, options: dict[str, Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        return _Registration(self, app, options, first_registration)


def blueprint() -> Blueprint:
    """A fresh blueprint named ``bitmapist``; the extension registers it under the URL prefix."""
    pages = _Dashboard("bitmapist", __name__, static_folder="static")
    pages.before_request(refuse_strangers)
    pages.before_request(_refuse_unsafe)
    pages.record_once(_seal_answers_of)
    pages.url_value_preprocessor(_forget_host)
    pages.url_defaults(_keep_host)
    for page in PAGES:
        pages.add_url_rule(page.address, page.endpoint, _answer_of(page), methods=page.methods)
    pages.register_error_handler(BadRequest, _bad_request)
    for error in SERVER_ERRORS:
        pages.register_error_handler(error, _no_answer)
    return pages


def _answer_of(page: PageEntry) -> Callable[[], Response]:
    return lambda: page.view()


def _refuse_unsafe() -> Response | None:
    if request.method == "GET":
        return None
    from .answers import refuse_unsafe

    return refuse_unsafe()


# The application's own checks run before ours, and may fail: strangers are told nothing then.


def _bad_request(error: BadRequest) -> Any:
    from .answers import bad_request

    return refuse_strangers() or bad_request(error)


def _no_answer(error: Exception) -> Any:
    from .answers import no_answer

    return refuse_strangers() or no_answer(error)


def _seal_answers_of(state: BlueprintSetupState) -> None:
    request_finished.connect(_seal, state.app)


def _seal(app: Flask, response: Response, **_: object) -> None:
    """Set our headers on an answer, after all that the application's ``after_request`` did to it.

    One of those may have put another response in the place of ours, so the signal is the first to
    know which one is sent.
    """
    if request.blueprint != "bitmapist":
        return
    response.headers.update(HEADERS)
    if request.endpoint != "bitmapist.static" or response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"


def _forget_host(_: str | None, values: dict[str, Any] | None) -> None:
    """Views take no host."""
    if values:
        values.pop(_HOST, None)


def _keep_host(_: str, values: dict[str, Any]) -> None:
    """Links of a page stay on its host."""
    if current_app.url_map.host_matching:
        on = request.host if has_request_context() else current_app.config["SERVER_NAME"]
        values.setdefault(_HOST, on)
